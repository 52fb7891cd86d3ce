//! The host ages a page: its leaf loses its permission, TLBs are not flushed.

use super::{Act, HostAge, Operation, View};
use crate::kernel::notifier;
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::words::word::loud;
use crate::words::{Choice, Effect, Facts, Fields, Found, Frame, Names, Row, Rule, Waits, Word};

impl Operation for HostAge {
    const STAGES: u8 = 1;
    const STEPS: &'static [Word] = &[loud("host-ages-page", "the host ages {page}")];

    fn says(&self) -> &'static str {
        "the host ages {page}"
    }
    fn facts(&self, _: &Machine) -> Facts {
        Facts {
            names: Names::Frame(self.frame),
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine, _: u8) -> Row {
        Row::OWN.writes(Fields::LEAVES)
    }
    fn word<L: Layout>(&self, _: View<'_, L>, _: Choice) -> Word {
        Self::STEPS[0]
    }
    fn subject<L: Layout>(&self, _: View<'_, L>) -> Option<Frame> {
        Some(self.frame)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn choices<L: Layout>(&self, _: View<'_, L>, found: Found<'_>) {
        found(Choice::Advance);
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>, _: Choice) -> Effect {
        notifier::age(act.machine, act.state, self.frame);
        act.next_op()
    }
    fn alone<L: Layout>(&self, _: View<'_, L>) -> Option<(Rule, Choice)> {
        None
    }
}
