//! The one walk over every field of a state: a line each, with what it holds and what it counts as.
//!
//! Packing, masks, what a step wrote, and the exchange of pages are visitors of it. A state has a VM-wide section, one for each vCPU
//! and one for each thread; the order of the lines is the order of the bits, and of the rows by which pages are compared.
//!
//! Not walked: what follows from the rest (`owed`, `duty`).

use super::device::Device;
use super::layout::Layout;
use super::pages::SetOf;
use super::ring::Ring;
use super::slot::{Life, Slot};
use super::vcpu::{Exit, Pc};
use super::{Answer, Batch, State, Thread, Vcpu};
use crate::words::{Errno, Fields, Frame, Offset, Page};

/// How many bits a field takes: by the machine, or always as many. A field of 0 bits is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// So many.
    Bits(u32),
    /// As the machine needs.
    Of(Measure),
}

macro_rules! measures {
    ($($(#[doc = $doc:literal])+ $variant:ident;)+) => {
        /// What the size of a field depends on.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Measure {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Measure {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();
        }
    };
}

measures! {
    /// A set of frames or host pages.
    Frames;
    /// A set that is kept where leaves have dirty bits that matter.
    DirtySet;
    /// A set that is kept where there are huge mappings.
    HugeSet;
    /// A set that is kept where somebody clears by what GET has shown.
    SeenSet;
    /// A set that is kept where a cancel needs it.
    SentSet;
    /// A set that is kept where the VMM has a log of its own.
    OwnLogSet;
    /// A set that is kept for `no_spurious_dirty_page`.
    GhostSet;
    /// A set that is kept where threads collect into their own hands.
    HandSet;
    /// One frame, or none.
    FrameIndex;
    /// The id of a memslot.
    SlotId;
    /// The address space of a memslot.
    SlotSpace;
    /// An offset in a memslot.
    Offset;
    /// The life of a memslot, where memslots change.
    SlotLife;
    /// A flag of a memslot, where memslots change.
    SlotFlag;
    /// The place of a memslot, where memslots change.
    SlotPlace;
    /// What is left of stores, or of transfers.
    Budget;
    /// What is left of loads, where there are some.
    Loads;
    /// Whether the access is a load, where there are some.
    LoadFlag;
    /// What is left of updates of the kernel's record, where there are some.
    Steal;
    /// Whether one is due, where there are some.
    RecordDue;
    /// Sends that may still fail, where some may.
    Failures;
    /// User space's locks, where there are some.
    Locks;
    /// User space's signals, where there are some.
    Signals;
    /// Entries of a ring, where a program sets it up.
    RingEntries;
    /// A capability's flag, where a program sets it up.
    CapFlag;
    /// The bits of manual protect, where a program sets them up.
    ManualBits;
    /// An operation's number.
    Op;
    /// The index of a word, vCPU or list element.
    Index;
    /// A count of entries.
    Count;
    /// A distance of ring indices.
    RingIndex;
    /// Where the ring begins in memory, where somebody cares.
    RingPlace;
    /// A RESET batch's mask.
    BatchMask;
    /// A RESET batch's slot id.
    BatchId;
    /// A RESET batch's address space.
    BatchSpace;
    /// A RESET batch's offset.
    BatchOffset;
    /// The fill of a PML buffer.
    PmlLen;
    /// A frame in a PML buffer.
    PmlFrame;
    /// Whether PML is on.
    PmlFlag;
    /// The number that a call answered, where the VMM's own code looks at it.
    Told;
}

/// A value that is a number of a few bits.
pub trait Number: Copy {
    /// As bits.
    fn to_bits(self) -> u64;
    /// From bits.
    fn from_bits(bits: u64) -> Self;
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Number for $type {
            #[inline(always)]
            fn to_bits(self) -> u64 {
                u64::from(self)
            }
            #[inline(always)]
            fn from_bits(bits: u64) -> Self {
                bits as Self
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64);

impl Number for bool {
    #[inline(always)]
    fn to_bits(self) -> u64 {
        u64::from(self)
    }
    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        bits != 0
    }
}

macro_rules! numbered {
    ($($type:ty: $all:expr;)*) => {$(
        impl Number for $type {
            #[inline(always)]
            fn to_bits(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn from_bits(bits: u64) -> Self {
                $all[(bits as usize).min($all.len() - 1)]
            }
        }
    )*};
}

numbered! {
    Pc: Pc::ALL;
    Exit: Exit::ALL;
    Life: [Life::Absent, Life::Live, Life::Invalid];
}

/// An answer is its errno's place in the list, counted from 1; a number stands apart ([`Measure::Told`]).
impl Number for Answer {
    #[inline(always)]
    fn to_bits(self) -> u64 {
        match self {
            Ok(_) => 0,
            Err(errno) => Errno::ALL
                .iter()
                .position(|known| *known == errno)
                .map_or(0, |at| at as u64 + 1),
        }
    }
    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        match bits
            .checked_sub(1)
            .and_then(|at| Errno::ALL.get(at as usize))
        {
            Some(errno) => Err(*errno),
            None => Ok(0),
        }
    }
}

/// Somebody who looks at every field.
pub trait Look<L: Layout> {
    /// A field of at most 64 bits.
    fn bits(&mut self, kind: Fields, size: Size, value: u64);
    /// A set of frames or host pages.
    fn pages<P: Page>(&mut self, kind: Fields, size: Size, pages: &SetOf<P, L::Set>);
    /// One frame, or none.
    fn frame(&mut self, kind: Fields, frame: &Frame);
    /// A ring's indices; its entries follow, from RESET's index on.
    fn indices(&mut self, ring: &Ring<L>);
    /// A ring entry. `filling` is the step of the push that is at it.
    fn entry(&mut self, entry: &L::Entry, filling: Option<u8>);
    /// A PML buffer that has room for `capacity` frames.
    fn buffer(&mut self, pml: &L::Pml, capacity: u32);
    /// The page of a ring entry, by slot number and offset; `live` where it names one.
    fn page(&mut self, slot: &u32, offset: &Offset, live: bool);
    /// RESET's batch.
    fn batch(&mut self, batch: &Batch);

    /// A number.
    #[inline(always)]
    fn number<T: Number>(&mut self, kind: Fields, size: Size, value: &T) {
        self.bits(kind, size, value.to_bits());
    }

    /// What an ioctl answered: the errno, then the number.
    #[inline(always)]
    fn answer(&mut self, answer: &Answer) {
        self.number(Fields::ANSWER, Size::Bits(5), answer);
        let told = answer.map_or(0, u64::from);
        self.bits(Fields::ANSWER, Size::Of(Measure::Told), told);
    }
}

/// Somebody who changes fields: as [`Look`].
pub trait Change<L: Layout> {
    /// See [`Look::bits`].
    fn bits(&mut self, kind: Fields, size: Size, value: &mut u64);
    /// See [`Look::pages`].
    fn pages<P: Page>(&mut self, kind: Fields, size: Size, pages: &mut SetOf<P, L::Set>);
    /// See [`Look::frame`].
    fn frame(&mut self, kind: Fields, frame: &mut Frame);
    /// See [`Look::indices`].
    fn indices(&mut self, ring: &mut Ring<L>);
    /// See [`Look::entry`].
    fn entry(&mut self, entry: &mut L::Entry, filling: Option<u8>);
    /// See [`Look::buffer`].
    fn buffer(&mut self, pml: &mut L::Pml, capacity: u32);
    /// See [`Look::page`].
    fn page(&mut self, slot: &mut u32, offset: &mut Offset, live: bool);
    /// See [`Look::batch`].
    fn batch(&mut self, batch: &mut Batch);

    /// A number.
    #[inline(always)]
    fn number<T: Number>(&mut self, kind: Fields, size: Size, value: &mut T) {
        let mut bits = value.to_bits();
        self.bits(kind, size, &mut bits);
        *value = T::from_bits(bits);
    }

    /// See [`Look::answer`].
    #[inline(always)]
    fn answer(&mut self, answer: &mut Answer) {
        self.number(Fields::ANSWER, Size::Bits(5), answer);
        let mut told = 0;
        self.bits(Fields::ANSWER, Size::Of(Measure::Told), &mut told);
        if answer.is_ok() {
            *answer = Ok(told as u32);
        }
    }
}

/// The walk, for those who look and for those who change.
macro_rules! walks {
    ($Visitor:ident, $vm:ident, $vcpu:ident, $thread:ident $(, $mut:tt)?) => {
        /// The VM-wide section.
        #[inline(always)]
        pub fn $vm<L: Layout, V: $Visitor<L>>(state: &$($mut)? State<L>, v: &mut V) {
            use Measure::*;
            use Size::{Bits, Of};
            for index in 0..state.slots.len() {
                let slot: &$($mut)? Slot = &$($mut)? state.slots[index];
                v.number(Fields::SLOTS, Of(SlotLife), &$($mut)? slot.life);
                v.number(Fields::SLOTS, Of(SlotFlag), &$($mut)? slot.logging);
                v.number(Fields::SLOTS, Of(SlotFlag), &$($mut)? slot.readonly);
                v.number(Fields::SLOTS, Of(SlotFlag), &$($mut)? slot.bitmap);
                v.number(Fields::SLOTS, Of(SlotPlace), &$($mut)? slot.place);
            }
            v.pages(Fields::LEAVES, Of(Frames), &$($mut)? state.present);
            v.pages(Fields::LEAVES, Of(Frames), &$($mut)? state.writable);
            v.pages(Fields::BITMAP, Of(Frames), &$($mut)? state.bitmap);
            v.pages(Fields::SCRATCH, Of(Frames), &$($mut)? state.scratch);
            v.pages(Fields::STALE, Of(Frames), &$($mut)? state.stale);
            v.pages(Fields::PENDING, Of(Frames), &$($mut)? state.pending);
            v.pages(Fields::LEAVES, Of(DirtySet), &$($mut)? state.dirty_bit);
            v.pages(Fields::LEAVES, Of(HugeSet), &$($mut)? state.huge);
            v.pages(Fields::SEEN, Of(SeenSet), &$($mut)? state.seen);
            v.pages(Fields::SENT, Of(SentSet), &$($mut)? state.sent);
            v.pages(Fields::OWN_LOG, Of(OwnLogSet), &$($mut)? state.own_log);
            v.pages(Fields::STALE, Of(GhostSet), &$($mut)? state.written);
            v.pages(Fields::STALE, Of(GhostSet), &$($mut)? state.spurious);
            v.number(Fields::SLOTS_LOCK, Bits(3), &$($mut)? state.slots_lock);
            v.number(Fields::MMU_LOCK, Bits(1), &$($mut)? state.mmu_lock_write);
            v.number(Fields::MUTEXES, Bits(1), &$($mut)? state.vcpu_mutexes);
            v.number(Fields::GUEST_RUNS, Bits(1), &$($mut)? state.guest_runs);
            v.number(Fields::USER_LOCKS, Of(Locks), &$($mut)? state.user_locks);
            v.number(Fields::SIGNALS, Of(Signals), &$($mut)? state.signals);
            v.number(Fields::FAILURES, Of(Failures), &$($mut)? state.send_failures);
            v.number(Fields::ENDED, Bits(1), &$($mut)? state.finished);
            v.number(Fields::ENDED, Bits(1), &$($mut)? state.crashed);
            v.number(Fields::CAPS, Of(RingEntries), &$($mut)? state.caps.ring_entries);
            v.number(Fields::CAPS, Of(CapFlag), &$($mut)? state.caps.ring_with_bitmap);
            v.number(Fields::CAPS, Of(ManualBits), &$($mut)? state.caps.manual_protect);
            for index in 0..state.devices.len() {
                let device: &$($mut)? Device<L> = &$($mut)? state.devices[index];
                v.number(Fields::DEVICES, Bits(1), &$($mut)? device.runs);
                v.number(Fields::DEVICES, Bits(1), &$($mut)? device.started);
                v.number(Fields::DEVICES, Of(Budget), &$($mut)? device.budget);
                v.pages(Fields::DEVICES, Of(Frames), &$($mut)? device.in_flight);
                v.pages(Fields::DEVICES, Of(Frames), &$($mut)? device.unlogged);
                v.pages(Fields::DEVICES, Of(Frames), &$($mut)? device.log);
            }
        }

        /// The section of a vCPU, whose PML buffer has room for `pml_entries`. Where it is comes first.
        #[inline(always)]
        pub fn $vcpu<L: Layout, V: $Visitor<L>>(u: &$($mut)? Vcpu<L>, pml_entries: u32, v: &mut V) {
            use Measure::*;
            use Size::{Bits, Of};
            v.number(Fields::PC, Bits(4), &$($mut)? u.pc);
            v.number(Fields::PC, Bits(1), &$($mut)? u.reads_mmu);
            v.number(Fields::ACCESS, Bits(3), &$($mut)? u.stage);
            v.number(Fields::ENTRIES, Bits(3), &$($mut)? u.push);
            v.pages(Fields::TLB, Of(Frames), &$($mut)? u.tlb);
            v.frame(Fields::ACCESS, &$($mut)? u.frame);
            v.number(Fields::ACCESS, Of(LoadFlag), &$($mut)? u.load);
            v.number(Fields::ACCESS, Of(Loads), &$($mut)? u.loads);
            v.number(Fields::ACCESS, Bits(1), &$($mut)? u.fast);
            v.number(Fields::ACCESS, Bits(1), &$($mut)? u.was_absent);
            v.number(Fields::ACCESS, Bits(1), &$($mut)? u.logging);
            v.number(Fields::ACCESS, Bits(1), &$($mut)? u.old_slots);
            v.number(Fields::ACCESS, Of(Budget), &$($mut)? u.stores);
            v.number(Fields::ACCESS, Of(Steal), &$($mut)? u.steal);
            v.number(Fields::ACCESS, Of(RecordDue), &$($mut)? u.record_due);
            v.number(Fields::EXIT, Bits(2), &$($mut)? u.exit);
            v.number(Fields::REQUEST, Bits(1), &$($mut)? u.request);
            v.number(Fields::KICKED, Bits(1), &$($mut)? u.kicked);
            v.number(Fields::RESCHED, Bits(1), &$($mut)? u.resched);
            v.number(Fields::EXIT, Bits(1), &$($mut)? u.waits);
            v.number(Fields::ACCESS, Of(PmlFlag), &$($mut)? u.pml_on);
            let push = u.push;
            let ring = &$($mut)? u.ring;
            let size = ring.size();
            if size != 0 {
                v.indices(ring);
                let mask = size - 1;
                let filled = ring.dirty_index & mask;
                for position in 0..size {
                    let at = ring.reset_index.wrapping_add(position) & mask;
                    let filling = if at == filled { Some(push) } else { None };
                    v.entry(&$($mut)? ring.entries[at as usize], filling);
                }
            }
            v.buffer(&$($mut)? u.pml, pml_entries);
        }

        /// The section of a thread. Where it is comes first.
        #[inline(always)]
        pub fn $thread<L: Layout, V: $Visitor<L>>(t: &$($mut)? Thread<L>, v: &mut V) {
            use Measure::*;
            use Size::{Bits, Of};
            let live = t.holds_entry();
            v.number(Fields::PLACE, Of(Op), &$($mut)? t.op);
            v.number(Fields::PLACE, Bits(STAGE_BITS), &$($mut)? t.stage);
            v.number(Fields::PLACE, Of(Index), &$($mut)? t.index);
            v.pages(Fields::HAND, Of(HandSet), &$($mut)? t.hand);
            v.number(Fields::COUNT, Of(Count), &$($mut)? t.count);
            v.number(Fields::COUNT, Of(Count), &$($mut)? t.freed);
            v.number(Fields::PLACE, Bits(1), &$($mut)? t.any);
            v.number(Fields::PLACE, Bits(1), &$($mut)? t.signal);
            v.page(&$($mut)? t.entry_slot, &$($mut)? t.entry_offset, live);
            v.batch(&$($mut)? t.batch);
            v.answer(&$($mut)? t.answer);
        }
    };
}

/// Bits of a thread's stage.
pub const STAGE_BITS: u32 = 4;

walks!(Look, look_vm, look_vcpu, look_thread);
walks!(Change, change_vm, change_vcpu, change_thread, mut);
