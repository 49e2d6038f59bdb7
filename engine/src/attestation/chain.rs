//! Certificate chains: from the attested key to a maker's root.
//!
//! Structures are read by `x509-parser`, signatures verified by `aws-lc-rs`.
//! What is asked of a chain is what RFC 5280 section 6 asks, as far as it bears
//! on attestation, with these differences:
//!
//! - A chain ends at a *key* that is trusted, in the chain or not.
//! - Whose dates count is a rule of the platform; see [`Chain::dates`].
//! - Revocation is by the maker's own list of serial numbers.
//!
//! Order is leaf first. No certificate may stand below the attested one: a
//! chain must be given whole, and every other certificate must be an authority.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::asn1_rs::{Any, Class, Oid, Tag, oid};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use crate::attestation::description::hex;
use crate::attestation::revocation::{RevocationList, trimmed};
use crate::attestation::{CertificateName, Findings, Reason};
use crate::ids::Micros;

/// Most certificates of a chain; real ones have three to six.
pub const CHAIN_MAX: usize = 10;
/// Most characters of an issuer's name that are kept.
const NAME_MAX: usize = 256;

const RSA_ENCRYPTION: Oid<'static> = oid!(1.2.840.113549.1.1.1);
const EC_PUBLIC_KEY: Oid<'static> = oid!(1.2.840.10045.2.1);
const SECP256R1: Oid<'static> = oid!(1.2.840.10045.3.1.7);
const SECP384R1: Oid<'static> = oid!(1.3.132.0.34);
const SHA256_WITH_RSA: Oid<'static> = oid!(1.2.840.113549.1.1.11);
const SHA384_WITH_RSA: Oid<'static> = oid!(1.2.840.113549.1.1.12);
const SHA512_WITH_RSA: Oid<'static> = oid!(1.2.840.113549.1.1.13);
const ECDSA_WITH_SHA256: Oid<'static> = oid!(1.2.840.10045.4.3.2);
const ECDSA_WITH_SHA384: Oid<'static> = oid!(1.2.840.10045.4.3.3);
const ECDSA_WITH_SHA512: Oid<'static> = oid!(1.2.840.10045.4.3.4);

/// A chain that could be read; nothing is verified yet.
#[derive(Debug)]
pub struct Chain<'a> {
    certificates: Vec<X509Certificate<'a>>,
}

impl<'a> Chain<'a> {
    /// Reads certificates that stand one after the other, leaf first.
    ///
    /// # Errors
    ///
    /// [`Reason::EvidenceUnreadable`] unless all bytes are certificates,
    /// [`Reason::ChainTooLong`] for more than [`CHAIN_MAX`].
    pub fn read(mut octets: &'a [u8]) -> Result<Self, Reason> {
        let mut certificates = Vec::new();
        while !octets.is_empty() {
            if certificates.len() == CHAIN_MAX {
                return Err(Reason::ChainTooLong);
            }
            let (rest, certificate) =
                X509Certificate::from_der(octets).map_err(|_| Reason::EvidenceUnreadable)?;
            if !is_framed(certificate.as_raw()) {
                return Err(Reason::EvidenceUnreadable);
            }
            octets = rest;
            certificates.push(certificate);
        }
        if certificates.is_empty() {
            return Err(Reason::EvidenceUnreadable);
        }
        Ok(Self { certificates })
    }

    /// The certificate of the attested key.
    #[must_use]
    pub fn leaf(&self) -> &X509Certificate<'a> {
        &self.certificates[0]
    }

    /// The certificates above it, nearest first.
    #[must_use]
    pub fn authorities(&self) -> &[X509Certificate<'a>] {
        &self.certificates[1..]
    }

    /// All certificates, leaf first.
    #[must_use]
    pub fn certificates(&self) -> &[X509Certificate<'a>] {
        &self.certificates
    }

    /// Whether each certificate names the next as its issuer, and that one may issue.
    ///
    /// # Errors
    ///
    /// [`Reason::ChainBroken`].
    pub fn links(&self) -> Result<(), Reason> {
        for (below, pair) in self.certificates.windows(2).enumerate() {
            let named = pair[0].issuer().as_raw() == pair[1].subject().as_raw();
            if !named || !may_issue(&pair[1], below) {
                return Err(Reason::ChainBroken);
            }
        }
        Ok(())
    }

    /// Whether each certificate is signed by the key of the next.
    ///
    /// # Errors
    ///
    /// [`Reason::ChainSignature`], [`Reason::ChainAlgorithm`].
    pub fn signatures(&self) -> Result<(), Reason> {
        self.certificates.windows(2).try_for_each(|pair| signed_by(&pair[0], pair[1].public_key()))
    }

    /// The place among `roots` of the key that the chain ends at: the key of an
    /// authority in it, or one that signed its last certificate.
    ///
    /// # Errors
    ///
    /// [`Reason::RootUnknown`].
    pub fn root(&self, roots: &[&[u8]]) -> Result<usize, Reason> {
        let present = self.authorities().iter().find_map(|authority| {
            roots.iter().position(|root| *root == authority.public_key().raw)
        });
        let last = &self.certificates[self.certificates.len() - 1];
        present
            .or_else(|| {
                roots.iter().position(|root| {
                    SubjectPublicKeyInfo::from_der(root)
                        .is_ok_and(|(_, key)| signed_by(last, &key).is_ok())
                })
            })
            .ok_or(Reason::RootUnknown)
    }

    /// Judges what the chain ends at: a key of the `maker`'s, or one of `further`
    /// that the application trusts. Gives how many certificates, the leaf always
    /// among them, stand below a trusted key: all where there is none in the chain.
    pub fn judge_root(
        &self,
        (maker, own): (&str, &[Vec<u8>]),
        further: &[Vec<u8>],
        findings: &mut Findings,
    ) -> usize {
        let trusted: Vec<&[u8]> = own.iter().chain(further).map(Vec::as_slice).collect();
        let root = self.root(&trusted);
        if let Ok(place) = root {
            let whose = if place < own.len() { maker } else { "the application" };
            findings.field("root.trusted_by", whose);
        }
        findings.check("root", root.map(|_| ()));
        let above = |certificate: &X509Certificate| trusted.contains(&certificate.public_key().raw);
        1 + self.authorities().iter().take_while(|authority| !above(authority)).count()
    }

    /// Whether the dates of `certificates` hold at `at`, both ends included.
    ///
    /// # Errors
    ///
    /// [`Reason::CertificateNotYetValid`], [`Reason::CertificateExpired`].
    pub fn dates(certificates: &[X509Certificate], at: Micros) -> Result<(), Reason> {
        // 2^63 microseconds are 292,000 years, so seconds always fit.
        let now = (at.0 / 1_000_000) as i64;
        for certificate in certificates {
            let validity = certificate.validity();
            if now < validity.not_before.timestamp() {
                return Err(Reason::CertificateNotYetValid);
            }
            if now > validity.not_after.timestamp() {
                return Err(Reason::CertificateExpired);
            }
        }
        Ok(())
    }

    /// Whether no certificate, leaf and root included, is on the list.
    ///
    /// # Errors
    ///
    /// [`Reason::CertificateRevoked`], [`Reason::CertificateSuspended`]: the
    /// status of the certificate nearest to the leaf.
    pub fn not_revoked(&self, list: &RevocationList) -> Result<(), Reason> {
        self.certificates
            .iter()
            .find_map(|certificate| list.status(certificate.raw_serial()))
            .map_or(Ok(()), |status| Err(status.reason()))
    }

    /// Notes what names and dates each certificate. The leaf's subject and
    /// serial number can name a device's key.
    pub fn show(&self, findings: &mut Findings) {
        for (index, certificate) in self.certificates.iter().enumerate() {
            let name = |field: &str| format!("certificates[{index}].{field}");
            let subject = certificate.subject().to_string();
            let serial = hex(certificate.raw_serial());
            if index == 0 {
                findings.private_field(name("subject"), subject);
                findings.private_field(name("serial"), serial);
            } else {
                findings.field(name("subject"), subject);
                findings.field(name("serial"), serial);
            }
            findings.field(name("issuer"), certificate.issuer().to_string());
            findings.field(name("not_before"), certificate.validity().not_before.to_string());
            findings.field(name("not_after"), certificate.validity().not_after.to_string());
        }
        let mut names = self.names();
        findings.leaf = Some(names.remove(0));
        findings.authorities = names;
    }

    /// Names of all certificates, leaf first.
    #[must_use]
    pub fn names(&self) -> Vec<CertificateName> {
        self.certificates
            .iter()
            .map(|certificate| CertificateName {
                issuer: certificate.issuer().to_string().chars().take(NAME_MAX).collect(),
                serial: trimmed(certificate.raw_serial()).to_vec(),
            })
            .collect()
    }
}

/// Whether bytes are one key of a kind that authorities have.
#[must_use]
pub fn can_be_root(key: &[u8]) -> bool {
    SubjectPublicKeyInfo::from_der(key).is_ok_and(|(rest, key)| {
        let rsa = key.algorithm.algorithm == RSA_ENCRYPTION;
        let named = key.algorithm.algorithm == EC_PUBLIC_KEY && curve(&key).is_some();
        rest.is_empty() && (rsa || named)
    })
}

/// Whether the parts of a certificate that no signature covers have the tags
/// that they must have (RFC 5280 section 4.1). The parser looks at their
/// contents alone; without this, two octet strings would be one certificate.
fn is_framed(certificate: &[u8]) -> bool {
    fn parts<'a>(octets: &'a [u8], tags: &[Tag]) -> Option<Vec<&'a [u8]>> {
        let mut rest = octets;
        let mut contents = Vec::with_capacity(tags.len());
        for tag in tags {
            let (after, part) = Any::from_der(rest).ok()?;
            let constructed = *tag == Tag::Sequence;
            if part.class() != Class::Universal
                || part.tag() != *tag
                || part.header.constructed() != constructed
            {
                return None;
            }
            contents.push(part.data);
            rest = after;
        }
        Some(contents)
    }
    parts(certificate, &[Tag::Sequence])
        .and_then(|outer| parts(outer[0], &[Tag::Sequence, Tag::Sequence, Tag::BitString]))
        .and_then(|inner| parts(inner[1], &[Tag::Oid]))
        .is_some()
}

/// Whether a certificate is an authority that may stand over `below`
/// authorities (RFC 5280 sections 4.2.1.3 and 4.2.1.9).
fn may_issue(certificate: &X509Certificate, below: usize) -> bool {
    let authority = match certificate.basic_constraints() {
        Ok(Some(constraints)) => {
            let fits = |length: u32| below <= length as usize;
            constraints.value.ca && constraints.value.path_len_constraint.is_none_or(fits)
        }
        Ok(None) | Err(_) => false,
    };
    let may_sign = match certificate.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    authority && may_sign
}

/// Whether a certificate's signature verifies with `issuer`.
fn signed_by(certificate: &X509Certificate, issuer: &SubjectPublicKeyInfo) -> Result<(), Reason> {
    // The signed algorithm and the one beside the signature must be the same
    // (RFC 5280 section 4.1.1.2): the second one nobody has signed.
    if certificate.signature_algorithm != certificate.tbs_certificate.signature {
        return Err(Reason::ChainAlgorithm);
    }
    let algorithm = algorithm(&certificate.signature_algorithm, issuer)?;
    if certificate.signature_value.unused_bits != 0 || issuer.subject_public_key.unused_bits != 0 {
        return Err(Reason::ChainSignature);
    }
    UnparsedPublicKey::new(algorithm, &issuer.subject_public_key.data)
        .verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
        .map_err(|_| Reason::ChainSignature)
}

/// How a signature of this algorithm is verified with a key of this kind.
///
/// The hash need not be as wide as the curve: real intermediates of P-256 sign
/// with SHA-384. RSA keys have 2,048 to 8,192 bits. SHA-1 is not accepted.
fn algorithm(
    signature: &AlgorithmIdentifier,
    issuer: &SubjectPublicKeyInfo,
) -> Result<&'static dyn VerificationAlgorithm, Reason> {
    let hash = &signature.algorithm;
    let key = &issuer.algorithm.algorithm;
    if *key == RSA_ENCRYPTION {
        if !is_strong_rsa(issuer) {
            return Err(Reason::ChainAlgorithm);
        }
        return match hash {
            hash if *hash == SHA256_WITH_RSA => Ok(&signature::RSA_PKCS1_2048_8192_SHA256),
            hash if *hash == SHA384_WITH_RSA => Ok(&signature::RSA_PKCS1_2048_8192_SHA384),
            hash if *hash == SHA512_WITH_RSA => Ok(&signature::RSA_PKCS1_2048_8192_SHA512),
            _ => Err(Reason::ChainAlgorithm),
        };
    }
    if *key != EC_PUBLIC_KEY {
        return Err(Reason::ChainAlgorithm);
    }
    let curve = curve(issuer).ok_or(Reason::ChainAlgorithm)?;
    match (curve, hash) {
        (Curve::P256, hash) if *hash == ECDSA_WITH_SHA256 => Ok(&signature::ECDSA_P256_SHA256_ASN1),
        (Curve::P256, hash) if *hash == ECDSA_WITH_SHA384 => Ok(&signature::ECDSA_P256_SHA384_ASN1),
        (Curve::P256, hash) if *hash == ECDSA_WITH_SHA512 => Ok(&signature::ECDSA_P256_SHA512_ASN1),
        (Curve::P384, hash) if *hash == ECDSA_WITH_SHA256 => Ok(&signature::ECDSA_P384_SHA256_ASN1),
        (Curve::P384, hash) if *hash == ECDSA_WITH_SHA384 => Ok(&signature::ECDSA_P384_SHA384_ASN1),
        (Curve::P384, hash) if *hash == ECDSA_WITH_SHA512 => Ok(&signature::ECDSA_P384_SHA512_ASN1),
        (Curve::P256 | Curve::P384, _) => Err(Reason::ChainAlgorithm),
    }
}

/// Whether an RSA key is large enough to vouch for others (NIST SP 800-131A):
/// Android's software authority of 2016 had 1,024 bits.
fn is_strong_rsa(key: &SubjectPublicKeyInfo) -> bool {
    matches!(key.parsed(), Ok(PublicKey::RSA(key)) if key.key_size() >= 2048)
}

/// Curves that authorities use.
#[derive(Clone, Copy)]
enum Curve {
    P256,
    P384,
}

/// The curve that a key names; none for another one or explicit parameters.
fn curve(key: &SubjectPublicKeyInfo) -> Option<Curve> {
    let name = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
    if name == SECP256R1 {
        Some(Curve::P256)
    } else if name == SECP384R1 {
        Some(Curve::P384)
    } else {
        None
    }
}
