//! What a thread has collected joins the pages that are to be copied.

use super::{Act, PublishSlot, Single, View};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::words::word::loud;
use crate::words::{Effect, Facts, Fields, Names, Row, Waits, Word};

/// All of the thread's own pages.
pub(crate) struct Publish;

impl Single for Publish {
    const STEP: Word = loud("publish", "publishes the pages that it collected");

    fn says(&self) -> &'static str {
        "publishes what it collected"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.writes(Fields::HAND | Fields::PENDING)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        let hand = core::mem::take(&mut act.thread().hand);
        act.state.pending.union(&hand);
        act.next_op()
    }
}

impl Single for PublishSlot {
    const STEP: Word = loud(
        "publish-slot",
        "publishes one memslot's pages that it collected",
    );

    fn says(&self) -> &'static str {
        "publishes what it collected of {slot}"
    }
    fn facts(&self) -> Facts {
        Facts {
            names: Names::Template(self.template),
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.writes(Fields::HAND | Fields::PENDING)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        let slot = &act.machine.slots[usize::from(self.template)];
        for host in slot.hosts() {
            if act.thread().hand.contains(host) {
                act.thread().hand.remove(host);
                act.state.pending.insert(host);
            }
        }
        act.next_op()
    }
}
