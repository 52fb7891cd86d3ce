//! CONTRIBUTING.md's table of tests is true: what it names is there, and no file of tests is left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders whose files and folders are tests, each by itself.
const FOLDERS: [&str; 4] = ["model/tests", "sim/tests", "tests", "witness/tests"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The paths in the table.
fn named() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("CONTRIBUTING.md")).expect("it is there");
    let (_, rest) = text.split_once("<!-- tests: begin -->").expect("it begins");
    let (table, _) = rest.split_once("<!-- tests: end -->").expect("it ends");
    table
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.contains('/'))
        .map(|path| path.trim_end_matches('/').to_owned())
        .collect()
}

#[test]
fn what_the_table_names_is_there() {
    for path in named() {
        assert!(root().join(&path).exists(), "CONTRIBUTING.md: no {path}");
    }
}

#[test]
fn the_table_names_every_file_of_tests() {
    let named = named();
    for folder in FOLDERS {
        for entry in fs::read_dir(root().join(folder)).expect("it is a folder") {
            let entry = entry.expect("it can be listed");
            let name = entry.file_name().into_string().expect("it is text");
            let holds_tests = if entry.path().is_dir() {
                // Expected files are data.
                name != "expected"
            } else {
                name.ends_with(".rs")
            };
            let path = format!("{folder}/{name}");
            assert!(
                !holds_tests || named.contains(&path),
                "CONTRIBUTING.md's table lacks {path}"
            );
        }
    }
}
