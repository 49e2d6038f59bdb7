//! An export is evidence for whoever has neither keytrail nor the server.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use api::device::{ActivationOptions, AuthenticationOptions};
use engine::events::{Event, ExportMadeV1};
use engine::ids::Position;
use engine::reasons::{ExportForm, RevealReason};
use engine::terms::Verdict;
use replay::export::{Wanted, evidence};
use replay::inspect::{Filter, Row};
use replay::proof::Roots;
use serde_json::{Value, json};
use storage::note::{Checkpoint, LogSigner, Note};
use storage::record;

use crate::checkpoints::Evidence;
use crate::history::ORIGIN;
use crate::http::world::{World, api_key};
use crate::replay::{Forger, commands, forged};

/// Exit code and what it said.
type Said = (i32, String);

fn run(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

/// Whether the export can be checked here; says so aloud where it cannot.
fn can_verify() -> bool {
    let there = |program: &str, argument: &str| Command::new(program).arg(argument).output();
    let able = there("python3", "--version").is_ok() && there("openssl", "version").is_ok();
    if !able {
        eprintln!("SKIPPED: python3 or openssl is not here, so no export was verified with them");
    }
    able
}

/// Runs the verifier that lies in the export.
fn python(export: &Path, arguments: &[&str]) -> Said {
    run(Command::new("python3").arg("-B").arg(export.join("verify.py")).args(arguments))
}

#[track_caller]
fn holds(export: &Path, arguments: &[&str]) -> String {
    let (code, said) = python(export, arguments);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("every level holds"), "{said}");
    said
}

#[track_caller]
fn fails(export: &Path, arguments: &[&str], words: &str) {
    let (code, said) = python(export, arguments);
    assert!(said.contains(&format!("FAILS: {words}")), "{words}: {said}");
    assert_eq!(code, 1, "{said}");
}

fn keytrail(arguments: &[&str]) -> Said {
    run(Command::new(env!("CARGO_BIN_EXE_keytrail-tested")).args(arguments))
}

fn events(data: &Path) -> Vec<Event> {
    let mut found = Vec::new();
    let mut keep = |row: Row| {
        found.push(row.event.unwrap());
        ControlFlow::Continue(())
    };
    replay::inspect(data, &Filter::default(), &mut keep).unwrap();
    found
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

fn wanted(from: u64, to: Option<u64>, since: Option<&Note>) -> Wanted {
    Wanted { from, to, since: since.cloned(), software: "keytrail test".to_owned() }
}

/// An export of a day, and the checkpoints that an auditor kept.
struct Exported {
    day: Evidence,
    home: tempfile::TempDir,
    size: u64,
}

impl Exported {
    fn new() -> Self {
        let (day, home) = (Evidence::of_a_day(), tempfile::tempdir().unwrap());
        let wanted = wanted(0, None, Some(&day.early));
        let written = evidence(day.folder.path(), &home.path().join("export"), &wanted).unwrap();
        fs::write(home.path().join("early"), day.early.to_string()).unwrap();
        Self { day, home, size: written.tree_size }
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("export")
    }

    fn early(&self) -> String {
        self.home.path().join("early").display().to_string()
    }
}

/// Changes a file as somebody would who makes the manifest anew.
fn forge(export: &Path, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let path = export.join(name);
    let bytes = change(fs::read(&path).unwrap());
    fs::write(&path, &bytes).unwrap();
    let manifest = export.join("manifest.json");
    let mut said: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    let sum: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    said["files"][name] = json!({ "sha256": sum, "bytes": bytes.len() });
    fs::write(&manifest, said.to_string()).unwrap();
}

#[test]
fn the_verifier_in_an_export_accepts_it_with_everything_that_it_has() {
    if !can_verify() {
        return;
    }
    let exported = Exported::new();
    let (key, early) = (exported.day.key.to_string(), exported.early());
    let said = holds(&exported.path(), &["--key", &key, "--since", &early]);
    let signatures: usize = events(exported.day.folder.path())
        .iter()
        .map(|event| match event {
            Event::ActivationJudged(judged) => judged.verifications.len(),
            Event::AuthenticationJudged(judged) => judged.verifications.len(),
            _ => 0,
        })
        .sum();
    assert!(signatures > 10);
    assert!(said.contains(&format!("{signatures} signatures: ")), "{said}");
    assert!(!said.contains(" 0 invalid") && !said.contains(" 0 malformed"), "{said}");
    // keytrail itself reads it too.
    let report = replay::verify(&exported.path(), &replay::verify::Options::default()).unwrap();
    assert!(report.holds, "{report}");
    // With nothing brought along it says what that is worth.
    assert!(holds(&exported.path(), &[]).contains("compare it with yours"));
}

#[test]
fn a_range_verifies_against_the_whole_tree_and_gives_away_nothing_else() {
    if !can_verify() {
        return;
    }
    let exported = Exported::new();
    let out = exported.home.path().join("range");
    let day = exported.day.folder.path();
    evidence(day, &out, &wanted(7, Some(21), Some(&exported.day.early))).unwrap();
    let said = holds(&out, &["--key", &exported.day.key.to_string()]);
    assert!(said.contains("records 7 to 20") && said.contains("continues size"), "{said}");
    assert_eq!(fs::read_to_string(out.join("events.jsonl")).unwrap().lines().count(), 14);
    assert!(!out.join("log").exists() && !out.join("tile/entries").exists());
    let none = exported.home.path().join("none");
    let beyond = evidence(day, &none, &wanted(0, Some(exported.size + 1), None));
    assert!(beyond.unwrap_err().to_string().contains("signed up to"), "beyond what is signed");
    assert!(evidence(day, &none, &wanted(5, Some(5), None)).is_err() && !none.exists());
}

#[test]
fn every_file_of_an_export_that_is_damaged_missing_or_added_is_named() {
    if !can_verify() {
        return;
    }
    let exported = Exported::new();
    let export = exported.path();
    let name = |path: &Path| path.strip_prefix(&export).unwrap().display().to_string();
    for (path, bytes) in files(&export) {
        let (short, at) = (name(&path), bytes.len() / 2);
        // The verifier vouches for the others, and the manifest for it.
        if short == "verify.py" || short == "manifest.json" {
            continue;
        }
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(&path, damaged).unwrap();
        fails(&export, &[], &format!("{short} is not the file that the manifest names"));
        fs::write(&path, bytes).unwrap();
    }
    let missing = export.join("schema/1-1.json");
    let bytes = fs::read(&missing).unwrap();
    fs::remove_file(&missing).unwrap();
    fails(&export, &[], "schema/1-1.json is missing");
    fs::write(&missing, bytes).unwrap();
    fs::write(export.join("stranger"), "x").unwrap();
    fails(&export, &[], "stranger is not in the manifest");
    fs::remove_file(export.join("stranger")).unwrap();
    holds(&export, &[]);
}

/// The lines of an export after a change.
fn lines(bytes: Vec<u8>, change: &dyn Fn(&mut Vec<Value>)) -> Vec<u8> {
    let text = String::from_utf8(bytes).unwrap();
    let mut rows: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    change(&mut rows);
    rows.iter().map(|row| format!("{row}\n")).collect::<String>().into_bytes()
}

#[test]
fn an_export_forged_with_its_manifest_fails_at_the_level_that_sees_it() {
    if !can_verify() {
        return;
    }
    // Each forger begins with a true export.
    let forged_so = |change: &dyn Fn(&Path), words: &str| {
        let exported = Exported::new();
        change(&exported.path());
        fails(&exported.path(), &["--key", &exported.day.key.to_string()], words);
    };
    let in_lines = |change: &'static dyn Fn(&mut Vec<Value>), words: &str| {
        forged_so(&|export| forge(export, "events.jsonl", |bytes| lines(bytes, change)), words);
    };
    in_lines(&|rows| rows[9]["event"]["verdict"] = json!(1), "record 9: events.jsonl says another");
    in_lines(
        &|rows| rows[4]["time"] = json!("2020-01-01T00:00:00Z"),
        "record 4: events.jsonl says",
    );
    in_lines(&|rows| rows.swap(3, 4), "record 3: the record is that of position 4");
    in_lines(&|rows| drop(rows.remove(6)), "record 6: the record is that of position 7");
    in_lines(&|rows| drop(rows.pop()), "events.jsonl ends before record");
    let flip = |at: usize| {
        move |mut bytes: Vec<u8>| {
            bytes[at] ^= 1;
            bytes
        }
    };
    forged_so(
        &|export| forge(export, "schema/1-1.json", |_| b"{}\n".to_vec()),
        "record 0: there is",
    );
    let size = Exported::new().size;
    let tile = format!("tile/0/000.p/{size}");
    forged_so(&|export| forge(export, &tile, flip(40)), "the tiles do not give the root");
    let bundle = format!("tile/entries/000.p/{size}");
    forged_so(&|export| forge(export, &bundle, flip(300)), "tile/entries/000.p/");
    forged_so(
        &|export| {
            forge(export, "checkpoint", |bytes| {
                let text = String::from_utf8(bytes).unwrap();
                text.replacen(&format!("\n{size}\n"), &format!("\n{}\n", size - 1), 1).into_bytes()
            });
        },
        "the signature of checkpoint does not verify",
    );
    let proof = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap();
        text.lines().take(1).map(|line| format!("{line}\n")).collect::<String>().into_bytes()
    };
    // Of a range, the proof is what shows that the tree continues.
    let exported = Exported::new();
    let out = exported.home.path().join("range");
    let wanted = wanted(7, Some(9), Some(&exported.day.early));
    evidence(exported.day.folder.path(), &out, &wanted).unwrap();
    forge(&out, "consistency.txt", proof);
    fails(&out, &[], "the log does not continue since-checkpoint: it is another history");
}

/// Signs a forged log with a key of the forger's.
fn signed_by_forger(folder: &Path) -> LogSigner {
    let signer = LogSigner::new(ORIGIN, &[7; 32]).unwrap();
    let mut roots = Roots::default();
    let mut chain = storage::block::genesis(ORIGIN);
    for record in commands(folder).concat() {
        let bytes = record::encode(&record, &chain).unwrap();
        chain = record::chain(&bytes);
        roots.push(&bytes);
    }
    let (origin, size, root) = (ORIGIN.to_owned(), roots.size(), roots.root());
    let mut note = Note::new(Checkpoint { origin, size, root }.text()).unwrap();
    note.signatures.push(signer.sign(&note.text));
    fs::write(folder.join("log/checkpoint"), note.to_string()).unwrap();
    fs::write(folder.join("log/checkpoint-key"), format!("{}\n", signer.verifier())).unwrap();
    signer
}

#[test]
fn a_history_made_anew_shows_its_untrue_verdicts_its_key_and_its_break_with_the_past() {
    if !can_verify() {
        return;
    }
    let exported = Exported::new();
    let mut other = commands(exported.day.folder.path());
    let untrue = other.iter_mut().flatten().find_map(|record| {
        let draft = &mut record.draft;
        let Ok(Event::AuthenticationJudged(mut judged)) =
            Event::decode(draft.event_type, draft.schema, &draft.clear)
        else {
            return None;
        };
        let one = judged.verifications.iter_mut().find(|one| one.verdict == Verdict::Invalid)?;
        one.verdict = Verdict::Valid;
        draft.clear = Event::AuthenticationJudged(judged).encode();
        Some(record.position.0)
    });
    let folder = forged(other, Forger::Careful);
    let signer = signed_by_forger(folder.path());
    let out = folder.path().join("export");
    evidence(folder.path(), &out, &wanted(0, None, None)).unwrap();
    let words = format!("record {}: the SOFTWARE signature for ", untrue.unwrap());
    fails(&out, &[], &words);
    fails(&out, &["--key", &exported.day.key.to_string()], "the export names another key");
    // Were the log's own key in the forger's hands, the past would still tell.
    let mut kept = exported.day.early.clone();
    kept.signatures = vec![signer.sign(&kept.text)];
    let kept_file = folder.path().join("kept");
    fs::write(&kept_file, kept.to_string()).unwrap();
    fails(&out, &["--since", kept_file.to_str().unwrap()], "the log does not continue the kept");
    let refused = evidence(folder.path(), &folder.path().join("no"), &wanted(0, None, Some(&kept)));
    assert!(refused.unwrap_err().to_string().contains("another history"));
}

#[test]
fn an_export_from_the_own_folder_is_an_event_and_one_from_a_copy_changes_nothing() {
    let world = World::start();
    let home = world.stopped();
    let data = home.path().join("data");
    let dir = data.to_str().unwrap();
    let before = events(&data).len() as u64;
    let out = |name: &str| home.path().join(name).display().to_string();

    // A copy: nothing but log/, and one that says that it is one.
    let copy = home.path().join("copy");
    fs::create_dir_all(copy.join("log")).unwrap();
    for (path, bytes) in files(&data.join("log")) {
        fs::write(copy.join("log").join(path.file_name().unwrap()), bytes).unwrap();
    }
    let as_it_was = (files(&copy), files(&data));
    let (code, said) = keytrail(&["export", "--data", copy.to_str().unwrap(), "--out", &out("a")]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = keytrail(&["export", dir, "--copy", "--out", &out("b")]);
    assert_eq!(code, 0, "{said}");
    assert!(as_it_was == (files(&copy), files(&data)), "a copy was changed");
    let own = ["export", dir, "--jsonl", "--from", "1", "--to", "3", "--by", "night shift"];
    let (code, said) = keytrail(&own);
    assert_eq!(code, 0, "{said}");
    let (code, said) = keytrail(&["export", "--data", dir, "--out", &out("c")]);
    assert_eq!(code, 0, "{said}");
    let made = |operator: &str, form, from, to| ExportMadeV1 {
        by: None,
        operator: operator.to_owned(),
        form,
        from: Position(from),
        to: Position(to),
    };
    let recorded: Vec<_> = events(&data)
        .into_iter()
        .filter_map(|event| match event {
            Event::ExportMade(made) => Some(*made),
            _ => None,
        })
        .collect();
    let lines = made("night shift", ExportForm::JsonLines, 1, 3);
    assert_eq!(recorded, [lines, made("operator", ExportForm::Evidence, 0, before)]);
    let report = crate::http::world::verified(&data);
    assert!(report.holds, "{report}");
    // What cannot be exported is not recorded as exported.
    let (code, said) = keytrail(&["export", "--data", dir, "--out", &out("c")]);
    assert_eq!(code, 2, "{said}");
    let (code, said) = keytrail(&["export", "--data", dir, "--out", &out("d"), "--from", "9999"]);
    assert_eq!(code, 2, "{said}");
    assert_eq!(events(&data).len() as u64, before + 2);
}

#[test]
fn sealed_parts_are_revealed_to_an_auditor_alone_and_that_is_an_event() {
    let world = World::start();
    let auditor = api_key(world.address(), &world.callers.administrator, "AUDITOR", None);
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    side.log_in(&phone, &AuthenticationOptions::default());
    let administrator = world.callers.administrator.clone();
    let home = world.stopped();
    let data = home.path().join("data");
    let key_file = |bearer: &str, mode| {
        let path = home.path().join("key");
        fs::write(&path, format!("{bearer}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let revealed = home.path().join("revealed.jsonl");
    let reveal = |name: &str, key: &str| {
        let out = home.path().join(name).display().to_string();
        let flags = ["--reason", "DISPUTE", "--case", "case 17", "--key-file", key, "--reveal"];
        let dir = data.to_str().unwrap();
        let words = [&["export", dir, "--out", &out][..], &flags, &[revealed.to_str().unwrap()]];
        keytrail(&words.concat())
    };
    for (bearer, mode) in [
        (administrator.as_str(), 0o600),
        (&format!("kt_{}_{}", "1".repeat(32), "A".repeat(43)), 0o600),
        (auditor.bearer.as_ref().unwrap(), 0o640),
    ] {
        let (code, said) = reveal("refused", &key_file(bearer, mode));
        assert_eq!(code, 2, "{said}");
        assert!(!revealed.exists());
    }
    let (code, said) = reveal("done", &key_file(auditor.bearer.as_ref().unwrap(), 0o600));
    assert_eq!(code, 0, "{said}");
    assert_eq!(fs::metadata(&revealed).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&revealed).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let user = rows.iter().find(|row| row["type"] == "ActivationRequested").unwrap();
    assert!(user["sealed"]["user_ref"].is_string(), "{user}");
    assert!(rows.iter().all(|row| row.get("not_opened").is_none()), "{text}");
    // The export itself does not have it.
    let name = user["sealed"]["user_ref"].as_str().unwrap().as_bytes().to_vec();
    let holds = |bytes: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    assert!(!files(&home.path().join("done")).values().any(|bytes| holds(bytes)));
    let recorded: Vec<_> = events(&data)
        .into_iter()
        .filter_map(|event| match event {
            Event::DataRevealed(revealed) => Some(*revealed),
            _ => None,
        })
        .collect();
    assert_eq!(recorded.len(), 1, "a refusal reveals nothing and records no revelation");
    assert_eq!(recorded[0].by.api_key, auditor.api_key.api_key_id);
    assert_eq!((recorded[0].reason, recorded[0].case.as_str()), (RevealReason::Dispute, "case 17"));
    let report = crate::http::world::verified(&data);
    assert!(report.holds, "{report}");
}
