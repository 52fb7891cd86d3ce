//! A state as bits: what the visited set and the frontier of a search hold.
//!
//! Two states that behave alike have the same bits: ring positions count from the reset index, and what nobody can
//! read any more is zero. One function walks the fields for both directions, so that they cannot disagree.

use crate::errno::Errno;
use crate::layout::Layout;
use crate::machine::Machine;
use crate::op::Op;
use crate::pages::PageSet;
use crate::ring::RingEntry;
use crate::slot::{Life, Slot};
use crate::state::State;
use crate::vcpu::{Exit, NO_FRAME, Pc};

/// How many bits each field of a machine's states has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Widths {
    frames: u32,
    frame_index: u32,
    slot_number: u32,
    offset: u32,
    budget: u32,
    op: u32,
    index: u32,
    count: u32,
    ring_index: u32,
    batch: u32,
    pml_len: u32,
    pml: bool,
    huge: bool,
    sent: bool,
    own_log: bool,
    seen: bool,
    hand: bool,
    ghost: bool,
    devices: bool,
    raw_entries: bool,
    loads: bool,
    steal: bool,
    slots_change: bool,
    locks: bool,
    failures: bool,
    vcpu_setup: bool,
}

/// Bits that hold the numbers up to `max`.
fn bits_for(max: u64) -> u32 {
    64 - max.leading_zeros()
}

impl Widths {
    /// The widths for a machine whose set-up is done: `template` is the state that the search begins with.
    #[must_use]
    pub fn new<L: Layout>(machine: &Machine, template: &State<L>) -> Self {
        let any_op = |wanted: fn(&Op) -> bool| machine.programs.iter().flatten().any(wanted);
        let ring_entries = template
            .vcpus
            .iter()
            .map(|vcpu| vcpu.ring.size())
            .max()
            .unwrap_or(0);
        let longest_list = machine.frame_lists.iter().map(Vec::len).max().unwrap_or(0) as u64;
        let words = machine
            .slots
            .iter()
            .map(|slot| slot.npages.div_ceil(machine.constants.word_bits))
            .max()
            .unwrap_or(0);
        let max_budget = machine
            .vcpus
            .iter()
            .flat_map(|vcpu| [vcpu.stores, vcpu.loads, vcpu.steal])
            .chain(machine.devices.iter().map(|device| device.transfers))
            .chain([machine.send_failures])
            .max()
            .unwrap_or(0);
        let total_entries = u64::from(ring_entries) * template.vcpus.len() as u64;
        Self {
            frames: machine.frames().max(1),
            frame_index: bits_for(u64::from(machine.frames())),
            slot_number: 5,
            offset: bits_for(u64::from(
                machine
                    .slots
                    .iter()
                    .map(|slot| slot.npages)
                    .max()
                    .unwrap_or(1),
            )),
            budget: bits_for(u64::from(max_budget)),
            op: bits_for(machine.programs.iter().map(Vec::len).max().unwrap_or(0) as u64),
            index: bits_for(
                longest_list
                    .max(u64::from(words))
                    .max(template.vcpus.len() as u64),
            ),
            // A harvest that is not bounded otherwise counts at most the entries pushed while it runs.
            count: bits_for(total_entries * 4).max(4),
            ring_index: bits_for(u64::from(ring_entries)) + 2,
            batch: machine.constants.reset_batch_pages.min(64),
            pml_len: bits_for(u64::from(machine.constants.pml_entries)),
            pml: machine.pml,
            huge: machine.slots.iter().any(|slot| slot.huge),
            sent: machine.track_sent,
            own_log: any_op(|op| matches!(op, Op::UserWrite { .. })),
            seen: any_op(|op| matches!(op, Op::ClearDirtyLog { .. })),
            hand: any_op(|op| matches!(op, Op::Publish)),
            ghost: machine.track_spurious,
            devices: !machine.devices.is_empty(),
            raw_entries: !machine.mutations.is_empty(),
            loads: machine.vcpus.iter().any(|vcpu| vcpu.loads > 0),
            steal: machine.vcpus.iter().any(|vcpu| vcpu.steal > 0),
            slots_change: any_op(|op| matches!(op, Op::SetMemoryRegion { .. })),
            locks: any_op(|op| matches!(op, Op::Lock(_))),
            failures: machine.send_failures > 0,
            vcpu_setup: any_op(|op| matches!(op, Op::EnableCap { .. } | Op::CreateVcpu)),
        }
    }
}

use alloc::vec::Vec;

/// A direction in which the fields are walked.
trait Codec {
    /// Whether values flow from the state to the bits.
    const ENCODES: bool;
    /// One field of at most 64 bits.
    fn bits(&mut self, value: &mut u64, width: u32);

    #[inline(always)]
    fn u8(&mut self, value: &mut u8, width: u32) {
        let mut wide = u64::from(*value);
        self.bits(&mut wide, width);
        *value = wide as u8;
    }
    #[inline(always)]
    fn u32(&mut self, value: &mut u32, width: u32) {
        let mut wide = u64::from(*value);
        self.bits(&mut wide, width);
        *value = wide as u32;
    }
    #[inline(always)]
    fn flag(&mut self, value: &mut bool) {
        let mut wide = u64::from(*value);
        self.bits(&mut wide, 1);
        *value = wide != 0;
    }
    /// A frame or none.
    #[inline(always)]
    fn frame(&mut self, value: &mut u32, width: u32) {
        let mut wide = if *value == NO_FRAME {
            0
        } else {
            u64::from(*value) + 1
        };
        self.bits(&mut wide, width);
        *value = if wide == 0 { NO_FRAME } else { wide as u32 - 1 };
    }
    #[inline(always)]
    fn set<S: PageSet>(&mut self, set: &mut S, frames: u32) {
        let mut wide = set.word(0, frames);
        self.bits(&mut wide, frames.min(64));
        if !Self::ENCODES {
            set.clear();
            set.set_word(0, wide);
        }
    }
}

/// Writes fields into words.
struct Encoder<'a> {
    words: &'a mut [u64],
    at: u32,
}

impl Codec for Encoder<'_> {
    const ENCODES: bool = true;
    #[inline(always)]
    fn bits(&mut self, value: &mut u64, width: u32) {
        debug_assert!(
            width == 64 || *value >> width == 0,
            "a field outgrew its width"
        );
        let word = (self.at / 64) as usize;
        let shift = self.at % 64;
        self.words[word] |= *value << shift;
        if shift + width > 64 {
            self.words[word + 1] |= *value >> (64 - shift);
        }
        self.at += width;
    }
}

/// Reads fields from words.
struct Decoder<'a> {
    words: &'a [u64],
    at: u32,
}

impl Codec for Decoder<'_> {
    const ENCODES: bool = false;
    #[inline(always)]
    fn bits(&mut self, value: &mut u64, width: u32) {
        if width == 0 {
            *value = 0;
            return;
        }
        let word = (self.at / 64) as usize;
        let shift = self.at % 64;
        let mut wide = self.words[word] >> shift;
        if shift + width > 64 {
            wide |= self.words[word + 1] << (64 - shift);
        }
        *value = wide & crate::pages::low_bits(width);
        self.at += width;
    }
}

/// Counts the bits.
struct Counter(u32);

impl Codec for Counter {
    const ENCODES: bool = true;
    fn bits(&mut self, _value: &mut u64, width: u32) {
        self.0 += width;
    }
}

/// The bits that each state of the machine takes.
#[must_use]
pub fn packed_bits<L: Layout>(machine: &Machine, widths: &Widths, template: &State<L>) -> u32 {
    let mut counter = Counter(0);
    walk(machine, widths, &mut template.clone(), &mut counter);
    counter.0
}

/// How the states of a machine are packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packing {
    widths: Widths,
    bits: u32,
}

impl Packing {
    /// The packing of the states that are reachable from `template`, whose set-up is done.
    #[must_use]
    pub fn new<L: Layout>(machine: &Machine, template: &State<L>) -> Self {
        let widths = Widths::new(machine, template);
        Self {
            widths,
            bits: packed_bits(machine, &widths, template),
        }
    }

    /// Bits of a packed state.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Words of a packed state.
    #[must_use]
    pub fn words(&self) -> usize {
        self.bits.div_ceil(64) as usize
    }

    /// Writes `state` into `words`, which are zero and as many as [`Packing::words`].
    #[inline]
    pub fn pack<L: Layout>(&self, machine: &Machine, state: &mut State<L>, words: &mut [u64]) {
        pack(machine, &self.widths, state, words);
    }

    /// Reads a state from `words` into a copy of the template.
    #[inline]
    pub fn unpack<L: Layout>(&self, machine: &Machine, words: &[u64], state: &mut State<L>) {
        unpack(machine, &self.widths, words, state);
    }
}

/// Writes `state` into `words`, which are zero and long enough.
#[inline]
pub fn pack<L: Layout>(
    machine: &Machine,
    widths: &Widths,
    state: &mut State<L>,
    words: &mut [u64],
) {
    walk(machine, widths, state, &mut Encoder { words, at: 0 });
}

/// Reads a state from `words`; `state` is a copy of the search's first one, which has all that the bits leave out.
#[inline]
pub fn unpack<L: Layout>(machine: &Machine, widths: &Widths, words: &[u64], state: &mut State<L>) {
    walk(machine, widths, state, &mut Decoder { words, at: 0 });
}

#[inline]
fn walk<L: Layout, C: Codec>(machine: &Machine, w: &Widths, state: &mut State<L>, c: &mut C) {
    let frames = w.frames;
    if w.slots_change {
        for slot in state.slots.iter_mut() {
            walk_slot(slot, c);
        }
    }
    c.set(&mut state.present, frames);
    c.set(&mut state.writable, frames);
    if w.pml {
        c.set(&mut state.dirty_bit, frames);
    }
    if w.huge {
        c.set(&mut state.huge, frames);
    }
    c.set(&mut state.bitmap, frames);
    c.set(&mut state.scratch, frames);
    if w.seen {
        c.set(&mut state.seen, frames);
    } else if C::ENCODES {
        state.seen.clear();
    }
    c.set(&mut state.stale, frames);
    c.set(&mut state.pending, frames);
    if w.sent {
        c.set(&mut state.sent, frames);
    }
    if w.own_log {
        c.set(&mut state.own_log, frames);
    }
    if w.ghost {
        c.set(&mut state.written, frames);
        c.set(&mut state.spurious, frames);
    }
    c.u8(&mut state.slots_lock, 3);
    c.flag(&mut state.mmu_lock_write);
    c.u8(&mut state.mmu_lock_vcpus, 3);
    c.flag(&mut state.vcpu_mutexes);
    if w.locks {
        c.u8(&mut state.user_locks, 8);
    }
    c.flag(&mut state.guest_runs);
    if w.failures {
        c.u8(&mut state.send_failures, w.budget);
    }
    c.flag(&mut state.finished);
    c.flag(&mut state.crashed);
    if w.vcpu_setup {
        let mut entries = u64::from(state.caps.ring_entries);
        c.bits(&mut entries, 17);
        state.caps.ring_entries = entries as u32;
        c.flag(&mut state.caps.ring_with_bitmap);
        c.u8(&mut state.caps.manual_protect, 2);
    }
    for index in 0..state.vcpus.len() {
        walk_vcpu(machine, w, state, index, c);
    }
    for index in 0..state.threads.len() {
        walk_thread(w, state, index, c);
    }
    if w.devices {
        for device in state.devices.iter_mut() {
            c.flag(&mut device.runs);
            c.flag(&mut device.started);
            c.u8(&mut device.budget, w.budget);
            c.set(&mut device.in_flight, frames);
            c.set(&mut device.unlogged, frames);
            c.set(&mut device.log, frames);
        }
    }
}

fn walk_slot<C: Codec>(slot: &mut Slot, c: &mut C) {
    let mut life = slot.life as u8;
    c.u8(&mut life, 2);
    slot.life = Life::from_number(life);
    c.flag(&mut slot.logging);
    c.flag(&mut slot.readonly);
    c.flag(&mut slot.bitmap);
    c.u8(&mut slot.place, 3);
}

#[inline]
fn walk_vcpu<L: Layout, C: Codec>(
    machine: &Machine,
    w: &Widths,
    state: &mut State<L>,
    index: usize,
    c: &mut C,
) {
    let reads_freed = w.raw_entries;
    let v = &mut state.vcpus[index];
    let mut pc = v.pc as u8;
    c.u8(&mut pc, 4);
    v.pc = Pc::ALL[usize::from(pc).min(Pc::ALL.len() - 1)];
    c.u8(&mut v.stage, 3);
    c.u8(&mut v.push, 3);
    c.frame(&mut v.frame, w.frame_index);
    if w.loads {
        c.flag(&mut v.load);
        c.u8(&mut v.loads, w.budget);
    }
    c.flag(&mut v.fast);
    c.flag(&mut v.was_absent);
    c.flag(&mut v.logging);
    c.flag(&mut v.old_slots);
    c.u8(&mut v.stores, w.budget);
    if w.steal {
        c.u8(&mut v.steal, w.budget);
    }
    let mut exit = v.exit as u8;
    c.u8(&mut exit, 2);
    v.exit = Exit::ALL[usize::from(exit)];
    c.flag(&mut v.request);
    c.flag(&mut v.kicked);
    c.flag(&mut v.resched);
    c.flag(&mut v.waits);
    c.set(&mut v.tlb, w.frames);
    if w.pml {
        c.flag(&mut v.pml_on);
        let mut len = v.pml.len() as u64;
        c.bits(&mut len, w.pml_len);
        if !C::ENCODES {
            crate::layout::Array::truncate(&mut v.pml, 0);
            for _ in 0..len {
                crate::layout::Array::push(&mut v.pml, 0);
            }
        }
        for slot in 0..machine.constants.pml_entries as usize {
            let mut frame = v.pml.get(slot).copied().unwrap_or(0);
            c.u32(&mut frame, w.frame_index);
            if let Some(place) = v.pml.get_mut(slot) {
                *place = frame;
            }
        }
    }
    let size = v.ring.size();
    if size == 0 {
        return;
    }
    let ring = &mut v.ring;
    let wrap = crate::pages::low_bits(w.ring_index);
    let reset = ring.reset_index;
    let mut used = u64::from(ring.dirty_index.wrapping_sub(reset)) & wrap;
    let mut fetched = u64::from(ring.fetch_index.wrapping_sub(reset)) & wrap;
    c.bits(&mut used, w.ring_index);
    c.bits(&mut fetched, w.ring_index);
    if !C::ENCODES {
        let signed = |value: u64| {
            // The top bit is a sign: abuse can put one index behind another.
            if value >> (w.ring_index - 1) != 0 {
                (value | !wrap) as u32
            } else {
                value as u32
            }
        };
        ring.reset_index = 0;
        ring.dirty_index = signed(used);
        ring.fetch_index = signed(fetched);
    }
    let reset = ring.reset_index;
    let pushing = v.push > 0;
    let tail = ring.dirty_index;
    for position in 0..size {
        let index = reset.wrapping_add(position);
        let entry = ring.entry(index);
        let mut flags = entry.flags();
        // A free entry's payload is dead, unless a push is filling it or a mutation reads it all the same.
        let dead = C::ENCODES
            && flags == 0
            && !reads_freed
            && !(pushing && ring.position(index) == ring.position(tail));
        let mut slot = if dead { 0 } else { slot_code(entry.slot()) };
        let mut offset = if dead {
            0
        } else {
            entry.offset().min(crate::pages::low_bits(w.offset))
        };
        c.u8(&mut flags, 2);
        c.bits(&mut slot, w.slot_number);
        c.bits(&mut offset, w.offset);
        if !C::ENCODES {
            let entry = ring.entry_mut(index);
            entry.set_flags(flags);
            entry.set_slot(slot_number(slot));
            entry.set_offset(offset);
        }
    }
}

/// A slot number in 5 bits: one of address space, four of id.
#[inline(always)]
fn slot_code(number: u32) -> u64 {
    u64::from((number >> 16).min(1) << 4 | (number & 0xffff).min(15))
}

#[inline(always)]
fn slot_number(code: u64) -> u32 {
    (code as u32 >> 4 & 1) << 16 | code as u32 & 15
}

#[inline]
fn walk_thread<L: Layout, C: Codec>(w: &Widths, state: &mut State<L>, index: usize, c: &mut C) {
    let t = &mut state.threads[index];
    let mut op = u32::from(t.op);
    c.u32(&mut op, w.op);
    t.op = op as u16;
    c.u8(&mut t.stage, 4);
    c.u32(&mut t.index, w.index);
    let mut count = u64::from(t.count.min(crate::pages::low_bits(w.count) as u32));
    c.bits(&mut count, w.count);
    t.count = count as u32;
    let mut freed = u64::from(t.freed.min(crate::pages::low_bits(w.count) as u32));
    c.bits(&mut freed, w.count);
    t.freed = freed as u32;
    c.flag(&mut t.any);
    c.flag(&mut t.signal);
    let mut slot = slot_code(t.entry_slot);
    c.bits(&mut slot, w.slot_number);
    let mut offset = t.entry_offset.min(crate::pages::low_bits(w.offset));
    c.bits(&mut offset, w.offset);
    let mut batch_slot = slot_code(t.batch.slot);
    c.bits(&mut batch_slot, w.slot_number);
    let mut batch_offset = t.batch.offset.min(crate::pages::low_bits(w.offset));
    c.bits(&mut batch_offset, w.offset);
    c.bits(&mut t.batch.mask, w.batch);
    // What an ioctl answered is read by nobody once it has returned.
    let mut answer = match t.answer {
        Err(errno) if t.stage != 0 => errno as u64,
        _ => 0,
    };
    c.bits(&mut answer, 5);
    if !C::ENCODES {
        t.entry_slot = slot_number(slot);
        t.entry_offset = offset;
        t.batch.slot = slot_number(batch_slot);
        t.batch.offset = batch_offset;
        t.answer = Errno::from_number(answer as u8).map_or(Ok(0), Err);
    }
    if w.hand {
        c.set(&mut t.hand, w.frames);
    }
}
