//! What an application asks of evidence.
//!
//! A part of the application's configuration ([`crate::config::Config`]), and
//! of its version: a judgement is made under one version of it. The
//! requirements on a key itself (signing key of P-256, generated in hardware,
//! not exportable, our challenge, the registered key) are no policy: they
//! always hold.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::attestation::{Environment, Platform, SecurityLevel};
use crate::terms::terms;

terms! {
    /// What follows from a platform's evidence.
    Mode {
        /// Evidence is not looked at.
        Off = 1 "OFF",
        /// Evidence is judged and reported; nothing fails by it.
        Optional = 2 "OPTIONAL",
        /// Without accepted evidence about its hardware key an activation fails.
        Required = 3 "REQUIRED",
    }

    /// What the boot loader must vouch for.
    BootRule {
        /// Nothing.
        Any = 1 "ANY",
        /// The boot loader is locked.
        Locked = 2 "LOCKED",
        /// The boot loader is locked and the system is the maker's.
        LockedVerified = 3 "LOCKED_VERIFIED",
    }

    /// Which attestation keys are accepted.
    ProvisioningRule {
        /// Those from the factory and remotely provisioned ones.
        Any = 1 "ANY",
        /// Remotely provisioned ones only.
        RemoteOnly = 2 "REMOTE_ONLY",
    }
}

/// The rules of one application.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Policy {
    /// For Android.
    pub android: AndroidPolicy,
    /// For Apple.
    pub apple: ApplePolicy,
}

impl Policy {
    /// What follows from the evidence of a platform.
    #[must_use]
    pub const fn mode(&self, platform: Platform) -> Mode {
        match platform {
            Platform::Android => self.android.mode,
            Platform::Apple => self.apple.mode,
        }
    }

    /// Whether `rule` holds for the mode of any platform.
    pub(crate) fn any_mode(&self, rule: impl Fn(Mode) -> bool) -> bool {
        Platform::ALL.iter().any(|platform| rule(self.mode(*platform)))
    }
}

/// The rules for Android key attestation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AndroidPolicy {
    /// Off, optional, required.
    pub mode: Mode,
    /// The weakest place that the key and its attestation may live in:
    /// TRUSTED_ENVIRONMENT or STRONG_BOX. StrongBox is slow and at times
    /// unreliable on phones that have it, so it is never the default.
    pub security_level: SecurityLevel,
    /// What the boot loader must vouch for.
    pub boot: BootRule,
    /// Oldest patch level of the system, YYYYMM; none asks for none.
    pub patch_level_min: Option<u32>,
    /// Packages that may hold the key; empty accepts any.
    pub packages: Vec<String>,
    /// SHA-256 of the certificates that may have signed the package; empty accepts any.
    pub signers: Vec<[u8; 32]>,
    /// Which attestation keys are accepted.
    pub provisioning: ProvisioningRule,
    /// Days after which a revocation list is reported as stale.
    pub list_age_max_days: u32,
    /// Keys of further roots (SubjectPublicKeyInfo, DER) beside Google's.
    pub further_roots: Vec<Vec<u8>>,
}

impl Default for AndroidPolicy {
    fn default() -> Self {
        Self {
            mode: Mode::Off,
            security_level: SecurityLevel::TrustedEnvironment,
            boot: BootRule::LockedVerified,
            patch_level_min: None,
            packages: Vec::new(),
            signers: Vec::new(),
            provisioning: ProvisioningRule::Any,
            list_age_max_days: 7,
            further_roots: Vec::new(),
        }
    }
}

/// The rules for Apple App Attest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplePolicy {
    /// Off, optional, required.
    pub mode: Mode,
    /// App IDs (`TEAMID.bundle.id`) that may hold the key; empty accepts none,
    /// since without one the evidence says only that some app made a key.
    pub app_ids: Vec<String>,
    /// Environments that are accepted.
    pub environments: Vec<Environment>,
    /// Keys of further roots (SubjectPublicKeyInfo, DER) beside Apple's.
    pub further_roots: Vec<Vec<u8>>,
}

impl Default for ApplePolicy {
    fn default() -> Self {
        Self {
            mode: Mode::Off,
            app_ids: Vec::new(),
            environments: vec![Environment::Production],
            further_roots: Vec::new(),
        }
    }
}
