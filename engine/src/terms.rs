//! The words of the protocol: closed sets, each with a text and a number.
//!
//! The text stands in JSON and in signed bytes, the number in stored records.
//! Both are for ever: a word may be added, never changed, renumbered or reused.
//! `serde` writes the number in binary formats and the text in readable ones,
//! and never the place of a word in its list.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Declares closed sets of words; see the module.
macro_rules! terms {
    ($(
        $(#[$about:meta])*
        $name:ident {
            $( $(#[$note:meta])* $word:ident = $code:literal $text:literal, )+
        }
    )+) => { $(
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name {
            $( $(#[$note])* $word, )+
        }

        impl $name {
            /// Every word, by ascending number.
            pub const ALL: &'static [Self] = &[$(Self::$word),+];

            /// The word as it stands in JSON and in signed bytes.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$word => $text, )+ }
            }

            /// The inverse of [`Self::as_str`]; exact, none for anything else.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $( $text => Some(Self::$word), )+ _ => None }
            }

            /// The number as it stands in records.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self { $( Self::$word => $code, )+ }
            }

            /// The inverse of [`Self::code`]; none for a number not given out.
            #[must_use]
            pub const fn from_code(code: u16) -> Option<Self> {
                match code { $( $code => Some(Self::$word), )+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.serialize_str(self.as_str())
                } else {
                    serializer.serialize_u16(self.code())
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    let words = &[$($text),+];
                    Self::parse(&text).ok_or_else(|| de::Error::unknown_variant(&text, words))
                } else {
                    // The words stand in the name for crate::layout; bincode reads it over.
                    let name = concat!(stringify!($name), $("\n", $code, "=", $text),+);
                    let unknown = concat!("unknown ", stringify!($name));
                    let code = deserializer.deserialize_newtype_struct(name, $crate::terms::Code)?;
                    Self::from_code(code).ok_or_else(|| de::Error::custom(unknown))
                }
            }
        }
    )+ };
}

pub(crate) use terms;

/// Reads the number of a word.
pub(crate) struct Code;

impl<'de> de::Visitor<'de> for Code {
    type Value = u16;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the number of a word")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<u16, D::Error> {
        u16::deserialize(deserializer)
    }
}

terms! {
    /// What a transcript is for.
    Purpose {
        /// New keys enter a registration.
        Activation = 1 "activation",
        /// Keys of a registration answer an operation.
        Authentication = 2 "authentication",
        /// Keys of a registration sign a transaction.
        Transaction = 3 "transaction",
        /// A hardware key enters a registration that has none.
        AddHwKey = 4 "add-hw-key",
        /// A hardware key takes the place of the one on file.
        RotateHwKey = 5 "rotate-hw-key",
        /// A hardware key takes the place of one that is lost.
        ReplaceHwKey = 6 "replace-hw-key",
        /// A key for a further method enters a registration.
        AddMethod = 7 "add-method",
        /// A key takes the place of a method's key.
        ReplaceMethod = 8 "replace-method",
        /// A method's key leaves a registration.
        RemoveMethod = 9 "remove-method",
        /// A device ends its own registration.
        Deactivation = 10 "deactivation",
        /// A registration gets a new set of recovery codes.
        RecoveryCodes = 11 "recovery-codes",
    }

    /// In what capacity a key signs.
    Role {
        /// The software key of the method in use.
        Software = 1 "SOFTWARE",
        /// The possession key that goes with a PIN or biometric method.
        Possession = 2 "POSSESSION",
        /// The hardware key.
        Hardware = 3 "HARDWARE",
        /// The hardware or DEVICE key on file, which lets new keys take its place.
        Previous = 4 "PREVIOUS",
    }

    /// How the user shows that it is them.
    Method {
        /// Possession of the device.
        Device = 1 "DEVICE",
        /// The device and a PIN.
        DevicePin = 2 "DEVICE:PIN",
        /// The device and a fingerprint or face that the device checks.
        DeviceBiometric = 3 "DEVICE:BIOMETRIC",
    }

    /// What the user said to what was shown.
    Decision {
        /// Yes.
        Approve = 1 "approve",
        /// No; signed as well, so that a refusal is evidence too.
        Reject = 2 "reject",
    }

    /// How many factors an operation asks for, fewest first.
    Level {
        /// Possession suffices.
        OneFactor = 1 "ONE_FACTOR",
        /// Possession with knowledge or inherence.
        TwoFactor = 2 "TWO_FACTOR",
    }

    /// How the device says it fared with its hardware key. A claim, never a proof.
    HwKeyClientStatus {
        /// It signed.
        Signed = 1 "SIGNED",
        /// The device has no secure hardware, or its system is too old.
        NotSupported = 2 "NOT_SUPPORTED",
        /// The registration was activated without a hardware key.
        NotActivated = 3 "NOT_ACTIVATED",
        /// Making the key failed at activation.
        KeyGenerationFailed = 4 "KEY_GENERATION_FAILED",
        /// The key is gone: restored, wiped or copied device.
        KeyLost = 5 "KEY_LOST",
        /// The key is there and cannot be used now.
        KeyUnavailable = 6 "KEY_UNAVAILABLE",
        /// The key store refused to sign.
        SigningFailed = 7 "SIGNING_FAILED",
        /// The client said nothing; old ones cannot.
        NotReported = 8 "NOT_REPORTED",
    }

    /// What the server found when it checked the hardware key.
    HwKeyServerResult {
        /// The signature verifies with the key on file.
        Valid = 1 "VALID",
        /// The signature is well formed and does not verify.
        Invalid = 2 "INVALID",
        /// The signature, or the key, cannot be read.
        Malformed = 3 "MALFORMED",
        /// A key is on file and no signature came.
        SignatureMissing = 4 "SIGNATURE_MISSING",
        /// No key is on file.
        NoKeyRegistered = 5 "NO_KEY_REGISTERED",
        /// A key was offered and its possession not proven, so it was not stored.
        KeyUnproven = 6 "KEY_UNPROVEN",
    }

    /// What came of checking one signature.
    Verdict {
        /// It verifies.
        Valid = 1 "VALID",
        /// It is well formed and does not verify.
        Invalid = 2 "INVALID",
        /// It is not a signature, whatever the key and the message.
        Malformed = 3 "MALFORMED",
    }
}

impl Method {
    /// What the method alone amounts to.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Device => Level::OneFactor,
            Self::DevicePin | Self::DeviceBiometric => Level::TwoFactor,
        }
    }
}

impl From<Verdict> for HwKeyServerResult {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Valid => Self::Valid,
            Verdict::Invalid => Self::Invalid,
            Verdict::Malformed => Self::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    macro_rules! words {
        ($name:ident) => {{
            for (index, &word) in $name::ALL.iter().enumerate() {
                assert_eq!($name::parse(word.as_str()), Some(word));
                assert_eq!($name::from_code(word.code()), Some(word));
                assert_eq!(codec::encode(&word), word.code().to_le_bytes());
                assert_eq!(codec::decode::<$name>(&word.code().to_le_bytes()), Ok(word));
                let json = format!("\"{}\"", word.as_str());
                assert_eq!(serde_json::to_string(&word).unwrap(), json);
                assert_eq!(serde_json::from_str::<$name>(&json).unwrap(), word);
                assert_eq!(usize::from(word.code()), index + 1, "ALL is in order");
            }
            assert_eq!($name::parse(""), None);
            assert_eq!(
                $name::parse(&$name::ALL[0].as_str().to_lowercase().to_uppercase().repeat(2)),
                None
            );
            assert_eq!($name::from_code(0), None);
            assert_eq!($name::from_code($name::ALL.len() as u16 + 1), None);
            assert!(codec::decode::<$name>(&[0, 0]).is_err());
            assert!(serde_json::from_str::<$name>("\"?\"").is_err());
            $name::ALL.iter().map(|word| format!("{}={}", word.code(), word)).collect::<Vec<_>>()
        }};
    }

    #[test]
    fn every_word_keeps_its_text_and_number_for_ever() {
        assert_eq!(
            words!(Purpose),
            [
                "1=activation",
                "2=authentication",
                "3=transaction",
                "4=add-hw-key",
                "5=rotate-hw-key",
                "6=replace-hw-key",
                "7=add-method",
                "8=replace-method",
                "9=remove-method",
                "10=deactivation",
                "11=recovery-codes",
            ]
        );
        assert_eq!(words!(Role), ["1=SOFTWARE", "2=POSSESSION", "3=HARDWARE", "4=PREVIOUS"]);
        assert_eq!(words!(Method), ["1=DEVICE", "2=DEVICE:PIN", "3=DEVICE:BIOMETRIC"]);
        assert_eq!(words!(Decision), ["1=approve", "2=reject"]);
        assert_eq!(words!(Level), ["1=ONE_FACTOR", "2=TWO_FACTOR"]);
        assert_eq!(
            words!(HwKeyClientStatus),
            [
                "1=SIGNED",
                "2=NOT_SUPPORTED",
                "3=NOT_ACTIVATED",
                "4=KEY_GENERATION_FAILED",
                "5=KEY_LOST",
                "6=KEY_UNAVAILABLE",
                "7=SIGNING_FAILED",
                "8=NOT_REPORTED",
            ]
        );
        assert_eq!(
            words!(HwKeyServerResult),
            [
                "1=VALID",
                "2=INVALID",
                "3=MALFORMED",
                "4=SIGNATURE_MISSING",
                "5=NO_KEY_REGISTERED",
                "6=KEY_UNPROVEN",
            ]
        );
        assert_eq!(words!(Verdict), ["1=VALID", "2=INVALID", "3=MALFORMED"]);
    }

    #[test]
    fn only_a_second_factor_makes_two() {
        assert_eq!(Method::Device.level(), Level::OneFactor);
        assert_eq!(Method::DevicePin.level(), Level::TwoFactor);
        assert_eq!(Method::DeviceBiometric.level(), Level::TwoFactor);
        assert!(Level::OneFactor < Level::TwoFactor);
    }
}
