//! What *finish* of an activation and of an authentication have in common.

use engine::events::{DeclaredV1, Payload};
use engine::ids::{Id, Micros};
use engine::key::PublicKey;
use engine::proofs::Signed;
use engine::sealed::{CLIENT_DATA_MAX, RISK_DATA_MAX, Salted, SealedResponseV1};
use engine::terms::{HwKeyClientStatus, Method, Role};
use engine::transcript::Content;
use engine::version::ClientVersion;

use crate::app::App;
use crate::http::source::Source;
use crate::problem::ApiError;
use crate::sealing;
use crate::wire;
use crate::wire::Octets;

/// Longest signature that is looked at, in bytes. It is recorded as it came, so
/// it must be bounded; the longest one that can verify has 72.
const SIGNATURE_BYTES_MAX: usize = 256;

const BODY_CONTEXT: &str = "keytrail 2026 finish body v1";

/// What the device sent along with its signatures, checked.
pub(super) struct SentAlong {
    /// As it stands in the transcripts.
    pub(super) declared: DeclaredV1,
    response: SealedResponseV1,
}

impl SentAlong {
    /// Checks version and sizes.
    pub(super) fn new(
        client_version: &str,
        status: Option<HwKeyClientStatus>,
        client_data: Option<&wire::device::Salted>,
        risk_data: Option<&wire::device::Salted>,
        source: Source,
    ) -> Result<Self, ApiError> {
        check_version(client_version)?;
        let client_data = bounded("/client_data/octets", client_data, CLIENT_DATA_MAX)?;
        let risk_data = bounded("/risk_data/octets", risk_data, RISK_DATA_MAX)?;
        let hash = |content: Content, of: &Option<Salted>| {
            content.hash_or_none(of.as_ref().map(|salted| (&salted.salt, &salted.octets[..])))
        };
        let declared = DeclaredV1 {
            client_version: client_version.to_owned(),
            hw_key_client_status: status.unwrap_or(HwKeyClientStatus::NotReported),
            channel_binding: [0; 32],
            client_data_hash: hash(Content::ClientData, &client_data),
            risk_data_hash: hash(Content::RiskData, &risk_data),
        };
        let source = source.to_string();
        let response = SealedResponseV1 { client_data, risk_data, attestation: None, source };
        Ok(Self { declared, response })
    }

    /// With attestation evidence beside it.
    pub(super) fn with_attestation(mut self, evidence: Option<Salted>) -> Self {
        self.response.attestation = evidence;
        self
    }

    /// What names the person, sealed for the event `event_id` of type `P`;
    /// nothing if the person was erased.
    pub(super) fn sealed<P: Payload>(
        &self,
        app: &App,
        event_id: Id,
        stream: Id,
        subject: Id,
    ) -> Result<Vec<u8>, ApiError> {
        let subject = sealing::subject_key(&app.keys, subject)?;
        let seal = |subject| sealing::seal::<P>(&subject, event_id, stream, &self.response);
        Ok(subject.map(seal).unwrap_or_default())
    }
}

/// One signature to check.
pub(super) struct Claimed<'a> {
    pub(super) role: Role,
    pub(super) method: Method,
    /// None if there is no such key: then the work is done for nobody's.
    pub(super) key: Option<PublicKey>,
    pub(super) signature: &'a Octets,
}

/// Checks signatures. Each costs the same whether its key is known or not; what
/// was checked for nobody's key is thrown away.
pub(super) fn check(signed: &Signed, claimed: &[Claimed]) -> Vec<engine::events::VerificationV1> {
    let mut verifications = Vec::with_capacity(claimed.len());
    for Claimed { role, method, key, signature } in claimed {
        let checked =
            signed.check(*role, *method, &key.unwrap_or_else(PublicKey::dummy), &signature.0);
        if key.is_some() {
            verifications.push(checked);
        }
    }
    verifications
}

/// Refuses a signature that is too long to be recorded.
pub(super) fn check_signature(pointer: &str, signature: Option<&Octets>) -> Result<(), ApiError> {
    if signature.is_none_or(|signature| signature.0.len() <= SIGNATURE_BYTES_MAX) {
        return Ok(());
    }
    Err(ApiError::invalid(pointer, "must have at most 256 bytes"))
}

/// Refuses what is no client version.
pub(super) fn check_version(text: &str) -> Result<ClientVersion, ApiError> {
    let words = "must be one to four numbers with dots between";
    ClientVersion::parse(text).map_err(|_| ApiError::invalid("/client_version", words))
}

/// What tells one body from another: the same body again gets the same answer.
pub(super) fn body_digest(body: &[u8]) -> [u8; 32] {
    blake3::derive_key(BODY_CONTEXT, body)
}

/// Whole seconds from `now` until `until`, at least 1.
pub(super) fn seconds_until(until: Micros, now: Micros) -> u64 {
    until.0.saturating_sub(now.0).div_ceil(1_000_000).max(1)
}

pub(super) fn bounded(
    pointer: &str,
    content: Option<&wire::device::Salted>,
    max: usize,
) -> Result<Option<Salted>, ApiError> {
    let Some(content) = content else { return Ok(None) };
    if content.octets.0.len() > max {
        let words = format!("must have at most {max} bytes");
        return Err(ApiError::invalid(pointer, words));
    }
    Ok(Some(Salted { salt: content.salt.0, octets: content.octets.0.clone() }))
}
