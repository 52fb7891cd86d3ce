//! The calls as a trait, so that the same code runs against the simulated kernel and against a real one.

use crate::errno::Result;
use crate::region::UserspaceMemoryRegion;
use crate::vm::Vm;

/// What code that collects dirty pages asks of a hypervisor. [`Vm`] is one; the project's witness has another, on `/dev/kvm`.
///
/// ```
/// use dirtysim_kvm::{Arch, Errno, Hypervisor, Machine, check};
///
/// /// Runs anywhere.
/// fn migrate(vm: &impl Hypervisor) -> Result<(), Errno> {
///     for region in vm.memory_regions() {
///         vm.set_user_memory_region(region.log_dirty_pages())?;
///     }
///     vm.send_all_pages();
///     vm.pause_vcpus();
///     for region in vm.memory_regions() {
///         let bitmap = vm.get_dirty_log(region.slot, region.memory_size as usize)?;
///         (0..64 * bitmap.len() as u64)
///             .filter(|page| bitmap[*page as usize / 64] >> (page % 64) & 1 != 0)
///             .for_each(|page| vm.send_page(region.slot, page));
///     }
///     Ok(())
/// }
///
/// check(Machine::new(Arch::X86).slot(1, 2), |vm| {
///     migrate(&vm)?;
///     vm.assert_copy_is_whole();
///     Ok::<(), Errno>(())
/// });
/// ```
pub trait Hypervisor {
    /// Every memslot that the code is about, as it begins: log off.
    fn memory_regions(&self) -> Vec<UserspaceMemoryRegion>;

    /// Bytes of a page.
    fn page_size(&self) -> usize;

    /// How many vCPUs there are.
    fn vcpu_count(&self) -> u8;

    /// KVM_SET_USER_MEMORY_REGION.
    ///
    /// # Errors
    /// What KVM answers.
    #[track_caller]
    fn set_user_memory_region(&self, region: UserspaceMemoryRegion) -> Result<()>;

    /// KVM_GET_DIRTY_LOG of a memslot of so many bytes.
    ///
    /// # Errors
    /// What KVM answers.
    #[track_caller]
    fn get_dirty_log(&self, slot: u32, memory_size: usize) -> Result<Vec<u64>>;

    /// KVM_CLEAR_DIRTY_LOG; see [`Vm::clear_dirty_log`].
    ///
    /// # Errors
    /// What KVM answers.
    #[track_caller]
    fn clear_dirty_log(
        &self,
        slot: u32,
        first_page: u64,
        num_pages: u32,
        bitmap: &[u64],
    ) -> Result<()>;

    /// KVM_RESET_DIRTY_RINGS.
    ///
    /// # Errors
    /// What KVM answers.
    #[track_caller]
    fn reset_dirty_rings(&self) -> Result<i32>;

    /// The next dirty entry of a vCPU's ring, slot and offset, which is given back as harvested; none where there is none, or no ring.
    #[track_caller]
    fn next_dirty_gfn(&self, vcpu: u8) -> Option<(u32, u64)>;

    /// Stops the guest, and waits until it stands.
    #[track_caller]
    fn pause_vcpus(&self);

    /// Lets it run again.
    #[track_caller]
    fn resume_vcpus(&self);

    /// Reads a page and sends it.
    #[track_caller]
    fn send_page(&self, slot: u32, offset: u64);

    /// Claims that the destination equals memory.
    ///
    /// # Panics
    /// On a real kernel, where it does not.
    #[track_caller]
    fn assert_copy_is_whole(&self);

    /// Sends every page: the first copy.
    #[track_caller]
    fn send_all_pages(&self) {
        for region in self.memory_regions() {
            for page in 0..region.memory_size / self.page_size() as u64 {
                self.send_page(region.slot, page);
            }
        }
    }
}

impl Hypervisor for Vm {
    fn memory_regions(&self) -> Vec<UserspaceMemoryRegion> {
        self.memory_regions()
    }
    fn page_size(&self) -> usize {
        self.page_size()
    }
    fn vcpu_count(&self) -> u8 {
        self.vcpus().len() as u8
    }
    #[track_caller]
    fn set_user_memory_region(&self, region: UserspaceMemoryRegion) -> Result<()> {
        self.set_user_memory_region(region)
    }
    #[track_caller]
    fn get_dirty_log(&self, slot: u32, memory_size: usize) -> Result<Vec<u64>> {
        self.get_dirty_log(slot, memory_size)
    }
    #[track_caller]
    fn clear_dirty_log(
        &self,
        slot: u32,
        first_page: u64,
        num_pages: u32,
        bitmap: &[u64],
    ) -> Result<()> {
        self.clear_dirty_log(slot, first_page, num_pages, bitmap)
    }
    #[track_caller]
    fn reset_dirty_rings(&self) -> Result<i32> {
        self.reset_dirty_rings()
    }
    #[track_caller]
    fn next_dirty_gfn(&self, vcpu: u8) -> Option<(u32, u64)> {
        self.vcpu(vcpu).dirty_log_ring_iter()?.next()
    }
    #[track_caller]
    fn pause_vcpus(&self) {
        self.pause_vcpus();
    }
    #[track_caller]
    fn resume_vcpus(&self) {
        self.resume_vcpus();
    }
    #[track_caller]
    fn send_page(&self, slot: u32, offset: u64) {
        self.send_page(slot, offset);
    }
    #[track_caller]
    fn assert_copy_is_whole(&self) {
        self.assert_copy_is_whole();
    }
    #[track_caller]
    fn send_all_pages(&self) {
        self.send_all_pages();
    }
}
