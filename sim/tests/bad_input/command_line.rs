//! The program with inputs that are no files, and outputs that cannot be written.

use std::fs;

use serde_json::Value;

use super::{complaint, dirtysim, interrupt, ran};

const NAMES_AN_ESCAPE: &str = include_str!("escape-sequence.toml");

/// A scenario that loses a page, with `more` at its top.
fn lossy(more: &str) -> String {
    format!(
        "name = \"lossy\"\n{more}\n[machine]\narch = \"arm64\"\npages = 2\n[writers]\nvcpu = {{ stores = 2 }}\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", \"finish\"]\n"
    )
}

#[test]
fn what_a_file_says_reaches_no_terminal_as_an_escape() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path();
    fs::write(at.join("bad.toml"), NAMES_AN_ESCAPE).expect("written");
    fs::write(
        at.join("sentence.toml"),
        lossy("sentence = \"red: \\u001b[31m, \\u009b31m, \\u202e\""),
    )
    .expect("written");
    let (code, output) = ran(at, &["check", "bad.toml"]);
    assert_eq!(code, 2);
    let said = complaint(&output);
    assert!(!said.contains('\u{1b}') && said.contains("zz"), "{said:?}");
    let (code, output) = ran(at, &["check", "sentence.toml"]);
    assert_eq!(code, 1);
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(
        said.contains("red: \\u{1b}[31m, \\u{9b}31m, \\u{202e}"),
        "{said:?}"
    );
    let trace = "target/dirtysim/lossy.check.trace.jsonl";
    for format in ["text", "lkml", "html"] {
        let (code, output) = ran(at, &["explain", trace, "--format", format]);
        assert_eq!(code, 0, "{}", complaint(&output));
        assert!(!output.stdout.contains(&0x1b), "{format}");
    }
    // What is asked for as a file is that file.
    let (code, output) = ran(at, &["shrink", trace]);
    assert_eq!(code, 0, "{}", complaint(&output));
    for line in output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        serde_json::from_slice::<Value>(line).expect("a line of JSON");
    }
}

#[test]
fn inputs_that_are_no_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path();
    fs::write(at.join("pages"), "ram:0\n").expect("written");
    fs::create_dir(at.join("it.toml")).expect("made");
    let commands: [&[&str]; 8] = [
        &["check", "/dev/zero"],
        &["run", "/dev/zero"],
        &["orders", "/dev/zero"],
        &["check", "it.toml"],
        &["replay", "/dev/zero"],
        &["explain", "/dev/zero"],
        &["blame", "/dev/zero", "--pages", "pages"],
        &["blame", "kernel-docs", "--pages", "/dev/zero"],
    ];
    for args in commands {
        let (code, output) = ran(at, args);
        assert_eq!(code, 2, "{args:?}: {}", complaint(&output));
        assert!(complaint(&output).starts_with("error: "), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn outputs_that_cannot_be_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path();
    fs::write(at.join("lossy.toml"), lossy("")).expect("written");
    let full = || {
        fs::File::options()
            .write(true)
            .open("/dev/full")
            .expect("it is there")
    };
    let code = |args: &[&str], out: bool, err: bool| {
        let mut command = dirtysim(at, args);
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        if out {
            command.stdout(full());
        }
        if err {
            command.stderr(full());
        }
        command
            .status()
            .expect("the binary runs")
            .code()
            .expect("no signal ended it")
    };
    assert_eq!(code(&["check", "lossy.toml"], false, true), 1);
    assert_eq!(code(&["check", "lossy.toml"], true, false), 2);
    assert_eq!(code(&["check", "lossy.toml"], true, true), 2);
    assert_eq!(code(&["check", "none.toml"], false, true), 2);
    assert_eq!(
        code(
            &["shrink", "target/dirtysim/lossy.check.trace.jsonl"],
            false,
            true
        ),
        0
    );
}

#[test]
fn a_verdict_is_told_though_its_trace_cannot_be_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path();
    fs::write(at.join("lossy.toml"), lossy("")).expect("written");
    let orders = lossy("").replace(
        "\"finish\"",
        "\"pause-vcpus\", \"get-dirty-log\", \"copy\", \"finish\"",
    );
    fs::write(at.join("orders.toml"), orders).expect("written");
    fs::write(at.join("taken"), "").expect("written");
    for args in [
        &["check", "lossy.toml"][..],
        &["run", "lossy.toml", "--seeds", "0..100"],
        &["check", "--liveness", "ring-full-polled"],
        &["bugs", "C01"],
        &["orders", "orders.toml"],
    ] {
        let mut args = args.to_vec();
        args.extend(["--trace-dir", "taken", "--json"]);
        let (code, output) = ran(at, &args);
        assert_eq!(code, 2, "{args:?}: {}", complaint(&output));
        let said = complaint(&output);
        assert!(said.starts_with("error: taken"), "{args:?}: {said}");
        let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
        assert!(document["verdict"].is_string(), "{args:?}: {document}");
        assert!(
            document.to_string().contains("trace_error"),
            "{args:?}: {document}"
        );
    }
}

#[test]
fn one_trace_that_cannot_be_read_takes_nothing_from_the_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path();
    fs::write(at.join("lossy.toml"), lossy("")).expect("written");
    ran(at, &["check", "lossy.toml"]);
    let trace = "target/dirtysim/lossy.check.trace.jsonl";
    let (code, output) = ran(at, &["replay", trace, "none.jsonl", trace]);
    assert_eq!(code, 2);
    let said = String::from_utf8(output.stdout.clone()).expect("text");
    assert_eq!(said.matches("violated").count(), 2, "{said}");
    assert!(complaint(&output).starts_with("error: none.jsonl"));
}

#[cfg(unix)]
#[test]
fn an_interrupt_claims_nothing_that_was_not_done() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path();
    fs::write(at.join("pages"), "ram:0\n").expect("written");
    let seeds = "0..1000000000";
    fs::write(at.join("wide.toml"), include_str!("wide.toml")).expect("written");
    let commands: [&[&str]; 11] = [
        &["blame", "kernel-docs", "--pages", "pages", "--seeds", seeds],
        &["run", "kernel-docs", "bitmap-last-clear", "--seeds", seeds],
        &["debate", "-o", "page"],
        &["bugs"],
        &["bugs", "--statistics"],
        &["check", "wide.toml"],
        &["check", "wide.toml", "--liveness"],
        // A trace whose end never comes.
        &["replay", "/dev/stdin"],
        &["explain", "/dev/stdin", "-o", "page"],
        &["shrink", "/dev/stdin", "-o", "page"],
        &["blame", "/dev/stdin", "--pages", "pages"],
    ];
    for args in commands {
        let mut child = dirtysim(at, args)
            .arg("--json")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the binary runs");
        // It is not closed before the child has ended.
        let stdin = child.stdin.take();
        std::thread::sleep(std::time::Duration::from_millis(1500));
        interrupt(&child);
        let begun = std::time::Instant::now();
        let output = child.wait_with_output().expect("it ends");
        drop(stdin);
        assert!(
            begun.elapsed().as_secs() < 60,
            "{args:?}: {:?}",
            begun.elapsed()
        );
        assert_eq!(
            output.status.code(),
            Some(3),
            "{args:?}: {}",
            complaint(&output)
        );
        let document = String::from_utf8(output.stdout).expect("text");
        assert!(document.contains("interrupt"), "{args:?}: {document}");
        assert!(
            !document.contains(&format!("\"{seeds}\"")) || args[0] == "run",
            "{document}"
        );
        assert!(!at.join("page").exists());
    }
}

#[test]
fn what_a_log_says_reaches_no_terminal_as_an_escape() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path();
    let line = "  li\u{7f}\u{9b}e-4250    [001] .....   101.000092: kvm_dirty_ring_reset: ring 1: dirty 0x2 reset 0x2 (used 0)\n";
    fs::write(at.join("it.log"), line).expect("written");
    let imported = ran(at, &["import", "it.log", "--from", "ftrace"]).1.stdout;
    let said = String::from_utf8(imported).expect("text");
    assert!(said.contains("li\\u007f\\u009be"), "{said}");
    // In a file it stands as it was, and means the same.
    ran(
        at,
        &[
            "import",
            "it.log",
            "--from",
            "ftrace",
            "-o",
            "it.trace.jsonl",
        ],
    );
    let rows = |text: &str| -> Vec<serde_json::Value> {
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let written = fs::read_to_string(at.join("it.trace.jsonl")).expect("written");
    assert_eq!(rows(&said)[1..], rows(&written)[1..]);
}
