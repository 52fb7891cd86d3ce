//! `dirtysim report`, and mails that carry a scenario and its schedule: what is written is read again.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dirtysim::scenario::{Scenario, about_liveness, builtins, mutation_scenarios};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn dirtysim(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .current_dir(dir)
        .args(arguments)
        .output()
        .expect("the binary runs")
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(text).expect("it speaks UTF-8")
}

/// A mail as it comes back from a list, and a word in front.
fn quoted(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("> {line}\n")).collect();
    format!("On Monday somebody wrote:\n{lines}\nI see it too.\n")
}

#[test]
fn every_scenario_goes_through_a_mail_unchanged() {
    let all = builtins()
        .into_iter()
        .chain(about_liveness())
        .chain(mutation_scenarios());
    for scenario in all {
        let text = dirtysim::scenario::enclosed::write_scenario(&scenario.source, None);
        for line in text.lines() {
            assert!(
                line.len() <= 72 && line.is_ascii(),
                "{}: {line}",
                scenario.name
            );
        }
        let found = dirtysim::scenario::enclosed::scenario(&text).expect("it is there");
        let again = Scenario::from_toml("mail.txt", &found)
            .unwrap_or_else(|error| panic!("{}: {error}\n{found}", scenario.name));
        assert_eq!(again.source, scenario.source, "{}", scenario.name);
    }
}

#[test]
fn a_report_on_a_loss_is_checked_with_nothing_but_the_mail() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = dirtysim(dir.path(), &["report", "reset-signal", "-o", "mail.txt"]);
    assert!(output.status.success(), "{}", said(&output));
    let mail = std::fs::read_to_string(dir.path().join("mail.txt")).expect("written");
    assert!(
        mail.is_ascii() && mail.lines().all(|line| line.len() <= 72),
        "{mail}"
    );
    assert!(!mail.contains("target/"), "{mail}");
    for wanted in [
        "violated (no_dirty_page_lost), as expected",
        "machine:",
        "exhausted",
        "What happens",
        "dirtysim replay mail.txt",
    ] {
        assert!(mail.contains(wanted), "{wanted}: {mail}");
    }
    for text in [mail.clone(), quoted(&mail)] {
        std::fs::write(dir.path().join("mail.txt"), text).expect("written");
        for command in ["check", "replay"] {
            let output = dirtysim(dir.path(), &[command, "mail.txt"]);
            assert!(output.status.success(), "{command}: {}", said(&output));
            assert!(said(&output).contains("violated (no_dirty_page_lost), as expected"));
        }
        let output = dirtysim(dir.path(), &["explain", "mail.txt"]);
        assert!(
            said(&output).contains("the write that is lost"),
            "{}",
            said(&output)
        );
    }
}

#[test]
fn what_holds_is_reported_too_and_in_every_form() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = dirtysim(dir.path(), &["report", "x86-pml-enabled-late"]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(
        text.starts_with("x86-pml-enabled-late: holds, as expected\n====="),
        "{text}"
    );
    assert!(text.contains("never seen on a kernel"), "{text}");
    let output = dirtysim(
        dir.path(),
        &["report", "x86-pml-enabled-late", "--format", "md"],
    );
    assert!(
        said(&output).contains("## To check this"),
        "{}",
        said(&output)
    );
    let output = dirtysim(
        dir.path(),
        &["report", "x86-pml-enabled-late", "--format", "html"],
    );
    assert!(
        said(&output).contains("<h2>To check this</h2>"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_story_for_a_list_carries_scenario_and_schedule() {
    let dir = tempfile::tempdir().expect("a directory");
    let trace = root().join("traces/bugs/k23.trace.jsonl");
    let trace = trace.to_str().expect("a path");
    for command in [
        &["explain", trace, "--format", "lkml", "-o", "mail.txt"][..],
        &["report", trace, "-o", "mail.txt"],
    ] {
        let output = dirtysim(dir.path(), command);
        assert!(output.status.success(), "{}", said(&output));
        let mail = std::fs::read_to_string(dir.path().join("mail.txt")).expect("written");
        assert!(!mail.contains("traces/bugs"), "{mail}");
        let output = dirtysim(dir.path(), &["replay", "mail.txt"]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains("violated (no_spurious_dirty_page), as expected"));
    }
    // What was changed on the way is told with its line.
    let mail = std::fs::read_to_string(dir.path().join("mail.txt")).expect("written");
    let wrong = mail.replace("thread0: slot-enter", "thread0 slot-enter");
    std::fs::write(dir.path().join("mail.txt"), &wrong).expect("written");
    let output = dirtysim(dir.path(), &["replay", "mail.txt"]);
    assert_eq!(output.status.code(), Some(2));
    let line = wrong
        .lines()
        .position(|line| line.starts_with("thread0 slot-enter"))
        .expect("it is there")
        + 1;
    assert!(
        said(&output).contains(&format!("mail.txt:{line}: ")),
        "{}",
        said(&output)
    );
    let wrong = mail.replace("vcpus = 1", "vcpus = \"one\"");
    std::fs::write(dir.path().join("mail.txt"), &wrong).expect("written");
    let output = dirtysim(dir.path(), &["check", "mail.txt"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("vcpus = \"one\""),
        "{}",
        said(&output)
    );
}

#[test]
fn a_log_is_reported_with_what_is_not_known() {
    let log = "traces/import/defect-unread-entry.log";
    let output = dirtysim(&root(), &["report", log]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for wanted in [
        "defect-unread-entry.log: the ring's contract was broken",
        "What is not known",
        "pushed on line 21",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(!text.contains("/tmp"), "{text}");
    let output = dirtysim(&root(), &["report", "nowhere.toml"]);
    assert_eq!(output.status.code(), Some(2));
}
