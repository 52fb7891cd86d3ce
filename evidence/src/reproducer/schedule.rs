//! A schedule of the simulator as one C file: what a VMM can make happen, in the schedule's order.
//!
//! From outside, an ioctl and a guest's store happen whole. So the schedule is put in an order of whole operations and
//! accesses, and the *model* is asked whether the claim still breaks in that order: what lay within something else comes
//! before or behind it, and every such order is tried. Where none breaks the claim, as a schedule with the fewest blocks
//! likes to lie within a store, every order of whole operations and accesses of the same scenario is tried, the shortest
//! first. Only an order that breaks the claim is written down. Two things that lie within an ioctl can be made to happen
//! all the same: a signal, by a timer, and the elements of a string instruction that KVM emulates.
//!
//! The file has no expected results but one: pages that differ from the copy and that nobody will copy any more.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt::Write;
use std::rc::Rc;

use dirtysim_model::op::{ClearMask, HarvestWay, Into, Op, SetMemoryRegion};
use dirtysim_model::oracle::{self, Invariant};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Large;
use dirtysim_model::state::vcpu::{NO_FRAME, Pc};
use dirtysim_model::transition::{Actor, Choice, Step, apply, describe, for_each_choice};
use dirtysim_model::words::Arch;
use serde_json::{Value, json};

use super::{MOST_VCPUS, RUNTIME, in_comment};
use crate::explain::{Story, for_a_mail, op_words};
use crate::ladder::large;
use crate::plain::paragraph;
use crate::scenario::Scenario;

const SCHEDULE: &str = include_str!("schedule.c");

/// Why a schedule cannot be written as C: what, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unforced {
    /// What.
    pub problem: String,
    /// What to do.
    pub help: String,
}

impl Unforced {
    fn new(problem: impl std::convert::Into<String>, help: &str) -> Self {
        Self {
            problem: problem.into(),
            help: help.to_owned(),
        }
    }
}

/// Where the guest's own memory stands, and that which the scenario is about.
const OWN_SLOT: u32 = 500;
const OWN_BYTES: u64 = 16 * 4096;
const DATA_GPA: u64 = 0x1000_0000;
const PAGE_BYTES: u64 = 4096;
/// A ring of 4,096 entries, which no schedule's stores fill.
const RING_BYTES: u64 = 65_536;
/// Room for every page of a schedule in which a signal has to meet RESET, and the pages that one of its pages stands for then: enough that
/// RESET takes longer than a timer needs.
const RESET_RING_BYTES: u64 = 16_384 * 16;
const RESET_SCALE: u64 = 4_096;
/// The smallest ring that a kernel takes, and the pages that one stands for where it has to overflow.
const OVERFLOW_RING_BYTES: u64 = 4_096;
const OVERFLOW_SCALE: u64 = 256;
/// Operations and accesses that lie within others, at most: each can come before them or behind.
const MOST_WITHIN: usize = 8;
/// Steps of one operation or access.
const MOST_STEPS: usize = 10_000;
/// Operations and accesses that are tried in the search for an order.
const MOST_TRIED: usize = 500_000;
/// Moments within one RESET at which a signal is tried.
const MOST_CUTS: usize = 6;

/// Something that happens whole.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// An operation of a thread, by its place in the program.
    Op(usize, u16),
    /// A store or a load of a vCPU's.
    Access(usize, u32, bool),
    /// A string of stores that KVM emulates.
    String(usize, u32),
}

/// That, with where the schedule has it.
#[derive(Debug, Clone)]
struct Item {
    what: What,
    /// Its first and its last step, from 1 on.
    first: usize,
    last: usize,
    /// The names of its steps; none where it goes by itself.
    words: Vec<&'static str>,
    /// A signal is seen within it, at that opportunity; of a schedule's own, its words say when.
    cut: Option<usize>,
}

impl Item {
    /// Whether a signal is seen within it.
    fn is_cut(&self) -> bool {
        self.cut.is_some() || self.words.contains(&CUT)
    }

    /// One that goes by itself.
    fn new(what: What, cut: Option<usize>) -> Self {
        Self {
            what,
            first: 0,
            last: 0,
            words: Vec::new(),
            cut,
        }
    }

    fn actor(&self) -> Actor {
        match self.what {
            What::Op(thread, _) => Actor::Thread(thread as u8),
            What::Access(vcpu, ..) | What::String(vcpu, _) => Actor::Vcpu(vcpu as u8),
        }
    }
}

/// The word of the step in which KVM sees a signal within RESET.
const CUT: &str = "reset-signal";
/// The word of a store that KVM makes in a vCPU's context.
const RECORD: &str = "kernel-record-write";

/// The schedule as a C file; `story` is its story, `file` what the trace is called.
///
/// # Errors
/// What of it no VMM can make happen, or has no C.
pub fn schedule_to_c(
    scenario: &Scenario,
    steps: &[Step],
    story: &Story,
    file: &str,
) -> Result<String, Unforced> {
    let target = refuse(scenario, story)?;
    let items = items(scenario, steps);
    let own = forced(scenario, &items, target);
    let is_own = own.is_some();
    let order = match own {
        Some(order) => order,
        None => {
            searched(scenario, target).map_err(|none| unforced(scenario, &items, target, none))?
        }
    };
    let is_cut = order.iter().any(Item::is_cut);
    let overflows = target == Invariant::RingNeverOverflows;
    if overflows
        && !order
            .iter()
            .any(|item| matches!(item.what, What::String(..)))
    {
        return Err(Unforced::new(
            "the ring overflows without a string instruction that KVM emulates",
            "a kernel's reserve is not scaled down as this one is: nothing overflows it in this way",
        ));
    }
    if scenario.ring_entries() > 0 && !overflows && !breaks(&roomy(scenario)?, &order, target) {
        return Err(Unforced::new(
            "what is shown hangs on a ring that is scaled down",
            "a kernel's smallest ring has 256 entries: write ring = { entries = 32, reserved = 4 } and check again",
        ));
    }
    let (scale, ring_bytes) = match (is_cut, overflows) {
        (true, _) => (RESET_SCALE, RESET_RING_BYTES),
        (_, true) => (OVERFLOW_SCALE, OVERFLOW_RING_BYTES),
        _ => (1, RING_BYTES),
    };
    let written = Writer {
        scenario,
        scale,
        ring_bytes,
        overflows,
    };
    let mut body = written.set_up()?;
    for item in &order {
        body.push_str(&written.item(item)?);
    }
    // A timer misses more often than it meets.
    let attempts = if is_cut {
        "\tfor (int attempt = 0; attempt < 64; attempt++)\n"
    } else {
        ""
    };
    let mut out = comment(&written, story, file, &order, is_own);
    out.push_str("#define RING_PAGE_OFFSET (unsigned long long)KVM_DIRTY_LOG_PAGE_OFFSET\n");
    out.push_str(RUNTIME);
    let _ = writeln!(out, "\n#define OWN_SLOT {OWN_SLOT}u");
    out.push_str(SCHEDULE);
    let seen = if overflows {
        "overwritten"
    } else {
        "lost_pages(0)"
    };
    let missed = if is_cut {
        "\tprintf(\"no signal cut RESET short and lost what it had counted (Linux 6.17 and later look for one)\\n\");\n"
    } else {
        ""
    };
    let _ = write!(
        out,
        "\n/* How many pages are lost, or entries written over. */\nstatic uint64_t schedule(void)\n{{\n\tuint64_t seen;\n\n{body}\tseen = {seen};\n\tclose_vm(0);\n\tforget_all();\n\treturn seen;\n}}\n\
         \nint main(void)\n{{\n\tstart(\"{}\");\n{attempts}\tif (schedule()) {{\n\t\tprintf(\"reproduced\\n\");\n\t\treturn REPRODUCED;\n\t}}\n{missed}\tprintf(\"NOT reproduced\\n\");\n\treturn DIFFERENT;\n}}\n",
        arch(scenario).unwrap_or_default(),
    );
    Ok(out)
}

/// The scenario with the largest ring that one has: what still breaks then does not hang on how far the ring was scaled down.
fn roomy(scenario: &Scenario) -> Result<Scenario, Unforced> {
    let mut source = scenario.source.clone();
    if let Some(machine) = source.get_mut("machine").and_then(Value::as_object_mut) {
        machine.insert("ring".into(), json!({ "entries": 32, "reserved": 4 }));
    }
    Scenario::from_json(&scenario.name, &source)
        .map_err(|error| Unforced::new(error.problem.clone(), &error.help))
}

fn arch(scenario: &Scenario) -> Option<&'static str> {
    match scenario.machine.arch {
        Arch::X86 => Some("x86_64"),
        Arch::Arm64 => Some("arm64"),
        _ => None,
    }
}

/// What has no C whatever its order is.
fn refuse(scenario: &Scenario, story: &Story) -> Result<Invariant, Unforced> {
    let machine = &scenario.machine;
    let on_its_own = "take what a VMM's own calls do to a kernel that is right";
    let Some(target) = story.invariant else {
        return Err(Unforced::new(
            "the schedule breaks no claim",
            "there is nothing to reproduce; `dirtysim replay` says what it does",
        ));
    };
    if !matches!(
        target,
        Invariant::NoDirtyPageLost | Invariant::RingNeverOverflows
    ) {
        return Err(Unforced::new(
            format!("no VMM sees that {} is broken", target.name()),
            "take a schedule that loses a page (no_dirty_page_lost) or overflows a ring (ring_never_overflows)",
        ));
    }
    if let Some(mutation) = machine.mutations().iter().next() {
        return Err(Unforced::new(
            format!("the wrong behaviour `{}` is switched on", mutation.name()),
            "no kernel is known to have it; take a schedule without mutations",
        ));
    }
    if arch(scenario).is_none() {
        return Err(Unforced::new(
            format!("no guest is written for {}", machine.arch.name()),
            "there are guests for x86 and arm64",
        ));
    }
    if !machine.devices.is_empty() || scenario.any_pages {
        return Err(Unforced::new(
            "devices, and any number of pages, have no C",
            on_its_own,
        ));
    }
    if machine.slots.iter().any(|slot| slot.huge) {
        return Err(Unforced::new(
            "huge pages have no C in a schedule",
            "a recording of them has: traces/kernel/arm64-linux-6.12.117.ring-huge-page.trace.jsonl",
        ));
    }
    if machine.vcpus.len() > MOST_VCPUS as usize {
        return Err(Unforced::new(
            format!("{} vCPUs", machine.vcpus.len()),
            "there are 8 places",
        ));
    }
    Ok(target)
}

/// A schedule taken apart.
fn items(scenario: &Scenario, steps: &[Step]) -> Vec<Item> {
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
fn within(items: &[Item]) -> Vec<usize> {
    let has_others = |one: &usize| {
        let item = &items[*one];
        items
            .iter()
            .any(|other| item.first < other.first && other.first < item.last)
    };
    (0..items.len()).filter(has_others).collect()
}

/// The schedule's own order, in which the claim breaks with everything whole: what has others in it comes where it begins, or where it ends.
fn forced(scenario: &Scenario, items: &[Item], target: Invariant) -> Option<Vec<Item>> {
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
enum NoOrder {
    /// There is none.
    AllTried,
    /// There are too many.
    TooMany,
}

/// The shortest order of whole operations and accesses of the scenario that breaks the claim.
fn searched(scenario: &Scenario, target: Invariant) -> Result<Vec<Item>, NoOrder> {
    let machine = &scenario.machine;
    let start = large(scenario);
    let mut known = HashSet::from([start.clone()]);
    let mut tried = 0;
    let mut open: VecDeque<(State<Large>, Option<Rc<Way>>)> = VecDeque::from([(start, None)]);
    while let Some((state, way)) = open.pop_front() {
        let frames: Vec<u32> = machine
            .slots
            .iter()
            .flat_map(|slot| slot.frame..slot.frame + slot.npages)
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
fn unforced(scenario: &Scenario, items: &[Item], target: Invariant, none: NoOrder) -> Unforced {
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

/// Whether the claim breaks when all of that happens whole, one after the other.
fn breaks(scenario: &Scenario, order: &[Item], target: Invariant) -> bool {
    let mut told = Told {
        scenario,
        state: large(scenario),
        target,
        broken: false,
    };
    for item in order {
        if told.broken || !told.whole(item) {
            break;
        }
    }
    told.broken
}

/// The model, driven item by item.
struct Told<'a> {
    scenario: &'a Scenario,
    state: State<Large>,
    target: Invariant,
    broken: bool,
}

impl Told<'_> {
    fn take(&mut self, actor: Actor, choice: Choice) {
        let machine = &self.scenario.machine;
        let effect = apply(machine, &mut self.state, Step { actor, choice });
        self.broken |= oracle::check(machine, &self.state, effect).has(self.target);
    }

    /// The possible choices of somebody, with the names of their steps.
    fn choices(&self, actor: Actor) -> Vec<(Choice, &'static str)> {
        let machine = &self.scenario.machine;
        let mut found = Vec::new();
        for_each_choice(machine, &self.state, actor, |choice| {
            let word = describe(machine, &self.state, Step { actor, choice });
            found.push((choice, word.name()));
        });
        found
    }

    /// A step that a vCPU takes without a new access of the guest's.
    fn vcpu_goes_on(&mut self, vcpu: usize) -> bool {
        let actor = Actor::Vcpu(vcpu as u8);
        let begins = |choice: &Choice| matches!(choice, Choice::Store(_) | Choice::Load(_));
        let next = self
            .choices(actor)
            .into_iter()
            .find(|(choice, word)| !begins(choice) && *word != RECORD && *choice != Choice::Fail);
        if let Some((choice, _)) = next {
            self.take(actor, choice);
        }
        next.is_some()
    }

    /// Takes an item whole; false where that is not possible.
    fn whole(&mut self, item: &Item) -> bool {
        match item.what {
            What::Op(thread, op) => self.op(thread, op, item),
            What::Access(vcpu, frame, store) => self.access(vcpu, frame, store),
            What::String(vcpu, _) => self.string(vcpu, item),
        }
    }

    fn op(&mut self, thread: usize, op: u16, item: &Item) -> bool {
        let actor = Actor::Thread(thread as u8);
        if self.state.threads[thread].op != op {
            return false;
        }
        let mut begun = false;
        let mut words = item.words.iter().peekable();
        let mut left = item.cut;
        for _ in 0..MOST_STEPS {
            if begun && self.state.threads[thread].op != op {
                // A signal that found no opportunity is another item.
                return left.is_none();
            }
            let choices = self.choices(actor);
            let signal = choices
                .iter()
                .find(|(choice, _)| *choice == Choice::Signal)
                .filter(|_| item.words.is_empty());
            if let (Some(&(choice, _)), Some(opportunity)) = (signal, left) {
                left = opportunity.checked_sub(1);
                if left.is_none() {
                    self.take(actor, choice);
                    begun = true;
                    continue;
                }
            }
            // As the schedule goes on, where it can; else as it goes by itself.
            let wanted = words.peek().copied();
            let as_told = choices.iter().find(|(_, word)| Some(word) == wanted);
            let by_itself = || {
                choices
                    .iter()
                    .find(|(choice, _)| !matches!(choice, Choice::Signal | Choice::SendFails(_)))
            };
            match as_told.or_else(by_itself) {
                Some(&(choice, word)) => {
                    if Some(&word) == wanted {
                        words.next();
                    }
                    self.take(actor, choice);
                    begun = true;
                }
                // It waits for the guest to leave.
                None => {
                    let vcpus = self.state.vcpus.len();
                    if !(0..vcpus).any(|vcpu| self.vcpu_goes_on(vcpu)) {
                        return false;
                    }
                }
            }
            if self.broken {
                return true;
            }
        }
        false
    }

    fn access(&mut self, vcpu: usize, frame: u32, store: bool) -> bool {
        let actor = Actor::Vcpu(vcpu as u8);
        let wanted = if store {
            Choice::Store(frame)
        } else {
            Choice::Load(frame)
        };
        let mut begun = false;
        for _ in 0..MOST_STEPS {
            let here = &self.state.vcpus[vcpu];
            if begun && here.pc == Pc::Guest && here.frame == NO_FRAME {
                return true;
            }
            let can = self
                .choices(actor)
                .iter()
                .any(|(choice, _)| *choice == wanted);
            if !begun && can {
                self.take(actor, wanted);
                begun = true;
            } else if !self.vcpu_goes_on(vcpu) {
                return false;
            }
        }
        false
    }

    /// The elements that the schedule has.
    fn string(&mut self, vcpu: usize, item: &Item) -> bool {
        let actor = Actor::Vcpu(vcpu as u8);
        // By itself it stores all that is left of it.
        let mut left = match item.words.iter().filter(|word| **word == RECORD).count() {
            0 => usize::from(self.state.vcpus[vcpu].steal),
            some => some,
        };
        if left == 0 || !self.scenario.machine.vcpus[vcpu].own_stores {
            return false;
        }
        for _ in 0..MOST_STEPS {
            let here = &self.state.vcpus[vcpu];
            let is_marked = here.push == 0 && here.owed == NO_FRAME;
            if self.broken || left == 0 && is_marked {
                return true;
            }
            let choices = self.choices(actor);
            let record = choices.iter().find(|(_, word)| *word == RECORD && left > 0);
            if let Some(&(choice, _)) = record {
                self.take(actor, choice);
                left -= 1;
            } else if !self.vcpu_goes_on(vcpu) {
                return false;
            }
        }
        false
    }
}

/// An item in words.
fn words(scenario: &Scenario, item: &Item) -> String {
    match item.what {
        What::Op(thread, op) => {
            let op = scenario.machine.programs[thread].get(usize::from(op));
            op.map_or_else(String::new, |op| op_words(scenario, op))
        }
        What::Access(vcpu, frame, true) => {
            format!("vcpu{vcpu} stores to {}", scenario.frame_name(frame))
        }
        What::Access(vcpu, frame, false) => {
            format!("vcpu{vcpu} loads from {}", scenario.frame_name(frame))
        }
        What::String(vcpu, frame) => format!(
            "vcpu{vcpu} copies to {} by one string instruction, from where no memory is",
            scenario.frame_name(frame)
        ),
    }
}

/// What the file is about, for whoever opens it.
fn comment(
    written: &Writer<'_>,
    story: &Story,
    file: &str,
    order: &[Item],
    is_own: bool,
) -> String {
    let scenario = written.scenario;
    let is_cut = order.iter().any(Item::is_cut);
    let mut text = String::new();
    let mut add = |words: &str| {
        paragraph(&mut text, &in_comment(words), " * ", " * ", 80);
        text.push_str(" *\n");
    };
    add(&format!("{}: {}", scenario.name, scenario.sentence));
    add(&format!(
        "Made by dirtysim {} from {file}, a schedule of its model of KVM ({}). Every call and every access in the code is made whole, in this order; in the model {} breaks in this order.",
        env!("CARGO_PKG_VERSION"),
        story.machine,
        story.invariant.map_or("no claim", Invariant::name),
    ));
    for line in for_a_mail(story).lines() {
        let line = in_comment(line);
        let line = line.trim_end();
        text.push_str(if line.is_empty() { " *" } else { " * " });
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(" *\n");
    let mut add = |words: &str| {
        paragraph(&mut text, &in_comment(words), " * ", " * ", 80);
        text.push_str(" *\n");
    };
    if !is_own {
        add(
            "Not forced: the schedule above, in which some of these lie within others, step by step in the kernel. What is made happen here is another one of the same scenario, with every call and every access whole, one after the other, which breaks the same claim.",
        );
    } else if !within(order).is_empty() {
        add(
            "Not forced: in the schedule some of these overlap, step by step in the kernel. Here they come one after the other, and the claim breaks this way as well.",
        );
    }
    if is_cut {
        add(&format!(
            "Not forced: where in KVM_RESET_DIRTY_RINGS the signal is seen. A timer aims, and it is tried again until RESET is cut short; each page of the schedule is {} here, so that RESET takes long enough. What is lost must be among those that RESET counted as reset.",
            written.scale
        ));
    }
    if written.overflows {
        add(&format!(
            "The ring has {} entries here. Stores bring it to just below its soft limit, then the guest copies a page, 512 elements, by one string instruction.",
            written.ring_bytes / 16
        ));
    } else if scenario.ring_entries() > 0 {
        add(&format!(
            "The ring has {} entries here and {} in the schedule: what is shown does not hang on its size.",
            written.ring_bytes / 16,
            scenario.ring_entries()
        ));
    }
    add(
        "gcc -Wall -O1 -o reproducer FILE.c && ./reproducer, as somebody who may open /dev/kvm. Exit code: 0 reproduced, 1 not reproduced on this kernel, 4 skipped: no KVM here, another architecture, or a capability that it lacks.",
    );
    let text = text.trim_end().trim_end_matches('*').trim_end();
    format!("// SPDX-License-Identifier: MIT OR Apache-2.0\n/*\n{text}\n */\n")
}

/// Items as C.
struct Writer<'a> {
    scenario: &'a Scenario,
    /// Pages that one of the schedule's stands for.
    scale: u64,
    ring_bytes: u64,
    overflows: bool,
}

impl Writer<'_> {
    fn line(text: &str) -> String {
        format!("\t{text};\n")
    }

    /// A VM, the guest's own memory, and what the scenario has before its schedules begin.
    fn set_up(&self) -> Result<String, Unforced> {
        let mut out = Self::line("create_vm(0)");
        let mut vcpu = 0;
        for op in &self.scenario.setup {
            match op {
                Op::CreateVcpu => {
                    out.push_str(&Self::line(&format!("create_vcpu(0, 0, {vcpu}, 0)")));
                    out.push_str(&Self::line(&format!("vcpu_init(0, {vcpu})")));
                    if self.scenario.ring_entries() > 0 {
                        out.push_str(&Self::line(&format!("map_ring(0, 0, {vcpu}, 0)")));
                    }
                    vcpu += 1;
                }
                op => out.push_str(&self.op(0, op, 0)?),
            }
        }
        // Capabilities are enabled before there is a memslot.
        out.push_str(&Self::line(&format!(
            "set_memory(0, 0, (struct region){{ .slot = OWN_SLOT, .bytes = {OWN_BYTES:#x}ull, .own = 1 }}, 0)"
        )));
        Ok(out)
    }

    fn item(&self, item: &Item) -> Result<String, Unforced> {
        let said = in_comment(&words(self.scenario, item));
        let mut out = match item.actor() {
            Actor::Thread(thread) if self.scenario.machine.programs.len() > 1 => {
                format!("\t/* VMM{thread}: {said} */\n")
            }
            Actor::Thread(_) => format!("\t/* VMM: {said} */\n"),
            _ => format!("\t/* {said} */\n"),
        };
        let page = |frame: u32| {
            let machine = &self.scenario.machine;
            let slot = machine
                .slot_of_frame(frame)
                .map(|slot| &machine.slots[slot]);
            slot.map(|slot| (slot.number(), u64::from(frame - slot.frame) * self.scale))
                .ok_or_else(|| Unforced::new("an access outside every memslot", "it has no C"))
        };
        out.push_str(&match item.what {
            What::Op(thread, op) => {
                let op = &self.scenario.machine.programs[thread][usize::from(op)];
                match op {
                    Op::ResetRings(_) if item.is_cut() => Self::line("reset_with_signal(0)"),
                    op => self.op(thread, op, item.first + 1)?,
                }
            }
            What::Access(vcpu, frame, store) => {
                let (slot, first) = page(frame)?;
                if self.overflows && store {
                    Self::line(&format!("fill_ring(0, {vcpu}, {slot}, {first})"))
                } else {
                    let bytes = if store { 8 } else { 0 };
                    Self::line(&format!(
                        "access_pages(0, {vcpu}, {slot}, {first}, {}, {bytes})",
                        self.scale
                    ))
                }
            }
            What::String(vcpu, frame) => {
                let (slot, first) = page(frame)?;
                Self::line(&format!("copy_string(0, {vcpu}, {slot}, {first})"))
            }
        });
        Ok(out)
    }

    fn into(into: Into, thread: usize) -> Result<String, Unforced> {
        match into {
            Into::Pending => Ok("PENDING".to_owned()),
            Into::Hand => Ok(format!("HANDS + {thread}")),
            Into::Nowhere => Ok("NOWHERE_SET".to_owned()),
            Into::OwnLog => Err(Unforced::new(
                "the VMM's own log has no C",
                "take a schedule without one",
            )),
        }
    }

    /// An operation; where the guest is not running, nothing has to be waited for.
    fn op(&self, thread: usize, op: &Op, line: usize) -> Result<String, Unforced> {
        Ok(Self::line(&match op {
            Op::EnableCap(cap) => {
                let args0 = match self.scenario.ring_entries() {
                    entries if entries > 0 && matches!(cap.cap, 192 | 223) => self.ring_bytes,
                    _ => cap.args0,
                };
                format!("enable(0, {}, {}u, {args0:#x}ull)", cap.cap, cap.flags)
            }
            Op::SetMemoryRegion(SetMemoryRegion {
                slot,
                flags,
                gpa,
                bytes,
                hva,
                template,
            }) => {
                let slots = &self.scenario.machine.slots;
                let known = slots.get(usize::from(*template));
                let host = known.map_or(0, |slot| {
                    u64::from(slot.host) * PAGE_BYTES + hva.saturating_sub(slot.hva)
                });
                format!(
                    "set_memory({line}, 0, (struct region){{ .slot = {slot}, .flags = {flags}u, .gpa = {:#x}ull, .bytes = {:#x}ull, .name = 1, .offset = {:#x}ull }}, 0)",
                    DATA_GPA + gpa * self.scale,
                    bytes * self.scale,
                    host * self.scale
                )
            }
            Op::GetDirtyLog(get) if !get.bad_pointer => {
                format!("get(0, {}, {})", get.slot, Self::into(get.into, thread)?)
            }
            Op::ClearDirtyLog(clear) if !clear.bad_pointer => {
                let (first, count) = (
                    clear.first_page * self.scale,
                    u64::from(clear.num_pages) * self.scale,
                );
                let slots = &self.scenario.machine.slots;
                let slot = slots.iter().find(|slot| slot.number() == clear.slot);
                let all = slot.map_or(0, |slot| u64::from(slot.npages) * self.scale);
                if first % 64 != 0 || (count % 64 != 0 && first + count != all) {
                    return Err(Unforced::new(
                        format!(
                            "KVM_CLEAR_DIRTY_LOG of {count} pages from {first} on: its words are scaled down"
                        ),
                        "KVM takes whole words of 64 pages; clear whole memslots",
                    ));
                }
                let which = match clear.mask {
                    ClearMask::Seen => 0,
                    ClearMask::All => 1,
                    ClearMask::List(_) => {
                        return Err(Unforced::new(
                            "KVM_CLEAR_DIRTY_LOG of a list of pages",
                            "it has no C",
                        ));
                    }
                };
                format!("clear(0, {}, {first}, {count}, {which})", clear.slot)
            }
            Op::ResetRings(_) => "reset(0)".to_owned(),
            Op::Harvest(harvest) if harvest.way == HarvestWay::Right => {
                let only = harvest
                    .vcpu
                    .map_or("-1".to_owned(), |vcpu| vcpu.to_string());
                let max = match u64::from(harvest.max) {
                    max if max >= u64::from(self.scenario.ring_entries()) => "~0ull".to_owned(),
                    max => format!("{}ull", max * self.scale),
                };
                format!(
                    "collect(0, {only}, {max}, {})",
                    Self::into(harvest.into, thread)?
                )
            }
            Op::CopyAll => "take_all(0);\n\tcopy_pending(0)".to_owned(),
            Op::TakeAll => "take_all(0)".to_owned(),
            Op::Copy => "copy_pending(0)".to_owned(),
            Op::Publish => format!("publish(0, {thread})"),
            Op::Forget => "forget_pending(0)".to_owned(),
            Op::Kick(_)
            | Op::WaitKicked
            | Op::WaitStopped
            | Op::Resume
            | Op::WaitRingFull
            | Op::AckRingFull
            | Op::JoinThread(_)
            | Op::Lock(_)
            | Op::Unlock(_)
            | Op::Signal(_)
            | Op::WaitSignal(_)
            | Op::WaitRunning
            | Op::Again(_)
            | Op::PassUnless(_)
            | Op::OnError(_)
            | Op::Finish(_) => return Ok(String::new()),
            other => {
                return Err(Unforced::new(
                    format!(
                        "`{}` as it stands here has no C",
                        op_words(self.scenario, other)
                    ),
                    "enabling, memslots, GET, CLEAR, RESET, harvests, copies and stops have",
                ));
            }
        }))
    }
}
