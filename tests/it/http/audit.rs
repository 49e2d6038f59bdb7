//! What an auditor gets over HTTP, checked with the auditor's own code.

use api::device::{ActivationOptions, AuthenticationOptions};
use replay::proof::{Receipt, Roots, leaf};
use serde_json::Value;
use storage::note::{Checkpoint, Note, Signed, VerifierKey};

use super::world::{World, api_key};
use crate::client::Request;

/// A world whose log so far is signed, and an auditor's key. A stop signs what
/// is there, so nobody has to wait.
fn signed() -> (World, String) {
    let world = World::start();
    let administrator = world.callers.administrator.clone();
    let auditor = api_key(world.address(), &administrator, "AUDITOR", None).bearer.unwrap();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    side.log_in(&phone, &AuthenticationOptions::default());
    (world.restart(), auditor)
}

fn octets(world: &World, auditor: &str, path: &str) -> (u16, Vec<u8>) {
    let answer = world.send(&Request::get(path).by(auditor));
    (answer.status, answer.body)
}

#[track_caller]
fn text(world: &World, auditor: &str, path: &str) -> String {
    let (status, body) = octets(world, auditor, path);
    assert_eq!(status, 200, "{path}");
    String::from_utf8(body).unwrap()
}

fn events(world: &World, auditor: &str, query: &str) -> Value {
    world.send(&Request::get(&format!("/audit/v1/events?{query}")).by(auditor)).value()
}

#[test]
fn each_event_has_a_receipt_by_its_id_that_is_checked_with_one_public_key() {
    let (world, auditor) = signed();
    let key: VerifierKey = text(&world, &auditor, "/audit/v1/checkpoint-key").parse().unwrap();
    let note: Note = text(&world, &auditor, "/audit/v1/checkpoint").parse().unwrap();
    let covered = Checkpoint::of_text(&note.text).unwrap().size;
    let listed = events(&world, &auditor, "");
    let mut seen = 0;
    for event in listed["items"].as_array().unwrap().iter().take(covered as usize) {
        let id = event["event_id"].as_str().unwrap();
        let receipt = text(&world, &auditor, &format!("/audit/v1/receipt/{id}"));
        assert!(receipt.len() <= 3 * 1024, "{}", receipt.len());
        let receipt: Receipt = receipt.parse().unwrap();
        assert_eq!(receipt.index, event["position"].as_u64().unwrap());
        let proven = receipt.check(&key, None).unwrap();
        let (record, _) = storage::record::decode(&proven.record).unwrap();
        assert_eq!(record.draft.event_id.to_string(), id);
        seen += 1;
    }
    assert!(seen > 8, "{seen}");
    for unknown in ["018bcfe5-6800-7fff-bfff-0123456789ab", "99999999", "x"] {
        assert_eq!(octets(&world, &auditor, &format!("/audit/v1/receipt/{unknown}")).0, 404);
    }
}

#[test]
fn tiles_and_records_make_the_root_that_was_signed() {
    let (world, auditor) = signed();
    let key: VerifierKey = text(&world, &auditor, "/audit/v1/checkpoint-key").parse().unwrap();
    let note: Note = text(&world, &auditor, "/audit/v1/checkpoint").parse().unwrap();
    assert_eq!(key.verify(&note), Ok(Some(Signed::Log)));
    let checkpoint = Checkpoint::of_text(&note.text).unwrap();
    let width = checkpoint.size;
    let (_, hashes) = octets(&world, &auditor, &format!("/audit/v1/tile/0/000.p/{width}"));
    let (_, mut bundle) =
        octets(&world, &auditor, &format!("/audit/v1/tile/entries/000.p/{width}"));
    let mut roots = Roots::default();
    for hash in hashes.chunks(32) {
        let length = usize::from(u16::from_be_bytes([bundle[0], bundle[1]]));
        let record: Vec<u8> = bundle.drain(..2 + length).skip(2).collect();
        assert_eq!(hash, leaf(&record));
        roots.push(&record);
    }
    assert!(bundle.is_empty());
    assert_eq!((roots.size(), roots.root()), (width, checkpoint.root));
    for beyond in [format!("0/000.p/{}", width + 200), "0/001.p/1".into(), "1/000.p/1".into()] {
        assert_eq!(
            octets(&world, &auditor, &format!("/audit/v1/tile/{beyond}")).0,
            404,
            "{beyond}"
        );
    }
}

#[test]
fn events_are_listed_once_each_in_order_and_by_what_is_asked_for() {
    let (world, auditor) = signed();
    let all = events(&world, &auditor, "");
    let all = all["items"].as_array().unwrap();
    let (mut paged, mut from) = (Vec::new(), 0);
    loop {
        let page = events(&world, &auditor, &format!("from={from}&limit=3"));
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 3);
        paged.extend(items.iter().cloned());
        from = page["next"].as_u64().unwrap();
        if page["next"] == page["end"] {
            break;
        }
    }
    assert_eq!(&paged, all);
    assert!(all.iter().zip(0_u64..).all(|(event, position)| event["position"] == position));

    let judged = events(&world, &auditor, "type=AuthenticationJudged");
    let expected: Vec<_> =
        all.iter().filter(|event| event["type"] == "AuthenticationJudged").cloned().collect();
    assert_eq!(judged["items"], Value::from(expected));
    assert_eq!(judged["items"].as_array().unwrap().len(), 1);
    let stream = judged["items"][0]["stream"].as_str().unwrap();
    let of_stream = events(&world, &auditor, &format!("stream={stream}"));
    let expected: Vec<_> = all.iter().filter(|event| event["stream"] == stream).cloned().collect();
    assert_eq!(of_stream["items"], Value::from(expected));

    // By time: the first is included, the last is not; an end is an end.
    let time = |index: usize| all[index]["time"].as_str().unwrap();
    let (since, until) = (time(3), time(all.len() - 1));
    let during = events(&world, &auditor, &format!("since={since}&until={until}"));
    let expected: Vec<_> = all
        .iter()
        .filter(|event| (since..until).contains(&event["time"].as_str().unwrap()))
        .cloned()
        .collect();
    assert!(expected.len() > 2 && expected.len() < all.len());
    assert_eq!(during["items"], Value::from(expected));
    assert_eq!(during["next"], during["end"]);
    let never = events(&world, &auditor, "since=2999-01-01T00:00:00Z");
    assert_eq!(
        (&never["items"], &never["next"]),
        (&Value::from(Vec::<Value>::new()), &never["end"])
    );

    // At the end: nothing, and where the next one will be.
    let end = events(&world, &auditor, &format!("from={}", all.len()));
    assert_eq!((&end["items"], &end["next"]), (&Value::from(Vec::<Value>::new()), &end["end"]));
    for bad in [
        "limit=0",
        "limit=1001",
        "wait_s=31",
        "type=Nothing",
        "stream=x",
        "to=1",
        "since=x",
        "until=1",
    ] {
        let path = format!("/audit/v1/events?{bad}");
        assert_eq!(world.send(&Request::get(&path).by(&auditor)).status, 400, "{bad}");
    }
}
