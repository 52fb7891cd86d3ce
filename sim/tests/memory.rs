//! A search keeps to the memory that it was given, and says early that it will not be enough.
#![cfg(target_os = "linux")]

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use dirtysim::scenario::builtin_text;
use serde_json::Value;

const LIMIT: &str = "128M";
const LIMIT_BYTES: u64 = 128 << 20;

/// What a run of the program came to.
struct Run {
    code: Option<i32>,
    document: Value,
    errors: String,
    /// The most resident memory, in bytes, as the kernel counted it.
    peak_bytes: u64,
}

fn high_water_mark(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// `kernel-docs-large` with a store more: some ten times what there is room for.
fn check(more: &[&str]) -> Run {
    let text = builtin_text("kernel-docs-large").expect("it is built in");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("larger.toml");
    std::fs::write(&path, text.replace("stores = 2", "stores = 3")).expect("it can be written");
    run(path.to_str().expect("a path in UTF-8"), LIMIT, more)
}

fn run(scenario: &str, limit: &str, more: &[&str]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .args(["check", scenario, "--json", "--max-memory", limit])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let status = format!("/proc/{}/status", child.id());
    let mut peak_bytes = 0;
    // The kernel keeps the maximum, so that only what came in the last interval can be missed.
    let code = loop {
        if let Ok(text) = std::fs::read_to_string(&status) {
            peak_bytes = peak_bytes.max(high_water_mark(&text).unwrap_or(0));
        }
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status.code();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let read = |pipe: Option<&mut dyn Read>| {
        let mut text = String::new();
        if let Some(pipe) = pipe {
            pipe.read_to_string(&mut text).expect("it prints UTF-8");
        }
        text
    };
    let out = read(child.stdout.as_mut().map(|pipe| pipe as &mut dyn Read));
    let errors = read(child.stderr.as_mut().map(|pipe| pipe as &mut dyn Read));
    Run {
        code,
        document: serde_json::from_str(&out).expect("one document"),
        errors,
        peak_bytes,
    }
}

/// Inconclusive by memory, within a tenth of the limit, and said before the end.
fn keeps_to_it(run: &Run) {
    assert_eq!(run.code, Some(3), "{}", run.errors);
    assert_eq!(run.document["verdict"], "inconclusive");
    assert_eq!(run.document["limit"], "max-memory");
    assert!(
        run.peak_bytes <= LIMIT_BYTES / 10 * 11,
        "{} of {LIMIT_BYTES} bytes",
        run.peak_bytes
    );
    assert!(
        run.peak_bytes >= LIMIT_BYTES / 2,
        "{} of {LIMIT_BYTES} bytes: it gave up early",
        run.peak_bytes
    );
    let states = run.document["states"].as_u64().expect("a count");
    let note = run.errors.strip_prefix("note: kernel-docs-large: ");
    let said: u64 = note
        .and_then(|note| note.split_once(" states so far"))
        .and_then(|(number, _)| number.replace(',', "").parse().ok())
        .unwrap_or_else(|| panic!("a note: {}", run.errors));
    assert!(said < states / 2, "said after {said} of {states}");
    assert_eq!(run.errors.lines().count(), 1, "once: {}", run.errors);
}

#[test]
fn a_search_keeps_to_its_memory_on_one_thread_and_on_four() {
    for threads in ["1", "4"] {
        keeps_to_it(&check(&["--threads", threads]));
    }
}

#[test]
fn a_search_that_leaves_nothing_out_keeps_to_its_memory() {
    keeps_to_it(&check(&["--no-reduction", "--threads", "4"]));
}

#[test]
fn a_search_for_cycles_keeps_to_its_memory() {
    keeps_to_it(&check(&["--liveness"]));
}

/// The way to a counterexample is a search of its own, and so is making it short.
#[test]
fn a_search_for_a_counterexample_keeps_to_its_memory() {
    let scenario = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/bad_input/memory-of-the-counterexample.toml"
    );
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().to_str().expect("a path in UTF-8");
    for threads in ["1", "2"] {
        // The verdict has room, the counterexample not much more.
        let run = run(
            scenario,
            "160M",
            &["--threads", threads, "--trace-dir", dir],
        );
        assert_eq!(run.code, Some(0), "{}", run.errors);
        assert_eq!(run.document["verdict"], "violated");
        assert!(
            run.peak_bytes <= (160 << 20) / 10 * 11,
            "{} bytes of 160 MiB",
            run.peak_bytes
        );
    }
}
