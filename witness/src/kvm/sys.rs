//! System calls with their errno as a value, and the ioctl numbers that kvm-ioctls keeps to itself or has no call for.
//!
//! Source of the numbers: include/uapi/linux/kvm.h (v7.2), computed here from direction, number and size as include/uapi/asm-generic/ioctl.h lays them out.

use std::fmt;
use std::os::fd::RawFd;

/// An errno of Linux.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

/// The result of a system call: what it returned, or its errno.
pub type Sys<T> = Result<T, Errno>;

impl Errno {
    /// The errno that the last system call of this thread left behind.
    #[must_use]
    pub fn last() -> Self {
        Self(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }

    /// The errno by its name, if the trace format has it.
    #[must_use]
    pub fn named(self) -> Option<dirtysim::trace::Errno> {
        u32::try_from(self.0)
            .ok()
            .and_then(dirtysim::trace::Errno::from_number)
    }

    /// Its name as in errno.h, `ERRNO_n` where the trace format has none.
    #[must_use]
    pub fn name(self) -> String {
        self.named().map_or_else(
            || format!("ERRNO_{}", self.0),
            |errno| errno.name().to_owned(),
        )
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({})",
            self.name(),
            std::io::Error::from_raw_os_error(self.0)
        )
    }
}

/// From kvm-ioctls, which keeps errnos in a type of its own.
impl From<kvm_ioctls::Error> for Errno {
    fn from(error: kvm_ioctls::Error) -> Self {
        Self(error.errno())
    }
}

/// The type letter of every KVM ioctl.
const KVMIO: u64 = 0xae;

/// An ioctl number that passes no structure.
const fn io(number: u64) -> u64 {
    (KVMIO << 8) | number
}

/// An ioctl number whose structure of `size` bytes userspace writes.
const fn iow(number: u64, size: u64) -> u64 {
    (1 << 30) | (size << 16) | io(number)
}

/// An ioctl number whose structure of `size` bytes goes both ways.
const fn iowr(number: u64, size: u64) -> u64 {
    (3 << 30) | (size << 16) | io(number)
}

/// `KVM_CREATE_VCPU`.
pub const KVM_CREATE_VCPU: u64 = io(0x41);
/// `KVM_GET_DIRTY_LOG`, with a structure of 16 bytes.
pub const KVM_GET_DIRTY_LOG: u64 = iow(0x42, 16);
/// `KVM_SET_USER_MEMORY_REGION`, with a structure of 32 bytes.
pub const KVM_SET_USER_MEMORY_REGION: u64 = iow(0x46, 32);
/// `KVM_RUN`.
pub const KVM_RUN: u64 = io(0x80);
/// `KVM_ENABLE_CAP`, with a structure of 104 bytes.
pub const KVM_ENABLE_CAP: u64 = iow(0xa3, 104);
/// `KVM_CLEAR_DIRTY_LOG`, with a structure of 24 bytes.
pub const KVM_CLEAR_DIRTY_LOG: u64 = iowr(0xc0, 24);
/// `KVM_PRE_FAULT_MEMORY`, with a structure of 64 bytes.
pub const KVM_PRE_FAULT_MEMORY: u64 = iowr(0xd5, 64);
/// `KVM_RESET_DIRTY_RINGS`.
pub const KVM_RESET_DIRTY_RINGS: u64 = io(0xc7);
/// `KVM_GET_STATS_FD`.
pub const KVM_GET_STATS_FD: u64 = io(0xce);

/// An ioctl whose argument is a number.
///
/// # Errors
/// The kernel's errno.
///
/// # Safety
/// `request` must be one that takes a number, or none, and `fd` must be of the kind that the request is for.
pub unsafe fn ioctl_value(fd: RawFd, request: u64, argument: u64) -> Sys<i32> {
    // SAFETY: no pointer goes to the kernel; the caller vouches for the request.
    let ret = unsafe { libc::ioctl(fd, request as _, argument as libc::c_ulong) };
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}

/// An ioctl whose argument is a structure.
///
/// # Errors
/// The kernel's errno.
///
/// # Safety
/// `T` must be the structure of `request`, and pointers within it valid for what the request does with them, or such that the kernel gives
/// `EFAULT` for them.
pub unsafe fn ioctl_struct<T>(fd: RawFd, request: u64, argument: &mut T) -> Sys<i32> {
    // SAFETY: the reference is valid for the size of T, which the caller vouches is that of the request.
    let ret = unsafe { libc::ioctl(fd, request as _, std::ptr::from_mut(argument)) };
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}

/// How often this thread has given its processor to another, or lost it.
#[must_use]
pub fn context_switches() -> u64 {
    // SAFETY: a structure that the kernel fills in; this thread's numbers are always there.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage
    };
    (usage.ru_nvcsw + usage.ru_nivcsw) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ioctl_numbers_are_those_of_the_uapi_header() {
        assert_eq!(KVM_GET_DIRTY_LOG, 0x4010_ae42);
        assert_eq!(KVM_CLEAR_DIRTY_LOG, 0xc018_aec0);
        assert_eq!(KVM_RESET_DIRTY_RINGS, 0xaec7);
        assert_eq!(KVM_SET_USER_MEMORY_REGION, 0x4020_ae46);
        assert_eq!(KVM_ENABLE_CAP, 0x4068_aea3);
        assert_eq!(KVM_PRE_FAULT_MEMORY, 0xc040_aed5);
    }

    #[test]
    fn an_unknown_errno_keeps_its_number() {
        assert_eq!(Errno(libc::EINVAL).name(), "EINVAL");
        assert_eq!(Errno(4000).name(), "ERRNO_4000");
    }
}
