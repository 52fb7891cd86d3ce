//! A VM: capabilities, memslots, and the three ioctls of dirty logging.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use kvm_bindings::{kvm_enable_cap, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VmFd};

use super::sys::{self, Sys};
use super::{HostMemory, PAGE_BYTES, Vcpu};
use crate::refusal::Refused;

/// `KVM_MEM_MAX_NR_PAGES`: the kernel refuses a slot with more pages before it looks at the host's memory.
pub const MEM_MAX_NR_PAGES: u64 = (1 << 31) - 1;

/// What `KVM_SET_USER_MEMORY_REGION` is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// `as_id << 16 | id`.
    pub slot: u32,
    /// `KVM_MEM_LOG_DIRTY_PAGES` and its like.
    pub flags: u32,
    /// Guest physical address, bytes.
    pub gpa: u64,
    /// Length, bytes; 0 deletes the slot.
    pub bytes: u64,
    /// Where in the host memory the slot begins, bytes.
    pub offset: u64,
}

/// What `KVM_GET_DIRTY_LOG` left in the buffer that it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirtyWords {
    /// 64-bit words that the kernel wrote, from the first on.
    pub written: usize,
    /// Those words.
    pub words: Vec<u64>,
}

/// A virtual machine. Its vCPUs are [`Vcpu`]s of their own and keep it alive.
pub struct Vm {
    fd: VmFd,
    /// What its memslots point to, kept as long as the VM might use it.
    memory: Vec<Arc<HostMemory>>,
    /// Pages of each slot that the kernel has: how long a buffer `KVM_GET_DIRTY_LOG` needs.
    slots: BTreeMap<u32, u64>,
}

impl Vm {
    /// `KVM_CREATE_VM`.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn new(kvm: &Kvm) -> Sys<Self> {
        Ok(Self {
            fd: kvm.create_vm()?,
            memory: Vec::new(),
            slots: BTreeMap::new(),
        })
    }

    /// The file, for the calls that kvm-ioctls has.
    #[must_use]
    pub fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// `KVM_ENABLE_CAP` of the VM.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn enable_cap(&self, cap: u32, flags: u32, arg0: u64) -> Sys<i32> {
        let mut enable = kvm_enable_cap {
            cap,
            flags,
            ..Default::default()
        };
        enable.args[0] = arg0;
        // SAFETY: the structure is that of the request; of the capabilities of dirty logging none takes a pointer.
        unsafe { sys::ioctl_struct(self.fd.as_raw_fd(), sys::KVM_ENABLE_CAP, &mut enable) }
    }

    /// `KVM_SET_USER_MEMORY_REGION`.
    ///
    /// # Errors
    /// Outer: the region runs over `memory`'s end, although the kernel might accept it. Inner: the kernel's errno.
    pub fn set_memory(
        &mut self,
        region: Region,
        memory: &Arc<HostMemory>,
    ) -> Result<Sys<()>, Refused> {
        let within = region
            .offset
            .checked_add(region.bytes)
            .is_some_and(|end| end <= memory.bytes());
        let surely_refused = region.bytes / PAGE_BYTES > MEM_MAX_NR_PAGES;
        if !within && !surely_refused {
            return Err(Refused(format!(
                "a slot of {} bytes at byte {} of its host memory needs more than the {} bytes there are",
                region.bytes,
                region.offset,
                memory.bytes()
            )));
        }
        if !self.keeps(memory) {
            self.memory.push(Arc::clone(memory));
        }
        let result = self.tell(region, memory);
        if result.is_ok() {
            if region.bytes == 0 {
                self.slots.remove(&region.slot);
            } else {
                self.slots.insert(region.slot, region.bytes / PAGE_BYTES);
            }
        }
        Ok(result)
    }

    fn keeps(&self, memory: &Arc<HostMemory>) -> bool {
        self.memory.iter().any(|held| Arc::ptr_eq(held, memory))
    }

    /// The call itself, of memory that is kept, or that the kernel refuses.
    fn tell(&self, region: Region, memory: &HostMemory) -> Sys<()> {
        let raw = kvm_userspace_memory_region {
            slot: region.slot,
            flags: region.flags,
            guest_phys_addr: region.gpa,
            memory_size: region.bytes,
            userspace_addr: memory.address(region.offset),
        };
        // SAFETY: the range lies in a mapping that this VM keeps alive and that no Rust reference points into, or is one that the kernel refuses.
        unsafe { self.fd.set_user_memory_region(raw) }.map_err(Into::into)
    }

    /// `KVM_SET_USER_MEMORY_REGION` of a slot that is there, with other flags: beside other calls.
    ///
    /// # Errors
    /// Outer: there is no such slot of that memory. Inner: the kernel's errno.
    pub fn set_log(&self, region: Region, memory: &Arc<HostMemory>) -> Result<Sys<()>, Refused> {
        let there = self.slots.get(&region.slot) == Some(&(region.bytes / PAGE_BYTES));
        if !there || !self.keeps(memory) {
            return Err(Refused(format!("slot {} is another one", region.slot)));
        }
        Ok(self.tell(region, memory))
    }

    /// `KVM_CREATE_VCPU`.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn create_vcpu(&self, id: u64) -> Sys<Vcpu> {
        Ok(Vcpu::new(self.fd.create_vcpu(id)?, id))
    }

    /// `KVM_GET_DIRTY_LOG` into a buffer with room for the slot, or to an address where nothing is mapped.
    ///
    /// # Errors
    /// The first part is the kernel's answer; the second is what it left in the buffer, whatever it answered.
    pub fn get_dirty_log(&self, slot: u32, bad_pointer: bool) -> (Sys<()>, DirtyWords) {
        #[repr(C)]
        struct DirtyLog {
            slot: u32,
            padding: u32,
            words: u64,
        }
        // The kernel knows no length: it writes a word for each 64 pages of the slot. One word more shows that it stops there.
        let needed = self.slots.get(&slot).map_or(0, |pages| pages.div_ceil(64)) as usize;
        let mut buffer = vec![UNWRITTEN; needed + 1];
        let words = if bad_pointer {
            BAD_POINTER
        } else {
            buffer.as_mut_ptr() as u64
        };
        let mut log = DirtyLog {
            slot,
            padding: 0,
            words,
        };
        // SAFETY: the structure is that of the request; the buffer has room for every word of the slot, whose size this value keeps from the
        // call that set it; the kernel gives EFAULT for a bad pointer.
        let result =
            unsafe { sys::ioctl_struct(self.fd.as_raw_fd(), sys::KVM_GET_DIRTY_LOG, &mut log) }
                .map(|_| ());
        let written = buffer
            .iter()
            .rposition(|word| *word != UNWRITTEN)
            .map_or(0, |last| last + 1);
        buffer.truncate(written);
        (
            result,
            DirtyWords {
                written,
                words: buffer,
            },
        )
    }

    /// `KVM_CLEAR_DIRTY_LOG`. The buffer is padded with zeros to what the kernel reads for `num_pages`, at most what a slot can have.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn clear_dirty_log(
        &self,
        slot: u32,
        first_page: u64,
        num_pages: u32,
        words: Option<&[u64]>,
    ) -> Sys<()> {
        #[repr(C)]
        struct ClearLog {
            slot: u32,
            num_pages: u32,
            first_page: u64,
            words: u64,
        }
        // The kernel reads ALIGN(num_pages, 64)/8 bytes, if num_pages lies within the slot, else none.
        let needed =
            usize::try_from(u64::from(num_pages).div_ceil(64)).expect("a 32-bit count of pages");
        let buffer = words.map(|words| {
            let mut buffer = words.to_vec();
            buffer.resize(needed.max(words.len()).max(1), 0);
            buffer
        });
        let pointer = buffer
            .as_ref()
            .map_or(BAD_POINTER, |buffer| buffer.as_ptr() as u64);
        let mut log = ClearLog {
            slot,
            num_pages,
            first_page,
            words: pointer,
        };
        // SAFETY: the structure is that of the request; the buffer is as long as what the kernel reads; EFAULT for a bad pointer.
        unsafe { sys::ioctl_struct(self.fd.as_raw_fd(), sys::KVM_CLEAR_DIRTY_LOG, &mut log) }
            .map(|_| ())
    }

    /// `KVM_RESET_DIRTY_RINGS`: how many entries were reset.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn reset_dirty_rings(&self) -> Sys<i32> {
        // SAFETY: the request takes no argument.
        unsafe { sys::ioctl_value(self.fd.as_raw_fd(), sys::KVM_RESET_DIRTY_RINGS, 0) }
    }

    /// The file descriptor, for calls that this type has no method for.
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// `KVM_CHECK_EXTENSION` of the VM, as the kernel returns it.
    #[must_use]
    pub fn check_extension(&self, cap: u32) -> i32 {
        self.fd.check_extension_raw(cap.into())
    }
}

/// An address where nothing is mapped: below the lowest that Linux maps.
const BAD_POINTER: u64 = 0x10;

/// What fills a buffer before the kernel writes to it: no bitmap of a test is this.
const UNWRITTEN: u64 = 0xa5c3_5a3c_0ff0_9669;
