//! Which of the model's outcomes real kernels were seen to give: derived from the recordings, compared with the table in
//! `docs/fidelity.md`.
//!
//! `DIRTYSIM_BLESS=1 cargo test --test outcomes` rewrites the table.

mod answers;
mod pages;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use answers::Vm;
use dirtysim::trace::TraceReader;
use dirtysim::trace::call::{Call, CallRow};
use pages::Pages;
use table::{Machines, OUTCOMES, Outcome};

/// The machines, in the order of the table's columns: how the recordings' names begin, the column's name, what can be seen there.
const MACHINES: [(&str, &str, Machines); 8] = [
    ("arm64-linux-6.12.117", "arm64 6.12.117", table::ARM64),
    ("x86-linux-6.18.44", "x86 6.18.44", table::SHADOW),
    (
        "x86-npt-linux-6.12.117",
        "x86 6.12.117, two-dimensional",
        table::NPT,
    ),
    (
        "x86-ept-pml-linux-6.12.117",
        "x86 6.12.117, PML",
        table::PML,
    ),
    ("riscv64-linux-7.2.13", "RISC-V 7.2.13", table::RISCV),
    ("arm64-linux-7.3.4", "arm64 7.3.4", table::ARM64),
    (
        "x86-npt-linux-6.1.0-57",
        "x86 6.1.0-57, two-dimensional",
        table::NPT,
    ),
    ("riscv64-linux-6.12.117", "RISC-V 6.12.117", table::RISCV),
];
/// So many of them are to have seen nineteen of twenty outcomes each; what follows are second kernels, recorded in part.
const WHOLE: usize = 5;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The traces of a machine.
fn recordings(machine: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(root().join("traces/kernel"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with(machine) && name.ends_with(".trace.jsonl")
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no recording of {machine}");
    found
}

/// The outcomes that a recording shows.
fn seen_in(path: &Path, machine: Machines, seen: &mut BTreeSet<&'static str>) {
    let reader = TraceReader::open(path).unwrap_or_else(|error| panic!("{error}"));
    let arch = reader.header().machine.as_ref().unwrap().arch;
    let mut vms: BTreeMap<u32, (Vm, Pages)> = BTreeMap::new();
    for located in reader
        .rows::<CallRow>()
        .unwrap_or_else(|error| panic!("{error}"))
    {
        let located = located.unwrap_or_else(|error| panic!("{error}"));
        let CallRow::Call(row) = located.row else {
            vms.clear();
            continue;
        };
        let number = row.vm.unwrap_or(u32::MAX);
        if let Call::CreateVm {} = row.call {
            vms.insert(number, Default::default());
            continue;
        }
        let (vm, pages) = vms.entry(number).or_default();
        let mut found: Vec<&'static str> = answers::classify(arch, vm, &row.call, &row.result);
        found.extend(pages.observe(arch, vm, &row.call, &row.result));
        answers::advance(vm, &row.call, &row.result);
        for id in found {
            let cannot = find(id).cannot(machine);
            assert!(
                cannot.is_empty(),
                "{}:{}: {id} was seen, though it cannot be: {cannot}",
                path.display(),
                located.line
            );
            seen.insert(id);
        }
    }
}

fn find(id: &str) -> &'static Outcome {
    OUTCOMES
        .iter()
        .find(|outcome| outcome.id == id)
        .unwrap_or_else(|| panic!("`{id}` is in no row of the table"))
}

/// How many outcomes a machine can give, and those of them that were not seen.
fn counts(machine: Machines, seen: &BTreeSet<&'static str>) -> (usize, Vec<&'static str>) {
    let can = OUTCOMES
        .iter()
        .filter(|outcome| outcome.cannot(machine).is_empty());
    let ids: Vec<&str> = can.map(|outcome| outcome.id).collect();
    let missing = ids.iter().filter(|id| !seen.contains(*id)).copied();
    (ids.len(), missing.collect())
}

fn render(seen: &[BTreeSet<&'static str>]) -> String {
    let mut text = String::from("Seen of the outcomes that a machine can give: ");
    for (index, ((_, name, machine), seen)) in MACHINES.iter().zip(seen).take(WHOLE).enumerate() {
        let (can, missing) = counts(*machine, seen);
        let have = can - missing.len();
        let percent = have as f64 * 100.0 / can as f64;
        let comma = if index == 0 { "" } else { "; " };
        text.push_str(&format!("{comma}{name} {have} of {can} ({percent:.1} %)"));
    }
    text.push_str(".\n\n| call | outcome |");
    for (_, name, _) in MACHINES {
        text.push_str(&format!(" {name} |"));
    }
    text.push_str(&format!("\n|---|---|{}\n", "---|".repeat(MACHINES.len())));
    for outcome in OUTCOMES {
        text.push_str(&format!("| {} | {} |", outcome.call, outcome.text));
        for ((_, _, machine), seen) in MACHINES.iter().zip(seen) {
            let cell = match outcome.cannot(*machine) {
                "" if seen.contains(outcome.id) => "seen",
                "" => "not seen",
                why => why,
            };
            text.push_str(&format!(" {cell} |"));
        }
        text.push('\n');
    }
    text
}

fn all_seen() -> Vec<BTreeSet<&'static str>> {
    MACHINES
        .iter()
        .map(|&(recordings_of, _, machine)| {
            let mut seen = BTreeSet::new();
            for path in recordings(recordings_of) {
                seen_in(&path, machine, &mut seen);
            }
            seen
        })
        .collect()
}

#[test]
fn the_table_in_the_documentation_is_what_the_recordings_show() {
    dirtysim_expected::section(
        &root().join("docs/fidelity.md"),
        "outcomes",
        &render(&all_seen()),
    );
}

#[test]
fn nineteen_of_twenty_outcomes_that_can_be_seen_were() {
    for ((_, name, machine), seen) in MACHINES.iter().zip(all_seen()).take(WHOLE) {
        let (can, missing) = counts(*machine, &seen);
        assert!(
            missing.len() * 20 <= can,
            "{name}: {} of {can} not seen: {missing:#?}",
            missing.len()
        );
    }
}

#[test]
fn every_outcome_has_a_name_of_its_own() {
    let names: BTreeSet<&str> = OUTCOMES.iter().map(|outcome| outcome.id).collect();
    assert_eq!(names.len(), OUTCOMES.len());
}

/// What shows an outcome is in one recording: without it the outcome is not seen.
#[test]
fn an_outcome_is_seen_where_it_was_recorded_and_nowhere_else() {
    let outcomes = root().join("traces/kernel/x86-linux-6.18.44.outcomes.trace.jsonl");
    let edges = root().join("traces/kernel/x86-linux-6.18.44.edges.trace.jsonl");
    let of = |path: &Path| {
        let mut seen = BTreeSet::new();
        seen_in(path, table::SHADOW, &mut seen);
        seen
    };
    let (outcomes, edges) = (of(&outcomes), of(&edges));
    for id in [
        "reset.out_of_range",
        "reset.exact",
        "run.no_slot",
        "slot.wraps",
    ] {
        assert!(outcomes.contains(id) && !edges.contains(id), "{id}");
    }
    for id in ["load.neighbour", "load.untouched", "load.mapped"] {
        assert!(edges.contains(id) && !outcomes.contains(id), "{id}");
    }
}
