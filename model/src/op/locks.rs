//! Locks of user space, by number.

use super::{Act, Op, Single, View};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::words::word::quiet;
use crate::words::{Effect, Facts, Fields, Row, Waits, Word};

/// Takes a lock.
pub(crate) struct Lock(pub(crate) u8);

impl Single for Lock {
    const STEP: Word = quiet("lock", "takes a lock");

    fn says(&self) -> &'static str {
        "takes a lock"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.writes(Fields::USER_LOCKS)
    }
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        Waits::Lock(self.0).unless(at.state.user_locks >> self.0 & 1 == 0)
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.state.user_locks |= 1 << self.0;
        act.next_op()
    }
}

/// Gives it back.
pub(crate) struct Unlock(pub(crate) u8);

impl Single for Unlock {
    const STEP: Word = quiet("unlock", "drops a lock");

    fn says(&self) -> &'static str {
        "drops a lock"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.writes(Fields::USER_LOCKS)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.state.user_locks &= !(1 << self.0);
        act.next_op()
    }
}

/// Whether no two threads can be at wanted operations at once: one thread alone has them, or all have them under one lock.
pub(crate) fn exclude_each_other(machine: &Machine, wanted: impl Fn(&Op) -> bool) -> bool {
    let programs = || {
        let programs = machine.programs.iter();
        programs.filter(|program| program.iter().any(&wanted))
    };
    // Jumps lead into no lock's steps from outside, so that the text tells what is held.
    let under = |lock: u8| {
        programs().all(|program| {
            let mut held = false;
            program.iter().all(|op| {
                match op {
                    Op::Lock(taken) => held |= *taken == lock,
                    Op::Unlock(dropped) => held &= *dropped != lock,
                    _ => {}
                }
                held || !wanted(op)
            })
        })
    };
    // Of code that is known as far as it was walked nobody knows which locks it takes.
    match &machine.code {
        Some(_) => machine.programs.len() <= 1,
        None => programs().count() <= 1 || (0..8).any(under),
    }
}
