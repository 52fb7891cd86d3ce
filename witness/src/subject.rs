//! What performs calls: a kernel, or the model of one.
//!
//! Both sides of a lockstep are a [`Subject`], and so is whatever else can answer a call; recording, comparing and shrinking know only this.

use std::fmt;

use dirtysim::trace::call::Call;
use dirtysim::trace::call_result::CallResult;

use crate::refusal::Refused;

/// What a subject says to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its result.
    Result(CallResult),
    /// It does not know the result, by what that is about; it goes on as if the call had been right.
    NotModelled(String),
}

impl Answer {
    /// The result of a subject that has one for every call it performs.
    ///
    /// # Errors
    /// It has none.
    pub fn result(self) -> Result<CallResult, Refused> {
        match self {
            Self::Result(result) => Ok(result),
            Self::NotModelled(what) => Err(Refused(format!("no result: {what}"))),
        }
    }
}

/// Performs the calls of one section after the other.
pub trait Subject {
    /// A name for messages: `kernel 6.18.44`, `model`.
    fn name(&self) -> String;

    /// A section begins: every VM before it is gone.
    fn begin_section(&mut self);

    /// How often something that no call says anything of has changed what calls give, all sections so far together: with PML an interrupt of
    /// the host's, which takes a vCPU out of the guest and so records early, and in another order, what the next exit would; with a record of
    /// stolen time a thread that loses its processor within KVM_RUN, which has the record written once more.
    fn disturbed(&self) -> u64;

    /// Performs one call and says what it gave.
    ///
    /// # Errors
    /// The call cannot be performed at all here: it names a vCPU that does not exist, or a device of another architecture. What the kernel
    /// refuses is no error but a result.
    fn perform(&mut self, vm: Option<u32>, call: &Call) -> Result<Answer, Refused>;
}

impl<S: Subject + ?Sized> Subject for Box<S> {
    fn name(&self) -> String {
        (**self).name()
    }

    fn begin_section(&mut self) {
        (**self).begin_section();
    }

    fn disturbed(&self) -> u64 {
        (**self).disturbed()
    }

    fn perform(&mut self, vm: Option<u32>, call: &Call) -> Result<Answer, Refused> {
        (**self).perform(vm, call)
    }
}

/// One call of a sequence, with its VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmCall {
    /// The VM's number within the section; `None` for a call that belongs to no VM.
    pub vm: Option<u32>,
    /// What is asked.
    pub call: Call,
}

impl fmt::Display for VmCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vm {
            Some(vm) => write!(f, "vm {vm}: {:?}", self.call),
            None => write!(f, "{:?}", self.call),
        }
    }
}
