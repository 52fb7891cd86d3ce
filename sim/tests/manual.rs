//! What the binary carries of the documentation, what it makes of its own command line, and the tutorial, typed again.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dirtysim::cli::help::PAGES;

fn dirtysim(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .current_dir(dir)
        .args(arguments)
        .env("COLUMNS", "100")
        .output()
        .expect("the binary runs")
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(text).expect("it speaks UTF-8")
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_pages_in_the_binary_are_those_of_the_documentation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, file, text) in PAGES {
        let page = std::fs::read_to_string(repository().join("docs").join(file)).expect(name);
        // A crate carries its own files only, so that the binary's are copies.
        dirtysim_expected::file(&root.join("help").join(file), &page);
        assert!(!text.is_empty(), "{name}");
    }
    let schema = "trace-format.schema.json";
    let page = std::fs::read_to_string(repository().join("docs").join(schema)).expect(schema);
    dirtysim_expected::file(&root.join("help").join(schema), &page);
}

/// The tutorial with its files written, its commands typed, and their outputs in place of those that stand there.
fn typed_again(text: &str, dir: &Path) -> String {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let block = |lines: &mut std::str::Lines<'_>| -> Vec<String> {
            lines
                .by_ref()
                .take_while(|line| *line != "```")
                .map(str::to_owned)
                .collect()
        };
        if let Some(name) = line.strip_prefix("```toml ") {
            let file = block(&mut lines).join("\n") + "\n";
            std::fs::write(dir.join(name), &file).expect("the directory is the test's own");
            out.push_str(&file);
            out.push_str("```\n");
        } else if line == "```console" {
            for typed in block(&mut lines) {
                let Some(command) = typed.strip_prefix("$ dirtysim ") else {
                    continue;
                };
                let arguments: Vec<&str> = command.split(' ').collect();
                let output = dirtysim(dir, &arguments);
                out.push_str(&format!("{typed}\n{}", said(&output)));
                if let Some(code @ 1..) = output.status.code() {
                    out.push_str(&format!("[exit code {code}]\n"));
                }
            }
            out.push_str("```\n");
        }
    }
    out
}

#[test]
fn the_tutorial_is_what_the_program_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = repository().join("docs/tutorial.md");
    let text = std::fs::read_to_string(&path).expect("the tutorial");
    let again = typed_again(&text, dir.path());
    // It has a loss, its story, its fix, other orders, and a mail.
    assert!(again.matches("$ dirtysim ").count() >= 6, "{again}");
    dirtysim_expected::file(&path, &again);
}

#[test]
fn a_new_scenario_is_right_and_stays_where_one_is() {
    let dir = tempfile::tempdir().expect("a directory");
    for like in ["kernel-docs", "qemu-ring", "two-resets"] {
        let output = dirtysim(dir.path(), &["new", "mine", "--like", like]);
        assert!(output.status.success(), "{}", said(&output));
        let text = std::fs::read_to_string(dir.path().join("mine.toml")).expect("it is written");
        assert!(
            text.contains("#   pause-vcpus") && text.contains("name = \"mine\""),
            "{text}"
        );
        let output = dirtysim(dir.path(), &["new", "mine"]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        std::fs::remove_file(dir.path().join("mine.toml")).expect("it was there");
    }
    let output = dirtysim(dir.path(), &["new", "a b"]);
    assert!(
        said(&output).contains("a name has 1 to 100 letters"),
        "{}",
        said(&output)
    );
    let output = dirtysim(dir.path(), &["new", "mine", "--like", "kernel-doc"]);
    assert!(
        said(&output).contains("did you mean `kernel-docs`?"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_file_of_the_wrong_kind_is_recognised_and_the_right_command_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = repository();
    let write =
        |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    write(
        "my.toml",
        dirtysim::scenario::builtin_text("kernel-docs").expect("it is built in"),
    );
    let copy = |from: &str, to: &str| {
        std::fs::copy(root.join(from), dir.path().join(to)).expect("it is in the repository");
    };
    copy("traces/import/qemu-8.2.log", "qemu.log");
    copy("traces/bugs/k01.trace.jsonl", "k01.trace.jsonl");
    copy("traces/kernel/x86-linux-6.18.44.raw.jsonl", "raw.jsonl");
    for (command, file, help) in [
        ("explain", "my.toml", "dirtysim check my.toml"),
        ("replay", "my.toml", "dirtysim check my.toml"),
        ("shrink", "qemu.log", "dirtysim import qemu.log"),
        ("replay", "qemu.log", "dirtysim import qemu.log"),
        ("replay", "raw.jsonl", "dirtysim import raw.jsonl"),
        (
            "check",
            "k01.trace.jsonl",
            "dirtysim replay k01.trace.jsonl",
        ),
        ("run", "qemu.log", "dirtysim import qemu.log"),
        (
            "import",
            "k01.trace.jsonl",
            "dirtysim replay k01.trace.jsonl",
        ),
        ("import", "my.toml", "dirtysim check my.toml"),
    ] {
        let output = dirtysim(dir.path(), &[command, file]);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{command} {file}: {}",
            said(&output)
        );
        assert!(
            said(&output).contains(help),
            "{command} {file}: {}",
            said(&output)
        );
    }
}

#[test]
fn help_completions_and_pages_are_made_of_the_command_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let of = |arguments: &[&str]| {
        let output = dirtysim(dir.path(), arguments);
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    assert!(of(&["help", "check"]).contains("--max-states"));
    assert!(of(&["help", "scenarios"]).contains("# "));
    assert!(of(&["completions", "bash"]).contains("orders"));
    assert!(of(&["man"]).contains(".TH dirtysim 1"));
    of(&["man", "-o", "pages"]);
    let page = std::fs::read_to_string(dir.path().join("pages/dirtysim-check.1")).expect("a page");
    assert!(page.contains("max\\-states"), "{page}");
    let output = dirtysim(dir.path(), &["help", "chekc"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("did you mean `check`?"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_build_server_gets_a_file_and_marks_and_a_vacuous_verdict_is_denied() {
    let dir = tempfile::tempdir().expect("a directory");
    let vacuous = r#"name = "vacuous"
expect = "holds"
[machine]
arch = "x86"
vcpus = 1
pages = 1
[writers]
vcpu = { stores = 1 }
[protocol]
steps = ["enable-logging", "copy-all", "pause-vcpus", "get-dirty-log", "clear-dirty-log", "copy", "finish"]
"#;
    std::fs::write(dir.path().join("vacuous.toml"), vacuous).expect("written");
    let check = |more: &[&str]| {
        let mut arguments = vec!["check", "vacuous.toml"];
        arguments.extend(more);
        dirtysim(dir.path(), &arguments)
    };
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(
        said(&output).contains("never happened"),
        "{}",
        said(&output)
    );
    let output = check(&[
        "--deny", "vacuous", "--format", "github", "--junit", "out.xml",
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("::error file=vacuous.toml,line=2,"),
        "{}",
        said(&output)
    );
    let xml = std::fs::read_to_string(dir.path().join("out.xml")).expect("the file");
    assert!(xml.contains("<failure"), "{xml}");
}

#[test]
fn an_editor_gets_the_keys_that_the_reader_knows() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = dirtysim(dir.path(), &["schema", "scenario"]);
    assert!(output.status.success(), "{}", said(&output));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a schema");
    // Every key of every scenario that comes with the program is one of the schema's.
    for name in ["kernel-docs", "qemu-ring", "two-resets", "cancel-retry"] {
        let text = dirtysim::scenario::builtin_text(name).expect("it is built in");
        let scenario: serde_json::Value = toml::from_str(text).expect("it is TOML");
        for (key, value) in scenario.as_object().expect("a table") {
            assert!(schema["properties"].get(key).is_some(), "{name}: {key}");
            let keys = value.as_object().into_iter().flatten();
            for (inner, _) in keys.filter(|_| key != "expect") {
                let known = &schema["$defs"][key]["properties"];
                assert!(known.get(inner).is_some(), "{name}: {key}.{inner}");
            }
        }
    }
    let steps = schema["$defs"]["step"]["anyOf"][0]["enum"].as_array();
    assert!(steps.is_some_and(|steps| steps.contains(&"harvest-rings".into())));
    // It stands in the repository too, and every scenario there names it, for editors.
    let kept = repository().join("docs/scenario.schema.json");
    dirtysim_expected::file(&kept, said(&output));
    let mut open = vec![repository().join("check/scenarios")];
    while let Some(place) = open.pop() {
        for entry in std::fs::read_dir(&place).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ext| ext == "toml") {
                let text = std::fs::read_to_string(&path).expect("a text");
                let line = text.lines().next().unwrap_or_default();
                let named = line.strip_prefix("#:schema ").map(|to| place.join(to));
                let is_it = named
                    .is_some_and(|named| named.canonicalize().ok() == kept.canonicalize().ok());
                assert!(is_it, "{}: begins with {line}", path.display());
            }
        }
    }
    let output = dirtysim(dir.path(), &["schema", "trace"]);
    assert!(
        said(&output).contains("json-schema.org"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_file_that_is_watched_is_checked_again_when_it_changes() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("my.toml");
    let text = |last: &str| {
        format!(
            "name = \"my\"\n[machine]\narch = \"x86\"\nvcpus = 1\npages = 1\n[writers]\nvcpu = {{ stores = 1 }}\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", {last}, \"copy\", \"finish\"]\n"
        )
    };
    std::fs::write(&file, text("\"pause-vcpus\", \"get-dirty-log\"")).expect("written");
    let mut child = Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .current_dir(dir.path())
        .args(["check", "--watch", "my.toml"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut verdicts = lines
        .map_while(Result::ok)
        .filter(|line| line.starts_with("my: "));
    let first = verdicts.next();
    std::fs::write(&file, text("\"get-dirty-log\", \"pause-vcpus\"")).expect("written");
    let second = verdicts.next();
    child.kill().expect("it still watches");
    let _ = child.wait();
    assert_eq!(first.as_deref(), Some("my: holds, as expected"));
    assert_eq!(
        second.as_deref(),
        Some("my: violated (no_dirty_page_lost), NOT as expected")
    );
    for arguments in [
        &["check", "--watch"][..],
        &["check", "--watch", "kernel-docs"],
    ] {
        let output = dirtysim(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    }
}
