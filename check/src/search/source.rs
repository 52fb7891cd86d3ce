//! The transition function for states as words: where everything that a search knows of steps comes from.

use std::collections::BTreeSet;
use std::sync::Mutex;

use dirtysim_model::machine::Machine;
use dirtysim_model::reduce::independence::Rules;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Actor, Choice, Step, apply, for_each_choice};

use super::sections::Sections;
use super::tracked::others::{self, Tried};
use crate::refused::{Call, Refused};

/// A machine, how its states are packed, and what a search leaves out.
#[derive(Clone, Copy)]
pub(super) struct Source<'a, L: Layout> {
    pub(super) machine: &'a Machine,
    pub(super) sections: &'a Sections,
    pub(super) rules: &'a Rules,
    /// A template for states.
    pub(super) start: &'a State<L>,
    /// The ioctls that were refused.
    pub(super) refused: &'a Mutex<BTreeSet<Refused>>,
    /// With any number of pages: which values of the others are tried before each step, after which they are forgotten.
    pub(super) others: Option<Tried>,
}

impl<L: Layout> Source<'_, L> {
    /// The choices of an actor that a search takes: the one that may be taken alone, which is the answer, or all.
    pub(super) fn choices(
        &self,
        state: &State<L>,
        actor: Actor,
        choices: &mut Vec<Choice>,
    ) -> Option<Choice> {
        choices.clear();
        let local = self.rules.local_choice(self.machine, state, actor);
        match local {
            Some(choice) => choices.push(choice),
            None => for_each_choice(self.machine, state, actor, |choice| choices.push(choice)),
        }
        local
    }

    /// Calls `found` with each step of an actor that a search takes, and with the states that it is taken in: the one given and another
    /// that may differ from it in what the step does not read; with any number of pages, these with each value of the others. Answers
    /// whether the actor's steps may be taken alone.
    pub(super) fn for_each_step(
        &self,
        [state, other]: [&State<L>; 2],
        actor: Actor,
        found: &mut dyn FnMut([&State<L>; 2], Choice),
    ) -> bool {
        if let Some(tried) = self.others {
            return others::for_each_step(
                tried,
                self.rules,
                self.machine,
                [state, other],
                actor,
                found,
            );
        }
        let mut choices = Vec::new();
        let local = self.choices(state, actor, &mut choices).is_some();
        for choice in choices {
            found([state, other], choice);
        }
        local
    }

    /// With any number of pages, forgets what a state says of the others.
    pub(super) fn forget(&self, state: &mut State<L>) {
        if let Some(tried) = self.others {
            others::forget(self.machine, tried.slot(), state);
        }
    }

    /// Notes whether the step from one state to another is the return of an ioctl that was refused.
    pub(super) fn note_refused(&self, before: &State<L>, step: Step, after: &State<L>) {
        let call = Call::of(self.machine, before, step);
        let Some(refused) = call.and_then(|call| call.refused(after)) else {
            return;
        };
        // A poisoned lock means that another worker has panicked, which ends the search anyway.
        if let Ok(mut all) = self.refused.lock() {
            all.insert(refused);
        }
    }

    pub(super) fn unpack(&self, words: &[u64]) -> State<L> {
        let mut state = self.start.clone();
        self.sections
            .packing()
            .unpack(self.machine, words, &mut state);
        state
    }

    /// The words of a state, which is put into its normal form.
    pub(super) fn pack(&self, state: &mut State<L>) -> Vec<u64> {
        let packing = self.sections.packing();
        let mut words = vec![0; packing.words()];
        packing.pack(self.machine, state, &mut words);
        words
    }

    /// The words of the state after a step.
    pub(super) fn after(&self, state: &State<L>, step: Step) -> Vec<u64> {
        let mut after = state.clone();
        apply(self.machine, &mut after, step);
        self.forget(&mut after);
        self.pack(&mut after)
    }

    /// Whether a step of the actor of a number leads from one state to another.
    pub(super) fn is_successor(&self, from: &[u64], actor: usize, to: &[u64]) -> bool {
        let state = self.unpack(from);
        let actor = self.sections.actor(actor);
        let mut choices = Vec::new();
        self.choices(&state, actor, &mut choices);
        choices
            .into_iter()
            .any(|choice| self.after(&state, Step { actor, choice }) == to)
    }
}
