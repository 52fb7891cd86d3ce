//! The claims by which a scenario chooses to be judged: what the verdict says of them, and that every command keeps to them.

use std::path::Path;
use std::process::{Command, Output};

use dirtysim::scenario::Scenario;
use serde_json::Value;

/// A device's transfer is in no log; the VMM stores to that page itself later on, and logs that. On the way nobody accounts for the
/// page, at the end nothing is lost.
const STORED_LATER: &str = r#"
name = "stored-later"
sentence = "A page that nobody logs is stored to again, and logged."
CLAIMS
[machine]
arch = "arm64"
vcpus = 1
pages = 2

[writers]
vcpu = { stores = 1, pages = [0] }
devices = [{ name = "disk", transfers = 1, pages = [1], log = "none" }]

[protocol]
steps = [
  "enable-logging", "copy-all", "get-dirty-log", "copy",
  "pause-vcpus", "drain-devices", { step = "vmm-write", page = 1 }, "get-dirty-log", "vmm-log-sync", "copy", "finish",
]
"#;

fn write(directory: &Path, name: &str, claims: &str) {
    let text = STORED_LATER.replace("CLAIMS", claims);
    std::fs::write(directory.join(name), text).expect("written");
}

fn dirtysim(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .args(args)
        .current_dir(directory)
        .output()
        .expect("the binary runs")
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("one document")
}

/// What reading the scenario complains of.
fn refused(claims: &str) -> String {
    let text = STORED_LATER.replace("CLAIMS", claims);
    let error = Scenario::from_toml("stored-later.toml", &text).expect_err("it is refused");
    error.to_string()
}

#[test]
fn what_is_not_chosen_is_not_judged_and_the_verdict_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    write(at, "all.toml", "");
    write(at, "end.toml", "claims = []");
    let all = dirtysim(at, &["check", "all.toml", "--json"]);
    assert_eq!(all.status.code(), Some(1));
    let all = document(&all);
    assert_eq!(all["invariant"], "stale_page_is_accounted_for");
    assert_eq!(all.get("claims"), None);
    for reduction in ["--threads=1", "--no-reduction"] {
        let end = dirtysim(at, &["check", "end.toml", reduction, "--json"]);
        assert_eq!(end.status.code(), Some(0), "{reduction}");
        assert_eq!(
            document(&end)["claims"],
            serde_json::json!(["no_dirty_page_lost"])
        );
    }
    for command in ["check", "run"] {
        let end = text(&dirtysim(at, &[command, "end.toml"]));
        assert!(end.contains("judged by: no_dirty_page_lost\n"), "{end}");
    }
}

#[test]
fn a_trace_carries_the_choice_to_every_command() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    // The sync that would find the page comes too early: it is lost at the end, and forgotten on the way before.
    let early = STORED_LATER
        .replace(
            "{ step = \"vmm-write\", page = 1 }, \"get-dirty-log\", \"vmm-log-sync\",",
            "\"get-dirty-log\",",
        )
        .replace(
            "CLAIMS",
            "claims = [\"no_dirty_page_lost\"]\nexpect = { violated = \"no_dirty_page_lost\" }",
        );
    std::fs::write(at.join("early.toml"), early).expect("written");
    let run = dirtysim(at, &["run", "early.toml", "--trace-dir", "."]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run));
    let trace = "stored-later.trace.jsonl";
    let written = std::fs::read_to_string(at.join(trace)).expect("it is there");
    assert!(
        !written.contains("stale_page_is_accounted_for"),
        "{written}"
    );
    let replay = document(&dirtysim(at, &["replay", trace, "--json"]));
    assert_eq!(replay["invariant"], "no_dirty_page_lost");
    assert_eq!(replay["divergences"], 0);
    let shrunk = document(&dirtysim(
        at,
        &["shrink", trace, "-o", "short.jsonl", "--json"],
    ));
    assert_eq!(shrunk["invariant"], "no_dirty_page_lost");
    let chosen = serde_json::json!(["no_dirty_page_lost"]);
    assert_eq!((&replay["claims"], &shrunk["claims"]), (&chosen, &chosen));
    for format in ["text", "lkml"] {
        let story = text(&dirtysim(
            at,
            &["explain", "short.jsonl", "--format", format],
        ));
        assert!(story.contains("judged by:"), "{story}");
        assert!(story.contains("no_dirty_page_lost"), "{story}");
    }
}

#[test]
fn a_choice_that_contradicts_itself_is_refused() {
    let unknown = refused("claims = [\"no_dirty_page_losst\"]");
    assert!(
        unknown.contains("unknown claim `no_dirty_page_losst`"),
        "{unknown}"
    );
    assert!(
        unknown.contains("did you mean `no_dirty_page_lost`?"),
        "{unknown}"
    );
    assert!(
        unknown.contains("ring_never_overflows"),
        "it lists them: {unknown}"
    );
    assert!(unknown.contains("stored-later.toml:4:"), "{unknown}");
    for (claims, names) in [
        ("claims = \"all\"", "write an array"),
        (
            "claims = []\nexpect = { violated = \"nothing_crashes\" }",
            "`expect` is about `nothing_crashes`",
        ),
        ("claims = []\nliveness = \"holds\"", "`liveness` is about"),
        (
            "claims = []\ncheck_spurious = true",
            "`check_spurious` is about",
        ),
        (
            "claims = [\"no_spurious_dirty_page\"]",
            "write check_spurious = true too",
        ),
    ] {
        let error = refused(claims);
        assert!(error.contains(names), "{error}");
    }
}

#[test]
fn liveness_is_not_looked_for_where_it_is_not_chosen() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), "end.toml", "claims = []");
    let output = dirtysim(directory.path(), &["check", "end.toml", "--liveness"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        error.contains("`migration_makes_progress`, which its `claims` leaves out"),
        "{error}"
    );
}
