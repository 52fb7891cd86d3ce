//! What calls show together: what became of a page's record between one call and a later one.
//!
//! Every page that a trace touches has a history, one letter an event; an outcome is an end of a history.
//!
//! | letter | event |
//! |---|---|
//! | `s`, `S` | a store retired, by the vCPU that stored last, or by another |
//! | `l`, `k` | a load of a page that nothing was done to; of one that is mapped |
//! | `q` | x86: a load of a page that nothing was done to, of a slot that was without a log once |
//! | `p`, `u`, `j` | a load of a read-only slot; of host memory that nobody touched; any other |
//! | `i` | x86: a string instruction that KVM emulates stored to it |
//! | `e`, `x` | its vCPU's ring was looked at: a new entry, none |
//! | `g`, `m`, `y` | GET: its bit, without and with manual protect; no bit |
//! | `f`, `c` | GET failed with EFAULT; CLEAR was given its bit |
//! | `r`, `w` | RESET consumed its entry; entries on both sides of it |
//! | `o`, `n`, `d`, `v`, `z` | its slot: log off, log on, deleted, moved; another slot deleted or moved |
//! | `U` | userspace stored |

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dirtysim::trace::call::{Access, Call, Program};
use dirtysim::trace::call_result::{CallResult, Returned};
use dirtysim::trace::{Arch, Errno, Exit, RingEntries};

use super::answers::{LOG, READONLY, Vm};

type Page = (u16, u64);
type Found = BTreeSet<&'static str>;

/// Ends of histories, on any machine.
const ENDS: &[(&str, &str)] = &[
    ("se", "store.entry"),
    ("sg", "store.bit"),
    ("sm", "store.bit"),
    ("sesx", "store.no_second"),
    ("eie", "copy.again"),
    ("seSx", "store.two_vcpus"),
    ("rkx", "load.mapped"),
    ("gky", "load.mapped"),
    ("px", "load.readonly"),
    ("py", "load.readonly"),
    ("ux", "load.untouched"),
    ("uy", "load.untouched"),
    ("uxse", "store.after_untouched"),
    ("uysg", "store.after_untouched"),
    ("uysm", "store.after_untouched"),
    ("qx", "load.neighbour"),
    ("qy", "load.neighbour"),
    ("serse", "reset.rearms"),
    ("sgsg", "get.rearms"),
    ("smcsm", "clear.rearms"),
    ("gy", "get.clears"),
    ("mm", "get.manual"),
    ("mcy", "clear.clears"),
    ("sfy", "get.fault"),
    ("sfm", "get.fault_manual"),
    ("mfm", "get.fault_manual"),
    ("sony", "log_off.drops"),
    ("mony", "log_off.drops"),
    ("sdy", "delete.drops"),
    ("mdy", "delete.drops"),
    ("svg", "move.keeps"),
    ("svm", "move.keeps"),
    ("mvm", "move.keeps"),
    ("sezse", "zap.others"),
    ("sezsx", "zap.own"),
    ("sewse", "reset.range"),
    ("sewsx", "reset.exact"),
];

/// Whole histories.
const WHOLE: &[(&str, &str)] = &[
    ("le", "load.marks"),
    ("lg", "load.marks"),
    ("lm", "load.marks"),
    ("lx", "load.nothing"),
    ("ly", "load.nothing"),
];

/// A harvested entry: where, and with which flags.
#[derive(Clone, Copy, Debug)]
struct Harvested {
    slot: u32,
    offset: u64,
    flags: u32,
}

#[derive(Debug, Default)]
struct Ring {
    fetch: u32,
    /// Entries before this index were seen.
    seen: u32,
    /// Harvested and not consumed, from `reset` on.
    queue: VecDeque<Harvested>,
    reset: u32,
    /// Pages touched since it was looked at, each with how many were before it.
    touched: BTreeMap<Page, usize>,
    /// Runs since it was looked at.
    runs: u32,
    /// Accesses of the program that retired before.
    retired: u64,
    /// Its last run found it full, and nothing was reset since.
    full: bool,
}

/// The pages of a VM.
#[derive(Debug, Default)]
pub struct Pages {
    histories: BTreeMap<Page, String>,
    last_vcpu: BTreeMap<Page, u32>,
    rings: BTreeMap<u32, Ring>,
    /// Userspace wrote entries in a way that is not followed.
    lost: bool,
    writer: Option<&'static str>,
    its_words: Vec<u64>,
}

impl Pages {
    /// Takes a call in; `vm` is as it was before it.
    pub fn observe(&mut self, arch: Arch, vm: &Vm, call: &Call, result: &CallResult) -> Found {
        let mut found = Found::new();
        let failed = match result.returned {
            Some(Returned::Error(errno)) => Some(errno),
            _ => None,
        };
        match call {
            Call::SetUserMemoryRegion { .. } if failed.is_none() => self.region(vm, call),
            Call::Run {
                vcpu,
                program,
                resume,
            } => self.run(arch, vm, *vcpu, program, *resume, result),
            Call::UserWrite { slot, pages, .. } => {
                for page in pages.iter() {
                    self.event((*slot, page), 'U');
                }
            }
            Call::RingPeek { vcpu, fetch_index } => {
                self.look(vm, *vcpu, *fetch_index, result, &mut found);
            }
            Call::Harvest {
                vcpu,
                fetch_index,
                max,
                write_flags,
            } => self.harvest(
                vm,
                *vcpu,
                *fetch_index,
                *max,
                *write_flags,
                result,
                &mut found,
            ),
            Call::RingWrite {
                vcpu,
                index,
                flags,
                slot,
                offset,
            } => self.rewrite(*vcpu, *index, *flags, *slot, *offset),
            Call::ResetDirtyRings {} => {
                if let Some(Returned::Value(count)) = result.returned {
                    self.reset(vm, u64::from(count), &mut found);
                }
            }
            Call::GetDirtyLog { slot, as_id: 0, .. } => match failed {
                None => self.get(vm, *slot, result, &mut found),
                Some(Errno::EFAULT) => self.each_of(*slot, |_| Some('f')),
                Some(_) => {}
            },
            Call::ClearDirtyLog {
                slot,
                as_id: 0,
                first_page,
                num_pages,
                words,
                ..
            } if failed.is_none() => {
                let given: BTreeSet<u64> = words
                    .iter_pages()
                    .filter(|page| *page < u64::from(*num_pages))
                    .map(|page| page + first_page)
                    .collect();
                self.each_of(*slot, |page| given.contains(&page).then_some('c'));
                self.its_words.clear();
            }
            Call::ItsSaveTables {} => self.writes("its.save"),
            Call::VgicSavePendingTables {} => self.writes("its.pending"),
            Call::ItsRestoreTables {} => self.writes("its.restore_pending"),
            Call::ItsRegWrite { .. } => self.writes("its.command_bit"),
            Call::GuestMmio { vcpu, .. } => {
                // Marked in the bitmap only where there is no ring.
                if !vm.has_ring() {
                    self.writes("mixed");
                }
                let ring = self.rings.entry(*vcpu).or_default();
                if result.exit == Some(Exit::DirtyRingFull) {
                    if !ring.full {
                        found.insert("its.guest_full");
                    }
                    ring.full = true;
                }
            }
            _ => {}
        }
        self.file(arch, vm, &mut found);
        found
    }

    fn event(&mut self, page: Page, letter: char) {
        self.histories.entry(page).or_default().push(letter);
    }

    /// Gives pages of a slot that have a history another event.
    fn each_of(&mut self, slot: u16, letter: impl Fn(u64) -> Option<char>) {
        for ((_, page), history) in self.histories.range_mut((slot, 0)..=(slot, u64::MAX)) {
            history.extend(letter(*page));
        }
    }

    fn writes(&mut self, writer: &'static str) {
        self.writer = Some(match self.writer {
            None => writer,
            Some(before) if before == writer => writer,
            Some(_) => "mixed",
        });
    }

    /// Files what histories have come to, and keeps them short.
    fn file(&mut self, arch: Arch, vm: &Vm, found: &mut Found) {
        for ((slot, _), history) in &mut self.histories {
            let huge = vm.slots.get(&(0, *slot)).is_some_and(|slot| slot.huge);
            if huge {
                if history == "sx" && arch == Arch::Arm64 && !vm.with_bitmap {
                    found.insert("store.block");
                }
                continue;
            }
            for (end, outcome) in ENDS {
                if history.ends_with(end) {
                    found.insert(outcome);
                }
            }
            for (whole, outcome) in WHOLE {
                if history == whole {
                    found.insert(outcome);
                }
            }
            // A history that began with a store is told by its last events.
            if history.len() > 40 {
                history.drain(1..30);
            }
        }
    }

    fn region(&mut self, vm: &Vm, call: &Call) {
        let Call::SetUserMemoryRegion {
            slot,
            as_id: 0,
            flags,
            gpa,
            npages,
            ..
        } = call
        else {
            return;
        };
        let Some(old) = vm.slots.get(&(0, *slot)) else {
            return;
        };
        let letter = if *npages == 0 {
            'd'
        } else if old.gpa != *gpa {
            'v'
        } else if old.flags & LOG == flags & LOG {
            return;
        } else if flags & LOG == 0 {
            'o'
        } else {
            'n'
        };
        self.each_of(*slot, |_| Some(letter));
        if matches!(letter, 'd' | 'v') {
            for ((other, _), history) in &mut self.histories {
                if other != slot {
                    history.push('z');
                }
            }
        }
    }

    fn run(
        &mut self,
        arch: Arch,
        vm: &Vm,
        vcpu: u32,
        program: &Program,
        resume: bool,
        result: &CallResult,
    ) {
        let ring = self.rings.entry(vcpu).or_default();
        let before = if resume { ring.retired } else { 0 };
        let total = result.stores_retired_total.unwrap_or(0);
        ring.runs += 1;
        ring.retired = total;
        ring.full = result.exit == Some(Exit::DirtyRingFull);
        let accesses = program
            .store
            .iter()
            .skip(before as usize)
            .take(total.saturating_sub(before) as usize);
        for (slot, page) in accesses {
            let at = (slot as u16, page);
            let Some(slot) = vm.slots.get(&(0, at.0)) else {
                continue;
            };
            let history = self.histories.entry(at).or_default();
            let letter = match program.access {
                Access::Copy if slot.flags & READONLY != 0 => continue,
                Access::Copy => 'i',
                Access::Store if slot.flags & READONLY != 0 => continue,
                Access::Store => {
                    let last = self.last_vcpu.insert(at, vcpu);
                    if last.is_some_and(|last| last != vcpu) {
                        'S'
                    } else {
                        's'
                    }
                }
                Access::Load if slot.flags & READONLY != 0 => 'p',
                Access::Load if !slot.populated && !history.contains(['s', 'S', 'U']) => 'u',
                Access::Load if history.is_empty() => {
                    if arch == Arch::X86_64 && slot.was_unlogged {
                        'q'
                    } else {
                        'l'
                    }
                }
                Access::Load if history.ends_with(['d', 'v', 'z', 'o', 'n', 'U', 'j']) => 'j',
                Access::Load => 'k',
            };
            // Several accesses in a row are one event.
            if !history.ends_with(letter) {
                history.push(letter);
            }
            let touched = &mut self.rings.entry(vcpu).or_default().touched;
            let before = touched.len();
            touched.entry(at).or_insert(before);
        }
    }

    /// The ring is looked at where its consumer stands.
    fn look(&mut self, vm: &Vm, vcpu: u32, fetch: u32, result: &CallResult, found: &mut Found) {
        let ring = self.rings.entry(vcpu).or_default();
        let none = RingEntries::default();
        let entries = result.entries.as_ref().unwrap_or(&none);
        if u64::from(entries.iter().count() as u32) * 16 == vm.ring_bytes {
            found.insert("run.overflow");
        }
        if self.lost || fetch != ring.fetch {
            return;
        }
        let mut touched = std::mem::take(&mut ring.touched);
        let runs = std::mem::take(&mut ring.runs);
        let mut fresh = Vec::new();
        for (entry, index) in entries.iter().zip(fetch..) {
            if (entry.slot >> 16) == 0 && !vm.slots.contains_key(&(0, entry.slot as u16)) {
                found.insert("delete.keeps_entries");
            }
            if index.wrapping_sub(ring.seen) < 1 << 31 {
                fresh.push((entry.slot as u16, entry.offset));
            }
        }
        ring.seen = ring.seen.max(fetch + entries.iter().count() as u32);
        // What faults is recorded as it is touched; what PML buffers, the newest first.
        let order: Vec<usize> = (fresh.iter())
            .filter_map(|page| touched.get(page).copied())
            .collect();
        if runs == 1 && !order.is_sorted() {
            found.insert("run.pml");
        }
        for page in &fresh {
            touched.remove(page);
            if vm.its_slot == Some(page.0) {
                found.insert("its.guest_command_entry");
            } else if self.histories.get(page).is_some_and(|h| !h.ends_with('e')) {
                self.event(*page, 'e');
            }
        }
        for page in touched.into_keys() {
            if vm.logs(page.0) {
                self.event(page, 'x');
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of one call")]
    fn harvest(
        &mut self,
        vm: &Vm,
        vcpu: u32,
        fetch: u32,
        max: Option<u32>,
        write_flags: u32,
        result: &CallResult,
        found: &mut Found,
    ) {
        let known = self.rings.entry(vcpu).or_default().fetch == fetch;
        let count = result.count.unwrap_or(0) as u32;
        if max.is_none_or(|max| count < max) {
            self.look(vm, vcpu, fetch, result, found);
        } else {
            // Only a part was seen: what was touched may be behind it.
            let ring = self.rings.entry(vcpu).or_default();
            ring.touched.clear();
            ring.runs = 2;
        }
        if !known {
            self.lost = true;
            return;
        }
        let none = RingEntries::default();
        let entries: Vec<Harvested> = result
            .entries
            .as_ref()
            .unwrap_or(&none)
            .iter()
            .map(|entry| Harvested {
                slot: entry.slot,
                offset: entry.offset,
                flags: write_flags,
            })
            .collect();
        let ring = self.rings.entry(vcpu).or_default();
        ring.queue.extend(entries);
        ring.seen = ring.seen.max(fetch + count);
        if write_flags & 2 != 0 {
            ring.fetch = fetch + count;
        } else {
            // The consumer stands where it stood, and sees entries again that are no longer 01.
            ring.fetch = u32::MAX;
        }
    }

    fn rewrite(
        &mut self,
        vcpu: u32,
        index: u32,
        flags: Option<u32>,
        slot: Option<u32>,
        offset: Option<u64>,
    ) {
        let ring = self.rings.entry(vcpu).or_default();
        let at = index.wrapping_sub(ring.reset) as usize;
        match ring.queue.get_mut(at) {
            Some(entry) => {
                entry.flags = flags.unwrap_or(entry.flags);
                entry.slot = slot.unwrap_or(entry.slot);
                entry.offset = offset.unwrap_or(entry.offset);
            }
            None => self.lost = true,
        }
    }

    fn reset(&mut self, vm: &Vm, count: u64, found: &mut Found) {
        let ready = |ring: &Ring| {
            ring.queue
                .iter()
                .take_while(|entry| entry.flags & 2 != 0)
                .count()
        };
        let expected: usize = self.rings.values().map(ready).sum();
        if self.lost || expected as u64 != count {
            self.lost = true;
            return;
        }
        if self.rings.values().filter(|ring| ready(ring) > 0).count() > 1 {
            found.insert("reset.several");
        }
        let mut consumed = Vec::new();
        for ring in self.rings.values_mut() {
            ring.full = false;
            let ready = ready(ring);
            ring.reset = ring.reset.wrapping_add(ready as u32);
            consumed.extend(ring.queue.drain(..ready));
            if !ring.queue.is_empty() {
                found.insert("reset.stops");
            }
        }
        for entry in &consumed {
            let key = ((entry.slot >> 16) as u16, entry.slot as u16);
            match vm.slots.get(&key) {
                None => {
                    found.insert("reset.slot_gone");
                }
                Some(slot) if entry.offset >= slot.pages => {
                    found.insert("reset.out_of_range");
                }
                Some(_) => self.event((key.1, entry.offset), 'r'),
            }
            if entry.flags & 3 == 3 {
                found.insert("reset.flags3");
            }
        }
        // Two entries of one batch, in order: whether the pages between them are armed too.
        if let [low, high] = consumed[..]
            && low.slot == high.slot
            && low.offset < high.offset
            && high.offset - low.offset < 64
        {
            self.each_of(low.slot as u16, |page| {
                (low.offset + 1..high.offset).contains(&page).then_some('w')
            });
        }
    }

    fn get(&mut self, vm: &Vm, slot: u16, result: &CallResult, found: &mut Found) {
        let bits: BTreeSet<u64> = result
            .words
            .as_ref()
            .map(|words| words.iter_pages().collect())
            .unwrap_or_default();
        let letter = if vm.manual == 0 { 'g' } else { 'm' };
        self.each_of(slot, |page| {
            Some(if bits.contains(&page) { letter } else { 'y' })
        });
        if vm.its_slot != Some(slot) || vm.manual == 3 {
            return;
        }
        let words: Vec<u64> = bits.iter().copied().collect();
        let before = std::mem::replace(&mut self.its_words, words);
        let fresh = if vm.manual == 0 {
            !bits.is_empty()
        } else {
            self.its_words.len() > before.len()
        };
        match self.writer.take() {
            Some("mixed") | None => {}
            Some(writer) if fresh => {
                found.insert(writer);
            }
            Some("its.pending") => {
                found.insert("its.pending_same");
            }
            Some(_) => {}
        }
    }
}
