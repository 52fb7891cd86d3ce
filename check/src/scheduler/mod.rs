//! Who acts next in a seeded schedule: one scheduler a file, and the mix of them, seed by seed.
//!
//! A scheduler is asked for one of the steps that are possible, and knows nothing of what they mean beyond who takes them and
//! whether somebody stands within the kernel. All that it draws comes from the seed: the same on any number of threads.
//!
//! ```
//! use dirtysim_check::scheduler::Scheduler;
//!
//! assert_eq!(Scheduler::Mix.of(0).name(), "interrupt");
//! assert_eq!(Scheduler::Random.of(0), Scheduler::Random);
//! ```

mod interrupt;
mod pct;

use std::fmt;

use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Actor, Step};

use crate::random::Choices;
use interrupt::Interrupt;
use pct::Priorities;

/// How the next step is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// Every possible step is as likely as another.
    Random,
    /// Probabilistic concurrency testing: the actor of the highest priority acts; priorities are random, and at
    /// `depth - 1` random steps the actor at work falls behind all others (Burckhardt et al., ASPLOS 2010).
    Pct {
        /// The number of ordering constraints that a bug may need; at least 1.
        depth: u32,
    },
    /// Whoever acts goes on, until he is interrupted: readily within the kernel, seldom elsewhere; then he is held for a
    /// while, short or long, in which the others act.
    Interrupt,
    /// The others in turn, by the seed: what one of them misses, another is likely to find.
    Mix,
}

/// The depths that the mix gives to PCT, in turn.
const DEPTHS: [u32; 4] = [3, 2, 4, 6];

impl Scheduler {
    /// The name on the command line and in documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Pct { .. } => "pct",
            Self::Interrupt => "interrupt",
            Self::Mix => "mix",
        }
    }

    /// The scheduler that has a seed: itself, or the one whose turn it is.
    #[must_use]
    pub fn of(self, seed: u64) -> Self {
        match self {
            Self::Random | Self::Pct { .. } | Self::Interrupt => self,
            // Of 32 seeds 19 have the one that finds most, 12 the one that finds what it does not, and 1 PCT. With these shares the
            // mix takes at most twice the schedules of the best, on all that `cargo bench --bench schedulers` looks for.
            Self::Mix => match (seed % 32, seed % 8) {
                (31, _) => Self::Pct {
                    depth: DEPTHS[(seed / 32 % 4) as usize],
                },
                (_, 1 | 4 | 6) => Self::Random,
                _ => Self::Interrupt,
            },
        }
    }

    /// What a run of schedules that broke nothing has not tried, in words.
    #[must_use]
    pub fn not_tried(self) -> &'static str {
        match self {
            Self::Random => {
                "orders in which one actor stands still while others take many steps are improbable: the mix (--scheduler mix) tries them"
            }
            Self::Pct { .. } => {
                "orders with more changes of who acts than the depth are not tried: the mix (--scheduler mix) tries them"
            }
            Self::Interrupt => {
                "orders in which several actors alternate at every step are improbable: the mix (--scheduler mix) tries them"
            }
            Self::Mix => {
                "orders that need several actors held at exact steps at once are improbable: `dirtysim check` tries every order"
            }
        }
    }

    /// A schedule's own scheduler. `length` is what a schedule has in steps, more or less.
    pub(crate) fn begin<L: Layout>(
        self,
        seed: u64,
        state: &State<L>,
        length: u64,
        choices: &mut Choices,
    ) -> Pick {
        match self.of(seed) {
            Self::Random | Self::Mix => Pick::Random,
            Self::Pct { depth } => Pick::Pct(Priorities::new(state, depth, length, choices)),
            Self::Interrupt => Pick::Interrupt(Interrupt::new(choices)),
        }
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pct { depth } => write!(f, "pct of depth {depth}"),
            Self::Mix => write!(f, "mix of random, pct of depths 2 to 6, interrupt"),
            Self::Random | Self::Interrupt => f.write_str(self.name()),
        }
    }
}

/// The scheduler of one schedule.
pub(crate) enum Pick {
    Random,
    Pct(Priorities),
    Interrupt(Interrupt),
    /// These steps, the next one last.
    Like(Vec<Step>),
}

impl Pick {
    /// Those of `steps` that are possible when their turn comes, in order; then any.
    pub(crate) fn like(mut steps: Vec<Step>) -> Self {
        steps.reverse();
        Self::Like(steps)
    }

    /// One of the steps that are possible; `taken` counts those before it.
    pub(crate) fn pick<L: Layout>(
        &mut self,
        state: &State<L>,
        possible: &mut Vec<Step>,
        taken: u64,
        choices: &mut Choices,
    ) -> Step {
        let actor = match self {
            Self::Random => None,
            Self::Pct(priorities) => Some(priorities.next(possible, taken)),
            Self::Interrupt(interrupt) => Some(interrupt.next(state, possible, choices)),
            Self::Like(steps) => {
                while let Some(step) = steps.pop() {
                    if possible.contains(&step) {
                        return step;
                    }
                }
                None
            }
        };
        if let Some(actor) = actor {
            possible.retain(|step| step.actor == actor);
        }
        possible[choices.below(possible.len() as u32) as usize]
    }

    /// A step was taken.
    pub(crate) fn took<L: Layout>(&mut self, state: &State<L>, actor: Actor) {
        match self {
            Self::Pct(priorities) => priorities.took(state, actor),
            Self::Random | Self::Interrupt(_) | Self::Like(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_gives_every_scheduler_its_turn() {
        let of: Vec<Scheduler> = (0..128).map(|seed| Scheduler::Mix.of(seed)).collect();
        let count = |wanted| of.iter().filter(|scheduler| **scheduler == wanted).count();
        assert_eq!(count(Scheduler::Interrupt), 4 * 19);
        assert_eq!(count(Scheduler::Random), 4 * 12);
        for depth in DEPTHS {
            assert!(of.contains(&Scheduler::Pct { depth }));
        }
        assert!(!of.contains(&Scheduler::Mix));
    }
}
