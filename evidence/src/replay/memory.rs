//! The host memory of a VM: names, numbers of its pages, and its contents.
//!
//! Memory begins as zeros; what changes it are rows of the trace, and the interrupt controller, whose writes are known.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::trace::{CallProblem, Complaint};
use dirtysim_model::words::HostPage;

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
    /// Words of 64 bits that are not zero, by page and place in it.
    words: BTreeMap<u64, u64>,
    /// The same of the destination, by slot: it is told slots apart, whatever memory they share.
    destination: BTreeMap<(u16, u64), u64>,
}

/// Words of the largest page, 64 KiB.
const PAGE_WORDS: u64 = 8192;

/// The words of a page.
fn words_of(page: u64) -> Range<u64> {
    page * PAGE_WORDS..(page + 1) * PAGE_WORDS
}

impl Memories {
    fn memory(&mut self, name: &str) -> Result<&mut Memory, Complaint> {
        if !self.named.contains_key(name) {
            let number = self.named.len() as u64 + 1;
            if self.named.len() == MEMORIES_MAX {
                return Err(Complaint::call(
                    CallProblem::TooManyMemories(MEMORIES_MAX),
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
            return Err(Complaint::call(
                CallProblem::MemOffset(offset),
                "a memory has less than 2^48 bytes",
            ));
        }
        Ok(self.memory(name)?.number * HVA_STEP + offset)
    }

    /// The number of the first of `pages` host pages of a memory; with it first and count of all its pages, if these are new.
    pub(super) fn host(
        &mut self,
        name: &str,
        page: u64,
        pages: u64,
    ) -> Result<(HostPage, Option<(HostPage, u32)>), Complaint> {
        let next = self.host_pages;
        let memory = self.memory(name)?;
        let end = page + pages;
        let made = memory.window.is_none();
        let (first, room) = *memory
            .window
            .get_or_insert_with(|| (next, end.next_power_of_two().max(WINDOW_PAGES_MIN)));
        if end > room || first + room > 1 << 32 {
            return Err(Complaint::call(
                CallProblem::MemoryPage {
                    page: end - 1,
                    memory: name.to_owned(),
                    room,
                },
                "replay takes memories of the size that the first slot shows, at least 2^20 pages, and 2^32 pages in all",
            ));
        }
        if made {
            self.host_pages = first + room;
        }
        // A window ends at 2^32 at most, whose last page no set of pages can end behind.
        let count = room.min(u64::from(u32::MAX) - first) as u32;
        let new = made.then_some((HostPage(first as u32), count));
        Ok((HostPage((first + page) as u32), new))
    }

    /// Bytes, at most 8, are stored from a byte of a page on, within it.
    pub(super) fn store(&mut self, host: HostPage, at: u64, value: u64, bytes: u32) {
        for (n, byte) in value.to_le_bytes().iter().take(bytes as usize).enumerate() {
            let at = at + n as u64;
            let shift = at % 8 * 8;
            let before = self.word(host, at / 8);
            let after = before & !(0xff << shift) | u64::from(*byte) << shift;
            self.set_word(host, at / 8, after);
        }
    }

    /// Bytes of a page, at most 8, from a byte on, within it.
    pub(super) fn bytes(&self, host: HostPage, at: u64, bytes: u32) -> u64 {
        let byte = |at: u64| self.word(host, at / 8) >> (at % 8 * 8) & 0xff;
        (0..u64::from(bytes)).fold(0, |value, n| value | byte(at + n) << (n * 8))
    }

    /// A page is zeros.
    pub(super) fn clear(&mut self, host: HostPage) {
        let words: Vec<u64> = self
            .words
            .range(words_of(u64::from(host.0)))
            .map(|(&at, _)| at)
            .collect();
        for at in words {
            self.words.remove(&at);
        }
    }

    /// A word of a page.
    pub(super) fn word(&self, host: HostPage, word: u64) -> u64 {
        let at = u64::from(host.0) * PAGE_WORDS + word;
        self.words.get(&at).copied().unwrap_or(0)
    }

    /// Writes a word of a page.
    pub(super) fn set_word(&mut self, host: HostPage, word: u64, value: u64) {
        let at = u64::from(host.0) * PAGE_WORDS + word;
        if value == 0 {
            self.words.remove(&at);
        } else {
            self.words.insert(at, value);
        }
    }

    /// A page is copied to the destination.
    pub(super) fn copy(&mut self, slot: u16, page: u64, host: HostPage) {
        let there = words_of(page);
        let old: Vec<u64> = self
            .destination
            .range((slot, there.start)..(slot, there.end))
            .map(|(&(_, at), _)| at)
            .collect();
        for at in old {
            self.destination.remove(&(slot, at));
        }
        let here = words_of(u64::from(host.0));
        for (&at, &value) in self.words.range(here.clone()) {
            let at = there.start + (at - here.start);
            self.destination.insert((slot, at), value);
        }
    }

    /// Whether a page differs from the destination.
    pub(super) fn differs(&self, slot: u16, page: u64, host: HostPage) -> bool {
        let (here, there) = (words_of(u64::from(host.0)), words_of(page));
        let mine = self
            .words
            .range(here.clone())
            .map(|(&at, &value)| (at - here.start, value));
        let copied = self
            .destination
            .range((slot, there.start)..(slot, there.end))
            .map(|(&(_, at), &value)| (at - there.start, value));
        !mine.eq(copied)
    }

    /// The pages of a range that are not zeros, here or at the destination, in ascending order.
    pub(super) fn touched(&self, slot: u16, first: HostPage, count: u32) -> BTreeSet<HostPage> {
        let end = u64::from(first.0) + u64::from(count);
        let range = words_of(u64::from(first.0)).start..words_of(end).start;
        let mut pages: BTreeSet<HostPage> = self
            .words
            .range(range)
            .map(|(&at, _)| HostPage((at / PAGE_WORDS) as u32))
            .collect();
        let copied = self
            .destination
            .range((slot, 0)..(slot, words_of(u64::from(count)).start));
        pages.extend(copied.map(|(&(_, at), _)| first + (at / PAGE_WORDS) as u32));
        pages
    }
}
