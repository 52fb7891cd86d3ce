//! The VMM's own record of what its devices write: a bitmap that the simulated machine knows the stores of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::session::call::Site;
use crate::vm::Vm;

/// A bitmap of a memslot's pages in which the VMM marks what it stores to guest memory by itself, as vm-memory's `AtomicBitmap`:
/// first the store, which the simulated machine sees, then the mark. Between the two others may act.
///
/// With the feature `vm-memory` it is a [`vm_memory::bitmap::Bitmap`](https://docs.rs/vm-memory), so that the guest memory of
/// a VMM's devices can be built over it: what they write there is a store of the VMM.
///
/// ```
/// use dirtysim_kvm::{Arch, Machine, OwnBitmap, Vm, check};
///
/// check(Machine::new(Arch::X86).slot(0, 2), |vm: Vm| {
///     let bitmap = OwnBitmap::new(&vm, 0);
///     let ram = vm.memory_region(0);
///     vm.set_user_memory_region(ram.log_dirty_pages()).unwrap();
///     vm.send_all_pages();
///     bitmap.store(vm.page_size() + 8, 4);
///     vm.pause_vcpus();
///     let kernel = vm.get_dirty_log(0, ram.memory_size as usize).unwrap()[0];
///     let own = bitmap.get_and_reset()[0];
///     assert_eq!(own, 0b10);
///     (0..2)
///         .filter(|page| (kernel | own) >> page & 1 != 0)
///         .for_each(|page| vm.send_page(0, page));
///     vm.assert_copy_is_whole();
/// });
/// ```
#[derive(Debug, Clone)]
pub struct OwnBitmap {
    vm: Vm,
    slot: u32,
    /// Where a slice begins, in bytes.
    base: usize,
    words: Arc<[AtomicU64]>,
    pages: usize,
}

impl OwnBitmap {
    /// The bitmap of a memslot, by its number; no bit is set.
    #[track_caller]
    #[must_use]
    pub fn new(vm: &Vm, slot: u32) -> Self {
        let pages = vm.memory_region(slot).memory_size as usize / vm.page_size();
        Self {
            vm: vm.clone(),
            slot,
            base: 0,
            words: (0..pages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            pages,
        }
    }

    /// The VMM stores to a range of bytes of the memslot, and marks its pages: one after the other, each store before its mark. What
    /// lies behind the memslot is not there.
    #[track_caller]
    pub fn store(&self, offset: usize, len: usize) {
        self.store_at(offset, len, self.vm.site());
    }

    fn store_at(&self, offset: usize, len: usize, place: Site) {
        if len == 0 {
            return;
        }
        let size = self.vm.page_size();
        let first = self.base.saturating_add(offset);
        let last = first.saturating_add(len - 1) / size;
        for page in (first / size..=last).take_while(|page| *page < self.pages) {
            self.vm.store_page_at(self.slot, page as u64, place);
            self.words[page / 64].fetch_or(1 << (page % 64), SeqCst);
        }
    }

    /// Whether the page of a byte is marked.
    #[must_use]
    pub fn is_marked(&self, offset: usize) -> bool {
        let page = self.base.saturating_add(offset) / self.vm.page_size();
        let word = self.words.get(page / 64);
        word.is_some_and(|word| word.load(SeqCst) >> (page % 64) & 1 != 0)
    }

    /// The marks, a bit for each page, which are taken away.
    #[must_use]
    pub fn get_and_reset(&self) -> Vec<u64> {
        self.words.iter().map(|word| word.swap(0, SeqCst)).collect()
    }
}

#[cfg(feature = "vm-memory")]
mod vm_memory {

    use vm_memory::bitmap::{Bitmap, BitmapSlice, WithBitmapSlice};

    use super::OwnBitmap;

    impl WithBitmapSlice<'_> for OwnBitmap {
        type S = Self;
    }

    impl BitmapSlice for OwnBitmap {}

    impl Bitmap for OwnBitmap {
        /// vm-memory calls it when it has written the bytes.
        #[track_caller]
        fn mark_dirty(&self, offset: usize, len: usize) {
            self.store_at(offset, len, self.vm.site());
        }

        fn dirty_at(&self, offset: usize) -> bool {
            self.is_marked(offset)
        }

        fn slice_at(&self, offset: usize) -> Self {
            Self {
                base: self.base.saturating_add(offset),
                ..self.clone()
            }
        }
    }
}
