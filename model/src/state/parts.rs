//! What the parts of a state are made of: sets of pages, ring entries, and lists with a capacity.

use alloc::vec::Vec;
use core::fmt::Debug;
use core::hash::Hash;
use core::ops::{Deref, DerefMut};

use super::entry::RingEntry;
use super::pages::PageSet;
use crate::words::Frame;

/// A list with a capacity: the rooms of a state.
pub trait Array<T>: Clone + Default + Debug + Eq + Hash + Deref<Target = [T]> + DerefMut {
    /// The most elements that fit.
    const CAPACITY: usize;
    /// Appends; the caller has checked the capacity.
    fn push(&mut self, item: T);
    /// Drops all but the first `len`.
    fn truncate(&mut self, len: usize);
}

impl<T: Clone + Debug + Eq + Hash> Array<T> for Vec<T> {
    const CAPACITY: usize = usize::MAX;
    fn push(&mut self, item: T) {
        Vec::push(self, item);
    }
    fn truncate(&mut self, len: usize) {
        Vec::truncate(self, len);
    }
}

/// A list of at most `N` elements that lies inside its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

impl<T: Copy + Default + Debug + Eq + Hash, const N: usize> Array<T> for Inline<T, N> {
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

/// The concrete types that the parts of a state are made of.
pub trait Parts: Clone + Debug + Default + Eq + Hash + Send + Sync + 'static {
    /// Sets of pages.
    type Set: PageSet + Send + Sync;
    /// One ring entry.
    type Entry: RingEntry + Send + Sync;
    /// The entries of one ring.
    type Entries: Array<Self::Entry> + Send + Sync;
    /// The pages in a PML buffer.
    type Pml: Array<Frame> + Send + Sync;
}
