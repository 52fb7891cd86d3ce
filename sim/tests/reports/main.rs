//! Inputs from the field, each an example of a kind: their right verdict, or their right error.

use dirtysim::run::{self, Scheduler};
use dirtysim::scenario::Scenario;
use dirtysim::search::{self, Options, Reductions, Verdict, liveness};
use dirtysim_model::oracle::Invariant;

fn read(name: &str, text: &str) -> Result<Scenario, String> {
    Scenario::from_toml(name, text).map_err(|error| error.to_string())
}

fn check(scenario: &Scenario) -> search::Report {
    check_with(scenario, Reductions::ALL)
}

fn check_with(scenario: &Scenario, reductions: Reductions) -> search::Report {
    let options = Options {
        max_states: Some(200_000),
        reductions,
        ..Options::default()
    };
    search::check(scenario, &options, &|_| true).expect("it is small enough")
}

/// That `text` breaks what it says, or holds, by the search with and without reductions; and that schedules say the same, as far as
/// they can.
fn all_say(name: &str, text: &str, broken: Option<Invariant>) {
    let scenario = read(name, text).expect("it is a scenario");
    let verdict = broken.map_or(Verdict::Holds, |_| Verdict::Violated);
    for reductions in [Reductions::ALL, Reductions::NONE] {
        let report = check_with(&scenario, reductions);
        assert_eq!(report.verdict, verdict, "{name}, {reductions:?}");
        assert!(
            broken.is_none_or(|broken| report.broken.has(broken)),
            "{name}"
        );
    }
    let options = run::Options {
        seeds: 0..2_000,
        scheduler: Scheduler::Random,
        keep_going: false,
    };
    let failure = run::run(&scenario, &options, &|_| true).failure;
    assert_eq!(
        failure.map(|failure| failure.invariant),
        broken,
        "{name}, by schedules"
    );
}

#[test]
fn what_loses_a_page_does_not_hold() {
    for (name, text) in [
        (
            "one-too-many",
            include_str!("false-holds/one-too-many.toml"),
        ),
        (
            "block-beyond-the-frames",
            include_str!("false-holds/block-beyond-the-frames.toml"),
        ),
    ] {
        all_say(name, text, Some(Invariant::NoDirtyPageLost));
    }
}

#[test]
fn a_push_that_has_begun_ends_whatever_becomes_of_the_log() {
    let text = include_str!("contradict/record-beside-log-off.toml");
    all_say("record-beside-log-off", text, None);
}

#[test]
fn a_sum_that_wraps_is_no_small_number() {
    let text = include_str!("bad-input/shares-wraps.toml");
    let error = read("shares-wraps.toml", text).unwrap_err();
    assert!(error.contains("slot `a` has 2 pages"), "{error}");
    assert!(error.contains("shares-wraps.toml:"), "{error}");
}

#[test]
fn blocks_that_lie_over_each_other_are_refused() {
    let text = include_str!("false-holds/block-beyond-the-frames.toml");
    let over = text.replace("[writers]", "[[slots]]\nname = \"b\"\npages = 1\n[writers]");
    let error = read("blocks.toml", &over).unwrap_err();
    assert!(error.contains("are those of slot `a`"), "{error}");
}

#[test]
fn more_devices_than_a_scenario_has_are_refused() {
    let mut text = include_str!("false-holds/one-too-many.toml").to_owned();
    text.push_str(&"[[writers.devices]]\ntransfers = 1\n".repeat(257));
    let error = read("devices.toml", &text).unwrap_err();
    assert!(error.contains("more than 64 devices"), "{error}");
}

#[test]
fn a_program_without_a_claim_is_refused_at_its_steps() {
    let text = include_str!("no-claim/no-finish.toml");
    let error = read("no-finish.toml", text).unwrap_err();
    assert!(
        error.contains("the protocol ends without a claim"),
        "{error}"
    );
    assert!(error.contains("no-finish.toml:"), "{error}");
}

#[test]
fn an_end_that_is_never_reached_is_no_verdict() {
    for (name, text) in [
        (
            "finish-behind-forever",
            include_str!("no-claim/finish-behind-forever.toml"),
        ),
        (
            "join-of-forever",
            include_str!("no-claim/join-of-forever.toml"),
        ),
        (
            "endless-sync-in-thread",
            include_str!("no-claim/endless-sync-in-thread.toml"),
        ),
    ] {
        let scenario = read(name, text).expect("it says itself that it never ends");
        assert_eq!(check(&scenario).verdict, Verdict::Inconclusive, "{name}");
        let options = Options::default();
        let report = liveness::liveness(&scenario, &options, &|_| true).expect("it is small");
        assert!(report.broken.has(Invariant::ProtocolEnds), "{name}");
        let lasso = report.lasso.expect("a schedule shows it");
        assert!(lasso.cycle > 0, "{name}");
    }
}

#[test]
fn what_is_broken_before_anything_happens_is_violated() {
    let text = include_str!("contradict/broken-in-the-first-state.toml");
    let scenario = read("broken-in-the-first-state.toml", text).expect("it is a scenario");
    let report = check(&scenario);
    assert_eq!(report.verdict, Verdict::Violated);
    assert!(report.broken.has(Invariant::NoDirtyPageLost));
}
