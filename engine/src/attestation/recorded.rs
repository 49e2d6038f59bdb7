//! Evidence as an event holds it, and its verdict once more.
//!
//! The server and whoever checks its log make the verdict of an event by one
//! function, [`verdict`]. So a verdict that is repeated from the sealed evidence,
//! at the recorded time, under the recorded policy and list, is the recorded one
//! byte for byte, or somebody has changed something.

use crate::attestation::lists::ListName;
use crate::attestation::policy::{Mode, Policy};
use crate::attestation::revocation::RevocationList;
use crate::attestation::{Expected, Platform, judge};
use crate::events::{Bytes32, Event, EvidenceJudgedV1};
use crate::ids::{Id, Micros};
use crate::key::{KeyBytes, PublicKey};
use crate::proofs::Judged;
use crate::transcript::NO_CONTENT;

/// What evidence is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The challenge that the device was given.
    pub challenge: &'a Bytes32,
    /// The hardware key that it offers, if it does.
    pub hardware_key: Option<&'a PublicKey>,
    /// The time at which dates are judged.
    pub at: Micros,
    /// The version of the configuration that the policy is of.
    pub config_version: u64,
    /// The rules of the application.
    pub policy: &'a Policy,
    /// The revocation list in force, with its name in the log.
    pub list: Option<(ListName, &'a RevocationList)>,
}

/// The verdict on evidence, as an event holds it.
#[must_use]
pub fn verdict(platform: Platform, evidence: &[u8], given: &Given) -> EvidenceJudgedV1 {
    // Evidence about a key that is not offered is about another key.
    let nobody = PublicKey::dummy();
    let expected = Expected {
        challenge: Some(given.challenge),
        hardware_key: Some(given.hardware_key.unwrap_or(&nobody)),
        at: given.at,
        policy: given.policy,
        list: given.list.map(|(_, list)| list),
    };
    let judgement = judge(platform, evidence, &expected);
    EvidenceJudgedV1 {
        platform,
        judged_at: given.at,
        config_version: given.config_version,
        list: given.list.map(|(name, _)| name),
        reason: judgement.outcome.reason(),
        authorities: judgement.authorities,
        facts: judgement.facts,
    }
}

/// What an event that can come with evidence says of it.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// The application whose policy counts.
    pub application: Id,
    /// The challenge that the device was given.
    pub challenge: &'a Bytes32,
    /// The hardware key that it offered, if it did.
    pub hardware_key: Option<&'a KeyBytes>,
    /// The salted hash of the evidence, zeros if none came.
    pub hash: &'a Bytes32,
    /// The verdict; none if nobody looked at it.
    pub verdict: Option<&'a EvidenceJudgedV1>,
}

impl<'a> Recorded<'a> {
    /// Of an event; none if it is of no kind that can come with evidence.
    #[must_use]
    pub fn of(event: &'a Event) -> Option<Self> {
        match Judged::of(event)? {
            Judged::Activation(judged) => Some(Self {
                application: judged.application,
                challenge: &judged.challenge,
                hardware_key: judged.keys.hardware.as_ref(),
                hash: &judged.attestation_hash,
                verdict: judged.evidence.as_ref(),
            }),
            Judged::Authentication(judged) => {
                let attested = judged.attestation.as_ref()?;
                Some(Self {
                    application: judged.application,
                    challenge: &judged.challenge,
                    hardware_key: judged.new_key.as_ref(),
                    hash: &attested.hash,
                    verdict: attested.evidence.as_ref(),
                })
            }
        }
    }

    /// Whether evidence came.
    #[must_use]
    pub fn came(&self) -> bool {
        *self.hash != NO_CONTENT
    }

    /// Whether a verdict is missing: evidence came, of whatever platform it is
    /// somebody asks for it, and none was recorded.
    #[must_use]
    pub fn lacks_verdict(&self, policy: &Policy) -> bool {
        self.came() && self.verdict.is_none() && !policy.any_mode(|mode| mode == Mode::Off)
    }
}
