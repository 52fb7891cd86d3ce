//! On the simulated KVM.

use std::collections::BTreeSet;
use std::sync::Arc;

use dirtysim_kvm::{Arch, Checker, Machine, Mutex, Vm};

use crate::{Host, Page, migrate};

impl Host for Vm {
    type Slots = Arc<Mutex<BTreeSet<Page>>>;

    fn slots(&self) -> Self::Slots {
        Arc::new(self.mutex(BTreeSet::new()))
    }
    fn with<R>(slots: &Self::Slots, act: impl FnOnce(&mut BTreeSet<Page>) -> R) -> R {
        act(&mut slots.lock())
    }
    fn spawn(&self, run: impl FnOnce() + Send + 'static) {
        let _ = self.spawn(run);
    }
    fn log(&self) {
        let region = self.memory_region(0).log_dirty_pages();
        self.set_user_memory_region(region).expect("it is there");
    }
    fn next_dirty_gfn(&self) -> Option<Page> {
        self.vcpu(0)
            .dirty_log_ring_iter()
            .expect("it has one")
            .next()
    }
    fn reset_dirty_rings(&self) -> usize {
        self.reset_dirty_rings().expect("it has rings") as usize
    }
    fn kick(&self) {
        self.kick_vcpus();
    }
    fn pause(&self) {
        self.pause_vcpus();
    }
    fn send(&self, (slot, page): Page) {
        self.send_page(slot, page);
    }
    fn assert_copy_is_whole(&self) {
        self.assert_copy_is_whole();
    }
}

/// A guest of one vCPU with so many stores to one page, and a ring of four entries: with two it leaves for each entry, and has hardly any
/// room for a store between harvest and RESET.
#[must_use]
pub fn checker(stores: u32) -> Checker {
    Checker::new(Machine::new(Arch::X86).slot(0, 1).ring(4).stores(stores))
}

/// The program as it is checked.
pub fn code(publishes_late: bool) -> impl Fn(Vm) + Send + Sync + 'static {
    move |vm| migrate(&vm, publishes_late)
}
