//! Signals between threads of user space, by number, as an eventfd has them: one that nobody has waited for yet, and another, are
//! one; a wait takes it away.

use super::{Act, Single, View};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::words::word::loud;
use crate::words::{Effect, Facts, Fields, Names, Row, Waits, Word};

/// Signals.
pub(crate) struct Signal(pub(crate) u8);

impl Single for Signal {
    const STEP: Word = loud("signal", "signals another thread");

    fn says(&self) -> &'static str {
        "signals `{signal}`"
    }
    fn facts(&self) -> Facts {
        Facts {
            names: Names::Signal(self.0),
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.changes(Fields::SIGNALS)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.state.signals |= 1 << self.0;
        act.next_op()
    }
}

/// Waits for a signal, and takes it away.
pub(crate) struct WaitSignal(pub(crate) u8);

impl Single for WaitSignal {
    const STEP: Word = loud("signal-seen", "sees another thread's signal");

    fn says(&self) -> &'static str {
        "waits for the signal `{signal}`"
    }
    fn facts(&self) -> Facts {
        Facts {
            names: Names::Signal(self.0),
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.changes(Fields::SIGNALS)
    }
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        Waits::Signal(self.0).unless(at.state.signals >> self.0 & 1 != 0)
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.state.signals &= !(1 << self.0);
        act.next_op()
    }
}
