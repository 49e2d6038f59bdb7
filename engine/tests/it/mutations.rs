//! Parsers of hostile bytes against damaged evidence: a fixed number of
//! executions, the same in every run. `fuzz/` looks further, with a nightly
//! toolchain; this holds everywhere.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use engine::attestation::apple::{ExpectedAssertion, judge_assertion};
use engine::attestation::description::KeyDescription;
use engine::attestation::lists::entries_of;
use engine::attestation::policy::BootRule;
use engine::attestation::revocation::RevocationList;
use engine::attestation::{
    EVIDENCE_MAX, Expected, Findings, Judgement, Outcome, Platform, Policy, SecurityLevel, judge,
};
use engine::ids::Micros;
use engine::key::PublicKey;

use crate::root;
use crate::test_ca::{Says, chain, trusting};

/// Executions for each parser.
const EXECUTIONS: usize = 3_000;

/// Numbers that look like chance (xorshift64*), from a seed that is written down.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        drawn as usize % bound.max(1)
    }

    fn slice<'a>(&mut self, of: &'a [u8]) -> &'a [u8] {
        let begin = self.below(of.len() + 1);
        let length = self.below((of.len() - begin).min(64) + 1);
        &of[begin..begin + length]
    }
}

/// What damage does: bits, bytes, lengths; something taken out, put in, doubled,
/// or taken from another seed; the end cut off.
fn damaged(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut octets = seeds[dice.below(seeds.len())].clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(octets.len());
        match dice.below(8) {
            _ if octets.is_empty() => octets.push(0x30),
            0 => octets[at] ^= 1 << dice.below(8),
            1 => octets[at] = dice.below(256) as u8,
            // Lengths and tags of the extreme kind.
            2 => octets[at] = [0x00, 0x7f, 0x80, 0x81, 0x84, 0xff, 0x9f, 0xbf][dice.below(8)],
            3 => drop(octets.drain(at..at + dice.below((octets.len() - at).min(40) + 1))),
            4 => drop(octets.splice(at..at, dice.slice(&octets.clone()).to_vec())),
            5 => {
                let other = &seeds[dice.below(seeds.len())];
                drop(octets.splice(at..at, dice.slice(other).to_vec()));
            }
            6 => octets.truncate(at),
            _ => octets.extend_from_within(at..),
        }
        octets.truncate(2 * EVIDENCE_MAX);
    }
    octets
}

/// Files below the folder of vectors whose name ends so; none if it is not there.
fn vectors(ending: &str) -> Vec<Vec<u8>> {
    let folder = env::var_os("KEYTRAIL_VECTORS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| root().join("../shared/vectors"));
    let mut found = Vec::new();
    collect(&folder, ending, &mut found);
    found
}

fn collect(folder: &Path, ending: &str, found: &mut Vec<Vec<u8>>) {
    let Ok(items) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = items.map(|item| item.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, ending, found);
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(fs::read(path).unwrap());
        }
    }
}

/// Octets of a member of a JSON vector.
fn member(json: &[u8], name: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let json: serde_json::Value = serde_json::from_slice(json).ok()?;
    let text = json.get(name)?.as_str()?.trim_end_matches('=');
    let text = text.replace('+', "-").replace('/', "_");
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()
}

/// What is read of evidence is bounded by its length.
fn is_bounded(judgement: &Judgement) {
    let read: usize = judgement.fields.iter().map(|field| field.value.len()).sum();
    assert!(judgement.fields.len() <= 2_000 && read <= 8 * EVIDENCE_MAX, "{read}");
    assert!(judgement.checks.len() <= 40);
    if judgement.outcome == Outcome::Accepted {
        assert!(judgement.leaf.is_some() && judgement.facts.security_level.is_some());
    }
}

#[test]
fn damaged_chains_are_judged_without_a_panic_in_bounded_memory() {
    let mut seeds = vec![chain(&Says::default()), chain(&Says::default())];
    seeds.extend(vectors(".pem"));
    let mut policy = trusting();
    policy.android.security_level = SecurityLevel::Software;
    policy.android.boot = BootRule::Any;
    let expected = Expected {
        challenge: None,
        hardware_key: None,
        at: Micros(1_759_276_800_000_000),
        policy: &policy,
        list: None,
    };
    let mut dice = Dice(1);
    for _ in 0..EXECUTIONS {
        is_bounded(&judge(Platform::Android, &damaged(&mut dice, &seeds), &expected));
    }
}

#[test]
fn damaged_key_descriptions_are_read_without_a_panic() {
    let mut seeds = vec![Says::default().der()];
    let long = Says::default().software(702, vec![2, 1, 0]).hardware(600, vec![5, 0]);
    seeds.push(long.der());
    let mut dice = Dice(2);
    let mut readable = 0;
    for _ in 0..4 * EXECUTIONS {
        let octets = damaged(&mut dice, &seeds);
        let Ok(description) = KeyDescription::read(&octets) else { continue };
        readable += 1;
        description.show(&mut Findings::default());
        for list in [&description.software, &description.hardware] {
            drop((list.purposes(), list.origin(), list.root_of_trust()));
            drop((list.os_patch_level(), list.application_id()));
        }
    }
    assert!(readable > 100, "damage goes deep: {readable}");
}

#[test]
fn damaged_objects_and_assertions_are_judged_and_refused_without_a_panic() {
    let json = vectors(".json");
    let of = |name: &str| json.iter().filter_map(|json| member(json, name)).collect::<Vec<_>>();
    let mut objects = of("attestation");
    let mut assertions = of("assertion");
    // Without vectors, only what looks like the beginning of one.
    objects.push(b"\xa3cfmtoapple-appattestgattStmt\xa2cx5c\x80".to_vec());
    assertions.push(b"\xa2isignatureA0qauthenticatorDataA0".to_vec());
    let mut policy = Policy::default();
    policy.apple.app_ids = vec!["V8H6LQ9448.io.uebelacker.AppAttestExample".to_owned()];
    let key = PublicKey::dummy();
    let expected = Expected {
        challenge: Some(&[7; 32]),
        hardware_key: Some(&key),
        at: Micros(1_707_350_400_000_000),
        policy: &policy,
        list: None,
    };
    let assertion = ExpectedAssertion {
        key: &key,
        app_ids: &policy.apple.app_ids,
        client_data_hash: &[7; 32],
        counter: 0,
    };
    let mut dice = Dice(3);
    for _ in 0..EXECUTIONS {
        let judgement = judge(Platform::Apple, &damaged(&mut dice, &objects), &expected);
        is_bounded(&judgement);
        assert_ne!(judgement.outcome, Outcome::Accepted, "the challenge is not in it");
        assert!(judge_assertion(&damaged(&mut dice, &assertions), &assertion).is_err());
    }
}

#[test]
fn damaged_lists_are_read_whole_or_not_at_all() {
    let json =
        br#"{"entries":{"6681152659205225093":{"status":"REVOKED","reason":"KEY_COMPROMISE"},
        "cc66e9":{"status":"SUSPENDED","expires":"2027-01-01","comment":"x"}}}"#;
    let seeds = vec![json.to_vec(), br#"{"entries":{}}"#.to_vec()];
    let mut dice = Dice(4);
    let mut readable = 0;
    for _ in 0..4 * EXECUTIONS {
        let octets = damaged(&mut dice, &seeds);
        let Ok(list) = RevocationList::parse(&octets, Micros(1)) else { continue };
        readable += 1;
        let entries = entries_of(&list);
        assert!(entries.len() <= octets.len());
        assert_eq!(RevocationList::from_entries(Micros(1), entries), list);
    }
    assert!(readable > 100, "damage goes deep: {readable}");
}
