//! The model as a [`Subject`]: what `dirtysim replay` compares a recording with.

use std::collections::BTreeMap;

use dirtysim::replay::calls::{host_of, perform};
use dirtysim::replay::vm::{Host, ModelVm, Reply};
use dirtysim::trace::call::Call;
use dirtysim::trace::{Header, Kind, Machine};
use dirtysim_model::mutation::Mutations;

use crate::refusal::Refused;
use crate::subject::{Answer, Subject};

/// The model, of one machine.
pub struct Model {
    host: Host,
    vms: BTreeMap<u32, ModelVm>,
}

impl Model {
    /// The model of a machine, as a trace that is recorded there describes it.
    ///
    /// # Errors
    /// The model does not know such a machine, or its kernel's release is no version.
    pub fn new(machine: &Machine) -> Result<Self, Refused> {
        let header = Header {
            machine: Some(machine.clone()),
            ..Header::new(Kind::Call)
        };
        let host = host_of(&header, "this machine", Mutations::default())
            .map_err(|error| Refused(error.to_string()))?;
        Ok(Self {
            host,
            vms: BTreeMap::new(),
        })
    }
}

impl Subject for Model {
    fn name(&self) -> String {
        "model".to_owned()
    }

    fn begin_section(&mut self) {
        self.vms.clear();
    }

    fn perform(&mut self, vm: Option<u32>, call: &Call) -> Result<Answer, Refused> {
        match perform(&self.host, &mut self.vms, vm, call) {
            Ok(Reply::Result(result)) => Ok(Answer::Result(result)),
            Ok(Reply::NotModelled(what)) => Ok(Answer::NotModelled(what.to_owned())),
            Err(refused) => Err(Refused(refused.0)),
        }
    }
}
