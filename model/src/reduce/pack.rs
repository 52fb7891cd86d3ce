//! A state as bits: what the visited set and the frontier of a search hold.
//!
//! Two states that behave alike have the same bits: ring positions count from the reset index, and what nobody can
//! read any more is zero. Each vCPU and each thread begins at a word of its own, so that after a step only the sections that it touched
//! are written again. A section's bits depend on what the step's own section and the VM-wide part say, and on nothing
//! that another actor can change without touching the section: see [`Touched`].

use alloc::vec;
use alloc::vec::Vec;

use super::footprint::{self, VcpuPlace, resume_ahead};
use super::widths::Widths;
use crate::machine::Machine;
use crate::state::fields::{
    Change, Look, Measure, Number, STAGE_BITS, Size, change_thread, change_vcpu, change_vm,
    look_thread, look_vcpu, look_vm,
};
use crate::state::layout::{Array, Layout};
use crate::state::pages::{PageSet, SetOf, low_bits};
use crate::state::ring::{Ring, RingEntry};
use crate::state::vcpu::{Exit, Pc};
use crate::state::{Batch, State, Vcpu};
use crate::transition;
use crate::words::{Actor, Counts, Fields, Frame, NO_FRAME, Offset, Page, Reach, Step};

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
        match step.actor {
            Actor::Vcpu(vcpu) => Self {
                vcpus: 1 << vcpu,
                threads: 0,
            },
            Actor::Device(_) => Self {
                vcpus: 0,
                threads: 0,
            },
            Actor::Thread(thread) => {
                let index = usize::from(thread);
                let t = &state.threads[index];
                let op = state.current_op(machine, index);
                let vcpus = match footprint::reach(machine, op, t.stage) {
                    Reach::Own | Reach::Control => 0,
                    Reach::IndexedVcpu | Reach::IndexedOnControl => 1 << t.index.min(31),
                    Reach::EachVcpu | Reach::Gate | Reach::Everything => u32::MAX,
                };
                Self {
                    vcpus,
                    threads: 1 << index,
                }
            }
        }
    }
}

/// What a field of 0 bits, or a field's bits, are written to.
trait Sink {
    fn put(&mut self, kind: Fields, size: Size, width: u32, value: u64);
}

/// Writes the fields of a section, each with its width, to somebody.
struct Fielder<'a, S> {
    widths: &'a Widths,
    sink: S,
}

impl<S: Sink> Fielder<'_, S> {
    #[inline(always)]
    fn put(&mut self, kind: Fields, size: Size, value: u64) {
        self.sink.put(kind, size, self.widths.size(size), value);
    }

    #[inline(always)]
    fn of(&mut self, kind: Fields, measure: Measure, value: u64) {
        self.put(kind, Size::Of(measure), value);
    }
}

impl<L: Layout, S: Sink> Look<L> for Fielder<'_, S> {
    #[inline(always)]
    fn bits(&mut self, kind: Fields, size: Size, value: u64) {
        self.put(kind, size, value);
    }
    #[inline(always)]
    fn pages<P: Page>(&mut self, kind: Fields, size: Size, pages: &SetOf<P, L::Set>) {
        let width = self.widths.size(size);
        // What a set has beyond its width is lost, and told.
        let bits = if cfg!(debug_assertions) {
            u64::BITS
        } else {
            width
        };
        self.sink
            .put(kind, size, width, pages.numbers().word(0, bits));
    }
    #[inline(always)]
    fn frame(&mut self, kind: Fields, frame: &Frame) {
        let number = if *frame == NO_FRAME {
            0
        } else {
            u64::from(frame.0) + 1
        };
        self.of(kind, Measure::FrameIndex, number);
    }
    #[inline(always)]
    fn indices(&mut self, ring: &Ring<L>) {
        // Whoever maps half of a ring takes entries by their place in memory; to others it is all the same.
        if self.widths.of(Measure::RingPlace) != 0 {
            let place = ring.reset_index & (ring.size() - 1);
            self.of(Fields::RESET_INDEX, Measure::RingPlace, u64::from(place));
        }
        let width = self.widths.of(Measure::RingIndex);
        let distance = |index: u32| {
            let distance = index.wrapping_sub(ring.reset_index);
            let lost = u32::BITS - width;
            debug_assert_eq!(
                ((distance << lost) as i32 >> lost) as u32,
                distance,
                "a ring's indices ran farther apart than is kept of them"
            );
            u64::from(distance) & low_bits(width)
        };
        self.of(
            Fields::DIRTY_INDEX,
            Measure::RingIndex,
            distance(ring.dirty_index),
        );
        self.of(
            Fields::FETCH_INDEX,
            Measure::RingIndex,
            distance(ring.fetch_index),
        );
    }
    #[inline(always)]
    fn entry(&mut self, entry: &L::Entry, filling: Option<u8>) {
        // A free entry's payload is dead, unless a push has begun to fill it or a mutation reads it all the same; after its first
        // write the offset is still the last round's.
        let free = entry.flags() == 0 && !self.widths.revive;
        let dead = free && !matches!(filling, Some(1..=3));
        let dead_offset = free && !matches!(filling, Some(2..=3));
        let slot = if dead { 0 } else { entry.slot() };
        let offset = if dead_offset { 0 } else { entry.offset().0 };
        self.put(Fields::ENTRIES, Size::Bits(2), u64::from(entry.flags()));
        self.of(Fields::ENTRIES, Measure::SlotId, u64::from(slot & 0xffff));
        self.of(Fields::ENTRIES, Measure::SlotSpace, u64::from(slot >> 16));
        self.of(Fields::ENTRIES, Measure::Offset, offset);
    }
    #[inline(always)]
    fn buffer(&mut self, pml: &L::Pml, capacity: u32) {
        self.of(Fields::ACCESS, Measure::PmlLen, pml.len() as u64);
        if self.widths.of(Measure::PmlLen) == 0 {
            return;
        }
        debug_assert!(pml.len() <= capacity as usize, "a buffer outgrew its room");
        for place in 0..capacity as usize {
            let frame = pml.get(place).map_or(0, |frame| frame.0);
            self.of(Fields::ACCESS, Measure::PmlFrame, u64::from(frame));
        }
    }
    #[inline(always)]
    fn page(&mut self, slot: &u32, offset: &Offset, _: bool) {
        self.of(Fields::PLACE, Measure::SlotId, u64::from(slot & 0xffff));
        self.of(Fields::PLACE, Measure::SlotSpace, u64::from(slot >> 16));
        self.of(Fields::PLACE, Measure::Offset, offset.0);
    }
    #[inline(always)]
    fn batch(&mut self, batch: &Batch) {
        self.of(
            Fields::BATCH,
            Measure::BatchId,
            u64::from(batch.slot & 0xffff),
        );
        self.of(
            Fields::BATCH,
            Measure::BatchSpace,
            u64::from(batch.slot >> 16),
        );
        self.of(Fields::BATCH, Measure::BatchOffset, batch.offset.0);
        self.of(Fields::BATCH, Measure::BatchMask, batch.mask);
    }
}

/// Writes the fields of a section into its words.
struct Encoder<'a> {
    words: &'a mut [u64],
    at: usize,
    full: u64,
    fill: u32,
    /// What the fields hold that have no bits, as one number: 0 where all of them hold 0. Made where assertions are on.
    left_out: u64,
}

impl<'a> Encoder<'a> {
    #[inline(always)]
    fn new(words: &'a mut [u64]) -> Self {
        Self {
            words,
            at: 0,
            full: 0,
            fill: 0,
            left_out: 0,
        }
    }

    /// Ends the section; see [`Encoder::left_out`].
    #[inline(always)]
    fn finish(self) -> u64 {
        if self.fill > 0 {
            self.words[self.at] = self.full;
        }
        self.left_out
    }
}

impl Sink for Encoder<'_> {
    #[inline(always)]
    fn put(&mut self, kind: Fields, _: Size, width: u32, value: u64) {
        if width == 0 {
            if cfg!(debug_assertions) {
                let sum = self.left_out.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                self.left_out = sum.wrapping_add(value);
            }
            return;
        }
        debug_assert!(
            width == 64 || value >> width == 0,
            "{kind:?} outgrew its {width} bits: {value:#x} would be another when it is unpacked"
        );
        self.full |= value << self.fill;
        self.fill += width;
        if self.fill >= 64 {
            self.words[self.at] = self.full;
            self.at += 1;
            self.fill -= 64;
            // What did not fit; all of it did where nothing is left over.
            self.full = if self.fill == 0 {
                0
            } else {
                value >> (width - self.fill)
            };
        }
    }
}

/// Where a field lies in its section.
#[derive(Clone, Copy)]
struct Place {
    kind: Fields,
    size: Size,
    at: u32,
    width: u32,
}

/// The places of a section's fields.
#[derive(Default)]
struct Places(Vec<Place>);

impl Sink for Places {
    fn put(&mut self, kind: Fields, size: Size, width: u32, _: u64) {
        let at = self.bits();
        self.0.push(Place {
            kind,
            size,
            at,
            width,
        });
    }
}

impl Places {
    /// Bits of the section.
    fn bits(&self) -> u32 {
        self.0.last().map_or(0, |place| place.at + place.width)
    }

    /// Where the first field begins that is wanted.
    fn find(&self, wanted: impl Fn(&Place) -> bool) -> u32 {
        self.0
            .iter()
            .find(|place| wanted(place))
            .map_or(0, |place| place.at)
    }

    /// The bits of some fields, `of` each, as a mask of so many words.
    fn mask(&self, words: usize, of: impl Fn(&Place) -> core::ops::Range<u32>) -> Vec<u64> {
        let mut mask = vec![0; words];
        for bit in self.0.iter().flat_map(|place| {
            let bits = of(place);
            place.at + bits.start.min(place.width)..place.at + bits.end.min(place.width)
        }) {
            mask[bit as usize / 64] |= 1 << (bit % 64);
        }
        mask
    }
}

/// Reads the fields of a section from its words.
struct Decoder<'a> {
    widths: &'a Widths,
    words: &'a [u64],
    at: u32,
}

impl Decoder<'_> {
    #[inline(always)]
    fn read(&mut self, width: u32) -> u64 {
        if width == 0 {
            return 0;
        }
        let word = (self.at / 64) as usize;
        let shift = self.at % 64;
        let mut wide = self.words[word] >> shift;
        if shift + width > 64 {
            wide |= self.words[word + 1] << (64 - shift);
        }
        self.at += width;
        wide & low_bits(width)
    }

    #[inline(always)]
    fn of(&mut self, measure: Measure) -> u64 {
        self.read(self.widths.of(measure))
    }

    /// A slot number.
    #[inline(always)]
    fn slot(&mut self, id: Measure, space: Measure) -> u32 {
        let id = self.of(id) as u32;
        (self.of(space) as u32) << 16 | id
    }
}

impl<L: Layout> Change<L> for Decoder<'_> {
    #[inline(always)]
    fn bits(&mut self, _: Fields, size: Size, value: &mut u64) {
        let width = self.widths.size(size);
        // What is left out is as the template has it.
        if width > 0 {
            *value = self.read(width);
        }
    }
    #[inline(always)]
    fn pages<P: Page>(&mut self, _: Fields, size: Size, pages: &mut SetOf<P, L::Set>) {
        let width = self.widths.size(size);
        if width > 0 {
            let word = self.read(width);
            pages.clear();
            pages.numbers_mut().set_word(0, word);
        }
    }
    #[inline(always)]
    fn frame(&mut self, _: Fields, frame: &mut Frame) {
        *frame = Frame((self.of(Measure::FrameIndex) as u32).wrapping_sub(1));
    }
    #[inline(always)]
    fn indices(&mut self, ring: &mut Ring<L>) {
        let place = self.of(Measure::RingPlace) as u32;
        let width = self.widths.of(Measure::RingIndex);
        let sign = 1_u32 << (width - 1);
        let signed = |value: u64| ((value as u32) ^ sign).wrapping_sub(sign);
        ring.reset_index = place;
        ring.dirty_index = place.wrapping_add(signed(self.of(Measure::RingIndex)));
        ring.fetch_index = place.wrapping_add(signed(self.of(Measure::RingIndex)));
    }
    #[inline(always)]
    fn entry(&mut self, entry: &mut L::Entry, _: Option<u8>) {
        entry.set_flags(self.read(2) as u8);
        entry.set_slot(self.slot(Measure::SlotId, Measure::SlotSpace));
        entry.set_offset(Offset(self.of(Measure::Offset)));
    }
    #[inline(always)]
    fn buffer(&mut self, pml: &mut L::Pml, capacity: u32) {
        if self.widths.of(Measure::PmlLen) == 0 {
            return;
        }
        let len = self.of(Measure::PmlLen);
        pml.truncate(0);
        for place in 0..u64::from(capacity) {
            let frame = Frame(self.of(Measure::PmlFrame) as u32);
            if place < len {
                pml.push(frame);
            }
        }
    }
    #[inline(always)]
    fn page(&mut self, slot: &mut u32, offset: &mut Offset, _: bool) {
        *slot = self.slot(Measure::SlotId, Measure::SlotSpace);
        *offset = Offset(self.of(Measure::Offset));
    }
    #[inline(always)]
    fn batch(&mut self, batch: &mut Batch) {
        batch.slot = self.slot(Measure::BatchId, Measure::BatchSpace);
        batch.offset = Offset(self.of(Measure::BatchOffset));
        batch.mask = self.of(Measure::BatchMask);
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
    /// What the VM-wide fields without bits hold in every state; those of vCPUs and threads hold 0.
    left_out: u64,
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
        let vm = places(&widths, |places| look_vm(template, places)).bits();
        let vcpu_places = template
            .vcpus
            .first()
            .map(|v| vcpu_places(machine, &widths, v));
        let vcpu_places = vcpu_places.unwrap_or_default();
        let vcpu = vcpu_places.bits();
        let threads = template.threads.iter();
        let thread = threads
            .map(|t| places(&widths, |places| look_thread(t, places)).bits())
            .max()
            .unwrap_or(0);
        let of = |size| vcpu_places.find(move |place: &Place| place.size == Size::Of(size));
        let in_words = |bits: u32| bits.div_ceil(64) as usize;
        let (vcpus, threads) = (template.vcpus.len(), template.threads.len());
        Self {
            widths,
            bits: vm + vcpu * vcpus as u32 + thread * threads as u32,
            vcpu_fields: VcpuFields {
                frame: of(Measure::FrameIndex),
                stores: of(Measure::Budget),
                loads: of(Measure::Loads),
                tlb: vcpu_places.find(|place| place.kind == Fields::TLB),
            },
            vm_words: in_words(vm),
            vcpus,
            vcpu_words: in_words(vcpu),
            thread_words: in_words(thread),
            left_out: encode(&widths, &mut vec![0; in_words(vm)], |fielder| {
                look_vm(template, fielder)
            }),
            words: in_words(vm) + in_words(vcpu) * vcpus + in_words(thread) * threads,
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

    /// Frames that a packed state has.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.widths.of(Measure::Frames)
    }

    /// The bits of a vCPU's section that fields of these kinds have.
    #[must_use]
    pub fn vcpu_mask<L: Layout>(
        &self,
        machine: &Machine,
        template: &State<L>,
        fields: Fields,
    ) -> Vec<u64> {
        let places = template
            .vcpus
            .first()
            .map(|v| vcpu_places(machine, &self.widths, v));
        kinds_mask(&places.unwrap_or_default(), self.vcpu_words, fields)
    }

    /// The bits of the VM-wide section that fields of these kinds have.
    #[must_use]
    pub fn vm_mask<L: Layout>(&self, template: &State<L>, fields: Fields) -> Vec<u64> {
        let places = places(&self.widths, |places| look_vm(template, places));
        kinds_mask(&places, self.vm_words, fields)
    }

    /// The bits of the VM-wide section that a frame's leaf has.
    #[must_use]
    pub fn leaf_mask<L: Layout>(&self, template: &State<L>, frame: Frame) -> Vec<u64> {
        places(&self.widths, |places| look_vm(template, places)).mask(self.vm_words, |place| {
            if place.kind.has(Fields::LEAVES) {
                frame.0..frame.0 + 1
            } else {
                0..0
            }
        })
    }

    /// What tells which leaves a vCPU's next step reads, from its section.
    #[must_use]
    #[inline]
    pub fn vcpu_place(&self, section: &[u64]) -> VcpuPlace {
        let (widths, fields) = (&self.widths, self.vcpu_fields);
        let read = |at: u32, width: u32| {
            Decoder {
                widths,
                words: section,
                at,
            }
            .read(width)
        };
        let frame = read(fields.frame, widths.of(Measure::FrameIndex));
        let loads = read(fields.loads, widths.of(Measure::Loads));
        let stores = read(fields.stores, widths.of(Measure::Budget));
        VcpuPlace {
            pc: Pc::from_bits(read(0, 4)),
            frame: frame.checked_sub(1).map(|frame| Frame(frame as u32)),
            has_budget: loads > 0 || stores > 0,
            tlb: read(fields.tlb, widths.of(Measure::Frames)),
        }
    }

    /// Where a thread is, from its section: operation, stage, index. They are its first fields, in its first word.
    #[must_use]
    #[inline(always)]
    pub fn thread_place(&self, section: &[u64]) -> ThreadPlace {
        let (word, op) = (section[0], self.widths.of(Measure::Op));
        let index = self.widths.of(Measure::Index);
        ThreadPlace {
            op: (word & low_bits(op)) as u16,
            stage: (word >> op & low_bits(STAGE_BITS)) as u8,
            index: (word >> (op + STAGE_BITS) & low_bits(index)) as u32,
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
        let widths = &self.widths;
        let (vm, mut rest) = words.split_at_mut(self.vm_words);
        if widths.of(Measure::SeenSet) == 0 {
            // Nobody asks what GET has shown.
            state.seen.clear();
        }
        let left_out = encode(widths, vm, |fielder| look_vm(state, fielder));
        debug_assert_eq!(left_out, self.left_out, "what has no bits never changes");
        for index in 0..state.vcpus.len() {
            let (section, after) = rest.split_at_mut(self.vcpu_words);
            rest = after;
            if touched.vcpus >> index & 1 != 0 {
                normalise_vcpu(machine, widths, state, index);
                let pml_entries = machine.constants.pml_entries;
                let v = &state.vcpus[index];
                let left_out = encode(widths, section, |fielder| {
                    look_vcpu(v, pml_entries, fielder)
                });
                debug_assert_eq!(left_out, 0, "what has no bits is 0");
            }
        }
        for index in 0..state.threads.len() {
            let (section, after) = rest.split_at_mut(self.thread_words);
            rest = after;
            if touched.threads >> index & 1 != 0 {
                normalise_thread(machine, widths, state, index);
                let t = &state.threads[index];
                let left_out = encode(widths, section, |fielder| look_thread(t, fielder));
                debug_assert_eq!(left_out, 0, "what has no bits is 0");
            }
        }
    }

    /// Reads a state from `words`; `state` is a copy of the search's first one, which has all that the bits leave out.
    #[inline]
    pub fn unpack<L: Layout>(&self, machine: &Machine, words: &[u64], state: &mut State<L>) {
        let widths = &self.widths;
        let decoder = |words| Decoder {
            widths,
            words,
            at: 0,
        };
        change_vm(state, &mut decoder(words));
        for index in 0..state.vcpus.len() {
            let section = &words[self.vcpu(index)];
            let v = &mut state.vcpus[index];
            change_vcpu(v, machine.constants.pml_entries, &mut decoder(section));
        }
        for index in 0..state.threads.len() {
            let section = &words[self.thread(index)];
            change_thread(&mut state.threads[index], &mut decoder(section));
        }
        transition::settle(machine, state);
    }
}

/// The places of the fields that `walk` visits.
fn places(widths: &Widths, walk: impl FnOnce(&mut Fielder<'_, Places>)) -> Places {
    let mut fielder = Fielder {
        widths,
        sink: Places::default(),
    };
    walk(&mut fielder);
    fielder.sink
}

fn vcpu_places<L: Layout>(machine: &Machine, widths: &Widths, v: &Vcpu<L>) -> Places {
    let pml_entries = machine.constants.pml_entries;
    places(widths, |places| look_vcpu(v, pml_entries, places))
}

fn kinds_mask(places: &Places, words: usize, fields: Fields) -> Vec<u64> {
    places.mask(words, |place| {
        if place.kind.has(fields) {
            0..place.width
        } else {
            0..0
        }
    })
}

#[inline(always)]
fn encode(
    widths: &Widths,
    words: &mut [u64],
    walk: impl FnOnce(&mut Fielder<'_, Encoder<'_>>),
) -> u64 {
    let mut fielder = Fielder {
        widths,
        sink: Encoder::new(words),
    };
    walk(&mut fielder);
    fielder.sink.finish()
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

/// Clears what of a vCPU nobody can read any more.
#[inline(always)]
fn normalise_vcpu<L: Layout>(
    machine: &Machine,
    widths: &Widths,
    state: &mut State<L>,
    index: usize,
) {
    let out = is_out_for_good(machine, state, index);
    let v = &mut state.vcpus[index];
    if out {
        v.stores = 0;
        v.loads = 0;
        v.steal = 0;
        v.request = false;
        if !widths.ghost {
            v.frame = NO_FRAME;
            v.load = false;
        }
    }
    // Flags of a fault, or of a run in the guest, mean nothing outside of it.
    let faults = matches!(v.pc, Pc::Fault | Pc::Flush | Pc::PreFault);
    v.fast &= faults;
    v.was_absent &= faults;
    v.logging &= matches!(v.pc, Pc::Fault | Pc::PreFault) && v.stage > 0;
    v.pml_on &= v.pc == Pc::Guest;
    v.load &= v.frame != NO_FRAME;
    // Why it leaves decides, on the way out, whether it waits outside.
    if !widths.exits && !matches!(v.pc, Pc::Exit | Pc::ExitMark) {
        v.exit = Exit::None;
    }
}

/// Clears what of a thread nobody can read any more.
#[inline(always)]
fn normalise_thread<L: Layout>(
    machine: &Machine,
    widths: &Widths,
    state: &mut State<L>,
    index: usize,
) {
    let counts = state
        .current_op(machine, index)
        .filter(|_| !widths.mutated)
        .map_or(Counts::Exactly, |op| op.facts(machine).counts);
    let t = &mut state.threads[index];
    match counts {
        Counts::Exactly | Counts::UpTo(_) | Counts::Never => {}
        Counts::Whether => {
            t.count = t.count.min(1);
            t.freed = t.freed.min(1);
        }
    }
    // What an ioctl answered is read by nobody once it has returned.
    let number_is_read = widths.of(Measure::Told) != 0;
    if t.stage == 0 && !widths.answers || t.answer.is_ok() && !number_is_read {
        t.answer = Ok(0);
    }
}
