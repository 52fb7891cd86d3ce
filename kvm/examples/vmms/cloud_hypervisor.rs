//! cloud-hypervisor's rounds: the kernel's bitmaps and the VMM's own, in which its devices mark what they write, are one table, fetched
//! round by round and once more with the guest stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use dirtysim_kvm::{Arch, Checker, Errno, Machine, Vm};

/// The bitmap of what devices wrote, as vm-memory's `AtomicBitmap` has it.
#[derive(Default)]
struct OwnBitmap(AtomicU64);

impl OwnBitmap {
    fn mark(&self, page: u64) {
        self.0.fetch_or(1 << page, SeqCst);
    }

    fn get_and_reset(&self) -> u64 {
        self.0.swap(0, SeqCst)
    }
}

struct Migration {
    vm: Vm,
    own: Arc<OwnBitmap>,
    /// Planted: the device marks a page before it writes there.
    marks_early: bool,
}

impl Migration {
    /// A virtio device's thread, which answers one request.
    fn device(vm: &Vm, own: &OwnBitmap, marks_early: bool) {
        if marks_early {
            own.mark(0);
            vm.store_page(0, 0);
        } else {
            vm.store_page(0, 0);
            own.mark(0);
        }
    }

    /// The table of dirty ranges since it was fetched last.
    fn dirty_log(&self) -> Result<u64, Errno> {
        let ram = self.vm.memory_region(0);
        let kernel = self.vm.get_dirty_log(0, ram.memory_size as usize)?[0];
        Ok(kernel | self.own.get_and_reset())
    }

    fn send(&self, table: u64) {
        for page in (0..64).filter(|page| table >> page & 1 != 0) {
            self.vm.send_page(0, page);
        }
    }

    fn run(&self) -> Result<(), Errno> {
        let ram = self.vm.memory_region(0);
        self.vm.set_user_memory_region(ram.log_dirty_pages())?;
        let (vm, own, early) = (self.vm.clone(), self.own.clone(), self.marks_early);
        let device = self.vm.spawn(move || Self::device(&vm, &own, early));
        self.vm.send_all_pages();
        let table = self.dirty_log()?;
        self.send(table);
        // The devices are paused with the guest: what is in work is finished.
        self.vm.pause_vcpus();
        device.join();
        let last = self.dirty_log()?;
        self.send(last);
        Ok(())
    }
}

/// A small machine.
pub(crate) fn checker() -> Checker {
    Checker::new(Machine::new(Arch::Arm64).slot(0, 1).stores(1))
}

/// The migration as it is tested.
pub(crate) fn code(marks_early: bool) -> impl Fn(Vm) -> Result<(), Errno> + Send + Sync {
    move |vm: Vm| {
        let migration = Migration {
            vm: vm.clone(),
            own: Arc::default(),
            marks_early,
        };
        migration.run()?;
        vm.assert_copy_is_whole();
        Ok(())
    }
}
