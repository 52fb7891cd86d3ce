//! Arrows point one way, as `ARCHITECTURE.md` draws them; and the oracle stands apart in fact.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room with those that it may import, besides itself.
const ROOMS: [(&str, &[&str]); 11] = [
    ("words", &[]),
    ("machine", &["words"]),
    ("state", &["machine", "words"]),
    ("kernel", &["state", "machine", "words"]),
    ("vcpu", &["kernel", "state", "machine", "words"]),
    ("device", &["kernel", "state", "machine", "words"]),
    (
        "op",
        &["vcpu", "device", "kernel", "state", "machine", "words"],
    ),
    (
        "mutated",
        &[
            "op", "vcpu", "device", "kernel", "state", "machine", "words",
        ],
    ),
    (
        "transition",
        &[
            "mutated", "op", "vcpu", "device", "state", "machine", "words",
        ],
    ),
    ("oracle", &["state", "machine", "words"]),
    (
        "reduce",
        &[
            "transition",
            "mutated",
            "op",
            "vcpu",
            "kernel",
            "state",
            "machine",
            "words",
        ],
    ),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files of a room, with their texts.
fn files(room: &str) -> Vec<(PathBuf, String)> {
    let folder = source().join(room);
    let paths: Vec<PathBuf> = if folder.is_dir() {
        let entries = fs::read_dir(&folder).expect("it can be listed");
        entries
            .map(|entry| entry.expect("it can be read").path())
            .collect()
    } else {
        vec![source().join(format!("{room}.rs"))]
    };
    assert!(!paths.is_empty(), "{room} has files");
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("it can be read");
            (path, text)
        })
        .collect()
}

/// The code of a text: comments do not count.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn every_room_imports_only_rooms_below_it() {
    for (room, below) in ROOMS {
        for (path, text) in files(room) {
            for (line, found) in code(&text).flat_map(|line| {
                let parts = line.split("crate::").skip(1);
                parts.map(move |part| (line, part))
            }) {
                let found: String = found
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                let known = ROOMS.iter().any(|(room, _)| *room == found);
                assert!(
                    !known || found == room || below.contains(&found.as_str()),
                    "{}: {room} must not import {found}: {line}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn a_group_import_of_rooms_stands_only_where_all_are_allowed() {
    for (room, below) in ROOMS {
        for (path, text) in files(room) {
            for group in code(&text).filter_map(|line| line.strip_prefix("use crate::{")) {
                for name in group.trim_end_matches("};").split(", ") {
                    let name = name.split("::").next().unwrap_or(name);
                    assert!(
                        below.contains(&name),
                        "{}: {room} must not import {name}",
                        path.display()
                    );
                }
            }
        }
    }
}

#[test]
fn the_oracle_knows_no_mutation_and_no_operation_and_writes_nothing() {
    for (path, text) in files("oracle") {
        for line in code(&text) {
            for word in ["Mutation", ".mutations", "Op::", "op::", "&mut State"] {
                assert!(!line.contains(word), "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn nothing_below_the_mutations_knows_of_them() {
    for room in ["kernel", "vcpu", "device", "op", "state"] {
        for (path, text) in files(room) {
            for line in code(&text) {
                assert!(!line.contains("Mutation::"), "{}: {line}", path.display());
            }
        }
    }
}
