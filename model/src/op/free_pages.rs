//! Pages that the guest calls free.

use super::{Act, DropFree, EndFree, Operation, Single, View};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::words::word::loud;
use crate::words::{Choice, Effect, Facts, Fields, Found, Frame, Names, Row, Rule, Waits, Word};

impl Operation for DropFree {
    const STAGES: u8 = 2;
    const STEPS: &'static [Word] = &[
        loud(
            "guest-frees-pages",
            "hears of pages that the guest calls free",
        ),
        loud("drop-free-pages", "drops pages that the guest calls free"),
    ];

    fn says(&self) -> &'static str {
        "drops pages that the guest calls free"
    }
    fn facts(&self, _: &Machine) -> Facts {
        Facts {
            names: Names::Frames(self.frames),
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine, _: u8) -> Row {
        Row::OWN.writes(Fields::STALE | Fields::PENDING)
    }
    fn word<L: Layout>(&self, at: View<'_, L>, _: Choice) -> Word {
        Self::STEPS[usize::from(at.stage())]
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
        if act.stage() == 0 {
            // Their bytes do not matter until they are stored to again.
            for &frame in &act.machine.frame_lists[usize::from(self.frames)] {
                act.state.stale.remove(act.machine.host_page(frame));
            }
            return act.go(1);
        }
        drop_pending(&mut act, self.frames);
        act.next_op()
    }
    fn alone<L: Layout>(&self, _: View<'_, L>) -> Option<(Rule, Choice)> {
        None
    }
}

impl Single for EndFree {
    const STEP: Word = loud("end-free-pages", "has done with the pages called free");

    fn says(&self) -> &'static str {
        "has done with the pages that the guest calls free"
    }
    fn facts(&self) -> Facts {
        Facts {
            names: Names::Frames(self.frames),
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.next_op()
    }
}

/// The pages are not to be copied.
pub(crate) fn drop_pending<L: Layout>(act: &mut Act<'_, L>, frames: u16) {
    for &frame in &act.machine.frame_lists[usize::from(frames)] {
        act.state.pending.remove(act.machine.host_page(frame));
    }
}
