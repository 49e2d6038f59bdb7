//! How values of a policy are read from and written to configuration.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::attestation::chain;

/// Longest name of a package or app, in characters.
const NAME_MAX: usize = 255;
/// Longest key of a root, in bytes: RSA of 8,192 bits has 1,062.
const ROOT_MAX: usize = 1_100;

/// A month as 202511; null for none.
pub(crate) fn month(value: &Value) -> Result<Option<u32>, String> {
    if value.is_null() {
        return Ok(None);
    }
    value
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| (200_801..=299_912).contains(number) && (1..=12).contains(&(number % 100)))
        .map(Some)
        .ok_or_else(|| "must be a month such as 202511, or null".to_owned())
}

/// The name of an Android package.
pub(crate) fn package(value: &Value) -> Result<String, String> {
    let fits = |text: &&str| {
        let parts: Vec<_> = text.split('.').collect();
        let symbol = |symbol: char| symbol.is_ascii_alphanumeric() || symbol == '_';
        text.len() <= NAME_MAX
            && parts.iter().all(|part| !part.is_empty() && part.chars().all(symbol))
    };
    named(value, fits, "must be a package such as \"org.example.app\"")
}

/// An App ID: the team's ten symbols, a dot, the bundle's name.
pub(crate) fn app_id(value: &Value) -> Result<String, String> {
    let fits = |text: &&str| {
        let symbol = |symbol: char| symbol.is_ascii_alphanumeric() || matches!(symbol, '.' | '-');
        text.len() <= NAME_MAX
            && text.split_once('.').is_some_and(|(team, bundle)| {
                team.len() == 10
                    && team.chars().all(|symbol| symbol.is_ascii_alphanumeric())
                    && !bundle.is_empty()
                    && bundle.chars().all(symbol)
            })
    };
    named(value, fits, "must be an App ID such as \"A1B2C3D4E5.org.example.app\"")
}

fn named(value: &Value, fits: impl Fn(&&str) -> bool, expected: &str) -> Result<String, String> {
    value.as_str().filter(fits).map(ToOwned::to_owned).ok_or_else(|| expected.to_owned())
}

/// A SHA-256 value in hexadecimal, colons between bytes allowed.
pub(crate) fn digest(value: &Value) -> Result<[u8; 32], String> {
    let read = |text: &str| {
        let digits: Vec<u32> = text
            .chars()
            .filter(|symbol| *symbol != ':')
            .map(|symbol| symbol.to_digit(16))
            .collect::<Option<_>>()?;
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |sum, digit| sum * 16 + digit) as u8)
            .collect();
        <[u8; 32]>::try_from(bytes).ok().filter(|_| digits.len() == 64)
    };
    value
        .as_str()
        .and_then(read)
        .ok_or_else(|| "must be a SHA-256 value of 64 hexadecimal digits".to_owned())
}

/// The key of a root, in base64url.
pub(crate) fn root(value: &Value) -> Result<Vec<u8>, String> {
    value
        .as_str()
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .filter(|key| key.len() <= ROOT_MAX && chain::can_be_root(key))
        .ok_or_else(|| {
            "must be base64url of a SubjectPublicKeyInfo (RSA, P-256 or P-384)".to_owned()
        })
}

/// The inverse of [`root`].
pub(crate) fn base64url(key: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::attestation::roots;

    #[test]
    fn a_month_is_a_month_of_this_century_or_none() {
        assert_eq!(month(&json!(null)), Ok(None));
        assert_eq!(month(&json!(202_512)), Ok(Some(202_512)));
        for no_month in [json!(202_513), json!(202_500), json!(20_251_101), json!("202512")] {
            assert!(month(&no_month).is_err(), "{no_month}");
        }
    }

    #[test]
    fn a_digest_is_read_with_and_without_colons() {
        let plain = "0a".repeat(32);
        let colons = vec!["0A"; 32].join(":");
        assert_eq!(digest(&json!(plain)), Ok([0x0a; 32]));
        assert_eq!(digest(&json!(colons)), Ok([0x0a; 32]));
        assert_eq!(crate::hex(&[0x0a; 32]), plain);
        for wrong in ["0a".repeat(31), "0a".repeat(33), format!("{}0", "0a".repeat(31))] {
            assert!(digest(&json!(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_those_of_packages_and_apps() {
        assert!(package(&json!("com.example.app_2")).is_ok());
        for wrong in ["", "a..b", ".a", "a b", "a/b"] {
            assert!(package(&json!(wrong)).is_err(), "{wrong}");
        }
        assert!(app_id(&json!("A1B2C3D4E5.org.example.my-app")).is_ok());
        for wrong in ["A1B2C3D4E5", "A1B2C3D4E5.", "A1B2C3.org.example", "A1B2C3D4E5.a b"] {
            assert!(app_id(&json!(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_root_is_a_key_that_can_sign_certificates() {
        for key in roots::GOOGLE.iter().chain(roots::APPLE.iter()) {
            assert_eq!(root(&json!(base64url(key))).as_ref(), Ok(key));
            assert!(root(&json!(base64url(&key[1..]))).is_err());
            assert!(root(&json!(base64url(&[key.as_slice(), &[0]].concat()))).is_err());
        }
    }
}
