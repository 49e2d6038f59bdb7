//! What evidence means for an activation.
//!
//! A second check beside the hardware-key strategy, and apart from it. Under
//! REQUIRED it cannot be got round by sending nothing: a device that offers no
//! hardware key, or no evidence, fails. A device says itself of which platform
//! it is, so REQUIRED for one platform is worth something only if the other is
//! REQUIRED too, or OFF.

use crate::attestation::policy::{Mode, Policy};
use crate::attestation::{Attested, Status};
use crate::events::EvidenceJudgedV1;
use crate::terms::HwKeyClientStatus;

/// How an activation stands with its evidence.
pub(crate) fn status(
    policy: &Policy,
    evidence: Option<&EvidenceJudgedV1>,
    client: HwKeyClientStatus,
) -> Status {
    match looked_at(policy, evidence) {
        Some(evidence) if evidence.reason.is_none() => Status::Verified,
        Some(_) => Status::Refused,
        None if policy.any_mode(|mode| mode != Mode::Off) => match client {
            HwKeyClientStatus::NotSupported => Status::NotSupported,
            HwKeyClientStatus::Signed
            | HwKeyClientStatus::NotActivated
            | HwKeyClientStatus::KeyGenerationFailed
            | HwKeyClientStatus::KeyLost
            | HwKeyClientStatus::KeyUnavailable
            | HwKeyClientStatus::SigningFailed
            | HwKeyClientStatus::NotReported => Status::NotGiven,
        },
        None => Status::NotChecked,
    }
}

/// Whether the policy lets the activation pass. `key_proven`: the hardware key
/// that the evidence is about is there, and the device has shown that it holds it.
pub(crate) fn passes(
    policy: &Policy,
    evidence: Option<&EvidenceJudgedV1>,
    key_proven: bool,
) -> bool {
    let required = match looked_at(policy, evidence) {
        Some(evidence) => policy.mode(evidence.platform) == Mode::Required,
        None => policy.any_mode(|mode| mode == Mode::Required),
    };
    let accepted = looked_at(policy, evidence).is_some_and(|evidence| evidence.reason.is_none());
    !required || (accepted && key_proven)
}

/// What state keeps of it.
pub(crate) fn attested(status: Status, evidence: Option<&EvidenceJudgedV1>) -> Option<Attested> {
    (status != Status::NotChecked).then(|| Attested {
        status,
        reason: evidence.and_then(|evidence| evidence.reason),
        facts: evidence.map(|evidence| evidence.facts.clone()).unwrap_or_default(),
        at: evidence.map(|evidence| evidence.judged_at),
    })
}

/// Evidence of a platform whose mode is OFF is as good as none.
fn looked_at<'a>(
    policy: &Policy,
    evidence: Option<&'a EvidenceJudgedV1>,
) -> Option<&'a EvidenceJudgedV1> {
    evidence.filter(|evidence| policy.mode(evidence.platform) != Mode::Off)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestation::{Facts, Platform, Reason};
    use crate::ids::Micros;

    fn evidence(platform: Platform, reason: Option<Reason>) -> EvidenceJudgedV1 {
        EvidenceJudgedV1 {
            platform,
            judged_at: Micros(7),
            config_version: 1,
            list: None,
            reason,
            authorities: Vec::new(),
            facts: Facts::default(),
        }
    }

    fn policy(android: Mode, apple: Mode) -> Policy {
        let mut policy = Policy::default();
        policy.android.mode = android;
        policy.apple.mode = apple;
        policy
    }

    #[test]
    fn only_required_fails_and_only_without_accepted_evidence_about_a_proven_key() {
        let good = evidence(Platform::Android, None);
        let bad = evidence(Platform::Android, Some(Reason::RootUnknown));
        let foreign = evidence(Platform::Apple, None);
        for (android, apple, of, proven, passed) in [
            (Mode::Required, Mode::Off, Some(&good), true, true),
            (Mode::Required, Mode::Off, Some(&good), false, false),
            (Mode::Required, Mode::Off, Some(&bad), true, false),
            (Mode::Required, Mode::Off, None, true, false),
            (Mode::Required, Mode::Off, Some(&foreign), true, false),
            (Mode::Off, Mode::Required, None, true, false),
            (Mode::Optional, Mode::Off, Some(&bad), true, true),
            (Mode::Optional, Mode::Optional, None, false, true),
            (Mode::Off, Mode::Off, None, false, true),
            (Mode::Off, Mode::Off, Some(&bad), false, true),
        ] {
            let policy = policy(android, apple);
            assert_eq!(passes(&policy, of, proven), passed, "{android} {apple} {of:?} {proven}");
        }
    }

    #[test]
    fn the_status_says_what_came_and_what_was_found() {
        let (signed, without) = (HwKeyClientStatus::Signed, HwKeyClientStatus::NotSupported);
        let good = evidence(Platform::Android, None);
        let bad = evidence(Platform::Android, Some(Reason::RootUnknown));
        let optional = policy(Mode::Optional, Mode::Off);
        assert_eq!(status(&optional, Some(&good), signed), Status::Verified);
        assert_eq!(status(&optional, Some(&bad), signed), Status::Refused);
        assert_eq!(status(&optional, None, signed), Status::NotGiven);
        assert_eq!(status(&optional, None, without), Status::NotSupported);
        let off = policy(Mode::Off, Mode::Off);
        assert_eq!(status(&off, Some(&good), signed), Status::NotChecked);
        assert_eq!(attested(Status::NotChecked, None), None);
        let kept = attested(Status::Refused, Some(&bad)).unwrap();
        assert_eq!((kept.reason, kept.at), (Some(Reason::RootUnknown), Some(Micros(7))));
    }
}
