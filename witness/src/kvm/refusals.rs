//! What the VM's ioctls refuse before they look at dirty logging: an argument that cannot be read, a caller with another address
//! space, a slot where the guest has no addresses, and a log of a device's memory. No trace has a call for these.

use std::os::fd::RawFd;
use std::sync::Arc;

use kvm_ioctls::Kvm;

use super::memory::HostMemory;
use super::vm::{Region, Vm};
use super::{Errno, PAGE_BYTES, sys};
use crate::refusal::Refused;

/// An address where nothing is mapped.
const UNREADABLE: libc::c_ulong = 0x10;

/// Requests with a structure for an argument.
const REQUESTS: [(&str, u64); 4] = [
    ("KVM_GET_DIRTY_LOG", sys::KVM_GET_DIRTY_LOG),
    ("KVM_CLEAR_DIRTY_LOG", sys::KVM_CLEAR_DIRTY_LOG),
    ("KVM_ENABLE_CAP", sys::KVM_ENABLE_CAP),
    (
        "KVM_SET_USER_MEMORY_REGION",
        sys::KVM_SET_USER_MEMORY_REGION,
    ),
];

/// One call that must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The ioctl.
    pub call: &'static str,
    /// What is wrong about it.
    pub what: &'static str,
    /// The errno that it should give, by name.
    pub expected: &'static str,
    /// What it gave; `None` where it succeeded.
    pub answer: Option<Errno>,
}

/// All of them, asked.
///
/// # Errors
/// There is no VM to be had, or no other process.
pub fn refusals(kvm: &Kvm) -> Result<Vec<Refusal>, Refused> {
    let vm = Vm::new(kvm).map_err(|errno| Refused(format!("KVM_CREATE_VM failed with {errno}")))?;
    let fd = vm.raw_fd();
    let mut seen = Vec::new();
    for (call, request) in REQUESTS {
        seen.push(Refusal {
            call,
            what: "an argument that cannot be read",
            expected: "EFAULT",
            answer: ask(fd, request),
        });
    }
    let reset = ("KVM_RESET_DIRTY_RINGS", sys::KVM_RESET_DIRTY_RINGS);
    for (call, request) in REQUESTS.into_iter().chain([reset]) {
        seen.push(Refusal {
            call,
            what: "from another process",
            expected: "EIO",
            answer: in_another_process(|| ask(fd, request))?,
        });
    }
    seen.push(Refusal {
        call: "KVM_SET_USER_MEMORY_REGION",
        what: "beyond the guest's last address",
        expected: if cfg!(any(target_arch = "aarch64", target_arch = "riscv64")) {
            "EFAULT"
        } else {
            "EINVAL"
        },
        answer: beyond_the_last_address(vm)?,
    });
    #[cfg(target_arch = "aarch64")]
    if let Some(answer) = log_of_a_device(kvm)? {
        seen.push(Refusal {
            call: "KVM_SET_USER_MEMORY_REGION",
            what: "with a log, of a device's memory",
            expected: "EINVAL",
            answer,
        });
    }
    Ok(seen)
}

/// Where no guest has an address, bytes: 52 bits are the most there are, on RISC-V 59.
const BEYOND: u64 = if cfg!(target_arch = "riscv64") {
    1 << 60
} else {
    1 << 52
};

/// Asks for a slot of one page there.
fn beyond_the_last_address(mut vm: Vm) -> Result<Option<Errno>, Refused> {
    let memory =
        HostMemory::new(1).map_err(|errno| Refused(format!("mmap failed with {errno}")))?;
    let region = Region {
        slot: 0,
        flags: 0,
        gpa: BEYOND,
        bytes: PAGE_BYTES,
        offset: 0,
    };
    Ok(vm.set_memory(region, &Arc::new(memory))?.err())
}

/// Asks for a slot with a log over a page of the machine's physical addresses that is no RAM (address 0 of QEMU's `virt`
/// is flash); `None` where such a page cannot be mapped.
#[cfg(target_arch = "aarch64")]
fn log_of_a_device(kvm: &Kvm) -> Result<Option<Option<Errno>>, Refused> {
    use std::os::fd::AsRawFd;

    let Ok(physical) = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/mem")
    else {
        return Ok(None);
    };
    // SAFETY: a new mapping at an address of the kernel's choice; nothing reads or writes it.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE_BYTES as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            physical.as_raw_fd(),
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Ok(None);
    }
    let vm = Vm::new(kvm).map_err(|errno| Refused(format!("KVM_CREATE_VM failed with {errno}")))?;
    let region = kvm_bindings::kvm_userspace_memory_region {
        slot: 0,
        flags: kvm_bindings::KVM_MEM_LOG_DIRTY_PAGES,
        guest_phys_addr: 0,
        memory_size: PAGE_BYTES,
        userspace_addr: page as u64,
    };
    // SAFETY: the mapping outlives the VM, which has no vCPU that could use it.
    let answer = unsafe { vm.fd().set_user_memory_region(region) };
    drop(vm);
    // SAFETY: the mapping made above, used by nobody any more.
    unsafe { libc::munmap(page, PAGE_BYTES as usize) };
    Ok(Some(answer.err().map(Errno::from)))
}

fn ask(vm: RawFd, request: u64) -> Option<Errno> {
    // SAFETY: the kernel gives EFAULT for an address where nothing is mapped, and touches no memory of this process.
    let ret = unsafe { libc::ioctl(vm, request as _, UNREADABLE) };
    (ret < 0).then(Errno::last)
}

/// Asks in a child that does nothing else and ends; its exit code is the errno, 0 for none.
fn in_another_process(ask: impl FnOnce() -> Option<Errno>) -> Result<Option<Errno>, Refused> {
    // SAFETY: the child makes one system call and ends with _exit: it takes no lock and runs no destructor.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = ask().map_or(0, |errno| errno.0);
        // SAFETY: as above.
        unsafe { libc::_exit(code) };
    }
    if child < 0 {
        return Err(Refused(format!("fork failed with {}", Errno::last())));
    }
    let mut status = 0;
    // SAFETY: a child of ours, waited for once.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    if waited != child || !libc::WIFEXITED(status) {
        return Err(Refused::new(
            "a child that makes one call did not end by itself",
        ));
    }
    let code = libc::WEXITSTATUS(status);
    Ok((code != 0).then_some(Errno(code)))
}
