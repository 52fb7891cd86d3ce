//! How a state is laid out in memory: inline and plain for the searches, growing for replay.

use alloc::vec::Vec;

use super::device::Device;
use super::entry::{CompactEntry, FullEntry};
use super::pages::{Inline64, Sparse};
use super::slot::Slot;
use super::thread::Thread;
use super::vcpu::Vcpu;
use crate::words::Frame;

pub use super::parts::{Array, Inline, Parts};

/// The concrete types of a state's lists, beside those of its parts.
pub trait Layout: Parts {
    /// The vCPUs.
    type Vcpus: Array<Vcpu<Self>> + Send + Sync;
    /// The threads of the VMM.
    type Threads: Array<Thread<Self>> + Send + Sync;
    /// The memslots, by template.
    type Slots: Array<Slot> + Send + Sync;
    /// The devices.
    type Devices: Array<Device<Self>> + Send + Sync;
}

/// At most 64 pages, 4 vCPUs with rings of 32, 4 VMM threads, 8 memslots and 3 devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Small;

impl Parts for Small {
    type Set = Inline64;
    type Entry = CompactEntry;
    type Entries = Inline<CompactEntry, 32>;
    type Pml = Inline<Frame, 16>;
}

impl Layout for Small {
    type Vcpus = Inline<Vcpu<Self>, 4>;
    type Threads = Inline<Thread<Self>, 4>;
    type Slots = Inline<Slot, 8>;
    type Devices = Inline<Device<Self>, 3>;
}

/// Any size: sets and lists grow as they are used. For replay, not for search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Large;

impl Parts for Large {
    type Set = Sparse;
    type Entry = FullEntry;
    type Entries = Vec<FullEntry>;
    type Pml = Vec<Frame>;
}

impl Layout for Large {
    type Vcpus = Vec<Vcpu<Self>>;
    type Threads = Vec<Thread<Self>>;
    type Slots = Vec<Slot>;
    type Devices = Vec<Device<Self>>;
}
