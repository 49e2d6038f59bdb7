//! Activation codes: how they are derived, hashed, and how long they must be.
//!
//! A code is derived from a key outside the log and the activation's id, so it
//! can be told again without being stored. Events hold keyed hashes alone:
//! whoever has the log cannot try all ten-digit codes against it.

use crate::ids::Id;
use crate::reasons::CodeType;

/// Most codes may be guessed with this probability at most, as one in so many.
///
/// A guess attacks all live codes of an application at once. Source: design,
/// "Activation"; `docs/protocol.md`.
const ODDS: u128 = 10_000;

/// The longest code.
pub const CODE_LENGTH_MAX: u32 = 32;

/// The code of an activation.
#[must_use]
pub fn activation_code(key: &[u8; 32], activation: Id, kind: CodeType, length: u32) -> String {
    let alphabet = kind.alphabet();
    // Bytes at or above the largest multiple would favour the first symbols.
    let fair = 256 - 256 % alphabet.len();
    let mut stream = derive(key, b"code", activation).finalize_xof();
    let mut code = String::with_capacity(length as usize);
    while code.len() < length as usize {
        let mut byte = [0];
        stream.fill(&mut byte);
        if usize::from(byte[0]) < fair {
            code.push(char::from(alphabet[usize::from(byte[0]) % alphabet.len()]));
        }
    }
    code
}

/// The secret in the QR payload of an activation: 128 bits.
#[must_use]
pub fn qr_secret(key: &[u8; 32], activation: Id) -> [u8; 16] {
    let mut secret = [0; 16];
    derive(key, b"qr", activation).finalize_xof().fill(&mut secret);
    secret
}

/// What a person typed, as the code was made: no blanks or hyphens, upper case.
#[must_use]
pub fn normalised(typed: &str) -> String {
    typed
        .chars()
        .filter(|symbol| !matches!(symbol, ' ' | '-'))
        .map(|symbol| symbol.to_ascii_uppercase())
        .collect()
}

/// How a normalised code stands in events and state.
#[must_use]
pub fn code_hash(key: &[u8; 32], application: Id, code: &str) -> [u8; 32] {
    redeemable(key, b"typed", application, code.as_bytes())
}

/// How a QR secret stands in events and state.
#[must_use]
pub fn qr_hash(key: &[u8; 32], application: Id, secret: &[u8]) -> [u8; 32] {
    redeemable(key, b"scanned", application, secret)
}

/// The number of symbols that `live` codes at once need, so that a budget of
/// wrong guesses hits one of them with a probability of at most 10⁻⁴.
/// More than [`CODE_LENGTH_MAX`] if no allowed length suffices.
#[must_use]
pub fn length_needed(kind: CodeType, live: u64, budget: u32) -> u32 {
    let wanted = u128::from(live) * u128::from(budget) * ODDS;
    let symbols = kind.alphabet().len() as u128;
    let mut space = 1_u128;
    let mut length = 0;
    while space < wanted {
        space = space.saturating_mul(symbols);
        length += 1;
    }
    length
}

fn derive(key: &[u8; 32], purpose: &[u8], activation: Id) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(purpose).update(&activation.0);
    hasher
}

fn redeemable(key: &[u8; 32], purpose: &[u8], application: Id, secret: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    // Fixed-length parts first; purposes differ from those of `derive` in length or text.
    hasher.update(&[purpose.len() as u8]).update(purpose).update(&application.0).update(secret);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_told_again_the_same_and_another_activation_has_another() {
        let code = |id| activation_code(&[7; 32], Id([id; 16]), CodeType::Alphanumeric, 12);
        assert_eq!(code(1), code(1));
        assert_ne!(code(1), code(2));
        assert_eq!(code(1).len(), 12);
    }

    #[test]
    fn every_symbol_of_every_alphabet_comes_up_about_as_often() {
        for &kind in CodeType::ALL {
            let mut counts = std::collections::BTreeMap::new();
            for n in 0..2_000_u16 {
                let mut id = [0; 16];
                id[..2].copy_from_slice(&n.to_be_bytes());
                for symbol in activation_code(&[7; 32], Id(id), kind, 32).bytes() {
                    *counts.entry(symbol).or_insert(0_u32) += 1;
                }
            }
            let expected = 64_000 / kind.alphabet().len() as u32;
            assert_eq!(counts.len(), kind.alphabet().len());
            assert!(counts.values().all(|&n| n.abs_diff(expected) < expected / 8), "{counts:?}");
        }
    }

    #[test]
    fn what_a_person_types_is_read_generously() {
        assert_eq!(normalised("0123 4567-89"), "0123456789");
        assert_eq!(normalised("abcd-EFGH"), "ABCDEFGH");
    }

    #[test]
    fn a_code_is_long_enough_exactly_when_guessing_is_hard_enough() {
        // 100 live codes, 100 guesses: 10⁴ in 10⁸ is the limit itself.
        assert_eq!(length_needed(CodeType::Numeric, 100, 100), 8);
        assert_eq!(length_needed(CodeType::Numeric, 101, 100), 9);
        assert_eq!(length_needed(CodeType::Numeric, 1, 1), 4);
    }

    #[test]
    fn a_code_of_one_application_is_none_of_another() {
        let hash = |application| code_hash(&[7; 32], Id([application; 16]), "0123456789");
        assert_ne!(hash(1), hash(2));
        assert_ne!(hash(1), qr_hash(&[7; 32], Id([1; 16]), b"0123456789"));
    }
}
