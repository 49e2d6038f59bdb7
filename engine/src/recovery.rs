//! Recovery codes: the way back for whose phone is gone.
//!
//! Where the application gives them (`recovery_codes`, off by default), a
//! registration gets a set of codes with its keys, and a new set whenever its user
//! asks for one by two factors. The user keeps them on paper. One of them lets a new
//! phone take the place of the old one, without the service provider: the new phone
//! gets a registration of its own, for the same person, by the same proofs as at
//! any activation; with its keys the old registration ends.
//!
//! ```text
//! set       (none) --issued--> LIVE --a new set, or its registration ends--> (none)
//!                                |
//!                                +--too many wrong codes--> BLOCKED --a new set--> LIVE
//!
//! code      UNUSED --redeemed--> USED, whatever comes of it
//!
//! recovery  (nothing) --code redeemed--> STARTED --keys proven--> COMPLETED; the old
//!                                          |                      registration is DEACTIVATED (RECOVERED)
//!                                          +--time--> EXPIRED, keys refused--> FAILED
//! ```
//!
//! A code begins with a *selector*, the same for all codes of a set, by which the
//! set is found; the rest is secret. So wrong codes are counted on the registration
//! that they were meant for, and after `recovery_failures_allowed` of them no code
//! of the set is taken any more. A code is used up when it is redeemed: who has seen
//! it once cannot use it again, whether or not the recovery came to its end.
//!
//! Codes are made from the server's key and the device token, of which the server
//! keeps a hash alone: nobody who has the log and `keys/` can make them again, and
//! still the very request that got them gets them again if the answer was lost.
//! Records and state hold keyed hashes, salted with the set's id.

use crate::codes::normalised;
use crate::command::{FinishAuthentication, Refusal, StartRecovery};
use crate::entries::{Application, Look, Operation, Recovery, Registration};
use crate::events::{
    Bytes32, RecoveryCodeRedeemedV1, RecoveryCodeRefusedV1, RecoveryCodesIssuedV1,
    RecoveryStartedV1,
};
use crate::ids::{Id, Micros};
use crate::plan::{Decided, Plan, has_passed};
use crate::reasons::{
    ActivationState, CodeType, DeactivationReason, LockReason, OperationKind, RegistrationState,
};
use crate::registration::{deactivated, expire, served};
use crate::terms::{Decision, Level};

/// Most codes of a set.
pub const CODES_MAX: u32 = 20;
/// Symbols by which a set is found: 40 bits.
const SELECTOR_LENGTH: usize = 8;
/// Symbols that are secret: 60 bits, for as few guesses as one set takes.
const SECRET_LENGTH: usize = 12;
/// Symbols in a group, as codes are shown.
const GROUP: usize = 4;
/// The alphabet: one that is hard to misread.
const KIND: CodeType = CodeType::Alphanumeric;

const CONTEXT: &str = "keytrail 2026-11 recovery codes v1";

/// Makes recovery codes and their hashes.
pub struct RecoveryCoder([u8; 32]);

impl std::fmt::Debug for RecoveryCoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryCoder([redacted])")
    }
}

impl RecoveryCoder {
    /// With the server's key for activation codes, which it uses for nothing but to
    /// make a key of its own.
    #[must_use]
    pub fn new(code_key: &[u8; 32]) -> Self {
        Self(blake3::derive_key(CONTEXT, code_key))
    }

    /// The codes of a set, for the device with this token, as they are shown.
    #[must_use]
    pub fn codes(&self, device_token: &[u8; 32], set: Id, count: u32) -> Vec<String> {
        let made = |purpose: &[u8], index: u32, length: usize| {
            let mut hasher = self.hasher(purpose);
            hasher.update(&set.0).update(device_token).update(&index.to_be_bytes());
            let mut bytes = vec![0; length];
            hasher.finalize_xof().fill(&mut bytes);
            let alphabet = KIND.alphabet();
            // 32 symbols: each is as likely as any other.
            bytes
                .iter()
                .map(|byte| char::from(alphabet[usize::from(byte % 32)]))
                .collect::<String>()
        };
        let selector = made(b"selector", 0, SELECTOR_LENGTH);
        let code = |index| grouped(&format!("{selector}{}", made(b"secret", index, SECRET_LENGTH)));
        (0..count.min(CODES_MAX)).map(code).collect()
    }

    /// What the log holds of a set.
    #[must_use]
    pub fn issued(&self, application: Id, set: Id, codes: &[String]) -> RecoveryCodesIssuedV1 {
        let selector = codes.first().and_then(|code| self.selector(application, code));
        RecoveryCodesIssuedV1 {
            set,
            selector: selector.unwrap_or_default(),
            codes: codes.iter().map(|code| self.code(set, code)).collect(),
        }
    }

    /// By what the set of a typed code is found; none for what is no such code.
    #[must_use]
    pub fn selector(&self, application: Id, typed: &str) -> Option<Bytes32> {
        let code = normalised(typed);
        let symbols = code.as_bytes();
        let fits = symbols.len() == SELECTOR_LENGTH + SECRET_LENGTH
            && symbols.iter().all(|symbol| KIND.alphabet().contains(symbol));
        let selector = symbols.get(..SELECTOR_LENGTH).filter(|_| fits)?;
        let mut hasher = self.hasher(b"selector hash");
        hasher.update(&application.0).update(selector);
        Some(*hasher.finalize().as_bytes())
    }

    /// How a typed code of this set stands in records and state.
    #[must_use]
    pub fn code(&self, set: Id, typed: &str) -> Bytes32 {
        let mut hasher = self.hasher(b"code hash");
        hasher.update(&set.0).update(normalised(typed).as_bytes());
        *hasher.finalize().as_bytes()
    }

    fn hasher(&self, purpose: &[u8]) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&[purpose.len() as u8]).update(purpose);
        hasher
    }
}

/// With hyphens, for eyes.
fn grouped(code: &str) -> String {
    let groups: Vec<_> = code.as_bytes().chunks(GROUP).map(String::from_utf8_lossy).collect();
    groups.join("-")
}

/// Adds the event by which a registration has a new set, if its application gives
/// codes; `set` is the activation or operation that it comes with.
pub(crate) fn issued(
    plan: Plan,
    look: Look,
    application: &Application,
    (registration, set): (Id, Id),
    issued: Option<&RecoveryCodesIssuedV1>,
) -> Result<Plan, Refusal> {
    let Some(issued) = issued.filter(|_| application.config.recovery_codes > 0) else {
        return Ok(plan);
    };
    if issued.set != set || !(1..=CODES_MAX as usize).contains(&issued.codes.len()) {
        let expected = "must be a set of codes as this server makes them";
        return Err(Refusal::Invalid { field: "recovery", expected });
    }
    // Another set has the same selector, one time in 2^40: then there is none.
    if look.recovery(&issued.selector).is_some() {
        return Ok(plan);
    }
    Ok(plan.event(registration, issued.clone()))
}

pub(crate) fn start(look: Look, at: Micros, event_id: Id, want: &StartRecovery) -> Decided {
    let old = look.registration(want.registration).ok_or(Refusal::Unknown)?;
    let application = look.application(old.application).ok_or(Refusal::Unknown)?;
    let recovery = old.recovery.and_then(|selector| look.recovery(&selector));
    let recovery = recovery.ok_or(Refusal::Unknown)?;
    let known = recovery.codes.iter().find(|code| code.hash == want.code);
    if let Some(activation) = known.and_then(|code| code.redeemed_by) {
        return again(look, at, event_id, activation, want);
    }
    let allowed = application.config.recovery_failures_allowed;
    if application.config.recovery_codes == 0 || recovery.failures >= allowed {
        return Err(Refusal::Unknown);
    }
    recoverable(&old)?;
    if known.is_none() {
        return refused(event_id, &recovery, allowed, want);
    }
    // Only now: who has no code learns nothing of what is served.
    served(&application, &want.client_version)?;
    if look.is_stream(want.recovered) || look.activation(want.activation).is_some() {
        return Err(Refusal::Taken);
    }
    let started = RecoveryStartedV1 {
        application: old.application,
        activation: want.activation,
        recovers: want.registration,
        code: want.code,
        nonce_hash: want.nonce_hash,
        challenge: want.challenge,
        client_version: want.client_version.clone(),
        expires_at: at.plus_s(application.config.activation_lifetime_s.into()),
    };
    let redeemed = RecoveryCodeRedeemedV1 { code: want.code, activation: want.activation };
    Plan::new(event_id)
        .sealed(want.recovered, started, old.subject, &want.sealed)
        .event(want.registration, redeemed)
        .done()
}

/// The answer was lost: the same client may ask again while it can be finished, and
/// nobody else.
fn again(look: Look, at: Micros, event_id: Id, id: Id, want: &StartRecovery) -> Decided {
    let activation = look.activation(id).filter(|it| it.state == ActivationState::Started);
    let activation = activation.ok_or(Refusal::CodeRedeemed)?;
    if has_passed(activation.expires_at, at) {
        return expire(event_id, activation.registration, id);
    }
    let same = activation.started.as_ref().is_some_and(|it| it.nonce_hash == want.nonce_hash);
    if same { Ok(Vec::new()) } else { Err(Refusal::CodeRedeemed) }
}

fn refused(event_id: Id, recovery: &Recovery, allowed: u32, want: &StartRecovery) -> Decided {
    let failures = recovery.failures.saturating_add(1);
    let refused = RecoveryCodeRefusedV1 { code: want.code, failures, failures_allowed: allowed };
    Plan::new(event_id).event(want.registration, refused).done()
}

/// Refuses to recover what its service provider has locked or ended. A lock after too
/// many failures is what a thief leaves behind, and the way back.
fn recoverable(registration: &Registration) -> Result<(), Refusal> {
    match (registration.state, registration.lock_reason) {
        (RegistrationState::Active, _)
        | (RegistrationState::Locked, Some(LockReason::TooManyFailures)) => Ok(()),
        (state, _) => Err(Refusal::RegistrationState(state)),
    }
}

/// Refuses to ask for a new set where there is none to be had, or by one factor; lets
/// pass what asks for something else.
pub(crate) fn askable(
    application: &Application,
    kind: OperationKind,
    level: Level,
) -> Result<(), Refusal> {
    if kind != OperationKind::RecoveryCodes {
        return Ok(());
    }
    if application.config.recovery_codes == 0 {
        let expected = "must be another one: the application gives no recovery codes";
        return Err(Refusal::Invalid { field: "kind", expected });
    }
    if level != Level::TwoFactor {
        let expected = "must be TWO_FACTOR: a recovery code is worth as much";
        return Err(Refusal::Invalid { field: "level", expected });
    }
    Ok(())
}

/// Adds the new set, if that is what the accepted answer was for.
pub(crate) fn renewed(
    plan: Plan,
    look: Look,
    application: &Application,
    operation: &Operation,
    want: &FinishAuthentication,
) -> Result<Plan, Refusal> {
    let approved = want.said.decision == Decision::Approve;
    if operation.kind != OperationKind::RecoveryCodes || !approved {
        return Ok(plan);
    }
    let for_whom = (operation.registration, want.operation);
    issued(plan, look, application, for_whom, want.recovery.as_ref())
}

/// Refuses to finish a recovery whose old registration was locked by request or came
/// to its end meanwhile, by another recovery for one.
pub(crate) fn still_recoverable(look: Look, registration: &Registration) -> Result<(), Refusal> {
    let Some(old) = registration.recovers else { return Ok(()) };
    recoverable(&*look.registration(old).ok_or(Refusal::Unknown)?)
}

/// Adds the end of the old registration, now that the new one has its keys.
pub(crate) fn taken_over(plan: Plan, look: Look, registration: &Registration) -> Plan {
    let Some(id) = registration.recovers else { return plan };
    match look.registration(id) {
        Some(old) => deactivated(plan, id, &old, None, DeactivationReason::Recovered),
        None => plan,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const APP: Id = Id([1; 16]);
    const SET: Id = Id([2; 16]);

    fn coder() -> RecoveryCoder {
        RecoveryCoder::new(&[7; 32])
    }

    #[test]
    fn codes_of_a_set_differ_and_are_made_again_from_the_same_token_alone() {
        let codes = coder().codes(&[3; 32], SET, 10);
        assert_eq!(codes, coder().codes(&[3; 32], SET, 10));
        assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), 10);
        for other in [
            coder().codes(&[4; 32], SET, 10),
            coder().codes(&[3; 32], Id([9; 16]), 10),
            RecoveryCoder::new(&[8; 32]).codes(&[3; 32], SET, 10),
        ] {
            assert!(codes.iter().zip(&other).all(|(one, other)| one[..9] != other[..9]));
        }
        assert_eq!(coder().codes(&[3; 32], SET, 1_000).len(), CODES_MAX as usize);
    }

    #[test]
    fn a_code_is_five_groups_of_four_and_read_generously() {
        let code = coder().codes(&[3; 32], SET, 1).remove(0);
        assert_eq!(code.len(), 24, "{code}");
        assert!(code.split('-').all(|group| group.len() == 4), "{code}");
        let typed = format!(" {} ", code.to_ascii_lowercase().replace('-', " "));
        assert_eq!(coder().selector(APP, &typed), coder().selector(APP, &code));
        assert!(coder().selector(APP, &code).is_some());
        assert_eq!(coder().code(SET, &typed), coder().code(SET, &code));
        for bad in ["", "1", &code[1..], &format!("{code}0"), &code.replace('-', "O")] {
            assert_eq!(coder().selector(APP, bad), None, "{bad}");
        }
    }

    #[test]
    fn a_hash_is_of_one_application_and_one_set() {
        let code = coder().codes(&[3; 32], SET, 1).remove(0);
        assert_ne!(coder().selector(APP, &code), coder().selector(Id([8; 16]), &code));
        assert_ne!(coder().code(SET, &code), coder().code(Id([8; 16]), &code));
        assert_eq!(format!("{:?}", coder()), "RecoveryCoder([redacted])");
    }
}
