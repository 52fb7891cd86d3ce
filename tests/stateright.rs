//! An independent check of the search: stateright drives the same transition function over the same packed states, and
//! sees the same graph. On some scenarios a plain search with a hash set is the third opinion.

use dirtysim::run::target;
use dirtysim::scenario::{Expect, Scenario, builtin};
use dirtysim::search::{self, Options, Reductions, Report};
use serde_json::{Value, json};

use dirtysim_peers::by_words;
use dirtysim_peers::graph::{Graph, breadth_first};
use dirtysim_peers::in_stateright::{Way, run};
use dirtysim_peers::sizes::Sizes;

/// A built-in scenario at a smaller size: `vcpus` vCPUs with `stores` stores each.
fn scaled(name: &str, vcpus: u64, stores: u64) -> Scenario {
    let mut source = builtin(name).expect("a built-in scenario").source;
    source["machine"]["vcpus"] = json!(vcpus);
    source["writers"]["vcpu"]["stores"] = json!(stores);
    from(&source)
}

fn from(source: &Value) -> Scenario {
    Scenario::from_json("a scaled scenario", source).unwrap_or_else(|error| panic!("{error}"))
}

fn inline(text: &str) -> Scenario {
    Scenario::from_toml("inline", text).unwrap_or_else(|error| panic!("{error}"))
}

/// The project's own search, without reductions, past every violation.
fn own(scenario: &Scenario) -> Report {
    let options = Options {
        keep_going: true,
        counterexample: false,
        reductions: Reductions::NONE,
        ..Options::default()
    };
    search::check(scenario, &options, &|_| true).unwrap_or_else(|error| panic!("{error}"))
}

/// Compares the project's search with stateright's, on one thread and on two, and at the nearest violation.
fn agree(scenario: &Scenario) {
    let name = &scenario.name;
    let graph = Graph::new(scenario);
    let target = target(scenario);
    let own = own(scenario);
    println!(
        "{name}: {} states, {} transitions, depth {}",
        own.states, own.transitions, own.depth
    );
    assert!(own.states > 500, "{name}: too small to say anything");
    let one = by_words!(graph, run(&graph, target, Way::BreadthFirst, 1));
    assert_eq!(own.states, one.states, "{name}: distinct states");
    assert_eq!(own.transitions, one.transitions, "{name}: transitions");
    assert_eq!(u64::from(own.depth), one.depth, "{name}: depth");
    let two = by_words!(graph, run(&graph, target, Way::DepthFirst, 2));
    assert_eq!(own.states, two.states, "{name}: states, depth first");
    assert_eq!(own.transitions, two.transitions, "{name}: depth first");
    let expected = matches!(scenario.expected(), Expect::Violated(_));
    assert_eq!(one.broken, expected, "{name}: stateright's verdict");
    assert_eq!(two.broken, expected, "{name}: stateright's verdict");
    assert_eq!(own.violation.is_some(), expected, "{name}: own verdict");
    if let Some(violation) = own.violation {
        let steps = violation.depth;
        let there = by_words!(graph, run(&graph, target, Way::UpTo(steps), 1));
        let before = by_words!(graph, run(&graph, target, Way::UpTo(steps - 1), 1));
        assert!(there.broken, "{name}: broken after {steps} steps");
        assert!(!before.broken, "{name}: not broken before {steps} steps");
    }
}

/// Compares the project's search with the plainest one.
fn agrees_with_plain(scenario: &Scenario) {
    let name = &scenario.name;
    let graph = Graph::new(scenario);
    let plain = by_words!(graph, breadth_first(&graph));
    let own = own(scenario);
    assert_eq!(own.states, plain.states, "{name}: distinct states");
    assert_eq!(own.transitions, plain.transitions, "{name}: transitions");
    assert_eq!(u64::from(own.depth), plain.depth, "{name}: depth");
    assert_eq!(own.broken, plain.broken, "{name}: broken claims");
}

/// Two slots and a ring each vCPU, on an architecture without a bitmap beside it, with a record that the kernel keeps.
const RISCV_TWO_SLOTS: &str = r#"
name = "riscv-two-slots"
expect = "holds"
[machine]
arch = "riscv"
vcpus = 1
ring = { entries = 8, reserved = 4 }
[[slots]]
name = "low"
pages = 2
logging = true
[[slots]]
name = "high"
pages = 1
logging = true
[writers]
vcpu = { stores = 1 }
kernel_record = { updates = 1, page = "high:0" }
[protocol]
steps = ["copy-all", "harvest-rings", "reset-rings", "copy", "pause-vcpus", "harvest-rings", "copy", "finish"]
"#;

/// Two threads of the VMM, and a word of two bits.
const TWO_THREADS: &str = r#"
name = "two-threads"
expect = "holds"
[machine]
arch = "arm64"
vcpus = 1
pages = 3
word_bits = 2
[writers]
vcpu = { stores = 1 }
[protocol]
steps = ["enable-logging", "copy-all", "pause-vcpus", "get-dirty-log", "copy", "finish"]
[[protocol.threads]]
name = "other"
steps = ["get-dirty-log"]
"#;

#[test]
fn stateright_finds_the_same_states_where_scenarios_hold() {
    agree(&scaled("kernel-docs", 1, 2));
    agree(&scaled("bitmap-last-clear", 1, 1));
    agree(&scaled("bitmap-last-manual-clear", 1, 1));
    agree(&scaled("bitmap-last-two-words", 1, 2));
    agree(&scaled("two-its-snapshots", 1, 1));
    agree(&scaled("cancel-retry", 1, 1));
    agree(&scaled("x86-ring-pml", 1, 2));
    agree(&scaled("x86-bitmap-fast-path", 1, 2));
    agree(&inline(RISCV_TWO_SLOTS));
    agree(&inline(TWO_THREADS));
}

#[test]
fn stateright_finds_the_same_states_and_the_same_depth_of_the_loss_where_scenarios_are_violated() {
    agree(&scaled("ring-only-its-save", 1, 1));
    agree(&scaled("bitmap-before-its-save", 1, 1));
    agree(&scaled("copy-before-reset", 1, 2));
    agree(&scaled("clear-after-copy", 1, 2));
    agree(&scaled("two-slots-one-get-missed", 1, 1));
    agree(&scaled("reset-signal", 1, 2));
    agree(&scaled("pml-not-waited", 1, 3));
}

#[test]
fn a_plain_search_with_a_hash_set_is_of_the_same_opinion() {
    agrees_with_plain(&scaled("kernel-docs", 1, 2));
    agrees_with_plain(&scaled("copy-before-reset", 1, 2));
    let sizes = Sizes {
        x86: true,
        pages: 2,
        vcpus: 2,
        stores: 1,
        rounds: 1,
        bitmap_first: false,
    };
    agrees_with_plain(&sizes.scenario());
}
