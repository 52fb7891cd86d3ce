//! On shuttle: as much of KVM's ring as this program needs, as threads, locks and atomic variables of shuttle.
//!
//! Where the simulated kernel has a step, this has an access to something shared, which is where shuttle switches. It is no model of KVM: no reserve, no
//! soft-full exit, no TLB, one page, one vCPU.

use std::collections::BTreeSet;
use std::sync::Arc;

use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use shuttle::sync::{Mutex, MutexGuard};
use shuttle::thread;

use crate::{Host, Page, migrate};

#[derive(Clone, Copy, PartialEq)]
enum Flags {
    Free,
    Dirty,
    Reset,
}

const ENTRIES: usize = 2;

#[derive(Default)]
struct Ring {
    flags: [AtomicU64; ENTRIES],
    dirty: AtomicU64,
    reset: AtomicU64,
    fetch: AtomicU64,
}

impl Ring {
    fn flag(&self, at: u64) -> &AtomicU64 {
        &self.flags[at as usize % ENTRIES]
    }
    fn has(&self, at: u64, flags: Flags) -> bool {
        self.flag(at).load(SeqCst) == flags as u64
    }
    fn set(&self, at: u64, flags: Flags) {
        self.flag(at).store(flags as u64, SeqCst);
    }
}

struct Kvm {
    ring: Ring,
    slots_lock: Mutex<()>,
    mmu_lock: Mutex<()>,
    logs: AtomicBool,
    writable: AtomicBool,
    /// What memory holds, and what the destination has.
    page: AtomicU64,
    copy: AtomicU64,
    /// The guest is to stop; it stands.
    stop: AtomicBool,
    stands: AtomicBool,
}

/// A virtual machine whose guest is a thread of shuttle's.
#[derive(Clone)]
pub struct Vm(Arc<Kvm>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

impl Kvm {
    /// A store, if the page is writable: who takes that away waits for it, as a flush of TLBs does.
    fn stores(&self, store: u64) -> bool {
        let _flush = lock(&self.mmu_lock);
        let is_writable = self.writable.load(SeqCst);
        if is_writable {
            self.page.store(store, SeqCst);
        }
        is_writable
    }

    /// The guest: enters, stores, leaves when it is told to.
    fn run(&self, stores: u32) {
        for store in 1..=u64::from(stores) {
            if self.stop.load(SeqCst) {
                break;
            }
            while !self.stores(store) {
                let _mmu = lock(&self.mmu_lock);
                if self.logs.load(SeqCst) {
                    let at = self.ring.dirty.load(SeqCst);
                    self.ring.set(at, Flags::Dirty);
                    self.ring.dirty.store(at + 1, SeqCst);
                }
                self.writable.store(true, SeqCst);
            }
        }
        self.stands.store(true, SeqCst);
    }
}

impl Host for Vm {
    type Slots = Arc<Mutex<BTreeSet<Page>>>;

    fn slots(&self) -> Self::Slots {
        Arc::default()
    }
    fn with<R>(slots: &Self::Slots, act: impl FnOnce(&mut BTreeSet<Page>) -> R) -> R {
        act(&mut lock(slots))
    }
    fn spawn(&self, run: impl FnOnce() + Send + 'static) {
        thread::spawn(run);
    }
    fn log(&self) {
        let _slots = lock(&self.0.slots_lock);
        let _mmu = lock(&self.0.mmu_lock);
        self.0.logs.store(true, SeqCst);
        self.0.writable.store(false, SeqCst);
    }
    fn next_dirty_gfn(&self) -> Option<Page> {
        let ring = &self.0.ring;
        let at = ring.fetch.load(SeqCst);
        if !ring.has(at, Flags::Dirty) {
            return None;
        }
        ring.set(at, Flags::Reset);
        ring.fetch.store(at + 1, SeqCst);
        Some((0, 0))
    }
    fn reset_dirty_rings(&self) -> usize {
        let ring = &self.0.ring;
        let _slots = lock(&self.0.slots_lock);
        let mut count = 0;
        loop {
            let at = ring.reset.load(SeqCst);
            if !ring.has(at, Flags::Reset) {
                return count;
            }
            ring.set(at, Flags::Free);
            ring.reset.store(at + 1, SeqCst);
            let _mmu = lock(&self.0.mmu_lock);
            self.0.writable.store(false, SeqCst);
            count += 1;
        }
    }
    fn kick(&self) {}
    fn pause(&self) {
        self.0.stop.store(true, SeqCst);
        while !self.0.stands.load(SeqCst) {
            thread::yield_now();
        }
    }
    fn send(&self, _page: Page) {
        let page = self.0.page.load(SeqCst);
        self.0.copy.store(page, SeqCst);
    }
    fn assert_copy_is_whole(&self) {
        assert_eq!(self.0.copy.load(SeqCst), self.0.page.load(SeqCst));
    }
}

/// One schedule's run.
pub fn run(stores: u32, publishes_late: bool) {
    let vm = Vm(Arc::new(Kvm {
        ring: Ring::default(),
        slots_lock: Mutex::new(()),
        mmu_lock: Mutex::new(()),
        logs: AtomicBool::new(false),
        writable: AtomicBool::new(true),
        page: AtomicU64::new(0),
        copy: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        stands: AtomicBool::new(false),
    }));
    let kvm = vm.0.clone();
    thread::spawn(move || kvm.run(stores));
    migrate(&vm, publishes_late);
}
