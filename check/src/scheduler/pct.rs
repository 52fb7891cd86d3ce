//! Priorities that change at a few random steps (PCT), or at a few random calls.

use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::vcpu::Exit;
use dirtysim_model::transition::{Actor, Step};

use super::is_within_kernel;
use crate::random::Choices;

/// The fewest calls over which changes are spread, and how many times that is doubled at most: one more than so many.
const FEWEST_CALLS: u32 = 4;
const DOUBLINGS: u32 = 5;
/// Steps in a row after which somebody falls behind: far more than any call of KVM's takes on the machines of scenarios.
const MOST_IN_A_ROW: u32 = 1_000;

/// The priorities of the actors of one schedule.
pub(crate) struct Priorities {
    /// Actor and priority; the highest acts.
    of: Vec<(Actor, i64)>,
    /// Steps at which the actor at work falls, and to what.
    changes: Vec<(u64, i64)>,
    /// Where they count moments between calls, and no steps: how many there were.
    calls: Option<u64>,
    /// Who acted last, and how many steps in a row.
    in_a_row: (Option<Actor>, u32),
    /// The lowest priority given so far.
    lowest: i64,
}

impl Priorities {
    pub(super) fn new<L: Layout>(
        state: &State<L>,
        depth: u32,
        length: u64,
        choices: &mut Choices,
    ) -> Self {
        let vcpus = (0..state.vcpus.len()).map(|index| Actor::Vcpu(index as u8));
        let threads = (0..state.threads.len()).map(|index| Actor::Thread(index as u8));
        let devices = (0..state.devices.len()).map(|index| Actor::Device(index as u8));
        let mut actors: Vec<Actor> = vcpus.chain(threads).chain(devices).collect();
        choices.shuffle(&mut actors);
        let first = i64::from(depth);
        let of = actors
            .into_iter()
            .enumerate()
            .map(|(index, actor)| (actor, first + index as i64))
            .collect();
        let span = u32::try_from(length).unwrap_or(u32::MAX);
        let changes = Self::changes(depth, span, choices);
        Self {
            of,
            changes,
            calls: None,
            in_a_row: (None, 0),
            lowest: 0,
        }
    }

    /// Those that change between calls alone.
    pub(super) fn of_calls<L: Layout>(state: &State<L>, depth: u32, choices: &mut Choices) -> Self {
        let few = Self::new(state, depth, 1, choices);
        // Nobody knows how many calls there will be: what comes early in a long program is as likely as what comes late in a short one.
        let span = FEWEST_CALLS << choices.below(DOUBLINGS);
        Self {
            changes: Self::changes(depth, span, choices),
            calls: Some(0),
            ..few
        }
    }

    fn changes(depth: u32, span: u32, choices: &mut Choices) -> Vec<(u64, i64)> {
        let first = i64::from(depth);
        (1..depth)
            .map(|change| (u64::from(choices.below(span)), first - i64::from(change)))
            .collect()
    }

    /// Who acts: the one of the highest priority, who may have fallen just now.
    pub(super) fn next<L: Layout>(
        &mut self,
        state: &State<L>,
        possible: &[Step],
        taken: u64,
    ) -> Actor {
        let mut actor = self.highest(possible);
        // Who waits for another by asking again and again must not keep him from acting.
        if self.in_a_row == (Some(actor), MOST_IN_A_ROW) {
            self.fall(actor);
            actor = self.highest(possible);
        }
        let taken = match &mut self.calls {
            None => taken,
            Some(_) if is_within_kernel(state, actor) => return actor,
            Some(calls) => {
                *calls += 1;
                *calls - 1
            }
        };
        let Some(change) = self.changes.iter().position(|(at, _)| *at == taken) else {
            return actor;
        };
        let (_, priority) = self.changes.swap_remove(change);
        self.set(actor, priority);
        self.highest(possible)
    }

    /// A vCPU that exits 31 for ever must not keep everybody else from acting.
    pub(super) fn took<L: Layout>(&mut self, state: &State<L>, actor: Actor) {
        let before = match self.in_a_row {
            (Some(last), steps) if last == actor => steps,
            _ => 0,
        };
        self.in_a_row = (Some(actor), before + 1);
        if let Actor::Vcpu(vcpu) = actor {
            let v = &state.vcpus[usize::from(vcpu)];
            if v.is_stopped() && v.exit == Exit::DirtyRingFull {
                self.fall(actor);
            }
        }
    }

    /// Behind all others, and behind those that fell before.
    fn fall(&mut self, actor: Actor) {
        self.lowest -= 1;
        self.set(actor, self.lowest);
    }

    fn set(&mut self, actor: Actor, priority: i64) {
        for (known, value) in &mut self.of {
            if *known == actor {
                *value = priority;
            }
        }
    }

    fn highest(&self, possible: &[Step]) -> Actor {
        let priority = |actor: Actor| {
            self.of
                .iter()
                .find(|(known, _)| *known == actor)
                .map_or(i64::MIN, |(_, p)| *p)
        };
        possible
            .iter()
            .map(|step| step.actor)
            .max_by_key(|actor| priority(*actor))
            .expect("some step is possible")
    }
}
