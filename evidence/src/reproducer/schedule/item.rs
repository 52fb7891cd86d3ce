//! What happens whole, from outside: an operation, a store or a load, a string of stores that KVM emulates.

use dirtysim_model::transition::Actor;
use dirtysim_model::words::Frame;

use crate::explain::op_words;
use crate::scenario::Scenario;

/// Something that happens whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// An operation of a thread, by its place in the program.
    Op(usize, u16),
    /// A store or a load of a vCPU's.
    Access(usize, Frame, bool),
    /// A string of stores that KVM emulates.
    String(usize, Frame),
}

/// That, with where the schedule has it.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) what: What,
    /// Its first and its last step, from 1 on.
    pub(super) first: usize,
    pub(super) last: usize,
    /// The names of its steps; none where it goes by itself.
    pub(super) words: Vec<&'static str>,
    /// A signal is seen within it, at that opportunity; of a schedule's own, its words say when.
    pub(super) cut: Option<usize>,
}

impl Item {
    /// Whether a signal is seen within it.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_some() || self.words.contains(&CUT)
    }

    /// One that goes by itself.
    pub(super) fn new(what: What, cut: Option<usize>) -> Self {
        Self {
            what,
            first: 0,
            last: 0,
            words: Vec::new(),
            cut,
        }
    }

    pub(super) fn actor(&self) -> Actor {
        match self.what {
            What::Op(thread, _) => Actor::Thread(thread as u8),
            What::Access(vcpu, ..) | What::String(vcpu, _) => Actor::Vcpu(vcpu as u8),
        }
    }
}

/// The word of the step in which KVM sees a signal within RESET.
pub(super) const CUT: &str = "reset-signal";
/// The word of a store that KVM makes in a vCPU's context.
pub(super) const RECORD: &str = "kernel-record-write";

/// An item in words.
pub(super) fn words(scenario: &Scenario, item: &Item) -> String {
    match item.what {
        What::Op(thread, op) => {
            let op = scenario.machine.programs[thread].get(usize::from(op));
            op.map_or_else(String::new, |op| op_words(scenario, op))
        }
        What::Access(vcpu, frame, true) => {
            format!("vcpu{vcpu} stores to {}", scenario.frame_name(frame))
        }
        What::Access(vcpu, frame, false) => {
            format!("vcpu{vcpu} loads from {}", scenario.frame_name(frame))
        }
        What::String(vcpu, frame) => format!(
            "vcpu{vcpu} copies to {} by one string instruction, from where no memory is",
            scenario.frame_name(frame)
        ),
    }
}
