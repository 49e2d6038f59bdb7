//! What the phone does wrong when it is told to: each flag changes what it says
//! and nothing else.

use engine::terms::HwKeyClientStatus;

/// What goes wrong at an authentication. The default is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Misbehaviour {
    /// The PIN that is used is another than the one given.
    pub wrong_pin: bool,
    /// What goes wrong with the signature of the method's software key.
    pub software: Option<SoftwareFault>,
    /// What goes wrong with the hardware key.
    pub hardware: Option<HardwareFault>,
    /// The device token is another than the registered one.
    pub wrong_device_token: bool,
    /// The finish is sent a second time.
    pub repetition: Option<Repetition>,
}

/// What goes wrong with the signature of a software key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoftwareFault {
    /// It is well formed and does not verify.
    BadSignature,
    /// It is no signature at all.
    Malformed,
}

/// What goes wrong with the hardware key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardwareFault {
    /// The signature is well formed and does not verify; the claim is `SIGNED`.
    BadSignature,
    /// What is sent is no signature at all; the claim is `SIGNED`.
    Malformed,
    /// No signature is sent; the claim is `SIGNED`.
    NoSignature,
    /// The key is gone: no signature, and the claim is `KEY_LOST`.
    KeyLost,
    /// The key cannot be used now: no signature, and the claim is `KEY_UNAVAILABLE`.
    KeyUnavailable,
    /// The key store refuses: no signature, and the claim is `SIGNING_FAILED`.
    SigningFailed,
}

/// How a finish is sent a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repetition {
    /// The same body, byte for byte.
    Same,
    /// A body that decides the other way, properly signed over the same challenge.
    Changed,
}

impl HardwareFault {
    /// What the phone claims of its hardware key.
    #[must_use]
    pub fn claim(self) -> HwKeyClientStatus {
        match self {
            Self::BadSignature | Self::Malformed | Self::NoSignature => HwKeyClientStatus::Signed,
            Self::KeyLost => HwKeyClientStatus::KeyLost,
            Self::KeyUnavailable => HwKeyClientStatus::KeyUnavailable,
            Self::SigningFailed => HwKeyClientStatus::SigningFailed,
        }
    }

    /// The signature that goes out in place of a right one, if any does.
    pub(super) fn distort(
        self,
        right: impl FnOnce(&[u8]) -> Vec<u8>,
        message: &[u8],
    ) -> Option<Vec<u8>> {
        match self {
            Self::BadSignature => Some(right(&changed(message))),
            Self::Malformed => Some(malformed(right(message))),
            Self::NoSignature | Self::KeyLost | Self::KeyUnavailable | Self::SigningFailed => None,
        }
    }
}

impl SoftwareFault {
    /// The signature that goes out in place of a right one.
    pub(super) fn distort(self, right: impl FnOnce(&[u8]) -> Vec<u8>, message: &[u8]) -> Vec<u8> {
        match self {
            Self::BadSignature => right(&changed(message)),
            Self::Malformed => malformed(right(message)),
        }
    }
}

/// Another message: a signature of it is a signature, and not of the first.
fn changed(message: &[u8]) -> Vec<u8> {
    let mut other = message.to_vec();
    other.push(0);
    other
}

/// A signature with a byte after its end, which DER forbids.
fn malformed(mut signature: Vec<u8>) -> Vec<u8> {
    signature.push(0);
    signature
}
