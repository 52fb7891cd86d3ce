//! KVM's dirty log as its documentation has it: lists and flags, one call at a time, nothing at once. It knows no step of
//! the model and shares no code with it.

use crate::support::{Access, Arch, Entry, Errno, Ran, Region, Setup};

/// `KVM_DIRTY_GFN_F_DIRTY` and `KVM_DIRTY_GFN_F_RESET`.
const DIRTY: u8 = 1;
const RESET: u8 = 2;

/// Memslots that user space can have in an address space: 32767, of which x86 keeps three.
fn user_slots(arch: Arch) -> u32 {
    if arch == Arch::X86 { 32764 } else { 32767 }
}

struct Slot {
    live: bool,
    logging: bool,
    bits: Option<Vec<bool>>,
    /// Pages that the guest can load from, and store to, without a fault.
    present: Vec<bool>,
    writable: Vec<bool>,
}

#[derive(Default)]
struct Vcpu {
    ring: Vec<Entry>,
    pushed: usize,
    fetched: usize,
    reset: usize,
    /// The soft-full request.
    requested: bool,
    in_guest: bool,
    waiting: Option<Access>,
}

/// The oracle.
pub(crate) struct Naive {
    setup: Setup,
    slots: Vec<Slot>,
    vcpus: Vec<Vcpu>,
    manual: bool,
    initially_set: bool,
}

impl Naive {
    pub(crate) fn new(setup: &Setup) -> Self {
        let entries = setup.ring.map_or(0, |(entries, _)| entries as usize);
        let mut naive = Self {
            setup: setup.clone(),
            slots: Vec::new(),
            vcpus: Vec::new(),
            manual: false,
            initially_set: false,
        };
        for (slot, &pages) in setup.slots.iter().enumerate() {
            naive.slots.push(Slot {
                live: false,
                logging: false,
                bits: None,
                present: vec![false; pages as usize],
                writable: vec![false; pages as usize],
            });
            let _ = naive.region(slot, Region::Logging);
        }
        for _ in 0..setup.vcpus {
            naive.vcpus.push(Vcpu {
                ring: vec![(0, 0, 0); entries],
                ..Vcpu::default()
            });
        }
        naive
    }

    /// Re-arming a set of pages: x86 and LoongArch take exactly those, the others all from the lowest to the highest.
    fn rearm(&mut self, slot: usize, pages: &[usize]) {
        let (Some(&low), Some(&high)) = (pages.iter().min(), pages.iter().max()) else {
            return;
        };
        for page in low..=high {
            if !matches!(self.setup.arch, Arch::X86 | Arch::Loongarch) || pages.contains(&page) {
                self.slots[slot].writable[page] = false;
            }
        }
    }

    fn is_soft_full(&self, vcpu: usize) -> bool {
        self.setup.ring.is_some_and(|(entries, reserved)| {
            let used = self.vcpus[vcpu].pushed - self.vcpus[vcpu].reset;
            used >= (entries - reserved) as usize
        })
    }

    /// The check of the request that a push raised: it stays raised as long as the ring is soft-full.
    fn must_leave(&mut self, vcpu: usize) -> bool {
        self.vcpus[vcpu].requested &= self.is_soft_full(vcpu);
        self.vcpus[vcpu].requested
    }

    /// Marks a page in the context of a vCPU: in its ring where there are rings, else in the bitmap.
    fn mark(&mut self, vcpu: usize, slot: usize, page: u32) {
        if !self.slots[slot].logging {
            return;
        }
        if self.setup.ring.is_some() {
            let v = &mut self.vcpus[vcpu];
            let place = v.pushed % v.ring.len();
            v.ring[place] = (DIRTY, slot as u32, u64::from(page));
            v.pushed += 1;
            self.vcpus[vcpu].requested |= self.is_soft_full(vcpu);
        } else if let Some(bits) = &mut self.slots[slot].bits {
            bits[page as usize] = true;
        }
    }

    /// The way into the guest, with what may make it a way out. The kernel's own record is page 0 of slot 0.
    fn enter(&mut self, vcpu: usize, record: bool) -> Option<Ran> {
        let record_first = matches!(self.setup.arch, Arch::Arm64 | Arch::Riscv);
        if record && record_first {
            self.mark(vcpu, 0, 0);
        }
        let full = self.must_leave(vcpu);
        if record && !record_first {
            self.mark(vcpu, 0, 0);
        }
        self.vcpus[vcpu].in_guest = !full;
        full.then_some(Ran::RingFull)
    }

    pub(crate) fn run(&mut self, vcpu: usize, access: Option<Access>, record: bool) -> Ran {
        let mut asked = access;
        if (record || !self.vcpus[vcpu].in_guest)
            && let Some(ran) = self.enter(vcpu, record)
        {
            return ran;
        }
        loop {
            let waited = self.vcpus[vcpu].waiting.take();
            let Some(access) = waited.or_else(|| asked.take()) else {
                return Ran::InGuest;
            };
            let page = access.page as usize;
            let slot = &mut self.slots[access.slot];
            if !slot.live {
                if waited.is_none() {
                    // An access that begins where no memslot is, the test does not make.
                    continue;
                }
                self.vcpus[vcpu].in_guest = false;
                return Ran::NoMemory;
            }
            if slot.writable[page] || (access.load && slot.present[page]) {
                continue;
            }
            // x86 maps writable what it reads, and marks it; the others map it so where nothing is logged.
            let read_only = access.load && slot.bits.is_some() && self.setup.arch != Arch::X86;
            slot.present[page] = true;
            if !read_only {
                slot.writable[page] = true;
                self.mark(vcpu, access.slot, access.page);
            }
            // The access is made when the guest runs again.
            self.vcpus[vcpu].waiting = Some(access);
            if let Some(ran) = self.enter(vcpu, false) {
                return ran;
            }
        }
    }

    pub(crate) fn region(&mut self, index: usize, region: Region) -> Result<u32, Errno> {
        let with_bits = self.setup.ring.is_none() || self.setup.with_bitmap;
        let pages = self.setup.slots[index] as usize;
        let initially_set = self.initially_set;
        let slot = &mut self.slots[index];
        let logging = region == Region::Logging;
        if region == Region::Gone {
            if !slot.live {
                return Err(Errno::EINVAL);
            }
            (slot.live, slot.logging, slot.bits) = (false, false, None);
            for (other, slot) in self.slots.iter_mut().enumerate() {
                // x86 drops the mappings of every slot.
                if other == index || self.setup.arch == Arch::X86 {
                    slot.present.fill(false);
                    slot.writable.fill(false);
                }
            }
            return Ok(0);
        }
        if slot.live && slot.logging == logging {
            return Ok(0);
        }
        (slot.live, slot.logging) = (true, logging);
        slot.bits = (logging && with_bits).then(|| vec![initially_set; pages]);
        if logging && !initially_set {
            slot.writable.fill(false);
        }
        Ok(0)
    }

    pub(crate) fn manual(&mut self, bits: u64) -> Result<u32, Errno> {
        if bits == 2 || bits > 3 {
            return Err(Errno::EINVAL);
        }
        (self.manual, self.initially_set) = (bits != 0, bits == 3);
        Ok(0)
    }

    /// The slot of a number; `early` is checked between the number and the slot.
    fn find(&self, number: u32, early: bool) -> Result<usize, Errno> {
        let (as_id, id) = (number >> 16, number & 0xffff);
        let spaces = if self.setup.arch == Arch::X86 { 2 } else { 1 };
        if self.setup.ring.is_some() && !self.setup.with_bitmap {
            return Err(Errno::ENXIO);
        }
        if as_id >= spaces || id >= user_slots(self.setup.arch) || !early {
            return Err(Errno::EINVAL);
        }
        let there = as_id == 0
            && self
                .slots
                .get(id as usize)
                .is_some_and(|s| s.bits.is_some());
        if there {
            Ok(id as usize)
        } else {
            Err(Errno::ENOENT)
        }
    }

    /// Takes those bits of one word that `wanted` says, and re-arms their pages.
    fn take_word(
        &mut self,
        slot: usize,
        first: usize,
        wanted: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        let end = (first + self.setup.word_bits as usize).min(self.setup.slots[slot] as usize);
        let Some(bits) = &mut self.slots[slot].bits else {
            return Vec::new();
        };
        let taken: Vec<usize> = (first..end)
            .filter(|&page| bits[page] && wanted(page))
            .collect();
        for &page in &taken {
            bits[page] = false;
        }
        self.rearm(slot, &taken);
        taken
    }

    fn words(&self, slot: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.setup.slots[slot] as usize).step_by(self.setup.word_bits as usize)
    }

    /// The answer, and the host pages that user space is told.
    pub(crate) fn get(&mut self, number: u32, bad: bool) -> (Result<u32, Errno>, Vec<u32>) {
        let slot = match self.find(number, true) {
            Ok(slot) => slot,
            Err(errno) => return (Err(errno), Vec::new()),
        };
        let mut pages = Vec::new();
        if self.manual {
            let bits = self.slots[slot].bits.iter().flatten().enumerate();
            pages.extend(bits.filter(|(_, bit)| **bit).map(|(page, _)| page));
        } else {
            for word in self.words(slot) {
                pages.extend(self.take_word(slot, word, |_| true));
            }
        }
        if bad {
            // What was taken is gone all the same.
            return (Err(Errno::EFAULT), Vec::new());
        }
        let first = self.setup.first_frame(slot);
        (
            Ok(0),
            pages.iter().map(|&page| first + page as u32).collect(),
        )
    }

    /// `given`: pages of the slot whose bits user space passes.
    pub(crate) fn clear(
        &mut self,
        number: u32,
        first: u64,
        count: u32,
        given: &[u32],
        bad: bool,
    ) -> Result<u32, Errno> {
        let bits = u64::from(self.setup.word_bits);
        let slot = self.find(number, first.is_multiple_of(bits))?;
        let pages = u64::from(self.setup.slots[slot]);
        let end = first.saturating_add(u64::from(count));
        if end > pages || (u64::from(count) % bits != 0 && end != pages) {
            return Err(Errno::EINVAL);
        }
        if bad {
            return Err(Errno::EFAULT);
        }
        for word in self.words(slot) {
            if (first..end).contains(&(word as u64)) {
                self.take_word(slot, word, |page| given.contains(&(page as u32)));
            }
        }
        Ok(0)
    }

    /// A writer without a vCPU: the bitmap is told, if there is one.
    pub(crate) fn kernel_write(&mut self, slot: usize, page: u32) {
        if let Some(bits) = &mut self.slots[slot].bits {
            bits[page as usize] = true;
        }
    }

    /// Slot numbers and offsets in order, and the host pages of those that name one.
    pub(crate) fn harvest(&mut self, vcpu: usize, max: u32) -> (Vec<(u32, u64)>, Vec<u32>) {
        let v = &mut self.vcpus[vcpu];
        let (mut entries, mut pages) = (Vec::new(), Vec::new());
        while entries.len() < max as usize && !v.ring.is_empty() {
            let place = v.fetched % v.ring.len();
            let (flags, slot, offset) = v.ring[place];
            if flags != DIRTY {
                break;
            }
            v.ring[place].0 = RESET;
            v.fetched += 1;
            entries.push((slot, offset));
            if self.slots[slot as usize].live {
                pages.push(self.setup.first_frame(slot as usize) + offset as u32);
            }
        }
        pages.sort_unstable();
        pages.dedup();
        (entries, pages)
    }

    /// RESET: batches of consecutive entries of one slot that span no more than so many pages. It looks for a signal
    /// before each entry, and then forgets the batch that it has gathered.
    pub(crate) fn reset(&mut self, signal_at: Option<usize>) -> Result<u32, Errno> {
        if self.setup.ring.is_none() {
            return Err(Errno::EINVAL);
        }
        let (mut count, mut looked) = (0, 0);
        for vcpu in 0..self.vcpus.len() {
            let mut batch: Vec<(u32, u64)> = Vec::new();
            loop {
                if signal_at == Some(looked) {
                    return Ok(count);
                }
                looked += 1;
                let v = &mut self.vcpus[vcpu];
                let place = v.reset % v.ring.len();
                let (flags, slot, offset) = v.ring[place];
                if flags & RESET == 0 {
                    break;
                }
                v.ring[place].0 = 0;
                v.reset += 1;
                count += 1;
                let near = |(other, page): &(u32, u64)| {
                    *other == slot && page.abs_diff(offset) < u64::from(self.setup.batch_pages)
                };
                if !batch.iter().all(near) {
                    self.rearm_batch(&std::mem::take(&mut batch));
                }
                batch.push((slot, offset));
            }
            self.rearm_batch(&batch);
        }
        Ok(count)
    }

    fn rearm_batch(&mut self, batch: &[(u32, u64)]) {
        let Some(&(slot, _)) = batch.first() else {
            return;
        };
        // The slots' sizes never change here, so that an entry's page is always inside.
        if self.slots[slot as usize].live {
            let pages: Vec<usize> = batch.iter().map(|(_, page)| *page as usize).collect();
            self.rearm(slot as usize, &pages);
        }
    }

    /// The first frame of the slot of that number; 0 where there is none.
    pub(crate) fn first_frame(&self, number: u32) -> u32 {
        let slot = number as usize;
        if slot < self.slots.len() {
            self.setup.first_frame(slot)
        } else {
            0
        }
    }

    /// What can be seen of a ring: entries in use, with their places, and how many were pushed and reset, ever.
    pub(crate) fn ring(&self, vcpu: usize) -> (Vec<(usize, Entry)>, (u32, u32)) {
        let v = &self.vcpus[vcpu];
        let used = v.ring.iter().copied().enumerate();
        (
            used.filter(|(_, entry)| entry.0 != 0).collect(),
            (v.pushed as u32, v.reset as u32),
        )
    }

    /// The frames whose bit is set.
    pub(crate) fn bits(&self) -> Vec<u32> {
        self.frames(|slot| slot.bits.clone().unwrap_or_default())
    }

    /// The frames that the guest can store to without a fault.
    pub(crate) fn writable(&self) -> Vec<u32> {
        self.frames(|slot| slot.writable.clone())
    }

    fn frames(&self, of: impl Fn(&Slot) -> Vec<bool>) -> Vec<u32> {
        let mut frames = Vec::new();
        for (index, slot) in self.slots.iter().enumerate() {
            let first = self.setup.first_frame(index);
            let set = of(slot).into_iter().zip(first..);
            frames.extend(set.filter(|(set, _)| *set).map(|(_, frame)| frame));
        }
        frames
    }
}
