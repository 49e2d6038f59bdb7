//! A revocation list in Google's format.
#![no_main]

use engine::attestation::lists::entries_of;
use engine::attestation::revocation::RevocationList;
use engine::ids::Micros;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let Ok(list) = RevocationList::parse(json, Micros(1)) else { return };
    let entries = entries_of(&list);
    // Each serial number has at most two readings, and every one is found again.
    assert!(entries.len() <= json.len());
    for (serial, status) in &entries {
        assert_eq!(list.status(serial), Some(*status));
    }
    assert_eq!(RevocationList::from_entries(Micros(1), entries), list);
});
