//! Who accounts for a page: the one list, for the oracle's claims, for the search and for people.
//!
//! It stands in this room, below the steps, because the ghost of reports (`kernel::ghosts`) asks it as well.

use super::State;
use super::layout::Layout;
use super::pages::{Frames, HostPages, PageSet};
use super::ring::{F_DIRTY, RingEntry};
use crate::machine::Machine;
use crate::words::{Arch, Duty, Frame, HostPage, NO_FRAME};

macro_rules! accounts {
    ($($(#[doc = $doc:literal])+ $variant:ident = $words:literal;)+) => {
        /// Something that accounts for a page.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Account {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Account {
            /// Every account.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// In words: "recorded in ...".
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self { $(Self::$variant => $words,)+ }
            }
        }
    };
}

accounts! {
    /// A full copy is still to come.
    FullCopy = "a full copy to come";
    /// The program is still to declare it dirty, whoever wrote it.
    Declared = "what the program is still to declare dirty";
    /// It is among the pages to be copied.
    Pending = "the VMM's pages to copy";
    /// A thread of the VMM has collected it and not published it.
    Hand = "a VMM thread's unpublished pages";
    /// The VMM's own log.
    OwnLog = "the VMM's own log";
    /// The slot's bitmap.
    Bitmap = "the slot's bitmap";
    /// A GET that has not returned.
    Scratch = "a GET in progress";
    /// An unread entry of a ring.
    Ring = "an unread ring entry";
    /// A PML buffer.
    Pml = "a PML buffer";
    /// A device's own log.
    DeviceLog = "a device's log";
    /// A writer that has still to mark it.
    Owed = "a mark that is owed";
    /// s390: the dirty bit of its leaf, which GET collects.
    Leaf = "the dirty bit of its leaf";
    /// It is taken for dirty at all times.
    AlwaysDirty = "the pages that are always dirty";
}

/// Who accounts for a host page: one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Accounts(u16);

impl Accounts {
    /// Whether it has `account`.
    #[must_use]
    pub fn has(self, account: Account) -> bool {
        self.0 >> account as u8 & 1 != 0
    }

    /// Whether nobody accounts for the page.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those it has.
    pub fn iter(self) -> impl Iterator<Item = Account> {
        Account::ALL
            .iter()
            .copied()
            .filter(move |account| self.has(*account))
    }
}

/// The pages for which somebody accounts.
pub(crate) enum Held<'a, S> {
    /// All of memory.
    Everything,
    /// A set of frames.
    Frames(&'a Frames<S>),
    /// A set of host pages.
    Hosts(&'a HostPages<S>),
    /// One frame, or [`NO_FRAME`].
    Frame(Frame),
    /// One host page.
    Host(HostPage),
}

/// Whether a thread has still a copy of all memory to begin; one that has begun counts page by page.
#[inline]
pub(crate) fn begins_full_copy<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    thread: usize,
) -> bool {
    let t = &state.threads[thread];
    machine
        .ahead(thread, usize::from(t.op) + usize::from(t.stage > 0))
        .full_copy
}

/// What VM-wide records account for.
#[inline(always)]
pub(crate) fn of_vm<'a, L: Layout>(
    machine: &'a Machine,
    state: &'a State<L>,
    mut found: impl FnMut(Account, Held<'a, L::Set>),
) {
    found(Account::Pending, Held::Hosts(&state.pending));
    found(Account::OwnLog, Held::Hosts(&state.own_log));
    for &host in &machine.always_dirty {
        found(Account::AlwaysDirty, Held::Host(host));
    }
    found(Account::Bitmap, Held::Frames(&state.bitmap));
    if machine.arch == Arch::S390 {
        found(Account::Leaf, Held::Frames(&state.dirty_bit));
    }
    for device in state.devices.iter() {
        found(Account::DeviceLog, Held::Frames(&device.log));
        found(Account::Owed, Held::Frames(&device.unlogged));
    }
}

/// What a vCPU accounts for.
#[inline(always)]
pub(crate) fn of_vcpu<'a, L: Layout>(
    machine: &'a Machine,
    state: &'a State<L>,
    vcpu: usize,
    mut found: impl FnMut(Account, Held<'a, L::Set>),
) {
    of_ring(machine, state, vcpu, &mut found);
    of_vcpu_itself(state, vcpu, found);
}

/// What the unread entries of a vCPU's ring account for.
#[inline(always)]
pub(crate) fn of_ring<'a, L: Layout>(
    machine: &'a Machine,
    state: &'a State<L>,
    vcpu: usize,
    mut found: impl FnMut(Account, Held<'a, L::Set>),
) {
    for entry in state.vcpus[vcpu].ring.entries.iter() {
        if entry.flags() == F_DIRTY
            && let Some(host) = entry_host(machine, state, entry)
        {
            found(Account::Ring, Held::Host(host));
        }
    }
}

/// What a vCPU accounts for beside its ring.
#[inline(always)]
pub(crate) fn of_vcpu_itself<'a, L: Layout>(
    state: &'a State<L>,
    vcpu: usize,
    mut found: impl FnMut(Account, Held<'a, L::Set>),
) {
    let v = &state.vcpus[vcpu];
    for &frame in v.pml.iter() {
        found(Account::Pml, Held::Frame(frame));
    }
    found(Account::Owed, Held::Frame(v.owed));
}

/// What a thread accounts for.
#[inline(always)]
pub(crate) fn of_thread<'a, L: Layout>(
    machine: &'a Machine,
    state: &'a State<L>,
    thread: usize,
    mut found: impl FnMut(Account, Held<'a, L::Set>),
) {
    of_program(machine, state, thread, &mut found);
    of_thread_itself(state, thread, found);
}

/// What a thread's program has still to do to all of memory, or to what it declares dirty: by where the thread stands, and by the
/// memslots.
#[inline(always)]
pub(crate) fn of_program<'a, L: Layout>(
    machine: &'a Machine,
    state: &'a State<L>,
    thread: usize,
    mut found: impl FnMut(Account, Held<'a, L::Set>),
) {
    if begins_full_copy(machine, state, thread) {
        found(Account::FullCopy, Held::Everything);
    }
    let ahead = machine.ahead(thread, usize::from(state.threads[thread].op));
    for &frame in &ahead.declared {
        found(Account::Declared, Held::Frame(frame));
    }
    if state.caps.initially_set() && state.caps.use_bitmap() {
        // All bits of a slot are set when its log is turned on.
        for (index, (template, slot)) in machine.slots.iter().zip(state.slots.iter()).enumerate() {
            if ahead.log_on[usize::from(slot.logging)].contains(&(index as u16)) {
                for frame in template.frames() {
                    found(Account::Declared, Held::Frame(frame));
                }
            }
        }
    }
}

/// What a thread accounts for beside its program.
#[inline(always)]
pub(crate) fn of_thread_itself<'a, L: Layout>(
    state: &'a State<L>,
    thread: usize,
    mut found: impl FnMut(Account, Held<'a, L::Set>),
) {
    let t = &state.threads[thread];
    found(Account::Hand, Held::Hosts(&t.hand));
    if t.duty.has(Duty::HOLDS_SCRATCH) {
        found(Account::Scratch, Held::Frames(&state.scratch));
    }
    found(Account::Owed, Held::Frame(t.owed));
}

/// The host page that a ring entry names, if it names one of a slot that exists.
fn entry_host<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    entry: &L::Entry,
) -> Option<HostPage> {
    let slot = state.find_slot(machine, entry.slot())?;
    let template = &machine.slots[slot];
    template.host_at(entry.offset())
}

impl<S: PageSet> Held<'_, S> {
    /// Takes these out of a set of host pages.
    #[inline(always)]
    pub(crate) fn subtract(&self, machine: &Machine, aliased: bool, left: &mut HostPages<S>) {
        match self {
            Self::Everything => left.clear(),
            Self::Hosts(hosts) => left.subtract(hosts),
            Self::Frames(frames) if aliased => {
                for frame in frames.iter() {
                    left.remove(machine.host_page(frame));
                }
            }
            // Frames and host pages have the same numbers.
            Self::Frames(frames) => left.numbers_mut().subtract(frames.numbers()),
            Self::Frame(NO_FRAME) => {}
            Self::Frame(frame) => left.remove(machine.host_page(*frame)),
            Self::Host(host) => left.remove(*host),
        }
    }

    fn has(&self, machine: &Machine, host: HostPage) -> bool {
        match self {
            Self::Everything => true,
            Self::Hosts(hosts) => hosts.contains(host),
            Self::Frames(frames) => frames.iter().any(|frame| machine.host_page(frame) == host),
            Self::Frame(frame) => *frame != NO_FRAME && machine.host_page(*frame) == host,
            Self::Host(page) => *page == host,
        }
    }
}

/// Everybody who accounts for a host page.
#[must_use]
pub fn accounts<L: Layout>(machine: &Machine, state: &State<L>, host: HostPage) -> Accounts {
    let mut accounts = Accounts::default();
    let mut note = |account: Account, held: Held<'_, L::Set>| {
        accounts.0 |= u16::from(held.has(machine, host)) << account as u8;
    };
    of_vm(machine, state, &mut note);
    for vcpu in 0..state.vcpus.len() {
        of_vcpu(machine, state, vcpu, &mut note);
    }
    for thread in 0..state.threads.len() {
        of_thread(machine, state, thread, &mut note);
    }
    accounts
}
