//! What of a machine was only read in the kernel's source is said with every verdict on it, by every command that gives one.

use std::path::Path;
use std::process::{Command, Output};

use dirtysim::fidelity::never_seen;
use dirtysim::trace::{self, TraceReader};
use dirtysim_model::machine::{Arch, Kernel, Machine, Mmu};
use serde_json::Value;

const SENTENCE: &str = "never seen on a kernel: x86's two-dimensional MMU";
const PART: &str = "x86's two-dimensional MMU at Linux 7.2 (seen: 6.1, 6.12, 7.3)";

fn dirtysim(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .args(args)
        .current_dir(directory)
        .output()
        .expect("the binary runs")
}

/// A document's `never_seen`, wherever the command puts what is judged.
fn parts(document: &Value) -> Vec<&str> {
    let of = match &document["results"] {
        Value::Array(results) => &results[0]["never_seen"],
        _ => &document["never_seen"],
    };
    let list = of.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(Value::as_str).collect()
}

/// The sentence in what a command prints, however its lines are broken.
fn says_so(text: &[u8]) -> bool {
    let words: Vec<&str> = std::str::from_utf8(text)
        .expect("UTF-8")
        .split_whitespace()
        .collect();
    words.join(" ").contains(SENTENCE)
}

#[test]
fn every_command_that_judges_a_scenario_says_what_of_it_no_kernel_was_seen_doing() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    std::fs::write(at.join("pages"), "ram:0\n").expect("written");
    let trace = "t/pml-not-waited.trace.jsonl";
    // `run` comes first: the commands on traces take what it leaves.
    let commands: [&[&str]; 10] = [
        &["run", "pml-not-waited", "--trace-dir", "t"],
        &["check", "pml-not-waited", "--trace-dir", "c"],
        &["check", "pml-not-waited", "--liveness", "--trace-dir", "l"],
        &["orders", "pml-not-waited", "--trace-dir", "o"],
        &["bugs", "K04", "--trace-dir", "b"],
        &["replay", trace],
        &["shrink", trace, "-o", "short.trace.jsonl"],
        &["blame", trace, "--pages", "pages"],
        &["debate", "P6a"],
        &["explain", trace],
    ];
    for command in commands {
        let text = dirtysim(at, command);
        let errors = String::from_utf8_lossy(&text.stderr);
        assert_ne!(text.status.code(), Some(2), "{command:?}: {errors}");
        let shown = String::from_utf8_lossy(&text.stdout);
        assert!(says_so(&text.stdout), "{command:?}: {shown}");
        let story = command[0] == "explain";
        let more: &[&str] = if story {
            &["--json", "-o", "story.txt"]
        } else {
            &["--json"]
        };
        let json = dirtysim(at, &[command, more].concat());
        let document: Value = serde_json::from_slice(&json.stdout).expect("one document");
        assert!(parts(&document).contains(&PART), "{command:?}: {document}");
    }
    for format in ["lkml", "html", "perfetto"] {
        let story = dirtysim(at, &["explain", trace, "--format", format]);
        let shown = String::from_utf8_lossy(&story.stdout);
        let words: Vec<&str> = shown.split_whitespace().collect();
        let shown = words.join(" ").replace("&#39;", "'");
        assert!(shown.contains(PART), "{format}: {shown}");
    }
}

#[test]
fn a_machine_that_was_recorded_needs_no_word() {
    let directory = tempfile::tempdir().expect("a directory");
    for (kernel, seen) in [("7.3", true), ("7.2", false)] {
        let text = format!(
            "name = \"m\"\nsentence = \"A machine.\"\nexpect = \"holds\"\n[machine]\narch = \"arm64\"\nkernel = \"{kernel}\"\nvcpus = 1\npages = 1\n\
             [writers]\nvcpu = {{ stores = 1 }}\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", \"pause-vcpus\", \"get-dirty-log\", \"copy\", \"finish\"]\n"
        );
        std::fs::write(directory.path().join("m.toml"), text).expect("written");
        let output = dirtysim(directory.path(), &["check", "m.toml", "--json"]);
        let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
        assert_eq!(document["verdict"], "holds", "{document}");
        assert_eq!(parts(&document).is_empty(), seen, "{document}");
    }
}

/// A machine as far as it matters to what was seen: architecture, MMU, PML, kernel.
type Seen = (Arch, Mmu, bool, Kernel);

/// The machines of `traces/kernel/`, as the headers of its recordings say.
fn recorded() -> Vec<Seen> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/kernel");
    let files = std::fs::read_dir(directory).expect("recordings");
    let paths = files.map(|entry| entry.expect("a recording").path());
    let traces = paths.filter(|path| path.to_string_lossy().ends_with(".trace.jsonl"));
    let machine = |path: std::path::PathBuf| {
        let reader = TraceReader::open(&path).unwrap_or_else(|error| panic!("{error}"));
        let machine = reader.header().machine.clone().expect("a machine");
        let arch = match machine.arch {
            trace::Arch::X86_64 => Arch::X86,
            trace::Arch::Arm64 => Arch::Arm64,
            trace::Arch::Riscv64 => Arch::Riscv,
            trace::Arch::Loongarch64 => Arch::Loongarch,
        };
        let release = machine.kernel.expect("a release");
        let version: Vec<&str> = release.split(['.', '-', '+']).take(2).collect();
        let version = version.join(".");
        let kernel = Kernel::ALL
            .into_iter()
            .find(|kernel| kernel.name() == version);
        let kernel = kernel.unwrap_or_else(|| panic!("{}: Linux {release}", path.display()));
        let shadow = arch == Arch::X86 && machine.two_dimensional != Some(true);
        let mmu = if shadow {
            Mmu::Shadow
        } else {
            Mmu::TwoDimensional
        };
        (arch, mmu, machine.pml == Some(true), kernel)
    };
    traces.map(machine).collect()
}

#[test]
fn seen_is_what_was_recorded_and_nothing_else() {
    let recorded = recorded();
    let mut marks = 0;
    for arch in Arch::ALL {
        for kernel in Kernel::ALL {
            let x86 = arch == Arch::X86;
            let two_dimensional = (Mmu::TwoDimensional, false);
            let others = [(Mmu::TwoDimensional, true), (Mmu::Shadow, false)];
            let others = others.into_iter().filter(|_| x86);
            for (mmu, pml) in std::iter::once(two_dimensional).chain(others) {
                let mut machine = Machine::new(arch, kernel, pml);
                machine.mmu = mmu;
                let seen = never_seen(&machine).is_empty();
                assert_eq!(
                    seen,
                    recorded.contains(&(arch, mmu, pml, kernel)),
                    "{arch:?}, {mmu:?}, PML {pml}, Linux {}",
                    kernel.name()
                );
                marks += usize::from(seen);
            }
        }
    }
    assert!(marks > 5, "{recorded:?}");
}
