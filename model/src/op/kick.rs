//! Signals to vCPUs, one by one.

use super::{Act, Kick, Operation, Single, View};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::words::word::{loud, quiet};
use crate::words::{Choice, Effect, Facts, Fields, Found, Frame, Reach, Row, Rule, Waits, Word};

impl Operation for Kick {
    const STAGES: u8 = 1;
    const STEPS: &'static [Word] = &[loud("kick-vcpu", "signals a vCPU")];

    fn says(&self) -> &'static str {
        if self.stop {
            "signals the vCPUs to stop"
        } else {
            "signals the vCPUs"
        }
    }
    fn facts(&self, _: &Machine) -> Facts {
        Facts {
            visits_vcpus: true,
            stops: self.stop,
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine, _: u8) -> Row {
        let step = Row::OWN.reads(Fields::PC).writes(Fields::KICKED);
        if self.stop {
            // The first signal of a stop ends the guest's running, which every vCPU that is outside shows.
            step.writes(Fields::GUEST_RUNS).reach(Reach::EachVcpu)
        } else {
            step.reach(Reach::IndexedVcpu)
        }
    }
    fn word<L: Layout>(&self, _: View<'_, L>, _: Choice) -> Word {
        Self::STEPS[0]
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
        act.state.guest_runs &= !self.stop;
        let index = act.thread().index as usize;
        if let Some(v) = act.state.vcpus.get_mut(index) {
            v.kicked = !v.is_stopped();
        }
        act.thread().index += 1;
        if index + 1 < act.state.vcpus.len() {
            return Effect::None;
        }
        act.next_op()
    }
    fn alone<L: Layout>(&self, _: View<'_, L>) -> Option<(Rule, Choice)> {
        None
    }
}

/// Waits until every vCPU that was signalled has left KVM_RUN once.
pub(crate) struct WaitKicked;

impl Single for WaitKicked {
    const STEP: Word = quiet("vcpus-kicked", "sees that the vCPUs have left once");

    fn says(&self) -> &'static str {
        "waits until they have left"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.reads(Fields::KICKED).reach(Reach::Control)
    }
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        Waits::Left.unless(at.state.vcpus.iter().all(|v| !v.kicked))
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.next_op()
    }
}
