//! The model as a [`Subject`]: what `dirtysim replay` compares a recording with.

use dirtysim::replay::{ModelHost, Modelled};
use dirtysim::trace::Machine;
use dirtysim::trace::call::Call;

use crate::refusal::Refused;
use crate::subject::{Answer, Subject};

/// The model, of one machine.
pub struct Model {
    host: ModelHost,
}

impl Model {
    /// The model of a machine, as a trace that is recorded there describes it.
    ///
    /// # Errors
    /// The model does not know such a machine, or its kernel's release is no version.
    pub fn new(machine: &Machine) -> Result<Self, Refused> {
        let host = ModelHost::new(machine, &[])
            .map_err(|complaint| Refused(complaint.problem.to_string()))?;
        Ok(Self { host })
    }
}

impl Subject for Model {
    fn name(&self) -> String {
        "model".to_owned()
    }

    fn begin_section(&mut self) {
        self.host.begin_section();
    }

    fn disturbed(&self) -> u64 {
        0
    }

    fn perform(&mut self, vm: Option<u32>, call: &Call) -> Result<Answer, Refused> {
        match self.host.perform(vm, call) {
            Ok(Modelled::Result(mut result)) => {
                if let Call::Harvest { .. } = call {
                    // This recorder does not say where a harvest stopped.
                    result.stop_flags = None;
                }
                Ok(Answer::Result(result))
            }
            Ok(Modelled::Not(what)) => Ok(Answer::NotModelled(what.to_owned())),
            Err(complaint) => Err(Refused(complaint.problem.to_string())),
        }
    }
}
