//! A device: what of it changes.

use super::pages::Frames;
use super::parts::Parts;

/// A device's changing part.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Device<L: Parts> {
    /// It may begin transfers.
    pub runs: bool,
    /// It has been started once, so that its log may be read.
    pub started: bool,
    /// Transfers left.
    pub budget: u8,
    /// Frames of transfers that were submitted and have not landed.
    pub in_flight: Frames<L::Set>,
    /// Frames whose bytes have changed and that are not logged yet.
    pub unlogged: Frames<L::Set>,
    /// Its own log, by frame.
    pub log: Frames<L::Set>,
}

impl<L: Parts> Copy for Device<L> where L::Set: Copy {}
