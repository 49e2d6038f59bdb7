//! NIST CAVP (FIPS 186-3): signature verification and key validation on P-256.
//!
//! The files are not part of this repository. They are looked for in the folder
//! that `KEYTRAIL_VECTORS` names, else in `../shared/vectors` beside it.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;

use engine::key::PublicKey;
use engine::signature::{Verdict, verify, verify_independent};

use crate::{der, root, unhex};

type Case = BTreeMap<String, String>;

/// The cases of the section that `heading` opens; none if the file is not there.
///
/// A folder that was named and lacks the file is an error, not a reason to skip.
fn cases(file: &str, heading: &str) -> Option<Vec<Case>> {
    let named = env::var_os("KEYTRAIL_VECTORS");
    let folder = named.as_ref().map_or_else(|| root().join("../shared/vectors"), PathBuf::from);
    let path = folder.join("nist-cavp").join(file);
    if named.is_none() && !path.exists() {
        println!("skipped: no {file} (set KEYTRAIL_VECTORS)");
        return None;
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let section = text.lines().map(str::trim).skip_while(|line| *line != heading).skip(1);
    let mut cases = vec![];
    let mut case = Case::new();
    for line in section.take_while(|line| !line.starts_with('[')) {
        let Some((name, value)) = line.split_once(" = ") else { continue };
        case.insert(name.to_owned(), value.to_owned());
        if name == "Result" {
            cases.push(std::mem::take(&mut case));
        }
    }
    Some(cases)
}

/// The point as NIST writes it, in SEC1 form: a coordinate may be too long.
fn sec1(case: &Case) -> Vec<u8> {
    [vec![0x04], coordinate(&case["Qx"]), coordinate(&case["Qy"])].concat()
}

fn coordinate(hex: &str) -> Vec<u8> {
    unhex(&format!("{hex:0>width$}", width = hex.len().next_multiple_of(2).max(64)))
}

#[test]
fn nist_signatures_get_their_verdict_from_both_verifiers() {
    let Some(cases) = cases("SigVer_P-256.rsp", "[P-256,SHA-256]") else { return };
    let mut passed = 0;
    for case in &cases {
        let message = unhex(&case["Msg"]);
        let signature = der(&unhex(&case["R"]), &unhex(&case["S"]));
        let expected = if case["Result"].starts_with('P') {
            passed += 1;
            Verdict::Valid
        } else {
            Verdict::Invalid
        };
        let key = PublicKey::from_bytes(&sec1(case)).unwrap();
        assert_eq!(verify(&key, &message, &signature), expected, "{case:?}");
        assert_eq!(verify_independent(&key, &message, &signature), expected, "{case:?}");
    }
    assert_eq!((cases.len(), passed), (15, 3));
}

#[test]
fn nist_keys_are_taken_or_refused_as_they_must() {
    let Some(cases) = cases("PKV_P-256.rsp", "[P-256]") else { return };
    let mut taken = 0;
    for case in &cases {
        let valid = case["Result"].starts_with('P');
        taken += usize::from(valid);
        assert_eq!(PublicKey::from_bytes(&sec1(case)).is_ok(), valid, "{case:?}");
    }
    assert_eq!((cases.len(), taken), (12, 4));
}
