//! API keys as they are made, sent and checked.
//!
//! A key is an id (a UUID, public) and a secret of 32 random bytes. It is sent
//! as HTTP Basic (RFC 7617: user is the id, password the secret in base64url)
//! or as Bearer `kt_<id, 32 hexadecimal digits>_<secret in base64url>`, where a
//! scanner for leaked secrets can recognise it.
//!
//! The server keeps only a keyed hash. The secret has 256 bits, so the hash
//! needs no work factor; the key of the hash is outside the log, so a copy of
//! the log cannot even confirm a guess.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use engine::ids::Id;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Longest `Authorization` header that is looked at, in bytes.
const HEADER_MAX: usize = 256;
/// What a Bearer token starts with.
const TOKEN_PREFIX: &str = "kt_";
/// Hexadecimal digits of an id.
const ID_DIGITS: usize = 32;

/// The secret half of an API key. Wiped from memory when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// A secret of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// As it is sent: 43 characters of base64url without padding.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(*self.0))
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        // One byte longer than a secret: a longer text must not pass for its beginning.
        let mut room = Zeroizing::new([0; 33]);
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut room[..]).ok()?;
        if length != bytes.len() {
            return None;
        }
        bytes.copy_from_slice(&room[..32]);
        Some(Self(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The stored form of a secret: BLAKE3 keyed with the server's own key.
#[derive(Debug, Clone, Copy)]
pub struct SecretHash(pub [u8; 32]);

/// Hashes secrets under the server's key. Wiped from memory when dropped.
#[derive(Clone)]
pub struct SecretHasher(Zeroizing<[u8; 32]>);

impl SecretHasher {
    /// A hasher with the server's key, which stands outside the log.
    #[must_use]
    pub fn new(server_key: [u8; 32]) -> Self {
        Self(Zeroizing::new(server_key))
    }

    /// The stored form of `secret`.
    #[must_use]
    pub fn hash(&self, secret: &Secret) -> SecretHash {
        SecretHash(*blake3::keyed_hash(&self.0, &secret.0[..]).as_bytes())
    }

    /// Whether `secret` has this hash. The time it takes does not depend on either.
    #[must_use]
    pub fn matches(&self, secret: &Secret, stored: &SecretHash) -> bool {
        self.hash(secret).0.ct_eq(&stored.0).into()
    }
}

impl fmt::Debug for SecretHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// An API key as its owner has it.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Public half.
    pub id: Id,
    /// Secret half.
    pub secret: Secret,
}

/// An `Authorization` header that is no API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no API key in the form of HTTP Basic or Bearer")]
pub struct NoCredential;

impl Credential {
    /// Reads an `Authorization` header.
    ///
    /// # Errors
    ///
    /// [`NoCredential`] for every other form, without saying which part is wrong.
    pub fn parse(header: &[u8]) -> Result<Self, NoCredential> {
        if header.len() > HEADER_MAX {
            return Err(NoCredential);
        }
        let text = std::str::from_utf8(header).map_err(|_| NoCredential)?;
        let (scheme, rest) = text.split_once(' ').ok_or(NoCredential)?;
        let rest = rest.trim_matches(' ');
        let parsed = if scheme.eq_ignore_ascii_case("basic") {
            Self::of_basic(rest)
        } else if scheme.eq_ignore_ascii_case("bearer") {
            Self::of_token(rest)
        } else {
            None
        };
        parsed.ok_or(NoCredential)
    }

    /// As it is sent as Bearer.
    #[must_use]
    pub fn token(&self) -> Zeroizing<String> {
        let id = self.id.to_string().replace('-', "");
        Zeroizing::new(format!("{TOKEN_PREFIX}{id}_{}", *self.secret.text()))
    }

    fn of_basic(encoded: &str) -> Option<Self> {
        let mut pair = Zeroizing::new(STANDARD.decode(encoded).ok()?);
        let colon = pair.iter().position(|&byte| byte == b':')?;
        let id = std::str::from_utf8(&pair[..colon]).ok()?.parse().ok()?;
        let secret = Secret::parse(&pair[colon + 1..]);
        pair.zeroize();
        Some(Self { id, secret: secret? })
    }

    fn of_token(token: &str) -> Option<Self> {
        let (id, secret) = token.strip_prefix(TOKEN_PREFIX)?.split_at_checked(ID_DIGITS)?;
        let secret = Secret::parse(secret.strip_prefix('_')?.as_bytes())?;
        Some(Self { id: id_of_digits(id)?, secret })
    }
}

fn id_of_digits(digits: &str) -> Option<Id> {
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(Id(u128::from_str_radix(digits, 16).ok()?.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn credential() -> Credential {
        let id = "018bcfe5-6800-7fff-bfff-0123456789ab".parse().unwrap();
        Credential { id, secret: Secret::new([0xfb; 32]) }
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[track_caller]
    fn accepted(header: &str) {
        let parsed = Credential::parse(header.as_bytes()).expect(header);
        assert_eq!(parsed.id, credential().id);
        assert_eq!(*parsed.secret.text(), *credential().secret.text());
    }

    #[test]
    fn both_forms_are_read_and_the_scheme_in_any_case() {
        let Credential { id, secret } = credential();
        let pair = format!("{id}:{}", *secret.text());
        accepted(&basic(&pair));
        accepted(&basic(&pair).replace("Basic", "bAsIc"));
        accepted(&format!("Bearer {}", *credential().token()));
        accepted(&format!("BEARER   {}", *credential().token()));
    }

    #[test]
    fn a_secret_that_contains_the_separator_is_read_whole() {
        // 0xfb bytes are full of `-` and `_` in base64url.
        assert!(
            credential().secret.text().contains('_') || credential().secret.text().contains('-')
        );
        let secret = Secret::new([0xff; 32]);
        assert!(secret.text().contains("___"));
        let credential = Credential { id: credential().id, secret };
        let header = format!("Bearer {}", *credential.token());
        let parsed = Credential::parse(header.as_bytes()).unwrap();
        assert_eq!(*parsed.secret.text(), *credential.secret.text());
    }

    #[test]
    fn hostile_headers_are_no_credential() {
        let Credential { id, secret } = credential();
        let (text, token) = (secret.text(), credential().token());
        let long = "a".repeat(10_000);
        for header in [
            String::new(),
            "Basic".into(),
            "Bearer".into(),
            "Bearer ".into(),
            "Basic !!!!".into(),
            format!("Digest {}", *token),
            format!("Bearer{}", *token),
            format!("Bearer {}", token.replace("kt_", "xx_")),
            format!("Bearer {}A", *token),
            format!("Bearer {}=", *token),
            format!("Bearer {}", &token[..token.len() - 1]),
            format!("Bearer {}", token.replacen("018b", "+18b", 1)),
            format!("Bearer kt_é{}", &token[5..]),
            format!("Bearer kt_{}", "é".repeat(16)),
            format!("Bearer {long}"),
            basic(""),
            basic(":"),
            basic(&format!("{id}")),
            basic(&format!("{id}:")),
            basic(&format!("{id}:{}=", *text)),
            basic(&format!("{id}:{}AAAA", *text)),
            basic(&format!("{id}::{}", *text)),
            basic(&format!("root:{}", *text)),
            basic(&format!("{id}\0:{}", *text)),
            basic(&format!("{id}:{long}")),
        ] {
            assert_eq!(Credential::parse(header.as_bytes()).err(), Some(NoCredential), "{header}");
        }
        assert!(Credential::parse(b"Bearer kt_\xff\xfe").is_err());
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_fail_otherwise(header in any::<Vec<u8>>(), token in ".{0,90}") {
            let _ = Credential::parse(&header);
            let _ = Credential::parse(format!("Bearer kt_{token}").as_bytes());
            prop_assert!(Credential::parse(basic(&token).as_bytes()).is_err());
        }
    }

    #[test]
    fn only_the_same_secret_under_the_same_server_key_matches() {
        let hasher = SecretHasher::new([1; 32]);
        let stored = hasher.hash(&Secret::new([2; 32]));
        assert!(hasher.matches(&Secret::new([2; 32]), &stored));
        assert!(!hasher.matches(&Secret::new([3; 32]), &stored));
        assert!(!SecretHasher::new([9; 32]).matches(&Secret::new([2; 32]), &stored));
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?} {:?}", credential(), SecretHasher::new([0xfb; 32]));
        assert!(shown.contains("[redacted]"));
        assert!(!shown.contains("251") && !shown.contains(&**credential().secret.text()));
    }
}
