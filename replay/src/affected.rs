//! Which registrations a revocation, or a stricter policy, is about.
//!
//! A search backwards. What stands in clear is looked at for everybody, also
//! for those who were erased: issuers and serial numbers of authorities, and
//! what risk attributes report. Where a key store opens the evidence, the leaf
//! is looked up too, and the policy judges the evidence itself, at the recorded
//! time; else as much of the policy is applied as those facts allow.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use engine::attestation::policy::Mode;
use engine::attestation::recorded::Recorded;
use engine::attestation::revocation::{ListStatus, RevocationList};
use engine::attestation::{
    CertificateName, Expected, Judgement, Platform, Policy, Reason, facts, judge,
};
use engine::events::{Event, EvidenceJudgedV1};
use engine::ids::{Id, Micros, Position};
use engine::key::{KeyId, PublicKey};
use engine::machine::Record;

use crate::evidence::{Keys, Opened};
use crate::folder::FolderError;
use crate::inspect::{Filter, Inspected, inspect};

/// A registration whose present hardware key is affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    /// The registration.
    pub registration: Id,
    /// Its application.
    pub application: Id,
    /// The record that set its keys.
    pub position: Position,
    /// When that was.
    pub at: Micros,
    /// The hardware key that this is about, if it has one.
    pub hardware_key: Option<KeyId>,
    /// Authorities of its evidence that are on the list.
    pub certificates: Vec<(CertificateName, ListStatus)>,
    /// What the list says of the leaf; none too where it could not be looked at.
    pub leaf: Option<ListStatus>,
    /// Why the policy would refuse it.
    pub refused: Option<Refused>,
    /// What could be looked at.
    pub basis: Basis,
}

/// Why a policy would refuse a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its evidence is refused.
    Evidence(Reason),
    /// Evidence is required, and there is none about its hardware key.
    NoEvidence,
}

impl Refused {
    /// As one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Evidence(reason) => reason.as_str(),
            Self::NoEvidence => "NO_EVIDENCE",
        }
    }
}

/// What of a registration's evidence could be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The evidence itself.
    Evidence,
    /// What stands in clear: the evidence is sealed, or erased.
    Facts,
    /// Nothing came.
    Nothing,
}

impl Basis {
    /// As one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Evidence => "EVIDENCE",
            Self::Facts => "FACTS",
            Self::Nothing => "NOTHING",
        }
    }
}

/// What is asked about.
#[derive(Debug, Clone, Copy, Default)]
pub struct Question<'a> {
    /// Certificates that are not to be trusted.
    pub list: Option<&'a RevocationList>,
    /// Rules that evidence would be judged by today.
    pub policy: Option<&'a Policy>,
    /// The key store that opens evidence; none for the one in the folder, if
    /// there is one.
    pub keys: Option<&'a Path>,
}

/// Registrations that are not over and whose present keys are affected, by id.
///
/// # Errors
///
/// [`FolderError`]. Damage is no error; it is among the findings, and a
/// registration may be missing then.
pub fn affected(
    dir: &Path,
    question: &Question,
) -> Result<(Vec<Affected>, Inspected), FolderError> {
    let mut found = BTreeMap::new();
    let keys = Keys::open(&dir.join("keys"), question.keys)?;
    let types = ["ActivationJudged", "AuthenticationJudged", "RegistrationDeactivated"];
    let filter = Filter { types: types.map(str::to_owned).to_vec(), ..Filter::default() };
    let inspected = inspect(dir, &filter, &mut |row| {
        let stream = row.record.draft.stream;
        match &row.event {
            // Keys that were not taken leave the former ones in force.
            Ok(event @ Event::ActivationJudged(judged)) if judged.failure.is_none() => {
                found.remove(&stream);
                let about = Recorded::of(event).and_then(|recorded| {
                    about(&row.record, &recorded, judged.hw_key_stored, &keys, question)
                });
                found.extend(about.map(|affected| (stream, affected)));
            }
            // An answer that was accepted and brought a hardware key.
            Ok(event @ Event::AuthenticationJudged(judged))
                if judged.failure.is_none() && judged.attestation.is_some() =>
            {
                found.remove(&stream);
                let about = Recorded::of(event)
                    .and_then(|recorded| about(&row.record, &recorded, true, &keys, question));
                found.extend(about.map(|affected| (stream, affected)));
            }
            Ok(Event::RegistrationDeactivated(_)) => drop(found.remove(&stream)),
            Ok(_) | Err(_) => (),
        }
        ControlFlow::Continue(())
    })?;
    Ok((found.into_values().collect(), inspected))
}

/// What the question finds of the keys that a record set.
fn about(
    record: &Record,
    recorded: &Recorded,
    hw_key_stored: bool,
    keys: &Keys,
    question: &Question,
) -> Option<Affected> {
    let mut affected = Affected {
        registration: record.draft.stream,
        application: recorded.application,
        position: record.position,
        at: record.time,
        hardware_key: recorded
            .hardware_key
            .filter(|_| hw_key_stored)
            .and_then(|key| key.check().ok())
            .map(|key| key.id()),
        certificates: Vec::new(),
        leaf: None,
        refused: None,
        basis: Basis::Nothing,
    };
    match recorded.verdict.filter(|_| hw_key_stored) {
        Some(verdict) => affected.look(verdict, record, recorded, keys, question),
        None => {
            let required = |platform: &Platform| {
                question.policy.is_some_and(|policy| policy.mode(*platform) == Mode::Required)
            };
            let any = Platform::ALL.iter().any(required);
            affected.refused = any.then_some(Refused::NoEvidence);
        }
    }
    let is =
        !affected.certificates.is_empty() || affected.leaf.is_some() || affected.refused.is_some();
    is.then_some(affected)
}

impl Affected {
    fn look(
        &mut self,
        verdict: &EvidenceJudgedV1,
        record: &Record,
        recorded: &Recorded,
        keys: &Keys,
        question: &Question,
    ) {
        let on_list = |name: &CertificateName| question.list?.status(&name.serial);
        let listed = |name: &CertificateName| Some((name.clone(), on_list(name)?));
        self.certificates = verdict.authorities.iter().filter_map(listed).collect();
        let again = match keys.evidence(&record.draft) {
            Ok(Opened::Evidence(evidence)) => {
                Some(judged_again(verdict, recorded, &evidence.octets, question.policy))
            }
            // What is wrong with a sealed part is for `verify` to say.
            Ok(Opened::Sealed | Opened::Erased) | Err(_) => None,
        };
        self.basis = if again.is_some() { Basis::Evidence } else { Basis::Facts };
        self.leaf = again.as_ref().and_then(|again| on_list(again.leaf.as_ref()?));
        let refused = question.policy.and_then(|policy| match &again {
            Some(again) => again.outcome.reason(),
            None => facts::refused(policy, verdict.platform, &verdict.facts),
        });
        self.refused = refused.map(Refused::Evidence);
    }
}

/// The evidence under `policy`, at the recorded time.
fn judged_again(
    verdict: &EvidenceJudgedV1,
    recorded: &Recorded,
    evidence: &[u8],
    policy: Option<&Policy>,
) -> Judgement {
    let any = Policy::default();
    let nobody = PublicKey::dummy();
    let key = recorded.hardware_key.and_then(|key| key.check().ok());
    let expected = Expected {
        challenge: Some(recorded.challenge),
        hardware_key: Some(key.as_ref().unwrap_or(&nobody)),
        at: verdict.judged_at,
        policy: policy.unwrap_or(&any),
        list: None,
    };
    judge(verdict.platform, evidence, &expected)
}
