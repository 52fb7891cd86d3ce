//! Scenarios, traces and logs with something wrong in them, by seeds: whatever stands in a file, a command ends in time, or soon
//! after it is asked to, with one of its exit codes, and says nothing that a terminal would obey; and a trace that an import
//! has written can be replayed.
//!
//! `DIRTYSIM_FUZZ=10000..20000 cargo test --release -p dirtysim --test bad_input fuzz` tries those seeds.

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use dirtysim::random::Choices;

use super::{dirtysim, interrupt};

/// Seeds that `cargo test` tries.
const SEEDS: Range<u64> = 0..60;
/// Files that are larger are left out: a mutation of them is mostly somewhere where nothing is.
const MOST_BYTES: u64 = 64 << 10;
/// What a command may take until it is asked to end, and then until it has, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// Numbers at which sizes and indices go wrong.
const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "-1",
    "2",
    "31",
    "64",
    "255",
    "256",
    "65536",
    "4294967295",
    "9223372036854775807",
    "1e308",
];
/// Bytes that mean something somewhere.
const BYTES: &[u8] = b"\"'[]{}=,.:#\\\n\r\t \0\x1b\x7f\xff\xc2\x9b09aZ-_";

fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(path) = open.pop() {
        let data = fs::metadata(&path).expect("it is there");
        if data.is_dir() {
            let entries = fs::read_dir(&path).expect("it can be listed");
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if path.to_string_lossy().ends_with(end) && data.len() <= MOST_BYTES {
            found.push(path);
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{folder}");
    found
}

/// Some part of a text: a place and a length.
fn part(choices: &mut Choices, len: usize) -> Range<usize> {
    let at = choices.below(len as u32 + 1) as usize;
    let most = 1 << choices.below(8);
    at..(at + choices.below(most + 1) as usize).min(len)
}

/// The runs of bytes that `wanted` takes.
fn runs(text: &[u8], wanted: impl Fn(u8) -> bool) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.iter().enumerate().filter(|(_, byte)| wanted(**byte)) {
        match all.last_mut() {
            Some(last) if last.end == at => last.end = at + 1,
            _ => all.push(at..at + 1),
        }
    }
    all
}

/// Changes a text; `other` is one of its kind.
fn mutate(choices: &mut Choices, text: &mut Vec<u8>, other: &[u8]) {
    let one = |choices: &mut Choices, all: &[Range<usize>]| match all.len() {
        0 => 0..0,
        len => all[choices.below(len as u32) as usize].clone(),
    };
    let (from, to) = (part(choices, text.len()), part(choices, text.len()));
    let words = runs(text, |byte| {
        byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
    });
    let lines = runs(text, |byte| byte != b'\n');
    let (place, with): (Range<usize>, Vec<u8>) = match choices.below(10) {
        0 => (from, Vec::new()),
        1 => (to.start..to.start, text[from].to_vec()),
        2 => (from, text[to].to_vec()),
        3 => {
            let byte = BYTES[choices.below(BYTES.len() as u32) as usize];
            (from.start..from.end.min(from.start + 1), vec![byte])
        }
        4 | 5 => {
            let number = NUMBERS[choices.below(NUMBERS.len() as u32) as usize];
            let digits = runs(text, |byte| byte.is_ascii_digit());
            (one(choices, &digits), number.into())
        }
        6 => {
            let word = one(choices, &words);
            (one(choices, &words), text[word].to_vec())
        }
        7 => (one(choices, &lines), Vec::new()),
        more => {
            let mut line = match more {
                8 => text[one(choices, &lines)].to_vec(),
                _ => other[one(choices, &runs(other, |byte| byte != b'\n'))].to_vec(),
            };
            line.push(b'\n');
            let at = one(choices, &lines).start;
            (at..at, line)
        }
    };
    text.splice(place, with);
}

/// What is done with a scenario, with a trace, and with a log.
const TO_SCENARIOS: [&[&str]; 7] = [
    &["check", "--max-states", "2000", "--max-memory", "256M"],
    &[
        "check",
        "--no-reduction",
        "--max-states",
        "2000",
        "--max-memory",
        "256M",
    ],
    &[
        "check",
        "--liveness",
        "--max-states",
        "2000",
        "--max-memory",
        "256M",
    ],
    &["orders", "--max-time", "0.2", "--max-memory", "256M"],
    &[
        "orders",
        "--round",
        "--max-time",
        "0.2",
        "--max-memory",
        "256M",
    ],
    &["run", "--seeds", "0..20"],
    &["blame", "--pages", "pages", "--seeds", "0..1"],
];
const TO_TRACES: [&[&str]; 7] = [
    &["replay", "--search-steps", "20000"],
    &["replay", "--json", "--search-steps", "20000"],
    &["explain"],
    &["explain", "--format", "lkml"],
    &["explain", "--format", "html"],
    &["shrink", "--max-attempts", "200", "--max-states", "2000"],
    &["blame", "--pages", "pages"],
];
const TO_LOGS: [&[&str]; 6] = [
    &["import"],
    &["import", "-o", IMPORTED],
    &["import", "-o", IMPORTED, "--json", "--ring-entries", "64"],
    &["import", "-o", IMPORTED, "--from", "ftrace"],
    &["import", "-o", IMPORTED, "--from", "perf"],
    &["import", "-o", IMPORTED, "--from", "qemu"],
];
/// What an import writes, and then is replayed.
const IMPORTED: &str = "imported.trace.jsonl";
const REPLAY: [&str; 4] = ["replay", IMPORTED, "--search-steps", "20000"];

/// Files of one kind, the name of what is made of one of them, and what is done with that.
type Kind = (
    Vec<PathBuf>,
    &'static str,
    &'static [&'static [&'static str]],
);

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("DIRTYSIM_FUZZ") else {
        return SEEDS;
    };
    let (first, last) = text.split_once("..").expect("A..B");
    first.parse().expect("a number")..last.parse().expect("a number")
}

/// How a command ended: its exit code, and what it said on both outputs.
type Ended = (Option<i32>, Vec<u8>, Vec<u8>);

/// Runs a command, and asks it to end where it takes long; none where it did not.
fn run(dir: &Path, args: &[&str]) -> Option<Ended> {
    let mut child = dirtysim(dir, args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let read = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).expect("it can be read");
            bytes
        })
    };
    let out = read(Box::new(child.stdout.take().expect("a pipe")));
    let errors = read(Box::new(child.stderr.take().expect("a pipe")));
    let begun = Instant::now();
    let mut asked = false;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if begun.elapsed() > PATIENCE && !asked {
            interrupt(&child);
            asked = true;
        }
        if begun.elapsed() > 2 * PATIENCE {
            child.kill().expect("it can be ended");
            child.wait().expect("it ends");
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let join = |thread: std::thread::JoinHandle<Vec<u8>>| thread.join().expect("it was read");
    Some((status.code(), join(out), join(errors)))
}

/// What is wrong with how a command ended, if anything is.
fn complaint(ended: Option<Ended>) -> Option<String> {
    let Some((code, out, errors)) = ended else {
        return Some("does not end".to_owned());
    };
    let said = String::from_utf8_lossy(&errors);
    let obeyed = |byte: &u8| byte.is_ascii_control() && !b"\n\t".contains(byte);
    match code {
        Some(0..=3) if said.contains("panicked") => Some(said.into_owned()),
        Some(2) if !said.contains("error: ") => Some(format!("no error: {said}")),
        Some(0..=3) if out.iter().chain(&errors).any(obeyed) => {
            Some(format!("a control: {said:?}"))
        }
        Some(0..=3) => None,
        _ => Some(format!("{code:?}: {said}")),
    }
}

/// What is wrong with what becomes of a file, if anything is.
fn try_out(dir: &Path, args: &[&str]) -> Option<String> {
    let ended = run(dir, args);
    let imported = args.contains(&IMPORTED);
    let written = imported && matches!(ended, Some((Some(0..=1), ..)));
    complaint(ended).or_else(|| {
        if imported && written != dir.join(IMPORTED).exists() {
            return Some("a trace where there should be none, or none".to_owned());
        }
        let replayed = written.then(|| run(dir, &REPLAY))?;
        match &replayed {
            Some((Some(2), _, errors)) => Some(String::from_utf8_lossy(errors).into_owned()),
            _ => complaint(replayed),
        }
    })
}

#[test]
fn whatever_stands_in_a_file_a_command_ends_with_one_of_its_exit_codes() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("pages"), "gfn 0x0\n").expect("written");
    let kinds: [Kind; 3] = [
        (
            files("../check/scenarios", ".toml"),
            "it.toml",
            &TO_SCENARIOS,
        ),
        (files("../traces", ".jsonl"), "it.trace.jsonl", &TO_TRACES),
        (files("../traces/import", ".log"), "it.log", &TO_LOGS),
    ];
    let mut wrong = Vec::new();
    for seed in seeds() {
        let mut choices = Choices::new(seed, 0);
        let (all, name, commands) = &kinds[choices.below(3) as usize];
        let mut read = || {
            let file = &all[choices.below(all.len() as u32) as usize];
            fs::read(file).expect("it can be read")
        };
        let (mut text, other) = (read(), read());
        for _ in 0..=choices.below(4) {
            mutate(&mut choices, &mut text, &other);
        }
        fs::write(dir.path().join(name), &text).expect("written");
        let _ = fs::remove_file(dir.path().join(IMPORTED));
        let command = commands[choices.below(commands.len() as u32) as usize];
        let args = [&command[..1], &[name], &command[1..]].concat();
        if let Some(complaint) = try_out(dir.path(), &args) {
            let kept = std::env::temp_dir().join(format!("dirtysim-fuzz-{seed}-{name}"));
            fs::write(&kept, &text).expect("written");
            let kept = kept.display();
            wrong.push(format!("{kept}: {}: {complaint}", args.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
