//! The oracle: what must be true of a state, whatever the simulated kernel believes.
//!
//! It shares no code with the ioctls and reads no mutation, so that a mutated kernel cannot excuse itself.

pub mod parts;

use crate::ioctl::kernel_write;
use crate::layout::Layout;
use crate::machine::{Arch, Machine, WriterLog};
use crate::op::Op;
use crate::pages::PageSet;
use crate::ring::{F_DIRTY, F_RESET, RingEntry};
use crate::slot::Life;
use crate::state::State;
use crate::step::{Effect, ResetCount};
use crate::thread_steps::current_op;
use crate::vcpu::NO_FRAME;
use crate::vcpu_steps;

/// A positive claim that every state, or every end, must satisfy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum Invariant {
    /// At the end no page is stale.
    NoDirtyPageLost,
    /// A stale page is recorded, held, owed, or about to be copied.
    StalePageIsAccountedFor,
    /// A page that is none of these cannot be stored to unseen.
    UnrecordedPageIsArmed,
    /// No more entries are in use than a ring has.
    RingNeverOverflows,
    /// Entries go 00, 01, 1X, 00.
    DirtyGfnFollowsLifecycle,
    /// RESET tells how many entries it freed.
    ResetCountEqualsHarvested,
    /// When an ioctl that re-armed pages returns, no TLB lets a store through to them.
    TlbIsFlushedOnReturn,
    /// No bit is set beyond a slot's last page.
    BitmapEndsAtNpages,
    /// What is reported was written.
    NoSpuriousDirtyPage,
    /// The kernel and the VMM do not crash.
    NothingCrashes,
    /// Somebody can always act, and what acts gets somewhere.
    MigrationMakesProgress,
}

impl Invariant {
    /// Every invariant.
    pub const ALL: [Self; 11] = [
        Self::NoDirtyPageLost,
        Self::StalePageIsAccountedFor,
        Self::UnrecordedPageIsArmed,
        Self::RingNeverOverflows,
        Self::DirtyGfnFollowsLifecycle,
        Self::ResetCountEqualsHarvested,
        Self::TlbIsFlushedOnReturn,
        Self::BitmapEndsAtNpages,
        Self::NoSpuriousDirtyPage,
        Self::NothingCrashes,
        Self::MigrationMakesProgress,
    ];

    /// The name in scenarios, traces and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoDirtyPageLost => "no_dirty_page_lost",
            Self::StalePageIsAccountedFor => "stale_page_is_accounted_for",
            Self::UnrecordedPageIsArmed => "unrecorded_page_is_armed",
            Self::RingNeverOverflows => "ring_never_overflows",
            Self::DirtyGfnFollowsLifecycle => "dirty_gfn_follows_lifecycle",
            Self::ResetCountEqualsHarvested => "reset_count_equals_harvested",
            Self::TlbIsFlushedOnReturn => "tlb_is_flushed_on_return",
            Self::BitmapEndsAtNpages => "bitmap_ends_at_npages",
            Self::NoSpuriousDirtyPage => "no_spurious_dirty_page",
            Self::NothingCrashes => "nothing_crashes",
            Self::MigrationMakesProgress => "migration_makes_progress",
        }
    }

    /// The claim in a sentence.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NoDirtyPageLost => {
                "When the protocol says that it is done, every page of the destination equals the guest's."
            }
            Self::StalePageIsAccountedFor => {
                "A page whose bytes differ from the destination's is recorded (a bitmap bit, an unread ring entry, a PML buffer, a device's or the VMM's own log), held by an ioctl that has not returned, owed by a writer that has not marked it yet, in the VMM's hands still to be copied, or will be in a full copy."
            }
            Self::UnrecordedPageIsArmed => {
                "While logging is on and no ioctl is re-arming, a page that nobody accounts for has no writable leaf (with PML: no dirty one) and no writable TLB entry."
            }
            Self::RingNeverOverflows => "A ring never has more entries in use than its size.",
            Self::DirtyGfnFollowsLifecycle => {
                "Ring entries are free, then dirty, then harvested, then free again, in the order of the indices."
            }
            Self::ResetCountEqualsHarvested => {
                "KVM_RESET_DIRTY_RINGS answers with the number of entries that it freed."
            }
            Self::TlbIsFlushedOnReturn => {
                "When an ioctl that re-arms pages returns, no TLB holds a writable entry for a page whose leaf is not."
            }
            Self::BitmapEndsAtNpages => "No bitmap has a bit beyond its slot's last page.",
            Self::NoSpuriousDirtyPage => {
                "A page that is reported dirty was written since it was last reported, or is a documented over-report."
            }
            Self::NothingCrashes => "No step makes the kernel or the VMM crash.",
            Self::MigrationMakesProgress => {
                "Until the end somebody can act, and no fair cycle goes on in which nothing gets done."
            }
        }
    }

    /// Where the claim comes from.
    #[must_use]
    pub const fn source(self) -> &'static str {
        match self {
            Self::NoDirtyPageLost => "the purpose of dirty logging",
            Self::StalePageIsAccountedFor | Self::UnrecordedPageIsArmed => {
                "M. S. Tsirkin, commit edde99ce0529 (2010): a page is recorded or armed"
            }
            Self::RingNeverOverflows => {
                "virt/kvm/dirty_ring.c, kvm_dirty_ring_push() (WARN_ON_ONCE)"
            }
            Self::DirtyGfnFollowsLifecycle => {
                "Documentation/virt/kvm/api.rst, KVM_CAP_DIRTY_LOG_RING"
            }
            Self::ResetCountEqualsHarvested => {
                "QEMU accel/kvm/kvm-all.c, kvm_dirty_ring_reap_locked() asserts it"
            }
            Self::TlbIsFlushedOnReturn => "virt/kvm/kvm_main.c, the flush before each return",
            Self::BitmapEndsAtNpages => "virt/kvm/kvm_main.c, mark_page_dirty_in_slot()",
            Self::NoSpuriousDirtyPage => "Documentation/virt/kvm/api.rst, KVM_GET_DIRTY_LOG",
            Self::NothingCrashes => "commits c57351a75d01, 9b3a31c745, 56adee407f",
            Self::MigrationMakesProgress => "virt/kvm/dirty_ring.c, kvm_dirty_ring_check_request()",
        }
    }

    /// What the check does not cover.
    #[must_use]
    pub const fn not_covered(self) -> &'static str {
        match self {
            Self::NoDirtyPageLost => "memory behind no memslot; bytes within a page",
            Self::StalePageIsAccountedFor => {
                "whether the account is good for anything: the end tells"
            }
            Self::UnrecordedPageIsArmed => {
                "states in which an ioctl is re-arming, or in which no vCPU can run"
            }
            Self::RingNeverOverflows => {
                "the true largest number of pushes between two entries, which nobody knows"
            }
            Self::DirtyGfnFollowsLifecycle => "the payload of an entry",
            Self::ResetCountEqualsHarvested => {
                "entries harvested while it ran, which it may or may not have seen"
            }
            Self::TlbIsFlushedOnReturn => {
                "entries that another ioctl in progress has still to flush; aged pages"
            }
            Self::BitmapEndsAtNpages => "the padding of user space's buffer",
            Self::NoSpuriousDirtyPage => {
                "a store that has faulted and not retired, a page read for the first time on x86, INITIALLY_SET's first report"
            }
            Self::NothingCrashes => "anything but the crashes that mutations stand for",
            Self::MigrationMakesProgress => {
                "time; cycles are looked for by `check --liveness` only"
            }
        }
    }

    /// The invariant of that name, if there is one.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|invariant| invariant.name() == name)
    }
}

/// A set of invariants: those that a step broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Invariants(u16);

impl Invariants {
    /// None.
    pub const NONE: Self = Self(0);

    /// Adds one.
    #[inline(always)]
    pub fn insert(&mut self, invariant: Invariant) {
        self.0 |= 1 << invariant as u8;
    }

    /// Adds all of another set.
    pub fn union(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Those that another set has not.
    #[must_use]
    #[inline(always)]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether it has one.
    #[must_use]
    #[inline(always)]
    pub fn has(self, invariant: Invariant) -> bool {
        self.0 >> invariant as u8 & 1 != 0
    }

    /// Whether it has none.
    #[must_use]
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those it has, in the order of [`Invariant::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Invariant> {
        Invariant::ALL
            .into_iter()
            .filter(move |invariant| self.has(*invariant))
    }

    /// The set as bits, for storing.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }

    /// The set of those bits.
    #[must_use]
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }
}

/// Who accounts for a host page: one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Accounts(u16);

/// Something that accounts for a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Account {
    /// A full copy is still to come.
    FullCopy,
    /// It is among the pages to be copied.
    Pending,
    /// A thread of the VMM has collected it and not published it.
    Hand,
    /// The VMM's own log.
    OwnLog,
    /// The slot's bitmap.
    Bitmap,
    /// A GET that has not returned.
    Scratch,
    /// An unread entry of a ring.
    Ring,
    /// A PML buffer.
    Pml,
    /// A device's own log.
    DeviceLog,
    /// A writer that has still to mark it.
    Owed,
    /// s390: the dirty bit of its leaf, which GET collects.
    Leaf,
}

impl Account {
    /// Every account.
    pub const ALL: [Self; 11] = [
        Self::FullCopy,
        Self::Pending,
        Self::Hand,
        Self::OwnLog,
        Self::Bitmap,
        Self::Scratch,
        Self::Ring,
        Self::Pml,
        Self::DeviceLog,
        Self::Owed,
        Self::Leaf,
    ];

    /// In words: "recorded in ...".
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::FullCopy => "a full copy to come",
            Self::Pending => "the VMM's pages to copy",
            Self::Hand => "a VMM thread's unpublished pages",
            Self::OwnLog => "the VMM's own log",
            Self::Bitmap => "the slot's bitmap",
            Self::Scratch => "a GET in progress",
            Self::Ring => "an unread ring entry",
            Self::Pml => "a PML buffer",
            Self::DeviceLog => "a device's log",
            Self::Owed => "a mark that is owed",
            Self::Leaf => "the dirty bit of its leaf",
        }
    }
}

impl Accounts {
    fn insert(&mut self, account: Account) {
        self.0 |= 1 << account as u8;
    }

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
            .into_iter()
            .filter(move |account| self.has(*account))
    }
}

/// Whether some thread has still a copy of all memory to begin.
#[inline]
fn full_copy_ahead<L: Layout>(machine: &Machine, state: &State<L>) -> bool {
    (0..state.threads.len()).any(|thread| begins_full_copy(machine, state, thread))
}

/// Whether a thread has still a copy of all memory to begin.
#[inline]
fn begins_full_copy<L: Layout>(machine: &Machine, state: &State<L>, thread: usize) -> bool {
    let t = &state.threads[thread];
    // A full copy that has begun counts page by page.
    let at = usize::from(t.op) + usize::from(t.stage > 0);
    machine.ahead(thread, at).full_copy
}

/// Whether the bits in the scratch half were taken by a GET of the thread that has not copied them out.
fn holds_scratch<L: Layout>(machine: &Machine, state: &State<L>, thread: usize) -> bool {
    usize::from(state.slots_lock) == thread + 1
        && matches!(
            current_op(machine, state, thread),
            Some(Op::GetDirtyLog { .. })
        )
        && crate::ioctl::get_dirty_log::holds_scratch(state.threads[thread].stage)
}

/// Whether the bits in the scratch half were taken by a GET that has not copied them out.
fn scratch_is_get<L: Layout>(machine: &Machine, state: &State<L>) -> bool {
    (0..state.threads.len()).any(|thread| holds_scratch(machine, state, thread))
}

/// Calls `found` with each frame of `set`, and nothing else: frames and host pages are kept apart by type of use.
fn for_frames<S: PageSet>(set: &S, mut found: impl FnMut(u32)) {
    for frame in set.iter() {
        found(frame);
    }
}

/// Takes the host pages behind the frames of `frames` out of `left`.
#[inline]
fn subtract_frames<S: PageSet>(machine: &Machine, aliased: bool, left: &mut S, frames: &S) {
    if aliased {
        for_frames(frames, |frame| left.remove(machine.host_page(frame)));
    } else {
        left.subtract(frames);
    }
}

/// The host pages of `left` for which nobody accounts.
#[inline]
fn unaccounted<L: Layout>(machine: &Machine, state: &State<L>, mut left: L::Set) -> L::Set {
    let aliased = machine.aliased();
    subtract_vm(machine, state, aliased, &mut left);
    for vcpu in 0..state.vcpus.len() {
        if left.is_empty() {
            return left;
        }
        subtract_vcpu(machine, state, vcpu, &mut left);
    }
    for thread in 0..state.threads.len() {
        if left.is_empty() {
            return left;
        }
        subtract_thread(machine, state, aliased, thread, &mut left);
    }
    if left.is_empty() {
        left
    } else {
        live_only(machine, state, left)
    }
}

/// Takes out what VM-wide records account for: the pages to copy, bitmaps, the VMM's log, devices' logs.
#[inline]
fn subtract_vm<L: Layout>(machine: &Machine, state: &State<L>, aliased: bool, left: &mut L::Set) {
    left.subtract(&state.pending);
    left.subtract(&state.own_log);
    for &host in &machine.always_dirty {
        left.remove(host);
    }
    subtract_frames(machine, aliased, left, &state.bitmap);
    if machine.arch == Arch::S390 {
        subtract_frames(machine, aliased, left, &state.dirty_bit);
    }
    for device in state.devices.iter() {
        subtract_frames(machine, aliased, left, &device.log);
        subtract_frames(machine, aliased, left, &device.unlogged);
    }
}

/// Takes out what a vCPU accounts for: unread entries of its ring, its PML buffer, a mark that it owes.
#[inline]
fn subtract_vcpu<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize, left: &mut L::Set) {
    let v = &state.vcpus[vcpu];
    for entry in v.ring.entries.iter() {
        if entry.flags() == F_DIRTY
            && let Some(host) = entry_host(machine, state, entry)
        {
            left.remove(host);
        }
    }
    for &frame in v.pml.iter() {
        left.remove(machine.host_page(frame));
    }
    if let Some(frame) = vcpu_steps::owes_mark(machine, state, vcpu) {
        left.remove(machine.host_page(frame));
    }
}

/// Takes out what a thread accounts for: what it has in hand or in the scratch half, a mark that it owes, a full copy
/// that it has still to begin.
#[inline]
fn subtract_thread<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    aliased: bool,
    thread: usize,
    left: &mut L::Set,
) {
    if begins_full_copy(machine, state, thread) {
        left.clear();
        return;
    }
    left.subtract(&state.threads[thread].hand);
    if holds_scratch(machine, state, thread) {
        subtract_frames(machine, aliased, left, &state.scratch);
    }
    if let Some(frame) = owed_by_thread(machine, state, thread) {
        left.remove(machine.host_page(frame));
    }
}

/// The pages of `left` that are behind a live slot: others are nobody's memory.
fn live_only<L: Layout>(machine: &Machine, state: &State<L>, left: L::Set) -> L::Set {
    let mut live = L::Set::default();
    for (template, slot) in machine.slots.iter().zip(state.slots.iter()) {
        if slot.life == Life::Live {
            for offset in 0..template.npages {
                if left.contains(template.host + offset) {
                    live.insert(template.host + offset);
                }
            }
        }
    }
    live
}

fn owed_by_thread<L: Layout>(machine: &Machine, state: &State<L>, thread: usize) -> Option<u32> {
    match current_op(machine, state, thread)? {
        Op::KernelWrite { frames, .. } => kernel_write::owed(machine, state, thread, *frames),
        Op::UserWrite { frame, log } => {
            (state.threads[thread].stage == 1 && *log != WriterLog::Early).then_some(*frame)
        }
        _ => None,
    }
}

/// The host page that a ring entry names, if it names one of a slot that exists.
fn entry_host<L: Layout>(machine: &Machine, state: &State<L>, entry: &L::Entry) -> Option<u32> {
    let slot = state.find_slot(machine, entry.slot())?;
    let template = &machine.slots[slot];
    (entry.offset() < u64::from(template.npages)).then(|| template.host + entry.offset() as u32)
}

/// Everybody who accounts for a host page; for explanations, not for the search.
#[must_use]
pub fn accounts<L: Layout>(machine: &Machine, state: &State<L>, host: u32) -> Accounts {
    let mut accounts = Accounts::default();
    let mut has = |account: Account, yes: bool| {
        if yes {
            accounts.insert(account);
        }
    };
    let frame_in = |set: &L::Set| set.iter().any(|frame| machine.host_page(frame) == host);
    has(Account::FullCopy, full_copy_ahead(machine, state));
    has(Account::Pending, state.pending.contains(host));
    has(
        Account::Hand,
        state
            .threads
            .iter()
            .any(|thread| thread.hand.contains(host)),
    );
    has(Account::OwnLog, state.own_log.contains(host));
    has(Account::Bitmap, frame_in(&state.bitmap));
    has(
        Account::Leaf,
        machine.arch == Arch::S390 && frame_in(&state.dirty_bit),
    );
    has(
        Account::Scratch,
        scratch_is_get(machine, state) && frame_in(&state.scratch),
    );
    for (index, vcpu) in state.vcpus.iter().enumerate() {
        let unread = vcpu.ring.entries.iter().any(|entry| {
            entry.flags() == F_DIRTY && entry_host(machine, state, entry) == Some(host)
        });
        has(Account::Ring, unread);
        has(
            Account::Pml,
            vcpu.pml
                .iter()
                .any(|&frame| machine.host_page(frame) == host),
        );
        has(
            Account::Owed,
            vcpu_steps::owes_mark(machine, state, index)
                .is_some_and(|frame| machine.host_page(frame) == host),
        );
    }
    for device in state.devices.iter() {
        has(Account::DeviceLog, frame_in(&device.log));
        has(Account::Owed, frame_in(&device.unlogged));
    }
    for thread in 0..state.threads.len() {
        has(
            Account::Owed,
            owed_by_thread(machine, state, thread)
                .is_some_and(|frame| machine.host_page(frame) == host),
        );
    }
    accounts
}

/// The stale pages for which nobody accounts.
#[must_use]
pub fn stale_unaccounted<L: Layout>(machine: &Machine, state: &State<L>) -> L::Set {
    if state.stale.is_empty() {
        return L::Set::default();
    }
    unaccounted(machine, state, state.stale.clone())
}

/// The pages that are stale though the protocol claims that none is.
#[must_use]
pub fn lost<L: Layout>(machine: &Machine, state: &State<L>, postcopy: bool) -> L::Set {
    let mut lost = state.stale.clone();
    if postcopy {
        lost.subtract(&state.pending);
    }
    if lost.is_empty() {
        lost
    } else {
        live_only(machine, state, lost)
    }
}

/// The host pages that a vCPU could store to with nobody noticing, now or when it runs again.
#[must_use]
pub fn unarmed<L: Layout>(machine: &Machine, state: &State<L>) -> L::Set {
    let none = L::Set::default();
    let could_run = state.guest_runs || !state.vcpus_stopped();
    let rearming = state.slots_lock != 0
        || (0..state.threads.len()).any(|thread| in_reset(machine, state, thread));
    if !could_run || rearming || state.vcpus.is_empty() {
        return none;
    }
    let mut open = open_leaves(machine, state);
    for vcpu in state.vcpus.iter() {
        open.union(&vcpu.tlb);
    }
    if open.is_empty() {
        return none;
    }
    let exposed = logged_hosts(machine, state, open);
    if exposed.is_empty() {
        none
    } else {
        unaccounted(machine, state, exposed)
    }
}

/// Whether a thread is inside RESET.
fn in_reset<L: Layout>(machine: &Machine, state: &State<L>, thread: usize) -> bool {
    state.threads[thread].stage != 0
        && matches!(
            current_op(machine, state, thread),
            Some(Op::ResetRings { .. })
        )
}

/// The frames whose leaves let a store through unseen.
#[inline]
fn open_leaves<L: Layout>(machine: &Machine, state: &State<L>) -> L::Set {
    let mut open = state.writable.clone();
    if machine.has_dirty_bits() {
        for frame in state.writable.iter() {
            if !state.dirty_bit.contains(frame) {
                open.remove(frame);
            }
        }
    }
    open
}

/// The host pages behind those of `frames` whose slots log.
#[inline]
fn logged_hosts<L: Layout>(machine: &Machine, state: &State<L>, mut frames: L::Set) -> L::Set {
    for (template, slot) in machine.slots.iter().zip(state.slots.iter()) {
        if !(slot.logging && slot.life == Life::Live) {
            frames.remove_range(template.frame, template.npages);
        }
    }
    if !machine.aliased() {
        return frames;
    }
    let mut hosts = L::Set::default();
    for_frames(&frames, |frame| hosts.insert(machine.host_page(frame)));
    hosts
}

/// Checks what must be true after a step that had `effect`.
#[inline]
#[must_use]
pub fn check<L: Layout>(machine: &Machine, state: &State<L>, effect: Effect) -> Invariants {
    let mut broken = contracts(machine, state, effect);
    if !stale_unaccounted(machine, state).is_empty() {
        broken.insert(Invariant::StalePageIsAccountedFor);
    }
    if !unarmed(machine, state).is_empty() {
        broken.insert(Invariant::UnrecordedPageIsArmed);
    }
    if machine.track_spurious && !state.spurious.is_empty() {
        broken.insert(Invariant::NoSpuriousDirtyPage);
    }
    if let Effect::Claim { postcopy } = effect
        && !lost(machine, state, postcopy).is_empty()
    {
        broken.insert(Invariant::NoDirtyPageLost);
    }
    broken
}

/// Checks what `effect` alone claims of the state after the step: what is not said of every state.
#[must_use]
pub fn check_effect<L: Layout>(machine: &Machine, state: &State<L>, effect: Effect) -> Invariants {
    let mut broken = Invariants::NONE;
    match effect {
        Effect::None => {}
        Effect::Claim { postcopy } => {
            if !lost(machine, state, postcopy).is_empty() {
                broken.insert(Invariant::NoDirtyPageLost);
            }
        }
        Effect::Returned { reset } => {
            broken = check_count(reset);
            if !tlb_is_flushed(machine, state) {
                broken.insert(Invariant::TlbIsFlushedOnReturn);
            }
        }
    }
    broken
}

fn check_count(reset: Option<ResetCount>) -> Invariants {
    let mut broken = Invariants::NONE;
    if reset.is_some_and(|count| count.told != count.freed) {
        broken.insert(Invariant::ResetCountEqualsHarvested);
    }
    broken
}

/// Checks the contracts of the interface alone: what is true of every user of it, whatever its protocol. The rings are
/// those of well-behaved user space.
#[inline]
#[must_use]
pub fn contracts<L: Layout>(machine: &Machine, state: &State<L>, effect: Effect) -> Invariants {
    let mut broken = match effect {
        Effect::Returned { .. } => check_effect(machine, state, effect),
        Effect::None | Effect::Claim { .. } => Invariants::NONE,
    };
    if state.caps.ring_entries != 0 {
        check_rings(machine, state, &mut broken);
    }
    if state.crashed {
        broken.insert(Invariant::NothingCrashes);
    }
    if !bitmap_ends(machine, state) {
        broken.insert(Invariant::BitmapEndsAtNpages);
    }
    broken
}

fn check_rings<L: Layout>(machine: &Machine, state: &State<L>, broken: &mut Invariants) {
    for vcpu in 0..state.vcpus.len() {
        let in_work =
            || (0..state.threads.len()).any(|thread| resets_ring_of(machine, state, thread, vcpu));
        broken.union(check_ring(state, vcpu, in_work));
    }
}

/// Checks one vCPU's ring; `in_work` tells whether RESET is at it, which frees an entry before it moves its index.
#[inline]
fn check_ring<L: Layout>(state: &State<L>, vcpu: usize, in_work: impl Fn() -> bool) -> Invariants {
    let mut broken = Invariants::NONE;
    let v = &state.vcpus[vcpu];
    let ring = &v.ring;
    let size = ring.size();
    // A push shows its entry and then moves its index; in between, harvest and RESET may already be past it.
    let pushes = (1..4).contains(&v.push);
    let shown = pushes && ring.entry(ring.dirty_index).flags() != 0;
    let passed = pushes && ring.used() == u32::MAX;
    let used = ring.used().wrapping_add(u32::from(shown || passed));
    if used > size {
        broken.insert(Invariant::RingNeverOverflows);
        return broken;
    }
    if used == 0 && ring.dirty_index == ring.fetch_index && v.push == 0 {
        return broken;
    }
    let harvested = ring.fetch_index.wrapping_sub(ring.reset_index);
    for position in 0..used {
        let flags = ring.entry(ring.reset_index.wrapping_add(position)).flags();
        let right = if position < harvested {
            flags & F_RESET != 0
        } else {
            flags == F_DIRTY
        };
        if !(right || position == 0 && flags == 0 && in_work()) {
            broken.insert(Invariant::DirtyGfnFollowsLifecycle);
        }
    }
    for position in used..size {
        if ring.entry(ring.reset_index.wrapping_add(position)).flags() != 0 {
            broken.insert(Invariant::DirtyGfnFollowsLifecycle);
        }
    }
    broken
}

/// Whether a thread is in RESET at a vCPU's ring.
fn resets_ring_of<L: Layout>(
    machine: &Machine,
    state: &State<L>,
    thread: usize,
    vcpu: usize,
) -> bool {
    in_reset(machine, state, thread) && state.threads[thread].index as usize == vcpu
}

fn tlb_is_flushed<L: Layout>(machine: &Machine, state: &State<L>) -> bool {
    (0..state.threads.len()).any(|thread| owes_flush(machine, state, thread))
        || (0..state.vcpus.len()).all(|vcpu| !tlb_is_stale(machine, state, vcpu))
}

/// Whether a thread is in an ioctl that may still flush TLBs.
fn owes_flush<L: Layout>(machine: &Machine, state: &State<L>, thread: usize) -> bool {
    state.threads[thread].stage != 0
        && matches!(
            current_op(machine, state, thread),
            Some(
                Op::GetDirtyLog { .. }
                    | Op::ClearDirtyLog { .. }
                    | Op::ResetRings { .. }
                    | Op::SetMemoryRegion { .. }
            )
        )
}

/// Whether a vCPU's TLB lets a store through that its leaf would not.
fn tlb_is_stale<L: Layout>(machine: &Machine, state: &State<L>, vcpu: usize) -> bool {
    state.vcpus[vcpu].tlb.iter().any(|frame| {
        let open = state.writable.contains(frame)
            && (!machine.has_dirty_bits() || state.dirty_bit.contains(frame));
        !open && state.present.contains(frame)
    })
}

fn bitmap_ends<L: Layout>(machine: &Machine, state: &State<L>) -> bool {
    machine.slots.iter().all(|template| {
        let padded = machine.padded(template.npages);
        padded == template.npages
            || state.bitmap.word(
                template.frame + template.npages,
                (padded - template.npages).min(64),
            ) == 0
    })
}

/// A page is reported: if nobody wrote it since its last report and no store to it is on its way, that was spurious.
pub(crate) fn note_report<L: Layout>(machine: &Machine, state: &mut State<L>, host: u32) {
    let on_its_way = state
        .vcpus
        .iter()
        .any(|vcpu| vcpu.frame != NO_FRAME && machine.host_page(vcpu.frame) == host);
    if !state.written.contains(host) && !on_its_way {
        state.spurious.insert(host);
    }
    // A second record of the same store, in another ring, is still to be reported. A bit that GET has shown and no CLEAR
    // was asked to clear is the record that was reported just now.
    let shown = state.caps.manual()
        && state
            .seen
            .iter()
            .any(|frame| machine.host_page(frame) == host);
    let again = accounts(machine, state, host)
        .iter()
        .any(|account| account != Account::FullCopy && !(account == Account::Bitmap && shown));
    if !again {
        state.written.remove(host);
    }
}
