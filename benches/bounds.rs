//! What bounds cost: states, time and memory of a search, for more stores, pages, vCPUs' rounds and so on.
//!
//! `cargo bench --bench bounds` searches `kernel-docs` and `bitmap-last-clear` with two vCPUs, rings of four entries with
//! two in reserve and two ITS saves, once for each combination of 1 to 3 stores a vCPU, 3 to 5 pages and 1 or 2 pre-copy
//! rounds, each in a process of its own, and prints the table of `docs/figures.md`. Two threads, all reductions.
//!
//! After them comes the table of `docs/proofs.md`: three orders with any number of stores, rounds and pages, for 1 to 3 vCPUs and rings of
//! 2, 4 and 8 entries with 1 or 2 in reserve.
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

/// The words that tell a process that it is a child.
const CHILD: &str = "child";
const PROOF: &str = "proof";
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

/// An order that is proved: its machine, its writers beside the vCPUs, its round, and its steps after the stop.
struct Order {
    name: &'static str,
    machine: &'static str,
    writers: &'static str,
    round: &'static str,
    end: &'static str,
    rings: &'static [(u64, u64)],
}

/// Entries of a ring, and how many are in reserve.
const RINGS: &[(u64, u64)] = &[(2, 1), (4, 1), (4, 2), (8, 1), (8, 2)];

const ORDERS: [Order; 3] = [
    Order {
        name: "x86, bitmap",
        machine: "arch = \"x86\"",
        writers: "",
        round: "\"get-dirty-log\", \"copy\"",
        end: "\"get-dirty-log\", \"copy\"",
        rings: &[(0, 0)],
    },
    Order {
        name: "x86, ring",
        machine: "arch = \"x86\"",
        writers: "",
        round: "\"harvest-rings\", \"reset-rings\", \"copy\"",
        end: "\"harvest-rings\", \"copy\"",
        rings: RINGS,
    },
    Order {
        name: "arm64, ring with bitmap, KVM's documentation",
        machine: "arch = \"arm64\"\nring_with_bitmap = true",
        writers: "its_save = { tables = \"any\" }",
        round: "\"harvest-rings\", \"reset-rings\", \"copy\"",
        end: "\"its-save-tables\", \"harvest-rings\", \"get-dirty-log\", \"copy\"",
        rings: RINGS,
    },
];

impl Order {
    /// With any number of stores, rounds and pages; a ring of 0 entries is none.
    fn scenario(&self, vcpus: u64, (entries, reserved): (u64, u64)) -> Result<Scenario, String> {
        let ring = match entries {
            0 => String::new(),
            _ => format!("ring = {{ entries = {entries}, reserved = {reserved} }}"),
        };
        let text = format!(
            "name = \"proof\"\n[machine]\n{}\n{ring}\nvcpus = {vcpus}\npages = \"any\"\n[writers]\nvcpu = {{ stores = \"any\" }}\n{}\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", {{ any_number = [{}] }}, \"pause-vcpus\", {}, \"finish\"]\n",
            self.machine, self.writers, self.round, self.end
        );
        Scenario::from_toml("proof", &text).map_err(|error| error.to_string())
    }
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
    search(&scaled(name, bounds)?, Limits { seconds, mebibytes })
}

/// What a child prints of a proof: the same.
fn proof_child(words: &[String]) -> Result<(), String> {
    let numbers: Vec<u64> = words.iter().map_while(|word| word.parse().ok()).collect();
    let [order, vcpus, entries, reserved, seconds, mebibytes] = numbers[..] else {
        return Err(format!("a child of this benchmark cannot prove {words:?}"));
    };
    let order = ORDERS.get(order as usize).ok_or("no such order")?;
    let scenario = order.scenario(vcpus, (entries, reserved))?;
    search(&scenario, Limits { seconds, mebibytes })
}

/// Searches, and prints states, depth, the word for the coverage, and how many states there were before it was asked for any number; 0 where
/// it was not, or in vain.
fn search(scenario: &Scenario, limits: Limits) -> Result<(), String> {
    let options = Options {
        max_time: Some(Duration::from_secs(limits.seconds)),
        max_memory_bytes: Some(limits.mebibytes << 20),
        ..Options::default()
    };
    let report = search::check(scenario, &options, &|_| true).map_err(|error| error.to_string())?;
    let end = match report.coverage {
        Coverage::Exhausted if report.verdict == Verdict::Holds => "exhausted",
        Coverage::Proved => "proved",
        Coverage::Exhausted => {
            return Err(format!("{}: {:?}", scenario.name, report.verdict));
        }
        Coverage::Truncated(limit) => limit.name(),
    };
    let own = report.own_numbers.unwrap_or(0);
    println!("{} {} {end} {own}", report.states, report.depth);
    Ok(())
}

/// What a child came to: states and depth, each with what it is beyond where a limit ended the search, seconds, MiB.
struct Row {
    states: String,
    depth: String,
    seconds: f64,
    mebibytes: u64,
}

impl Row {
    /// Measures a child.
    fn of(words: &[String]) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.env("RAYON_NUM_THREADS", THREADS).args(words);
        let measured = measure(&mut command)?;
        let printed: Vec<&str> = measured.printed.split_whitespace().collect();
        let [states, depth, end, own] = printed[..] else {
            return Err(format!("{words:?}: printed {:?}", measured.printed));
        };
        let number = |word: &str| word.parse().map(grouped);
        let states = number(states).map_err(|_| "a child prints its states")?;
        let own_states = number(own).map_err(|_| "a child prints its own states")?;
        let (states, depth) = match end {
            "proved" if own != "0" => (
                format!("{own_states}, then {states} with any number"),
                depth.to_owned(),
            ),
            "exhausted" | "proved" => (states, depth.to_owned()),
            limit => (
                format!("more than {states} ({limit})"),
                format!("more than {depth}"),
            ),
        };
        Ok(Self {
            states,
            depth,
            seconds: measured.wall.as_secs_f64(),
            mebibytes: measured.peak_bytes >> 20,
        })
    }
}

/// Measures one row and prints it.
fn row(name: &str, bounds: Bounds, limits: Limits) -> Result<(), String> {
    let numbers = [
        bounds.stores,
        bounds.pages,
        bounds.rounds,
        limits.seconds,
        limits.mebibytes,
    ];
    let mut words = vec![CHILD.to_owned(), name.to_owned()];
    words.extend(numbers.map(|number| number.to_string()));
    let row = Row::of(&words)?;
    println!(
        "| {} | {} | {} | {} | {} | {:.1} s | {} MiB |",
        bounds.stores,
        bounds.pages,
        bounds.rounds,
        row.states,
        row.depth,
        row.seconds,
        row.mebibytes
    );
    Ok(())
}

/// Prints the proofs.
fn proofs(limits: Limits, whole: bool) -> Result<(), String> {
    println!("Any number of stores, rounds and pages; {THREADS} threads:\n");
    println!("| order | vCPUs | ring, reserve | states | time | memory |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (index, order) in ORDERS.iter().enumerate() {
        for vcpus in 1..=3 {
            for &(entries, reserved) in order.rings {
                let numbers = [
                    index as u64,
                    vcpus,
                    entries,
                    reserved,
                    limits.seconds,
                    limits.mebibytes,
                ];
                let mut words = vec![PROOF.to_owned()];
                words.extend(numbers.map(|number| number.to_string()));
                let row = Row::of(&words)?;
                let ring = match entries {
                    0 => String::new(),
                    _ => format!("{entries}, {reserved}"),
                };
                println!(
                    "| {} | {vcpus} | {ring} | {} | {:.1} s | {} MiB |",
                    order.name, row.states, row.seconds, row.mebibytes
                );
                if !whole {
                    return Ok(());
                }
            }
        }
    }
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
                        return proofs(limits, whole);
                    }
                }
            }
        }
        println!();
    }
    proofs(limits, whole)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((first, words)) if first == CHILD => child(words),
        Some((first, words)) if first == PROOF => proof_child(words),
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
