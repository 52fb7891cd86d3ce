//! `dirtysim export`: each C file compiles without a warning, and where there is KVM it reproduces what it says.

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

/// The sections of recordings that are exported.
const EXPORTED: [(&str, &[&str]); 6] = [
    ("arm64-linux-6.12.117.ring-huge-page.trace.jsonl", &[]),
    ("arm64-linux-6.12.117.edges.trace.jsonl", &[]),
    ("x86-linux-6.18.44.initially-set-off.trace.jsonl", &[]),
    ("x86-linux-6.18.44.edges.trace.jsonl", &[]),
    ("x86-linux-6.18.44.outcomes.trace.jsonl", &[]),
    ("x86-linux-6.18.44.trace.jsonl", &["s3_full"]),
];

/// Where there is KVM: the kernel's release, as `uname -r` has it.
fn kernel() -> Option<String> {
    std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .ok()?;
    std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()
}

/// Compiles a file with every compiler here; the program for this machine.
fn compiled(file: &Path, name: &str) -> PathBuf {
    let program = file.with_extension("");
    for cc in ["gcc", "aarch64-linux-gnu-gcc"] {
        if !compiler(cc) {
            continue;
        }
        let output = Command::new(cc)
            .args(["-Wall", "-Wextra", "-Werror", "-O1", "-o"])
            .args([&program.with_extension(cc), file])
            .output()
            .expect("a compiler");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name}, {cc}: {said}");
    }
    program.with_extension("gcc")
}

/// Runs a program; its exit code and what it said.
fn run(program: &Path) -> (Option<i32>, String) {
    let output = Command::new(program).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

#[test]
fn every_recording_compiles_and_reproduces_on_the_kernel_that_it_is_of() {
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
        let (code, said) = run(&compiled(&file, trace));
        eprintln!("{trace}: {code:?}\n{said}");
        // "x86-linux-6.18.44…": that kernel gives the recorded results again. Another may answer otherwise, which is what the file is
        // for; without KVM, or on another architecture, it is skipped.
        let release = kernel().unwrap_or_default();
        let version = release.split('-').next().unwrap_or_default();
        let is_of_it = !version.is_empty() && trace.contains(&format!("linux-{version}."));
        let wanted: &[i32] = match kernel() {
            None => &[4],
            Some(_) if is_of_it && trace.starts_with("x86") == cfg!(target_arch = "x86_64") => &[0],
            Some(_) => &[0, 1, 4],
        };
        assert!(
            code.is_some_and(|code| wanted.contains(&code)),
            "{trace}: {code:?}: {said}"
        );
    }
}

/// An order that loses a page on every kernel: the last bitmap is fetched, and then the guest is stopped.
const LAST_ROUND: &str = r#"
name = "last-round"
sentence = "The last bitmap is fetched, and then the guest is stopped."
expect = { violated = "no_dirty_page_lost" }
[machine]
arch = "x86"
vcpus = 1
pages = 2
[writers]
vcpu = { stores = 2 }
[protocol]
steps = ["enable-logging", "copy-all", "get-dirty-log", "copy", "get-dirty-log", "pause-vcpus", "copy", "finish"]
"#;

/// The same with rings: copied before RESET re-arms.
const COPY_BEFORE_RESET: &str = r#"
name = "copy-before-reset-x86"
sentence = "Harvested pages are copied before RESET re-arms them."
expect = { violated = "no_dirty_page_lost" }
[machine]
arch = "x86"
vcpus = 1
pages = 2
ring = { entries = 4, reserved = 2 }
[writers]
vcpu = { stores = 2 }
[protocol]
steps = ["enable-logging", "copy-all", "harvest-rings", "copy", "reset-rings", "pause-vcpus", "harvest-rings", "copy", "finish"]
"#;

/// Runs a command of the program in `dir`; what it wrote to standard error.
fn dirtysim(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .current_dir(dir)
        .args(arguments)
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn schedules_that_a_vmm_can_make_happen_reproduce_on_a_kernel() {
    let dir = tempfile::tempdir().expect("a directory");
    if !compiler("gcc") {
        eprintln!("no gcc: not compiled");
        return;
    }
    std::fs::write(dir.path().join("last-round.toml"), LAST_ROUND).expect("written");
    std::fs::write(
        dir.path().join("copy-before-reset-x86.toml"),
        COPY_BEFORE_RESET,
    )
    .expect("written");
    // A page lost in the schedule's own order; in another order of the same scenario; by a signal within RESET; an overflow.
    for (scenario, said_in_the_file, shows) in [
        ("last-round.toml", "breaks in this order", "it is lost"),
        (
            "copy-before-reset-x86.toml",
            "another one of the same scenario",
            "it is lost",
        ),
        ("reset-signal", "A timer aims", "it is lost"),
        (
            "x86-emulated-string",
            "just below its soft limit",
            "the ring overflowed",
        ),
        (
            "copy-before-reset",
            "another one of the same scenario",
            "it is lost",
        ),
    ] {
        let name = scenario.trim_end_matches(".toml");
        let trace = format!("target/dirtysim/{name}.trace.jsonl");
        let (code, said) = dirtysim(dir.path(), &["run", scenario, "--seeds", "0..20000"]);
        assert_eq!(code, Some(0), "{scenario}: {said}");
        let (_, said) = dirtysim(dir.path(), &["shrink", &trace, "-o", "short.jsonl"]);
        let (code, said) = match code {
            Some(0) => dirtysim(dir.path(), &["export", "short.jsonl", "-o", "schedule.c"]),
            code => (code, said),
        };
        assert_eq!(code, Some(0), "{scenario}: {said}");
        let file = dir.path().join("schedule.c");
        let text = std::fs::read_to_string(&file).expect("a file");
        let comment = text
            .split("*/")
            .next()
            .unwrap_or_default()
            .replace("\n * ", " ");
        assert!(comment.contains(said_in_the_file), "{scenario}: {comment}");
        let (code, said) = run(&compiled(&file, scenario));
        eprintln!("{scenario}: {code:?}\n{said}");
        // From 6.17 on RESET looks for a signal.
        let release = kernel().unwrap_or_default();
        let mut numbers = release
            .split('.')
            .map_while(|number| number.parse::<u32>().ok());
        let version = (numbers.next(), numbers.next());
        let not_that_new = scenario == "reset-signal" && version < (Some(6), Some(17));
        match (code, kernel()) {
            (Some(4), _) => assert!(
                said.contains("skipped") || said.contains(": "),
                "{scenario}: {said}"
            ),
            (Some(1), Some(_)) if not_that_new => {}
            (Some(0), Some(_)) => assert!(
                said.contains(shows) && said.contains("reproduced"),
                "{said}"
            ),
            other => panic!("{scenario}: {other:?}: {said}"),
        }
    }
}

#[test]
fn what_no_vmm_can_make_happen_is_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let (code, said) = dirtysim(dir.path(), &["run", "two-resets", "bitmap-before-its-save"]);
    assert_eq!(code, Some(0), "{said}");
    for (trace, says) in [
        (
            "two-resets",
            "with every call and every access whole, no_dirty_page_lost is not broken in any order",
        ),
        (
            "bitmap-before-its-save",
            "`KVM_DEV_ARM_ITS_SAVE_TABLES` as it stands here has no C",
        ),
    ] {
        let trace = format!("target/dirtysim/{trace}.trace.jsonl");
        let (code, said) = dirtysim(dir.path(), &["export", &trace, "-o", "none.c"]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(says), "{said}");
        assert!(said.contains("help: "), "{said}");
        assert!(!dir.path().join("none.c").exists());
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
            "no VMM sees that no_spurious_dirty_page is broken",
        ),
        (
            &["../bugs/k01.trace.jsonl"],
            "the wrong behaviour `kernel.get_log.protect_before_swap` is switched on",
        ),
        (
            &["../bugs/k01.trace.jsonl", "--section", "a"],
            "a schedule has no sections",
        ),
        (&["../import/ftrace.log"], "a log (ftrace), not a trace"),
    ] {
        let output = export(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(wanted), "{error}");
    }
}
