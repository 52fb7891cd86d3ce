//! How a state is laid out in memory: inline and plain for the searches, growing for replay.

use alloc::vec::Vec;
use core::fmt::Debug;
use core::ops::{Deref, DerefMut};

use super::device::Device;
use super::pages::{Inline16, Inline64, PageSet, Sparse};
use super::ring::{CompactEntry, FullEntry, RingEntry};
use super::slot::Slot;
use super::thread::Thread;
use super::vcpu::Vcpu;

/// A list with a capacity: the rooms of a state.
pub trait Array<T>: Clone + Default + Debug + Deref<Target = [T]> + DerefMut {
    /// The most elements that fit.
    const CAPACITY: usize;
    /// Appends; the caller has checked the capacity.
    fn push(&mut self, item: T);
    /// Drops all but the first `len`.
    fn truncate(&mut self, len: usize);
}

impl<T: Clone + Debug> Array<T> for Vec<T> {
    const CAPACITY: usize = usize::MAX;
    fn push(&mut self, item: T) {
        Vec::push(self, item);
    }
    fn truncate(&mut self, len: usize) {
        Vec::truncate(self, len);
    }
}

/// A list of at most `N` elements that lies inside its owner.
#[derive(Clone, Copy, Debug)]
pub struct Inline<T, const N: usize> {
    items: [T; N],
    len: u8,
}

impl<T: Copy + Default, const N: usize> Default for Inline<T, N> {
    fn default() -> Self {
        Self {
            items: [T::default(); N],
            len: 0,
        }
    }
}

impl<T, const N: usize> Deref for Inline<T, N> {
    type Target = [T];
    #[inline(always)]
    fn deref(&self) -> &[T] {
        &self.items[..usize::from(self.len).min(N)]
    }
}

impl<T, const N: usize> DerefMut for Inline<T, N> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items[..usize::from(self.len).min(N)]
    }
}

impl<T: Copy + Default + Debug, const N: usize> Array<T> for Inline<T, N> {
    const CAPACITY: usize = N;
    #[inline]
    fn push(&mut self, item: T) {
        assert!(
            usize::from(self.len) < N,
            "a scenario is checked against its layout's capacities first"
        );
        self.items[usize::from(self.len)] = item;
        self.len += 1;
    }
    fn truncate(&mut self, len: usize) {
        while usize::from(self.len) > len {
            self.len -= 1;
            self.items[usize::from(self.len)] = T::default();
        }
    }
}

/// The concrete types of a state's parts.
pub trait Layout: Clone + Debug + Default + Send + Sync + 'static {
    /// Sets of pages.
    type Set: PageSet + Send + Sync;
    /// One ring entry.
    type Entry: RingEntry + Send + Sync;
    /// The entries of one ring.
    type Entries: Array<Self::Entry> + Send + Sync;
    /// The vCPUs.
    type Vcpus: Array<Vcpu<Self>> + Send + Sync;
    /// The threads of the VMM.
    type Threads: Array<Thread<Self>> + Send + Sync;
    /// The memslots, by template.
    type Slots: Array<Slot> + Send + Sync;
    /// The devices.
    type Devices: Array<Device<Self>> + Send + Sync;
    /// The pages in a PML buffer.
    type Pml: Array<u32> + Send + Sync;
}

/// At most 16 pages, 3 vCPUs with rings of 8, 2 VMM threads, 3 memslots and a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Small;

impl Layout for Small {
    type Set = Inline16;
    type Entry = CompactEntry;
    type Entries = Inline<CompactEntry, 8>;
    type Vcpus = Inline<Vcpu<Self>, 3>;
    type Threads = Inline<Thread<Self>, 2>;
    type Slots = Inline<Slot, 3>;
    type Devices = Inline<Device<Self>, 1>;
    type Pml = Inline<u32, 4>;
}

/// At most 64 pages, 4 vCPUs with rings of 32, 4 VMM threads, 8 memslots and 3 devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Medium;

impl Layout for Medium {
    type Set = Inline64;
    type Entry = CompactEntry;
    type Entries = Inline<CompactEntry, 32>;
    type Vcpus = Inline<Vcpu<Self>, 4>;
    type Threads = Inline<Thread<Self>, 4>;
    type Slots = Inline<Slot, 8>;
    type Devices = Inline<Device<Self>, 3>;
    type Pml = Inline<u32, 16>;
}

/// Any size: sets and lists grow as they are used. For replay, not for search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Large;

impl Layout for Large {
    type Set = Sparse;
    type Entry = FullEntry;
    type Entries = Vec<FullEntry>;
    type Vcpus = Vec<Vcpu<Self>>;
    type Threads = Vec<Thread<Self>>;
    type Slots = Vec<Slot>;
    type Devices = Vec<Device<Self>>;
    type Pml = Vec<u32>;
}
