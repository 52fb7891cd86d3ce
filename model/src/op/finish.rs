//! Where the protocol claims that the destination equals memory.

use super::{Act, Finish, Operation, Single, View};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::words::word::loud;
use crate::words::{Choice, Effect, Facts, Fields, Found, Frame, Row, Rule, Waits, Word};

/// A point at which the destination must equal memory, and after which the VM may run on.
pub(crate) struct Checkpoint;

impl Single for Checkpoint {
    const STEP: Word = loud("checkpoint", "claims that the destination equals memory");

    fn says(&self) -> &'static str {
        "CHECKPOINT: claims that the copy is whole"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN
            .reads(Fields::STALE | Fields::PENDING)
            .writes(Fields::SENT)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.state.sent.clear();
        act.next_op();
        Effect::Claim { postcopy: false }
    }
}

impl Operation for Finish {
    const STAGES: u8 = 1;
    const STEPS: &'static [Word] = &[
        loud(
            "finish",
            "claims that the destination equals memory, and ends",
        ),
        loud("switch-over", "switches over"),
    ];

    fn says(&self) -> &'static str {
        if self.postcopy {
            "END: switches over"
        } else {
            "END: claims that the copy is whole"
        }
    }
    fn facts(&self, _: &Machine) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine, _: u8) -> Row {
        Row::OWN
            .reads(Fields::STALE | Fields::PENDING)
            .writes(Fields::ENDED)
    }
    fn word<L: Layout>(&self, _: View<'_, L>, _: Choice) -> Word {
        Self::STEPS[usize::from(self.postcopy)]
    }
    fn subject<L: Layout>(&self, _: View<'_, L>) -> Option<Frame> {
        None
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn choices<L: Layout>(&self, _: View<'_, L>, found: Found<'_>) {
        found(Choice::Advance);
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>, _: Choice) -> Effect {
        act.next_op();
        act.state.finished = true;
        Effect::Claim {
            postcopy: self.postcopy,
        }
    }
    fn alone<L: Layout>(&self, _: View<'_, L>) -> Option<(Rule, Choice)> {
        None
    }
}
