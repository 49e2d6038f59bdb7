//! What a policy makes of what stands in clear about evidence.
//!
//! Evidence that is sealed, or erased, cannot be judged again; what risk
//! attributes report of it can. This is less than judging: it knows no package,
//! no signer, no App ID and no certificate.

use crate::attestation::policy::{BootRule, Policy, ProvisioningRule};
use crate::attestation::{
    AndroidPolicy, ApplePolicy, BootState, Facts, Platform, Provisioning, Reason,
};

/// The first rule of `policy` that these facts break. What the facts do not
/// say breaks a rule that asks for it.
#[must_use]
pub fn refused(policy: &Policy, platform: Platform, facts: &Facts) -> Option<Reason> {
    match platform {
        Platform::Android => android(&policy.android, facts),
        Platform::Apple => apple(&policy.apple, facts),
    }
}

fn android(policy: &AndroidPolicy, facts: &Facts) -> Option<Reason> {
    let (locked, verified) = match policy.boot {
        BootRule::Any => (false, false),
        BootRule::Locked => (true, false),
        BootRule::LockedVerified => (true, true),
    };
    let new = |min: u32| facts.patch_level.is_some_and(|level| level >= min);
    let remote_only = match policy.provisioning {
        ProvisioningRule::Any => false,
        ProvisioningRule::RemoteOnly => true,
    };
    let rules = [
        (remote_only && facts.provisioning != Some(Provisioning::Remote), Reason::FactoryChain),
        (facts.security_level < Some(policy.security_level), Reason::SecurityLevelTooLow),
        (locked && facts.device_locked != Some(true), Reason::DeviceUnlocked),
        (verified && facts.boot_state != Some(BootState::Verified), Reason::BootNotVerified),
        (policy.patch_level_min.is_some_and(|min| !new(min)), Reason::PatchLevelTooOld),
    ];
    rules.into_iter().find_map(|(broken, reason)| broken.then_some(reason))
}

fn apple(policy: &ApplePolicy, facts: &Facts) -> Option<Reason> {
    let allowed = facts.environment.is_some_and(|found| policy.environments.contains(&found));
    (!allowed).then_some(Reason::EnvironmentNotAllowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestation::{Environment, SecurityLevel};

    fn good() -> Facts {
        Facts {
            security_level: Some(SecurityLevel::TrustedEnvironment),
            boot_state: Some(BootState::Verified),
            device_locked: Some(true),
            patch_level: Some(202_511),
            provisioning: Some(Provisioning::Factory),
            environment: None,
            list: None,
        }
    }

    fn policy(change: impl FnOnce(&mut Policy)) -> Policy {
        let mut policy = Policy::default();
        change(&mut policy);
        policy
    }

    #[test]
    fn each_rule_is_found_broken_and_what_is_not_said_breaks_it_too() {
        let android = |policy: &Policy, facts: &Facts| refused(policy, Platform::Android, facts);
        let default = Policy::default();
        assert_eq!(android(&default, &good()), None);
        assert_eq!(android(&default, &Facts::default()), Some(Reason::SecurityLevelTooLow));
        let unlocked = Facts { device_locked: Some(false), ..good() };
        assert_eq!(android(&default, &unlocked), Some(Reason::DeviceUnlocked));
        let own = Facts { boot_state: Some(BootState::SelfSigned), ..good() };
        assert_eq!(android(&default, &own), Some(Reason::BootNotVerified));
        let strong = policy(|it| it.android.security_level = SecurityLevel::StrongBox);
        assert_eq!(android(&strong, &good()), Some(Reason::SecurityLevelTooLow));
        let remote = policy(|it| it.android.provisioning = ProvisioningRule::RemoteOnly);
        assert_eq!(android(&remote, &good()), Some(Reason::FactoryChain));
        for (min, found) in [(202_511, None), (202_512, Some(Reason::PatchLevelTooOld))] {
            let newer = policy(|it| it.android.patch_level_min = Some(min));
            assert_eq!(android(&newer, &good()), found);
        }
    }

    #[test]
    fn an_environment_must_be_among_those_allowed() {
        let facts = |environment| Facts { environment, ..Facts::default() };
        let default = Policy::default();
        for (environment, found) in [
            (Some(Environment::Production), None),
            (Some(Environment::Development), Some(Reason::EnvironmentNotAllowed)),
            (None, Some(Reason::EnvironmentNotAllowed)),
        ] {
            assert_eq!(refused(&default, Platform::Apple, &facts(environment)), found);
        }
    }
}
