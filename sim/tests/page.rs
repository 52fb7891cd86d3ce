//! `dirtysim page`: what a log, a recording and a schedule say of a page.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .current_dir(root())
        .arg("page")
        .args(arguments)
        .output()
        .expect("the binary runs")
}

fn told(arguments: &[&str]) -> String {
    let output = page(arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("it speaks UTF-8")
}

const LOG: &str = "traces/import/defect-unread-entry.log";

#[test]
fn a_page_of_a_log_is_followed_from_its_push_to_its_loss() {
    assert_eq!(
        told(&[LOG, "gfn", "0x122"]),
        "\
gfn 0x122
  line 21  CPU 1/KVM (4243)       pushed as entry 1 of ring 1, slot 1 offset 0x22
  line 25  live_migration (4250)  reset: entry 1 of ring 1
gfn 0x122: pushed last on line 21 as entry 1 of ring 1, slot 1 offset 0x22; reset on line 25; never harvested: lost unless read otherwise
  unknown: the ring's size is not known (--ring-entries): an entry that was overwritten is not seen
"
    );
    let text = told(&[LOG, "0x123", "--ring-entries", "512"]);
    assert!(text.contains("faulted, for a write"), "{text}");
    assert!(
        text.ends_with("read on line 29; reset on line 30\n"),
        "{text}"
    );
}

#[test]
fn pages_of_a_list_stand_in_a_table_the_worst_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let list = dir.path().join("differ.txt");
    // As `cmp -l` prints bytes: two of page 0x120, one of 0x122; and two pages by other names.
    std::fs::write(
        &list,
        "   1179649 0 1\n   1179650 0 1\n   1187841 377 2\n1:0x21\ngfn 0x999\n",
    )
    .expect("written");
    let list = list.to_str().expect("a path");
    let text = told(&[LOG, "--pages", list, "--ring-entries", "512"]);
    let first: Vec<&str> = text
        .lines()
        .map(|line| line.trim().split("  ").next().unwrap_or(""))
        .collect();
    assert_eq!(
        first,
        [
            "traces/import/defect-unread-entry.log: 4 pages: 1 lost, 1 unseen, 2 read",
            "lost",
            "unseen",
            "read",
            "read"
        ],
        "{text}"
    );
    let output = page(&[LOG, "--pages", list, "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(document["pages"][0]["fate"], "lost");
    assert_eq!(document["pages"][0]["event_list"][1]["line"], 25);
}

#[test]
fn a_schedule_and_a_recording_know_their_pages_too() {
    let text = told(&["traces/bugs/k23.trace.jsonl", "ram:1"]);
    assert!(text.contains("recorded in the slot's bitmap"), "{text}");
    assert!(
        text.ends_with("ram:1: at the end it is equal to the copy\n"),
        "{text}"
    );
    let text = told(&["traces/bugs/k01.trace.jsonl", "ram:0"]);
    assert!(text.contains("lost"), "{text}");
    let text = told(&[
        "traces/kernel/arm64-linux-6.12.117.ring-huge-page.trace.jsonl",
        "1:5",
    ]);
    assert!(text.contains("KVM_RUN"), "{text}");
}

#[test]
fn what_is_no_page_or_no_trace_is_refused_with_what_to_write_instead() {
    for (arguments, wanted) in [
        (
            &[LOG, "3"][..],
            "`3` names no page\nhelp: write slot:offset",
        ),
        (&[LOG, "ram:3"], "no memslot of a log is called `ram`"),
        (&[LOG], "required arguments were not provided"),
        (&[LOG, "0x1", "--base", "x"], "not an address"),
        (&["README.md", "0x1"], "README.md"),
        (&["nowhere.log", "0x1"], "nowhere.log"),
        (
            &["check/scenarios/kernel-docs.toml", "0x1"],
            "a scenario, not a trace",
        ),
        (
            &["traces/bugs/k23.trace.jsonl", "ram:9"],
            "ram has no page 9",
        ),
        (
            &["traces/bugs/k23.trace.jsonl", "ram:1", "--pid", "3"],
            "--pid chooses a VM of a log",
        ),
    ] {
        let output = page(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(wanted), "{arguments:?}: {error}");
    }
}
