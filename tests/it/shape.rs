//! The shape of the house: which crate may use which, and what must not occur where.

use std::fs;
use std::path::{Path, PathBuf};

/// A crate may use any crate to its left and nothing to its right.
const LINE: &[&str] = &["engine", "storage", "replay", "api", "tests"];

/// What would make the rules depend on anything but their arguments.
const IMPURE: &[&str] =
    &["std::fs", "std::net", "SystemTime", "Instant", "async ", "tracing", "thread", "HashMap"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust sources below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_engine_stays_pure() {
    let files = sources(&root().join("engine/src"));
    assert!(files.len() > 10, "the engine is where it is looked for");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for word in IMPURE {
            assert!(!text.contains(word), "{word:?} in {}", file.display());
        }
    }
}

/// A crate can import only what its manifest lists, so that is where to look.
#[test]
fn imports_follow_the_arrows() {
    for (place, folder) in LINE.iter().enumerate() {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        for later in &LINE[place + 1..] {
            for form in [format!("\n{later}.workspace"), format!("\n{later} =")] {
                assert!(!manifest.contains(&form), "{folder} uses {later}");
            }
        }
    }
}

#[test]
fn only_the_codec_calls_bincode() {
    for folder in LINE {
        for file in sources(&root().join(folder)) {
            let text = fs::read_to_string(&file).unwrap();
            let calls = text.contains("bincode::");
            let allowed = file.ends_with("engine/src/codec.rs") || file.ends_with("it/shape.rs");
            assert!(!calls || allowed, "bincode in {}", file.display());
        }
    }
}

#[test]
fn no_source_holds_unsafe_code_or_unfinished_work() {
    let words = ["unsafe ", "todo!", "unimplemented!"].map(|word| word.to_owned());
    for folder in LINE {
        for file in sources(&root().join(folder)) {
            if file.ends_with("it/shape.rs") {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            for word in &words {
                assert!(!text.contains(word), "{word:?} in {}", file.display());
            }
        }
    }
}
