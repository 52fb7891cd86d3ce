//! A thin safe layer over `/dev/kvm`: what the calls of a trace need and nothing else.
//!
//! Results are the kernel's, errno for errno: an ioctl that the kernel refuses is data here, not an error. What cannot be asked (host memory
//! that a region would run over, a program that does not fit) is a [`Refused`].
//!
//! Everything that runs a guest has a time limit: see [`alarm`].

pub mod alarm;
pub mod fault;
#[cfg(target_arch = "aarch64")]
pub mod gic;
pub mod guest;
pub mod memory;
pub mod refusals;
pub mod ring;
pub mod stats;
pub mod sys;
pub mod vcpu;
pub mod vm;

pub use alarm::Alarm;
pub use memory::HostMemory;
pub use ring::{RawEntry, RingMap};
pub use sys::{Errno, Sys};
pub use vcpu::{RunEnd, Vcpu};
pub use vm::Vm;

use crate::refusal::Refused;

/// Bytes in a guest page; both guests and both kernels that the witness knows use 4 KiB pages.
pub const PAGE_BYTES: u64 = 4096;

/// Opens `/dev/kvm`.
///
/// # Errors
/// A sentence that says which: no such device, no permission, another errno, or a host page size that the guests do not use.
pub fn open() -> Result<kvm_ioctls::Kvm, Refused> {
    let kvm = kvm_ioctls::Kvm::new().map_err(|error| match Errno(error.errno()) {
        Errno(libc::ENOENT) => Refused("there is no /dev/kvm on this machine: load a kvm module, or run on a machine with virtualisation".into()),
        Errno(libc::EACCES | libc::EPERM) => {
            Refused("no permission to open /dev/kvm: run as a member of the group that owns it, or as root".into())
        }
        Errno(libc::ENODEV | libc::ENXIO) => Refused("/dev/kvm is there but no kvm module answers it: this processor may lack virtualisation".into()),
        errno => Refused(format!("/dev/kvm cannot be opened: {errno}")),
    })?;
    // SAFETY: sysconf reads a constant of the system and touches no memory of ours.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    if u64::try_from(page) != Ok(PAGE_BYTES) {
        return Err(Refused(format!(
            "host pages are {page} bytes; the witness's guests and recordings are for pages of {PAGE_BYTES} bytes"
        )));
    }
    Ok(kvm)
}
