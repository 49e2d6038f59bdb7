//! A record of the log, and the event in it.
#![no_main]

use engine::events::Event;
use libfuzzer_sys::fuzz_target;
use storage::record::{decode, encode};

fuzz_target!(|bytes: &[u8]| {
    let Ok((record, prev)) = decode(bytes) else { return };
    // One record has one form.
    assert_eq!(encode(&record, &prev).expect("what was read"), bytes);
    let draft = &record.draft;
    if let Ok(event) = Event::decode(draft.event_type, draft.schema, &draft.clear) {
        assert_eq!(event.encode(), draft.clear);
    }
});
