//! The recordings of real kernels under `traces/kernel/`: each raw file gives the trace beside it, byte for byte, and
//! the trace says all that the raw file says.
//!
//! `DIRTYSIM_BLESS=1 cargo test --test kernel_traces` writes the traces anew.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;

use dirtysim::import::{ImportSummary, import_kvm_jsonl};
use dirtysim::trace::call::{Call, CallRow};
use dirtysim::trace::{TraceReader, TraceWriter};
use serde_json::Value;

const RECORDINGS: [&str; 2] = ["arm64-linux-6.12.117", "x86-linux-6.18.44"];

fn path(recording: &str, suffix: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("traces/kernel")
        .join(format!("{recording}.{suffix}"))
}

fn import(recording: &str) -> (Vec<u8>, ImportSummary) {
    let raw = File::open(path(recording, "raw.jsonl")).unwrap();
    let mut out = Vec::new();
    // The x86 kernel was built without SMM: its VMs have one address space, which no row of the recording says.
    let address_spaces = recording.starts_with("x86").then_some(1);
    let summary = import_kvm_jsonl(BufReader::new(raw), recording, address_spaces, &mut out)
        .unwrap_or_else(|error| panic!("{error}"));
    (out, summary)
}

fn rows(recording: &str) -> Vec<CallRow> {
    let trace = TraceReader::open(&path(recording, "trace.jsonl"))
        .unwrap_or_else(|error| panic!("{error}"));
    let rows = trace
        .rows::<CallRow>()
        .unwrap_or_else(|error| panic!("{error}"));
    rows.map(|located| located.unwrap_or_else(|error| panic!("{error}")).row)
        .collect()
}

#[test]
fn importing_a_raw_recording_gives_the_stored_trace() {
    for recording in RECORDINGS {
        let (imported, _) = import(recording);
        let stored = path(recording, "trace.jsonl");
        dirtysim_expected::file(&stored, imported);
    }
}

#[test]
fn the_import_counts_every_row_of_a_recording() {
    // One row of each recording, HOST, becomes the header; 11 of each are titles.
    for (recording, rows, sections) in [(RECORDINGS[0], 570, 11), (RECORDINGS[1], 765, 11)] {
        let (_, summary) = import(recording);
        assert_eq!(
            (summary.rows, summary.sections, summary.calls),
            (rows, sections, rows - sections - 1)
        );
    }
}

#[test]
fn a_stored_trace_that_is_read_and_written_keeps_its_bytes() {
    for recording in RECORDINGS {
        let stored = path(recording, "trace.jsonl");
        let header = TraceReader::open(&stored).unwrap().header().clone();
        let mut writer = TraceWriter::new(Vec::new(), &header).unwrap();
        for row in rows(recording) {
            writer.row(&row).unwrap();
        }
        assert!(
            writer.into_inner() == fs::read(&stored).unwrap(),
            "{} changes",
            stored.display()
        );
    }
}

/// Every leaf of a JSON value as `key=value`, under the name that a trace has for the key: hexadecimal strings as
/// numbers, null as nothing.
fn leaves(key: &str, value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Array(items) => items.iter().for_each(|item| leaves(key, item, out)),
        Value::Object(entries) => entries.iter().for_each(|(key, value)| {
            let key = match key.as_str() {
                "scenario" => "section",
                "u64" => "value",
                other => other,
            };
            // Indices of bitmap words are keys; ranges of them are spelled out.
            match key
                .split_once('-')
                .map(|(first, last)| (first.parse(), last.parse()))
            {
                Some((Ok::<u64, _>(first), Ok::<u64, _>(last))) => {
                    (first..=last).for_each(|index| leaves(&index.to_string(), value, out));
                }
                _ => leaves(key, value, out),
            }
        }),
        Value::String(text) => match text
            .strip_prefix("0x")
            .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        {
            Some(number) => out.push(format!("{key}={number}")),
            None => {
                let name = text
                    .trim_start_matches("KVM_CAP_")
                    .trim_start_matches("KVM_EXIT_");
                out.push(format!("{key}={name}"));
            }
        },
        other => out.push(format!("{key}={other}")),
    }
}

/// The importer's own types are not asked here: the raw line and the trace's line are compared as plain JSON.
#[test]
fn a_trace_says_all_that_the_raw_rows_say() {
    for recording in RECORDINGS {
        let parse = |suffix: &str| -> Vec<Value> {
            let text = fs::read_to_string(path(recording, suffix)).unwrap();
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        };
        let (raw, trace) = (parse("raw.jsonl"), parse("trace.jsonl"));
        // Row 1 of a recording, HOST, is the header, and the header is line 0 of the trace: one row each.
        assert_eq!(raw.len(), trace.len());
        assert_eq!(raw[1]["op"], "HOST");
        let order = [1, 0].into_iter().chain(2..raw.len());
        for (raw, trace) in order.map(|index| &raw[index]).zip(&trace).skip(1) {
            let said = |value: &Value| {
                let mut out = Vec::new();
                leaves("", value, &mut out);
                out.sort();
                out
            };
            let mut wanted = raw.as_object().unwrap().clone();
            let op = wanted.remove("op").unwrap();
            wanted.remove("n");
            if op != "SCENARIO" {
                wanted.remove("scenario");
            }
            // Said twice in the raw row: the number beside the name, the bytes beside the pages.
            for twice in ["cap_number", "exit_reason"] {
                wanted.remove(twice);
            }
            if op == "SET_USER_MEMORY_REGION" {
                let whole = wanted["npages"].as_u64().unwrap() * 4096;
                if wanted["bytes"] == whole {
                    wanted.remove("bytes");
                }
            }
            if op == "MMAP_RING" {
                let entries = wanted.remove("entries").unwrap();
                wanted.insert("mapped_entries".to_owned(), entries);
            }
            let mut found = trace.as_object().unwrap().clone();
            found.remove("call");
            assert_eq!(
                said(&wanted.into()),
                said(&found.into()),
                "{raw} became {trace}"
            );
        }
    }
}

#[test]
fn the_recordings_hold_what_a_replay_compares() {
    let calls: Vec<Call> = RECORDINGS
        .into_iter()
        .flat_map(rows)
        .filter_map(|row| match row {
            CallRow::Call(row) => Some(row.call),
            CallRow::Section(_) | CallRow::Unknown(_) => None,
        })
        .collect();
    // Counted in the raw files: `grep -c '"op":"RUN"'`, and so on.
    let count = |name: &str| calls.iter().filter(|call| call.name() == name).count();
    assert_eq!(count("KVM_RUN"), 38 + 80);
    assert_eq!(count("KVM_GET_DIRTY_LOG"), 42 + 59);
    assert_eq!(count("KVM_CLEAR_DIRTY_LOG"), 30 + 86);
    assert_eq!(count("KVM_RESET_DIRTY_RINGS"), 23 + 45);
    assert_eq!(
        count("ring_peek") + count("harvest") + count("ring_read"),
        29 + 31 + 1 + 53 + 30 + 8
    );
}
