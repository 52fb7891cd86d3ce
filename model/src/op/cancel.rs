//! An attempt ends without success, or begins anew.

use super::{Act, Single, View};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::state::pages::HostPages;
use crate::words::word::loud;
use crate::words::{Effect, Facts, Fields, Row, Waits, Word};

/// What an attempt that is given up reads and writes.
const ROW: Row = Row::OWN.changes(Fields::SENT.and(Fields::PENDING).and(Fields::STALE));

/// The migration fails or is cancelled: what was sent counts for nothing.
pub(crate) struct Cancel;

impl Single for Cancel {
    const STEP: Word = loud("cancel", "cancels the migration");

    fn says(&self) -> &'static str {
        "cancels the migration"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        ROW
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        let sent = forget_sent(&mut act);
        act.state.pending.union(&sent);
        act.next_op()
    }
}

/// What was sent counts for nothing, and what was collected goes back to the VMM's own log.
pub(crate) struct PutBack;

impl Single for PutBack {
    const STEP: Word = loud("put-back", "puts what it collected back into its own log");

    fn says(&self) -> &'static str {
        "puts what it collected back into its own log"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        ROW.writes(Fields::OWN_LOG)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        let sent = forget_sent(&mut act);
        let collected = core::mem::take(&mut act.state.pending);
        act.state.own_log.union(&sent);
        act.state.own_log.union(&collected);
        act.next_op()
    }
}

/// What was sent counts for nothing, and what was collected is dropped.
pub(crate) struct Discard;

impl Single for Discard {
    const STEP: Word = loud("discard", "drops what it collected");

    fn says(&self) -> &'static str {
        "drops what it collected"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        ROW
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        forget_sent(&mut act);
        act.state.pending.clear();
        act.next_op()
    }
}

/// A new, empty destination: everything is stale.
pub(crate) struct NewDestination;

impl Single for NewDestination {
    const STEP: Word = loud("new-destination", "begins with a new, empty destination");

    fn says(&self) -> &'static str {
        "begins with a new, empty destination"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        ROW
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.state.pending.clear();
        act.state.sent.clear();
        for (index, slot) in act.machine.slots.iter().enumerate() {
            if act.state.slots[index].exists() {
                act.state.stale.insert_range(slot.host, slot.npages);
            }
        }
        act.next_op()
    }
}

/// What was sent counts for nothing.
pub(crate) fn forget_sent<L: Layout>(act: &mut Act<'_, L>) -> HostPages<L::Set> {
    let sent = core::mem::take(&mut act.state.sent);
    act.state.stale.union(&sent);
    sent
}
