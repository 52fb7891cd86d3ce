//! What a log tells of one ring.

use std::collections::{HashMap, VecDeque};

/// KVM's largest ring, in entries. Source: virt/kvm/dirty_ring.c, KVM_DIRTY_RING_MAX_ENTRIES, Linux 7.2.
pub(crate) const RING_ENTRIES_MAX: u32 = dirtysim_model::machine::RING_MAX_ENTRIES;

/// Rings, threads and memslots that are kept; KVM allows fewer vCPUs and as many memslots (KVM_MEM_SLOTS_NUM, twice).
pub(super) const KEPT_MAX: usize = 65_536;

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
    /// Entries in use, at most, since this KVM_RUN began; none where its beginning was not seen.
    pub(crate) most_in_run: Option<u32>,
    /// `kvm_dirty_ring_exit` was seen, and not yet the exit to userspace.
    pub(crate) exit_pending: bool,
    /// Pushes since the last exit to userspace that found the ring soft-full and was not exit 31.
    pub(crate) pushes_since_exit: Option<u32>,
    /// Entries that were pushed and not reset, from index `first` on.
    entries: VecDeque<Entry>,
    first: u32,
    /// The entries that were reset last, from `gone_first` on: what is said of them later names their pages.
    gone: Vec<Entry>,
    gone_first: u32,
    /// The line at which they were reset.
    gone_line: u64,
    /// The first entry that was reset though nobody had read it, since somebody asked.
    unread: Option<(Entry, u64)>,
    /// For each page of `entries`: how many of them name it, and when it was pushed last.
    pages: HashMap<Page, Pushed>,
}

/// An entry of a ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// What it names.
    pub(crate) page: Page,
    /// The line of its push.
    pub(crate) line: u64,
    read: bool,
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
    pub(crate) fn consume_to(&mut self, reset_index: u32, line: u64) -> bool {
        let news = self.reset.is_some_and(|reset| reset != reset_index);
        let consumed = reset_index.wrapping_sub(self.first);
        if consumed > i32::MAX as u32 {
            return news;
        }
        if consumed > 0 {
            (self.gone_first, self.gone_line) = (self.first, line);
            self.gone.clear();
        }
        for _ in 0..consumed {
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            let page = entry.page;
            self.gone.push(entry);
            if !entry.read && self.unread.is_none() {
                self.unread = Some((entry, line));
            }
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
        self.entries.push_back(Entry {
            page,
            line,
            read: false,
        });
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
    pub(crate) fn entry(&self, index: u32) -> Option<Entry> {
        self.entries
            .get(index.wrapping_sub(self.first) as usize)
            .copied()
    }

    /// The entry at an index that was reset last, and the line of that reset.
    pub(crate) fn gone(&self, index: u32) -> Option<(Entry, u64)> {
        let entry = self
            .gone
            .get(index.wrapping_sub(self.gone_first) as usize)?;
        Some((*entry, self.gone_line))
    }

    /// Takes note that the entry at an index was read.
    pub(crate) fn read(&mut self, index: u32) {
        if let Some(entry) = self
            .entries
            .get_mut(index.wrapping_sub(self.first) as usize)
        {
            entry.read = true;
        }
    }

    /// The first entry since this was asked last that was reset and that nobody had read, and the line of its reset.
    pub(crate) fn take_unread(&mut self) -> Option<(Entry, u64)> {
        self.unread.take()
    }

    /// Whether an index was reset already.
    pub(crate) fn is_reset(&self, index: u32) -> bool {
        self.reset
            .is_some_and(|reset| reset.wrapping_sub(index).wrapping_sub(1) <= i32::MAX as u32)
    }
}
