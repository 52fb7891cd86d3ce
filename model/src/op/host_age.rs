//! The host ages a page: its leaf loses what says that it was accessed, TLBs are not flushed. Or it takes the page's mapping away, with a flush.

use super::{Act, HostAge, Operation, View};
use crate::kernel::notifier;
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::words::word::loud;
use crate::words::{
    Choice, Effect, Facts, Fields, Found, Frame, Names, Reach, Row, Rule, Waits, Word,
};

impl Operation for HostAge {
    const STAGES: u8 = 1;
    const STEPS: &'static [Word] = &[
        loud("host-ages-page", "the host ages {page}"),
        loud(
            "host-unmaps-page",
            "the host takes the mapping of {page} away",
        ),
    ];

    fn says(&self) -> &'static str {
        if self.unmap {
            "the host takes the mapping of {page} away"
        } else {
            "the host ages {page}"
        }
    }
    fn facts(&self, _: &Machine) -> Facts {
        Facts {
            names: Names::Frame(self.frame),
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine, _: u8) -> Row {
        if self.unmap {
            // It waits for faults that hold mmu_lock, and flushes every TLB.
            return Row::OWN
                .reads(Fields::MMU_LOCK)
                .writes(Fields::LEAVES | Fields::TLB)
                .reach(Reach::Gate);
        }
        Row::OWN.writes(Fields::LEAVES)
    }
    fn word<L: Layout>(&self, _: View<'_, L>, _: Choice) -> Word {
        Self::STEPS[usize::from(self.unmap)]
    }
    fn subject<L: Layout>(&self, _: View<'_, L>) -> Option<Frame> {
        Some(self.frame)
    }
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        at.mmu_lock().filter(|_| self.unmap)
    }
    fn choices<L: Layout>(&self, at: View<'_, L>, found: Found<'_>) {
        if self.blocked(&at).is_none() {
            found(Choice::Advance);
        }
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>, _: Choice) -> Effect {
        if self.unmap {
            notifier::take(act.machine, act.state, self.frame);
        } else {
            notifier::age(act.machine, act.state, self.frame);
        }
        act.next_op()
    }
    fn alone<L: Layout>(&self, _: View<'_, L>) -> Option<(Rule, Choice)> {
        None
    }
}
