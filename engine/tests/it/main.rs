//! The rules against what others have published: Wycheproof's and NIST's
//! vectors, a second library, a second encoder, and the protocol document.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod access;
mod agreement;
mod android;
mod android_rules;
mod apple;
mod apple_rules;
mod attestation;
mod broadcasts;
mod devices;
mod documented_strategy;
mod erasure;
mod evidence;
mod inactivity;
mod key_change;
mod leaving;
mod mutations;
mod naming;
mod nist;
mod offline;
mod operations;
mod proofs;
mod push;
mod races;
mod recovery;
mod rules;
mod scripts;
mod stored;
mod test_ca;
mod timed_locks;
mod transcripts;
mod world;
mod wycheproof;

use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The bytes that hexadecimal text names.
#[track_caller]
fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2) && text.is_ascii(), "{text:?}");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

/// A DER signature from two big-endian numbers of any length, whatever they are.
fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let body = [integer(r), integer(s)].concat();
    [&[0x30, body.len() as u8], body.as_slice()].concat()
}

fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    let digits = &number[zeros..];
    let sign = digits.first().is_none_or(|&first| first >= 0x80);
    let contents = [&[0][..usize::from(sign)], digits].concat();
    [&[0x02, contents.len() as u8], contents.as_slice()].concat()
}
