//! A vCPU's dirty ring, mapped: entries read with acquire and given back with release, as the interface asks of userspace.
//!
//! The mapping knows no fetch index and enforces no order: harvesting right and wrong are both the caller's business.

use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{Errno, PAGE_BYTES, Sys};

/// `KVM_DIRTY_LOG_PAGE_OFFSET`, in pages of the vCPU's file; the same on every architecture that has the ring.
pub const RING_PAGE_OFFSET: u64 = 64;

/// Bytes in one entry: flags, slot, offset.
pub const ENTRY_BYTES: u64 = 16;

/// `KVM_DIRTY_GFN_F_DIRTY` and `KVM_DIRTY_GFN_F_RESET`.
pub const FLAG_DIRTY: u32 = 1;
/// See [`FLAG_DIRTY`].
pub const FLAG_RESET: u32 = 2;

/// One entry as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawEntry {
    /// Bit 0: dirty; bit 1: reset.
    pub flags: u32,
    /// `as_id << 16 | id`.
    pub slot: u32,
    /// Page within the slot.
    pub offset: u64,
}

/// How to map a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapHow {
    /// Offset in the vCPU's file, pages.
    pub offset_pages: u64,
    /// Length, bytes.
    pub bytes: u64,
    /// PROT_READ, PROT_WRITE and PROT_EXEC.
    pub prot: i32,
    /// MAP_SHARED or else MAP_PRIVATE.
    pub shared: bool,
}

impl MapHow {
    /// The mapping that userspace is meant to make of a ring of `bytes`.
    #[must_use]
    pub fn usual(bytes: u64) -> Self {
        Self {
            offset_pages: RING_PAGE_OFFSET,
            bytes,
            prot: libc::PROT_READ | libc::PROT_WRITE,
            shared: true,
        }
    }
}

/// A mapped ring, or whatever the vCPU's file has at the offset that was asked for.
pub struct RingMap {
    base: NonNull<u8>,
    bytes: usize,
    writable: bool,
}

// SAFETY: entries are only ever accessed through atomics.
unsafe impl Send for RingMap {}
// SAFETY: as above.
unsafe impl Sync for RingMap {}

/// What touching a byte of a mapping did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It was read.
    Ok,
    /// There is nothing behind it.
    Sigbus,
}

impl RingMap {
    /// Maps part of a vCPU's file.
    ///
    /// # Errors
    /// What mmap gives: `EINVAL` or `EPERM` for a private or executable mapping of a ring.
    pub fn map(vcpu: RawFd, how: MapHow) -> Sys<Self> {
        let bytes = usize::try_from(how.bytes).map_err(|_| Errno(libc::ENOMEM))?;
        let offset = how
            .offset_pages
            .checked_mul(PAGE_BYTES)
            .and_then(|bytes| i64::try_from(bytes).ok())
            .ok_or(Errno(libc::EINVAL))?;
        let sharing = if how.shared {
            libc::MAP_SHARED
        } else {
            libc::MAP_PRIVATE
        };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let pointer = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                how.prot,
                sharing,
                vcpu,
                offset as libc::off_t,
            )
        };
        if pointer == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let base = NonNull::new(pointer.cast()).ok_or(Errno(libc::ENOMEM))?;
        Ok(Self {
            base,
            bytes,
            writable: how.prot & libc::PROT_WRITE != 0,
        })
    }

    /// Entries in the mapping; the ring's own count where the whole ring was mapped.
    #[must_use]
    pub fn entries(&self) -> u32 {
        u32::try_from(self.bytes as u64 / ENTRY_BYTES).unwrap_or(u32::MAX)
    }

    /// Whether the mapping may be written.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// The byte offset of a free-running index.
    fn at(&self, index: u32) -> *mut u8 {
        let entry = index % self.entries();
        // SAFETY: the entry lies within the mapping.
        unsafe {
            self.base
                .as_ptr()
                .add(entry as usize * ENTRY_BYTES as usize)
        }
    }

    fn flags_of(&self, index: u32) -> &AtomicU32 {
        // SAFETY: aligned, within the mapping, and shared with the kernel, which also treats it as an atomic.
        unsafe { AtomicU32::from_ptr(self.at(index).cast()) }
    }

    fn slot_of(&self, index: u32) -> &AtomicU32 {
        // SAFETY: as `flags_of`, four bytes on.
        unsafe { AtomicU32::from_ptr(self.at(index).add(4).cast()) }
    }

    fn offset_of(&self, index: u32) -> &AtomicU64 {
        // SAFETY: as `flags_of`, eight bytes on, where a 64-bit word is aligned.
        unsafe { AtomicU64::from_ptr(self.at(index).add(8).cast()) }
    }

    /// Reads the entry at a free-running index: flags with acquire, then slot and offset.
    #[must_use]
    pub fn read(&self, index: u32) -> RawEntry {
        let flags = self.flags_of(index).load(Ordering::Acquire);
        RawEntry {
            flags,
            slot: self.slot_of(index).load(Ordering::Relaxed),
            offset: self.offset_of(index).load(Ordering::Relaxed),
        }
    }

    /// Gives an entry back, or writes any other flags, with release.
    ///
    /// # Panics
    /// If the mapping is read-only: a caller asks [`Self::writable`] first.
    pub fn write_flags(&self, index: u32, flags: u32) {
        assert!(self.writable, "flags go to a writable mapping");
        self.flags_of(index).store(flags, Ordering::Release);
    }

    /// Writes fields of an entry, flags last with release; a field that is `None` stays.
    ///
    /// # Panics
    /// As [`Self::write_flags`].
    pub fn write(&self, index: u32, flags: Option<u32>, slot: Option<u32>, offset: Option<u64>) {
        assert!(self.writable, "fields go to a writable mapping");
        if let Some(slot) = slot {
            self.slot_of(index).store(slot, Ordering::Relaxed);
        }
        if let Some(offset) = offset {
            self.offset_of(index).store(offset, Ordering::Relaxed);
        }
        if let Some(flags) = flags {
            self.flags_of(index).store(flags, Ordering::Release);
        }
    }

    /// Touches a byte of the mapping and survives where there is nothing behind it: the kernel reads it on our behalf.
    #[must_use]
    pub fn touch(&self, byte: u64) -> Touch {
        if byte >= self.bytes as u64 {
            return Touch::Sigbus;
        }
        let mut pipe = [0; 2];
        // SAFETY: a pipe of our own; the byte's address lies in the mapping, and write() answers EFAULT where a load would raise SIGBUS.
        let wrote = unsafe {
            if libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
                return Touch::Sigbus;
            }
            let wrote = libc::write(pipe[1], self.base.as_ptr().add(byte as usize).cast(), 1);
            libc::close(pipe[0]);
            libc::close(pipe[1]);
            wrote
        };
        if wrote == 1 { Touch::Ok } else { Touch::Sigbus }
    }
}

impl Drop for RingMap {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and no reference into it outlives a method.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
