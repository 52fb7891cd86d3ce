//! A state as bits: what the visited set and the frontier of a search hold.
//!
//! Two states that behave alike have the same bits: ring positions count from the reset index, and what nobody can
//! read any more is zero. One function walks the fields for both directions, so that they cannot disagree.
//!
//! Each vCPU and each thread begins at a word of its own, so that after a step only the sections that it touched are
//! written again. A section's bits depend on what the step's own section and the VM-wide part say, and on nothing
//! that another actor can change without touching the section: see [`Touched`].

use alloc::vec::Vec;

use crate::errno::Errno;
use crate::footprint::{Fields, Reach, VcpuPlace, resume_ahead};
use crate::layout::Layout;
use crate::machine::Machine;
use crate::mutation::Mutation;
use crate::op::{Into, Op};
use crate::pages::{PageSet, low_bits};
use crate::ring::RingEntry;
use crate::slot::{Life, Slot};
use crate::state::State;
use crate::step::{Actor, Step};
use crate::thread_steps::current_op;
use crate::vcpu::{Exit, NO_FRAME, Pc};

/// How many bits each field of a machine's states has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Widths {
    frames: u32,
    frame_index: u32,
    slot_id: u32,
    slot_space: u32,
    place: u32,
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
    /// A mutation may read what is dead otherwise, and count where counts are equal otherwise.
    mutated: bool,
    loads: bool,
    steal: bool,
    slots_change: bool,
    locks: bool,
    failures: bool,
    vcpu_setup: bool,
    answers: bool,
    dirty_bits: bool,
    ring_places: bool,
    waits: bool,
    resets: bool,
}

/// Bits of a thread's stage.
const STAGE_BITS: u32 = 4;

/// Bits that hold the numbers up to `max`.
fn bits_for(max: u64) -> u32 {
    64 - max.leading_zeros()
}

impl Widths {
    fn new<L: Layout>(machine: &Machine, template: &State<L>) -> Self {
        let any_op = |wanted: fn(&Op) -> bool| machine.programs.iter().flatten().any(wanted);
        let mutated = !machine.mutations.is_empty();
        let ring_entries = template
            .vcpus
            .iter()
            .map(|vcpu| vcpu.ring.size())
            .max()
            .unwrap_or(0);
        let longest_list = machine.frame_lists.iter().map(Vec::len).max().unwrap_or(0) as u64;
        let most = |of: fn(&crate::machine::SlotTemplate) -> u64| {
            machine.slots.iter().map(of).max().unwrap_or(0)
        };
        let npages = most(|slot| u64::from(slot.npages)).max(1);
        let words = npages.div_ceil(u64::from(machine.constants.word_bits));
        // Only a mutation can set a bit in the padding between a slot's last page and its last word's end.
        let used = most(|slot| u64::from(slot.frame + slot.npages)) as u32;
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
            frames: if mutated { machine.frames() } else { used }.clamp(1, 64),
            frame_index: bits_for(u64::from(machine.frames())),
            slot_id: bits_for(most(|slot| u64::from(slot.id))),
            slot_space: bits_for(most(|slot| u64::from(slot.as_id))),
            place: bits_for(most(|slot| slot.places.len() as u64)),
            offset: bits_for(npages - 1),
            budget: bits_for(u64::from(max_budget)),
            op: bits_for(machine.programs.iter().map(Vec::len).max().unwrap_or(0) as u64),
            index: bits_for(
                longest_list
                    .max(words)
                    .max(machine.slots.len() as u64)
                    .max(template.vcpus.len() as u64),
            ),
            // Without a mutation it matters only whether RESET has counted anything.
            count: if mutated
                || any_op(|op| matches!(op, Op::Harvest { max, .. } if *max != u32::MAX))
            {
                bits_for(total_entries * 4).max(4)
            } else {
                1
            },
            ring_index: bits_for(u64::from(ring_entries)) + 2,
            batch: machine
                .constants
                .reset_batch_pages
                .min(64)
                .min(npages as u32),
            pml_len: bits_for(u64::from(machine.constants.pml_entries)),
            pml: machine.pml,
            huge: machine.slots.iter().any(|slot| slot.huge),
            sent: machine.track_sent,
            own_log: any_op(|op| {
                matches!(
                    op,
                    Op::UserWrite { .. }
                        | Op::MarkOwn { .. }
                        | Op::PutBack
                        | Op::Harvest {
                            into: Into::OwnLog,
                            ..
                        }
                        | Op::GetDirtyLog {
                            into: Into::OwnLog,
                            ..
                        }
                )
            }) || machine.devices.iter().any(|device| device.vmm_log),
            seen: any_op(|op| matches!(op, Op::ClearDirtyLog { .. })) || machine.track_spurious,
            hand: any_op(|op| {
                matches!(
                    op,
                    Op::Publish
                        | Op::PublishSlot { .. }
                        | Op::Harvest {
                            into: Into::Hand,
                            ..
                        }
                        | Op::GetDirtyLog {
                            into: Into::Hand,
                            ..
                        }
                )
            }),
            ghost: machine.track_spurious,
            devices: !machine.devices.is_empty(),
            mutated,
            loads: machine.vcpus.iter().any(|vcpu| vcpu.loads > 0),
            steal: machine.vcpus.iter().any(|vcpu| vcpu.steal > 0),
            slots_change: any_op(|op| matches!(op, Op::SetMemoryRegion { .. })),
            locks: any_op(|op| matches!(op, Op::Lock(_))),
            failures: machine.send_failures > 0,
            vcpu_setup: any_op(|op| matches!(op, Op::EnableCap { .. } | Op::CreateVcpu)),
            dirty_bits: machine.has_dirty_bits(),
            ring_places: machine.mutations.has(Mutation::RingMapShort),
            answers: any_op(|op| matches!(op, Op::OnError { .. })),
            waits: any_op(|op| matches!(op, Op::WaitRingFull | Op::AckRingFull)),
            resets: any_op(|op| matches!(op, Op::ResetRings { .. })),
        }
    }
}

/// The sections that a step may have changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Touched {
    /// The vCPUs, one bit each; the VM-wide section always counts as touched.
    vcpus: u32,
    /// The threads, one bit each.
    threads: u32,
}

impl Touched {
    /// Everything.
    pub const ALL: Self = Self {
        vcpus: u32::MAX,
        threads: u32::MAX,
    };

    /// What `step`, possible in `state`, may change.
    #[must_use]
    #[inline]
    pub fn by<L: Layout>(machine: &Machine, state: &State<L>, step: Step) -> Self {
        let index = match step.actor {
            Actor::Vcpu(vcpu) => {
                return Self {
                    vcpus: 1 << vcpu,
                    threads: 0,
                };
            }
            Actor::Thread(thread) => usize::from(thread),
            Actor::Device(_) => {
                return Self {
                    vcpus: 0,
                    threads: 0,
                };
            }
        };
        let thread = &state.threads[index];
        let vcpus = match Reach::of_thread(machine, current_op(machine, state, index), thread.stage)
        {
            Reach::Own | Reach::Control => 0,
            Reach::IndexedVcpu | Reach::IndexedOnControl => 1 << thread.index.min(31),
            Reach::EachVcpu | Reach::Gate | Reach::Everything => u32::MAX,
        };
        let threads = 1 << index;
        Self { vcpus, threads }
    }
}

/// A direction in which the fields are walked.
trait Codec {
    /// Whether values flow from the state to the bits.
    const ENCODES: bool;
    /// One field of at most 64 bits.
    fn bits(&mut self, value: &mut u64, width: u32);
    /// What the fields are from here on, up to the next call.
    #[inline(always)]
    fn begin(&mut self, _kind: Fields) {}
    /// The next field is this one.
    #[inline(always)]
    fn next_is(&mut self, _field: Field) {}

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

/// Writes the fields of a section into its words.
struct Encoder<'a> {
    words: &'a mut [u64],
    at: usize,
    full: u64,
    fill: u32,
}

impl<'a> Encoder<'a> {
    #[inline(always)]
    fn new(words: &'a mut [u64]) -> Self {
        Self {
            words,
            at: 0,
            full: 0,
            fill: 0,
        }
    }

    #[inline(always)]
    fn finish(self) {
        if self.fill > 0 {
            self.words[self.at] = self.full;
        }
    }
}

impl Codec for Encoder<'_> {
    const ENCODES: bool = true;
    #[inline(always)]
    fn bits(&mut self, value: &mut u64, width: u32) {
        debug_assert!(
            width == 64 || *value >> width == 0,
            "a field outgrew its width"
        );
        self.full |= *value << self.fill;
        self.fill += width;
        if self.fill >= 64 {
            self.words[self.at] = self.full;
            self.at += 1;
            self.fill -= 64;
            // What did not fit; all of it did where nothing is left over.
            self.full = if self.fill == 0 {
                0
            } else {
                *value >> (width - self.fill)
            };
        }
    }
}

/// Reads the fields of a section from its words.
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
        *value = wide & low_bits(width);
        self.at += width;
    }
}

/// Counts the bits of a section.
struct Counter(u32);

impl Codec for Counter {
    const ENCODES: bool = true;
    fn bits(&mut self, _value: &mut u64, width: u32) {
        self.0 += width;
    }
}

/// A field of a vCPU's section that can be read without the others.
#[derive(Clone, Copy)]
enum Field {
    Frame,
    Stores,
    Loads,
    Tlb,
}

/// Where in a section some fields begin.
#[derive(Default)]
struct Finder {
    at: u32,
    places: VcpuFields,
}

impl Codec for Finder {
    const ENCODES: bool = true;
    fn bits(&mut self, _value: &mut u64, width: u32) {
        self.at += width;
    }
    fn next_is(&mut self, field: Field) {
        let place = match field {
            Field::Frame => &mut self.places.frame,
            Field::Stores => &mut self.places.stores,
            Field::Loads => &mut self.places.loads,
            Field::Tlb => &mut self.places.tlb,
        };
        *place = self.at;
    }
}

/// Where in a vCPU's section some fields begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct VcpuFields {
    frame: u32,
    stores: u32,
    loads: u32,
    tlb: u32,
}

/// Where in a section fields of some kinds are.
struct FieldMask {
    wanted: Fields,
    words: Vec<u64>,
    at: u32,
    inside: bool,
}

impl FieldMask {
    fn new(wanted: Fields, words: usize) -> Self {
        Self {
            wanted,
            words: alloc::vec![0; words],
            at: 0,
            inside: wanted.has(Fields::REST),
        }
    }
}

impl Codec for FieldMask {
    const ENCODES: bool = true;
    fn bits(&mut self, _value: &mut u64, width: u32) {
        for bit in self.at..self.at + width {
            if self.inside {
                self.words[bit as usize / 64] |= 1 << (bit % 64);
            }
        }
        self.at += width;
    }
    fn begin(&mut self, kind: Fields) {
        self.inside = self.wanted.has(kind);
    }
}

/// How the states of a machine are packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packing {
    widths: Widths,
    bits: u32,
    vcpu_fields: VcpuFields,
    vm_words: usize,
    vcpus: usize,
    vcpu_words: usize,
    thread_words: usize,
    words: usize,
}

/// Where a thread is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ThreadPlace {
    /// The operation of its program.
    pub op: u16,
    /// The step within it.
    pub stage: u8,
    /// The word, vCPU or list element that it is at.
    pub index: u32,
}

impl Packing {
    /// The packing of the states that are reachable from `template`, whose set-up is done.
    #[must_use]
    pub fn new<L: Layout>(machine: &Machine, template: &State<L>) -> Self {
        let widths = Widths::new(machine, template);
        let mut state = template.clone();
        let mut vm = Counter(0);
        walk_vm(&widths, &mut state, &mut vm);
        let mut vcpu = 0;
        for index in 0..state.vcpus.len() {
            let mut counter = Counter(0);
            walk_vcpu(machine, &widths, &mut state, index, &mut counter);
            vcpu = vcpu.max(counter.0);
        }
        let mut finder = Finder::default();
        if !state.vcpus.is_empty() {
            walk_vcpu(machine, &widths, &mut state, 0, &mut finder);
        }
        let mut thread = 0;
        for index in 0..state.threads.len() {
            let mut counter = Counter(0);
            walk_thread(machine, &widths, &mut state, index, &mut counter);
            thread = thread.max(counter.0);
        }
        let in_words = |bits: u32| bits.div_ceil(64) as usize;
        let (vcpus, threads) = (state.vcpus.len(), state.threads.len());
        Self {
            widths,
            bits: vm.0 + vcpu * vcpus as u32 + thread * threads as u32,
            vcpu_fields: finder.places,
            vm_words: in_words(vm.0),
            vcpus,
            vcpu_words: in_words(vcpu),
            thread_words: in_words(thread),
            words: in_words(vm.0) + in_words(vcpu) * vcpus + in_words(thread) * threads,
        }
    }

    /// Bits that a packed state needs; what it takes is whole words for each vCPU, each thread, and the rest.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Words of a packed state.
    #[must_use]
    pub fn words(&self) -> usize {
        self.words
    }

    /// Where in a packed state the words of a vCPU are.
    #[must_use]
    pub fn vcpu(&self, vcpu: usize) -> core::ops::Range<usize> {
        let first = self.vm_words + vcpu * self.vcpu_words;
        first..first + self.vcpu_words
    }

    /// Where in a packed state the words of a thread are.
    #[must_use]
    pub fn thread(&self, thread: usize) -> core::ops::Range<usize> {
        let first = self.vm_words + self.vcpus * self.vcpu_words + thread * self.thread_words;
        first..first + self.thread_words
    }

    /// Words of the VM-wide section, which comes first.
    #[must_use]
    pub fn vm_words(&self) -> usize {
        self.vm_words
    }

    /// The bits of a vCPU's section that [`Fields::CONTROL`] names.
    #[must_use]
    pub fn control_mask<L: Layout>(&self, machine: &Machine, template: &State<L>) -> Vec<u64> {
        let mut mask = FieldMask::new(Fields::CONTROL, self.vcpu_words);
        if self.vcpus > 0 {
            walk_vcpu(machine, &self.widths, &mut template.clone(), 0, &mut mask);
        }
        mask.words
    }

    /// What tells which leaves a vCPU's next step reads, from its section.
    #[must_use]
    #[inline]
    pub fn vcpu_place(&self, section: &[u64]) -> VcpuPlace {
        let read = |at: u32, width: u32| {
            let mut value = 0;
            Decoder { words: section, at }.bits(&mut value, width);
            value
        };
        let (w, fields) = (&self.widths, self.vcpu_fields);
        let frame = read(fields.frame, w.frame_index);
        let loads = w.loads && read(fields.loads, w.budget) > 0;
        VcpuPlace {
            pc: Pc::ALL[(read(0, 4) as usize).min(Pc::ALL.len() - 1)],
            frame: frame.checked_sub(1).map(|frame| frame as u32),
            has_budget: loads || read(fields.stores, w.budget) > 0,
            tlb: read(fields.tlb, w.frames),
        }
    }

    /// The bits of the VM-wide section that a frame's leaf has.
    #[must_use]
    pub fn leaf_mask<L: Layout>(&self, template: &State<L>, frame: u32) -> Vec<u64> {
        let mut state = template.clone();
        let words = |state: &mut State<L>| {
            let mut words = alloc::vec![0; self.vm_words];
            let mut encoder = Encoder::new(&mut words);
            walk_vm(&self.widths, state, &mut encoder);
            encoder.finish();
            words
        };
        for set in [
            &mut state.present,
            &mut state.writable,
            &mut state.dirty_bit,
            &mut state.huge,
        ] {
            set.clear();
        }
        let without = words(&mut state);
        for set in [
            &mut state.present,
            &mut state.writable,
            &mut state.dirty_bit,
            &mut state.huge,
        ] {
            set.insert(frame);
        }
        let with = words(&mut state);
        with.iter().zip(&without).map(|(a, b)| a ^ b).collect()
    }

    /// Frames that a packed state has.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.widths.frames
    }

    /// The bits of the VM-wide section that fields of these kinds have.
    #[must_use]
    pub fn vm_mask<L: Layout>(&self, template: &State<L>, fields: Fields) -> Vec<u64> {
        let mut mask = FieldMask::new(fields, self.vm_words);
        walk_vm(&self.widths, &mut template.clone(), &mut mask);
        mask.words
    }

    /// Where a thread is, from its section: operation, stage, index. They are its first fields, in its first word.
    #[must_use]
    #[inline(always)]
    pub fn thread_place(&self, section: &[u64]) -> ThreadPlace {
        let (word, w) = (section[0], &self.widths);
        ThreadPlace {
            op: (word & low_bits(w.op)) as u16,
            stage: (word >> w.op & low_bits(STAGE_BITS)) as u8,
            index: (word >> (w.op + STAGE_BITS) & low_bits(w.index)) as u32,
        }
    }

    /// Writes `state` into `words`, as many as [`Packing::words`]. What nobody can read any more is cleared in `state`.
    #[inline]
    pub fn pack<L: Layout>(&self, machine: &Machine, state: &mut State<L>, words: &mut [u64]) {
        self.pack_touched(machine, state, Touched::ALL, words);
    }

    /// As [`Packing::pack`], where `words` have the state before a step that changed `touched` alone.
    #[inline]
    pub fn pack_touched<L: Layout>(
        &self,
        machine: &Machine,
        state: &mut State<L>,
        touched: Touched,
        words: &mut [u64],
    ) {
        let (vm, mut rest) = words.split_at_mut(self.vm_words);
        let mut encoder = Encoder::new(vm);
        walk_vm(&self.widths, state, &mut encoder);
        encoder.finish();
        for index in 0..state.vcpus.len() {
            let (section, after) = rest.split_at_mut(self.vcpu_words);
            rest = after;
            if touched.vcpus >> index & 1 != 0 {
                let mut encoder = Encoder::new(section);
                walk_vcpu(machine, &self.widths, state, index, &mut encoder);
                encoder.finish();
            }
        }
        for index in 0..state.threads.len() {
            let (section, after) = rest.split_at_mut(self.thread_words);
            rest = after;
            if touched.threads >> index & 1 != 0 {
                let mut encoder = Encoder::new(section);
                walk_thread(machine, &self.widths, state, index, &mut encoder);
                encoder.finish();
            }
        }
    }

    /// Reads a state from `words`; `state` is a copy of the search's first one, which has all that the bits leave out.
    #[inline]
    pub fn unpack<L: Layout>(&self, machine: &Machine, words: &[u64], state: &mut State<L>) {
        let mut decoder = Decoder { words, at: 0 };
        walk_vm(&self.widths, state, &mut decoder);
        let mut first = self.vm_words;
        for index in 0..state.vcpus.len() {
            let mut decoder = Decoder {
                words: &words[first..first + self.vcpu_words],
                at: 0,
            };
            walk_vcpu(machine, &self.widths, state, index, &mut decoder);
            first += self.vcpu_words;
        }
        for index in 0..state.threads.len() {
            let mut decoder = Decoder {
                words: &words[first..first + self.thread_words],
                at: 0,
            };
            walk_thread(machine, &self.widths, state, index, &mut decoder);
            first += self.thread_words;
        }
    }
}

/// The VM-wide section, with memslots and devices.
#[inline]
fn walk_vm<L: Layout, C: Codec>(w: &Widths, state: &mut State<L>, c: &mut C) {
    let frames = w.frames;
    if w.slots_change {
        for slot in state.slots.iter_mut() {
            walk_slot(w, slot, c);
        }
    }
    c.begin(Fields::LEAVES);
    c.set(&mut state.present, frames);
    c.set(&mut state.writable, frames);
    if w.dirty_bits {
        c.set(&mut state.dirty_bit, frames);
    }
    if w.huge {
        c.set(&mut state.huge, frames);
    }
    c.begin(Fields::BITMAP);
    c.set(&mut state.bitmap, frames);
    c.begin(Fields::SCRATCH);
    c.set(&mut state.scratch, frames);
    if w.seen {
        c.begin(Fields::SEEN);
        c.set(&mut state.seen, frames);
    }
    c.begin(Fields::STALE);
    c.set(&mut state.stale, frames);
    c.begin(Fields::PENDING);
    c.set(&mut state.pending, frames);
    if w.sent {
        c.begin(Fields::SENT);
        c.set(&mut state.sent, frames);
    }
    if w.own_log {
        c.begin(Fields::OWN_LOG);
        c.set(&mut state.own_log, frames);
    }
    if w.ghost {
        c.begin(Fields::STALE);
        c.set(&mut state.written, frames);
        c.set(&mut state.spurious, frames);
    }
    c.begin(Fields::LOCKS);
    c.u8(&mut state.slots_lock, 3);
    c.begin(Fields::MMU_LOCK);
    c.flag(&mut state.mmu_lock_write);
    c.begin(Fields::REST);
    c.flag(&mut state.vcpu_mutexes);
    c.begin(Fields::GUEST_RUNS);
    c.flag(&mut state.guest_runs);
    c.begin(Fields::LOCKS);
    if w.locks {
        c.u8(&mut state.user_locks, 8);
    }
    if w.failures {
        c.u8(&mut state.send_failures, w.budget);
    }
    c.begin(Fields::REST);
    c.flag(&mut state.finished);
    c.flag(&mut state.crashed);
    if w.vcpu_setup {
        let mut entries = u64::from(state.caps.ring_entries);
        c.bits(&mut entries, 17);
        state.caps.ring_entries = entries as u32;
        c.flag(&mut state.caps.ring_with_bitmap);
        c.u8(&mut state.caps.manual_protect, 2);
    }
    if w.devices {
        c.begin(Fields::DEVICES);
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

fn walk_slot<C: Codec>(w: &Widths, slot: &mut Slot, c: &mut C) {
    let mut life = slot.life as u8;
    c.u8(&mut life, 2);
    slot.life = Life::from_number(life);
    c.flag(&mut slot.logging);
    c.flag(&mut slot.readonly);
    c.flag(&mut slot.bitmap);
    c.u8(&mut slot.place, w.place);
}

/// Whether a vCPU is in user space and will never enter again. Only a step of its own, of the thread that stops the
/// guest, or of one that resumes it can change that, and each of these touches the vCPU's section.
#[inline(always)]
fn is_out_for_good<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize) -> bool {
    state.vcpus[vcpu].pc == Pc::User
        && !state.guest_runs
        && !resume_ahead(
            machine,
            state.threads.iter().map(|thread| usize::from(thread.op)),
        )
}

#[inline]
fn walk_vcpu<L: Layout, C: Codec>(
    machine: &Machine,
    w: &Widths,
    state: &mut State<L>,
    index: usize,
    c: &mut C,
) {
    if C::ENCODES && is_out_for_good(machine, state, index) {
        let v = &mut state.vcpus[index];
        v.stores = 0;
        v.loads = 0;
        v.steal = 0;
        v.request = false;
        if !w.ghost {
            v.frame = NO_FRAME;
            v.load = false;
        }
    }
    let v = &mut state.vcpus[index];
    let mut pc = v.pc as u8;
    c.begin(Fields::CONTROL);
    c.u8(&mut pc, 4);
    c.flag(&mut v.reads_mmu);
    c.begin(Fields::REST);
    if !C::ENCODES {
        v.pc = Pc::ALL[usize::from(pc).min(Pc::ALL.len() - 1)];
    } else {
        // Flags of a fault, or of a run in the guest, mean nothing outside of it.
        let faults = v.pc == Pc::Fault || v.pc == Pc::Flush;
        v.fast &= faults;
        v.was_absent &= faults;
        v.logging &= v.pc == Pc::Fault && v.stage > 0;
        v.pml_on &= v.pc == Pc::Guest;
        v.load &= v.frame != NO_FRAME;
        if !w.waits && v.pc != Pc::Exit {
            v.exit = Exit::None;
        }
    }
    c.u8(&mut v.stage, 3);
    c.u8(&mut v.push, 3);
    c.next_is(Field::Frame);
    c.frame(&mut v.frame, w.frame_index);
    if w.loads {
        c.flag(&mut v.load);
        c.next_is(Field::Loads);
        c.u8(&mut v.loads, w.budget);
    }
    c.flag(&mut v.fast);
    c.flag(&mut v.was_absent);
    c.flag(&mut v.logging);
    c.flag(&mut v.old_slots);
    c.next_is(Field::Stores);
    c.u8(&mut v.stores, w.budget);
    if w.steal {
        c.u8(&mut v.steal, w.budget);
    }
    let mut exit = v.exit as u8;
    c.begin(Fields::CONTROL);
    c.u8(&mut exit, 2);
    c.begin(Fields::REST);
    if !C::ENCODES {
        v.exit = Exit::ALL[usize::from(exit)];
    }
    c.flag(&mut v.request);
    c.begin(Fields::CONTROL);
    c.flag(&mut v.kicked);
    c.begin(Fields::REST);
    c.flag(&mut v.resched);
    c.begin(Fields::CONTROL);
    c.flag(&mut v.waits);
    c.begin(Fields::REST);
    c.next_is(Field::Tlb);
    c.set(&mut v.tlb, w.frames);
    if w.pml {
        walk_pml(machine, w, v, c);
    }
    walk_ring(w, v, c);
}

#[inline]
fn walk_pml<L: Layout, C: Codec>(
    machine: &Machine,
    w: &Widths,
    v: &mut crate::vcpu::Vcpu<L>,
    c: &mut C,
) {
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

#[inline]
fn walk_ring<L: Layout, C: Codec>(w: &Widths, v: &mut crate::vcpu::Vcpu<L>, c: &mut C) {
    let push = v.push;
    let ring = &mut v.ring;
    let size = ring.size();
    if size == 0 {
        return;
    }
    let half = 1_i32 << (w.ring_index - 1);
    let wrap = low_bits(w.ring_index);
    let reset = ring.reset_index;
    let mut place = 0;
    if w.ring_places {
        // Whoever maps half of a ring takes entries by their place in memory.
        place = reset & (size - 1);
        c.u32(&mut place, w.ring_index);
    }
    // A ring that is several sizes past its end, by abuse or a mutation, counts as that far past it and no farther.
    let distance = |index: u32| {
        let signed = index.wrapping_sub(reset) as i32;
        u64::from(signed.clamp(-half, half - 1) as u32) & wrap
    };
    let mut used = distance(ring.dirty_index);
    let mut fetched = distance(ring.fetch_index);
    c.bits(&mut used, w.ring_index);
    c.bits(&mut fetched, w.ring_index);
    if !C::ENCODES {
        let signed = |value: u64| {
            if value >> (w.ring_index - 1) != 0 {
                (value | !wrap) as u32
            } else {
                value as u32
            }
        };
        ring.reset_index = place;
        ring.dirty_index = place.wrapping_add(signed(used));
        ring.fetch_index = place.wrapping_add(signed(fetched));
    }
    let reset = ring.reset_index;
    let mask = size - 1;
    // A free entry's payload is dead, unless a push has begun to fill it or a mutation reads it all the same.
    let filling = if (1..=3).contains(&push) {
        ring.dirty_index & mask
    } else {
        u32::MAX
    };
    for position in 0..size {
        let at = reset.wrapping_add(position) & mask;
        let entry = &mut ring.entries[at as usize];
        let mut flags = entry.flags();
        let dead = flags == 0 && !w.mutated && at != filling;
        let (mut id, mut space, mut offset) = if C::ENCODES && !dead {
            (
                u64::from(entry.slot() & 0xffff),
                u64::from(entry.slot() >> 16),
                entry.offset(),
            )
        } else {
            (0, 0, 0)
        };
        if flags == 0 && at == filling && push == 1 && !w.mutated {
            // The slot number is there; the offset is still the last round's.
            offset = 0;
        }
        c.u8(&mut flags, 2);
        c.bits(&mut id, w.slot_id);
        c.bits(&mut space, w.slot_space);
        c.bits(&mut offset, w.offset);
        if !C::ENCODES {
            entry.set_flags(flags);
            entry.set_slot((space as u32) << 16 | id as u32);
            entry.set_offset(offset);
        }
    }
}

#[inline(always)]
fn walk_slot_number<C: Codec>(w: &Widths, number: &mut u32, c: &mut C) {
    let mut id = u64::from(*number & 0xffff);
    let mut space = u64::from(*number >> 16);
    c.bits(&mut id, w.slot_id);
    c.bits(&mut space, w.slot_space);
    *number = (space as u32) << 16 | id as u32;
}

#[inline(always)]
fn walk_place<C: Codec>(w: &Widths, place: &mut ThreadPlace, c: &mut C) {
    let mut op = u32::from(place.op);
    c.u32(&mut op, w.op);
    place.op = op as u16;
    c.u8(&mut place.stage, STAGE_BITS);
    c.u32(&mut place.index, w.index);
}

#[inline]
fn walk_thread<L: Layout, C: Codec>(
    machine: &Machine,
    w: &Widths,
    state: &mut State<L>,
    index: usize,
    c: &mut C,
) {
    if C::ENCODES && !w.mutated {
        // A harvest without a bound reads its count no more than RESET reads more of its own than whether it is 0.
        let unbounded = matches!(
            current_op(machine, state, index),
            Some(Op::Harvest { max: u32::MAX, .. })
        );
        let resets = matches!(
            current_op(machine, state, index),
            Some(Op::ResetRings { .. })
        );
        let t = &mut state.threads[index];
        if unbounded {
            t.count = 0;
        }
        if resets {
            t.count = t.count.min(1);
            t.freed = t.freed.min(1);
        }
    }
    let t = &mut state.threads[index];
    let mut place = ThreadPlace {
        op: t.op,
        stage: t.stage,
        index: t.index,
    };
    walk_place(w, &mut place, c);
    (t.op, t.stage, t.index) = (place.op, place.stage, place.index);
    let most = low_bits(w.count) as u32;
    t.count = t.count.min(most);
    t.freed = t.freed.min(most);
    c.u32(&mut t.count, w.count);
    c.u32(&mut t.freed, w.count);
    c.flag(&mut t.any);
    c.flag(&mut t.signal);
    walk_slot_number(w, &mut t.entry_slot, c);
    c.bits(&mut t.entry_offset, w.offset);
    if w.resets {
        walk_slot_number(w, &mut t.batch.slot, c);
        c.bits(&mut t.batch.offset, w.offset);
        c.bits(&mut t.batch.mask, w.batch);
    }
    // What an ioctl answered is read by nobody once it has returned.
    let mut answer = match t.answer {
        Err(errno) if t.stage != 0 || w.answers => errno as u64,
        _ => 0,
    };
    c.bits(&mut answer, 5);
    if !C::ENCODES {
        t.answer = Errno::from_number(answer as u8).map_or(Ok(0), Err);
    }
    if w.hand {
        c.set(&mut t.hand, w.frames);
    }
}
