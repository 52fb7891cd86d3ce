//! `dirtysim orders` as a user runs it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

fn dirtysim(args: &[&str], dir: &Path) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .args(args)
        .args(["--trace-dir", dir.to_str().expect("a path in UTF-8")])
        .output()
        .expect("the binary runs");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn document(args: &[&str], dir: &Path) -> Value {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let (code, out, err) = dirtysim(&args, dir);
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).expect("one document")
}

/// A scenario file of one vCPU, so that an order is checked in a moment.
fn file(dir: &Path, steps: &str) -> String {
    let text = format!(
        "name = \"small\"\n[machine]\narch = \"arm64\"\nvcpus = 1\npages = 3\nring = {{ entries = 4, reserved = 2 }}\nring_with_bitmap = true\n[writers]\nvcpu = {{ stores = 1 }}\nits_save = {{ tables = [2] }}\n[protocol]\nsteps = [{steps}]\n"
    );
    let path = dir.join("small.toml");
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("a path in UTF-8").to_owned()
}

const KERNEL_DOCS: &str = "\"enable-logging\", \"copy-all\", { repeat = 1, steps = [\"harvest-rings\", \"reset-rings\", \"copy\"] }, \"pause-vcpus\", \"its-save-tables\", \"harvest-rings\", \"get-dirty-log\", \"copy\", \"finish\"";

#[test]
fn the_kernel_documentations_last_steps_have_three_constraints_each_with_a_trace_that_replays() {
    let dir = tempfile::tempdir().expect("a directory");
    let scenario = file(dir.path(), KERNEL_DOCS);
    let found = document(&["orders", &scenario], dir.path());
    // Of the 24 orders of save, harvest, GET and copy those in which save < GET < copy and harvest < copy.
    assert_eq!((&found["orders"], &found["safe"]), (&json!(24), &json!(3)));
    assert_eq!(found["exact"], true);
    let constraints = found["constraints"].as_array().expect("a list");
    let pairs: Vec<(&str, &str)> = constraints
        .iter()
        .map(|c| {
            (
                c["before"].as_str().unwrap_or(""),
                c["after"].as_str().unwrap_or(""),
            )
        })
        .collect();
    assert_eq!(
        pairs,
        [
            ("its-save-tables", "get-dirty-log"),
            ("harvest-rings", "copy"),
            ("get-dirty-log", "copy")
        ]
    );
    for constraint in constraints {
        assert_eq!(constraint["shortest"], true, "{constraint}");
        let trace = constraint["trace"].as_str().expect("a path");
        let replayed = document(&["replay", trace], dir.path());
        assert_eq!(replayed["invariant"], constraint["invariant"]);
        assert_eq!(replayed["blocks"], constraint["blocks"]);
    }
    let sentences = found["sentences"].as_array().expect("a list");
    assert!(
        sentences.contains(&json!(
            "get-dirty-log is last in no safe order; it must follow its-save-tables, and precede copy"
        )),
        "{sentences:?}"
    );
}

#[test]
fn a_rounds_orders_need_two_alternatives_and_no_fewer() {
    let dir = tempfile::tempdir().expect("a directory");
    let scenario = file(dir.path(), KERNEL_DOCS);
    let found = document(&["orders", "--round", &scenario], dir.path());
    // RESET between harvest and copy is safe, and so is whatever copies before it harvests: the page stays to be copied.
    assert_eq!((&found["orders"], &found["safe"]), (&json!(6), &json!(4)));
    assert_eq!(
        (&found["exact"], &found["smallest"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(
        found["alternatives"],
        json!([
            [
                { "before": "harvest-rings", "after": "reset-rings" },
                { "before": "reset-rings", "after": "copy" }
            ],
            [{ "before": "copy", "after": "harvest-rings" }]
        ])
    );
    // The same steps without a repetition around them are the same round.
    let flat = KERNEL_DOCS
        .replace("{ repeat = 1, steps = [", "")
        .replace("] }, \"pause", ", \"pause");
    let scenario = file(dir.path(), &flat);
    let same = document(&["orders", &scenario, "--round"], dir.path());
    assert_eq!(same["alternatives"], found["alternatives"]);
}

#[test]
fn equal_steps_are_one_order_and_too_many_orders_are_refused_with_their_number() {
    let dir = tempfile::tempdir().expect("a directory");
    let twice = "\"enable-logging\", \"copy-all\", \"pause-vcpus\", \"harvest-rings\", \"copy\", \"copy\", \"finish\"";
    let found = document(&["orders", &file(dir.path(), twice)], dir.path());
    assert_eq!(found["orders"], 3, "3! / 2!");
    let steps = r#""its-save-tables", "harvest-rings", "get-dirty-log", "copy", "reset-rings", "clear-dirty-log", "copy", "checkpoint""#;
    let many = format!("\"enable-logging\", \"copy-all\", \"pause-vcpus\", {steps}, \"finish\"");
    let (code, _, err) = dirtysim(&["orders", &file(dir.path(), &many)], dir.path());
    assert_eq!(code, Some(2));
    assert!(
        err.contains("20160 orders") && err.contains("5040"),
        "8! / 2!: {err}"
    );
}

#[test]
fn a_limit_is_no_verdict_and_a_protocol_without_such_steps_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let scenario = file(dir.path(), KERNEL_DOCS);
    let (code, out, _) = dirtysim(&["orders", &scenario, "--max-time", "0"], dir.path());
    assert_eq!(code, Some(3));
    assert!(
        out.contains("inconclusive") && out.contains("max-time"),
        "{out}"
    );
    let (code, _, err) = dirtysim(&["orders", &scenario, "--round=2"], dir.path());
    assert_eq!(code, Some(2));
    assert!(err.contains("fewer rounds"), "{err}");
}

#[test]
fn each_safe_order_is_proved_for_any_number() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = "name = \"any\"\n[machine]\narch = \"arm64\"\nvcpus = 1\npages = \"any\"\n[writers]\nvcpu = { stores = \"any\" }\nits_save = { tables = \"any\" }\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", { any_number = [\"get-dirty-log\", \"copy\"] }, \"pause-vcpus\", \"its-save-tables\", \"get-dirty-log\", \"copy\", \"finish\"]\n";
    let path = dir.path().join("any.toml");
    std::fs::write(&path, text).expect("a file");
    let path = path.to_str().expect("a path in UTF-8");
    let result = document(&["orders", path], dir.path());
    assert_eq!(
        (&result["orders"], &result["safe"], &result["proved"]),
        (&json!(6), &json!(1), &json!(1)),
        "{result}"
    );
    let (_, out, _) = dirtysim(&["orders", path], dir.path());
    let said = "the safe one is proved for any number of stores, rounds and pages";
    assert!(out.contains(said), "{out}");
}
