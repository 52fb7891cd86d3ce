//! Devices: writers outside KVM, with a log of their own and transfers in flight.

use super::WriterLog;
use crate::words::Frame;

/// A device: what of it no step changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceConfig {
    /// Transfers that it makes, at most.
    pub transfers: u8,
    /// The frames that it may write.
    pub frames: alloc::vec::Vec<Frame>,
    /// How its log sees them.
    pub log: WriterLog,
    /// Whether it runs from the start.
    pub runs_at_start: bool,
    /// The distance, in frames, by which its log is off when it logs addresses of the wrong space.
    pub iova_shift: u32,
    /// Its queues: the transfer to the i-th of its frames goes by queue `i % queues`. At least 1.
    pub queues: u8,
    /// The frame of the used ring that it writes after each transfer, logged like a transfer.
    pub used_ring: Option<Frame>,
    /// Pages of one mapping of its IOMMU: a transfer to one of them is recorded for all. At least 1.
    pub granule: u32,
    /// It runs inside the VMM and logs in the VMM's own log.
    pub vmm_log: bool,
}

impl DeviceConfig {
    /// The first frame and the number of frames that one record of `frame` covers; `first` is the slot's first frame.
    #[must_use]
    pub fn recorded_with(&self, frame: Frame, first: Frame) -> (Frame, u32) {
        let granule = self.granule.max(1);
        (first + (frame - first) / granule * granule, granule)
    }
}
