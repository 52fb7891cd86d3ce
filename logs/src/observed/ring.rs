//! What a log tells of one ring.

use std::collections::{HashMap, VecDeque};

/// KVM's largest ring, in entries. Source: virt/kvm/dirty_ring.c, KVM_DIRTY_RING_MAX_ENTRIES, Linux 7.2.
pub(crate) const RING_ENTRIES_MAX: u32 = dirtysim_model::machine::RING_MAX_ENTRIES;

/// A page as an entry names it: slot, offset.
pub(crate) type Page = (u32, u64);

/// One ring, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    /// Dirty index after the last push that was seen.
    pub(crate) dirty: Option<u32>,
    /// The highest reset index that was seen, in whichever event.
    pub(crate) reset: Option<u32>,
    /// Reset index of the last reset event.
    pub(crate) reset_event: Option<u32>,
    /// Time of the last reset event.
    pub(crate) reset_at_ns: Option<u64>,
    /// Entries in use, at most, at the last event of the vCPU itself. What was reset since may have been reset after the vCPU
    /// looked.
    pub(crate) used_at_own: Option<u32>,
    /// `kvm_dirty_ring_exit` was seen, and not yet the exit to userspace.
    pub(crate) exit_pending: bool,
    /// Pushes since the last exit to userspace that found the ring soft-full and was not exit 31.
    pub(crate) pushes_since_exit: Option<u32>,
    /// Entries that were pushed and not reset, from index `first` on.
    entries: VecDeque<Page>,
    first: u32,
    /// For each page of `entries`: how many of them name it, and when it was pushed last.
    pages: HashMap<Page, Pushed>,
}

#[derive(Debug, Clone, Copy)]
struct Pushed {
    entries: u32,
    arming: u64,
    line: u64,
}

impl Ring {
    /// Forgets everything that a gap may have changed.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Entries in use, where both indices are known.
    pub(crate) fn used(&self) -> Option<u32> {
        Some(self.dirty?.wrapping_sub(self.reset?))
    }

    /// Takes note that everything below this index was reset; answers whether that is news.
    pub(crate) fn consume_to(&mut self, reset_index: u32) -> bool {
        let news = self.reset.is_some_and(|reset| reset != reset_index);
        let consumed = reset_index.wrapping_sub(self.first);
        if consumed > i32::MAX as u32 {
            return news;
        }
        for _ in 0..consumed {
            let Some(page) = self.entries.pop_front() else {
                break;
            };
            if let Some(pushed) = self.pages.get_mut(&page) {
                pushed.entries -= 1;
                if pushed.entries == 0 {
                    self.pages.remove(&page);
                }
            }
        }
        self.first = reset_index;
        news
    }

    /// Takes note of an entry at `index`. Answers the line of an earlier entry for the same page, when that one is
    /// still in the ring and nothing was re-armed since.
    pub(crate) fn push(&mut self, index: u32, page: Page, arming: u64, line: u64) -> Option<u64> {
        let known = self
            .first
            .wrapping_add(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        if index != known || self.entries.len() >= RING_ENTRIES_MAX as usize {
            self.entries.clear();
            self.pages.clear();
            self.first = index;
        }
        self.entries.push_back(page);
        let mut earlier = None;
        self.pages
            .entry(page)
            .and_modify(|pushed| {
                earlier = (pushed.arming == arming).then_some(pushed.line);
                *pushed = Pushed {
                    entries: pushed.entries + 1,
                    arming,
                    line,
                };
            })
            .or_insert(Pushed {
                entries: 1,
                arming,
                line,
            });
        earlier
    }

    /// The entry at an index, where it was seen and not reset.
    pub(crate) fn entry(&self, index: u32) -> Option<Page> {
        self.entries
            .get(index.wrapping_sub(self.first) as usize)
            .copied()
    }

    /// Whether an index was reset already.
    pub(crate) fn is_reset(&self, index: u32) -> bool {
        self.reset
            .is_some_and(|reset| reset.wrapping_sub(index).wrapping_sub(1) <= i32::MAX as u32)
    }
}
