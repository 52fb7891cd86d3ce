//! Inputs from the field, each an example of a kind: their right verdict, or their right error.

use dirtysim::scenario::Scenario;
use dirtysim::search::{self, Options, Verdict, liveness};
use dirtysim_model::oracle::Invariant;

fn read(name: &str, text: &str) -> Result<Scenario, String> {
    Scenario::from_toml(name, text).map_err(|error| error.to_string())
}

fn check(scenario: &Scenario) -> search::Report {
    let options = Options {
        max_states: Some(200_000),
        ..Options::default()
    };
    search::check(scenario, &options, &|_| true).expect("it is small enough")
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
