//! What the host has behind guest memory, as far as KVM's fault path can tell.
//!
//! A page of anonymous memory that nobody has stored to is the page of zeros that all processes share. A load through KVM maps it
//! read-only; the first store gives the page memory of its own, and the mapping of the old one goes.
//! Source: virt/kvm/kvm_main.c, hva_to_pfn(); mm, do_anonymous_page(), do_wp_page().

use alloc::collections::BTreeMap;

use crate::words::HostPage;

/// Host pages without memory of their own. None, unless somebody says so: a scenario's guest memory was all touched before.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unbacked {
    /// First page and end of each range; ranges do not overlap.
    ranges: BTreeMap<HostPage, HostPage>,
}

impl Unbacked {
    /// Whether a page has no memory of its own.
    #[must_use]
    pub fn contains(&self, page: HostPage) -> bool {
        self.ranges
            .range(..=page)
            .next_back()
            .is_some_and(|(_, &end)| page < end)
    }

    /// Whether every page has memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Pages that were never there before: `count` of them from `first` on, none of which is in the set.
    pub fn insert_new(&mut self, first: HostPage, count: u32) {
        debug_assert!(!self.contains(first), "these pages are new");
        if count > 0 {
            self.ranges.insert(first, end(first, count));
        }
    }

    /// The host has taken these pages' memory away.
    pub fn insert_range(&mut self, first: HostPage, count: u32) {
        self.remove_range(first, count);
        self.insert_new(first, count);
    }

    /// These pages have memory now.
    pub fn remove_range(&mut self, first: HostPage, count: u32) {
        let end = end(first, count);
        while let Some((&from, &to)) = self.ranges.range(..end).next_back()
            && to > first
        {
            self.ranges.remove(&from);
            if to > end {
                self.ranges.insert(end, to);
            }
            if from < first {
                self.ranges.insert(from, first);
            }
        }
    }
}

fn end(first: HostPage, count: u32) -> HostPage {
    HostPage(first.0.saturating_add(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_falls_apart_where_pages_are_taken_out() {
        let mut unbacked = Unbacked::default();
        unbacked.insert_new(HostPage(10), 10);
        unbacked.remove_range(HostPage(12), 3);
        unbacked.remove_range(HostPage(19), 5);
        let left: alloc::vec::Vec<u32> = (0..30)
            .filter(|&page| unbacked.contains(HostPage(page)))
            .collect();
        assert_eq!(left, [10, 11, 15, 16, 17, 18]);
        unbacked.remove_range(HostPage(0), 30);
        assert!(unbacked.is_empty());
    }
}
