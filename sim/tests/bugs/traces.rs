//! The kept traces of the bugs: one for each scenario, short, and still showing the bug.

use std::path::PathBuf;

use dirtysim::bugs::BUGS;
use dirtysim::replay::steps::{replay, scenario_of};
use dirtysim::scenario::Expect;
use dirtysim::trace::TraceReader;

/// The most blocks of a minimal trace.
const MOST_BLOCKS: u64 = 20;

#[test]
fn every_kept_trace_shows_its_bug_in_a_few_blocks() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../traces/bugs");
    for bug in BUGS {
        for scenario in bug.scenarios() {
            let path = dir.join(format!("{}.trace.jsonl", scenario.name));
            let name = scenario.name.clone();
            let reader = TraceReader::open(&path).expect("every bug has a trace");
            let kept = scenario_of(reader.header(), &name).expect("the trace carries its scenario");
            assert_eq!(
                kept.machine, scenario.machine,
                "{name}: `dirtysim bugs --trace-dir traces/bugs` writes the traces anew"
            );
            let replayed = replay(reader, &name, kept, |_| {}).expect("every step is possible");
            let Expect::Violated(invariant) = scenario.expected() else {
                panic!("{name} expects to hold");
            };
            assert!(replayed.broken.has(invariant), "{name}");
            assert!(
                replayed.blocks <= MOST_BLOCKS,
                "{name}: {}",
                replayed.blocks
            );
            assert!(replayed.differences.is_empty(), "{name}");
        }
    }
}
