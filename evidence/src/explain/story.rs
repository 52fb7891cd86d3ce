//! Building a story: the schedule replayed, the page followed.

use dirtysim_model::machine::Machine;
use dirtysim_model::op::{self, Op};
use dirtysim_model::oracle::{self, Invariant};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::pages::HostPages;
use dirtysim_model::transition::{Actor, Effect, Step, apply, describe, for_each_step};
use dirtysim_model::words::HostPage;

use super::facts::Facts;
use super::overflow::{Overwritten, overwritten};
use super::rows::{Row, RowWriter};
use super::view::View;
use super::waits::{Waiting, Watch};
use crate::fidelity::never_seen;
use crate::first;
use crate::ladder::large;
use crate::scenario::Scenario;
use crate::shrink::{blocks, is_possible};
use crate::stuck::is_stuck;
use crate::trace::step::{actor_name, page_name};

/// What kind of actor a lane is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LaneKind {
    /// A vCPU.
    Vcpu,
    /// What the kernel writes in an ioctl of the VMM's, without a vCPU.
    Kernel,
    /// A device.
    Device,
    /// A thread of the VMM.
    Vmm,
}

/// A lane of the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// What it is for.
    pub kind: LaneKind,
    /// Its name.
    pub name: String,
    /// Who acts in it.
    pub(super) actor: Actor,
}

/// A step, and what it did to the page.
#[derive(Debug, Clone)]
pub struct Note {
    /// Its lane.
    pub lane: usize,
    /// Its block, from 1 on.
    pub block: usize,
    /// Its name in traces.
    pub name: &'static str,
    /// The page that it is about.
    pub page: Option<String>,
    /// What it did, in words.
    pub words: String,
    /// The followed page after it.
    pub facts: Facts,
    /// What it changed of the followed page, a sentence each.
    pub changes: Vec<String>,
}

/// Why no story can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoryError {
    /// The step of that number, from 1 on, is not possible.
    Impossible(usize),
}

impl std::fmt::Display for StoryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Impossible(number) = self;
        write!(f, "step {number} is not possible")
    }
}

impl std::error::Error for StoryError {}

/// What a schedule did, and to which page.
#[derive(Debug, Clone)]
pub struct Story {
    /// The scenario's name.
    pub scenario: String,
    /// What the scenario is about.
    pub sentence: String,
    /// The machine in a line.
    pub machine: String,
    /// The claims by which the scenario is judged, where it chooses them.
    pub judged_by: Option<Vec<&'static str>>,
    /// Constants that are scaled down, a line each.
    pub scaled: Vec<String>,
    /// What of the machine was read in the kernel's source and seen on no kernel.
    pub never_seen: Vec<&'static str>,
    /// Wrong behaviours that are switched on.
    pub mutations: Vec<String>,
    /// The claim that is broken at the last step; none if none is.
    pub invariant: Option<Invariant>,
    /// The pages that the claim is about, by name; the first is the one that is followed.
    pub pages: Vec<String>,
    /// The lanes that have steps, in the order in which they are shown.
    pub lanes: Vec<Lane>,
    /// vCPUs and devices that take no step.
    pub idle: Vec<String>,
    /// The number of blocks.
    pub blocks: usize,
    /// The followed page before the first step.
    pub start: Facts,
    /// The steps.
    pub notes: Vec<Note>,
    /// The lines.
    pub rows: Vec<Row>,
    /// The states: before the first step, and after each.
    pub views: Vec<View>,
    /// Slot names and sizes in pages, as the views number them.
    pub slots: Vec<(String, u32)>,
    /// The step, from 1 on, that made the page stale for the last time.
    pub written: Option<usize>,
    /// The step, from 1 on, after which nobody accounted for the page any more.
    pub dropped: Option<usize>,
    /// The steps, from 1 on, that belong to the page's record, from where it was last clean and armed.
    pub path: Vec<usize>,
    /// Where a ring overflows: what was written over.
    pub overwritten: Option<Overwritten>,
    /// Who has no step after the last one though it still has something to do, and for what it waits.
    pub waiting: Vec<Waiting>,
    /// What happened, in a few sentences.
    pub conclusion: Vec<String>,
    /// The command that shows it again.
    pub reproduce: String,
    /// Scenario and schedule as a mail carries them, where it should.
    pub enclosed: Option<String>,
}

impl Story {
    /// Replays `steps` and follows the page that `target` is about when it breaks.
    ///
    /// # Errors
    /// A step that is not possible.
    pub fn new(
        scenario: &Scenario,
        steps: &[Step],
        target: Option<Invariant>,
        reproduce: String,
    ) -> Result<Self, StoryError> {
        build(
            scenario,
            &large(scenario),
            steps,
            Follow::Claim(target),
            reproduce,
        )
    }

    /// Replays `steps` and follows a host page, whatever becomes of it.
    ///
    /// # Errors
    /// A step that is not possible.
    pub fn of_page(
        scenario: &Scenario,
        steps: &[Step],
        host: HostPage,
    ) -> Result<Self, StoryError> {
        build(
            scenario,
            &large(scenario),
            steps,
            Follow::Page(host),
            String::new(),
        )
    }

    /// The name of the lane of a step.
    #[must_use]
    pub fn who(&self, note: &Note) -> &str {
        &self.lanes[note.lane].name
    }
}

/// What a story is about.
#[derive(Clone, Copy)]
enum Follow {
    /// The page that this claim is about when it breaks; none: nothing.
    Claim(Option<Invariant>),
    /// A host page.
    Page(HostPage),
}

/// The pages that a broken claim is about.
fn claimed<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    effect: Effect,
    invariant: Invariant,
) -> Vec<HostPage> {
    let pages = match (invariant, effect) {
        (Invariant::NoDirtyPageLost, Effect::Claim { postcopy }) => {
            oracle::lost(machine, state, postcopy)
        }
        (Invariant::StalePageIsAccountedFor, _) => oracle::stale_unaccounted(machine, state),
        (Invariant::UnrecordedPageIsArmed, _) => oracle::unarmed(machine, state),
        (Invariant::NoSpuriousDirtyPage, _) => state.spurious.clone(),
        _ => HostPages::default(),
    };
    pages.iter().collect()
}

/// The first pass: whether the claim breaks, how far to go, and which pages it is about.
fn find_end<L: Layout>(
    machine: &Machine,
    start: &State<L>,
    steps: &[Step],
    follow: Follow,
) -> Result<(usize, Option<Invariant>, Vec<HostPage>), StoryError> {
    let target = match follow {
        Follow::Claim(target) => target,
        Follow::Page(_) => None,
    };
    let mut state = start.clone();
    if let Some(invariant) = target
        && first::broken(machine, &state).has(invariant)
    {
        let pages = claimed(machine, &state, Effect::None, invariant);
        return Ok((0, Some(invariant), pages));
    }
    for (index, &step) in steps.iter().enumerate() {
        if !is_possible(machine, &state, step) {
            return Err(StoryError::Impossible(index + 1));
        }
        let effect = apply(machine, &mut state, step);
        if let Some(invariant) = target
            && oracle::check(machine, &state, effect).has(invariant)
        {
            let pages = claimed(machine, &state, effect, invariant);
            return Ok((index + 1, Some(invariant), pages));
        }
    }
    // These are about what comes after the last step.
    let endless = target.filter(|invariant| {
        matches!(
            invariant,
            Invariant::MigrationMakesProgress | Invariant::ProtocolEnds
        )
    });
    let pages = match follow {
        Follow::Claim(_) => Vec::new(),
        Follow::Page(host) => vec![host],
    };
    Ok((steps.len(), endless, pages))
}

/// The lanes of a machine, with those that stay empty.
fn all_lanes(machine: &Machine) -> Vec<Lane> {
    let lane = |kind, name: String, actor| Lane { kind, name, actor };
    let vcpus = (0..machine.vcpus.len() as u8)
        .map(|index| lane(LaneKind::Vcpu, format!("vcpu{index}"), Actor::Vcpu(index)));
    let threads = machine.programs.len() as u8;
    let kernel = (0..threads).map(|index| {
        let name = if threads == 1 {
            "kernel".to_owned()
        } else {
            format!("kernel{index}")
        };
        lane(LaneKind::Kernel, name, Actor::Thread(index))
    });
    let devices = (0..machine.devices.len() as u8).map(|index| {
        let actor = Actor::Device(index);
        lane(LaneKind::Device, actor_name(actor), actor)
    });
    let vmm = (0..threads).map(|index| {
        let name = if threads == 1 {
            "VMM".to_owned()
        } else {
            format!("VMM{index}")
        };
        lane(LaneKind::Vmm, name, Actor::Thread(index))
    });
    vcpus.chain(kernel).chain(devices).chain(vmm).collect()
}

/// The lane of a step that is possible in `state`.
fn lane_of<L: Layout>(machine: &Machine, state: &State<L>, lanes: &[Lane], step: Step) -> usize {
    let kind = match step.actor {
        Actor::Vcpu(_) => LaneKind::Vcpu,
        Actor::Device(_) => LaneKind::Device,
        Actor::Thread(thread) => {
            let op = usize::from(state.threads[usize::from(thread)].op);
            match machine.programs[usize::from(thread)].get(op) {
                Some(Op::KernelWrite(_)) => LaneKind::Kernel,
                _ => LaneKind::Vmm,
            }
        }
    };
    lanes
        .iter()
        .position(|lane| lane.actor == step.actor && lane.kind == kind)
        .expect("every actor has its lanes")
}

/// The name of the lane of a step that is possible in `state`.
pub(super) fn lane_of_step<L: Layout>(machine: &Machine, state: &State<L>, step: Step) -> String {
    let mut lanes = all_lanes(machine);
    let lane = lane_of(machine, state, &lanes, step);
    lanes.swap_remove(lane).name
}

fn build<L: Layout>(
    scenario: &Scenario,
    start: &State<L>,
    steps: &[Step],
    about: Follow,
    reproduce: String,
) -> Result<Story, StoryError> {
    let machine = &scenario.machine;
    let (end, invariant, hosts) = find_end(machine, start, steps, about)?;
    let steps = &steps[..end];
    let followed = hosts.first().copied();
    let facts_of = |state: &State<L>| {
        followed.map_or_else(Facts::default, |host| Facts::of(machine, state, host))
    };
    let every_lane = all_lanes(machine);
    let mut state = start.clone();
    let mut notes: Vec<Note> = Vec::with_capacity(steps.len());
    let mut watch = Watch::default();
    let view = |watch: &Watch, state: &State<L>| {
        let waiting = watch.tell(scenario, state, "VMM").into_iter();
        View::of(
            scenario,
            state,
            waiting.map(|waits| waits.sentence).collect(),
        )
    };
    let mut views = vec![view(&watch, &state)];
    let mut rows = RowWriter::new(scenario);
    let mut facts = facts_of(&state);
    let first_facts = facts.clone();
    let mut block = 0;
    let mut last_actor = None;
    for &step in steps {
        watch.note(machine, &state, step);
        if last_actor != Some(step.actor) {
            block += 1;
            last_actor = Some(step.actor);
        }
        let lane = lane_of(machine, &state, &every_lane, step);
        let word = describe(machine, &state, step);
        let page = page_name(scenario, &state, step);
        let before = state.clone();
        apply(machine, &mut state, step);
        let words = rows.step(block, lane, step, word, page.as_deref(), &before, &state);
        let after = facts_of(&state);
        let changes = after.changes(&facts);
        facts = after;
        notes.push(Note {
            lane,
            block,
            name: word.name(),
            page,
            words,
            facts: facts.clone(),
            changes,
        });
        views.push(view(&watch, &state));
    }
    let mut rows = rows.finish();
    let used: Vec<usize> = (0..every_lane.len())
        .filter(|lane| notes.iter().any(|note| note.lane == *lane))
        .collect();
    let idle = (0..every_lane.len())
        .filter(|lane| {
            !used.contains(lane)
                && matches!(every_lane[*lane].kind, LaneKind::Vcpu | LaneKind::Device)
        })
        .map(|lane| every_lane[lane].name.clone())
        .collect();
    let place = |lane: usize| used.iter().position(|used| *used == lane).unwrap_or(0);
    for note in &mut notes {
        note.lane = place(note.lane);
    }
    for row in &mut rows {
        row.lane = place(row.lane);
    }
    let mut story = Story {
        scenario: scenario.name.clone(),
        sentence: scenario.sentence.clone(),
        machine: machine_line(scenario),
        judged_by: scenario.chosen_claims(),
        scaled: scenario.scaled.clone(),
        never_seen: never_seen(&scenario.machine),
        mutations: machine
            .mutations()
            .iter()
            .map(|mutation| mutation.name().to_owned())
            .collect(),
        invariant,
        pages: hosts.iter().map(|&host| scenario.page_name(host)).collect(),
        lanes: used.iter().map(|&lane| every_lane[lane].clone()).collect(),
        idle,
        blocks: blocks(steps),
        start: first_facts.clone(),
        notes,
        rows,
        views,
        slots: machine
            .slots
            .iter()
            .map(|slot| (slot.name.clone(), slot.npages))
            .collect(),
        written: None,
        dropped: None,
        path: Vec::new(),
        overwritten: (invariant == Some(Invariant::RingNeverOverflows))
            .then(|| overwritten(scenario, start, steps))
            .flatten(),
        waiting: watch.tell(scenario, &state, "VMM"),
        conclusion: Vec::new(),
        reproduce,
        enclosed: None,
    };
    if followed.is_some() {
        follow(&mut story, &first_facts);
    }
    story.conclusion = conclude(&story, &first_facts);
    let over = story.overwritten.iter().map(|over| over.sentence.clone());
    story.conclusion.extend(over);
    if is_stuck(machine, &state) {
        let mut anybody = false;
        for_each_step(machine, &state, |_| anybody = true);
        let waiting = story.waiting.iter().map(|waiting| waiting.sentence.clone());
        let nobody = if anybody {
            "Nobody can act any more but who may have done enough."
        } else {
            "Nobody can act any more."
        };
        story.conclusion.push(nobody.to_owned());
        story.conclusion.extend(waiting);
    }
    if let Some(invariant) = story.invariant {
        if story.notes.is_empty() {
            let already = "It is broken in the first state, before anybody acts.".to_owned();
            story.conclusion.insert(0, already);
        }
        let why = first::no_full_copy(scenario, invariant);
        story.conclusion.extend(why.map(str::to_owned));
    }
    Ok(story)
}

fn machine_line(scenario: &Scenario) -> String {
    let machine = &scenario.machine;
    let pages: u32 = machine.slots.iter().map(|slot| slot.npages).sum();
    let count = |number: usize, what: &str| {
        format!("{number} {what}{}", if number == 1 { "" } else { "s" })
    };
    let mut line = format!(
        "{}, Linux {}, {}, {}",
        machine.arch.name(),
        machine.kernel.name(),
        count(machine.vcpus.len(), "vCPU"),
        count(pages as usize, "page")
    );
    if machine.slots.len() > 1 {
        line.push_str(&format!(" in {} memslots", machine.slots.len()));
    }
    if machine.pml {
        line.push_str(", PML");
    }
    match scenario.ring_entries() {
        0 => line.push_str(", dirty bitmap"),
        entries => {
            let with_bitmap = scenario.setup.iter().any(|op| {
                matches!(op, Op::EnableCap(op::EnableCap { cap, .. }) if *cap == dirtysim_model::machine::CAP_DIRTY_LOG_RING_WITH_BITMAP)
            });
            line.push_str(&format!(
                ", dirty ring of {entries} entries{}",
                if with_bitmap { " with bitmap" } else { "" }
            ));
        }
    }
    line
}

/// Finds the steps that matter to the page.
fn follow(story: &mut Story, first: &Facts) {
    let facts = |index: usize| match index {
        0 => first,
        _ => &story.notes[index - 1].facts,
    };
    let end = story.notes.len();
    let written = (1..=end)
        .rev()
        .find(|&index| facts(index).stale && !facts(index - 1).stale);
    let dropped = (1..=end)
        .rev()
        .find(|&index| facts(index).is_forgotten() && !facts(index - 1).is_forgotten())
        .filter(|_| facts(end).is_forgotten());
    // From the last moment at which there was nothing to say about the page.
    let from = (0..=end)
        .rev()
        .find(|&index| facts(index).is_quiet())
        .unwrap_or(0);
    let path: Vec<usize> = (from + 1..=end)
        .filter(|&index| !story.notes[index - 1].changes.is_empty())
        .collect();
    story.written = written;
    story.dropped = dropped;
    story.path = path;
}

/// Who did what in a step: "the kernel, in ITS_SAVE_TABLES, writes ram:3".
fn subject_and_verb(story: &Story, step: usize) -> String {
    let note = &story.notes[step - 1];
    let lane = &story.lanes[note.lane];
    let who = match lane.kind {
        LaneKind::Vcpu | LaneKind::Device => lane.name.clone(),
        LaneKind::Kernel | LaneKind::Vmm => format!("the {}", lane.name),
    };
    match note.words.split_once(": ") {
        Some(("harvest", verb)) => format!("{who}, in its harvest, {verb}"),
        Some((ioctl, verb)) => format!("{who}, in {ioctl}, {verb}"),
        None => format!("{who} {}", note.words),
    }
}

/// The story in sentences.
fn conclude(story: &Story, first: &Facts) -> Vec<String> {
    let Some(invariant) = story.invariant else {
        return vec!["No claim is broken.".to_owned()];
    };
    let Some(page) = story.pages.first() else {
        return vec![format!("Broken: {}", invariant.sentence())];
    };
    let end = story.notes.len();
    let facts = |index: usize| match index {
        0 => first,
        _ => &story.notes[index - 1].facts,
    };
    let act = |index: usize| format!("In step {index} {}", subject_and_verb(story, index));
    let mut said = Vec::new();
    match (story.dropped, story.written) {
        (Some(dropped), _) if !facts(dropped - 1).accounts.is_empty() => {
            let state = if facts(dropped).stale {
                "although its bytes differ from the copy".to_owned()
            } else if facts(dropped).leaf_open {
                "while it is still writable and a store to it is seen by nobody".to_owned()
            } else {
                let tlbs: Vec<String> = facts(dropped)
                    .tlbs
                    .iter()
                    .map(|vcpu| format!("vcpu{vcpu}"))
                    .collect();
                format!(
                    "while the TLB of {} still lets stores to it through unseen",
                    tlbs.join(", ")
                )
            };
            said.push(format!(
                "{}: from then on nobody accounts for {page} (until then: {}), {state}.",
                act(dropped),
                facts(dropped - 1).records()
            ));
        }
        (Some(dropped), written) if Some(dropped) != written => {
            said.push(format!(
                "{}: from then on a store to {page} is seen by nobody.",
                act(dropped)
            ));
        }
        _ => {}
    }
    match story.written {
        Some(written) => {
            let unseen = facts(written).is_forgotten();
            let after_loss = story.dropped.is_none_or(|dropped| dropped <= written);
            said.push(format!(
                "{}{}.",
                act(written),
                if unseen && after_loss {
                    ", and nobody records it"
                } else {
                    ": the write that is lost"
                }
            ));
            if story.dropped.is_some_and(|dropped| dropped > written) {
                // The write comes first.
                said.rotate_right(1);
            }
        }
        None if facts(end).stale => said.push(format!("{page} is never copied.")),
        None => {}
    }
    if story.dropped.is_none() && !facts(end).accounts.is_empty() {
        said.push(format!(
            "Its record is still there at the end ({}); nobody reads it any more.",
            facts(end).records()
        ));
    }
    said
}
