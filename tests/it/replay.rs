//! What an auditor finds in a folder, and that looking changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use replay::inspect::{Filter, Row};
use replay::report::{Outcome, Report};
use replay::verify::Options;

use crate::history::{History, small_segments};

/// Every file below a folder with a hash of its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, blake3::Hash> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let hash = blake3::hash(&fs::read(&path).unwrap());
                found.insert(path, hash);
            }
        }
    }
    found
}

fn verify(dir: &Path) -> Report {
    replay::verify(dir, &Options::default()).unwrap()
}

fn outcomes(report: &Report) -> Vec<Outcome> {
    report.levels.iter().map(|level| level.outcome).collect()
}

fn rows(dir: &Path, filter: &Filter) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut keep = |row| {
        rows.push(row);
        ControlFlow::Continue(())
    };
    let inspected = replay::inspect(dir, filter, &mut keep).unwrap();
    assert_eq!(inspected.findings, []);
    assert_eq!(inspected.rows, rows.len() as u64);
    rows
}

/// A stopped server's folder.
fn day() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    History::day(folder.path(), small_segments(8)).store.close().unwrap();
    folder
}

#[test]
fn a_clean_log_holds_at_every_level_and_looking_changes_no_file() {
    let folder = day();
    let before = files(folder.path());
    let report = verify(folder.path());
    println!("{report}");
    assert!(report.holds, "{report}");
    assert_eq!(outcomes(&report), [Outcome::Holds; 5], "{report}");
    let json = serde_json::to_value(&report).unwrap();
    println!("{json}");
    for row in rows(folder.path(), &Filter::default()) {
        println!("{} {} {}", row.record.position.0, row.name(), row.summary());
    }
    assert_eq!(files(folder.path()), before);
}
