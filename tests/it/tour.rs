//! The tour in the README, executed: its commands, and what it says they print.
//!
//! Blocks marked `sh tour` run one after the other in one shell. A block marked
//! `text tour` is what the commands before it print, where `…` stands for any
//! text within a line. So the tour cannot say what is not so.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What the tour needs besides the server.
const TOOLS: &[&str] = &["sh", "curl", "openssl", "sed", "tr", "head", "wc", "grep", "mktemp"];
/// Set where a missing tool is a failure and no reason to skip.
const REQUIRED: &str = "KEYTRAIL_REQUIRE_TOUR";
/// Ends what a block prints. Nothing else prints such a line.
const END: &str = "--- end of block ---";
/// What the tour must show, whatever else it says: in this order.
const OUTCOMES: &[&str] = &[
    "keytrail listens on http://127.0.0.1:",
    "\"hardware_key_stored\":true",
    "\"accepted\":false,\"state\":\"PENDING\",\"remaining_attempts\":2",
    "\"accepted\":true,\"state\":\"COMPLETED\",\"remaining_attempts\":3",
    "\"failure\":\"HW_KEY_CHECK_FAILED\"",
    "\"hw_key_server_result\":\"VALID\"",
    "6 signatures, 5 valid, 1 invalid, 0 malformed",
    "every level holds",
    "hardware key INVALID, 1 of 2 signatures valid, failures 1/3",
    "neither Alice nor her payment",
    "Verified OK",
];

/// Commands and what they print, if the tour says it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Block {
    commands: String,
    printed: Option<String>,
}

/// The blocks of the tour in a Markdown text.
fn blocks(markdown: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        let commands = match line {
            "```sh tour" => true,
            "```text tour" => false,
            _ => continue,
        };
        let mut inside = String::new();
        for line in lines.by_ref().take_while(|line| *line != "```") {
            writeln!(inside, "{line}").unwrap();
        }
        if commands {
            found.push(Block { commands: inside, printed: None });
        } else {
            let before = found.last_mut().unwrap();
            assert_eq!(before.printed.replace(inside), None, "one output for a block");
        }
    }
    found
}

/// Whether `line` is `pattern`, where `…` stands for any text.
fn fits(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn is_there(tool: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$1\"", "sh", tool])
        .stdout(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

/// Runs the blocks in one shell; returns what each printed.
fn run(blocks: &[Block], folder: &Path) -> Vec<String> {
    // Whatever happens, no server outlives the shell that started it.
    let mut script = "trap 'kill \"${SERVER-}\" 2> /dev/null || :' EXIT\n".to_owned();
    for Block { commands, .. } in blocks {
        writeln!(script, "{commands}printf '%s\\n' '{END}'").unwrap();
    }
    let file = folder.join("tour.sh");
    fs::write(&file, script).unwrap();
    let output = Command::new("sh")
        .arg("-eu")
        .arg(file)
        .env("KEYTRAIL", env!("CARGO_BIN_EXE_keytrail-tested"))
        .env("TMPDIR", folder)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{printed}\n{complaints}", output.status);
    assert_eq!(complaints, "", "nothing goes wrong on the way");
    let mut parts: Vec<String> =
        printed.split(&format!("{END}\n")).map(ToOwned::to_owned).collect();
    assert_eq!(parts.pop().as_deref(), Some(""), "nothing is printed after the last block");
    parts
}

#[test]
fn the_tour_in_the_readme_does_and_prints_what_it_says() {
    let missing: Vec<_> = TOOLS.iter().filter(|tool| !is_there(tool)).collect();
    if !missing.is_empty() {
        assert!(std::env::var_os(REQUIRED).is_none(), "the tour needs {missing:?}");
        eprintln!("skipped: the tour needs {missing:?}");
        return;
    }
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"));
    let blocks = blocks(&readme.unwrap());
    let folder = tempfile::tempdir().unwrap();
    let printed = run(&blocks, folder.path());
    assert_eq!(printed.len(), blocks.len());
    for (block, printed) in blocks.iter().zip(&printed) {
        let Block { commands, printed: expected } = block;
        let expected: Vec<&str> = expected.as_deref().unwrap_or_default().lines().collect();
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{commands}\nprinted\n{printed}");
        for (pattern, line) in expected.iter().zip(lines) {
            assert!(fits(pattern, line), "{commands}\nprinted\n{line}\nand not\n{pattern}");
        }
    }
    let all = printed.concat();
    let mut rest = &all[..];
    for outcome in OUTCOMES {
        let at = rest.find(outcome).unwrap_or_else(|| panic!("no {outcome} in\n{rest}"));
        rest = &rest[at + outcome.len()..];
    }
}

#[test]
fn blocks_are_found_by_their_marks_alone() {
    let text = "a\n```sh tour\none\ntwo\n```\nb\n```\nno\n```\n```text tour\nout\n```\n```sh\nno\n```\n```sh tour\nthree\n```\n";
    let expected = [
        Block { commands: "one\ntwo\n".into(), printed: Some("out\n".into()) },
        Block { commands: "three\n".into(), printed: None },
    ];
    assert_eq!(blocks(text), expected);
}

#[test]
fn an_ellipsis_stands_for_any_text_and_nothing_else_does() {
    for (pattern, line) in
        [("a", "a"), ("…", ""), ("a…", "a"), ("a…c", "abc"), ("…b…", "abc"), ("a…b…c", "axbxbc")]
    {
        assert!(fits(pattern, line), "{pattern} {line}");
    }
    for (pattern, line) in
        [("a", "ab"), ("a", "ba"), ("a…c", "ab"), ("…b", "abc"), ("a…b…c", "acb"), ("ab…b", "ab")]
    {
        assert!(!fits(pattern, line), "{pattern} {line}");
    }
}
