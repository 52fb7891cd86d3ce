//! Counts of the unreduced search, pinned; the same on any number of threads.
//!
//! From the first run of this code after the model's yield points had settled (2026-11): they are a property of the
//! model and of the scenarios' bounds. A change of either may change them, and the change that does says why. The same
//! counts come from one thread and from two, with the table grown at different times.

use dirtysim::scenario::builtin;
use dirtysim::search::{Coverage, Options, Reductions, Report, check};

/// Scenario, distinct states, transitions, depth.
const PINNED: [(&str, u64, u64, u32); 5] = [
    ("bitmap-last-two-words", 348_741, 953_891, 76),
    ("x86-bitmap-fast-path", 559_530, 1_631_354, 64),
    ("clear-after-copy", 638_002, 1_795_459, 44),
    ("two-slots-one-get-missed", 315_317, 1_027_011, 42),
    ("reset-signal", 10_205, 19_446, 45),
];

fn search(name: &str, threads: usize, reductions: Reductions) -> Report {
    let scenario = builtin(name).expect("a built-in scenario");
    let options = Options {
        reductions,
        ..Options::default()
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("threads can be made");
    let report = pool.install(|| check(&scenario, &options, &|_| true));
    let mut report = report.expect("a built-in scenario can be searched");
    // How much memory is taken at once depends on who was how far.
    report.peak_bytes = 0;
    report
}

#[test]
fn unreduced_counts_are_pinned_on_one_thread_and_on_two() {
    for (name, states, transitions, depth) in PINNED {
        let one = search(name, 1, Reductions::NONE);
        assert_eq!(
            (one.states, one.transitions, one.depth, one.coverage),
            (states, transitions, depth, Coverage::Exhausted),
            "{name}"
        );
        assert_eq!(
            search(name, 2, Reductions::NONE),
            one,
            "{name}, two threads"
        );
    }
}

#[test]
fn a_counterexample_is_as_long_with_reductions_as_without_and_the_same_on_two_threads() {
    for name in ["reset-signal", "two-slots-one-get-missed"] {
        let reduced = search(name, 1, Reductions::ALL);
        assert_eq!(
            search(name, 2, Reductions::ALL),
            reduced,
            "{name}, two threads"
        );
        let full = search(name, 1, Reductions::NONE);
        let length = |report: &Report| {
            let violation = report.violation.as_ref().expect("it is violated");
            assert!(violation.shortest, "{name}: nothing limits it");
            violation.steps.as_ref().map(Vec::len)
        };
        assert_eq!(length(&reduced), length(&full), "{name}");
    }
}

#[test]
fn a_limit_of_states_ends_a_search_at_a_level_and_says_so() {
    let scenario = builtin("kernel-docs").expect("a built-in scenario");
    let options = Options {
        max_states: Some(5_000),
        ..Options::default()
    };
    let report = check(&scenario, &options, &|_| true).expect("it can be searched");
    assert_eq!(report.verdict, dirtysim::search::Verdict::Inconclusive);
    assert_eq!(
        report.coverage,
        Coverage::Truncated(dirtysim::search::Limit::States)
    );
    assert!(
        (5_000..20_000).contains(&report.states),
        "{}",
        report.states
    );
}
