//! The public keys of the makers' roots, as SubjectPublicKeyInfo in DER.
//!
//! A chain is anchored by key: makers have issued several certificates for one
//! root key, and devices may leave the root out of the chain.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Google's RSA root, `serialNumber=f92009e853b6b045`; certificates of it end
/// in 2026, 2034 and 2042. Source: developer.android.com, "Verify
/// hardware-backed key pairs with key attestation", root certificates.
/// SHA-256 of the key: feb2ea7551ee316ed4bb443c8293b884dbfdea40b603ee3e4f4a897e4580fbae.
const GOOGLE_RSA: &str = "\
MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEAr7bHgiuxpwHsK7Qui8xUFmOr75gvMsd/dTEDDJdSSxtf\
6An7xyqpRR90PL2abxM1dEqlXnf2tqw1Ne4Xwl5jlRfdnJLmN0pTy/4lj4/7tv0Sk3iiKkypnEUtR6WfMgH0QZfK\
HM1+di+y9TFRtv6y//0rb+T+W8a9nsNL/ggjnar86461qO0rOs2cXjp3kOG1FEJ5MVmFmBGtnrKpa73XpXyTqRxB\
/M0n1n/W9nGqC4FSYa04T6N5RIZGBN2z2MT5IKGbFlbC8UrW0DxW7AYImQQcHtGl/m00QLVWutHQoVJYnFPlXTcH\
YvASLu+RhhsbDmxMgJJ0mcDpvsC4PjvB+TxywElgS70vE0XmLD+OJtvsBslHZvPBKCOdT0MS+tgSOIfga+z1Z1g7\
+DVagf7quvmag8jfPioyKvxnK/EgsTUVi2ghzq8wm27ud/mIM7AY2qEORR8Go3TVB4HzWQgpZrt3i5MIlCaY504L\
zSRiigHCzAPlHws+W0rB5N+er5/2pJKnfBSDiCiFAVtCLOZ7gLiMm0jhO2B6tUXHI/+MRPjy02i59lINMRRev56G\
Ktcd9qO/0kUJWdZTdA2XoS82ixPvZtXQpUpuL12ab+9EaDK8Z4RHJYYfCT3Q5vNAXaiWQ+8PTWm2QgBR/bkwSWc+\
NpUFgNPN9PvQi8WEg5UmAGMCAwEAAQ==";

/// Google's P-384 root, `CN=Key Attestation CA1`, which remotely provisioned
/// devices use alone since April 2026. Source: as above.
/// SHA-256 of the key: 3ee44512a1af2beb39c889490c60ea3f82e43f5d5a5532f5ab9419f676cd07ec.
const GOOGLE_P384: &str = "\
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEI9ojcU7fPlsFCjxy6IRqzgeOoK0b+YsV9FPQywiyw8EQRTkJ9u3qwfnI\
4DGoSLlBqClTXJfgfCcZvs60FikNMHnu4fkRzObfgDkU2KNXezT9/RQ+XvNslxPHrHCowhGr";

/// Apple's root for App Attest, `CN=Apple App Attestation Root CA`, P-384.
/// Source: www.apple.com/certificateauthority, "Apple App Attestation Root CA".
/// SHA-256 of the key: 1ae751fd29896d0f1f13fe226c063f445d40d8938acc6245c251ecc0679330bd.
const APPLE_APP_ATTEST: &str = "\
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAERTHhmLW07ATaFQIEVwTtT4dyctdhNbJhFs/Ii2FdCgAHGbpphY3+d8qj\
uDngIN3WVhQUBHAoMeQ/cLiP1sOUtgjqK9auYen1mMEvRq9Sk3Jm5X8U62H+xTD3FE9TgS41";

/// The roots of Android key attestation.
pub static GOOGLE: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| vec![decoded(GOOGLE_RSA), decoded(GOOGLE_P384)]);

/// The root of App Attest.
pub static APPLE: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| vec![decoded(APPLE_APP_ATTEST)]);

#[expect(clippy::expect_used, reason = "constants that a test decodes")]
fn decoded(base64: &str) -> Vec<u8> {
    STANDARD.decode(base64).expect("a constant in base64")
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_roots_are_the_keys_that_their_hashes_name() {
        let hashes: Vec<String> = GOOGLE
            .iter()
            .chain(APPLE.iter())
            .map(|key| Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect())
            .collect();
        assert_eq!(
            hashes,
            [
                "feb2ea7551ee316ed4bb443c8293b884dbfdea40b603ee3e4f4a897e4580fbae",
                "3ee44512a1af2beb39c889490c60ea3f82e43f5d5a5532f5ab9419f676cd07ec",
                "1ae751fd29896d0f1f13fe226c063f445d40d8938acc6245c251ecc0679330bd",
            ]
        );
    }
}
