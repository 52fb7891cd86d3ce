//! Locks of user space, by number.

use super::{Act, Single, View};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::words::word::quiet;
use crate::words::{Effect, Facts, Fields, Row, Word};

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
    fn is_ready<L: Layout>(&self, at: View<'_, L>) -> bool {
        at.state.user_locks >> self.0 & 1 == 0
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
    fn is_ready<L: Layout>(&self, _: View<'_, L>) -> bool {
        true
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.state.user_locks &= !(1 << self.0);
        act.next_op()
    }
}
