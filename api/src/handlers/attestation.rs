//! Attestation evidence at *finish*, and the revocation list, for administrators.

use actix_web::HttpResponse;
use engine::attestation::lists::{ListName, entries_of};
use engine::attestation::policy::Mode;
use engine::attestation::revocation::RevocationList;
use engine::attestation::{EVIDENCE_MAX, Expected, Platform, judge};
use engine::command::{TakeRevocationList, Want};
use engine::config::Config;
use engine::entries::Application;
use engine::events::{Event, EvidenceJudgedV1};
use engine::ids::Position;
use engine::key::PublicKey;
use engine::sealed::Salted;
use engine::transcript::{Content, Hash};
use sha2::{Digest, Sha256};

use super::judging::bounded;
use crate::auth::roles::Administrator;
use crate::call::{Call, Outcome};
use crate::http::body::Body;
use crate::http::idempotency::{Idempotency, IdempotencyKey};
use crate::problem::{ApiError, Code};
use crate::revocation;
use crate::wire::admin as wire;
use crate::wire::device;
use crate::wire::{Moment, Octets32};

/// Evidence that came with a *finish*, not yet judged.
pub(super) struct Sent {
    platform: Platform,
    content: Salted,
}

impl Sent {
    /// Checks its size.
    pub(super) fn read(
        sent: Option<&device::AttestationEvidence>,
    ) -> Result<Option<Self>, ApiError> {
        let Some(sent) = sent else { return Ok(None) };
        let salted = device::Salted { salt: sent.salt, octets: sent.octets.clone() };
        let content = bounded("/attestation/octets", Some(&salted), EVIDENCE_MAX)?;
        Ok(content.map(|content| Self { platform: sent.platform, content }))
    }

    /// The hash that stands in the transcript.
    pub(super) fn hash(&self) -> Hash {
        Content::Attestation.hash(&self.content.salt, &self.content.octets)
    }

    /// What is sealed of it.
    pub(super) fn content(&self) -> Salted {
        self.content.clone()
    }

    /// Judges it under what is in force now. None if nobody looks at evidence
    /// of this platform; the work is the same, so that its time does not tell.
    pub(super) fn judged(
        &self,
        call: &Call,
        application: Option<&Application>,
        challenge: &[u8; 32],
        key: Option<&PublicKey>,
    ) -> Result<Option<EvidenceJudgedV1>, ApiError> {
        let unknown = Config::default();
        let policy = &application.map_or(&unknown, |known| &known.config).attestation;
        let name = call.look().system().list;
        let list = name.map(|name| revocation::list(call, name)).transpose()?;
        let judged_at = call.clock.wall();
        // Evidence about a key that is not offered is about another key.
        let nobody = PublicKey::dummy();
        let expected = Expected {
            challenge: Some(challenge),
            hardware_key: Some(key.unwrap_or(&nobody)),
            at: judged_at,
            policy,
            list: list.as_deref(),
        };
        let judgement = judge(self.platform, &self.content.octets, &expected);
        let evidence = EvidenceJudgedV1 {
            platform: self.platform,
            judged_at,
            config_version: application.map_or(0, |known| known.config_version),
            list: name,
            reason: judgement.outcome.reason(),
            authorities: judgement.authorities,
            facts: judgement.facts,
        };
        Ok(Some(evidence).filter(|_| policy.mode(self.platform) != Mode::Off))
    }
}

/// Takes over a list of revoked attestation certificates, as Google publishes it.
///
/// The body is the file, octet for octet. The list becomes events and is in
/// force from then on. A file longer than `request_bytes_max` needs that raised.
#[utoipa::path(
    post, path = "/admin/v1/attestation/revocation-list", tag = "admin",
    operation_id = "take_revocation_list", request_body = wire::RevocationListFile,
    params(IdempotencyKey),
    responses((status = 200, description = "The list that is in force now.", body = wire::RevocationList)),
)]
pub async fn take_revocation_list(
    call: Call,
    caller: Administrator,
    idempotency: Idempotency,
    body: Body<wire::RevocationListFile>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let list = RevocationList::parse(&body.bytes, call.clock.wall())
        .map_err(|error| ApiError::invalid("/entries", error.to_string()))?;
    let want = TakeRevocationList {
        by: asked.by.clone(),
        hash: Sha256::digest(&body.bytes).into(),
        entries: entries_of(&list),
    };
    let command = call.command(Want::TakeRevocationList(want));
    let first = match call.execute_for(&asked, command).await? {
        Outcome::Done(records) => records.first().map(|record| record.position),
        Outcome::Repeat(first) => Some(first.position),
    };
    let position = first.ok_or(Code::Internal)?;
    Ok(HttpResponse::Ok().json(taken(&call, position)?))
}

/// The list whose first part is at `position`.
fn taken(call: &Call, position: Position) -> Result<wire::RevocationList, ApiError> {
    let record = call.record(position)?;
    let Event::RevocationListTaken(part) = crate::call::event_of(&record)? else {
        return Err(Code::Internal.into());
    };
    let list = revocation::list(call, ListName { position, hash: part.hash })?;
    Ok(wire::RevocationList {
        position: position.0,
        sha256: Octets32(part.hash),
        serials: list.entries().count() as u64,
        taken_at: Moment(list.taken_at),
    })
}
