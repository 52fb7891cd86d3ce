//! A vCPU: its ring, and `KVM_RUN` with a time limit.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use kvm_ioctls::VcpuFd;

use super::ring::RingMap;
use super::{Alarm, Errno, PAGE_BYTES, Sys, sys};

/// `KVM_EXIT_IO`, `KVM_EXIT_MMIO` and `KVM_EXIT_DIRTY_RING_FULL`.
pub const EXIT_IO: u32 = 2;
/// See [`EXIT_IO`].
pub const EXIT_MMIO: u32 = 6;
/// See [`EXIT_IO`].
pub const EXIT_DIRTY_RING_FULL: u32 = 31;

/// More parts than an access that leaves the guest has.
const PARTS_MAX: u32 = 8;

/// How `KVM_RUN` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// It returned 0 with this exit reason.
    Exit(u32),
    /// It returned an errno. `EINTR` is a signal or `immediate_exit`.
    Errno(Errno),
}

/// A virtual processor.
pub struct Vcpu {
    fd: VcpuFd,
    id: u64,
    ring: Option<RingMap>,
}

impl Vcpu {
    pub(super) fn new(fd: VcpuFd, id: u64) -> Self {
        Self { fd, id, ring: None }
    }

    /// The id that it was created with.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The file, for the calls that kvm-ioctls has.
    #[must_use]
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// The file's number, for mappings.
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Keeps a mapping of the ring, in place of an earlier one.
    pub fn keep_ring(&mut self, map: RingMap) -> &RingMap {
        self.ring.insert(map)
    }

    /// The mapped ring.
    #[must_use]
    pub fn ring(&self) -> Option<&RingMap> {
        self.ring.as_ref()
    }

    /// `exit_reason` as the last `KVM_RUN` left it.
    #[must_use]
    pub fn exit_reason(&mut self) -> u32 {
        self.fd.get_kvm_run().exit_reason
    }

    fn enter(&mut self) -> RunEnd {
        // SAFETY: the request takes no argument.
        match unsafe { sys::ioctl_value(self.fd.as_raw_fd(), sys::KVM_RUN, 0) } {
            Ok(_) => RunEnd::Exit(self.fd.get_kvm_run().exit_reason),
            Err(errno) => RunEnd::Errno(errno),
        }
    }

    /// `KVM_RUN`, interrupted after `limit`.
    pub fn run(&mut self, alarm: &Alarm, limit: Duration) -> RunEnd {
        alarm.within(limit, || self.enter())
    }

    /// `KVM_RUN` without a limit of its own: for a thread that another interrupts with [`super::alarm::signal`].
    pub fn run_until_signalled(&mut self) -> RunEnd {
        self.enter()
    }

    /// Lets KVM finish the port or memory access of the last exit without entering the guest: all parts of it, where it goes over a page's
    /// end.
    pub fn complete_exit(&mut self) -> RunEnd {
        self.fd.set_kvm_immediate_exit(1);
        let mut end = self.enter();
        for _ in 0..PARTS_MAX {
            if end != RunEnd::Exit(EXIT_MMIO) {
                break;
            }
            end = self.enter();
        }
        self.fd.set_kvm_immediate_exit(0);
        end
    }

    /// `KVM_PRE_FAULT_MEMORY`: its answer, and how many pages it went through.
    pub fn pre_fault(&self, gpa: u64, npages: u64) -> (Sys<()>, u64) {
        #[repr(C)]
        struct PreFault {
            gpa: u64,
            size: u64,
            flags: u64,
            padding: [u64; 5],
        }
        let mut range = PreFault {
            gpa,
            size: npages.saturating_mul(PAGE_BYTES),
            flags: 0,
            padding: [0; 5],
        };
        let before = range.size;
        // SAFETY: the structure is that of the request.
        let result = unsafe {
            sys::ioctl_struct(self.fd.as_raw_fd(), sys::KVM_PRE_FAULT_MEMORY, &mut range)
        };
        (
            result.map(|_| ()),
            before.saturating_sub(range.size) / PAGE_BYTES,
        )
    }

    /// Sets what makes the next `KVM_RUN` return `EINTR` at once, or takes it back.
    pub fn set_immediate_exit(&mut self, on: bool) {
        self.fd.set_kvm_immediate_exit(u8::from(on));
    }

    /// Answers the load of an MMIO exit, whose bytes the next `KVM_RUN` hands to the guest; false where it was no load.
    pub fn answer_load(&mut self, value: u64) -> bool {
        let run = self.fd.get_kvm_run();
        if run.exit_reason != EXIT_MMIO {
            return false;
        }
        // SAFETY: the union holds the MMIO structure after an MMIO exit.
        let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
        if mmio.is_write != 0 {
            return false;
        }
        mmio.data = value.to_le_bytes();
        true
    }

    /// Where an MMIO exit went, bytes of guest physical address.
    #[must_use]
    pub fn mmio_address(&mut self) -> u64 {
        let run = self.fd.get_kvm_run();
        if run.exit_reason != EXIT_MMIO {
            return 0;
        }
        // SAFETY: the union holds the MMIO structure after an MMIO exit.
        unsafe { run.__bindgen_anon_1.mmio.phys_addr }
    }
}
