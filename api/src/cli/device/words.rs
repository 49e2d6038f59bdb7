//! What the simulated phone prints: for a person, and as JSON.

use std::error::Error;

use engine::terms::{Decision, Method};
use serde_json::{Value, json};

use crate::cli::with_causes;
use crate::device::{DeviceError, NoHardwareKey, Outcome, Phone, Refusal, printable};
use crate::wire::Octets32;
use crate::wire::device::{FinishedActivation, FinishedAuthentication, StartedAuthentication};

/// What the user is to see before deciding, safe to print.
pub(super) fn shown(started: &StartedAuthentication) -> String {
    let mut text = format!("operation {} asks for {}\n", started.operation_id, started.level);
    if let Some(context) = &started.context {
        let kind = started.context_type.as_deref().unwrap_or("no media type");
        let is_text = kind.to_ascii_lowercase().starts_with("text/");
        let kind = printable(kind).replace('\n', " ");
        match std::str::from_utf8(&context.octets.0) {
            Ok(words) if is_text => text.push_str(&quoted("shown to you", words)),
            Ok(_) | Err(_) => {
                let length = context.octets.0.len();
                text.push_str(&format!("shown to you: {length} bytes of {kind}\n"));
            }
        }
    }
    if let Some(data) = &started.data_to_sign {
        match std::str::from_utf8(&data.octets.0) {
            Ok(words) => text.push_str(&quoted("signed by you", words)),
            Err(_) => text.push_str(&format!("signed by you: {} bytes\n", data.octets.0.len())),
        }
    }
    text
}

/// Others' text below a title, each line behind a bar: nothing in it can pass
/// for a line of ours.
fn quoted(title: &str, words: &str) -> String {
    let lines = printable(words);
    let lines: Vec<_> = lines.split('\n').map(|line| format!("  | {line}\n")).collect();
    format!("{title}:\n{}", lines.concat())
}

/// How the server judged an answer.
pub(super) fn outcome_words(outcome: &Outcome) -> String {
    let mut text = judged_words(&outcome.finished);
    match &outcome.repeated {
        None => {}
        Some(Ok(finished)) => {
            text.push_str(&format!("the second time: {}", judged_words(finished)));
        }
        Some(Err(error)) => text.push_str(&format!("the second time: {}\n", with_causes(error))),
    }
    text
}

fn judged_words(finished: &FinishedAuthentication) -> String {
    let verdict = if finished.accepted { "accepted" } else { "refused" };
    let mut text = format!("{verdict}: the operation is {}", finished.state);
    if !finished.accepted {
        text.push_str(&format!("; attempts left: {}", finished.remaining_attempts));
    }
    for (said, words) in [
        (finished.last_attempt, "; one more failure locks the registration"),
        (finished.locked, "; the registration is locked"),
        (finished.must_reactivate, "; it must be activated again"),
    ] {
        if said {
            text.push_str(words);
        }
    }
    text + "\n"
}

/// What went wrong, with the server's code and status if it refused.
pub(super) fn error_json(refusal: Option<&Refusal>, error: &dyn Error) -> Value {
    let code = refusal.map(|refusal| &refusal.code);
    let status = refusal.map(|refusal| refusal.status);
    json!({ "code": code, "status": status, "message": with_causes(error) })
}

/// How the server judged an answer, and what it was an answer to.
pub(super) fn outcome_json(
    started: &StartedAuthentication,
    decision: Decision,
    outcome: &Outcome,
) -> Value {
    let mut object = json!(outcome.finished);
    object["operation_id"] = json!(outcome.operation_id);
    object["method"] = json!(outcome.method);
    object["decision"] = json!(decision);
    object["level"] = json!(started.level);
    if let Some(context) = &started.context {
        object["context"] = json!({ "type": started.context_type, "octets": context.octets });
    }
    if let Some(data) = &started.data_to_sign {
        object["data_to_sign"] = json!(data.octets);
    }
    object["repeated"] = match &outcome.repeated {
        None => Value::Null,
        Some(Ok(finished)) => json!(finished),
        Some(Err(error)) => json!({ "error": error_json(error.refusal(), error) }),
    };
    object
}

/// Whether the keys were taken, and the phone if they were.
pub(super) fn activated_json(
    phone: Option<&Phone>,
    finished: &FinishedActivation,
) -> Result<Value, DeviceError> {
    let mut object = json!(finished);
    object["phone"] = phone.map(phone_json).transpose()?.unwrap_or(Value::Null);
    Ok(object)
}

/// The phone; never a secret.
pub(super) fn phone_json(phone: &Phone) -> Result<Value, DeviceError> {
    let method = |method: Method| {
        let id = phone.key_id(method)?.map(|id| Octets32(id.0));
        Ok::<_, DeviceError>(json!({ "method": method, "key_id": id }))
    };
    let methods: Vec<_> =
        phone.methods().into_iter().map(method).collect::<Result<_, DeviceError>>()?;
    let (hardware, why) = match phone.hardware_key_id()? {
        Ok(id) => (Some(json!({ "key_id": Octets32(id.0) })), None),
        Err(why) => (None, Some(why.claim())),
    };
    Ok(json!({
        "server": phone.server(),
        "application_id": phone.application_id(),
        "registration_id": phone.registration_id(),
        "client_version": phone.client_version(),
        "software_keys": methods,
        "hardware_key": hardware,
        "no_hardware_key": why,
    }))
}

/// The phone in words; never a secret.
pub(super) fn described(phone: &Phone) -> Result<String, DeviceError> {
    let mut lines = vec![
        ("server".to_owned(), phone.server().to_owned()),
        ("application".to_owned(), phone.application_id().to_string()),
        ("registration".to_owned(), phone.registration_id().to_string()),
        ("client version".to_owned(), phone.client_version().to_string()),
    ];
    for method in phone.methods() {
        // The id would tell which PIN is the right one.
        let id =
            phone.key_id(method)?.map_or("known with the PIN alone".into(), |id| id.to_string());
        lines.push((method.to_string(), id));
    }
    let hardware = match phone.hardware_key_id()? {
        Ok(id) => id.to_string(),
        Err(NoHardwareKey::Unsupported) => "none: this device has no secure hardware".to_owned(),
        Err(NoHardwareKey::NotActivated) => "none came of the activation".to_owned(),
    };
    lines.push(("HARDWARE".to_owned(), hardware));
    Ok(lines.iter().map(|(name, value)| format!("  {name:<16}  {}\n", printable(value))).collect())
}

#[cfg(test)]
mod tests {
    use engine::ids::{Id, Micros};
    use engine::reasons::OperationState;
    use engine::terms::Level;

    use super::*;
    use crate::wire::device::Salted;
    use crate::wire::{Moment, Octets};

    fn started(kind: Option<&str>, context: &[u8]) -> StartedAuthentication {
        let salted =
            |octets: &[u8]| Salted { salt: Octets32([0; 32]), octets: Octets(octets.to_vec()) };
        StartedAuthentication {
            operation_id: Id([8; 16]),
            application_id: Id([1; 16]),
            challenge: Octets32([9; 32]),
            level: Level::OneFactor,
            methods: vec![Method::Device],
            context: Some(salted(context)),
            context_type: kind.map(str::to_owned),
            data_to_sign: Some(salted(b"\xff\xfe")),
            expires_at: Moment(Micros(0)),
            remaining_attempts: 3,
        }
    }

    #[test]
    fn the_context_is_shown_as_text_only_if_it_is_text_and_never_as_our_words() {
        let text = shown(&started(Some("text/plain"), b"Pay 5\naccepted: all is well\x1b[2J"));
        assert!(text.contains("  | Pay 5\n  | accepted: all is well\\u{1b}[2J\n"), "{text}");
        assert!(text.ends_with("signed by you: 2 bytes\n"), "{text}");
        for (kind, context) in [
            (Some("text/plain"), &b"\xff12"[..]),
            (Some("application/json"), b"{1}"),
            (Some("application/text/"), b"123"),
        ] {
            let text = shown(&started(kind, context));
            assert!(text.contains("shown to you: 3 bytes of "), "{text}");
        }
        let text = shown(&started(Some("a\x1b[2J\naccepted"), b"123"));
        assert!(text.contains("3 bytes of a\\u{1b}[2J accepted\n"), "{text}");
        assert!(shown(&started(None, b"123")).contains("3 bytes of no media type"));
    }

    fn judged(accepted: bool) -> FinishedAuthentication {
        FinishedAuthentication {
            accepted,
            state: if accepted { OperationState::Completed } else { OperationState::Pending },
            remaining_attempts: 1,
            last_attempt: !accepted,
            locked: false,
            must_reactivate: false,
        }
    }

    #[test]
    fn words_and_json_tell_both_answers_of_a_replay() {
        let outcome = Outcome {
            operation_id: Id([8; 16]),
            method: Method::DevicePin,
            finished: judged(false),
            repeated: Some(Ok(judged(true))),
        };
        assert_eq!(
            outcome_words(&outcome),
            "refused: the operation is PENDING; attempts left: 1; one more failure locks the \
             registration\nthe second time: accepted: the operation is COMPLETED\n"
        );
        let object = outcome_json(&started(None, b"1"), Decision::Approve, &outcome);
        assert_eq!(object["accepted"], false);
        assert_eq!(object["state"], "PENDING");
        assert_eq!(object["method"], "DEVICE:PIN");
        assert_eq!(object["context"]["octets"], "MQ");
        assert_eq!(object["repeated"]["accepted"], true);
    }
}
