//! Host memory behind memslots, read and written only as a device would: word by word, volatile, never through a reference to its bytes.
//!
//! A guest on another thread may store to it at any time, so that no Rust reference into it may exist.

use std::ptr::NonNull;

use super::{Errno, PAGE_BYTES, Sys};
use crate::refusal::Refused;

/// An anonymous private mapping of whole pages; untouched pages cost no memory.
pub struct HostMemory {
    base: NonNull<u8>,
    bytes: u64,
}

// SAFETY: the mapping belongs to this value, and every access to it goes through volatile or atomic operations on raw pointers.
unsafe impl Send for HostMemory {}
// SAFETY: as above; concurrent accesses are what it is for.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// Maps `pages` pages.
    ///
    /// # Errors
    /// `ENOMEM` and whatever else mmap gives.
    pub fn new(pages: u64) -> Sys<Self> {
        let bytes = pages.checked_mul(PAGE_BYTES).ok_or(Errno(libc::ENOMEM))?;
        let length = usize::try_from(bytes).map_err(|_| Errno(libc::ENOMEM))?;
        // A multiple of 2 MiB more than needed lets the start be aligned, so that huge pages behave alike in every run.
        const HUGE: usize = 2 << 20;
        let reserve = length.checked_add(HUGE).ok_or(Errno(libc::ENOMEM))?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let pointer = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                reserve,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if pointer == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let start = pointer as usize;
        let aligned = start.next_multiple_of(HUGE);
        // SAFETY: both ranges are parts of the mapping just made that nothing uses: before the aligned start, and after the end.
        unsafe {
            if aligned > start {
                libc::munmap(pointer, aligned - start);
            }
            libc::munmap(
                (aligned + length) as *mut libc::c_void,
                start + reserve - aligned - length,
            );
            // One page each, unless asked for by `advise_huge`: else what the host's policy is would show in the recordings.
            libc::madvise(aligned as *mut libc::c_void, length, libc::MADV_NOHUGEPAGE);
        }
        let base = NonNull::new(aligned as *mut u8).ok_or(Errno(libc::ENOMEM))?;
        Ok(Self { base, bytes })
    }

    /// Bytes mapped.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The address of byte `offset`, for the kernel.
    #[must_use]
    pub fn address(&self, offset: u64) -> u64 {
        (self.base.as_ptr() as u64).wrapping_add(offset)
    }

    fn pointer(&self, offset: u64, length: u64) -> Result<*mut u8, Refused> {
        match offset.checked_add(length) {
            // SAFETY: offset + length lies within the mapping.
            Some(end) if end <= self.bytes => Ok(unsafe {
                self.base
                    .as_ptr()
                    .add(usize::try_from(offset).expect("within a mapping"))
            }),
            _ => Err(Refused(format!(
                "bytes {offset} and the {length} after it are beyond host memory of {} bytes",
                self.bytes
            ))),
        }
    }

    /// Gives every page of a range its memory, as if it had been stored to, so that the host has it before a guest does. A load first would
    /// map the page of zeros, and keep huge pages away.
    ///
    /// # Errors
    /// A range beyond the mapping, or no memory left.
    pub fn populate(&self, offset: u64, length: u64) -> Result<(), Refused> {
        let base = self.pointer(offset, length)?;
        let pages = length.next_multiple_of(PAGE_BYTES) as usize;
        // SAFETY: a range within this mapping, up to the end of its last page; contents stay as they are.
        let ret = unsafe { libc::madvise(base.cast(), pages, libc::MADV_POPULATE_WRITE) };
        if ret == 0 {
            Ok(())
        } else {
            Err(Refused(format!(
                "{length} bytes of host memory cannot be populated: {}",
                Errno::last()
            )))
        }
    }

    /// Gives the memory of a page back: it reads as zeros from then on.
    ///
    /// # Errors
    /// A page beyond the mapping, or what madvise gives.
    pub fn discard(&self, offset: u64) -> Result<(), Refused> {
        let base = self.pointer(offset, PAGE_BYTES)?;
        // SAFETY: a page within this mapping, anonymous and private; no Rust reference points into it.
        let ret = unsafe { libc::madvise(base.cast(), PAGE_BYTES as usize, libc::MADV_DONTNEED) };
        if ret == 0 {
            Ok(())
        } else {
            let errno = Errno::last();
            Err(Refused(format!("a page cannot be given back: {errno}")))
        }
    }

    /// Asks for transparent huge pages in a range.
    ///
    /// # Errors
    /// A range beyond the mapping. The kernel may refuse the advice in silence, as it may refuse huge pages at any time.
    pub fn advise_huge(&self, offset: u64, length: u64) -> Result<(), Refused> {
        let base = self.pointer(offset, length)?;
        // SAFETY: advice for a range within this mapping; contents stay as they are.
        unsafe { libc::madvise(base.cast(), length as usize, libc::MADV_HUGEPAGE) };
        Ok(())
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// A range beyond the mapping.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Refused> {
        let base = self.pointer(offset, bytes.len() as u64)?;
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: within the range that was checked.
            unsafe { base.add(index).write_volatile(*byte) };
        }
        self.clean(offset, bytes.len() as u64);
        Ok(())
    }

    /// Writes one aligned 64-bit word in one store.
    ///
    /// # Errors
    /// A range beyond the mapping, or an offset that is no multiple of 8.
    pub fn write_u64(&self, offset: u64, value: u64) -> Result<(), Refused> {
        let base = self.word(offset)?;
        // SAFETY: aligned and within the range that was checked.
        unsafe { base.write_volatile(value) };
        self.clean(offset, 8);
        Ok(())
    }

    /// Reads one aligned 64-bit word in one load.
    ///
    /// # Errors
    /// A range beyond the mapping, or an offset that is no multiple of 8.
    pub fn read_u64(&self, offset: u64) -> Result<u64, Refused> {
        let base = self.word(offset)?;
        self.clean(offset, 8);
        // SAFETY: aligned and within the range that was checked.
        Ok(unsafe { base.read_volatile() })
    }

    fn word(&self, offset: u64) -> Result<*mut u64, Refused> {
        if !offset.is_multiple_of(8) {
            return Err(Refused(format!(
                "byte {offset} is not the start of a 64-bit word"
            )));
        }
        Ok(self.pointer(offset, 8)?.cast())
    }

    /// The bytes of one page, word by word.
    ///
    /// # Errors
    /// A page beyond the mapping.
    pub fn read_page(&self, offset: u64) -> Result<Box<[u64; 512]>, Refused> {
        let base: *mut u64 = self.pointer(offset, PAGE_BYTES)?.cast();
        self.clean(offset, PAGE_BYTES);
        let mut page = Box::new([0_u64; 512]);
        for (index, word) in page.iter_mut().enumerate() {
            // SAFETY: the word lies in the page that was checked, which is aligned.
            *word = unsafe { base.add(index).read_volatile() };
        }
        Ok(page)
    }

    /// Writes a range back to memory and drops it from the data caches, on machines where a guest without stage 1 goes past them.
    fn clean(&self, offset: u64, length: u64) {
        #[cfg(target_arch = "aarch64")]
        {
            // 16 bytes, the smallest line that the architecture allows: more work than needed is harmless.
            let first = self.address(offset) & !15;
            let end = self.address(offset + length);
            let mut line = first;
            while line < end {
                // SAFETY: cleaning and invalidating a line of our own mapping changes no byte of it; Linux allows it at EL0.
                unsafe {
                    core::arch::asm!("dc civac, {0}", in(reg) line, options(nostack, preserves_flags))
                };
                line += 16;
            }
            // SAFETY: a barrier.
            unsafe { core::arch::asm!("dsb sy", options(nostack, preserves_flags)) };
        }
        #[cfg(not(target_arch = "aarch64"))]
        {
            let _ = (offset, length);
        }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's; a VM that uses it holds an `Arc` of it and is closed before.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes as usize) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_written_is_read_back_and_a_range_beyond_is_refused() {
        let memory = HostMemory::new(2).expect("two pages");
        memory.write_u64(PAGE_BYTES, 7).expect("in range");
        assert_eq!(memory.read_u64(PAGE_BYTES), Ok(7));
        assert_eq!(memory.read_page(PAGE_BYTES).expect("in range")[0], 7);
        assert!(memory.read_u64(2 * PAGE_BYTES).is_err());
        assert!(memory.read_u64(4).is_err());
        assert!(memory.write(2 * PAGE_BYTES - 1, &[1, 2]).is_err());
    }
}
