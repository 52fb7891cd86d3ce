//! Pages followed through the events of other tools.

use std::collections::HashMap;

use super::names::{Named, number};
use super::{Event, Events, Fate};
use crate::trace::CheckConfig;
use crate::trace::observed::{KvmIoctl, Observed, ObservedEvent, Phase};

/// Memslots, rings and threads that are kept.
const KEPT_MAX: usize = 65_536;

/// A memslot as the log last set it.
#[derive(Debug, Clone, Copy)]
struct Slot {
    first_gfn: u64,
    pages: u64,
}

/// An entry of a followed page that was not reset yet.
#[derive(Debug, Clone, Copy)]
struct Standing {
    index: u32,
    offset: u64,
    page: usize,
}

/// A place in the logs: which one, and the line.
type Place = (u32, u64);

/// The last entry of a page.
#[derive(Debug, Clone)]
struct Last {
    pushed: Place,
    ring: u32,
    index: u32,
    slot: u32,
    offset: u64,
    harvested: Option<Place>,
    reset: Option<Place>,
    overwritten: Option<Place>,
    /// Events are missing after it.
    gap: bool,
}

/// A page that is followed.
#[derive(Debug, Clone)]
pub struct Followed {
    /// As it was named.
    pub name: Named,
    /// What happened to it.
    pub events: Events,
    /// Entries that were pushed for it.
    pub pushes: u64,
    /// Entries of it that were read.
    pub harvests: u64,
    last: Option<Last>,
    last_harvest: Option<Place>,
    bitmap_read: Option<Place>,
}

/// Follows pages through a log, in memory that does not grow with it.
#[derive(Debug)]
pub struct Follower {
    config: CheckConfig,
    pages: Vec<Followed>,
    by_gfn: HashMap<u64, usize>,
    by_place: HashMap<(u32, u64), usize>,
    slots: HashMap<u32, Slot>,
    /// Memslots that entries named before the log said where they are.
    guessed: bool,
    standing: HashMap<u32, Vec<Standing>>,
    vcpu_of_index: HashMap<u32, u32>,
    names: HashMap<u32, String>,
    harvests: u64,
    unplaced_harvests: bool,
    pushes: u64,
    resets: u64,
    gaps: bool,
}

/// What a number of a memslot is: as in KVM's API, or `as_id/id`.
fn slot_number(text: &str) -> Option<u32> {
    let number = |text| number(text).and_then(|n| u32::try_from(n).ok());
    match text.split_once('/') {
        Some((space, id)) => {
            let (space, id) = (number(space)?, number(id)?);
            (space < 1 << 16 && id < 1 << 16).then_some(space << 16 | id)
        }
        None => number(text).filter(|_| !text.is_empty()),
    }
}

impl Follower {
    /// Follows `names`, of which each is followed once.
    ///
    /// # Errors
    /// A page in a memslot that has a name: in a log they have numbers.
    pub fn new(
        names: impl IntoIterator<Item = Named>,
        config: CheckConfig,
    ) -> Result<Self, (String, String)> {
        let mut follower = Self {
            config,
            pages: Vec::new(),
            by_gfn: HashMap::new(),
            by_place: HashMap::new(),
            slots: HashMap::new(),
            guessed: false,
            standing: HashMap::new(),
            vcpu_of_index: HashMap::new(),
            names: HashMap::new(),
            harvests: 0,
            unplaced_harvests: false,
            pushes: 0,
            resets: 0,
            gaps: false,
        };
        for name in names {
            let index = follower.pages.len();
            let known = match &name {
                Named::Gfn(gfn) => *follower.by_gfn.entry(*gfn).or_insert(index),
                Named::At { slot, offset } => {
                    let Some(slot) = slot_number(slot) else {
                        let shown: String = slot.chars().take(40).collect();
                        return Err((
                            format!("no memslot of a log is called `{shown}`"),
                            "memslots of a log have numbers: 0:0x545a4, or as_id/id:offset"
                                .to_owned(),
                        ));
                    };
                    *follower.by_place.entry((slot, *offset)).or_insert(index)
                }
            };
            if known == index {
                follower.pages.push(Followed {
                    name,
                    events: Events::default(),
                    pushes: 0,
                    harvests: 0,
                    last: None,
                    last_harvest: None,
                    bitmap_read: None,
                });
            }
        }
        Ok(follower)
    }

    fn page_size(&self) -> u64 {
        self.config.page_size.unwrap_or(4096).max(1)
    }

    /// The followed pages that an entry of a memslot may be.
    fn at(&mut self, slot: u32, offset: u64) -> Vec<usize> {
        let mut found: Vec<usize> = self
            .by_place
            .get(&(slot, offset))
            .copied()
            .into_iter()
            .collect();
        let gfn = match self.slots.get(&slot) {
            Some(known) => (offset < known.pages).then(|| known.first_gfn + offset),
            // The log does not say where the memslot is: as if it began at address 0, and that is told.
            None => Some(offset),
        };
        if let Some(&page) = gfn.and_then(|gfn| self.by_gfn.get(&gfn)) {
            self.guessed |= !self.slots.contains_key(&slot);
            found.push(page);
        }
        found
    }

    /// The followed pages that have a guest frame number.
    fn of_gfn(&self, gfn: u64) -> Vec<usize> {
        let mut found: Vec<usize> = self.by_gfn.get(&gfn).copied().into_iter().collect();
        if !self.by_place.is_empty() {
            for (number, slot) in &self.slots {
                let offset = gfn.checked_sub(slot.first_gfn).filter(|n| *n < slot.pages);
                found.extend(offset.and_then(|n| self.by_place.get(&(*number, n))));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The followed pages of a memslot in `start..end`.
    fn in_range(&self, slot: u32, start: u64, end: u64) -> Vec<usize> {
        let known = self.slots.get(&slot);
        let inside = |page: &Followed| {
            let offset = match &page.name {
                Named::At { slot: text, offset } => {
                    (slot_number(text) == Some(slot)).then_some(*offset)
                }
                Named::Gfn(gfn) => known.and_then(|known| {
                    gfn.checked_sub(known.first_gfn)
                        .filter(|n| *n < known.pages)
                }),
            };
            offset.is_some_and(|offset| (start..end).contains(&offset))
        };
        (0..self.pages.len())
            .filter(|&page| inside(&self.pages[page]))
            .collect()
    }

    fn note(&mut self, event: &ObservedEvent, pages: &[usize], what: &str) {
        if pages.is_empty() {
            return;
        }
        let who = event.tid.map(|tid| match self.names.get(&tid) {
            Some(name) => format!("{name} ({tid})"),
            None => format!("thread {tid}"),
        });
        for &page in pages {
            self.pages[page].events.push(Event {
                file: event.file,
                line: event.line,
                who: who.clone(),
                what: what.to_owned(),
            });
        }
    }

    /// Takes the next event.
    pub fn event(&mut self, event: &ObservedEvent) {
        let place = (event.file, event.line);
        match &event.what {
            Observed::Thread { comm } => {
                if let Some(tid) = event.tid
                    && (self.names.len() < KEPT_MAX || self.names.contains_key(&tid))
                {
                    self.names.insert(tid, comm.clone());
                }
            }
            Observed::Gap { .. } => {
                self.gaps = true;
                for last in self.pages.iter_mut().filter_map(|page| page.last.as_mut()) {
                    last.gap = true;
                }
            }
            Observed::RingPush {
                ring,
                dirty_index,
                reset_index,
                slot,
                offset,
                ..
            } => {
                self.pushes += 1;
                self.reset_to(event, *ring, *reset_index);
                let index = dirty_index.wrapping_sub(1);
                self.overwrite(event, *ring, index);
                let pages = self.at(*slot, *offset);
                self.note(
                    event,
                    &pages,
                    &format!(
                        "pushed as entry {index} of ring {ring}, slot {slot} offset {offset:#x}"
                    ),
                );
                for page in pages {
                    let standing = Standing {
                        index,
                        offset: *offset,
                        page,
                    };
                    self.standing.entry(*ring).or_default().push(standing);
                    let page = &mut self.pages[page];
                    page.pushes += 1;
                    page.last = Some(Last {
                        pushed: place,
                        ring: *ring,
                        index,
                        slot: *slot,
                        offset: *offset,
                        harvested: None,
                        reset: None,
                        overwritten: None,
                        gap: false,
                    });
                }
            }
            Observed::RingReset {
                ring, reset_index, ..
            } => {
                self.resets += 1;
                self.reset_to(event, *ring, *reset_index);
            }
            Observed::QemuCreateVcpu { cpu_index, vcpu } if self.vcpu_of_index.len() < KEPT_MAX => {
                self.vcpu_of_index.insert(*cpu_index, *vcpu);
            }
            Observed::QemuPage {
                cpu_index,
                fetch,
                offset,
            } => self.harvest(event, *cpu_index, *fetch, *offset),
            Observed::QemuSetMemory {
                slot,
                gpa,
                size,
                ret,
                ..
            } => self.set_memory(*slot, *gpa, *size, *ret),
            Observed::QemuClear { slot, start, size } => {
                let end = start.saturating_add(u64::from(*size));
                let pages = self.in_range(*slot, *start, end);
                self.note(event, &pages, "re-armed: KVM_CLEAR_DIRTY_LOG of its range");
            }
            Observed::ProbeIoctl {
                phase: Phase::Return,
                ioctl,
                slot: Some(slot),
                first_page,
                num_pages,
                ..
            } => match ioctl {
                KvmIoctl::GetDirtyLog => {
                    for page in self.in_range(*slot, 0, u64::MAX) {
                        self.pages[page].bitmap_read = Some(place);
                    }
                }
                KvmIoctl::ClearDirtyLog => {
                    if let (Some(first), Some(count)) = (first_page, num_pages) {
                        let end = first.saturating_add(u64::from(*count));
                        let pages = self.in_range(*slot, *first, end);
                        self.note(event, &pages, "re-armed: KVM_CLEAR_DIRTY_LOG of its range");
                    }
                }
                _ => {}
            },
            Observed::ProbeMark { slot, offset } => {
                let pages = self.at(*slot, *offset);
                self.note(event, &pages, "marked, in a ring or in the bitmap");
            }
            Observed::ProbeRearm { slot, offset, mask } => {
                for bit in (0..64).filter(|bit| mask >> bit & 1 == 1) {
                    let pages = self.at(*slot, offset.saturating_add(bit));
                    self.note(event, &pages, "re-armed");
                }
            }
            Observed::PageFault {
                address,
                error_code,
                ..
            } => {
                let kind = if error_code & 2 == 0 { "read" } else { "write" };
                self.fault(event, *address, &format!("faulted, for a {kind}"));
            }
            Observed::FastPageFault { address, fixed, .. } => self.fault(
                event,
                *address,
                if *fixed {
                    "made writable without a lock"
                } else {
                    "faulted, and was not made writable without a lock"
                },
            ),
            Observed::GuestFault { ipa, .. } => self.fault(event, *ipa, "faulted at stage 2"),
            Observed::AccessFault { ipa } => self.fault(event, *ipa, "had an access-flag fault"),
            Observed::SetSpte { gfn, spte, .. } => {
                let pages = self.of_gfn(*gfn);
                self.note(event, &pages, &format!("its entry was set to {spte:#x}"));
            }
            Observed::TdpSpteChanged {
                gfn,
                old_spte,
                new_spte,
                ..
            } => {
                let pages = self.of_gfn(*gfn);
                self.note(
                    event,
                    &pages,
                    &format!("its entry changed from {old_spte:#x} to {new_spte:#x}"),
                );
            }
            _ => {}
        }
    }

    fn fault(&mut self, event: &ObservedEvent, address: u64, what: &str) {
        let pages = self.of_gfn(address / self.page_size());
        self.note(event, &pages, what);
    }

    fn set_memory(&mut self, slot: u32, gpa: u64, bytes: u64, ret: i64) {
        let page = self.page_size();
        match (ret, bytes) {
            (0, 0) => {
                self.slots.remove(&slot);
            }
            (0, _) if self.slots.len() < KEPT_MAX || self.slots.contains_key(&slot) => {
                let slot_now = Slot {
                    first_gfn: gpa / page,
                    pages: bytes / page,
                };
                self.slots.insert(slot, slot_now);
            }
            _ => {}
        }
    }

    /// Everything of a ring below this index was reset.
    fn reset_to(&mut self, event: &ObservedEvent, ring: u32, reset_index: u32) {
        let Some(standing) = self.standing.get_mut(&ring) else {
            return;
        };
        let is_reset =
            |index: u32| reset_index.wrapping_sub(index).wrapping_sub(1) <= i32::MAX as u32;
        let gone: Vec<Standing> = standing
            .extract_if(.., |entry| is_reset(entry.index))
            .collect();
        for entry in gone {
            let how = match event.what {
                Observed::RingReset { .. } => "reset",
                _ => "reset before this",
            };
            self.note(
                event,
                &[entry.page],
                &format!("{how}: entry {} of ring {ring}", entry.index),
            );
            if let Some(last) = self.pages[entry.page]
                .last
                .as_mut()
                .filter(|last| (last.ring, last.index) == (ring, entry.index))
            {
                last.reset = Some((event.file, event.line));
            }
        }
    }

    /// An entry is about to stand where another one stood a ring before.
    fn overwrite(&mut self, event: &ObservedEvent, ring: u32, index: u32) {
        let Some(entries) = self.config.ring_entries else {
            return;
        };
        let Some(standing) = self.standing.get_mut(&ring) else {
            return;
        };
        let under = index.wrapping_sub(entries);
        let gone: Vec<Standing> = standing
            .extract_if(.., |entry| entry.index == under)
            .collect();
        for entry in gone {
            self.note(
                event,
                &[entry.page],
                &format!("overwritten in ring {ring} by entry {index}"),
            );
            if let Some(last) = self.pages[entry.page]
                .last
                .as_mut()
                .filter(|last| (last.ring, last.index) == (ring, under))
            {
                last.overwritten = Some((event.file, event.line));
            }
        }
    }

    fn harvest(&mut self, event: &ObservedEvent, cpu_index: u32, fetch: u32, offset: u64) {
        self.harvests += 1;
        let place = (event.file, event.line);
        let ring = self.vcpu_of_index.get(&cpu_index).copied();
        self.unplaced_harvests |= ring.is_none();
        // Without QEMU's kvm_create_vcpu its index is not known to be a ring; the entry itself says enough, if one is like it.
        let mut pages: Vec<usize> = self
            .standing
            .iter()
            .filter(|(number, _)| ring.is_none_or(|ring| ring == **number))
            .flat_map(|(_, standing)| standing)
            .filter(|entry| entry.index == fetch && entry.offset == offset)
            .map(|entry| entry.page)
            .collect();
        pages.sort_unstable();
        pages.dedup();
        let placed = !pages.is_empty();
        if !placed && self.pushes == 0 {
            // QEMU's log alone: no entry was seen, and the event names no memslot.
            for number in self.slots.keys().copied().collect::<Vec<_>>() {
                pages.extend(self.at(number, offset));
            }
            if self.slots.is_empty() {
                pages.extend(self.by_gfn.get(&offset));
                self.guessed |= !pages.is_empty();
            }
            let of_slots = self.by_place.iter().filter(|((_, n), _)| *n == offset);
            pages.extend(of_slots.map(|(_, page)| *page));
            pages.sort_unstable();
            pages.dedup();
        }
        self.note(
            event,
            &pages,
            &format!("read by QEMU, entry {fetch} of its CPU {cpu_index}, offset {offset:#x}"),
        );
        for page in pages {
            let page = &mut self.pages[page];
            page.harvests += 1;
            page.last_harvest = Some(place);
            if placed && let Some(last) = page.last.as_mut().filter(|last| last.index == fetch) {
                last.harvested = Some(place);
            }
        }
    }

    /// What came of it, the worst first.
    #[must_use]
    pub fn finish(self, several: bool) -> Told {
        let mut pages: Vec<PageTold> = self
            .pages
            .iter()
            .map(|page| {
                let (fate, sentence) = self.judge(page, several);
                PageTold {
                    name: page.name.to_string(),
                    fate,
                    sentence,
                    pushes: page.pushes,
                    harvests: page.harvests,
                    events: page.events.clone(),
                }
            })
            .collect();
        pages.sort_by_key(|page| page.fate);
        let mut unknown = Vec::new();
        if self.pushes == 0 {
            unknown.push("no kvm_dirty_ring_push is in this log: what was pushed is not known");
        }
        if self.pushes > 0 && self.harvests == 0 {
            unknown.push("no harvest is in this log (QEMU's kvm_dirty_ring_page): what was read is not known");
        }
        if self.pushes > 0 && self.resets == 0 {
            unknown.push(
                "no kvm_dirty_ring_reset is in this log: resets are known from later pushes only",
            );
        }
        if self.guessed {
            unknown.push("the log does not say where its memslots are (QEMU's kvm_set_user_memory): frame numbers are taken as offsets, as of a memslot at address 0");
        }
        if self.unplaced_harvests && self.pushes > 0 {
            unknown.push("the log does not say which vCPU is behind QEMU's index (kvm_create_vcpu): an entry is known by its number and offset");
        }
        if self.gaps {
            unknown.push("events are missing from the log");
        }
        if self.config.ring_entries.is_none() && self.pushes > 0 {
            unknown.push("the ring's size is not known (--ring-entries): an entry that was overwritten is not seen");
        }
        Told { pages, unknown }
    }

    fn judge(&self, page: &Followed, several: bool) -> (Fate, String) {
        let line = |place: Place| match several {
            true => format!("line {} of log {}", place.1, place.0 + 1),
            false => format!("line {}", place.1),
        };
        let Some(last) = &page.last else {
            return match page.last_harvest {
                Some(place) => (
                    Fate::Read,
                    format!(
                        "read {}, last on {}; no push of it is in this log",
                        times(page.harvests),
                        line(place)
                    ),
                ),
                None => (Fate::Unseen, unseen(page)),
            };
        };
        let pushed = format!(
            "pushed last on {} as entry {} of ring {}, slot {} offset {:#x}",
            line(last.pushed),
            last.index,
            last.ring,
            last.slot,
            last.offset
        );
        let reset = match (last.overwritten, last.reset) {
            (Some(place), _) => format!("overwritten on {}", line(place)),
            (None, Some(place)) => format!("reset on {}", line(place)),
            (None, None) if self.resets == 0 => "no reset of it is in this log".to_owned(),
            (None, None) => "not reset".to_owned(),
        };
        if let Some(place) = last.harvested {
            let fate = match last.reset {
                None if self.resets > 0 && !last.gap => Fate::NotArmed,
                _ => Fate::Read,
            };
            let rest = match fate {
                Fate::NotArmed => {
                    ": what is stored from then on leaves no record before the next reset"
                }
                _ => "",
            };
            let sentence = format!("{pushed}; read on {}; {reset}{rest}", line(place));
            return (fate, sentence);
        }
        let bitmap = page.bitmap_read.map_or(String::new(), |place| {
            format!(
                " (its memslot's bitmap was read on {}; no log says what it held)",
                line(place)
            )
        });
        if self.harvests == 0 || last.gap {
            let why = if last.gap {
                "events are missing after that"
            } else {
                "this log has no harvest"
            };
            let sentence =
                format!("{pushed}; {reset}; whether it was read is not known: {why}{bitmap}");
            let fate = if last.overwritten.is_some() {
                Fate::Lost
            } else {
                Fate::Unknown
            };
            return (fate, sentence);
        }
        let gone = last.reset.is_some() || last.overwritten.is_some();
        let (fate, what) = if gone {
            (Fate::Lost, "never harvested: lost unless read otherwise")
        } else {
            (
                Fate::Unread,
                "never harvested: it stands in the ring at the end of the log, and is lost unless read later",
            )
        };
        (fate, format!("{pushed}; {reset}; {what}{bitmap}"))
    }
}

fn unseen(page: &Followed) -> String {
    match page.events.iter().last() {
        Some(event) => format!(
            "never pushed; the last that is known of it, on line {}: {}",
            event.line, event.what
        ),
        None => {
            "no event names it: if it was stored to, that left no record in this log".to_owned()
        }
    }
}

fn times(n: u64) -> String {
    match n {
        1 => "once".to_owned(),
        n => format!("{n} times"),
    }
}

/// What was found out about pages.
#[derive(Debug, Clone)]
pub struct Told {
    /// The pages, the worst first.
    pub pages: Vec<PageTold>,
    /// What the log does not say.
    pub unknown: Vec<&'static str>,
}

/// What was found out about a page.
#[derive(Debug, Clone)]
pub struct PageTold {
    /// As it was named.
    pub name: String,
    /// What became of it.
    pub fate: Fate,
    /// The same in a sentence.
    pub sentence: String,
    /// Entries that were pushed for it.
    pub pushes: u64,
    /// Entries of it that were read.
    pub harvests: u64,
    /// What happened to it.
    pub events: Events,
}
