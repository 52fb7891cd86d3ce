//! Priorities that change at a few random steps (PCT).

use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::vcpu::Exit;
use dirtysim_model::transition::{Actor, Step};

use crate::random::Choices;

/// The priorities of the actors of one schedule.
pub(crate) struct Priorities {
    /// Actor and priority; the highest acts.
    of: Vec<(Actor, i64)>,
    /// Steps at which the actor at work falls, and to what.
    changes: Vec<(u64, i64)>,
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
        let changes = (1..depth)
            .map(|change| (u64::from(choices.below(span)), first - i64::from(change)))
            .collect();
        Self {
            of,
            changes,
            lowest: 0,
        }
    }

    /// Who acts: the one of the highest priority, who may have fallen just now.
    pub(super) fn next(&mut self, possible: &[Step], taken: u64) -> Actor {
        let actor = self.highest(possible);
        let Some(change) = self.changes.iter().position(|(at, _)| *at == taken) else {
            return actor;
        };
        let (_, priority) = self.changes.swap_remove(change);
        self.set(actor, priority);
        self.highest(possible)
    }

    /// A vCPU that exits 31 for ever must not keep everybody else from acting.
    pub(super) fn took<L: Layout>(&mut self, state: &State<L>, actor: Actor) {
        if let Actor::Vcpu(vcpu) = actor {
            let v = &state.vcpus[usize::from(vcpu)];
            if v.is_stopped() && v.exit == Exit::DirtyRingFull {
                self.lowest -= 1;
                self.set(actor, self.lowest);
            }
        }
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
