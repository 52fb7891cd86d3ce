//! `dirtysim replay` of imported logs: the contract, then a run of the model, and what each answer is as an exit code.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/import/expected")
}

fn replay(args: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .current_dir(examples())
        .args(["replay", "--json"])
        .args(args)
        .output()
        .expect("the binary runs");
    answer(&output)
}

fn answer(output: &Output) -> (Option<i32>, Value) {
    let document = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), document)
}

/// A trace with these rows in a directory of its own.
fn trace(rows: &[&str]) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log.jsonl");
    let mut text =
        "{\"format\":\"dirtysim-trace\",\"version\":1,\"kind\":\"observed\"}\n".to_owned();
    for (line, row) in (1..).zip(rows) {
        text.push_str(&format!("{{\"line\":{line},{row}}}\n"));
    }
    std::fs::write(&path, text).expect("it can be written");
    let name = path.display().to_string();
    (dir, name)
}

fn push(ring: u32, dirty: u32, reset: u32, offset: u32) -> String {
    format!(
        r#""event":"kvm_dirty_ring_push","ring":{ring},"dirty_index":{dirty},"reset_index":{reset},"slot":1,"offset":{offset},"used":{}"#,
        dirty - reset
    )
}

fn reset(ring: u32, dirty: u32, reset: u32) -> String {
    format!(
        r#""event":"kvm_dirty_ring_reset","ring":{ring},"dirty_index":{dirty},"reset_index":{reset},"used":{}"#,
        dirty - reset
    )
}

#[test]
fn a_log_that_a_run_of_the_model_gives_is_consistent() {
    for log in [
        "ftrace",
        "perf-pid",
        "qemu-and-kernel",
        "qemu-8.2",
        "probes",
    ] {
        let (code, document) = replay(&[&format!("{log}.jsonl")]);
        assert_eq!(document["verdict"], "holds", "{log}: {document:#}");
        assert_eq!(document["search"]["outcome"], "consistent", "{log}");
        assert_eq!(code, Some(0), "{log}");
    }
    // Which machine it was, a probe of GET tells: with a ring, x86 has none.
    let (_, document) = replay(&["probes.jsonl"]);
    let tried = document["search"]["tried"].as_array().expect("machines");
    let given: Vec<&str> = tried
        .iter()
        .filter(|tried| tried.get("ended").is_none())
        .filter_map(|tried| tried["machine"].as_str())
        .collect();
    assert_eq!(given.len(), 1, "{tried:#?}");
    assert!(given[0].starts_with("arm64"), "{given:?}");
}

#[test]
fn a_broken_contract_is_the_answer_and_no_run_is_looked_for() {
    let (code, document) = replay(&["defect-reset-goes-back.jsonl"]);
    assert_eq!(code, Some(1));
    assert_eq!(document["verdict"], "violated");
    assert_eq!(document["search"]["outcome"], "not_searched");
}

#[test]
fn a_defect_behind_any_number_of_notes_is_the_verdict() {
    // The same page again and again, with nothing re-armed between, and at last an index that jumps.
    let mut rows: Vec<String> = (1..=1_500).map(|n| push(0, n, 0, 7)).collect();
    rows.push(push(0, 1_502, 0, 8));
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let (_dir, name) = trace(&rows);
    let (code, document) = replay(&[&name]);
    assert_eq!(code, Some(1), "{document:#}");
    assert_eq!(document["verdict"], "violated");
    assert_eq!(document["divergences"], 1);
    let check = &document["check"];
    assert_eq!(check["weights"]["note"], 1_499);
    let findings = check["findings"].as_array().expect("findings");
    assert_eq!(findings[0]["claim"], "dirty_index_advances_by_one");
    assert_eq!(findings.len(), 101, "the defect, and the first notes");
    let text = Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .args(["replay", &name])
        .output()
        .expect("the binary runs");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("findings: 1 defect, 1499 notes"), "{text}");
    assert!(text.contains("  defect, line 1501"), "{text}");
}

#[test]
fn what_the_import_was_told_is_not_told_again() {
    // The ring is soft-full at 192 of 256 entries: the exit was due, and in a ring of 4096 it was not.
    let mut text = String::new();
    for n in 1..=192 {
        text.push_str(&format!(
            "       CPU 0/KVM-4242    [003] ..... 101.{n:06}: kvm_dirty_ring_push: ring 0: dirty {n:#x} reset 0x0 slot 1 \
             offset {n:#x} (used {n})\n"
        ));
    }
    text.push_str("       CPU 0/KVM-4242    [003] ..... 101.900000: kvm_dirty_ring_exit: vcpu 0\n");
    let dir = tempfile::tempdir().expect("a directory");
    let place = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(place("log"), text).expect("it can be written");
    let import = |entries: &str, reserved: &str| {
        Command::new(env!("CARGO_BIN_EXE_dirtysim"))
            .args(["import", &place("log"), "--ring-entries", entries])
            .args(["--ring-reserved", reserved, "-o", &place("trace.jsonl")])
            .output()
            .expect("the binary runs")
    };
    assert_eq!(import("256", "64").status.code(), Some(0));
    let (code, document) = replay(&[&place("trace.jsonl")]);
    assert_eq!(document["check"]["soft_limit"]["given"], 192);
    assert_eq!(code, Some(0), "{document:#}");
    // What is said now has the last word.
    let (code, document) = replay(&[&place("trace.jsonl"), "--ring-entries", "4096"]);
    assert_eq!(document["check"]["soft_limit"]["given"], 4032);
    assert_eq!(code, Some(1), "{document:#}");
    // The import itself says so too.
    let output = import("4096", "64");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(replay(&[&place("trace.jsonl")]).0, Some(1));
    // Rings that there are not.
    for (entries, reserved, why) in [
        ("500", "64", "`ring_entries` is 500"),
        ("512", "576", "`ring_reserved` is 576"),
    ] {
        let output = import(entries, reserved);
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_log_that_no_run_is_known_for_is_inconclusive_and_says_where() {
    // RESET goes through the rings in the order of the vCPUs; this log has it the other way round, twice.
    let rows = [
        push(0, 1, 0, 7),
        push(1, 1, 0, 8),
        reset(0, 1, 1),
        reset(1, 1, 1),
        push(0, 2, 1, 7),
        push(1, 2, 1, 8),
        reset(1, 2, 2),
        reset(0, 2, 2),
    ];
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let (_dir, name) = trace(&rows);
    let (code, document) = replay(&[&name]);
    assert_eq!(code, Some(3), "{document:#}");
    assert_eq!(document["verdict"], "inconclusive");
    assert_eq!(document["divergences"], 0);
    assert_eq!(document["search"]["outcome"], "no_run_found");
    for tried in document["search"]["tried"].as_array().expect("machines") {
        assert_eq!(tried["ended"]["line"], 7, "{tried:#}");
    }
    // In the right order it is consistent.
    let (_dir, name) = trace(&[
        rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[7], rows[6],
    ]);
    assert_eq!(replay(&[&name]).0, Some(0));
}

#[test]
fn a_limit_ends_the_search_and_the_contract_is_checked_to_the_end() {
    let rows: Vec<String> = (1..20_000).map(|n| push(0, n, n - 1, n)).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let (_dir, name) = trace(&rows);
    let (code, document) = replay(&[&name, "--search-steps", "100"]);
    assert_eq!(code, Some(3));
    assert_eq!(document["search"]["outcome"], "limit");
    assert_eq!(document["limit"], "100 steps of the model");
    assert_eq!(document["compared"], rows.len());
    let (code, document) = replay(&[&name, "--search-steps", "0"]);
    assert_eq!(code, Some(3));
    assert_eq!(document["search"]["outcome"], "not_searched");
    assert_eq!(replay(&[&name]).0, Some(0));
}

#[cfg(unix)]
#[test]
fn a_pipe_is_read_once() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .args(["replay", "--json", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let text = std::fs::read(examples().join("ftrace.jsonl")).expect("it is there");
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(&text).expect("it reads");
    drop(pipe);
    let (code, document) = answer(&child.wait_with_output().expect("it ends"));
    assert_eq!(code, Some(3));
    assert_eq!(document["search"]["outcome"], "not_searched");
    assert_eq!(
        document["check"]["findings"].as_array().map(Vec::len),
        Some(0)
    );
}
