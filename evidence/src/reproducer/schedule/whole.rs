//! The model, driven by what happens whole.

use dirtysim_model::oracle::{self, Invariant};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Large;
use dirtysim_model::state::vcpu::{NO_FRAME, Pc};
use dirtysim_model::transition::{Actor, Choice, Step, apply, describe, for_each_choice};
use dirtysim_model::words::Frame;

use super::item::{Item, RECORD, What};
use crate::ladder::large;
use crate::scenario::Scenario;

/// Steps of one operation or access.
const MOST_STEPS: usize = 10_000;

/// Whether the claim breaks when all of that happens whole, one after the other.
pub(super) fn breaks(scenario: &Scenario, order: &[Item], target: Invariant) -> bool {
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
pub(super) struct Told<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) state: State<Large>,
    pub(super) target: Invariant,
    pub(super) broken: bool,
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
    pub(super) fn whole(&mut self, item: &Item) -> bool {
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

    fn access(&mut self, vcpu: usize, frame: Frame, store: bool) -> bool {
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
