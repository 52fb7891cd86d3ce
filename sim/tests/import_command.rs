//! `dirtysim import` as a command: its exit codes, and what it does where it cannot go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/import")
}

fn dirtysim(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .current_dir(dir)
        .args(args)
        .output()
        .expect("the binary runs")
}

#[test]
fn an_import_with_a_defect_says_so_with_its_exit_code() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = examples().join("defect-index-jump.log");
    let log = log.to_str().expect("a path");
    let output = dirtysim(dir.path(), &["import", log, "-o", "trace.jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.ends_with("the contract of KVM's rings was broken: 1 defect (exit code 1)\n"),
        "{text}"
    );
    // The trace is there all the same, and says the same.
    let replay = dirtysim(dir.path(), &["replay", "trace.jsonl"]);
    assert_eq!(replay.status.code(), Some(1));
    let output = dirtysim(dir.path(), &["import", log, "-o", "trace.jsonl", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(document["verdict"], "violated");
    assert_eq!(document["check"]["weights"]["defect"], 1);
    // To standard output goes the trace, and nothing else.
    let output = dirtysim(dir.path(), &["import", log]);
    assert_eq!(output.status.code(), Some(1));
    let trace = fs::read(dir.path().join("trace.jsonl")).expect("a trace");
    assert_eq!(output.stdout, trace);
}

#[test]
fn nothing_is_written_over_what_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = |name: &str| dir.path().join(name);
    let log = fs::read(examples().join("ftrace.log")).expect("a log");
    let raw = fs::read(examples().join("../kernel/x86-linux-6.18.44.raw.jsonl")).expect("one");
    let schedule = fs::read(examples().join("../bugs/c01.trace.jsonl")).expect("a trace");
    fs::write(place("log"), &log).expect("it can be written");
    fs::write(place("raw"), &raw).expect("it can be written");
    fs::write(place("trace"), &schedule).expect("it can be written");
    fs::hard_link(place("log"), place("other-name")).expect("a link");
    for (args, file, content) in [
        (&["import", "log", "-o", "./log"][..], "log", &log),
        (&["import", "log", "-o", "other-name"], "log", &log),
        (&["import", "raw", "-o", "raw"], "raw", &raw),
        (&["shrink", "trace", "-o", "trace"], "trace", &schedule),
        (&["explain", "trace", "-o", "trace"], "trace", &schedule),
    ] {
        let output = dirtysim(dir.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("it is the file that is read"), "{error}");
        assert_eq!(&fs::read(place(file)).expect(file), content, "{args:?}");
    }
}

/// Sends SIGINT, once, and gives what became of the command.
#[cfg(target_os = "linux")]
fn interrupted(dir: &Path, kind: &str, text: &[u8]) -> Output {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .current_dir(dir)
        .args([
            "import",
            "/dev/stdin",
            "--from",
            kind,
            "--json",
            "-o",
            "out",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut pipe = child.stdin.take().expect("a pipe");
    // More than a pipe holds, so that it is reading by then.
    for _ in 0..200_000 / text.len() {
        pipe.write_all(text).expect("it reads");
    }
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.expect("kill runs").success());
    // The pipe stays open: nothing else ends the command.
    let output = child.wait_with_output().expect("it ends");
    drop(pipe);
    output
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupt_ends_an_import_that_waits_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = fs::read(examples().join("ftrace.log")).expect("a log");
    // Lines that go on, as far as anybody can tell.
    for (kind, text) in [("ftrace", log), ("kvm-jsonl", vec![b' '; 1000])] {
        let output = interrupted(dir.path(), kind, &text);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
        assert_eq!(document["verdict"], "inconclusive", "{kind}");
        assert_eq!(document["limit"], "interrupted", "{kind}");
        assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 0);
    }
}
