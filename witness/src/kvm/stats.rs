//! What KVM counts of a vCPU, read by name from its file of statistics.
//!
//! Source: include/uapi/linux/kvm.h (v7.2), the structures of KVM_GET_STATS_FD: a header, a descriptor with a name for each count, the counts.

use std::fs::File;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::fs::FileExt;

use super::sys;

/// Bytes of the header, and of a descriptor before its name.
const HEADER: usize = 24;
const DESCRIPTOR: usize = 16;

/// One count of a vCPU.
pub struct Counter {
    file: File,
    at: u64,
}

impl Counter {
    /// The count of that name; `None` where the kernel keeps no statistics, or not this one.
    #[must_use]
    pub fn find(vcpu: RawFd, name: &str) -> Option<Self> {
        // SAFETY: the request takes no argument and gives a new file.
        let file = unsafe { sys::ioctl_value(vcpu, sys::KVM_GET_STATS_FD, 0) }.ok()?;
        // SAFETY: the file was made just now and is nobody else's.
        let file = unsafe { File::from_raw_fd(file) };
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0).ok()?;
        let [name_bytes, count, descriptors, data] = [4, 8, 16, 20].map(|at| word(&header, at));
        let mut descriptor = vec![0; DESCRIPTOR + name_bytes as usize];
        for index in 0..u64::from(count) {
            let place = u64::from(descriptors) + index * descriptor.len() as u64;
            file.read_exact_at(&mut descriptor, place).ok()?;
            let its = descriptor[DESCRIPTOR..].split(|byte| *byte == 0).next();
            if its == Some(name.as_bytes()) {
                let at = u64::from(data) + u64::from(word(&descriptor, 8));
                return Some(Self { file, at });
            }
        }
        None
    }

    /// The count as it is now.
    ///
    /// # Panics
    /// If the file cannot be read: it could be when it was opened.
    #[must_use]
    pub fn now(&self) -> u64 {
        let mut bytes = [0; 8];
        let read = self.file.read_exact_at(&mut bytes, self.at);
        read.expect("a vCPU's statistics can be read as long as their file is open");
        u64::from_ne_bytes(bytes)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
