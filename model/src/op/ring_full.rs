//! Exit 31, as the VMM sees it.

use super::{Act, Single, View};
use crate::machine::Machine;
use crate::state::Vcpu;
use crate::state::layout::Layout;
use crate::state::vcpu::Exit;
use crate::words::word::loud;
use crate::words::{Effect, Facts, Fields, Reach, Row, Waits, Word};

/// Waits until a vCPU has left with exit 31.
pub(crate) struct WaitRingFull;

impl Single for WaitRingFull {
    const STEP: Word = loud("ring-full-seen", "sees a vCPU's exit for a full ring");

    fn says(&self) -> &'static str {
        "waits for a full ring"
    }
    fn facts(&self) -> Facts {
        Facts {
            watches_guest: true,
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN
            .reads(Fields::PC | Fields::EXIT)
            .reach(Reach::Control)
    }
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        let full = |v: &Vcpu<L>| v.is_stopped() && v.exit == Exit::DirtyRingFull;
        Waits::RingFull.unless(at.state.vcpus.iter().any(full))
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.next_op()
    }
}

/// Lets the vCPUs that left with exit 31 run again.
pub(crate) struct AckRingFull;

impl Single for AckRingFull {
    const STEP: Word = loud("ack-ring-full", "lets the vCPUs with full rings run again");

    fn says(&self) -> &'static str {
        "lets the vCPUs with full rings run again"
    }
    fn facts(&self) -> Facts {
        Facts {
            watches_guest: true,
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.changes(Fields::EXIT).reach(Reach::EachVcpu)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        for v in act.state.vcpus.iter_mut() {
            if v.exit == Exit::DirtyRingFull {
                v.waits = false;
                v.exit = Exit::None;
            }
        }
        act.next_op()
    }
}
