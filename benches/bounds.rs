//! What bounds cost: states, time and memory of a search, for more stores, pages, vCPUs' rounds and so on.
//!
//! `cargo bench --bench bounds` searches `kernel-docs` and `bitmap-last-clear` with two vCPUs, rings of four entries with
//! two in reserve and two ITS saves, once for each combination of 1 to 3 stores a vCPU, 3 to 5 pages and 1 or 2 pre-copy
//! rounds, each in a process of its own, and prints the table of `docs/figures.md`. Two threads, all reductions.
//!
//! `-- --max-time S` (300 unless given) and `-- --max-memory M` (in MiB; 6144 unless given) end a search that is larger;
//! the table then says so, and how far it came. Without `--bench` (`cargo test --benches`) the smallest row is made.

use std::process::{Command, ExitCode};
use std::time::Duration;

use dirtysim::plot::grouped;
use dirtysim::scenario::{Scenario, builtin};
use dirtysim::search::{self, Coverage, Options, Verdict};
use dirtysim_peers::arguments::value;
use dirtysim_peers::measure::measure;
use serde_json::json;

/// The word that tells a process that it is a child.
const CHILD: &str = "child";
const THREADS: &str = "2";
const SCENARIOS: [&str; 2] = ["kernel-docs", "bitmap-last-clear"];
const STORES: [u64; 3] = [1, 2, 3];
const PAGES: [u64; 3] = [3, 4, 5];
const ROUNDS: [u64; 2] = [1, 2];

/// The bounds of a row.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    stores: u64,
    pages: u64,
    rounds: u64,
}

/// What ends a search that is too large.
#[derive(Clone, Copy, Debug)]
struct Limits {
    seconds: u64,
    mebibytes: u64,
}

/// A built-in scenario with other bounds: the ITS writes the last page, twice.
fn scaled(name: &str, bounds: Bounds) -> Result<Scenario, String> {
    let mut source = builtin(name).ok_or("no such scenario")?.source;
    source["machine"]["pages"] = json!(bounds.pages);
    source["writers"]["vcpu"]["stores"] = json!(bounds.stores);
    source["writers"]["its_save"]["tables"] = json!([bounds.pages - 1]);
    let steps = source["protocol"]["steps"]
        .as_array_mut()
        .ok_or("no steps")?;
    for step in steps.iter_mut() {
        if let Some(repeat) = step.get_mut("repeat") {
            *repeat = json!(bounds.rounds);
        }
    }
    let save = steps
        .iter()
        .position(|step| step == "its-save-tables")
        .ok_or("no save")?;
    steps.insert(save, json!("its-save-tables"));
    Scenario::from_json(name, &source).map_err(|error| error.to_string())
}

/// What a child prints: states, depth, and the word for its coverage.
fn child(words: &[String]) -> Result<(), String> {
    let usage = || format!("a child of this benchmark cannot run {words:?}");
    let (name, numbers) = words.split_first().ok_or_else(usage)?;
    let numbers: Vec<u64> = numbers.iter().map_while(|word| word.parse().ok()).collect();
    let [stores, pages, rounds, seconds, mebibytes] = numbers[..] else {
        return Err(usage());
    };
    let bounds = Bounds {
        stores,
        pages,
        rounds,
    };
    let options = Options {
        max_time: Some(Duration::from_secs(seconds)),
        max_memory_bytes: Some(mebibytes << 20),
        ..Options::default()
    };
    let report = search::check(&scaled(name, bounds)?, &options, &|_| true)
        .map_err(|error| error.to_string())?;
    let end = match report.coverage {
        Coverage::Exhausted if report.verdict == Verdict::Holds => "exhausted",
        Coverage::Proved => "proved",
        Coverage::Exhausted => return Err(format!("{name} {bounds:?}: {:?}", report.verdict)),
        Coverage::Truncated(limit) => limit.name(),
    };
    println!("{} {} {end}", report.states, report.depth);
    Ok(())
}

/// Measures one row and prints it.
fn row(name: &str, bounds: Bounds, limits: Limits) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command
        .env("RAYON_NUM_THREADS", THREADS)
        .args([CHILD, name]);
    for number in [
        bounds.stores,
        bounds.pages,
        bounds.rounds,
        limits.seconds,
        limits.mebibytes,
    ] {
        command.arg(number.to_string());
    }
    let measured = measure(&mut command)?;
    let words: Vec<&str> = measured.printed.split_whitespace().collect();
    let [states, depth, end] = words[..] else {
        return Err(format!("{name} {bounds:?}: printed {:?}", measured.printed));
    };
    let states = grouped(states.parse().map_err(|_| "a child prints its states")?);
    let (states, depth) = match end {
        "exhausted" => (states, depth.to_owned()),
        limit => (
            format!("more than {states} ({limit})"),
            format!("more than {depth}"),
        ),
    };
    println!(
        "| {} | {} | {} | {states} | {depth} | {:.1} s | {} MiB |",
        bounds.stores,
        bounds.pages,
        bounds.rounds,
        measured.wall.as_secs_f64(),
        measured.peak_bytes >> 20
    );
    Ok(())
}

fn table(arguments: &[String]) -> Result<(), String> {
    let limits = Limits {
        seconds: value(arguments, "--max-time", 300)?,
        mebibytes: value(arguments, "--max-memory", 6144)?,
    };
    let whole = arguments.iter().any(|argument| argument == "--bench");
    for name in SCENARIOS {
        println!(
            "`{name}`, 2 vCPUs, rings of 4 with 2 in reserve, 2 ITS saves; {THREADS} threads:\n"
        );
        println!("| stores | pages | rounds | states | depth | time | memory |");
        println!("|---:|---:|---:|---:|---:|---:|---:|");
        for rounds in ROUNDS {
            for stores in STORES {
                for pages in PAGES {
                    let bounds = Bounds {
                        stores,
                        pages,
                        rounds,
                    };
                    row(name, bounds, limits)?;
                    if !whole {
                        return Ok(());
                    }
                }
            }
        }
        println!();
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((first, words)) if first == CHILD => child(words),
        _ => table(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
