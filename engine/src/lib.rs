//! The rules of keytrail, as pure functions.
//!
//! Nothing here reads a clock, draws a random number, waits, logs or opens a
//! file. What a rule must know arrives in its command. That is what lets
//! `replay` run any past day again and get the same answer.

pub mod codec;
pub mod ids;
pub mod key;
pub mod machine;
pub mod seal;
pub mod signature;
pub mod terms;
pub mod transcript;
pub mod version;
