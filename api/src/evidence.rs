//! The server's signature over what became of an operation: a JWS (RFC 7515).
//!
//! A service provider keeps it beside the payment. Any JOSE library checks the
//! server's part (ES256, with the key of the server's JWK set); inside is what
//! the device signed, byte for byte, with its keys and its signatures, which
//! `openssl dgst` checks without any of our software.
//!
//! The private key follows from a secret in `keys/` that is used for nothing
//! else. Signing is deterministic (RFC 6979): the same evidence is the same text.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::key::PublicKey;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use serde::Serialize;
use sha2::{Digest, Sha256};
use storage::keys::Secret32;
use storage::note::signing_key;
use utoipa::ToSchema;

/// Media type of a JWS in its compact form (RFC 7515, section 9.2.1).
pub const MEDIA_TYPE: &str = "application/jose";
/// The `typ` of the header: what the payload is.
const TYPE: &str = "keytrail-evidence";
const KEY_CONTEXT: &str = "keytrail 2026-11 evidence signing key v1";

/// A public key as a JWK (RFC 7517), on P-256 (RFC 7518, section 6.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Jwk {
    /// Kind of key: `EC`.
    pub kty: &'static str,
    /// Curve: `P-256`.
    pub crv: &'static str,
    /// X coordinate, base64url.
    pub x: String,
    /// Y coordinate, base64url.
    pub y: String,
    /// Its name: the thumbprint (RFC 7638).
    pub kid: String,
    /// What it is for: `sig`.
    #[serde(rename = "use")]
    pub used_for: &'static str,
    /// The algorithm: `ES256`.
    pub alg: &'static str,
}

/// A JWK set (RFC 7517, section 5).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct JwkSet {
    /// The keys that signed evidence of this server.
    pub keys: Vec<Jwk>,
}

impl Jwk {
    /// The JWK of a key.
    #[must_use]
    pub fn of(key: &PublicKey) -> Self {
        let stored = key.to_stored();
        let (x, y) = (URL_SAFE_NO_PAD.encode(stored.x), URL_SAFE_NO_PAD.encode(stored.y));
        // RFC 7638: the required members, in this order, without blanks.
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(members));
        Self { kty: "EC", crv: "P-256", x, y, kid, used_for: "sig", alg: "ES256" }
    }
}

/// Signs evidence.
pub struct EvidenceSigner {
    key: SigningKey,
    jwk: Jwk,
}

/// The header of a JWS.
#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

impl EvidenceSigner {
    /// The signer whose private key follows from this secret.
    #[must_use]
    pub fn of_secret(secret: &Secret32) -> Self {
        let (key, public) = signing_key(KEY_CONTEXT, secret.expose());
        Self { key, jwk: Jwk::of(&public) }
    }

    /// The key that checks.
    #[must_use]
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// The JWS of `payload` in its compact form.
    ///
    /// # Errors
    ///
    /// That of `payload`, if it is no JSON.
    pub fn sign(&self, payload: &impl Serialize) -> Result<String, serde_json::Error> {
        let header = Header { alg: "ES256", kid: &self.jwk.kid, typ: TYPE };
        let part = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
        let header = part(serde_json::to_vec(&header)?);
        let signed = format!("{header}.{}", part(serde_json::to_vec(payload)?));
        let signature: Signature = self.key.sign(signed.as_bytes());
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes())))
    }
}

impl std::fmt::Debug for EvidenceSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EvidenceSigner").field("kid", &self.jwk.kid).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use engine::signature::{Verdict, verify};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_key_its_name_and_a_signature_stay_the_same_for_ever() {
        let signer = EvidenceSigner::of_secret(&Secret32::new([7; 32]));
        let text = signer.sign(&json!({ "iss": "a" })).unwrap();
        assert_eq!(signer.sign(&json!({ "iss": "a" })).unwrap(), text);
        let parts: Vec<_> = text.split('.').collect();
        let header = URL_SAFE_NO_PAD.decode(parts[0]).unwrap();
        let expected =
            format!(r#"{{"alg":"ES256","kid":"{}","typ":"keytrail-evidence"}}"#, signer.jwk().kid);
        assert_eq!(String::from_utf8(header).unwrap(), expected);
        assert_eq!(URL_SAFE_NO_PAD.decode(parts[2]).unwrap().len(), 64);
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        // The key of RFC 7515, appendix A.3; its thumbprint was computed with openssl.
        let coordinate = |text: &str| <[u8; 32]>::try_from(URL_SAFE_NO_PAD.decode(text).unwrap());
        let x = coordinate("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU").unwrap();
        let y = coordinate("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0").unwrap();
        let key = PublicKey::from_bytes(&[&[4][..], &x, &y].concat()).unwrap();
        assert_eq!(Jwk::of(&key).kid, "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U");
    }

    #[test]
    fn the_servers_own_verifier_takes_the_signature_and_no_other() {
        let signer = EvidenceSigner::of_secret(&Secret32::new([7; 32]));
        let text = signer.sign(&json!({ "a": 1 })).unwrap();
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let der = Signature::from_slice(&raw).unwrap().to_der();
        let point = signer.key.verifying_key().to_sec1_point(false);
        let key = PublicKey::from_bytes(point.as_bytes()).unwrap();
        assert_eq!(verify(&key, signed.as_bytes(), der.as_bytes()), Verdict::Valid);
        assert_eq!(verify(&key, b"another", der.as_bytes()), Verdict::Invalid);
    }
}
