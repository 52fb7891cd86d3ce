//! How one scenario is decided: by the exhaustive search; and, where a claim is about one way of losing a page among
//! several, by a search for a trace along the events that make that way.

use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::{self, Invariant};
use dirtysim_model::reduce::pack::Packing;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::{Layout, Small};
use dirtysim_model::state::vcpu::{NO_FRAME, Pc};
use dirtysim_model::transition::{Actor, Choice, Step, apply, describe, for_each_step};
use indexmap::IndexSet;

use crate::run::{hit, target};
use crate::scenario::Scenario;
use crate::search::limits::Limits;
use crate::search::{self, Limit, Options, Progress};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Every interleaving within the bounds was seen, and no claim broke.
    Holds,
    /// A claim broke.
    Violated {
        /// Which.
        invariant: Invariant,
        /// A schedule that breaks it, none with fewer steps.
        steps: Vec<Step>,
    },
    /// A limit was reached first.
    Inconclusive {
        /// Which.
        limit: &'static str,
    },
}

/// A scenario's decision, with its coverage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The outcome.
    pub found: Found,
    /// Distinct states.
    pub states: u64,
    /// Steps taken between them.
    pub transitions: u64,
    /// The longest of the shortest paths to a state, in steps; with a violation, the steps to it.
    pub depth: u64,
}

/// The most states of one scenario: far above what any case needs, far below what a machine holds.
pub const STATES_MAX: u64 = 20_000_000;

/// Decides a scenario. `go_on` is asked now and then.
///
/// # Errors
/// A scenario that the search has no room for.
pub fn decide(
    scenario: &Scenario,
    along: &[String],
    go_on: &(dyn Fn() -> bool + Sync),
) -> Result<Decision, String> {
    if !go_on() {
        return Ok(Decision {
            found: Found::Inconclusive {
                limit: Limit::Interrupt.name(),
            },
            states: 0,
            transitions: 0,
            depth: 0,
        });
    }
    if !along.is_empty() {
        return witness(scenario, along, go_on);
    }
    let options = Options {
        max_states: Some(STATES_MAX),
        ..Options::default()
    };
    let report = search::check(scenario, &options, &|_| go_on()).map_err(|e| e.to_string())?;
    let found = match (report.verdict, report.violation, report.coverage) {
        (search::Verdict::Holds, _, search::Coverage::Exhausted | search::Coverage::Proved) => {
            Found::Holds
        }
        (search::Verdict::Violated, Some(violation), _) => match violation.steps {
            Some(steps) => Found::Violated {
                invariant: violation.invariant,
                steps,
            },
            // The steps are what makes the verdict: they are looked for the plain way.
            None => return witness(scenario, &[], go_on),
        },
        (_, _, search::Coverage::Truncated(limit)) => Found::Inconclusive {
            limit: limit.name(),
        },
        (search::Verdict::Inconclusive, _, search::Coverage::Exhausted) => Found::Inconclusive {
            limit: "an end that was never reached",
        },
        _ => Found::Inconclusive { limit: "unknown" },
    };
    Ok(Decision {
        found,
        states: report.states,
        transitions: report.transitions,
        depth: u64::from(report.depth),
    })
}

/// A shortest trace to a violation on which the events of `along` happen in that order.
fn witness(
    scenario: &Scenario,
    along: &[String],
    go_on: &(dyn Fn() -> bool + Sync),
) -> Result<Decision, String> {
    let start = scenario
        .start::<Small>()
        .map_err(|error| error.to_string())?;
    Ok(witness_in(scenario, &start, along, go_on))
}

/// Whether `step` lets a store of the guest change memory.
fn store_retires<L: Layout>(before: &State<L>, after: &State<L>, step: Step) -> bool {
    let Actor::Vcpu(vcpu) = step.actor else {
        return false;
    };
    let (was, is) = (
        &before.vcpus[usize::from(vcpu)],
        &after.vcpus[usize::from(vcpu)],
    );
    let load = matches!(step.choice, Choice::Load(_)) || (was.frame != NO_FRAME && was.load);
    let began = was.frame != NO_FRAME || matches!(step.choice, Choice::Store(_));
    was.pc == Pc::Guest && is.pc == Pc::Guest && began && is.frame == NO_FRAME && !load
}

/// Whether the step from `before` to `after` is the event called `word`.
fn is_event<L: Layout>(
    machine: &Machine,
    before: &State<L>,
    after: &State<L>,
    step: Step,
    word: &str,
) -> bool {
    if word == "store-retires" {
        store_retires(before, after, step)
    } else {
        describe(machine, before, step) == word
    }
}

/// What a state takes beside its bits, more or less: its number in a table, its hash, its place, and how it was reached.
const KNOWN_BYTES: usize = 72;

/// How a state of the search was reached.
struct Node {
    parent: u32,
    step: Step,
}

fn witness_in<L: Layout>(
    scenario: &Scenario,
    start: &State<L>,
    along: &[String],
    go_on: &(dyn Fn() -> bool + Sync),
) -> Decision {
    let machine = &scenario.machine;
    let target = target(scenario);
    let packing = Packing::new(machine, start);
    let words = packing.words();
    // The last word counts the events behind the state.
    let packed = |state: &mut State<L>, behind: u64| {
        let mut key = vec![0u64; words + 1].into_boxed_slice();
        packing.pack(machine, state, &mut key[..words]);
        key[words] = behind;
        key
    };
    let first = packed(&mut start.clone(), 0);
    // States by number: their bits, and how many events of the list lie behind them.
    let mut known: IndexSet<Box<[u64]>> = IndexSet::from([first]);
    let options = Options {
        max_states: Some(STATES_MAX),
        ..Options::default()
    };
    let watch = |_: &Progress| go_on();
    let limits = Limits::new(&options, &watch);
    let mut nodes = vec![Node {
        parent: u32::MAX,
        step: Step {
            actor: Actor::Thread(0),
            choice: Choice::Advance,
        },
    }];
    let mut decision = Decision {
        found: Found::Holds,
        states: 0,
        transitions: 0,
        depth: 0,
    };
    let (mut at, mut level_end) = (0, 1);
    let mut possible = Vec::new();
    while at < nodes.len() {
        if at == level_end {
            level_end = nodes.len();
            decision.depth += 1;
        }
        let limit = if limits.are_enough(nodes.len() as u64) {
            Some(Limit::States)
        } else if at % 4096 == 0 {
            limits.reached(&Progress {
                states: nodes.len() as u64,
                frontier: (nodes.len() - level_end) as u64,
                depth: decision.depth as u32,
                bytes: (known.capacity() * (8 * words + KNOWN_BYTES)) as u64,
            })
        } else {
            None
        };
        if let Some(limit) = limit {
            decision.found = Found::Inconclusive {
                limit: limit.name(),
            };
            break;
        }
        let mut state = start.clone();
        packing.unpack(machine, &known[at][..words], &mut state);
        let behind = known[at][words];
        possible.clear();
        for_each_step(machine, &state, |step| possible.push(step));
        for &step in &possible {
            let mut next = state.clone();
            let effect = apply(machine, &mut next, step);
            decision.transitions += 1;
            let event = along
                .get(behind as usize)
                .is_some_and(|word| is_event(machine, &state, &next, step, word));
            let behind = behind + u64::from(event);
            let broken = oracle::check(machine, &next, effect);
            if let Some(invariant) = hit(broken, target) {
                if behind as usize == along.len() {
                    decision.found = Found::Violated {
                        invariant,
                        steps: path(&nodes, at, step),
                    };
                    decision.states = nodes.len() as u64;
                    decision.depth += 1;
                    return decision;
                }
                // Another way of losing the page: not the one that is looked for.
                continue;
            }
            let key = packed(&mut next, behind);
            if known.insert(key) {
                nodes.push(Node {
                    parent: at as u32,
                    step,
                });
            }
        }
        at += 1;
    }
    decision.states = nodes.len() as u64;
    decision
}

fn path(nodes: &[Node], mut at: usize, last: Step) -> Vec<Step> {
    let mut steps = vec![last];
    while nodes[at].parent != u32::MAX {
        steps.push(nodes[at].step);
        at = nodes[at].parent as usize;
    }
    steps.reverse();
    steps
}
