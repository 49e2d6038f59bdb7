//! A signed note and the checkpoint in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage::note::{Checkpoint, Note};

fuzz_target!(|text: &str| {
    let Ok(note) = text.parse::<Note>() else { return };
    assert_eq!(note.to_string(), text);
    if let Ok(checkpoint) = Checkpoint::of_text(&note.text) {
        assert!(note.text.starts_with(&checkpoint.text()));
    }
});
