//! The signature of a call-out: HTTP Message Signatures (RFC 9421) over method,
//! URL, media type and the digest of the body (RFC 9530), by ECDSA on P-256.
//!
//! The private key follows from a secret in `keys/`; its public half is among
//! the keys of `/.well-known/jwks.json`, by the name that the signature gives.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::ids::Micros;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use sha2::{Digest, Sha256};
use storage::keys::Secret32;
use storage::note::signing_key;

use crate::evidence::Jwk;

const KEY_CONTEXT: &str = "keytrail 2026-11 push call-out signing key v1";
/// What the signature is for (RFC 9421, section 2.3).
const TAG: &str = "keytrail-push";
/// What is covered, in this order.
const COVERED: &str = r#"("@method" "@target-uri" "content-type" "content-digest")"#;

/// The headers that sign a request, as names and values.
pub(super) struct SignedHeaders {
    pub(super) content_digest: String,
    pub(super) signature_input: String,
    pub(super) signature: String,
}

/// Signs call-outs.
pub struct CallOutSigner {
    key: SigningKey,
    jwk: Jwk,
}

impl CallOutSigner {
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

    /// Signs a POST of `body` to `url`, made at `now`.
    pub(super) fn sign(
        &self,
        url: &str,
        media_type: &str,
        body: &str,
        now: Micros,
    ) -> SignedHeaders {
        let content_digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)));
        let (created, kid) = (now.0 / 1_000_000, &self.jwk.kid);
        let parameters = format!(
            r#"{COVERED};created={created};keyid="{kid}";alg="ecdsa-p256-sha256";tag="{TAG}""#
        );
        let base = base(url, media_type, &content_digest, &parameters);
        let signature: Signature = self.key.sign(base.as_bytes());
        SignedHeaders {
            content_digest,
            signature_input: format!("keytrail={parameters}"),
            signature: format!("keytrail=:{}:", STANDARD.encode(signature.to_bytes())),
        }
    }
}

/// What is signed (RFC 9421, section 2.5).
fn base(url: &str, media_type: &str, content_digest: &str, parameters: &str) -> String {
    [
        r#""@method": POST"#.to_owned(),
        format!(r#""@target-uri": {url}"#),
        format!(r#""content-type": {media_type}"#),
        format!(r#""content-digest": {content_digest}"#),
        format!(r#""@signature-params": {parameters}"#),
    ]
    .join("\n")
}

impl std::fmt::Debug for CallOutSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallOutSigner").field("kid", &self.jwk.kid).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::VerifyingKey;
    use p256::ecdsa::signature::Verifier as _;

    use super::*;

    const URL: &str = "https://push.bank.example/hook";

    #[test]
    fn the_signature_is_over_the_lines_that_the_specification_says() {
        let signer = CallOutSigner::of_secret(&Secret32::new([7; 32]));
        let signed =
            signer.sign(URL, "application/json", r#"{"hello": "world"}"#, Micros(7_000_000));
        // The digest of RFC 9530, appendix B.1, of this very body and no newline.
        let digest = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
        assert_eq!(signed.content_digest, digest);
        let kid = &signer.jwk().kid;
        let parameters = format!(
            r#"("@method" "@target-uri" "content-type" "content-digest");created=7;keyid="{kid}";alg="ecdsa-p256-sha256";tag="keytrail-push""#
        );
        assert_eq!(signed.signature_input, format!("keytrail={parameters}"));
        let lines = format!(
            "\"@method\": POST\n\"@target-uri\": {URL}\n\"content-type\": application/json\n\
             \"content-digest\": {digest}\n\"@signature-params\": {parameters}"
        );
        let text = signed.signature.strip_prefix("keytrail=:").unwrap().strip_suffix(':').unwrap();
        let signature = Signature::from_slice(&STANDARD.decode(text).unwrap()).unwrap();
        let key = VerifyingKey::from(&signer.key);
        key.verify(lines.as_bytes(), &signature).unwrap();
        assert!(key.verify(lines.replace("POST", "GET").as_bytes(), &signature).is_err());
    }
}
