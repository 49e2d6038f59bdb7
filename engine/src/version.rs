//! Version numbers of client software.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest version text, in bytes.
pub const VERSION_MAX: usize = 32;

/// A client's version as it declared it: one to four numbers with dots between.
///
/// Two texts can name one version: a number that is missing counts as zero, so
/// `3.8` and `3.8.0` compare equal. Equality (`==`) is of the *texts*, because
/// the text is what was signed; compare versions with
/// [`ClientVersion::compare`], which is why there is no `Ord`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientVersion {
    text: String,
    numbers: [u32; 4],
}

/// Text that is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a version: one to four numbers with dots between, at most {VERSION_MAX} characters")]
pub struct NotAVersion;

impl ClientVersion {
    /// Reads `3`, `3.8`, `3.8.1` or `3.8.1.2045`: decimal digits and dots alone,
    /// no leading zeros, each number at most 4,294,967,295.
    ///
    /// # Errors
    ///
    /// [`NotAVersion`] for anything else.
    pub fn parse(text: &str) -> Result<Self, NotAVersion> {
        if text.len() > VERSION_MAX {
            return Err(NotAVersion);
        }
        let mut numbers = [0; 4];
        let mut slots = numbers.iter_mut();
        for part in text.split('.') {
            *slots.next().ok_or(NotAVersion)? = number(part)?;
        }
        Ok(Self { text: text.to_owned(), numbers })
    }

    /// The text as declared.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Which version is newer; texts that name the same version are equal here.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers)
    }

    /// Whether this is `minimum` or newer.
    #[must_use]
    pub fn is_at_least(&self, minimum: &Self) -> bool {
        self.compare(minimum).is_ge()
    }

    /// Whether both name the same version.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.compare(other).is_eq()
    }
}

impl fmt::Display for ClientVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ClientVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for ClientVersion {
    type Error = NotAVersion;

    fn try_from(text: String) -> Result<Self, NotAVersion> {
        Self::parse(&text)
    }
}

impl From<ClientVersion> for String {
    fn from(version: ClientVersion) -> Self {
        version.text
    }
}

fn number(digits: &str) -> Result<u32, NotAVersion> {
    let canonical = digits == "0" || !digits.starts_with('0');
    if !canonical || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NotAVersion);
    }
    digits.parse().map_err(|_| NotAVersion)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    fn version(text: &str) -> ClientVersion {
        ClientVersion::parse(text).unwrap()
    }

    #[test]
    fn versions_are_ordered_by_number_and_not_by_text() {
        let ascending =
            ["0", "0.0.0.1", "3", "3.0.1", "3.8", "3.8.1", "3.10", "10", "4294967295.4294967295"];
        for pair in ascending.windows(2) {
            assert_eq!(version(pair[0]).compare(&version(pair[1])), Ordering::Less, "{pair:?}");
            assert!(version(pair[1]).is_at_least(&version(pair[0])));
            assert!(!version(pair[0]).is_at_least(&version(pair[1])));
        }
    }

    #[test]
    fn missing_numbers_count_as_zero_but_the_text_is_kept() {
        let (short, long) = (version("3.8"), version("3.8.0.0"));
        assert!(short.is_same_as(&long) && short.is_at_least(&long) && long.is_at_least(&short));
        assert_ne!(short, long);
        assert_eq!(long.to_string(), "3.8.0.0");
    }

    #[test]
    fn what_is_not_exactly_a_version_is_refused() {
        for text in [
            "",
            ".",
            "3.",
            ".3",
            "3..8",
            "1.2.3.4.5",
            "03",
            "3.08",
            "3.8a",
            "3.8-beta",
            "v3.8",
            " 3.8",
            "3.8 ",
            "+3",
            "-3",
            "3,8",
            "4294967296",
            "٣.٨",
            "3.8\0",
            "999999999.999999999.999999999.999",
        ] {
            assert_eq!(ClientVersion::parse(text), Err(NotAVersion), "{text:?}");
        }
    }

    #[test]
    fn thirty_two_characters_are_the_limit() {
        assert!(ClientVersion::parse("1000000000.1000000000.10000000.1").is_ok());
        assert_eq!(ClientVersion::parse("1000000000.1000000000.10000000.10"), Err(NotAVersion));
    }

    #[test]
    fn the_stored_form_is_checked_when_it_is_read() {
        let stored = codec::encode(&version("3.8"));
        assert_eq!(stored, *b"\x03\0\0\0\0\0\0\x003.8");
        assert_eq!(codec::decode(&stored), Ok(version("3.8")));
        assert!(codec::decode::<ClientVersion>(b"\x03\0\0\0\0\0\0\x003,8").is_err());
    }
}
