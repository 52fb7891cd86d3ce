//! What the kernel does by a number or in an order, as data: a wrong kernel has other data here, and the code stays that of the
//! right one.

use crate::words::fault::FaultStage;

/// One of the three writes of a push.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PushWrite {
    /// The slot number.
    Slot = 0,
    /// The offset.
    Offset = 1,
    /// The flags, by which the entry is published.
    Flags = 2,
}

/// The numbers and orders; a machine begins with the right ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wiring {
    /// The order in which the writes of a push become visible.
    pub push_order: [PushWrite; 3],
    /// Entries by which the soft-full limit is reached too late.
    pub soft_full_late: u32,
    /// Whether a push raises the soft-full request.
    pub raises_request: bool,
    /// Whether switching the log on waits until PML is on in every vCPU that is in the guest.
    pub waits_for_pml: bool,
    /// The steps of the fault path; none: the architecture's.
    pub fault_stages: Option<&'static [FaultStage]>,
}

impl Wiring {
    /// As KVM has them.
    pub const RIGHT: Self = Self {
        push_order: [PushWrite::Slot, PushWrite::Offset, PushWrite::Flags],
        soft_full_late: 0,
        raises_request: true,
        waits_for_pml: true,
        fault_stages: None,
    };
}
