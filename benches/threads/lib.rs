//! One small program, twice: a migration with a reaper thread, under the simulated KVM and under shuttle, which knows no KVM, so that the guest and the
//! kernel are two threads and some locks written for it here.
//!
//! `cargo bench -p dirtysim-beside-shuttle`. The crate is none of the default members, so that no other build has shuttle.
#![forbid(unsafe_code)]

pub mod by_shuttle;
pub mod simulated;

use std::collections::BTreeSet;

/// A page, by its memslot and its offset.
pub type Page = (u32, u64);

/// What the code under test runs on.
pub trait Host: Clone + Send + 'static {
    /// A set of pages under a lock.
    type Slots: Clone + Send + 'static;

    /// An empty set.
    fn slots(&self) -> Self::Slots;
    /// Takes its lock.
    fn with<R>(slots: &Self::Slots, act: impl FnOnce(&mut BTreeSet<Page>) -> R) -> R;
    /// Starts a thread.
    fn spawn(&self, run: impl FnOnce() + Send + 'static);
    /// Switches the log of the memslot on.
    fn log(&self);
    /// The next dirty entry of the ring.
    fn next_dirty_gfn(&self) -> Option<Page>;
    /// Takes harvested entries back; how many they were.
    fn reset_dirty_rings(&self) -> usize;
    /// Waits until the vCPU has left the guest once.
    fn kick(&self);
    /// Stops the guest.
    fn pause(&self);
    /// Reads a page for the destination.
    fn send(&self, page: Page);
    /// The claim.
    fn assert_copy_is_whole(&self);
}

/// Harvests the ring and resets it, under the lock of the slots.
fn reap<H: Host>(host: &H, slots: &H::Slots, publishes_late: bool) {
    let mut found = BTreeSet::new();
    H::with(slots, |slots| {
        let mut count = 0;
        while let Some(page) = host.next_dirty_gfn() {
            found.insert(page);
            count += 1;
        }
        if !publishes_late {
            slots.append(&mut found);
        }
        assert_eq!(
            host.reset_dirty_rings(),
            count,
            "the kernel takes back what was harvested"
        );
    });
    if publishes_late {
        H::with(slots, |slots| slots.append(&mut found));
    }
}

/// The code under test. `publishes_late` is a bug: what was harvested joins the slots' set after the lock was dropped.
pub fn migrate<H: Host>(host: &H, publishes_late: bool) {
    let slots = host.slots();
    host.log();
    let (theirs, shared) = (host.clone(), slots.clone());
    host.spawn(move || reap(&theirs, &shared, publishes_late));
    host.send((0, 0));
    host.pause();
    host.kick();
    reap(host, &slots, publishes_late);
    for page in H::with(&slots, std::mem::take) {
        host.send(page);
    }
    host.assert_copy_is_whole();
}
