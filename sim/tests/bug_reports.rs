//! From a failing run to a mail, on the command line: shrink, explain, blame.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn dirtysim(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .current_dir(dir)
        .args(args)
        .output()
        .expect("the binary runs")
}

fn done(output: &Output) -> String {
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn document(output: &Output) -> Value {
    serde_json::from_str(&done(output)).expect("one document")
}

/// A directory with the trace of a failing run.
fn failing() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let run = dirtysim(dir.path(), &["run", "reset-signal", "--trace-dir", "."]);
    assert!(done(&run).contains("violated"));
    dir
}

const TRACE: &str = "reset-signal.trace.jsonl";

#[test]
fn a_failing_run_becomes_a_short_trace_a_mail_a_page_and_a_cause() {
    let dir = failing();
    let dir = dir.path();
    let shrunk = document(&dirtysim(
        dir,
        &["shrink", TRACE, "-o", "short.jsonl", "--json"],
    ));
    assert_eq!(shrunk["shortest"], true);
    assert_eq!(shrunk["invariant"], "no_dirty_page_lost");
    // What `run` leaves is shrunk already; it must not grow.
    assert!(shrunk["steps"].as_u64() <= shrunk["steps_before"].as_u64());
    let replay = document(&dirtysim(dir, &["replay", "short.jsonl", "--json"]));
    assert_eq!(replay["as_expected"], true);
    assert_eq!(replay["blocks"], shrunk["blocks"]);
    // The same again, and the same through a pipe.
    let again = done(&dirtysim(dir, &["shrink", "short.jsonl"]));
    assert_eq!(
        again,
        std::fs::read_to_string(dir.join("short.jsonl")).expect("it is there")
    );

    let mail = done(&dirtysim(
        dir,
        &["explain", "short.jsonl", "--format", "lkml"],
    ));
    assert!(mail.lines().all(|line| line.len() <= 72));
    // What its reader saves is enough.
    std::fs::write(dir.join("mail.txt"), &mail).expect("it can be written");
    let command = mail
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("dirtysim "))
        .expect("a command that reproduces it");
    let words: Vec<&str> = command.split_whitespace().skip(1).collect();
    let again = done(&dirtysim(dir, &words));
    assert!(again.contains("violated (no_dirty_page_lost"), "{again}");

    let page = document(&dirtysim(
        dir,
        &[
            "explain",
            "short.jsonl",
            "--format",
            "html",
            "-o",
            "story.html",
            "--json",
        ],
    ));
    assert_eq!(page["page"], "ram:0");
    assert!(page["dropped_step"].as_u64() < page["written_step"].as_u64());
    let html = std::fs::read_to_string(dir.join("story.html")).expect("it is there");
    assert!(html.starts_with("<!doctype html>"));

    std::fs::write(dir.join("pages"), "ram:0\n").expect("it can be written");
    let blame = document(&dirtysim(
        dir,
        &["blame", "short.jsonl", "--pages", "pages", "--json"],
    ));
    assert_eq!(blame["unchanged"]["exact"], true);
    assert!(
        done(&dirtysim(
            dir,
            &["blame", "short.jsonl", "--pages", "pages"]
        ))
        .contains("own order")
    );
}

#[test]
fn bad_input_is_refused_and_leaves_nothing_behind() {
    let dir = failing();
    let dir = dir.path();
    std::fs::write(dir.join("pages"), "ram:9\n").expect("it can be written");
    std::fs::write(
        dir.join("cut.jsonl"),
        "{\"format\":\"dirtysim-trace\",\"ver",
    )
    .expect("written");
    let before = std::fs::read_dir(dir).expect("a directory").count();
    for (args, wanted) in [
        (&["shrink", "missing.jsonl"][..], "missing.jsonl"),
        (&["shrink", "cut.jsonl", "-o", "out"], "cut.jsonl:1"),
        (&["explain", "cut.jsonl", "-o", "out"], "cut.jsonl:1"),
        (
            &["blame", TRACE, "--pages", "pages"],
            "pages:1: ram has no page 9",
        ),
        (&["blame", TRACE, "--pages", "none"], "none: cannot read"),
        (&["shrink", TRACE, "--json"], "--json needs -o"),
        (&["explain", TRACE, "--json"], "--json needs -o"),
        (
            &["explain", TRACE, "-o", "no/such/dir"],
            "cannot be written",
        ),
    ] {
        let output = dirtysim(dir, args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(wanted), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    assert_eq!(std::fs::read_dir(dir).expect("a directory").count(), before);
}

#[test]
fn a_trace_that_breaks_nothing_cannot_be_shrunk() {
    let dir = failing();
    let dir = dir.path();
    let text = std::fs::read_to_string(dir.join(TRACE)).expect("it is there");
    let few: Vec<&str> = text.lines().take(4).collect();
    std::fs::write(dir.join("few.jsonl"), format!("{}\n", few.join("\n"))).expect("written");
    let output = dirtysim(dir, &["shrink", "few.jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("breaks no claim"));
    let story = done(&dirtysim(dir, &["explain", "few.jsonl"]));
    assert!(story.contains("No claim is broken."));
}

/// The fenced blocks of the last section of docs/bug-reports.md: language and text.
fn blocks_of_the_documentation() -> Vec<(String, String)> {
    let page = include_str!("../../docs/bug-reports.md");
    let (_, section) = page
        .split_once("## From \"memory differs after migration\"")
        .expect("the section is there");
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in section
        .lines()
        .map(|line| line.strip_prefix("   ").unwrap_or(line))
    {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => open = Some((language.to_owned(), String::new())),
            (None, Some((_, text))) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

#[cfg(unix)]
#[test]
fn the_documentation_can_be_typed_as_it_stands() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = include_str!("../../traces/import/ftrace.log");
    std::fs::write(dir.path().join("kernel.log"), log).expect("it can be written");
    let bin = Path::new(env!("CARGO_BIN_EXE_dirtysim"))
        .parent()
        .expect("a directory");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut commands = 0;
    for (language, text) in blocks_of_the_documentation() {
        if language == "toml" {
            std::fs::write(dir.path().join("my.toml"), text).expect("it can be written");
            continue;
        }
        assert_eq!(language, "sh", "{text}");
        let output = Command::new("sh")
            .args(["-e", "-c", &text])
            .env("PATH", format!("{}:{path}", bin.display()))
            .current_dir(dir.path())
            .output()
            .expect("a shell");
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}{said}{complained}");
        commands += text.matches("dirtysim ").count();
        for (command, answer) in [
            ("check my.toml", "violated (no_dirty_page_lost)"),
            ("check mended.toml", "holds"),
            ("explain short.jsonl\n", "ram:"),
            ("blame mended.toml", "exact"),
            ("--mutate", "violated"),
            ("replay bug.jsonl", "consistent"),
        ] {
            assert!(
                !text.contains(command) || said.contains(answer),
                "{text}{said}"
            );
        }
    }
    assert!(commands >= 10, "{commands}");
    for left in [
        "short.jsonl",
        "mail.txt",
        "story.html",
        "story.json",
        "bug.jsonl",
    ] {
        assert!(dir.path().join(left).exists(), "{left}");
    }
}
