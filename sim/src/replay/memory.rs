//! The host memory of a VM: names, numbers of its pages, and as much of its contents as recorded stores tell.
//!
//! A page counts as its first 64 bits. Memory begins as zeros; what the kernel wrote to a page is not known.

use std::collections::{BTreeMap, BTreeSet};

use crate::trace::Complaint;

/// The most host memories of a VM.
const MEMORIES_MAX: usize = 256;
/// The distance of two memories in the address space that replay gives them, in bytes.
const HVA_STEP: u64 = 1 << 48;
/// The fewest host pages that a memory has room for.
const WINDOW_PAGES_MIN: u64 = 1 << 20;

/// A named host memory.
#[derive(Debug)]
struct Memory {
    /// Its number, from 1 on.
    number: u64,
    /// Its host pages, once a slot was made of it: the first, and how many it has room for.
    window: Option<(u64, u64)>,
}

/// The host memories of a VM.
#[derive(Debug, Default)]
pub(super) struct Memories {
    named: BTreeMap<String, Memory>,
    host_pages: u64,
    contents: BTreeMap<u32, u64>,
    unknown: BTreeSet<u32>,
    /// What the destination has, by slot and page: it is told slots apart, whatever memory they share.
    destination: BTreeMap<(u16, u64), u64>,
}

impl Memories {
    fn memory(&mut self, name: &str) -> Result<&mut Memory, Complaint> {
        if !self.named.contains_key(name) {
            let number = self.named.len() as u64 + 1;
            if self.named.len() == MEMORIES_MAX {
                return Err(Complaint::row(
                    format!("more than {MEMORIES_MAX} host memories in a VM"),
                    "slots of the same memory have the same `mem`",
                ));
            }
            self.named.insert(
                name.to_owned(),
                Memory {
                    number,
                    window: None,
                },
            );
        }
        Ok(self.named.get_mut(name).expect("it was put there"))
    }

    /// The host virtual address of a byte of a memory.
    pub(super) fn hva(&mut self, name: &str, offset: u64) -> Result<u64, Complaint> {
        if offset >= HVA_STEP {
            return Err(Complaint::row(
                format!("`mem_offset` is {offset}"),
                "a memory has less than 2^48 bytes",
            ));
        }
        Ok(self.memory(name)?.number * HVA_STEP + offset)
    }

    /// The number of the first of `pages` host pages of a memory.
    pub(super) fn host(&mut self, name: &str, page: u64, pages: u64) -> Result<u32, Complaint> {
        let next = self.host_pages;
        let memory = self.memory(name)?;
        let end = page + pages;
        let made = memory.window.is_none();
        let (first, room) = *memory
            .window
            .get_or_insert_with(|| (next, end.next_power_of_two().max(WINDOW_PAGES_MIN)));
        if end > room || first + room > 1 << 32 {
            return Err(Complaint::row(
                format!(
                    "page {} of memory `{name}`, which has room for {room} pages",
                    end - 1
                ),
                "replay takes memories of the size that the first slot shows, at least 2^20 pages, and 2^32 pages in all",
            ));
        }
        if made {
            self.host_pages = first + room;
        }
        Ok((first + page) as u32)
    }

    /// Bytes are stored at the start of a page.
    pub(super) fn store(&mut self, host: u32, value: u64, bytes: u32) {
        let mask = dirtysim_model::pages::low_bits(bytes.saturating_mul(8).min(64));
        let before = self.contents.get(&host).copied().unwrap_or(0);
        self.contents.insert(host, before & !mask | value & mask);
    }

    /// Something else wrote to a page.
    pub(super) fn forget(&mut self, host: u32) {
        self.unknown.insert(host);
    }

    /// A page's first 64 bits, where they are known.
    pub(super) fn read(&self, host: u32) -> Option<u64> {
        (!self.unknown.contains(&host)).then(|| self.contents.get(&host).copied().unwrap_or(0))
    }

    /// A page is copied to the destination.
    pub(super) fn copy(&mut self, slot: u16, page: u64, host: u32) {
        let value = self.contents.get(&host).copied().unwrap_or(0);
        self.destination.insert((slot, page), value);
    }

    /// Whether a page differs from the destination, where that is known.
    pub(super) fn differs(&self, slot: u16, page: u64, host: u32) -> Option<bool> {
        let value = self.read(host)?;
        let copied = self.destination.get(&(slot, page)).copied();
        Some(value != copied.unwrap_or(0))
    }

    /// The pages of a range that were ever written or copied, in ascending order.
    pub(super) fn touched(&self, slot: u16, first: u32, count: u32) -> BTreeSet<u32> {
        let range = first..=first.saturating_add(count - 1);
        let mut pages: BTreeSet<u32> = self.unknown.range(range.clone()).copied().collect();
        pages.extend(self.contents.range(range).map(|(&page, _)| page));
        let copied = self.destination.range((slot, 0)..(slot, u64::from(count)));
        pages.extend(copied.map(|(&(_, page), _)| first + page as u32));
        pages
    }
}
