//! Counts of the unreduced search, pinned; the same on any number of threads.
//!
//! From the first run of this code after the model's yield points had settled (2026-11): they are a property of the
//! model and of the scenarios' bounds. A change of either may change them, and the change that does says why. The same
//! counts come from one thread, two and four, with the table grown at different times.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dirtysim::scenario::builtin;
use dirtysim::search::{Coverage, Options, Progress, Reductions, Report, Verdict, check};

/// Scenario, distinct states, transitions, depth.
const PINNED: [(&str, u64, u64, u32); 5] = [
    ("bitmap-last-two-words", 348_741, 953_891, 76),
    ("x86-bitmap-fast-path", 559_530, 1_631_354, 64),
    ("clear-after-copy", 638_002, 1_795_459, 44),
    ("two-slots-one-get-missed", 315_317, 1_027_011, 42),
    ("reset-signal", 10_205, 19_446, 45),
];

/// Levels below this many states are one thread's, however many there are (`PARALLEL_STATES` in `search/level.rs`).
const SHARED_LEVEL_STATES: u64 = 1024;

/// The report, and the states of the largest level.
fn search(name: &str, threads: usize, options: &Options) -> (Report, u64) {
    let scenario = builtin(name).expect("a built-in scenario");
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("threads can be made");
    let largest = AtomicU64::new(0);
    let watch = |progress: &Progress| {
        largest.fetch_max(progress.frontier, Relaxed);
        true
    };
    let report = pool.install(|| check(&scenario, options, &watch));
    let mut report = report.expect("a built-in scenario can be searched");
    // How much memory is taken at once depends on who was how far.
    report.peak_bytes = 0;
    (report, largest.into_inner())
}

fn with(reductions: Reductions) -> Options {
    Options {
        reductions,
        ..Options::default()
    }
}

#[test]
fn unreduced_counts_are_pinned_on_one_thread_on_two_and_on_four() {
    let mut shared = 0;
    // Two and four by turns: what is asked of each is the same, and a search takes its time with every check on.
    for ((name, states, transitions, depth), threads) in
        PINNED.into_iter().zip([2, 4].into_iter().cycle())
    {
        let (one, largest) = search(name, 1, &with(Reductions::NONE));
        assert_eq!(
            (one.states, one.transitions, one.depth, one.coverage),
            (states, transitions, depth, Coverage::Exhausted),
            "{name}"
        );
        shared += u32::from(largest >= SHARED_LEVEL_STATES);
        let (more, _) = search(name, threads, &with(Reductions::NONE));
        assert_eq!(more, one, "{name}, {threads} threads");
    }
    assert!(shared >= 3, "{shared} have levels that threads share");
}

#[test]
fn verdict_counts_and_counterexample_are_the_same_on_any_number_of_threads() {
    // Right and wrong orders, on arm64 and on x86, reduced and not; once past the violation, once up to a limit.
    let limited = Options {
        max_states: Some(300_000),
        ..Options::default()
    };
    let keep_going = Options {
        keep_going: true,
        ..Options::default()
    };
    let usual = Options::default();
    let unreduced = with(Reductions::NONE);
    let mut shared = 0;
    let searches = [
        ("kernel-docs", &usual),
        ("x86-ring-pml", &unreduced),
        ("ring-only-its-save", &usual),
        ("clear-after-copy", &keep_going),
        ("two-its-snapshots-clear", &limited),
    ];
    for (name, options) in searches {
        let (one, largest) = search(name, 1, options);
        shared += u32::from(largest >= SHARED_LEVEL_STATES);
        let violated = one.verdict == Verdict::Violated;
        let length = one
            .violation
            .as_ref()
            .and_then(|found| found.steps.as_ref());
        assert_eq!(length.is_some(), violated, "{name}");
        for threads in [2, 4] {
            let (more, _) = search(name, threads, options);
            assert_eq!(more, one, "{name}, {threads} threads");
        }
    }
    assert!(shared >= 4, "{shared} have levels that threads share");
}

#[test]
fn a_counterexample_is_as_long_with_reductions_as_without() {
    for name in ["reset-signal", "two-slots-one-get-missed"] {
        let (reduced, _) = search(name, 1, &with(Reductions::ALL));
        let (full, _) = search(name, 1, &with(Reductions::NONE));
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
    assert_eq!(report.verdict, Verdict::Inconclusive);
    assert_eq!(
        report.coverage,
        Coverage::Truncated(dirtysim::search::Limit::States)
    );
    assert!(
        (4_000..=5_500).contains(&report.states),
        "{}",
        report.states
    );
}
