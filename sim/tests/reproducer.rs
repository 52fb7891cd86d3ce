//! `dirtysim export`: each C file compiles without a warning, and where there is KVM it does what the recording says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn traces() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/kernel")
}

fn export(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .current_dir(traces())
        .arg("export")
        .args(arguments)
        .output()
        .expect("the binary runs")
}

fn compiler(name: &str) -> bool {
    let output = Command::new(name).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

/// The sections of recordings that are exported, and whether what they show is the same on every kernel that has it.
const EXPORTED: [(&str, &[&str]); 6] = [
    ("arm64-linux-6.12.117.ring-huge-page.trace.jsonl", &[]),
    ("arm64-linux-6.12.117.edges.trace.jsonl", &[]),
    ("x86-linux-6.18.44.initially-set-off.trace.jsonl", &[]),
    ("x86-linux-6.18.44.edges.trace.jsonl", &[]),
    ("x86-linux-6.18.44.outcomes.trace.jsonl", &[]),
    ("x86-linux-6.18.44.trace.jsonl", &["s3_full"]),
];

#[test]
fn every_file_compiles_and_where_there_is_kvm_it_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    if !compiler("gcc") {
        eprintln!("no gcc: not compiled");
        return;
    }
    for (trace, sections) in EXPORTED {
        let file = dir.path().join("reproducer.c");
        let path = file.to_str().expect("a path");
        let mut arguments = vec![trace, "-o", path];
        for section in sections {
            arguments.extend(["--section", section]);
        }
        let output = export(&arguments);
        assert!(
            output.status.success(),
            "{trace}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let program = dir.path().join("reproducer");
        for cc in ["gcc", "aarch64-linux-gnu-gcc"] {
            if !compiler(cc) {
                continue;
            }
            let output = Command::new(cc)
                .args(["-Wall", "-Wextra", "-Werror", "-O1", "-o"])
                .args([&program.with_extension(cc), &file])
                .output()
                .expect("a compiler");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{trace}, {cc}: {said}");
        }
        let output = Command::new(program.with_extension("gcc"))
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // Another kernel may answer otherwise, which is what the file is for; here it must only come to a verdict.
        assert!(
            matches!(output.status.code(), Some(0 | 1 | 4)),
            "{trace}: {:?}: {said}",
            output.status
        );
        eprintln!("{trace}: {:?}\n{said}", output.status.code());
    }
}

#[test]
fn what_cannot_be_written_is_refused_with_what_can() {
    for (arguments, wanted) in [
        (
            &["arm64-linux-6.12.117.random.trace.jsonl"][..],
            "no C is written for `KVM_CREATE_DEVICE`",
        ),
        (
            &["x86-linux-6.18.44.trace.jsonl", "--section", "s3_ful"],
            "no section is called `s3_ful`\nhelp: --section takes one of these:",
        ),
        (
            &["../bugs/k23.trace.jsonl"],
            "a trace of kind `step`\nhelp: only calls that a VMM makes can be written as C",
        ),
        (&["../import/ftrace.log"], "a log (ftrace), not a trace"),
    ] {
        let output = export(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(wanted), "{error}");
    }
}
