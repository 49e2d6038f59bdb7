//! The text of the QR code that redeems an activation without typing.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::ids::Id;

/// What every payload of this version starts with.
const PREFIX: &str = "keytrail:activation:1:";

/// `keytrail:activation:1:<application id>:<secret, 22 characters of base64url>`.
#[derive(Clone, PartialEq, Eq)]
pub struct QrPayload {
    /// The application.
    pub application: Id,
    /// The secret: 128 random bits.
    pub secret: [u8; 16],
}

/// Text that is no payload of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an activation's QR payload")]
pub struct NotAPayload;

impl fmt::Debug for QrPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QrPayload").field("application", &self.application).finish_non_exhaustive()
    }
}

impl fmt::Display for QrPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}:{}", self.application, URL_SAFE_NO_PAD.encode(self.secret))
    }
}

impl FromStr for QrPayload {
    type Err = NotAPayload;

    fn from_str(text: &str) -> Result<Self, NotAPayload> {
        let (application, secret) =
            text.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':')).ok_or(NotAPayload)?;
        let application = application.parse().map_err(|_| NotAPayload)?;
        let secret = URL_SAFE_NO_PAD.decode(secret).map_err(|_| NotAPayload)?;
        let secret = secret.try_into().map_err(|_| NotAPayload)?;
        Ok(Self { application, secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_reads_back_and_nothing_else_reads() {
        let payload = QrPayload { application: Id([7; 16]), secret: [0xff; 16] };
        let text = payload.to_string();
        assert_eq!(text.parse(), Ok(payload));
        for bad in ["", PREFIX, &text[1..], &text[..text.len() - 1], &format!("{text}A")] {
            assert_eq!(bad.parse::<QrPayload>(), Err(NotAPayload), "{bad}");
        }
        assert!(!format!("{:?}", text.parse::<QrPayload>()).contains("____"));
    }
}
