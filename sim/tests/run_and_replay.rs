//! The main job as a user runs it: `dirtysim run`, the traces it leaves, `dirtysim replay` of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn dirtysim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .args(args)
        .output()
        .expect("the binary runs")
}

/// The document, without the one key that may differ between two runs.
fn document(output: &Output) -> Value {
    let mut value: Value =
        serde_json::from_slice(&output.stdout).expect("one JSON document on standard output");
    forget_times(&mut value);
    value
}

fn forget_times(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.shift_remove("elapsed_s");
            map.values_mut().for_each(forget_times);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_times),
        _ => {}
    }
}

fn traces(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("the trace directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

fn run_builtins(dir: &Path, threads: &str) -> Output {
    let dir = dir.to_str().expect("a path in UTF-8");
    dirtysim(&[
        "run",
        "--seeds",
        "0..12000",
        "--threads",
        threads,
        "--trace-dir",
        dir,
        "--json",
    ])
}

#[test]
fn every_built_in_scenario_has_its_verdict_and_its_trace_replays_to_the_same_violation() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = run_builtins(dir.path(), "2");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let document = document(&output);
    assert_eq!(document["command"], "run");
    assert_eq!(
        document["verdict"], "violated",
        "the worst of the built-in ones"
    );
    assert_eq!(document["as_expected"], true);
    let results = document["results"].as_array().expect("results");
    let violated: Vec<&Value> = results
        .iter()
        .filter(|result| result["verdict"] == "violated")
        .collect();
    assert!(
        results.len() >= 11 && violated.len() >= 5,
        "{} scenarios, {} violated",
        results.len(),
        violated.len()
    );
    for result in &violated {
        let trace = result["trace"].as_str().expect("a path");
        let replay = dirtysim(&["replay", trace, "--json"]);
        assert_eq!(replay.status.code(), Some(0), "{trace}");
        let replayed = self::document(&replay);
        assert_eq!(replayed["invariant"], result["invariant"], "{trace}");
        assert_eq!(
            replayed["divergences"], 0,
            "{trace}: every line as the model writes it"
        );
        assert_eq!(replayed["compared"], replayed["steps"], "{trace}");
        // An overflow is about a ring.
        let about_a_page = result["invariant"] != "ring_never_overflows";
        assert_eq!(
            replayed["page"].is_string(),
            about_a_page,
            "{trace} names the page"
        );
    }
    for result in results.iter().filter(|result| result["verdict"] == "holds") {
        assert_eq!(result["coverage"], "sampled");
        assert!(
            result["schedules"].as_u64() == Some(12000) && result["steps"].as_u64() > Some(0),
            "{result}"
        );
    }
}

#[test]
fn one_thread_and_two_give_the_same_document_and_the_same_bytes() {
    let (one, two) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let first = run_builtins(one.path(), "1");
    let second = run_builtins(two.path(), "2");
    let text = |output: &Output, dir: &Path| {
        document(output)
            .to_string()
            .replace(dir.to_str().expect("UTF-8"), "DIR")
    };
    assert_eq!(text(&first, one.path()), text(&second, two.path()));
    let (left, right) = (traces(one.path()), traces(two.path()));
    assert!(!left.is_empty());
    assert_eq!(left.len(), right.len());
    for (left, right) in left.iter().zip(&right) {
        assert_eq!(left.file_name(), right.file_name());
        assert_eq!(
            std::fs::read(left).expect("a trace"),
            std::fs::read(right).expect("a trace"),
            "{}",
            left.display()
        );
    }
}

#[test]
fn without_its_expectation_a_violated_scenario_and_its_trace_exit_with_1() {
    let dir = tempfile::tempdir().expect("a directory");
    let trace_dir = dir.path().to_str().expect("UTF-8");
    let source = include_str!("../../check/scenarios/bitmap-before-its-save.toml");
    let without: String = source
        .lines()
        .filter(|line| !line.starts_with("expect"))
        .fold(String::new(), |text, line| text + line + "\n");
    let file = dir.path().join("scenario.toml");
    std::fs::write(&file, without).expect("a file");
    let run = dirtysim(&[
        "run",
        file.to_str().expect("UTF-8"),
        "--trace-dir",
        trace_dir,
        "--json",
    ]);
    assert_eq!(run.status.code(), Some(1));
    let document = document(&run);
    assert_eq!(document["expected"], "holds");
    assert_eq!(document["as_expected"], false);

    let trace = document["trace"].as_str().expect("a path").to_owned();
    assert_eq!(dirtysim(&["replay", &trace]).status.code(), Some(0));
    let text = std::fs::read_to_string(&trace).expect("a trace");
    let (header, rest) = text.split_once('\n').expect("a header");
    let mut header: Value = serde_json::from_str(header).expect("JSON");
    header
        .as_object_mut()
        .expect("an object")
        .shift_remove("expect");
    std::fs::write(&trace, format!("{header}\n{rest}")).expect("a file");
    assert_eq!(dirtysim(&["replay", &trace]).status.code(), Some(1));
}

#[test]
fn a_step_that_is_not_possible_names_the_possible_ones() {
    let dir = tempfile::tempdir().expect("a directory");
    let trace_dir = dir.path().to_str().expect("UTF-8");
    let run = dirtysim(&[
        "run",
        "ring-only-its-save",
        "--trace-dir",
        trace_dir,
        "--json",
    ]);
    let trace = document(&run)["trace"].as_str().expect("a path").to_owned();
    let text = std::fs::read_to_string(&trace).expect("a trace");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.insert(2, r#"{"who":"vcpu1","do":"push-flags","page":"ram:0"}"#);
    std::fs::write(&trace, lines.join("\n") + "\n").expect("a file");
    let replay = dirtysim(&["replay", &trace]);
    assert_eq!(replay.status.code(), Some(2));
    let message = String::from_utf8_lossy(&replay.stderr);
    assert!(
        message.contains(":3: not possible here: vcpu1 push-flags ram:0"),
        "{message}"
    );
    assert!(
        message.contains("possible: ") && message.contains("vcpu1 run"),
        "{message}"
    );
}

/// A scenario that is right but for one line, what is wrong with it, and what the message must say.
const WRONG: [(&str, &str, &str); 12] = [
    (
        "arch = \"arm64\"",
        "arch = \"arm46\"",
        "did you mean `arm64`?",
    ),
    (
        "arch = \"arm64\"",
        "arch = \"s390\"",
        "a dirty ring on s390",
    ),
    ("vcpus = 2", "vcpus = 0", "write an integer from 1 to 4"),
    (
        "pages = 4",
        "pages = 1152921504606846976",
        "write an integer from 1 to 64",
    ),
    (
        "ring = { entries = 4, reserved = 2 }",
        "ring = { entries = 3, reserved = 2 }",
        "write a power of two",
    ),
    (
        "ring = { entries = 4, reserved = 2 }",
        "ring = { entries = 4, reserve = 2 }",
        "did you mean `reserved`?",
    ),
    (
        "tables = [3]",
        "tables = [4]",
        "write an integer from 0 to 3",
    ),
    ("tables = [3]", "tables = [\"ram:9\"]", "outside every slot"),
    (
        "\"harvest-rings\"",
        "\"harvest-ring\"",
        "did you mean `harvest-rings`?",
    ),
    (
        "expect = \"holds\"",
        "expect = { violated = \"no_page_lost\" }",
        "unknown invariant `no_page_lost`",
    ),
    (
        "stores = 1",
        "stores = 1000000",
        "write an integer from 1 to 31",
    ),
    (
        "repeat = 1",
        "repeat = 1000000000000",
        "write an integer from 1 to 250",
    ),
];

#[test]
fn a_wrong_scenario_gets_file_line_column_and_help_and_leaves_nothing_behind() {
    let source = include_str!("../../check/scenarios/kernel-docs.toml");
    for (right, wrong, help) in WRONG {
        assert!(source.contains(right), "{right}");
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("wrong.toml");
        std::fs::write(&file, source.replace(right, wrong)).expect("a file");
        let out = dir.path().join("traces");
        let output = dirtysim(&[
            "run",
            file.to_str().expect("UTF-8"),
            "--trace-dir",
            out.to_str().expect("UTF-8"),
        ]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{wrong}: {message}");
        assert!(
            message.contains("wrong.toml:") && message.contains(help),
            "{wrong}: {message}"
        );
        // What contradicts another line is reported where it stands.
        let meant = if wrong.contains("s390") {
            "ring = {"
        } else {
            right
        };
        let line = source
            .lines()
            .position(|line| line.contains(meant))
            .expect("the line")
            + 1;
        assert!(
            message.contains(&format!("wrong.toml:{line}:")),
            "{wrong}: {message}"
        );
        assert!(
            output.stdout.is_empty() && !out.exists(),
            "{wrong}: nothing is written"
        );
    }
}

#[test]
fn files_that_are_no_scenarios_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("empty.toml", Vec::new(), "the file is empty"),
        (
            "binary.toml",
            vec![0xff, 0xfe, 0x00],
            "invalid UTF-8 at byte 0",
        ),
        ("cut.toml", b"name = \"x".to_vec(), "cut.toml:1:"),
        (
            "large.toml",
            vec![b'#'; 200 << 20],
            "a scenario has at most 1 MiB",
        ),
        (
            "deep.toml",
            ["x = ".to_owned(), "[".repeat(100_000)]
                .concat()
                .into_bytes(),
            "deep.toml:",
        ),
    ];
    for (name, bytes, help) in cases {
        let file = dir.path().join(name);
        std::fs::write(&file, bytes).expect("a file");
        let output = dirtysim(&["run", file.to_str().expect("UTF-8")]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {message}");
        assert!(message.contains(help), "{name}: {message}");
        assert!(message.len() < 4096, "{name}: a message is not the file");
    }
}

#[test]
fn seeds_that_are_no_range_are_refused() {
    for seeds in ["5", "5..5", "9..3", "a..b", "0..-1"] {
        let output = dirtysim(&["run", "kernel-docs", "--seeds", seeds]);
        assert_eq!(output.status.code(), Some(2), "{seeds}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("the end excluded"),
            "{seeds}"
        );
    }
}
