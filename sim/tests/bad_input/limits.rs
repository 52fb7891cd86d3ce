//! Every limit is kept by every pass, on any machine that a scenario can write; and what was seen before it is judged.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use dirtysim::scenario::{self, Scenario};
use dirtysim::search::{self, Coverage, Limit, Options, Reductions, Verdict, liveness};
use serde_json::Value;

use super::{complaint, ran};

/// As many choices in each state as there can be: levels grow two hundredfold.
const WIDE: &str = include_str!("wide.toml");

/// Each pass over a wide machine.
const PASSES: [&[&str]; 4] = [
    &[],
    &["--no-reduction"],
    &["--no-page-symmetry", "--no-partial-order"],
    &["--liveness"],
];

fn wide(dir: &Path, more: &[&str], limit: &[&str]) -> (i32, Value) {
    fs::write(dir.join("wide.toml"), WIDE).expect("written");
    let args = [&["check", "wide.toml", "--json"][..], more, limit].concat();
    let (code, output) = ran(dir, &args);
    assert!(
        !output.stdout.is_empty(),
        "{args:?}: {}",
        complaint(&output)
    );
    let document = serde_json::from_slice(&output.stdout).expect("a document");
    (code, document)
}

#[test]
fn states_are_counted_within_a_level() {
    let dir = tempfile::tempdir().expect("a directory");
    for pass in PASSES {
        let (code, document) = wide(dir.path(), pass, &["--max-states", "20000"]);
        assert_eq!(code, 3, "{pass:?}: {document}");
        assert_eq!(document["limit"], "max-states", "{pass:?}");
        let states = document["states"].as_u64().expect("a count");
        assert!((2..=22_000).contains(&states), "{pass:?}: {states}");
        assert!(document["depth"].as_u64() > Some(0), "{pass:?}: {document}");
    }
}

#[test]
fn time_is_kept_within_a_level() {
    let dir = tempfile::tempdir().expect("a directory");
    for pass in PASSES {
        let begun = Instant::now();
        let (code, document) = wide(dir.path(), pass, &["--max-time", "1"]);
        assert_eq!(code, 3, "{pass:?}: {document}");
        assert_eq!(document["limit"], "max-time", "{pass:?}");
        // Some seconds for a machine that has other things to do.
        let elapsed = begun.elapsed();
        assert!(elapsed < Duration::from_secs(10), "{pass:?}: {elapsed:?}");
    }
}

/// What does not depend on how long anything took.
fn facts(report: &search::Report) -> impl PartialEq + std::fmt::Debug + use<> {
    let found = report
        .violation
        .as_ref()
        .map(|found| (found.invariant, found.depth));
    (
        (
            report.verdict,
            report.coverage,
            report.states,
            report.transitions,
        ),
        (report.depth, found, report.broken, report.seen),
    )
}

#[test]
fn a_limit_of_states_comes_to_the_same_on_any_number_of_threads_and_judges_what_was_seen() {
    let pools: Vec<_> = [1, 2]
        .map(|threads| {
            let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
            builder.build().expect("threads")
        })
        .into();
    let mut cut = 0;
    for name in ["kernel-docs", "bitmap-last-clear", "copy-before-reset"] {
        let Some(scenario) = scenario::builtin(name) else {
            continue;
        };
        for reductions in [Reductions::ALL, Reductions::NONE] {
            let search = |most: Option<u64>| {
                let options = Options {
                    max_states: most,
                    reductions,
                    counterexample: false,
                    ..Options::default()
                };
                let check = || search::check(&scenario, &options, &|_| true).expect("it fits");
                let reports = pools.iter().map(|pool| pool.install(check));
                let mut facts_of: Vec<_> = reports.map(|report| (facts(&report), report)).collect();
                let (first, report) = facts_of.remove(0);
                assert_eq!(first, facts_of.remove(0).0, "{name}, {most:?}");
                report
            };
            for most in [1, 10, 100, 300, 700, 1_000, 1_500] {
                let report = search(Some(most));
                assert!(
                    report.states <= most + most / 10,
                    "{name}: {}",
                    report.states
                );
                if report.coverage == Coverage::Truncated(Limit::States) {
                    cut += 1;
                    // Whatever is broken down to there was found.
                    let deeper = search(Some(4 * most));
                    if let Some(found) = deeper.violation {
                        let known = report.violation.is_some();
                        assert_eq!(
                            known,
                            found.depth <= report.depth + u32::from(known),
                            "{name}"
                        );
                    }
                }
            }
        }
    }
    assert!(cut > 20, "{cut} searches were cut");
}

#[test]
fn a_watch_that_says_no_ends_every_pass() {
    let scenario = Scenario::from_toml("wide.toml", WIDE).expect("a scenario");
    for reductions in [Reductions::ALL, Reductions::NONE] {
        let options = Options {
            reductions,
            ..Options::default()
        };
        let report = search::check(&scenario, &options, &|_| false).expect("it fits");
        assert_eq!(report.coverage, Coverage::Truncated(Limit::Interrupt));
        assert_eq!(report.verdict, Verdict::Inconclusive);
    }
    let report = liveness::liveness(&scenario, &Options::default(), &|_| false).expect("it fits");
    assert_eq!(report.coverage, Coverage::Truncated(Limit::Interrupt));
}
