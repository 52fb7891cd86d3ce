//! What the VM's ioctls refuse before they look at dirty logging: an argument that cannot be read, and a caller with another address
//! space. No trace has a call for these.

use std::os::fd::RawFd;

use kvm_ioctls::Kvm;

use super::vm::Vm;
use super::{Errno, sys};
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
    Ok(seen)
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
