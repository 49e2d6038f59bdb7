//! The rules of exports and of opening sealed parts.

use engine::command::{Refusal, Want};
use engine::events::{Actor, DataRevealedV1, ExportMadeV1};
use engine::ids::Position;
use engine::reasons::{ExportForm, RevealReason};

use crate::world::{ADMIN, BANK, PERSON, World, by, request};

pub(crate) fn exported(by: Option<Actor>) -> Want {
    let operator = if by.is_some() { String::new() } else { "operator".to_owned() };
    let (from, to) = (Position(3), Position(9));
    Want::RecordExport(ExportMadeV1 { by, operator, form: ExportForm::Evidence, from, to })
}

pub(crate) fn revealed(by: Actor) -> Want {
    Want::Reveal(DataRevealedV1 {
        by,
        reason: RevealReason::Dispute,
        case: "case 17".to_owned(),
        subject: Some(PERSON),
        from: Position(3),
        to: Position(9),
    })
}

#[test]
fn an_export_is_an_auditors_or_that_of_an_operator_with_a_label() {
    let mut world = World::new(&[]);
    let auditor = world.auditor();
    for key in [ADMIN, BANK] {
        assert_eq!(world.execute(exported(Some(by(key)))), Err(Refusal::Forbidden));
    }
    let mut once = by(auditor);
    once.request = request(1, 2);
    let position = Position(world.records.len() as u64);
    assert_eq!(world.done(exported(Some(once.clone()))).len(), 1);
    assert_eq!(world.execute(exported(Some(once))), Err(Refusal::Repeat(position)));
    assert_eq!(world.done(exported(None)).len(), 1);

    let made = |operator: &str, by, to| {
        let form = ExportForm::JsonLines;
        let (from, operator) = (Position(3), operator.to_owned());
        Want::RecordExport(ExportMadeV1 { by, operator, form, from, to: Position(to) })
    };
    for (want, wrong) in [
        (made("", None, 9), "operator"),
        (made(&"x".repeat(65), None, 9), "operator"),
        (made("two\nlines", None, 9), "operator"),
        (made("operator", Some(by(auditor)), 9), "operator"),
        (made("operator", None, 2), "to"),
    ] {
        let refused = world.execute(want);
        assert!(matches!(refused, Err(Refusal::Invalid { field, .. }) if field == wrong));
    }
    assert_eq!(world.done(made(&"x".repeat(64), None, 3)).len(), 1);
}

#[test]
fn only_an_auditor_has_sealed_parts_opened_and_says_for_which_case() {
    let mut world = World::new(&[]);
    let auditor = world.auditor();
    for key in [ADMIN, BANK, PERSON] {
        assert_eq!(world.execute(revealed(by(key))), Err(Refusal::Forbidden));
    }
    assert_eq!(world.done(revealed(by(auditor))).len(), 1);
    let Want::Reveal(revealed) = revealed(by(auditor)) else { unreachable!() };
    let nameless = DataRevealedV1 { case: String::new(), ..revealed.clone() };
    let backwards = DataRevealedV1 { to: Position(2), ..revealed.clone() };
    for (want, wrong) in [(nameless, "case"), (backwards, "to")] {
        let refused = world.execute(Want::Reveal(want));
        assert!(matches!(refused, Err(Refusal::Invalid { field, .. }) if field == wrong));
    }
    world.done(Want::RevokeApiKey { by: by(ADMIN), key: auditor });
    assert_eq!(world.execute(Want::Reveal(revealed)), Err(Refusal::Forbidden));
}
