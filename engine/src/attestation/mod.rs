//! Attestation: what the phone's maker vouches for.
//!
//! A key that claims to live in hardware is only a claim until evidence says
//! so: a chain of certificates from Android Keystore, or an App Attest object
//! from Apple. [`judge`] reads evidence and judges it under a [`Policy`], as a
//! pure function: the time is the recorded one, the roots and the revocation
//! list are arguments. So the verdict of a past day can be found again, and the
//! verdict that today's policy would give can be asked for.
//!
//! Every failure has a [`Reason`] of its own. A judgement goes on after the
//! first failure as far as the evidence can be read, so that [`Judgement`]
//! lists every check and every field; the first failure in the order of the
//! checks is the reason.
//!
//! Fields that can name a device ([`Field::private`]) are for the person who
//! holds the evidence. They never enter a record's clear part.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ids::Micros;
use crate::key::PublicKey;
use crate::terms::terms;

pub(crate) mod activation;
pub mod android;
pub mod apple;
mod cbor;
pub mod chain;
pub mod description;
pub mod facts;
pub mod lists;
pub mod policy;
pub(crate) mod properties;
pub mod revocation;
pub mod roots;

pub use policy::{AndroidPolicy, ApplePolicy, Policy};

/// Most bytes of evidence. Chains of five certificates have about 5,000 bytes,
/// App Attest objects with their receipt about 6,000.
pub const EVIDENCE_MAX: usize = 24 * 1024;

terms! {
    /// Whose evidence it is.
    Platform {
        /// Android key attestation: a chain of certificates.
        Android = 1 "ANDROID",
        /// Apple App Attest: an attestation object.
        Apple = 2 "APPLE",
    }

    /// Where a key lives, weakest first.
    SecurityLevel {
        /// In the operating system.
        Software = 1 "SOFTWARE",
        /// In a trusted execution environment.
        TrustedEnvironment = 2 "TRUSTED_ENVIRONMENT",
        /// In a chip of its own.
        StrongBox = 3 "STRONG_BOX",
        /// In Apple's Secure Enclave.
        SecureEnclave = 4 "SECURE_ENCLAVE",
    }

    /// What the boot loader found.
    BootState {
        /// Signed by the maker.
        Verified = 1 "VERIFIED",
        /// Signed by a key that the owner installed.
        SelfSigned = 2 "SELF_SIGNED",
        /// Not verified.
        Unverified = 3 "UNVERIFIED",
        /// Verification failed.
        Failed = 4 "FAILED",
    }

    /// How the device got its attestation key.
    Provisioning {
        /// In the factory, shared by many devices.
        Factory = 1 "FACTORY",
        /// Remotely, one per device, short-lived.
        Remote = 2 "REMOTE",
    }

    /// Apple's environments.
    Environment {
        /// Development builds.
        Development = 1 "DEVELOPMENT",
        /// App Store, TestFlight, enterprise.
        Production = 2 "PRODUCTION",
    }

    /// What the revocation list was worth.
    ListState {
        /// There was none.
        Missing = 1 "MISSING",
        /// Older than the policy accepts without saying so.
        Stale = 2 "STALE",
        /// Young enough.
        Fresh = 3 "FRESH",
    }

    /// How a registration stands with evidence, in the words of risk attributes.
    Status {
        /// Evidence was accepted.
        Verified = 1 "VERIFIED",
        /// The application asks for none.
        NotChecked = 2 "NOT_CHECKED",
        /// None came, and the device says that it cannot have a hardware key.
        NotSupported = 3 "FAILED_CLIENT_NOT_SUPPORTED",
        /// None came.
        NotGiven = 4 "FAILED_NO_EVIDENCE",
        /// Evidence was refused; the reason stands beside it.
        Refused = 5 "FAILED_EVIDENCE_REFUSED",
    }

    /// Why evidence is refused: one word for one failure.
    Reason {
        /// More than [`EVIDENCE_MAX`] bytes.
        EvidenceTooLarge = 1 "EVIDENCE_TOO_LARGE",
        /// Not what the platform's evidence looks like.
        EvidenceUnreadable = 2 "EVIDENCE_UNREADABLE",
        /// The challenge in the evidence is another one.
        ChallengeMismatch = 3 "CHALLENGE_MISMATCH",
        /// The evidence is about another key than the registered hardware key.
        OtherKey = 4 "OTHER_KEY",

        /// More certificates than a real chain has.
        ChainTooLong = 20 "CHAIN_TOO_LONG",
        /// A certificate was not issued by the next one, or the next one may not issue.
        ChainBroken = 21 "CHAIN_BROKEN",
        /// A signature of the chain does not verify.
        ChainSignature = 22 "CHAIN_SIGNATURE",
        /// A signature or key of the chain is of a kind that is not accepted.
        ChainAlgorithm = 23 "CHAIN_ALGORITHM",
        /// The chain leads to no root that is trusted.
        RootUnknown = 24 "ROOT_UNKNOWN",
        /// A certificate whose dates count was over.
        CertificateExpired = 25 "CERTIFICATE_EXPIRED",
        /// A certificate whose dates count had not begun.
        CertificateNotYetValid = 26 "CERTIFICATE_NOT_YET_VALID",
        /// A certificate is on the revocation list.
        CertificateRevoked = 27 "CERTIFICATE_REVOKED",
        /// A certificate is suspended on the revocation list.
        CertificateSuspended = 28 "CERTIFICATE_SUSPENDED",

        /// No certificate has the key description.
        KeyDescriptionMissing = 40 "KEY_DESCRIPTION_MISSING",
        /// The key description is not of its form.
        KeyDescriptionUnreadable = 41 "KEY_DESCRIPTION_UNREADABLE",
        /// A certificate other than the leaf has a key description.
        KeyDescriptionMisplaced = 42 "KEY_DESCRIPTION_MISPLACED",
        /// The attested key is not of P-256.
        KeyNotP256 = 43 "KEY_NOT_P256",
        /// Signing is not among the key's purposes.
        PurposeNotSign = 44 "PURPOSE_NOT_SIGN",
        /// The key was not generated in the secure hardware.
        OriginNotGenerated = 45 "ORIGIN_NOT_GENERATED",
        /// The key can be exported.
        KeyExportable = 46 "KEY_EXPORTABLE",
        /// The key or its attestation lives below the level that is asked for.
        SecurityLevelTooLow = 47 "SECURITY_LEVEL_TOO_LOW",
        /// The boot loader is unlocked, or the evidence does not say.
        DeviceUnlocked = 48 "DEVICE_UNLOCKED",
        /// The system did not boot verified, or the evidence does not say.
        BootNotVerified = 49 "BOOT_NOT_VERIFIED",
        /// The system's patch level is too old, or the evidence does not say.
        PatchLevelTooOld = 50 "PATCH_LEVEL_TOO_OLD",
        /// No attested package is allowed.
        PackageNotAllowed = 51 "PACKAGE_NOT_ALLOWED",
        /// The package is not signed by an allowed key.
        SignerNotAllowed = 52 "SIGNER_NOT_ALLOWED",
        /// The attestation key came from the factory, and the policy wants a remote one.
        FactoryChain = 53 "FACTORY_CHAIN",

        /// The attestation statement is not of Apple's format.
        FormatNotAppAttest = 80 "FORMAT_NOT_APP_ATTEST",
        /// The nonce in the certificate is not that of authenticator data and client data.
        NonceMismatch = 81 "NONCE_MISMATCH",
        /// The key identifier is not the hash of the attested key.
        KeyIdMismatch = 82 "KEY_ID_MISMATCH",
        /// The App ID hash is of no allowed App ID.
        AppIdNotAllowed = 83 "APP_ID_NOT_ALLOWED",
        /// The environment is not allowed.
        EnvironmentNotAllowed = 84 "ENVIRONMENT_NOT_ALLOWED",
        /// The attestation's counter is not zero.
        CounterNotZero = 85 "COUNTER_NOT_ZERO",
        /// The credential identifier is not the key identifier.
        CredentialIdMismatch = 86 "CREDENTIAL_ID_MISMATCH",
        /// The client data is not of its form.
        ClientDataUnreadable = 87 "CLIENT_DATA_UNREADABLE",
        /// The assertion is not of its form.
        AssertionUnreadable = 88 "ASSERTION_UNREADABLE",
        /// The assertion's signature does not verify.
        AssertionSignature = 89 "ASSERTION_SIGNATURE",
        /// The assertion's counter has not risen.
        CounterNotRisen = 90 "COUNTER_NOT_RISEN",
    }
}

/// What evidence is judged against.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The challenge that the server gave; none if it is not known (a file
    /// that is only looked at), and then not compared.
    pub challenge: Option<&'a [u8]>,
    /// The registered hardware key; none if it is not known, and then not compared.
    pub hardware_key: Option<&'a PublicKey>,
    /// The recorded time: dates are judged at it, never at the machine's.
    pub at: Micros,
    /// The rules of the application.
    pub policy: &'a Policy,
    /// The revocation list in force at that time, if there was one.
    pub list: Option<&'a revocation::RevocationList>,
}

/// The result of judging.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every check that was made passed.
    Accepted,
    /// The first check that failed.
    Refused(Reason),
}

impl Outcome {
    /// The reason, if it is refused.
    #[must_use]
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Accepted => None,
            Self::Refused(reason) => Some(reason),
        }
    }
}

/// One check and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// What was checked, in lower snake case: `chain_signatures`, `challenge`, …
    pub name: &'static str,
    /// What came of it.
    pub result: CheckResult,
}

/// What came of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckResult {
    /// It holds.
    Passed,
    /// It does not.
    Failed(Reason),
    /// Nothing to compare with: the policy does not ask, or the value is not known.
    NotMade,
}

/// One value that was read from the evidence, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Where it stands, dotted: `key_description.hardware_enforced.origin`.
    pub name: String,
    /// Its value as text; binary as lower-case hex.
    pub value: String,
    /// Whether it can name a device or a person: never outside a sealed part.
    pub private: bool,
}

/// What the risk attributes report; each is none where the platform has no such thing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Where the key lives: the weaker of key and attestation.
    pub security_level: Option<SecurityLevel>,
    /// How the system booted.
    pub boot_state: Option<BootState>,
    /// Whether the boot loader is locked.
    pub device_locked: Option<bool>,
    /// The system's patch level as attested, YYYYMM.
    pub patch_level: Option<u32>,
    /// Where the attestation key came from.
    pub provisioning: Option<Provisioning>,
    /// Apple's environment.
    pub environment: Option<Environment>,
    /// What the revocation list was worth; none where there is no list.
    pub list: Option<ListState>,
}

/// A certificate by what names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CertificateName {
    /// The issuer's name as a string (RFC 4514 order of the certificate).
    pub issuer: String,
    /// The serial number, big-endian, without leading zeros.
    pub serial: Vec<u8>,
}

/// What state keeps of a registration's evidence, for risk attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attested {
    /// How it stands.
    pub status: Status,
    /// Why evidence was refused.
    pub reason: Option<Reason>,
    /// What was read from it.
    pub facts: Facts,
    /// When evidence was judged; none if none came.
    pub at: Option<Micros>,
}

/// Everything that judging found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Accepted, or refused and why.
    pub outcome: Outcome,
    /// Every check in order.
    pub checks: Vec<Check>,
    /// Every field that was read.
    pub fields: Vec<Field>,
    /// What the risk attributes report.
    pub facts: Facts,
    /// The certificates that may stand in clear: all but the leaf, which names a device's key.
    pub authorities: Vec<CertificateName>,
    /// The leaf: sealed only.
    pub leaf: Option<CertificateName>,
}

/// Collects checks and fields while evidence is read.
#[derive(Debug, Default)]
pub struct Findings {
    checks: Vec<Check>,
    fields: Vec<Field>,
    /// See [`Judgement::facts`].
    pub facts: Facts,
    /// See [`Judgement::authorities`].
    pub authorities: Vec<CertificateName>,
    /// See [`Judgement::leaf`].
    pub leaf: Option<CertificateName>,
}

impl Findings {
    /// Notes a check that was made.
    pub fn check(&mut self, name: &'static str, result: Result<(), Reason>) {
        let result = match result {
            Ok(()) => CheckResult::Passed,
            Err(reason) => CheckResult::Failed(reason),
        };
        self.checks.push(Check { name, result });
    }

    /// Notes a check that had nothing to compare with.
    pub fn not_made(&mut self, name: &'static str) {
        self.checks.push(Check { name, result: CheckResult::NotMade });
    }

    /// Notes a value that was read.
    pub fn field(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.fields.push(Field { name: name.into(), value: value.into(), private: false });
    }

    /// Notes a value that can name a device.
    pub fn private_field(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.fields.push(Field { name: name.into(), value: value.into(), private: true });
    }

    /// The judgement: accepted if no check failed. Evidence of which nothing
    /// was checked is refused as unreadable.
    #[must_use]
    pub fn judged(self) -> Judgement {
        let failed = self.checks.iter().find_map(|check| match check.result {
            CheckResult::Failed(reason) => Some(reason),
            CheckResult::Passed | CheckResult::NotMade => None,
        });
        let passed = self.checks.iter().any(|check| check.result == CheckResult::Passed);
        let outcome = match failed {
            Some(reason) => Outcome::Refused(reason),
            None if passed => Outcome::Accepted,
            None => Outcome::Refused(Reason::EvidenceUnreadable),
        };
        Judgement {
            outcome,
            checks: self.checks,
            fields: self.fields,
            facts: self.facts,
            authorities: self.authorities,
            leaf: self.leaf,
        }
    }
}

/// Nothing where the condition holds, else the reason.
fn holds(condition: bool, otherwise: Reason) -> Result<(), Reason> {
    if condition { Ok(()) } else { Err(otherwise) }
}

/// Judges evidence of a platform. Never fails and never panics, whatever the bytes.
#[must_use]
pub fn judge(platform: Platform, evidence: &[u8], expected: &Expected) -> Judgement {
    match platform {
        Platform::Android => android::judge(evidence, expected),
        Platform::Apple => apple::judge(evidence, expected),
    }
}
