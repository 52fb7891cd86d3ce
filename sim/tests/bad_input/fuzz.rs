//! Scenarios and traces with something wrong in them, by seeds: whatever stands in a file, a command ends in time, with one of
//! its exit codes, and says nothing that a terminal would obey.
//!
//! `DIRTYSIM_FUZZ=10000..20000 cargo test --release -p dirtysim --test bad_input fuzz` tries those seeds.

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use dirtysim::random::Choices;

use super::dirtysim;

/// Seeds that `cargo test` tries.
const SEEDS: Range<u64> = 0..60;
/// Files that are larger are left out: a mutation of them is mostly somewhere where nothing is.
const MOST_BYTES: u64 = 64 << 10;
/// What a command may take, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

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

fn mutate(choices: &mut Choices, text: &mut Vec<u8>) {
    let one = |choices: &mut Choices, all: &[Range<usize>]| match all.len() {
        0 => 0..0,
        len => all[choices.below(len as u32) as usize].clone(),
    };
    let (from, to) = (part(choices, text.len()), part(choices, text.len()));
    let words = runs(text, |byte| {
        byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
    });
    let lines = runs(text, |byte| byte != b'\n');
    let (place, with): (Range<usize>, Vec<u8>) = match choices.below(9) {
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
        _ => {
            let line = one(choices, &lines);
            let mut line = text[line].to_vec();
            line.push(b'\n');
            let at = one(choices, &lines).start;
            (at..at, line)
        }
    };
    text.splice(place, with);
}

/// What is done with a scenario, and with a trace.
const TO_SCENARIOS: [&[&str]; 5] = [
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

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("DIRTYSIM_FUZZ") else {
        return SEEDS;
    };
    let (first, last) = text.split_once("..").expect("A..B");
    first.parse().expect("a number")..last.parse().expect("a number")
}

/// Runs a command; none where it did not end in time.
fn run(dir: &Path, args: &[&str]) -> Option<(Option<i32>, Vec<u8>, Vec<u8>)> {
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
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().expect("it can be ended");
            child.wait().expect("it ends");
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let join = |thread: std::thread::JoinHandle<Vec<u8>>| thread.join().expect("it was read");
    Some((status.code(), join(out), join(errors)))
}

#[test]
fn whatever_stands_in_a_file_a_command_ends_with_one_of_its_exit_codes() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("pages"), "gfn 0x0\n").expect("written");
    let scenarios = files("scenarios", ".toml");
    let traces = files("../traces", ".jsonl");
    let mut wrong = Vec::new();
    for seed in seeds() {
        let mut choices = Choices::new(seed, 0);
        let of_scenario = choices.below(2) == 0;
        let (all, name) = match of_scenario {
            true => (&scenarios, "it.toml"),
            false => (&traces, "it.trace.jsonl"),
        };
        let file = &all[choices.below(all.len() as u32) as usize];
        let mut text = fs::read(file).expect("it can be read");
        for _ in 0..=choices.below(4) {
            mutate(&mut choices, &mut text);
        }
        fs::write(dir.path().join(name), &text).expect("written");
        let command = match of_scenario {
            true => TO_SCENARIOS[choices.below(TO_SCENARIOS.len() as u32) as usize],
            false => TO_TRACES[choices.below(TO_TRACES.len() as u32) as usize],
        };
        let args = [&command[..1], &[name], &command[1..]].concat();
        let complaint = match run(dir.path(), &args) {
            None => "does not end".to_owned(),
            Some((code, out, errors)) => {
                let said = String::from_utf8_lossy(&errors);
                let obeyed = |byte: &u8| byte.is_ascii_control() && !b"\n\t".contains(byte);
                match code {
                    Some(0..=3) if said.contains("panicked") => said.into_owned(),
                    Some(2) if !said.contains("error: ") => format!("no error: {said}"),
                    Some(0..=3) if out.iter().chain(&errors).any(obeyed) => {
                        format!("a control: {said:?}")
                    }
                    Some(0..=3) => continue,
                    _ => format!("{code:?}: {said}"),
                }
            }
        };
        let kept = std::env::temp_dir().join(format!("dirtysim-fuzz-{seed}-{name}"));
        fs::write(&kept, &text).expect("written");
        wrong.push(format!(
            "{}: {}: {complaint}",
            kept.display(),
            args.join(" ")
        ));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
