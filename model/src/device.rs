//! Devices: writers outside KVM, with a log of their own and transfers in flight.

use crate::layout::Layout;
use crate::machine::WriterLog;

/// A device: what of it no step changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceConfig {
    /// Transfers that it makes, at most.
    pub transfers: u8,
    /// The frames that it may write.
    pub frames: alloc::vec::Vec<u32>,
    /// How its log sees them.
    pub log: WriterLog,
    /// Whether it runs from the start.
    pub runs_at_start: bool,
    /// The distance, in frames, by which its log is off when it logs addresses of the wrong space.
    pub iova_shift: u32,
}

/// A device's changing part.
#[derive(Clone, Debug, Default)]
pub struct Device<L: Layout> {
    /// It may begin transfers.
    pub runs: bool,
    /// It has been started once, so that its log may be read.
    pub started: bool,
    /// Transfers left.
    pub budget: u8,
    /// Frames of transfers that were submitted and have not landed.
    pub in_flight: L::Set,
    /// Frames whose bytes have changed and that are not logged yet.
    pub unlogged: L::Set,
    /// Its own log, by frame.
    pub log: L::Set,
}

impl<L: Layout> Copy for Device<L> where L::Set: Copy {}
