//! Pages and vCPUs that are interchangeable: symmetry reduction.
//!
//! A search may replace a state by one in which interchangeable pages have changed places, because whatever can happen
//! to one can happen to the other with the places changed. [`Symmetry::canonical`] chooses the representative.
//!
//! Pages are interchangeable where nothing orders or names them. What does:
//! - memslots and bitmap words: only pages of one word of one slot are exchanged;
//! - writers that name pages (an ITS's tables, a record of the kernel, a VMM's own store, a CLEAR of listed pages, a
//!   balloon's list): the pages that they name stand alone; vCPUs and devices that may touch some pages only: pages of
//!   one class are touched by the same;
//! - re-arming on arm64 and RISC-V, which goes from the lowest to the highest page of a batch and so
//!   write-protects what lies between: see below;
//! - ring entries that nobody filled and that are reset all the same, which name a slot's first page;
//! - a RESET batch narrower than a slot, huge mappings, memory behind two slots: no symmetry at all; nor with a mutation that goes by
//!   where a page lies ([`crate::mutated::declared`]).
//!
//! **The order of pages.** Where nothing but such re-arming orders pages, a search takes their order for unknown
//! ([`Symmetry::without_order`]): re-arming two pages or more takes any of the others of the memslot, or of the word, along. Whatever
//! the order is, the pages that lie between are one of the sets that are tried, so that each schedule of the machine is a schedule of that
//! one, state by state, and what holds there holds. Nothing of it reads an order, so that pages are interchangeable in every state.
//! What breaks there need not break on the machine, which is then searched as it is: so, and where a memslot has many pages, pages
//! are exchanged only in states from which no re-arming can follow while a
//! leaf is left, that is, after the last such operation before the guest stops for good. From there on nothing
//! reads an order any more, so that the exchanged state behaves alike.
//!
//! The order of copies is free in the model. vCPUs are interchangeable when their writers are alike, and only in states
//! from which no loop over vCPUs (signals, harvest, RESET, GET's interrupts under PML) can follow while the guest may
//! still run: such a loop visits them in order. Once the guest has stopped for good, rings can be harvested in any
//! order with the same result, and no claim changes its value on the way.
//!
//! The representative has its vCPUs sorted by [`vcpu_rank`] and the pages of each class by their columns. A column is
//! read section by section of a packed state ([`super::pack`]): the VM-wide one, the threads', then each vCPU's. What a
//! section says of pages is told by that section alone, so that whether a state is its own representative can be
//! answered from an [`Order`] for each section, without the state.

use alloc::vec::Vec;

use super::widths::entries_revive;
use crate::machine::{Machine, WriterLog};
use crate::mutated::declared;
use crate::state::fields::{
    Change, Look, Size, change_thread, change_vcpu, change_vm, look_thread, look_vcpu, look_vm,
};
use crate::state::layout::Layout;
use crate::state::pages::{PageSet, SetOf};
use crate::state::ring::{Ring, RingEntry};
use crate::state::{Batch, State, Vcpu};
use crate::transition;
use crate::words::{Facts, Fields, Frame, NO_FRAME, Names, Offset, Page};

/// The most frames that a permutation moves.
const MOST_FRAMES: usize = 64;

/// The most pages of a memslot whose order may be unknown: of `n` pages, `2^(n - 2)` sets may lie between two.
const MOST_UNORDERED: u32 = 8;

/// As many as most classes have.
const FEW_FRAMES: usize = 8;

/// How the pages of each class lie in some sections of a state: one bit for each pair of neighbours in a class, at the
/// number of the first one's frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Order {
    /// The pairs whose first page has the larger column there.
    pub above: u64,
    /// The pairs whose pages have the same column there.
    pub equal: u64,
}

impl Order {
    /// That of these sections and then `next`: what comes first decides.
    #[must_use]
    #[inline(always)]
    pub const fn then(self, next: Self) -> Self {
        Self {
            above: self.above | self.equal & next.above,
            equal: self.equal & next.equal,
        }
    }

    /// Whether no page lies above the next one of its class.
    #[must_use]
    #[inline(always)]
    pub const fn is_sorted(self) -> bool {
        self.above == 0
    }
}

/// Frames that [`Ranks`] and an [`Exchange`] have room for.
const RANKED_FRAMES: u32 = 16;

/// How the pages of each class lie in some section of a state: by frame, 4 bits each, how many pages of the class have a smaller
/// column there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ranks(u64);

/// Where each page goes: by frame, 4 bits each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exchange(u64);

impl Exchange {
    /// Every page stays where it is.
    pub const NONE: Self = Self(0xfedc_ba98_7654_3210);

    /// As a number that is not 0.
    #[must_use]
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.0
    }

    fn put(&mut self, frame: Frame, place: Frame) {
        let at = 4 * frame.0;
        self.0 = self.0 & !(15 << at) | u64::from(place.0) << at;
    }
}

/// The number of a frame among 16 of 4 bits each.
#[inline(always)]
fn nibble(word: u64, frame: Frame) -> u64 {
    word >> (4 * frame.0) & 15
}

/// The pairs of neighbours in the classes, by the first one's frame.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Neighbours {
    /// All of them.
    all: u64,
    /// Those that are adjacent frames.
    adjacent: u64,
    /// The others, by how many frames they are apart.
    apart: Vec<(u32, u64)>,
}

impl Neighbours {
    fn of(classes: &[Vec<Frame>]) -> Self {
        let mut pairs = Self::default();
        for pair in classes.iter().flat_map(|class| class.windows(2)) {
            let (first, distance) = (frame_bit(pair[0]), pair[1] - pair[0]);
            pairs.all |= first;
            if distance == 1 {
                pairs.adjacent |= first;
                continue;
            }
            match pairs.apart.iter_mut().find(|(known, _)| *known == distance) {
                Some((_, firsts)) => *firsts |= first,
                None => pairs.apart.push((distance, first)),
            }
        }
        pairs
    }

    /// The order of pages of which nothing is known.
    #[inline(always)]
    fn equal(&self) -> Order {
        Order {
            above: 0,
            equal: self.all,
        }
    }

    /// That of pages of which it is known which ones some part of a state names.
    #[inline(always)]
    fn order(&self, named: u64) -> Order {
        let mut second = named >> 1 & self.adjacent;
        for (distance, firsts) in &self.apart {
            second |= named >> distance & firsts;
        }
        let first = named & self.all;
        Order {
            above: first & !second,
            equal: self.all & !(first ^ second),
        }
    }
}

/// What is interchangeable in a machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Symmetry {
    classes: Vec<Vec<Frame>>,
    neighbours: Neighbours,
    /// By thread, the first operation from which on pages may be exchanged.
    pages_from: Vec<usize>,
    vcpus: bool,
    /// By thread, the first operation from which on vCPUs may be exchanged.
    vcpus_from: Vec<usize>,
}

impl Symmetry {
    /// No symmetry.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The symmetry of a machine whose set-up is done; `pages` and `vcpus` say which parts of it are wanted.
    #[must_use]
    pub fn of<L: Layout>(machine: &Machine, start: &State<L>, pages: bool, vcpus: bool) -> Self {
        let orders_pages = |facts: &Facts| facts.rearms && rearms_by_order(machine);
        let orders_vcpus = |facts: &Facts| facts.visits_vcpus;
        let picks_vcpu =
            facts(machine).any(|facts| matches!(facts.names, Names::Vcpu(_) | Names::Anything));
        let alike = machine.vcpus.len() > 1
            && start.vcpus.len() == machine.vcpus.len()
            && machine.vcpus.windows(2).all(|pair| pair[0] == pair[1]);
        let classes = if pages && declared::leaves_pages_alike(machine) {
            classes(machine, start)
        } else {
            Vec::new()
        };
        Self {
            neighbours: Neighbours::of(&classes),
            classes,
            pages_from: first_without(machine, orders_pages),
            vcpus: vcpus && alike && !picks_vcpu && declared::leaves_vcpus_alike(machine),
            vcpus_from: first_without(machine, orders_vcpus),
        }
    }

    /// The machine whose pages are like no others only for their order, with that order unknown: none where they are alike anyway, or for
    /// another reason not, or where what could lie between two pages is too much to try.
    #[must_use]
    pub fn without_order<L: Layout>(machine: &Machine, start: &State<L>) -> Option<Machine> {
        let of = |machine: &Machine| Self::of(machine, start, true, false);
        let few = machine
            .slots
            .iter()
            .all(|slot| slot.npages <= MOST_UNORDERED);
        if !few || machine.frames() > u32::BITS || of(machine).pages_everywhere() {
            return None;
        }
        let mut unordered = machine.clone();
        unordered.order_unknown = true;
        of(&unordered).pages_everywhere().then_some(unordered)
    }

    /// The classes of interchangeable pages, each of two frames or more.
    #[must_use]
    pub fn classes(&self) -> &[Vec<Frame>] {
        &self.classes
    }

    /// Whether pages are interchangeable in every state, and not only from some operation on.
    #[must_use]
    pub fn pages_everywhere(&self) -> bool {
        !self.classes.is_empty() && self.pages_from.iter().all(|from| *from == 0)
    }

    /// Whether vCPUs are interchangeable in some states.
    #[must_use]
    pub fn exchanges_vcpus(&self) -> bool {
        self.vcpus
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.classes.is_empty() && !self.vcpus
    }

    /// Whether pages, and whether vCPUs, may be exchanged in states whose threads are at these operations and stages.
    #[must_use]
    #[inline]
    pub fn applies(&self, threads: impl Iterator<Item = (usize, u8)>) -> (bool, bool) {
        let mut pages = !self.classes.is_empty();
        let mut vcpus = self.vcpus;
        if pages || vcpus {
            for (index, (op, stage)) in threads.enumerate() {
                pages &= op >= self.pages_from[index];
                vcpus &= op >= self.vcpus_from[index] && stage == 0;
            }
        }
        (pages, vcpus)
    }

    /// Replaces `state` by the representative of those that it can be exchanged with; whether it was another.
    ///
    /// It was the same exactly if what [`Symmetry::applies`] names is sorted: the vCPUs by [`vcpu_rank`], the pages by
    /// [`Symmetry::shared_order`] and then each [`Symmetry::vcpu_order`].
    #[inline]
    pub fn canonical<L: Layout>(&self, machine: &Machine, state: &mut State<L>) -> bool {
        let (pages, vcpus) = self.applies(
            state
                .threads
                .iter()
                .map(|thread| (usize::from(thread.op), thread.stage)),
        );
        let mut changed = false;
        let rank = |vcpu: &Vcpu<L>| vcpu_rank(machine, vcpu);
        if vcpus && !state.vcpus.is_sorted_by_key(rank) {
            state.vcpus.sort_by_key(rank);
            changed = true;
        }
        if pages {
            changed |= self.sort_pages(machine, state);
        }
        changed
    }

    /// The order of pages in the VM-wide section and the threads'.
    #[must_use]
    #[inline]
    pub fn shared_order<L: Layout>(&self, machine: &Machine, state: &State<L>) -> Order {
        let mut order = self.neighbours.equal();
        named_by_shared(machine, state, |named| {
            order = order.then(self.neighbours.order(named));
        });
        order
    }

    /// The order of pages in a vCPU's section.
    #[must_use]
    #[inline]
    pub fn vcpu_order<L: Layout>(&self, machine: &Machine, state: &State<L>, vcpu: usize) -> Order {
        let mut order = self.neighbours.equal();
        named_by_vcpu(machine, &state.vcpus[vcpu], |named| {
            order = order.then(self.neighbours.order(named));
        });
        order
    }

    /// Whether frames are few enough for [`Symmetry::exchange`].
    #[must_use]
    pub fn has_ranks(&self) -> bool {
        let mut frames = self.classes.iter().flatten();
        frames.all(|frame| frame.0 < RANKED_FRAMES)
    }

    /// The ranks of pages in the VM-wide section and the threads', where there are any.
    #[must_use]
    pub fn shared_ranks<L: Layout>(&self, machine: &Machine, state: &State<L>) -> Ranks {
        self.ranks(|row| named_by_shared(machine, state, row))
    }

    /// The ranks of pages in a vCPU's section, where there are any.
    #[must_use]
    pub fn vcpu_ranks<L: Layout>(&self, machine: &Machine, state: &State<L>, vcpu: usize) -> Ranks {
        self.ranks(|row| named_by_vcpu(machine, &state.vcpus[vcpu], row))
    }

    /// The ranks of the columns whose rows `rows` calls with.
    fn ranks(&self, rows: impl FnOnce(&mut dyn FnMut(u64))) -> Ranks {
        let mut columns = [0_u128; RANKED_FRAMES as usize];
        rows(&mut |named| {
            for (frame, column) in columns.iter_mut().enumerate() {
                *column = *column << 1 | u128::from(named >> frame & 1);
            }
        });
        let mut ranks = 0;
        for class in self.classes.iter().filter(|_| self.has_ranks()) {
            let column = |frame: &Frame| columns[frame.index()];
            for frame in class {
                let below = class.iter().filter(|other| column(other) < column(frame));
                ranks |= (below.count() as u64) << (4 * frame.0);
            }
        }
        Ranks(ranks)
    }

    /// Where the pages of a state go in its representative, from what its sections say, in their order: at most 16 of them. To be
    /// asked where [`Symmetry::has_ranks`] says that it can.
    ///
    /// # Panics
    /// If a class has more than 16 pages.
    #[must_use]
    #[inline]
    pub fn exchange(&self, sections: impl Iterator<Item = Ranks> + Clone) -> Exchange {
        let mut exchange = Exchange::NONE;
        for class in &self.classes {
            // What comes first decides; and columns that are equal are equal in everything, so that they may stay in order.
            let mut keys = [0_u64; RANKED_FRAMES as usize];
            for ranks in sections.clone() {
                for (key, frame) in keys.iter_mut().zip(class) {
                    *key = *key << 4 | nibble(ranks.0, *frame);
                }
            }
            let keys = &keys[..class.len()];
            for (at, frame) in class.iter().enumerate() {
                let before = keys[..at].iter().filter(|other| **other <= keys[at]);
                let after = keys[at + 1..].iter().filter(|other| **other < keys[at]);
                exchange.put(*frame, class[before.count() + after.count()]);
            }
        }
        exchange
    }

    /// Moves the pages of a state.
    pub fn move_pages<L: Layout>(machine: &Machine, state: &mut State<L>, exchange: Exchange) {
        let to = core::array::from_fn(|frame| match frame as u32 {
            frame @ 0..RANKED_FRAMES => nibble(exchange.0, Frame(frame)) as u8,
            frame => frame as u8,
        });
        permute(machine, state, &to);
    }

    fn sort_pages<L: Layout>(&self, machine: &Machine, state: &mut State<L>) -> bool {
        let order = (0..state.vcpus.len())
            .fold(self.shared_order(machine, state), |order, vcpu| {
                order.then(self.vcpu_order(machine, state, vcpu))
            });
        if order.is_sorted() {
            return false;
        }
        let mut to = [0_u8; MOST_FRAMES];
        for (frame, place) in to.iter_mut().enumerate() {
            *place = frame as u8;
        }
        for class in &self.classes {
            if class
                .iter()
                .all(|frame| order.above & frame_bit(*frame) == 0)
            {
                continue;
            }
            if class.len() <= FEW_FRAMES {
                sort_class::<L, FEW_FRAMES>(machine, state, class, &mut to);
            } else {
                sort_class::<L, MOST_FRAMES>(machine, state, class, &mut to);
            }
        }
        permute(machine, state, &to);
        true
    }
}

/// Tells `to` where the pages of a class, at most `N`, go.
fn sort_class<L: Layout, const N: usize>(
    machine: &Machine,
    state: &State<L>,
    class: &[Frame],
    to: &mut [u8; MOST_FRAMES],
) {
    let mut columns = [(0_u128, 0_u8); N];
    let columns = &mut columns[..class.len()];
    for (column, frame) in columns.iter_mut().zip(class) {
        column.1 = frame.0 as u8;
    }
    named_by_all(machine, state, |named| {
        for (column, frame) in columns.iter_mut() {
            *column = *column << 1 | u128::from(named >> *frame & 1);
        }
    });
    // Columns that are equal are equal in everything, so that their order makes no difference.
    columns.sort_unstable_by_key(|(column, _)| *column);
    for ((_, from), place) in columns.iter().zip(class) {
        to[usize::from(*from)] = place.0 as u8;
    }
}

/// Whether re-arming goes by the order of pages.
fn rearms_by_order(machine: &Machine) -> bool {
    machine.arch.rearms_range(machine.kernel) && !machine.order_unknown
}

/// What is to be known of every operation.
fn facts(machine: &Machine) -> impl Iterator<Item = Facts> {
    machine
        .programs
        .iter()
        .flatten()
        .map(|op| op.facts(machine))
}

/// By thread, the index after the last operation that `orders` and that can come before the guest stops for good.
fn first_without(machine: &Machine, orders: impl Fn(&Facts) -> bool) -> Vec<usize> {
    let alone = machine.programs.len() == 1;
    machine
        .programs
        .iter()
        .enumerate()
        .map(|(thread, ops)| {
            let facts: Vec<Facts> = ops.iter().map(|op| op.facts(machine)).collect();
            if facts.iter().any(|facts| facts.jump.is_some()) {
                // A jump may lead back.
                return if facts.iter().any(&orders) {
                    usize::MAX
                } else {
                    0
                };
            }
            let stops = |index: usize| {
                // Without a stop before it, a wait only sees every vCPU outside for once.
                let mut before = facts[..index].iter().rev();
                let stopped = before.find(|facts| facts.stops || facts.resumes);
                alone
                    && facts[index].waits_stopped
                    && stopped.is_some_and(|facts| facts.stops)
                    && !machine.ahead(thread, index + 1).resume
            };
            let end = (0..ops.len())
                .find(|index| stops(*index))
                .unwrap_or(ops.len());
            facts[..end]
                .iter()
                .rposition(&orders)
                .map_or(0, |last| last + 1)
        })
        .collect()
}

/// What the pages of a class have in common: slot, word, and who may touch them.
type Kind = (usize, u32, Vec<bool>);

fn classes<L: Layout>(machine: &Machine, start: &State<L>) -> Vec<Vec<Frame>> {
    // A device's log has an order of its own: queues, granules, a used ring, addresses of another space.
    let device_orders = machine.devices.iter().any(|device| {
        device.log == WriterLog::WrongSpace
            || device.queues > 1
            || device.granule > 1
            || device.used_ring.is_some()
    });
    let narrow = machine
        .slots
        .iter()
        .any(|slot| slot.npages > machine.constants.reset_batch_pages);
    let huge = machine.slots.iter().any(|slot| slot.huge);
    if device_orders
        || narrow
        || entries_revive(machine)
        || huge
        || machine.aliased()
        || machine.frames() as usize > MOST_FRAMES
        || column_bits(machine, start) > u128::BITS
    {
        return Vec::new();
    }
    let named = named_frames(machine);
    let mut kinds: Vec<(Kind, Vec<Frame>)> = Vec::new();
    for (index, slot) in machine.slots.iter().enumerate() {
        for offset in 0..slot.npages {
            let frame = slot.frame + offset;
            if named.contains(&frame) {
                continue;
            }
            let touched = machine
                .vcpus
                .iter()
                .map(|vcpu| vcpu.frames.contains(&frame))
                .chain(
                    machine
                        .devices
                        .iter()
                        .map(|device| device.frames.contains(&frame)),
                )
                .collect();
            let kind = (index, offset / machine.constants.word_bits, touched);
            match kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, frames)) => frames.push(frame),
                None => kinds.push((kind, alloc::vec![frame])),
            }
        }
    }
    kinds
        .into_iter()
        .map(|(_, frames)| frames)
        .filter(|frames| frames.len() > 1)
        .collect()
}

/// The frames that some writer or operation names.
fn named_frames(machine: &Machine) -> Vec<Frame> {
    // Where pages are exchanged, a host page has the number of its frame.
    let hosts = machine.always_dirty.iter();
    let mut named: Vec<_> = hosts.map(|host| Frame(host.0)).collect();
    named.extend(
        machine
            .vcpus
            .iter()
            .filter(|v| v.steal > 0)
            .map(|v| v.steal_frame),
    );
    for facts in facts(machine) {
        match facts.names {
            Names::Frames(list) | Names::Slot(_, Some(list)) => {
                named.extend(&machine.frame_lists[usize::from(list)]);
            }
            Names::Frame(frame) => named.push(frame),
            Names::Anything => named.extend((0..machine.frames()).map(Frame)),
            Names::Nothing
            | Names::Slot(_, None)
            | Names::Template(_)
            | Names::Vcpu(_)
            | Names::Thread(_)
            | Names::Device(_)
            | Names::Signal(_) => {}
        }
    }
    named
}

/// Bits of a page's column.
fn column_bits<L: Layout>(machine: &Machine, start: &State<L>) -> u32 {
    let mut bits = 0;
    named_by_all(machine, start, |_| bits += 1);
    bits
}

/// Whatever names pages gives each page a bit of its column: sets, accesses, ring positions, buffers. Two pages with
/// the same column are the same in everything. `row` is called with the frames that are named, one bit each; the first
/// call has the columns' highest bits.
#[inline]
fn named_by_all<L: Layout>(machine: &Machine, state: &State<L>, mut row: impl FnMut(u64)) {
    named_by_shared(machine, state, &mut row);
    for vcpu in state.vcpus.iter() {
        named_by_vcpu(machine, vcpu, &mut row);
    }
}

/// The rows of the VM-wide section, then of the threads'.
#[inline]
fn named_by_shared<L: Layout>(machine: &Machine, state: &State<L>, row: impl FnMut(u64)) {
    let mut named = Named { machine, row };
    look_vm(state, &mut named);
    for thread in state.threads.iter() {
        look_thread(thread, &mut named);
    }
}

/// The rows of a vCPU's section.
#[inline]
fn named_by_vcpu<L: Layout>(machine: &Machine, vcpu: &Vcpu<L>, row: impl FnMut(u64)) {
    let mut named = Named { machine, row };
    look_vcpu(vcpu, machine.constants.pml_entries, &mut named);
}

/// Tells `row` of the frames that each field names.
struct Named<'a, F> {
    machine: &'a Machine,
    row: F,
}

impl<L: Layout, F: FnMut(u64)> Look<L> for Named<'_, F> {
    #[inline(always)]
    fn bits(&mut self, _: Fields, _: Size, _: u64) {}
    #[inline(always)]
    fn pages<P: Page>(&mut self, _: Fields, _: Size, pages: &SetOf<P, L::Set>) {
        (self.row)(pages.numbers().word(0, MOST_FRAMES as u32));
    }
    #[inline(always)]
    fn frame(&mut self, _: Fields, frame: &Frame) {
        (self.row)(frame_bit(*frame));
    }
    #[inline(always)]
    fn indices(&mut self, _: &Ring<L>) {}
    #[inline(always)]
    fn entry(&mut self, entry: &L::Entry, filling: Option<u8>) {
        let frame = is_live(entry, filling)
            .then(|| frame_of(self.machine, entry.slot(), entry.offset()))
            .flatten();
        (self.row)(frame.map_or(0, frame_bit));
    }
    #[inline(always)]
    fn buffer(&mut self, pml: &L::Pml, capacity: u32) {
        if self.machine.pml {
            for place in 0..capacity as usize {
                (self.row)(pml.get(place).map_or(0, |frame| frame_bit(*frame)));
            }
        }
    }
    #[inline(always)]
    fn page(&mut self, slot: &u32, offset: &Offset, live: bool) {
        let frame = live
            .then(|| frame_of(self.machine, *slot, *offset))
            .flatten();
        (self.row)(frame.map_or(0, frame_bit));
    }
    #[inline(always)]
    fn batch(&mut self, batch: &Batch) {
        let first = (batch.mask != 0)
            .then(|| frame_of(self.machine, batch.slot, batch.offset))
            .flatten();
        let pages = first.and_then(|first| batch.mask.checked_shl(first.0));
        (self.row)(pages.unwrap_or(0));
    }
}

/// The bit of a frame; [`NO_FRAME`] has none.
#[inline(always)]
fn frame_bit(frame: Frame) -> u64 {
    1_u64.checked_shl(frame.0).unwrap_or(0)
}

/// Whether an entry's payload names a page: somebody can still read it, or it has been reset before the push that wrote
/// it has moved the index on, until when it is kept.
#[inline]
fn is_live<E: RingEntry>(entry: &E, filling: Option<u8>) -> bool {
    entry.flags() != 0 || matches!(filling, Some(2..=3))
}

/// The frame that a slot number and an offset name.
#[inline]
fn frame_of(machine: &Machine, number: u32, offset: Offset) -> Option<Frame> {
    let mut named = machine.slots.iter().filter(|slot| slot.number() == number);
    named.find_map(|slot| slot.frame_at(offset))
}

/// Moves every page of `state` to its new place.
fn permute<L: Layout>(machine: &Machine, state: &mut State<L>, to: &[u8; MOST_FRAMES]) {
    let mut mover = Mover { machine, to };
    change_vm(state, &mut mover);
    for vcpu in state.vcpus.iter_mut() {
        change_vcpu(vcpu, machine.constants.pml_entries, &mut mover);
    }
    for thread in state.threads.iter_mut() {
        change_thread(thread, &mut mover);
    }
    transition::settle(machine, state);
}

/// Moves pages to other places.
struct Mover<'a> {
    machine: &'a Machine,
    to: &'a [u8; MOST_FRAMES],
}

impl Mover<'_> {
    fn place(&self, frame: Frame) -> Frame {
        Frame(u32::from(self.to[frame.index() % MOST_FRAMES]))
    }

    /// The new offset of a page that a slot number and an offset name.
    fn offset(&self, number: u32, offset: Offset) -> Offset {
        match frame_of(self.machine, number, offset) {
            Some(frame) => Offset(offset.0 + u64::from(self.place(frame).0) - u64::from(frame.0)),
            None => offset,
        }
    }
}

impl<L: Layout> Change<L> for Mover<'_> {
    fn bits(&mut self, _: Fields, _: Size, _: &mut u64) {}
    fn pages<P: Page>(&mut self, _: Fields, _: Size, pages: &mut SetOf<P, L::Set>) {
        // Where pages are exchanged, a host page has the number of its frame.
        let mut moved = SetOf::default();
        for page in pages.iter() {
            moved.insert(P::new(self.place(Frame(page.number())).0));
        }
        *pages = moved;
    }
    fn frame(&mut self, _: Fields, frame: &mut Frame) {
        if *frame != NO_FRAME {
            *frame = self.place(*frame);
        }
    }
    fn indices(&mut self, _: &mut Ring<L>) {}
    fn entry(&mut self, entry: &mut L::Entry, filling: Option<u8>) {
        if is_live(entry, filling) {
            entry.set_offset(self.offset(entry.slot(), entry.offset()));
        }
    }
    fn buffer(&mut self, pml: &mut L::Pml, _: u32) {
        for frame in pml.iter_mut() {
            *frame = self.place(*frame);
        }
    }
    fn page(&mut self, slot: &mut u32, offset: &mut Offset, live: bool) {
        if live {
            *offset = self.offset(*slot, *offset);
        }
    }
    fn batch(&mut self, batch: &mut Batch) {
        let Some(first) =
            frame_of(self.machine, batch.slot, batch.offset).filter(|_| batch.mask != 0)
        else {
            return;
        };
        let base = first.0 - batch.offset.0 as u32;
        let pages = (0..64_u32)
            .filter(|bit| batch.mask >> bit & 1 != 0)
            .fold(0_u64, |pages, bit| {
                pages | 1 << (self.place(first + bit).0 - base)
            });
        batch.offset = Offset(u64::from(pages.trailing_zeros()));
        batch.mask = pages >> pages.trailing_zeros();
    }
}

/// What of a vCPU names no page, from its section alone: the order of interchangeable vCPUs. Those that are equal in it
/// stay as they are, which leaves some states that could be exchanged apart, and is sound.
#[must_use]
#[inline]
pub fn vcpu_rank<L: Layout>(machine: &Machine, vcpu: &Vcpu<L>) -> u64 {
    let mut rank = Rank(0);
    look_vcpu(vcpu, machine.constants.pml_entries, &mut rank);
    rank.0
}

/// A number for all fields but the pages that they name. Two that differ may have the same: it only orders.
struct Rank(u64);

impl Rank {
    #[inline(always)]
    fn count(&mut self, value: u64) {
        self.0 = self.0.wrapping_mul(61).wrapping_add(value);
    }
}

impl<L: Layout> Look<L> for Rank {
    #[inline(always)]
    fn bits(&mut self, _: Fields, _: Size, value: u64) {
        self.count(value);
    }
    #[inline(always)]
    fn pages<P: Page>(&mut self, _: Fields, _: Size, pages: &SetOf<P, L::Set>) {
        self.count(pages.count());
    }
    #[inline(always)]
    fn frame(&mut self, _: Fields, frame: &Frame) {
        self.count(u64::from(*frame != NO_FRAME));
    }
    #[inline(always)]
    fn indices(&mut self, ring: &Ring<L>) {
        self.count(u64::from(ring.used()));
        self.count(u64::from(ring.dirty_index.wrapping_sub(ring.fetch_index)));
    }
    #[inline(always)]
    fn entry(&mut self, entry: &L::Entry, _: Option<u8>) {
        self.count(u64::from(entry.flags()));
    }
    #[inline(always)]
    fn buffer(&mut self, pml: &L::Pml, _: u32) {
        self.count(pml.len() as u64);
    }
    #[inline(always)]
    fn page(&mut self, _: &u32, _: &Offset, live: bool) {
        self.count(u64::from(live));
    }
    #[inline(always)]
    fn batch(&mut self, batch: &Batch) {
        self.count(u64::from(batch.mask.count_ones()));
    }
}
