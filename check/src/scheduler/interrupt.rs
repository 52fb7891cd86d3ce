//! Whoever acts goes on until he is interrupted, within the kernel or between two operations, and is then held while others act.
//!
//! A race between two ioctls, or between an ioctl and a guest, wants one side to stand still at an exact step while the other
//! takes dozens: a walk in which every step is as likely as another nearly never does that, and PCT has as many such moments as
//! its depth, wherever they fall. Here they fall where they matter.

use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::vcpu::Pc;
use dirtysim_model::transition::{Actor, Step};

use crate::random::Choices;

/// Of so many steps within the kernel, one is interrupted: drawn for each schedule, since some races want few interruptions.
/// Of some thirty sets of these numbers that were tried, some find one kind of bug twice as often and miss another; these are good at all
/// that `cargo bench --bench schedulers` looks for.
const WITHIN: [u32; 3] = [6, 12, 24];

/// Of so many steps elsewhere: between two operations, in the guest.
const ELSEWHERE: [u32; 3] = [2, 4, 8];

/// Somebody is held for so many of others' steps at most, as a power of two; this one drawn, for as long as anybody else can act.
const FOR_EVER: u32 = 6;

/// The state of one schedule.
pub(crate) struct Interrupt {
    at_work: Option<Actor>,
    /// Who is held, and for how many more steps.
    held: Vec<(Actor, u32)>,
    within: u32,
    elsewhere: u32,
}

impl Interrupt {
    pub(super) fn new(choices: &mut Choices) -> Self {
        let pick =
            |from: &[u32], choices: &mut Choices| from[choices.below(from.len() as u32) as usize];
        Self {
            at_work: None,
            held: Vec::new(),
            within: pick(&WITHIN, choices),
            elsewhere: pick(&ELSEWHERE, choices),
        }
    }

    /// Who acts.
    pub(super) fn next<L: Layout>(
        &mut self,
        state: &State<L>,
        possible: &[Step],
        choices: &mut Choices,
    ) -> Actor {
        for (_, steps) in &mut self.held {
            *steps -= 1;
        }
        self.held.retain(|(_, steps)| *steps > 0);
        let can = |actor: Actor| possible.iter().any(|step| step.actor == actor);
        if let Some(actor) = self.at_work.filter(|actor| can(*actor)) {
            let one_in = if is_within_kernel(state, actor) {
                self.within
            } else {
                self.elsewhere
            };
            if choices.below(one_in) != 0 {
                return actor;
            }
            let steps = match choices.below(FOR_EVER + 1) {
                FOR_EVER => u32::MAX,
                power => 1 + choices.below(1 << power),
            };
            self.held.push((actor, steps));
        }
        let is_held = |actor: Actor| self.held.iter().any(|(held, _)| *held == actor);
        let mut free: Vec<Actor> = Vec::with_capacity(8);
        for step in possible {
            if !free.contains(&step.actor) && !is_held(step.actor) {
                free.push(step.actor);
            }
        }
        let actor = match free.len() {
            // Nobody else can act: whoever is held may go on.
            0 => {
                let step = possible[choices.below(possible.len() as u32) as usize];
                self.held.retain(|(held, _)| *held != step.actor);
                step.actor
            }
            several => free[choices.below(several as u32) as usize],
        };
        self.at_work = Some(actor);
        actor
    }
}

/// Whether an actor stands between two steps of the kernel's.
fn is_within_kernel<L: Layout>(state: &State<L>, actor: Actor) -> bool {
    match actor {
        Actor::Thread(thread) => state.threads[usize::from(thread)].stage != 0,
        Actor::Vcpu(vcpu) => match state.vcpus[usize::from(vcpu)].pc {
            Pc::User | Pc::Guest => false,
            Pc::Entry
            | Pc::StealMark
            | Pc::Flush
            | Pc::FlushOnly
            | Pc::Fault
            | Pc::Exit
            | Pc::ExitMark
            | Pc::PreFault => true,
        },
        Actor::Device(_) => false,
    }
}
