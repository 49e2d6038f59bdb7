//! The text of the QR code that asks a phone without a network.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What every payload of this version starts with.
const PREFIX: &str = "keytrail:offline:1:";
/// Bytes of a signature: r and s.
const SIGNATURE_LEN: usize = 64;
/// Longest payload, in characters: far more than the largest question takes.
const TEXT_MAX: usize = 4_096;

/// `keytrail:offline:1:<question and signature, base64url>`. The signature is ECDSA
/// on P-256 with SHA-256, as r and s of 32 bytes each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflinePayload {
    /// The question's bytes.
    pub question: Vec<u8>,
    /// The server's signature.
    pub signature: [u8; SIGNATURE_LEN],
}

/// Text that is no payload of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an offline question's QR payload")]
pub struct NotAnOfflinePayload;

impl fmt::Display for OfflinePayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = [&self.question[..], &self.signature].concat();
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(octets))
    }
}

impl FromStr for OfflinePayload {
    type Err = NotAnOfflinePayload;

    fn from_str(text: &str) -> Result<Self, NotAnOfflinePayload> {
        let text = text.strip_prefix(PREFIX).filter(|rest| rest.len() <= TEXT_MAX);
        let octets = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let octets = octets.ok_or(NotAnOfflinePayload)?;
        let (question, signature) =
            octets.split_last_chunk::<SIGNATURE_LEN>().ok_or(NotAnOfflinePayload)?;
        Ok(Self { question: question.to_vec(), signature: *signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_reads_back_and_nothing_else_reads() {
        let payload = OfflinePayload { question: vec![1, 2, 3], signature: [9; 64] };
        let text = payload.to_string();
        assert_eq!(text.parse(), Ok(payload));
        let long = format!("{PREFIX}{}", "A".repeat(TEXT_MAX + 4));
        let short = format!("{PREFIX}AAAA");
        for bad in ["", PREFIX, &text[1..], &short, &format!("{text}="), &long] {
            assert_eq!(bad.parse::<OfflinePayload>(), Err(NotAnOfflinePayload));
        }
    }
}
