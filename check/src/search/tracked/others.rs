//! What a state says of pages that are not tracked: it is forgotten, and anything that it could say is put back before a step.

use dirtysim_model::machine::Machine;
use dirtysim_model::reduce::independence::Rules;
use dirtysim_model::state::fields::{Change, Size, change_thread, change_vcpu, change_vm};
use dirtysim_model::state::layout::{Layout, Parts};
use dirtysim_model::state::pages::{PageSet, SetOf};
use dirtysim_model::state::ring::{Ring, RingEntry};
use dirtysim_model::state::vcpu::Pc;
use dirtysim_model::state::{Batch, State};
use dirtysim_model::transition::{self, Actor, Choice};
use dirtysim_model::words::{Fields, Frame, NO_FRAME, Offset, Page};

use super::argued::{Looks, looks};
use super::{ABOVE, BELOW, FAR, TRACKED, frame_in};

/// Forgets what a state says of the others: no set has them, and where one is named it is the far one of its memslot. `slot`: that of the
/// tracked page.
pub(in crate::search) fn forget<L: Layout>(machine: &Machine, slot: usize, state: &mut State<L>) {
    rename([machine; 2], slot, state, frame_in(machine, slot, TRACKED));
}

/// The state of the machine of any number of pages that stands for `state` of another, when page `tracked` of that is tracked, which is in
/// memslot `slot`.
pub(super) fn rename<L: Layout>(
    [from, machine]: [&Machine; 2],
    slot: usize,
    state: &mut State<L>,
    tracked: Frame,
) {
    let mut forget = Forget {
        from,
        machine,
        slot,
        tracked,
    };
    change_vm(state, &mut forget);
    for vcpu in state.vcpus.iter_mut() {
        change_vcpu(vcpu, machine.constants.pml_entries, &mut forget);
    }
    for thread in state.threads.iter_mut() {
        change_thread(thread, &mut forget);
    }
    transition::settle(machine, state);
}

struct Forget<'a> {
    /// The machine of the state, and that of the state that stands for it.
    from: &'a Machine,
    machine: &'a Machine,
    slot: usize,
    tracked: Frame,
}

impl Forget<'_> {
    /// The tracked page.
    fn own(&self) -> Frame {
        frame_in(self.machine, self.slot, TRACKED)
    }

    /// A page that a vCPU accesses, or that its PML buffer has, stays one of its memslot: whether that logs is still to be asked.
    fn name(&self, page: Frame) -> Frame {
        if page == self.tracked {
            return self.own();
        }
        let slot = self.from.slot_of_frame(page).unwrap_or(self.slot);
        frame_in(self.machine, slot, FAR)
    }

    /// An entry of another memslot becomes one of the tracked page's: it joins no batch with the tracked page, and what becomes of it is
    /// nothing that is kept.
    fn entry_of(&self, slot: u32, offset: Offset) -> (u32, Offset) {
        let own = &self.from.slots[self.slot];
        let is_it = slot == own.number() && offset == own.offset(self.tracked);
        (own.number(), place_of(if is_it { TRACKED } else { FAR }))
    }
}

/// The offset of a place in a memslot.
fn place_of(page: Frame) -> Offset {
    Offset(u64::from(page.0))
}

impl<L: Layout> Change<L> for Forget<'_> {
    fn bits(&mut self, _: Fields, _: Size, _: &mut u64) {}
    fn pages<P: Page>(&mut self, _: Fields, _: Size, pages: &mut SetOf<P, L::Set>) {
        // A host page has the number of its frame.
        let tracked = pages.contains(P::new(self.tracked.0));
        pages.clear();
        if tracked {
            pages.insert(P::new(self.own().0));
        }
    }
    fn frame(&mut self, _: Fields, frame: &mut Frame) {
        if *frame != NO_FRAME {
            *frame = self.name(*frame);
        }
    }
    fn indices(&mut self, _: &mut Ring<L>) {}
    fn entry(&mut self, entry: &mut L::Entry, _: Option<u8>) {
        // What nobody can read any more is left out when the state is packed. Of a push the slot may be written and the offset not yet: it
        // is, before anybody reads the entry.
        let (slot, offset) = self.entry_of(entry.slot(), entry.offset());
        entry.set_slot(slot);
        entry.set_offset(offset);
    }
    fn buffer(&mut self, pml: &mut L::Pml, _: u32) {
        for frame in pml.iter_mut() {
            *frame = self.name(*frame);
        }
    }
    fn page(&mut self, slot: &mut u32, offset: &mut Offset, live: bool) {
        if live {
            (*slot, *offset) = self.entry_of(*slot, *offset);
        }
    }
    fn batch(&mut self, batch: &mut Batch) {
        if batch.mask == 0 {
            return;
        }
        let own = &self.from.slots[self.slot];
        let bit = own.offset(self.tracked).0.checked_sub(batch.offset.0);
        let has = bit.is_some_and(|bit| bit < 64 && batch.mask >> bit & 1 != 0);
        let has = has && batch.slot == own.number();
        batch.slot = own.number();
        batch.offset = place_of(if has { TRACKED } else { FAR });
        batch.mask = 1;
    }
}

/// The memslot of the tracked page, and which of the others' values are tried: all of them, but in tests of the argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::search) struct Tried {
    pub(super) slot: usize,
    /// The leaf and the TLB's entry of another page that a vCPU accesses.
    pub(super) leaves: bool,
    /// Whether another page is pending.
    pub(super) pending: bool,
    /// Bits of others in words of the bitmaps.
    pub(super) words: bool,
    /// An entry, or a batch, of others near the tracked page.
    pub(super) near: bool,
    /// A batch of others on both sides of the tracked page.
    pub(super) around: bool,
}

impl Tried {
    /// The memslot of the tracked page.
    pub(in crate::search) fn slot(self) -> usize {
        self.slot
    }

    pub(super) const ALL: Self = Self {
        slot: 0,
        leaves: true,
        pending: true,
        words: true,
        near: true,
        around: true,
    };
}

/// Calls `take` with each step of an actor, in a state in which the others are all that they may be as far as the step looks at them, and
/// in `other` with the same of them. Answers whether the actor's one step in each such state may be taken alone, with others' steps after
/// it: then it is called with that step.
pub(in crate::search) fn for_each_step<L: Layout>(
    tried: Tried,
    rules: &Rules,
    machine: &Machine,
    [state, other]: [&State<L>; 2],
    actor: Actor,
    take: &mut dyn FnMut([&State<L>; 2], Choice),
) -> bool {
    // The same values in the same order, since both states have the actor where it is.
    let [values, others] = [state, other].map(|state| {
        let mut values = Vec::new();
        for_each_value(tried, machine, state, actor, &mut |valued, only_others| {
            values.push((valued.clone(), only_others));
        });
        values
    });
    // What is there of others only adds to what may be.
    if rules.local_choice(machine, state, actor).is_some() {
        let choice = |(valued, only_others): &(State<L>, bool)| {
            let choice = rules.local_choice(machine, valued, actor);
            choice.filter(|_| !only_others)
        };
        let local: Option<Vec<Choice>> = values.iter().map(choice).collect();
        if let Some(local) = local {
            for (((valued, _), (other, _)), choice) in values.iter().zip(&others).zip(local) {
                take([valued, other], choice);
            }
            return true;
        }
    }
    for ((valued, only_others), (other, _)) in values.iter().zip(&others) {
        transition::for_each_choice(machine, valued, actor, |choice| {
            let about_another = match choice {
                Choice::Store(frame) | Choice::Load(frame) => {
                    frame != frame_in(machine, tried.slot, TRACKED)
                }
                _ => false,
            };
            if !only_others || about_another {
                take([valued, other], choice);
            }
        });
    }
    false
}

/// Calls `found` with each such state; `true` where it differs from one before in what matters to steps about the far page alone.
fn for_each_value<L: Layout>(
    tried: Tried,
    machine: &Machine,
    state: &State<L>,
    actor: Actor,
    found: &mut dyn FnMut(&State<L>, bool),
) {
    match actor {
        Actor::Vcpu(vcpu) => vcpu_values(tried, machine, state, usize::from(vcpu), found),
        Actor::Thread(thread) => thread_values(tried, machine, state, usize::from(thread), found),
        Actor::Device(_) => found(state, false),
    }
}

/// A vCPU looks at the leaf, and at its TLB's entry, of the page that it accesses.
fn vcpu_values<L: Layout>(
    tried: Tried,
    machine: &Machine,
    state: &State<L>,
    vcpu: usize,
    found: &mut dyn FnMut(&State<L>, bool),
) {
    found(state, false);
    let v = &state.vcpus[vcpu];
    let begins = v.pc == Pc::Guest && v.frame == NO_FRAME;
    // On its way in and out it looks at no leaf.
    let another = v.frame != NO_FRAME && v.frame != frame_in(machine, tried.slot, TRACKED);
    let accesses = matches!(v.pc, Pc::Guest | Pc::Fault) && another;
    if !tried.leaves || !begins && !accesses {
        return;
    }
    let dirty = if machine.has_dirty_bits() { 2 } else { 1 };
    for value in 1..8 * dirty {
        let mut valued = state.clone();
        // It looks at one of them, so that all have one value.
        for slot in 0..machine.slots.len() {
            let far = frame_in(machine, slot, FAR);
            put(valued.present.numbers_mut(), far, value & 1 != 0);
            put(valued.writable.numbers_mut(), far, value & 2 != 0);
            put(valued.vcpus[vcpu].tlb.numbers_mut(), far, value & 4 != 0);
            put(valued.dirty_bit.numbers_mut(), far, value & 8 != 0);
        }
        found(&valued, begins);
    }
}

fn thread_values<L: Layout>(
    tried: Tried,
    machine: &Machine,
    state: &State<L>,
    thread: usize,
    found: &mut dyn FnMut(&State<L>, bool),
) {
    let Some(op) = state.current_op(machine, thread) else {
        return;
    };
    // The reader has refused what is not argued.
    let looks = looks(machine, op).unwrap_or_else(|why| panic!("{op:?}: {why}"));
    let reads = op.row(machine, state.threads[thread].stage).reads;
    by_row(tried, machine, state, reads, &mut |valued| match looks {
        Looks::ByRow => found(valued, false),
        Looks::Batch => batches(tried, valued, thread, found),
    });
}

/// A set of frames or host pages, by their numbers.
type Set<L> = fn(&mut State<L>) -> &mut <L as Parts>::Set;

/// The sets of frames or host pages that a step reads, by the kinds of fields in its row. Of those of vCPUs and threads a step reads its
/// own alone, page by page.
fn sets<L: Layout>(tried: Tried, machine: &Machine, reads: Fields) -> Vec<Set<L>> {
    let mut sets: Vec<Set<L>> = Vec::new();
    if reads.has(Fields::LEAVES) {
        sets.push(|state| state.present.numbers_mut());
        sets.push(|state| state.writable.numbers_mut());
        if machine.has_dirty_bits() {
            sets.push(|state| state.dirty_bit.numbers_mut());
        }
    }
    if tried.words && reads.has(Fields::BITMAP) {
        sets.push(|state| state.bitmap.numbers_mut());
    }
    if tried.words && reads.has(Fields::SCRATCH) {
        sets.push(|state| state.scratch.numbers_mut());
    }
    if tried.words && reads.has(Fields::SEEN) {
        sets.push(|state| state.seen.numbers_mut());
    }
    if tried.pending && reads.has(Fields::PENDING) {
        sets.push(|state| state.pending.numbers_mut());
    }
    if reads.has(Fields::STALE) {
        sets.push(|state| state.stale.numbers_mut());
    }
    if reads.has(Fields::SENT) {
        sets.push(|state| state.sent.numbers_mut());
    }
    if reads.has(Fields::OWN_LOG) {
        sets.push(|state| state.own_log.numbers_mut());
    }
    sets
}

/// Every value of the sets that a step reads for the page below and for the one above. The far ones are as the one below, since no step
/// looks at two words, or two memslots, at once but to change each page by itself.
fn by_row<L: Layout>(
    tried: Tried,
    machine: &Machine,
    state: &State<L>,
    reads: Fields,
    found: &mut dyn FnMut(&State<L>),
) {
    let sets = sets::<L>(tried, machine, reads);
    let values = 1_u32 << sets.len();
    for below in 0..values {
        for above in 0..values {
            let mut valued = state.clone();
            for (bit, set) in sets.iter().enumerate() {
                let set = set(&mut valued);
                // Of another memslot each word has a bit, or none has.
                for slot in 0..machine.slots.len() {
                    for place in [BELOW, FAR] {
                        put(set, frame_in(machine, slot, place), below >> bit & 1 != 0);
                    }
                }
                put(
                    set,
                    frame_in(machine, tried.slot, ABOVE),
                    above >> bit & 1 != 0,
                );
            }
            found(&valued);
        }
    }
}

/// Every place of the entry in work, near the tracked page or far from it, where it names another; and of a batch of others: far, near, or
/// on both sides of the tracked page.
fn batches<L: Layout>(
    tried: Tried,
    state: &State<L>,
    thread: usize,
    found: &mut dyn FnMut(&State<L>, bool),
) {
    let t = &state.threads[thread];
    let (far, below) = (place_of(FAR), place_of(BELOW));
    let entries: &[Offset] = if tried.near && t.holds_entry() && t.entry_offset == far {
        &[far, below]
    } else {
        &[t.entry_offset]
    };
    let both = 1 | 1 << (ABOVE - BELOW);
    let others = t.batch.mask != 0 && t.batch.offset == far;
    let all = [(far, 1), (below, 1), (below, both)];
    let as_it_is = [(t.batch.offset, t.batch.mask)];
    let batches = match (others, tried.near, tried.around) {
        (true, true, true) => &all[..],
        (true, true, false) => &all[..2],
        (true, false, _) | (false, ..) => &as_it_is[..],
    };
    for &entry in entries {
        for &(offset, mask) in batches {
            let mut valued = state.clone();
            let t = &mut valued.threads[thread];
            t.entry_offset = entry;
            t.batch.offset = offset;
            t.batch.mask = mask;
            found(&valued, false);
        }
    }
}

fn put<S: PageSet>(set: &mut S, page: Frame, has: bool) {
    if has {
        set.insert(page.0);
    } else {
        set.remove(page.0);
    }
}
