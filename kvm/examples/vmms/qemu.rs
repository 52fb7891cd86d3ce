//! QEMU's ring mode: a reaper thread harvests beside the migration thread, under the slots lock; what it found waits in the slots' bitmaps
//! until a sync takes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use dirtysim_kvm::{Arch, Checker, Errno, Machine, Mutex, Page, Vm};

/// The memslots' bitmaps, under the slots lock.
type Slots = Mutex<BTreeSet<Page>>;

struct Kvm {
    vm: Vm,
    slots: Arc<Slots>,
    /// Planted: what was harvested joins the bitmaps only after the rings were reset and the lock was dropped.
    publishes_late: bool,
}

impl Kvm {
    /// Harvests every ring and resets them; how many entries that were.
    fn reap(&self) -> Result<usize, Errno> {
        let mut slots = self.slots.lock();
        let mut found = BTreeSet::new();
        let mut count = 0;
        for vcpu in self.vm.vcpus() {
            for page in vcpu.dirty_log_ring_iter().into_iter().flatten() {
                found.insert(Page::from(page));
                count += 1;
            }
        }
        if !self.publishes_late {
            slots.append(&mut found);
        }
        let reset = self.vm.reset_dirty_rings()?;
        assert_eq!(
            reset as usize, count,
            "the kernel takes back what was harvested"
        );
        drop(slots);
        if self.publishes_late {
            self.slots.lock().append(&mut found);
        }
        Ok(count)
    }

    /// What was dirtied since the last sync.
    fn sync(&self) -> Result<BTreeSet<Page>, Errno> {
        self.vm.kick_vcpus();
        self.reap()?;
        Ok(std::mem::take(&mut *self.slots.lock()))
    }

    fn send(&self, pages: BTreeSet<Page>) {
        for page in pages {
            self.vm.send_page(page.slot, page.offset);
        }
    }

    fn migrate(&self) -> Result<(), Errno> {
        for region in self.vm.memory_regions() {
            self.vm.set_user_memory_region(region.log_dirty_pages())?;
        }
        let reaper = Self {
            vm: self.vm.clone(),
            slots: self.slots.clone(),
            ..*self
        };
        // It sleeps for a second between two of these; here it has one.
        let _reaper = self.vm.spawn(move || reaper.reap().map(|_| ()));
        self.vm.send_all_pages();
        self.vm.pause_vcpus();
        let last = self.sync()?;
        self.send(last);
        Ok(())
    }
}

/// A small machine.
pub(crate) fn checker() -> Checker {
    Checker::new(Machine::new(Arch::X86).slot(0, 1).ring(2).stores(1))
}

/// The migration as it is tested.
pub(crate) fn code(publishes_late: bool) -> impl Fn(Vm) -> Result<(), Errno> + Send + Sync {
    move |vm: Vm| {
        let kvm = Kvm {
            slots: Arc::new(vm.mutex(BTreeSet::new())),
            vm: vm.clone(),
            publishes_late,
        };
        kvm.migrate()?;
        vm.assert_copy_is_whole();
        Ok(())
    }
}
