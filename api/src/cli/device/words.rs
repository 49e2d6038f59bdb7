//! What the simulated phone prints: for a person, and as JSON.

use std::error::Error;

use engine::reasons::OperationKind;
use engine::terms::Method;
use engine::transcript::Said;
use serde_json::{Value, json};

use crate::cli::with_causes;
use crate::device::{DeviceError, NoHardwareKey, Outcome, Phone, Refusal, printable};
use crate::wire::Octets32;
use crate::wire::device::{FinishedActivation, FinishedAuthentication, StartedAuthentication};

/// What the user is to see before deciding, safe to print.
pub(super) fn shown(started: &StartedAuthentication) -> String {
    let (id, level) = (started.operation_id, started.level);
    let mut text = match started.kind {
        OperationKind::Authentication => format!("operation {id} asks for {level}\n"),
        OperationKind::Transaction => format!("transaction {id} asks for {level}\n"),
    };
    if let Some(context) = &started.context {
        text.push_str(&content("shown to you", &context.title, &context.kind, &context.octets.0));
    }
    if let Some(data) = &started.data_to_sign {
        match std::str::from_utf8(&data.octets.0) {
            Ok(words) => text.push_str(&quoted("signed by you", words)),
            Err(_) => text.push_str(&format!("signed by you: {} bytes\n", data.octets.0.len())),
        }
    }
    if let Some(wanted) = &started.confirmation {
        let choices: Vec<_> = wanted.choices.iter().map(u32::to_string).collect();
        text.push_str(&format!("to be confirmed: {} {}\n", wanted.how, choices.join(", ")));
    }
    text
}

/// A content with its title, as text only if it is text.
fn content(what: &str, title: &str, kind: &str, octets: &[u8]) -> String {
    let is_text = kind.to_ascii_lowercase().starts_with("text/");
    let on_one_line = |words: &str| printable(words).replace('\n', " ");
    let titled =
        if title.is_empty() { String::new() } else { format!(", \"{}\"", on_one_line(title)) };
    match std::str::from_utf8(octets) {
        Ok(words) if is_text => quoted(&format!("{what}{titled}"), words),
        Ok(_) | Err(_) => {
            format!("{what}{titled}: {} bytes of {}\n", octets.len(), on_one_line(kind))
        }
    }
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
    text.push('\n');
    if let Some(after) = &finished.post_context {
        text.push_str(&content("shown to you now", &after.title, &after.kind, &after.octets.0));
    }
    text
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
    said: Said,
    outcome: &Outcome,
) -> Value {
    let mut object = json!(outcome.finished);
    object["operation_id"] = json!(outcome.operation_id);
    object["method"] = json!(outcome.method);
    object["kind"] = json!(started.kind);
    object["decision"] = json!(said.decision);
    object["reject_reason"] = json!(said.reason);
    object["number"] = json!(said.number);
    object["level"] = json!(started.level);
    if let Some(context) = &started.context {
        object["context"] = json!({
            "title": context.title, "type": context.kind, "octets": context.octets,
        });
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
    use engine::terms::{Decision, Level};

    use super::*;
    use crate::wire::device::{Salted, Shown};
    use crate::wire::{Moment, Octets};

    fn started(kind: &str, context: &[u8]) -> StartedAuthentication {
        let salted =
            |octets: &[u8]| Salted { salt: Octets32([0; 32]), octets: Octets(octets.to_vec()) };
        StartedAuthentication {
            operation_id: Id([8; 16]),
            application_id: Id([1; 16]),
            challenge: Octets32([9; 32]),
            kind: OperationKind::Authentication,
            level: Level::OneFactor,
            methods: vec![Method::Device],
            context: Some(Shown {
                title: "Bill\n".to_owned(),
                kind: kind.to_owned(),
                salt: Octets32([0; 32]),
                octets: Octets(context.to_vec()),
            }),
            confirmation: None,
            data_to_sign: Some(salted(b"\xff\xfe")),
            expires_at: Moment(Micros(0)),
            remaining_attempts: 3,
        }
    }

    #[test]
    fn the_context_is_shown_as_text_only_if_it_is_text_and_never_as_our_words() {
        let text = shown(&started("text/plain", b"Pay 5\naccepted: all is well\x1b[2J"));
        assert!(text.contains("shown to you, \"Bill \":\n"), "{text}");
        assert!(text.contains("  | Pay 5\n  | accepted: all is well\\u{1b}[2J\n"), "{text}");
        assert!(text.ends_with("signed by you: 2 bytes\n"), "{text}");
        for (kind, context) in [
            ("text/plain", &b"\xff12"[..]),
            ("application/json", b"{1}"),
            ("application/text/", b"123"),
        ] {
            let text = shown(&started(kind, context));
            assert!(text.contains("shown to you, \"Bill \": 3 bytes of "), "{text}");
        }
        let text = shown(&started("a\x1b[2J\naccepted", b"123"));
        assert!(text.contains("3 bytes of a\\u{1b}[2J accepted\n"), "{text}");
    }

    fn judged(accepted: bool) -> FinishedAuthentication {
        FinishedAuthentication {
            accepted,
            state: if accepted { OperationState::Completed } else { OperationState::Pending },
            remaining_attempts: 1,
            last_attempt: !accepted,
            locked: false,
            must_reactivate: false,
            post_context: None,
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
        let object = outcome_json(&started("text/plain", b"1"), Decision::Approve.into(), &outcome);
        assert_eq!(object["accepted"], false);
        assert_eq!(object["state"], "PENDING");
        assert_eq!(object["method"], "DEVICE:PIN");
        assert_eq!(object["context"]["octets"], "MQ");
        assert_eq!(object["repeated"]["accepted"], true);
    }
}
