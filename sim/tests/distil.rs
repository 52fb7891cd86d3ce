//! From a log to a small scenario, and to what could have lost its pages; two orders side by side.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn dirtysim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .current_dir(root())
        .args(arguments)
        .output()
        .expect("the binary runs")
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(text).expect("it speaks UTF-8")
}

const LOG: &str = "traces/import/qemu-and-kernel.log";

#[test]
fn a_log_becomes_a_scenario_with_its_order_and_its_pages() {
    let dir = tempfile::tempdir().expect("a directory");
    let list = dir.path().join("differ.txt");
    std::fs::write(&list, "0x120\n0x121\n0x4ff\n").expect("written");
    let list = list.to_str().expect("a path");
    let output = dirtysim(&["distil", LOG, "--pages", list]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    for wanted in [
        "#   ram:0 stands for gfn 0x120",
        "#   ram:2 stands for every other page",
        "ring = { entries = 4, reserved = 2 }",
        "\"harvest-rings\", \"reset-rings\"",
        "\"pause-vcpus\", ",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    // It is one that `check` takes.
    let file = dir.path().join("distilled.toml");
    let file = file.to_str().expect("a path");
    let output = dirtysim(&["distil", LOG, "-o", file]);
    assert!(output.status.success(), "{}", said(&output));
    let output = dirtysim(&["run", file, "--seeds", "0..20"]);
    assert_ne!(output.status.code(), Some(2), "{}", said(&output));
    // A log in which nobody collects.
    let quiet = dir.path().join("quiet.log");
    std::fs::write(
        &quiet,
        "4240@1767225600.100014:kvm_set_user_memory Slot#1 flags=0x1 gpa=0x0 size=0x80000000 ua=0x7f6a3be00000 ret=0\n",
    )
    .expect("written");
    let output = dirtysim(&["distil", quiet.to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("nobody collects dirty pages in this log"),
        "{}",
        said(&output)
    );
    let output = dirtysim(&["distil", "README.md"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_log_is_blamed_by_its_own_order_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let list = dir.path().join("differ.txt");
    std::fs::write(&list, "0x122\n").expect("written");
    let list = list.to_str().expect("a path");
    let log = "traces/import/defect-unread-entry.log";
    let arguments = ["blame", log, "--pages", list, "--seeds", "0..20"];
    let output = dirtysim(&arguments);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("lost unless read otherwise"), "{text}");
    assert!(text.contains("ram:0 is gfn 0x122;"), "{text}");
    let output = dirtysim(&[&arguments[..], &["--json"]].concat());
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
    let candidates = document["candidates"].as_array().expect("a list");
    let kind = |index: usize| candidates[index]["kind"].as_str().expect("a kind");
    // Of those that explain the pages alike, what the VMM does comes before what a kernel does.
    let exact = candidates
        .iter()
        .take_while(|candidate| candidate["difference"] == candidates[0]["difference"])
        .count();
    let mutations: Vec<bool> = (0..exact).map(|n| kind(n) == "mutation").collect();
    assert!(mutations.is_sorted(), "{mutations:?}");
    assert!(
        candidates
            .iter()
            .any(|candidate| candidate["kind"] == "left-out"),
        "{text}"
    );
    assert!(
        candidates
            .iter()
            .any(|candidate| candidate["kind"] == "moved"),
        "{text}"
    );
}

/// Two orders: the guest is stopped and then the last bitmap is fetched, and the other way round.
fn order(name: &str, last: &str) -> String {
    format!(
        "name = \"{name}\"\n[machine]\narch = \"x86\"\nvcpus = 1\npages = 1\n[writers]\nvcpu = {{ stores = 1 }}\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", {last}, \"copy\", \"finish\"]\n"
    )
}

#[test]
fn two_orders_are_compared_machine_by_machine() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, last: &str| {
        let path = dir.path().join(format!("{name}.toml"));
        std::fs::write(&path, order(name, last)).expect("written");
        path.display().to_string()
    };
    let good = write("good", "\"pause-vcpus\", \"get-dirty-log\"");
    let bad = write("bad", "\"get-dirty-log\", \"pause-vcpus\"");
    let traces = dir.path().join("traces");
    let traces = traces.to_str().expect("a path");
    let over = "arch=x86+arm64,stores=1..2";
    let arguments = [
        "compare",
        &good,
        &bad,
        "--over",
        over,
        "--trace-dir",
        traces,
    ];
    let output = dirtysim(&arguments);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    let rows = |name: &str, verdict: &str| {
        let wanted = format!("  {name}");
        text.lines()
            .filter(|line| {
                line.starts_with("arch=") && line.contains(&wanted) && line.contains(verdict)
            })
            .count()
    };
    assert_eq!(rows("good", "holds"), 4, "{text}");
    assert_eq!(rows("bad", "violated (no_dirty_page_lost)"), 4, "{text}");
    assert!(
        text.contains("good holds; bad does not survive this schedule"),
        "{text}"
    );
    let output = dirtysim(&[&arguments[..], &["--json"]].concat());
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(document["results"].as_array().map(Vec::len), Some(8));
    for (over, wanted) in [
        ("arch", "write KEY=VALUES with one of arch, kernel"),
        ("colour=red", "write KEY=VALUES with one of arch, kernel"),
        ("stores=3..1", "a first and a last number"),
        ("stores=1..x", "`x` is no number"),
        ("arch=x86+", "an empty value"),
    ] {
        let output = dirtysim(&["compare", &good, &bad, "--over", over]);
        assert_eq!(output.status.code(), Some(2), "{over}");
        assert!(said(&output).contains(wanted), "{}", said(&output));
    }
    // A machine that there is not is a row that says so.
    let output = dirtysim(&[
        "compare",
        &good,
        &bad,
        "--over",
        "arch=vax",
        "--trace-dir",
        traces,
    ]);
    assert!(said(&output).contains("refused: "), "{}", said(&output));
}

#[test]
fn a_scenario_is_checked_on_many_machines_as_a_table_csv_and_a_plot() {
    let dir = tempfile::tempdir().expect("a directory");
    let over = |arguments: &[&str]| {
        let mut dirtysim = std::process::Command::new(env!("CARGO_BIN_EXE_dirtysim"));
        dirtysim
            .current_dir(dir.path())
            .args(["check", "ring-only-its-save"])
            .args(arguments);
        dirtysim_expected::said(&mut dirtysim)
    };
    let axes = "stores=1..2,pages=4+5,vcpus=1";
    let files = ["--csv", "it.csv", "--plot", "it.svg"];
    let (code, text, said) = over(&[&["--over", axes], &files[..]].concat());
    assert_eq!(code, Some(0), "{text}{said}");
    assert_eq!(
        text.matches("violated (no_dirty_page_lost)").count(),
        4,
        "{text}"
    );
    let csv = std::fs::read_to_string(dir.path().join("it.csv")).expect("a table");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 5, "{csv}");
    assert_eq!(
        lines[0],
        "stores,pages,vcpus,verdict,invariant,coverage,states,transitions,depth,refused"
    );
    assert!(
        lines[4].starts_with("2,5,1,violated,no_dirty_page_lost,exhausted,"),
        "{csv}"
    );
    let svg = std::fs::read_to_string(dir.path().join("it.svg")).expect("a drawing");
    assert!(
        svg.contains("pages=4 vcpus=1") && svg.contains("distinct states"),
        "{svg}"
    );
    // A machine on which it cannot be written is a row that says why.
    let (code, text, _) = over(&["--over", "arch=arm64+s390,vcpus=1"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("arch=s390") && text.contains("refused: "),
        "{text}"
    );
    // What a limit cut is no verdict.
    let (code, text, _) = over(&["--over", "vcpus=2..3", "--max-states", "50"]);
    assert_eq!(code, Some(3), "{text}");
    for (arguments, says) in [
        (
            &["--over", "arch=arm64+x86", "--plot", "no.svg"][..],
            "is no axis to draw along",
        ),
        (
            &["--over", "vcpus=1..2,stores=1..9", "--plot", "no.svg"],
            "9 lines",
        ),
        (&["--over", "vcpus=1..60,stores=1..9"], "540 machines"),
        (&["--over", "colour=red"], "write KEY=VALUES"),
        (
            &["kernel-docs", "--over", "vcpus=1..2"],
            "--over takes one scenario",
        ),
    ] {
        let (code, _, said) = over(arguments);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(says), "{said}");
        assert!(!dir.path().join("no.svg").exists());
    }
}
