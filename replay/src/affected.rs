//! Which registrations a revocation, or a stricter policy, is about.
//!
//! A search backwards, over what stands in clear: it needs no key and finds
//! erased evidence too. Leaf certificates are sealed and not looked at.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use engine::attestation::revocation::{ListStatus, RevocationList};
use engine::attestation::{CertificateName, Policy, Reason, facts};
use engine::events::{ActivationJudgedV1, Event};
use engine::ids::{Id, Micros, Position};

use crate::folder::FolderError;
use crate::inspect::{Filter, Inspected, inspect};

/// A registration whose present hardware key is affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    /// The registration.
    pub registration: Id,
    /// Its application.
    pub application: Id,
    /// The record of the activation that set its keys.
    pub position: Position,
    /// When that was.
    pub at: Micros,
    /// Certificates of its evidence that are on the list.
    pub certificates: Vec<(CertificateName, ListStatus)>,
    /// Why the policy would refuse it.
    pub refused: Option<Reason>,
}

/// What is asked about.
#[derive(Debug, Clone, Copy, Default)]
pub struct Question<'a> {
    /// Certificates that are not to be trusted.
    pub list: Option<&'a RevocationList>,
    /// Rules that evidence would be judged by today, as far as they can be applied
    /// to what stands in clear; see [`facts::refused`].
    pub policy: Option<&'a Policy>,
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
    let types = ["ActivationJudged", "RegistrationDeactivated"];
    let filter = Filter { types: types.map(str::to_owned).to_vec(), ..Filter::default() };
    let inspected = inspect(dir, &filter, &mut |row| {
        let (stream, position, at) =
            (row.record.draft.stream, row.record.position, row.record.time);
        match row.event {
            // Keys that were not taken leave the former ones in force.
            Ok(Event::ActivationJudged(judged)) if judged.failure.is_none() => {
                found.remove(&stream);
                found.extend(about(&judged, stream, position, at, question));
            }
            Ok(Event::RegistrationDeactivated(_)) => drop(found.remove(&stream)),
            Ok(_) | Err(_) => (),
        }
        ControlFlow::Continue(())
    })?;
    Ok((found.into_values().collect(), inspected))
}

fn about(
    judged: &ActivationJudgedV1,
    registration: Id,
    position: Position,
    at: Micros,
    question: &Question,
) -> Option<(Id, Affected)> {
    let evidence = judged.evidence.as_ref().filter(|_| judged.hw_key_stored)?;
    let on_list = |name: &CertificateName| {
        let status = question.list?.status(&name.serial)?;
        Some((name.clone(), status))
    };
    let refused = question
        .policy
        .and_then(|policy| facts::refused(policy, evidence.platform, &evidence.facts));
    let certificates: Vec<_> = evidence.authorities.iter().filter_map(on_list).collect();
    let affected = Affected {
        registration,
        application: judged.application,
        position,
        at,
        certificates,
        refused,
    };
    let is = !affected.certificates.is_empty() || affected.refused.is_some();
    is.then_some((registration, affected))
}
