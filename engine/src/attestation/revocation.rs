//! Google's list of revoked attestation certificates.
//!
//! The format is JSON: `entries` maps a serial number to a status and a
//! reason (developer.android.com, "Verify hardware-backed key pairs with key
//! attestation"). Serials have been written in decimal and in hexadecimal, and
//! a string of digits alone may be either, so such an entry stands for both
//! readings. Reasons that are not known are no error: the status decides.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::attestation::Reason;
use crate::ids::Micros;
use crate::terms::terms;

/// Longest list that is read, in bytes.
pub const LIST_MAX: usize = 4 * 1024 * 1024;
/// Longest serial number of a certificate, in bytes (RFC 5280 section 4.1.2.2
/// allows 20; some more are put up with).
const SERIAL_MAX: usize = 32;

terms! {
    /// What the list says of a certificate.
    ListStatus {
        /// Not to be trusted again.
        Revoked = 1 "REVOKED",
        /// Not to be trusted until further notice.
        Suspended = 2 "SUSPENDED",
    }
}

impl ListStatus {
    /// Why evidence with such a certificate is refused.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Revoked => Reason::CertificateRevoked,
            Self::Suspended => Reason::CertificateSuspended,
        }
    }
}

/// Why bytes are no list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// More than [`LIST_MAX`] bytes.
    #[error("a revocation list longer than {LIST_MAX} bytes")]
    TooLong,
    /// Not JSON of this form.
    #[error("not a revocation list: {0}")]
    Form(String),
    /// A serial number that is neither decimal nor hexadecimal, or too long.
    #[error("not a serial number: {0:?}")]
    Serial(String),
    /// A status that is neither REVOKED nor SUSPENDED: what it asks for is not known.
    #[error("unknown status {0:?}")]
    Status(String),
}

/// Serial numbers that are not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RevocationList {
    /// When the list was taken over.
    pub taken_at: Micros,
    entries: BTreeMap<Vec<u8>, ListStatus>,
}

#[derive(Deserialize)]
struct File {
    entries: BTreeMap<String, FileEntry>,
}

#[derive(Deserialize)]
struct FileEntry {
    status: String,
}

impl RevocationList {
    /// Reads a list as Google publishes it.
    ///
    /// # Errors
    ///
    /// [`ListError`]: a list is taken whole or not at all, since an entry that
    /// was passed over would be a certificate that is trusted.
    pub fn parse(json: &[u8], taken_at: Micros) -> Result<Self, ListError> {
        if json.len() > LIST_MAX {
            return Err(ListError::TooLong);
        }
        let file: File =
            serde_json::from_slice(json).map_err(|error| ListError::Form(error.to_string()))?;
        let mut entries = BTreeMap::new();
        for (serial, entry) in file.entries {
            let status = ListStatus::parse(&entry.status)
                .ok_or_else(|| ListError::Status(shown(&entry.status)))?;
            for reading in readings(&serial).ok_or_else(|| ListError::Serial(shown(&serial)))? {
                // Two entries of one serial: the stricter word stands.
                let stands = entries.entry(reading).or_insert(status);
                if status == ListStatus::Revoked {
                    *stands = status;
                }
            }
        }
        Ok(Self { taken_at, entries })
    }

    /// A list from its entries, as an event holds them.
    #[must_use]
    pub fn from_entries(
        taken_at: Micros,
        entries: impl IntoIterator<Item = (Vec<u8>, ListStatus)>,
    ) -> Self {
        Self { taken_at, entries: entries.into_iter().collect() }
    }

    /// Its entries by ascending serial.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], ListStatus)> {
        self.entries.iter().map(|(serial, status)| (serial.as_slice(), *status))
    }

    /// What the list says of a serial number, big-endian; leading zeros do not matter.
    #[must_use]
    pub fn status(&self, serial: &[u8]) -> Option<ListStatus> {
        self.entries.get(trimmed(serial)).copied()
    }
}

/// A number without its leading zeros.
pub(crate) fn trimmed(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|&&byte| byte == 0).count();
    &serial[zeros..]
}

/// The numbers that a serial may mean: in hexadecimal, and if it has digits
/// alone in decimal too. None if it is neither or too long.
fn readings(serial: &str) -> Option<Vec<Vec<u8>>> {
    if serial.is_empty() || serial.len() > 2 * SERIAL_MAX {
        return None;
    }
    let hex = numeral(serial, 16)?;
    Some(match numeral(serial, 10) {
        Some(decimal) if decimal != hex => vec![decimal, hex],
        Some(_) | None => vec![hex],
    })
}

/// A numeral's value, big-endian without leading zeros.
fn numeral(text: &str, base: u32) -> Option<Vec<u8>> {
    let mut value: Vec<u8> = Vec::with_capacity(SERIAL_MAX);
    for symbol in text.chars() {
        let mut carry = symbol.to_digit(base)?;
        for byte in &mut value {
            let sum = u32::from(*byte) * base + carry;
            *byte = (sum & 0xff) as u8;
            carry = sum >> 8;
        }
        if carry > 0 {
            value.push(carry as u8);
        }
    }
    value.reverse();
    Some(value)
}

/// Text of a file, short enough for a message.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(json: &str) -> Result<RevocationList, ListError> {
        RevocationList::parse(json.as_bytes(), Micros(1))
    }

    #[test]
    fn a_serial_is_found_in_decimal_and_in_hexadecimal() {
        let list = list(
            r#"{"entries":{"6681152659205225093":{"status":"REVOKED","reason":"KEY_COMPROMISE"},
                "CC66e9":{"status":"SUSPENDED","reason":"NEVER_HEARD_OF"}}}"#,
        )
        .unwrap();
        let decimal = 6_681_152_659_205_225_093_u64.to_be_bytes();
        assert_eq!(list.status(&decimal), Some(ListStatus::Revoked));
        let hex = [0x06, 0x68, 0x11, 0x52, 0x65, 0x92, 0x05, 0x22, 0x50, 0x93];
        assert_eq!(list.status(&hex), Some(ListStatus::Revoked));
        assert_eq!(list.status(&[0, 0, 0xcc, 0x66, 0xe9]), Some(ListStatus::Suspended));
        assert_eq!(list.status(&[0xcc, 0x66, 0xe8]), None);
        assert_eq!(list.status(&[]), None);
    }

    #[test]
    fn of_two_words_for_one_serial_the_stricter_stands() {
        let list = list(r#"{"entries":{"0c":{"status":"REVOKED"},"c":{"status":"SUSPENDED"}}}"#);
        assert_eq!(list.unwrap().status(&[0x0c]), Some(ListStatus::Revoked));
    }

    #[test]
    fn a_list_with_one_entry_that_cannot_be_read_is_no_list() {
        assert!(matches!(list("[]"), Err(ListError::Form(_))));
        assert!(matches!(list("{}"), Err(ListError::Form(_))));
        let bad = r#"{"entries":{"12x":{"status":"REVOKED"}}}"#;
        assert_eq!(list(bad), Err(ListError::Serial("12x".into())));
        let bad = r#"{"entries":{"12":{"status":"FINE"}}}"#;
        assert_eq!(list(bad), Err(ListError::Status("FINE".into())));
        let long = format!(r#"{{"entries":{{"{}":{{"status":"REVOKED"}}}}}}"#, "1".repeat(65));
        assert!(matches!(list(&long), Err(ListError::Serial(_))));
    }

    #[test]
    fn length_is_judged_first() {
        let long = vec![b' '; LIST_MAX + 1];
        assert_eq!(RevocationList::parse(&long, Micros(0)), Err(ListError::TooLong));
    }

    #[test]
    fn entries_give_the_list_back() {
        let list = list(r#"{"entries":{"1234":{"status":"REVOKED"},"ab":{"status":"SUSPENDED"}}}"#)
            .unwrap();
        let entries: Vec<_> =
            list.entries().map(|(serial, status)| (serial.to_vec(), status)).collect();
        assert_eq!(entries.len(), 3);
        assert_eq!(RevocationList::from_entries(Micros(1), entries), list);
    }
}
