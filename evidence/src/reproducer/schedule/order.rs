//! An order of whole operations and accesses in which a claim breaks: the schedule's own, or another of the same scenario.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::rc::Rc;

use dirtysim_model::op::Op;
use dirtysim_model::oracle::Invariant;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Large;
use dirtysim_model::state::vcpu::{NO_FRAME, Pc};
use dirtysim_model::transition::{Actor, Choice, Step, apply, describe};
use dirtysim_model::words::Frame;

use super::Unforced;
use super::item::{Item, RECORD, What, words};
use super::whole::{Told, breaks};
use crate::ladder::large;
use crate::scenario::Scenario;

/// Operations and accesses that lie within others, at most: each can come before them or behind.
const MOST_WITHIN: usize = 8;
/// Operations and accesses that are tried in the search for an order.
const MOST_TRIED: usize = 500_000;
/// Moments within one RESET at which a signal is tried.
const MOST_CUTS: usize = 6;

/// A schedule taken apart.
pub(super) fn items(scenario: &Scenario, steps: &[Step]) -> Vec<Item> {
    let machine = &scenario.machine;
    let mut state = large(scenario);
    let mut done: Vec<Item> = Vec::new();
    let mut open: BTreeMap<Actor, Item> = BTreeMap::new();
    for (index, &step) in steps.iter().enumerate() {
        let number = index + 1;
        let word = describe(machine, &state, step).name();
        let before = state.clone();
        apply(machine, &mut state, step);
        match step.actor {
            Actor::Thread(thread) => {
                let thread = usize::from(thread);
                let at = before.threads[thread].op;
                let item = open.entry(step.actor).or_insert_with(|| Item {
                    what: What::Op(thread, at),
                    first: number,
                    last: number,
                    words: Vec::new(),
                    cut: None,
                });
                item.last = number;
                item.words.push(word);
                if state.threads[thread].op != at {
                    done.extend(open.remove(&step.actor));
                }
            }
            Actor::Vcpu(vcpu) => {
                let (was, is) = (
                    &before.vcpus[usize::from(vcpu)],
                    &state.vcpus[usize::from(vcpu)],
                );
                let what = match step.choice {
                    Choice::Store(frame) => Some(What::Access(usize::from(vcpu), frame, true)),
                    Choice::Load(frame) => Some(What::Access(usize::from(vcpu), frame, false)),
                    _ if word == RECORD => {
                        let frame = machine.vcpus[usize::from(vcpu)].steal_frame;
                        Some(What::String(usize::from(vcpu), frame))
                    }
                    _ => None,
                };
                // One instruction stores all of its elements.
                let goes_on = matches!(&what, Some(What::String(..)));
                let last_string = done
                    .iter_mut()
                    .rev()
                    .find(|item| goes_on && Some(&item.what) == what.as_ref());
                if let Some(item) = last_string {
                    item.last = number;
                    item.words.push(word);
                    continue;
                }
                if let Some(what) = what {
                    open.entry(step.actor).or_insert(Item {
                        what,
                        first: number,
                        last: number,
                        words: Vec::new(),
                        cut: None,
                    });
                }
                if let Some(item) = open.get_mut(&step.actor) {
                    item.last = number;
                    item.words.push(word);
                    let retired = was.pc == Pc::Guest && is.pc == Pc::Guest && is.frame == NO_FRAME;
                    if retired || goes_on {
                        done.extend(open.remove(&step.actor));
                    }
                }
            }
            Actor::Device(_) => {}
        }
    }
    // What the schedule breaks off has begun: an operation is made, a store that never came to memory is not.
    let broken_off = open.into_values();
    done.extend(broken_off.filter(|item| matches!(item.what, What::Op(..) | What::String(..))));
    done.sort_by_key(|item| item.first);
    done
}

/// Those that have others begin between their first and their last step.
pub(super) fn within(items: &[Item]) -> Vec<usize> {
    let has_others = |one: &usize| {
        let item = &items[*one];
        items
            .iter()
            .any(|other| item.first < other.first && other.first < item.last)
    };
    (0..items.len()).filter(has_others).collect()
}

/// The schedule's own order, in which the claim breaks with everything whole: what has others in it comes where it begins, or where it ends.
pub(super) fn forced(scenario: &Scenario, items: &[Item], target: Invariant) -> Option<Vec<Item>> {
    let within = within(items);
    let few = &within[..within.len().min(MOST_WITHIN)];
    (0..1u32 << few.len()).find_map(|choice| {
        let mut order: Vec<(usize, &Item)> = items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                let place = few.iter().position(|&wide| wide == index);
                let at_first = place.is_some_and(|place| choice >> place & 1 == 1);
                (if at_first { item.first } else { item.last }, item)
            })
            .collect();
        order.sort_by_key(|(place, item)| (*place, item.first));
        let order: Vec<Item> = order.into_iter().map(|(_, item)| item.clone()).collect();
        breaks(scenario, &order, target).then_some(order)
    })
}

/// How a state between whole operations and accesses was reached.
struct Way {
    item: Item,
    before: Option<Rc<Way>>,
}

/// Why no order was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoOrder {
    /// There is none.
    AllTried,
    /// There are too many.
    TooMany,
}

/// The shortest order of whole operations and accesses of the scenario that breaks the claim.
pub(super) fn searched(scenario: &Scenario, target: Invariant) -> Result<Vec<Item>, NoOrder> {
    let machine = &scenario.machine;
    let start = large(scenario);
    let mut known = HashSet::from([start.clone()]);
    let mut tried = 0;
    let mut open: VecDeque<(State<Large>, Option<Rc<Way>>)> = VecDeque::from([(start, None)]);
    while let Some((state, way)) = open.pop_front() {
        let frames: Vec<Frame> = machine
            .slots
            .iter()
            .flat_map(|slot| slot.frames())
            .collect();
        let ops = state.threads.iter().enumerate().flat_map(|(thread, at)| {
            let op = machine.programs[thread].get(usize::from(at.op));
            let signals = matches!(op, Some(Op::ResetRings(reset)) if reset.signal);
            let cuts = (0..MOST_CUTS).map(Some).filter(move |_| signals);
            let item = move |cut| Item::new(What::Op(thread, at.op), cut);
            op.map(|_| std::iter::once(None).chain(cuts).map(item))
                .into_iter()
                .flatten()
        });
        let vcpus = (0..state.vcpus.len()).flat_map(|vcpu| {
            let each = frames.iter().flat_map(move |&frame| {
                [
                    What::Access(vcpu, frame, true),
                    What::Access(vcpu, frame, false),
                ]
            });
            let steal = machine.vcpus[vcpu].steal_frame;
            each.chain([What::String(vcpu, steal)])
                .map(|what| Item::new(what, None))
        });
        for item in ops.chain(vcpus) {
            tried += 1;
            if tried > MOST_TRIED {
                return Err(NoOrder::TooMany);
            }
            let mut told = Told {
                scenario,
                state: state.clone(),
                target,
                broken: false,
            };
            if !told.whole(&item) && !told.broken {
                continue;
            }
            let way = Rc::new(Way {
                item,
                before: way.clone(),
            });
            if told.broken {
                return Ok(whole_way(&way));
            }
            if known.insert(told.state.clone()) {
                open.push_back((told.state, Some(way)));
            }
        }
    }
    Err(NoOrder::AllTried)
}

/// The items of a way, from its beginning.
fn whole_way(way: &Way) -> Vec<Item> {
    let mut items = Vec::new();
    let mut at = Some(way);
    while let Some(way) = at {
        items.push(way.item.clone());
        at = way.before.as_deref();
    }
    items.reverse();
    items
}

/// What no VMM can make happen.
pub(super) fn unforced(
    scenario: &Scenario,
    items: &[Item],
    target: Invariant,
    none: NoOrder,
) -> Unforced {
    let raced = within(items).into_iter().map(|index| {
        let item = &items[index];
        let words = words(scenario, item);
        format!("{words} (steps {} to {})", item.first, item.last)
    });
    let raced: Vec<String> = raced.collect();
    let why = if raced.is_empty() {
        String::new()
    } else {
        format!(
            ": it takes steps of others within {}",
            raced.join(", and within ")
        )
    };
    let orders = match none {
        NoOrder::AllTried => "any order",
        NoOrder::TooMany => "the orders that were tried, of too many",
    };
    Unforced::new(
        format!(
            "with every call and every access whole, {} is not broken in {orders}{why}",
            target.name()
        ),
        "what lies within the kernel cannot be forced from outside; `dirtysim report` and `dirtysim explain --format lkml` carry such a schedule",
    )
}
