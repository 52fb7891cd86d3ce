//! KVM_CREATE_VCPU, with the next id.

use super::{Act, Single, View};
use crate::kernel::vcpus;
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::words::word::loud;
use crate::words::{Effect, Facts, Row, Waits, Word};

pub(crate) struct CreateVcpu;

impl Single for CreateVcpu {
    const STEP: Word = loud("create-vcpu", "creates a vCPU");

    fn says(&self) -> &'static str {
        "creates a vCPU"
    }
    fn facts(&self) -> Facts {
        Facts {
            visits_vcpus: true,
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine) -> Row {
        Row::UNKNOWN
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        vcpus::create(act.machine, act.state);
        act.leave(Ok(0))
    }
}
