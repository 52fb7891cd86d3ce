//! Firecracker's diff snapshots: the guest is stopped for each; the first has all of memory, each other what was stored to since. A snapshot
//! whose file could not be written must not take the record of its pages with it.

use dirtysim_kvm::{Arch, Checker, Errno, Failure, Machine, Report, Vm};

/// The file could not be written.
struct NoSpace;

struct Snapshots {
    vm: Vm,
    /// What the next snapshot must have besides what the kernel says.
    own: u64,
    /// Planted: what was fetched for a snapshot that failed is forgotten.
    forgets: bool,
}

impl Snapshots {
    fn start(&self) -> Result<(), Errno> {
        let ram = self.vm.memory_region(0);
        self.vm.set_user_memory_region(ram.log_dirty_pages())
    }

    fn dirty(&mut self) -> Result<u64, Errno> {
        let bytes = self.vm.memory_region(0).memory_size as usize;
        Ok(self.vm.get_dirty_log(0, bytes)?[0] | std::mem::take(&mut self.own))
    }

    /// A snapshot of all memory; the guest stands.
    fn full(&mut self) -> Result<(), Errno> {
        // What is in it needs no diff.
        self.dirty()?;
        self.vm.send_all_pages();
        Ok(())
    }

    /// A snapshot of what was stored to since the last one; the guest stands.
    fn diff(&mut self, has_space: bool) -> Result<Result<(), NoSpace>, Errno> {
        let dirty = self.dirty()?;
        if !has_space {
            if !self.forgets {
                self.own = dirty;
            }
            return Ok(Err(NoSpace));
        }
        for page in (0..64).filter(|page| dirty >> page & 1 != 0) {
            self.vm.send_page(0, page);
        }
        Ok(Ok(()))
    }
}

/// Every schedule of a small machine: a full snapshot, one for which there is no space, and the one that is made then.
pub(crate) fn check(forgets: bool) -> Result<Report, Box<Failure>> {
    let machine = Machine::new(Arch::X86).slot(0, 2).stores(2);
    Checker::new(machine).check(move |vm: Vm| {
        let mut snapshots = Snapshots {
            vm: vm.clone(),
            own: 0,
            forgets,
        };
        snapshots.start()?;
        vm.pause_vcpus();
        snapshots.full()?;
        vm.assert_copy_is_whole();
        vm.resume_vcpus();
        vm.pause_vcpus();
        for has_space in [false, true] {
            if snapshots.diff(has_space)?.is_ok() {
                vm.assert_copy_is_whole();
            }
            vm.resume_vcpus();
            vm.pause_vcpus();
        }
        let _ = snapshots.diff(true)?;
        vm.assert_copy_is_whole();
        Ok::<(), Errno>(())
    })
}
