//! The documents: what they point to is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Endings of files that a document may name in passing.
const NAMED: &[&str] = &[".rs", ".md", ".py", ".json", ".toml"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files below `folder` that belong to the sources, as paths from the root.
fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                files(&path, found);
            }
        } else {
            let from_root = path.strip_prefix(root()).unwrap();
            found.push(from_root.to_string_lossy().into_owned());
        }
    }
}

fn all_files() -> Vec<String> {
    let mut found = Vec::new();
    files(&root(), &mut found);
    found
}

fn documents() -> Vec<String> {
    let documents: Vec<_> = all_files().into_iter().filter(|path| path.ends_with(".md")).collect();
    assert!(documents.len() > 5, "the documents are where they are looked for");
    documents
}

/// The text without its code blocks.
fn prose(text: &str) -> String {
    text.split("\n```").step_by(2).collect()
}

/// Where the links of a text lead.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(to, _)| to).collect()
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|heading| anchor(heading.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|&c| c.is_alphanumeric() || c == ' ' || c == '-' || c == '_')
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let mut seen = 0;
    for document in documents() {
        let path = root().join(&document);
        let text = fs::read_to_string(&path).unwrap();
        for link in links(&prose(&text)) {
            if link.starts_with("https://") {
                continue;
            }
            seen += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            assert!(target.exists(), "{document}: {link}");
            if !heading.is_empty() {
                let there = anchors(&fs::read_to_string(&target).unwrap());
                assert!(there.contains(heading), "{document}: {link}");
            }
        }
    }
    assert!(seen > 20, "the documents have links");
}

#[test]
fn every_source_file_that_is_named_exists() {
    let files = all_files();
    let mut seen = 0;
    for document in documents() {
        let text = prose(&fs::read_to_string(root().join(&document)).unwrap());
        for named in text.split('`').skip(1).step_by(2) {
            let is_path = named.contains('/') && NAMED.iter().any(|ending| named.ends_with(ending));
            if !is_path || named.contains(char::is_whitespace) || named.starts_with('/') {
                continue;
            }
            seen += 1;
            let there = |file: &String| file == named || file.ends_with(&format!("/{named}"));
            assert!(files.iter().any(there), "{document} names {named}");
        }
    }
    assert!(seen > 10, "the documents name files");
}

#[test]
fn links_and_anchors_are_read_as_they_are_written() {
    assert_eq!(links("[a](b.md#c), [d](https://e) (f)"), ["b.md#c", "https://e"]);
    assert_eq!(prose("a\n```sh\n[x](y)\n```\nb"), "a\nb");
    assert_eq!(
        anchor("Looking into a folder: verify, inspect"),
        "looking-into-a-folder-verify-inspect"
    );
    assert_eq!(anchor("`log/`"), "log");
    assert!(anchors("# One\ntext\n## Two *and* three\n").contains("two-and-three"));
}
