//! The simulated phone: the other side of `docs/protocol.md`, for trying a
//! server out and for testing it.
//!
//! It is no phone. Its "secure hardware" is a number in a file, its user
//! approves what a flag says, and it misbehaves when it is told to
//! ([`Misbehaviour`]). What it does properly is the protocol: it makes its keys
//! and signatures with p256, which shares no code with what the server verifies
//! them by, and it signs what it was shown, byte for byte.
//!
//! Each exchange is split where a server can be restarted: [`Redemption::start`]
//! and [`Offer::finish`], [`authenticate_start`] and [`Answering::finish`].
//! [`activate`] and [`authenticate`] do both halves.

mod activation;
mod attestation;
mod authentication;
mod client;
mod file;
mod keys;
mod misbehaviour;
mod phone;
mod text;

use engine::key::KeyError;
use engine::proofs::ProofError;
use engine::terms::Method;
use engine::version::NotAVersion;

pub use activation::{Activating, ActivationOptions, Hardware, Offer, Redemption, activate};
pub use attestation::{Evidence, PACKAGE, TestCa};
pub use authentication::{
    Answering, AuthenticationOptions, Outcome, authenticate, authenticate_start, begin, pending,
};
pub use client::{Client, ClientError, Refusal};
pub(crate) use client::{agent, is_https};
pub use file::{StateError, load, save_new, save_over};
pub use misbehaviour::{HardwareFault, Misbehaviour, Repetition, SoftwareFault};
pub use phone::{NoHardwareKey, Phone};
pub use text::printable;

/// The version that the phone declares unless told otherwise.
pub const CLIENT_VERSION: &str = "3.8.0";

/// Why the phone did not get an answer, or gave none.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The server refused, could not be reached, or answered something else.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Text that is no client version.
    #[error(transparent)]
    Version(#[from] NotAVersion),
    /// The server does not offer this method for activation.
    #[error("the server does not offer {0} here")]
    NotOffered(Method),
    /// The phone has no key for this method.
    #[error("this phone has no key for {0}")]
    NoKey(Method),
    /// None of the methods that may answer has a key on this phone.
    #[error("this phone has a key for none of the methods that may answer")]
    NoMethod,
    /// A hardware key was to misbehave, and there is none.
    #[error("this phone has no hardware key that could misbehave")]
    NoHardwareKey,
    /// The method needs a PIN, and none was given.
    #[error("{} needs a PIN", Method::DevicePin)]
    PinMissing,
    /// The PIN is not what the application's policy wants.
    #[error("the PIN must have {min} to {max} {symbols}")]
    PinRefused {
        /// Fewest characters.
        min: u32,
        /// Most characters.
        max: u32,
        /// Which characters, in words.
        symbols: &'static str,
    },
    /// The activation is for another registration than this phone's.
    #[error("this activation is for another registration than the one this phone holds")]
    OtherRegistration,
    /// The registration has an application or operation that was not asked for.
    #[error("the server answered for another {0} than the one asked for")]
    OtherAnswer(&'static str),
    /// A transcript cannot be built.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// A key that the phone made or keeps is none.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A certificate of the test CA cannot be made.
    #[error("the test CA cannot make its certificate")]
    Certificate(#[from] rcgen::Error),
    /// The random bytes are no private key, eight times in a row.
    #[error("the random bytes that were drawn give no private key")]
    Entropy,
}
