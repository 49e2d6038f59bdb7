//! Changing one key of a live registration: who may ask, what must sign, what
//! then stands on file.

use engine::attestation::{Reason, Status};
use engine::command::{CreateOperation, FinishAuthentication, Refusal, Want};
use engine::events::{AuthenticationJudgedV1, Event};
use engine::ids::Id;
use engine::key::KeyBytes;
use engine::reasons::{AuthenticationFailure, OperationKind, OperationState};
use engine::terms::{Decision, HwKeyClientStatus, Level, Method, Role, Verdict};

use crate::attestation::evidence;
use crate::world::{HARDWARE_KEY, PIN_KEY, World, checked};

const OK: Option<Verdict> = Some(Verdict::Valid);
const BAD: Option<Verdict> = Some(Verdict::Invalid);
const NEW: KeyBytes = KeyBytes { x: [4; 32], y: [4; 32] };
const PIN: Option<Method> = Some(Method::DevicePin);
const BIOMETRIC: Option<Method> = Some(Method::DeviceBiometric);

fn request(
    world: &mut World,
    registration: Id,
    kind: OperationKind,
    target: Option<Method>,
) -> CreateOperation {
    let asked = world.operation_request(registration, Level::TwoFactor);
    CreateOperation { kind, target, ..asked }
}

/// An operation that changes a key, with its challenge issued.
pub(crate) fn asked(
    world: &mut World,
    registration: Id,
    kind: OperationKind,
    target: Option<Method>,
) -> Id {
    let request = request(world, registration, kind, target);
    let id = request.operation;
    world.done(Want::CreateOperation(request));
    world.start(id).unwrap();
    id
}

/// An answer by the PIN method with these verdicts, the last for the new key.
pub(crate) fn answer(
    world: &mut World,
    operation: Id,
    verdicts: [Option<Verdict>; 3],
    new: Option<Verdict>,
) -> FinishAuthentication {
    let target = world.operation(operation).target;
    let mut answer = world.answer(operation, Method::DevicePin, verdicts);
    answer.new_key = Some(NEW);
    let (role, method) = match target {
        Some(method) => (Role::Software, method),
        None => (Role::Hardware, Method::DevicePin),
    };
    answer.verifications.extend(new.map(|verdict| checked(role, method, NEW, verdict)));
    answer
}

fn judge(
    world: &mut World,
    answer: FinishAuthentication,
) -> (AuthenticationJudgedV1, Option<Event>) {
    let mut events = world.done(Want::FinishAuthentication(Box::new(answer))).into_iter();
    let Some(Event::AuthenticationJudged(judged)) = events.next() else { panic!("not judged") };
    (*judged, events.next())
}

/// A registration without a hardware key that could have one.
fn without(world: &mut World) -> Id {
    world.active_without(HwKeyClientStatus::KeyGenerationFailed, "3.8")
}

#[test]
fn a_hardware_key_is_added_behind_two_factors_and_its_own_proof() {
    let mut world = World::new(&[]);
    let id = without(&mut world);
    let operation = asked(&mut world, id, OperationKind::AddHwKey, None);
    let before = world.registration(id);
    let answer = answer(&mut world, operation, [OK, OK, None], OK);
    let (judged, event) = judge(&mut world, answer);
    assert_eq!((judged.failure, judged.operation_state), (None, OperationState::Completed));
    assert!(matches!(event, Some(Event::HardwareKeyAdded(added)) if added.key == NEW));
    let after = world.registration(id);
    assert_eq!(after.hardware, Some(NEW));
    assert!(after.keys_at > before.keys_at && !after.unproven_device);
    assert_eq!(after.software, before.software);
}

#[test]
fn a_new_key_that_did_not_sign_is_never_stored_whatever_the_strategy() {
    for strategy in ["SUPPORTED", "RISK_PARAMS"] {
        let mut world = World::new(&[("hw_key_validation_strategy", &format!("{strategy:?}"))]);
        let id = without(&mut world);
        for verdict in [None, BAD, Some(Verdict::Malformed)] {
            let operation = asked(&mut world, id, OperationKind::AddHwKey, None);
            let answer = answer(&mut world, operation, [OK, OK, None], verdict);
            let (judged, event) = judge(&mut world, answer);
            assert_eq!(judged.failure, Some(AuthenticationFailure::NewKeyUnproven));
            assert_eq!(event.is_some(), judged.failures >= 3, "nothing but a lock follows");
            assert_eq!(world.registration(id).hardware, None);
            assert_eq!(judged.operation_state.is_final(), judged.failures >= 3);
        }
    }
}

#[test]
fn a_signature_by_the_new_key_in_another_part_proves_nothing() {
    let mut world = World::new(&[]);
    let id = without(&mut world);
    let operation = asked(&mut world, id, OperationKind::AddHwKey, None);
    let mut answer = answer(&mut world, operation, [OK, OK, None], OK);
    for proof in &mut answer.verifications {
        if proof.key == NEW {
            proof.role = Role::Possession;
        }
    }
    let (judged, _) = judge(&mut world, answer);
    assert_eq!(judged.failure, Some(AuthenticationFailure::NewKeyUnproven));
}

#[test]
fn a_strategy_that_requires_a_key_wants_a_new_activation_and_no_added_key() {
    for strategy in ["REQUIRED", "REQUIRED_IF_SUPPORTED"] {
        let mut world = World::new(&[]);
        let id = without(&mut world);
        world.configure("hw_key_validation_strategy", &format!("{strategy:?}"));
        let operation = asked(&mut world, id, OperationKind::AddHwKey, None);
        let answer = answer(&mut world, operation, [OK, OK, None], OK);
        let (judged, event) = judge(&mut world, answer);
        assert_eq!(judged.failure, Some(AuthenticationFailure::HwKeyRequired));
        assert_eq!(event, None);
        assert_eq!(world.registration(id).hardware, None);
    }
}

#[test]
fn a_rotation_needs_the_old_key_also_where_the_strategy_only_reports() {
    for strategy in ["SUPPORTED", "RISK_PARAMS"] {
        let mut world = World::new(&[("hw_key_validation_strategy", &format!("{strategy:?}"))]);
        let id = world.active();
        for old in [None, BAD] {
            let operation = asked(&mut world, id, OperationKind::RotateHwKey, None);
            let answer = answer(&mut world, operation, [OK, OK, old], OK);
            let (judged, event) = judge(&mut world, answer);
            assert_eq!(judged.failure, Some(AuthenticationFailure::HwKeyCheckFailed));
            assert_eq!(event, None);
            assert_eq!(world.registration(id).hardware, Some(HARDWARE_KEY), "still in force");
        }
        let operation = asked(&mut world, id, OperationKind::RotateHwKey, None);
        let answer = answer(&mut world, operation, [OK, OK, OK], OK);
        let (judged, event) = judge(&mut world, answer);
        assert_eq!(judged.failure, None);
        let Some(Event::HardwareKeyRotated(rotated)) = event else { panic!("{event:?}") };
        assert_eq!((rotated.old_key, rotated.key), (HARDWARE_KEY, NEW));
        assert_eq!(world.registration(id).hardware, Some(NEW));
    }
}

#[test]
fn a_lost_key_is_replaced_without_its_signature_only_where_allowed_and_then_marked() {
    let mut world = World::new(&[]);
    let id = world.active();
    let refused = request(&mut world, id, OperationKind::ReplaceHwKey, None);
    let refused = world.refused(Want::CreateOperation(refused));
    assert_eq!(refused, Refusal::KeyChange("the application does not allow it"));
    world.configure("allow_unproven_key_replacement", "true");
    for (old, failure, unproven) in [
        // A lost key does not sign; what signs and does not verify is no lost key.
        (BAD, Some(AuthenticationFailure::HwKeyCheckFailed), false),
        (OK, None, false),
        (None, None, true),
    ] {
        let id = world.active();
        let operation = asked(&mut world, id, OperationKind::ReplaceHwKey, None);
        let answer = answer(&mut world, operation, [OK, OK, old], OK);
        let (judged, event) = judge(&mut world, answer);
        assert_eq!(judged.failure, failure);
        let replaced =
            matches!(event, Some(Event::HardwareKeyReplaced(it)) if it.unproven_device == unproven);
        assert_eq!(replaced, failure.is_none());
        let after = world.registration(id);
        assert_eq!(after.hardware, Some(if replaced { NEW } else { HARDWARE_KEY }));
        assert_eq!(after.unproven_device, unproven);
    }
}

#[test]
fn permission_that_was_withdrawn_meanwhile_is_none() {
    let mut world = World::new(&[("allow_unproven_key_replacement", "true")]);
    let id = world.active();
    let operation = asked(&mut world, id, OperationKind::ReplaceHwKey, None);
    world.configure("allow_unproven_key_replacement", "false");
    let answer = answer(&mut world, operation, [OK, OK, None], OK);
    let refused = world.refused(Want::FinishAuthentication(Box::new(answer)));
    assert!(matches!(refused, Refusal::KeyChange(_)));
    assert_eq!(world.registration(id).hardware, Some(HARDWARE_KEY));
}

#[test]
fn a_lost_key_excuses_neither_a_wrong_pin_nor_a_device_that_did_not_sign() {
    let mut world = World::new(&[("allow_unproven_key_replacement", "true")]);
    for (verdicts, failure, counted) in [
        ([BAD, OK, None], AuthenticationFailure::SoftwareSignatureInvalid, true),
        ([OK, BAD, None], AuthenticationFailure::PossessionUnproven, false),
        ([OK, None, None], AuthenticationFailure::PossessionUnproven, false),
    ] {
        let id = world.active();
        let operation = asked(&mut world, id, OperationKind::ReplaceHwKey, None);
        let answer = answer(&mut world, operation, verdicts, OK);
        let (judged, event) = judge(&mut world, answer);
        assert_eq!((judged.failure, judged.counted), (Some(failure), counted));
        assert_eq!(event, None);
        assert_eq!(world.registration(id).hardware, Some(HARDWARE_KEY));
    }
}

#[test]
fn a_pin_is_changed_by_the_old_one_and_the_old_one_is_then_worth_nothing() {
    let mut world = World::new(&[]);
    let id = world.active();
    let operation = asked(&mut world, id, OperationKind::ReplaceMethod, PIN);
    let answer = answer(&mut world, operation, [OK, OK, OK], OK);
    let (judged, event) = judge(&mut world, answer);
    assert_eq!(judged.failure, None);
    let Some(Event::MethodReplaced(replaced)) = event else { panic!("{event:?}") };
    assert_eq!((replaced.old_key, replaced.key), (PIN_KEY, NEW));
    assert_eq!(world.registration(id).software_key(Method::DevicePin), Some(&NEW));
    let operation = world.asked(id, Level::TwoFactor);
    let judged = world.judged(operation, Method::DevicePin, [OK, OK, OK]);
    assert_eq!(judged.failure, Some(AuthenticationFailure::SoftwareSignatureInvalid));
}

#[test]
fn methods_are_added_and_removed_and_one_of_two_factors_stays() {
    let mut world = World::new(&[]);
    let id = world.active();
    let last = request(&mut world, id, OperationKind::RemoveMethod, PIN);
    let last = world.refused(Want::CreateOperation(last));
    assert_eq!(last, Refusal::KeyChange("no method of two factors would be left"));
    let operation = asked(&mut world, id, OperationKind::AddMethod, BIOMETRIC);
    let adding = answer(&mut world, operation, [OK, OK, OK], OK);
    let (judged, event) = judge(&mut world, adding);
    assert_eq!(judged.failure, None);
    assert!(matches!(event, Some(Event::MethodAdded(added)) if added.key == NEW));
    assert_eq!(world.registration(id).software.len(), 3);
    let again = request(&mut world, id, OperationKind::AddMethod, BIOMETRIC);
    let again = world.refused(Want::CreateOperation(again));
    assert_eq!(again, Refusal::KeyChange("the method has a key"));
    let operation = asked(&mut world, id, OperationKind::RemoveMethod, BIOMETRIC);
    let mut removing = answer(&mut world, operation, [OK, OK, OK], None);
    let with_key = Want::FinishAuthentication(Box::new(removing.clone()));
    assert!(matches!(world.refused(with_key), Refusal::Invalid { field: "new_key", .. }));
    removing.new_key = None;
    let (judged, event) = judge(&mut world, removing);
    assert_eq!(judged.failure, None);
    assert!(matches!(event, Some(Event::MethodRemoved(removed)) if removed.key == NEW));
    assert_eq!(world.registration(id).software_key(Method::DeviceBiometric), None);
}

#[test]
fn device_alone_never_changes_a_key() {
    let mut world = World::new(&[]);
    let id = world.active();
    for (kind, target) in [
        (OperationKind::AddMethod, BIOMETRIC),
        (OperationKind::ReplaceMethod, PIN),
        (OperationKind::RotateHwKey, None),
    ] {
        let mut one = request(&mut world, id, kind, target);
        one.level = Level::OneFactor;
        let one = world.refused(Want::CreateOperation(one));
        assert!(matches!(one, Refusal::Invalid { field: "level", .. }));
        let mut device = request(&mut world, id, kind, target);
        device.methods = vec![Method::Device];
        assert_eq!(world.refused(Want::CreateOperation(device)), Refusal::NoMethodFits);
        let operation = asked(&mut world, id, kind, target);
        let mut answer = answer(&mut world, operation, [OK, OK, OK], OK);
        answer.method = Method::Device;
        let refused = world.refused(Want::FinishAuthentication(Box::new(answer)));
        assert_eq!(refused, Refusal::MethodNotOffered);
    }
    // Nor does what the configuration leaves out.
    world.configure("key_change_methods", "[\"DEVICE:BIOMETRIC\"]");
    let other = request(&mut world, id, OperationKind::RotateHwKey, None);
    assert_eq!(world.refused(Want::CreateOperation(other)), Refusal::NoMethodFits);
}

#[test]
fn what_cannot_be_changed_so_is_not_asked() {
    let mut world = World::new(&[("allowed_methods", "[\"DEVICE\",\"DEVICE:PIN\"]")]);
    let (with, without) = (world.active(), without(&mut world));
    let state = |reason| Refusal::KeyChange(reason);
    for (id, kind, target, expected) in [
        (with, OperationKind::AddHwKey, None, state("a hardware key is on file")),
        (without, OperationKind::RotateHwKey, None, state("no hardware key is on file")),
        (without, OperationKind::ReplaceHwKey, None, state("no hardware key is on file")),
        (
            with,
            OperationKind::AddMethod,
            BIOMETRIC,
            state("the application does not allow the method"),
        ),
        (with, OperationKind::RemoveMethod, BIOMETRIC, state("the method has no key")),
    ] {
        let asked = request(&mut world, id, kind, target);
        assert_eq!(world.refused(Want::CreateOperation(asked)), expected);
    }
    for (kind, target) in [
        (OperationKind::AddMethod, None),
        (OperationKind::ReplaceMethod, Some(Method::Device)),
        (OperationKind::RotateHwKey, PIN),
        (OperationKind::Authentication, PIN),
    ] {
        let asked = request(&mut world, with, kind, target);
        let refused = world.refused(Want::CreateOperation(asked));
        assert!(matches!(refused, Refusal::Invalid { field: "target_method", .. }), "{kind}");
    }
}

/// An answer that rotates the hardware key, with evidence of which judging found this.
fn rotating(world: &mut World, id: Id, found: Option<Option<Reason>>) -> FinishAuthentication {
    let operation = asked(world, id, OperationKind::RotateHwKey, None);
    let mut answer = answer(world, operation, [OK, OK, OK], OK);
    answer.evidence = found.map(|reason| evidence(world, reason));
    answer.attestation_hash = found.map_or([0; 32], |_| [0xe1; 32]);
    answer
}

#[test]
fn a_new_hardware_key_needs_the_evidence_that_an_activation_needs() {
    let required = Some(AuthenticationFailure::AttestationRequired);
    let (good, bad) = (Some(None), Some(Some(Reason::RootUnknown)));
    for (mode, found, failure, status) in [
        ("REQUIRED", good, None, Status::Verified),
        ("REQUIRED", bad, required, Status::Refused),
        ("REQUIRED", None, required, Status::NotGiven),
        ("OPTIONAL", bad, None, Status::Refused),
        ("OPTIONAL", None, None, Status::NotGiven),
        ("OFF", None, None, Status::NotChecked),
    ] {
        let mut world = World::new(&[]);
        let id = world.active();
        world.configure("attestation_android_mode", &format!("\"{mode}\""));
        let answer = rotating(&mut world, id, found);
        let (judged, event) = judge(&mut world, answer);
        assert_eq!((judged.failure, event.is_some()), (failure, failure.is_none()), "{mode}");
        assert_eq!(judged.attestation.unwrap().status, status, "{mode}");
        let after = world.registration(id);
        let key = if failure.is_none() { NEW } else { HARDWARE_KEY };
        assert_eq!((after.hardware, after.failures), (Some(key), 0), "{mode}");
        // Another try would bring the same evidence, and nobody guesses a PIN by it.
        let ended =
            if failure.is_none() { OperationState::Completed } else { OperationState::Failed };
        assert_eq!((judged.operation_state, judged.counted), (ended, false), "{mode}");
        let kept = after.attestation.as_ref().map(|attested| attested.status);
        let fresh = failure.is_none() && status != Status::NotChecked;
        assert_eq!(kept, fresh.then_some(status), "{mode}");
    }
}

#[test]
fn evidence_is_judged_by_what_is_in_force_and_comes_with_a_hardware_key_alone() {
    let mut world = World::new(&[]);
    let id = world.active();
    world.configure("attestation_android_mode", "\"REQUIRED\"");
    let answer = rotating(&mut world, id, Some(None));
    world.configure("failures_allowed", "7");
    let refused = world.refused(Want::FinishAuthentication(Box::new(answer.clone())));
    assert_eq!(refused, Refusal::Stale);
    let operation = asked(&mut world, id, OperationKind::ReplaceMethod, PIN);
    for (hash, found) in [([0xe1; 32], None), ([0; 32], answer.evidence)] {
        let mut other = self::answer(&mut world, operation, [OK, OK, OK], OK);
        (other.attestation_hash, other.evidence) = (hash, found);
        let refused = world.refused(Want::FinishAuthentication(Box::new(other)));
        assert!(matches!(refused, Refusal::Invalid { field: "new_key", .. }), "{refused:?}");
    }
}

#[test]
fn a_key_on_file_is_no_new_key_and_an_answer_that_changes_none_brings_none() {
    let mut world = World::new(&[]);
    let id = world.active();
    let operation = asked(&mut world, id, OperationKind::RotateHwKey, None);
    let right = answer(&mut world, operation, [OK, OK, OK], OK);
    for key in [Some(HARDWARE_KEY), Some(PIN_KEY), None] {
        let wrong = FinishAuthentication { new_key: key, ..right.clone() };
        let refused = world.refused(Want::FinishAuthentication(Box::new(wrong)));
        assert!(matches!(refused, Refusal::Invalid { field: "new_key", .. }), "{key:?}");
    }
    let mut no = right.clone();
    no.said = Decision::Reject.into();
    let refused = world.refused(Want::FinishAuthentication(Box::new(no.clone())));
    assert!(matches!(refused, Refusal::Invalid { field: "new_key", .. }));
    no.new_key = None;
    let (judged, event) = judge(&mut world, no);
    assert_eq!((judged.operation_state, event), (OperationState::Rejected, None));
    assert_eq!(world.registration(id).hardware, Some(HARDWARE_KEY));
    let plain = world.asked(id, Level::TwoFactor);
    world.start(plain).unwrap();
    let mut with = world.answer(plain, Method::DevicePin, [OK, OK, OK]);
    with.new_key = Some(NEW);
    let refused = world.refused(Want::FinishAuthentication(Box::new(with)));
    assert!(matches!(refused, Refusal::Invalid { field: "new_key", .. }));
}

#[test]
fn a_client_from_before_hardware_keys_gets_none() {
    let mut world = World::new(&[]);
    let id = without(&mut world);
    let operation = asked(&mut world, id, OperationKind::AddHwKey, None);
    let mut old = answer(&mut world, operation, [OK, OK, None], OK);
    old.declared.client_version = "3.7.9".into();
    let refused = world.refused(Want::FinishAuthentication(Box::new(old)));
    assert_eq!(refused, Refusal::ClientTooOld);
}

#[test]
fn an_answer_signed_for_the_keys_before_a_change_is_judged_again() {
    let mut world = World::new(&[]);
    let id = world.active();
    let other = world.asked(id, Level::TwoFactor);
    world.start(other).unwrap();
    let signed_before = world.answer(other, Method::DevicePin, [OK, OK, OK]);
    let operation = asked(&mut world, id, OperationKind::ReplaceMethod, PIN);
    let changing = answer(&mut world, operation, [OK, OK, OK], OK);
    judge(&mut world, changing);
    let late = world.refused(Want::FinishAuthentication(Box::new(signed_before)));
    assert_eq!(late, Refusal::Stale);
}
