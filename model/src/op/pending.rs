//! What joins the pages that are to be copied, or leaves them, beside what was collected.

use super::{Act, Single, View};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::words::word::loud;
use crate::words::{Effect, Facts, Fields, Row, Waits, Word};

/// Pages that are always dirty are to be copied.
pub(crate) struct TakeAlways;

impl Single for TakeAlways {
    const STEP: Word = loud("take-always-dirty", "takes the pages that are always dirty");

    fn says(&self) -> &'static str {
        "takes the pages that are always dirty"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.writes(Fields::PENDING)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        for &host in &act.machine.always_dirty {
            act.state.pending.insert(host);
        }
        act.next_op()
    }
}

/// An attempt is given up: what was collected and not copied is forgotten.
pub(crate) struct Forget;

impl Single for Forget {
    const STEP: Word = loud("forget-collected", "forgets what it collected");

    fn says(&self) -> &'static str {
        "forgets what it collected"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.writes(Fields::PENDING)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.state.pending.clear();
        act.next_op()
    }
}
