//! A state: everything that steps change.
//!
//! ```
//! use dirtysim_model::machine::{Machine, Op};
//! use dirtysim_model::state::{State, layout::Small};
//! use dirtysim_model::words::{Arch, Kernel};
//!
//! let mut machine = Machine::new(Arch::X86, Kernel::V7_2, false);
//! machine.programs = vec![vec![Op::CreateVcpu]];
//! let state = State::<Small>::new(&machine);
//! assert_eq!((state.threads.len(), state.vcpus.len()), (1, 0));
//! ```

pub mod accounts;
pub mod device;
pub mod entry;
pub mod fields;
pub mod layout;
pub mod pages;
pub mod parts;
pub mod ring;
mod room;
pub mod slot;
pub mod thread;
pub mod vcpu;

pub use device::Device;
pub use room::{NoRoom, Part};
pub use slot::{Life, Slot};
pub use thread::{Answer, Batch, Thread};
pub use vcpu::Vcpu;

use crate::machine::{Machine, Op};
use crate::words::{Arch, HostPage};
use layout::{Array, Layout};
use pages::{Frames, HostPages};

/// VM-wide capabilities.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Caps {
    /// Entries of each vCPU's ring; 0: ring off.
    pub ring_entries: u32,
    /// The rings are backed by the slots' bitmaps.
    pub ring_with_bitmap: bool,
    /// The bits of KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2.
    pub manual_protect: u8,
}

impl Caps {
    /// Whether GET and CLEAR exist. Source: virt/kvm/dirty_ring.c, kvm_use_dirty_bitmap().
    #[must_use]
    #[inline(always)]
    pub fn use_bitmap(self) -> bool {
        self.ring_entries == 0 || self.ring_with_bitmap
    }

    /// KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE.
    #[must_use]
    #[inline(always)]
    pub fn manual(self) -> bool {
        self.manual_protect & 1 != 0
    }

    /// KVM_DIRTY_LOG_INITIALLY_SET, which needs the former.
    #[must_use]
    #[inline(always)]
    pub fn initially_set(self) -> bool {
        self.manual_protect & 3 == 3
    }
}

/// A state of the machine.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct State<L: Layout> {
    /// Capabilities.
    pub caps: Caps,
    /// The memslots, by template.
    pub slots: L::Slots,
    /// Frames with a leaf.
    pub present: Frames<L::Set>,
    /// Frames whose leaf is writable.
    pub writable: Frames<L::Set>,
    /// Frames whose leaf has its D bit set (PML only).
    pub dirty_bit: Frames<L::Set>,
    /// Frames whose leaf is part of a huge mapping.
    pub huge: Frames<L::Set>,
    /// The live bitmap of every slot.
    pub bitmap: Frames<L::Set>,
    /// The scratch half of the bitmaps; whoever holds slots_lock uses it.
    pub scratch: Frames<L::Set>,
    /// Frames whose bits GET has shown and no CLEAR has cleared: user space's copy of the bitmap.
    pub seen: Frames<L::Set>,
    /// Host pages whose bytes differ from the destination's.
    pub stale: HostPages<L::Set>,
    /// Host pages in the VMM's hands, still to be copied.
    pub pending: HostPages<L::Set>,
    /// Host pages copied since the migration began, where a cancel needs to know.
    pub sent: HostPages<L::Set>,
    /// Host pages in the VMM's own log of its own stores.
    pub own_log: HostPages<L::Set>,
    /// Host pages written since they were last reported (a ghost, for `no_spurious_dirty_page`).
    pub written: HostPages<L::Set>,
    /// A host page that was reported though nobody wrote it (a ghost; sticky).
    pub spurious: HostPages<L::Set>,
    /// The vCPUs, by id.
    pub vcpus: L::Vcpus,
    /// The threads of the VMM.
    pub threads: L::Threads,
    /// The devices.
    pub devices: L::Devices,
    /// Who holds slots_lock: a thread's number + 1, or 0.
    pub slots_lock: u8,
    /// Whether somebody holds mmu_lock for write: GET, CLEAR, or a fault where faults exclude each other. Who holds it for
    /// read knows so itself: [`Vcpu::reads_mmu`].
    pub mmu_lock_write: bool,
    /// Whether a kernel writer holds every vCPU's mutex.
    pub vcpu_mutexes: bool,
    /// User space's locks, one bit each.
    pub user_locks: u8,
    /// User space's signals that nobody has waited for yet, one bit each.
    pub signals: u8,
    /// Whether the guest may run, as the VMM sees it.
    pub guest_runs: bool,
    /// Sends that may still fail.
    pub send_failures: u8,
    /// The protocol has come to its end.
    pub finished: bool,
    /// The kernel has oopsed.
    pub crashed: bool,
}

impl<L: Layout> State<L> {
    /// The state before anything happened: no slot, no vCPU, all of memory stale.
    ///
    /// The caller has checked the machine against the layout's capacities.
    #[must_use]
    pub fn new(machine: &Machine) -> Self {
        let mut state = Self {
            guest_runs: true,
            send_failures: machine.send_failures,
            ..Self::default()
        };
        for _ in &machine.slots {
            state.slots.push(Slot::default());
        }
        for _ in &machine.programs {
            state.threads.push(Thread::default());
        }
        for config in &machine.devices {
            state.devices.push(Device {
                runs: config.runs_at_start,
                started: config.runs_at_start,
                budget: config.transfers,
                ..Device::default()
            });
        }
        for slot in &machine.slots {
            state.stale.insert_range(slot.host, slot.npages);
        }
        state
    }

    /// The operation that a thread is at; none after its last.
    #[must_use]
    #[inline(always)]
    pub fn current_op<'m>(&self, machine: &'m Machine, thread: usize) -> Option<&'m Op> {
        machine.programs[thread].get(usize::from(self.threads[thread].op))
    }

    /// The live slot of that number, by template index.
    #[must_use]
    pub fn find_slot(&self, machine: &Machine, number: u32) -> Option<usize> {
        machine
            .slots
            .iter()
            .zip(self.slots.iter())
            .position(|(template, slot)| slot.exists() && template.number() == number)
    }

    /// Whether a slot logs. Source: include/linux/kvm_host.h, kvm_slot_dirty_track_enabled().
    #[must_use]
    #[inline(always)]
    pub fn logs(&self, slot: usize) -> bool {
        self.slots[slot].logging
    }

    /// Whether any slot logs (`nr_memslots_dirty_logging`).
    #[must_use]
    pub fn any_logs(&self) -> bool {
        self.slots
            .iter()
            .any(|slot| slot.logging && slot.life != Life::Absent)
    }

    /// Whether mmu_lock can be taken for write.
    #[must_use]
    #[inline(always)]
    pub fn mmu_lock_free(&self) -> bool {
        !self.mmu_lock_write && !self.vcpus.iter().any(|vcpu| vcpu.reads_mmu)
    }

    /// Whether every vCPU is outside KVM_RUN.
    #[must_use]
    pub fn vcpus_stopped(&self) -> bool {
        self.vcpus.iter().all(Vcpu::is_stopped)
    }

    /// Somebody's bytes have changed at a host page.
    #[inline(always)]
    pub fn store(&mut self, machine: &Machine, host: HostPage) {
        self.stale.insert(host);
        if machine.track_spurious {
            self.written.insert(host);
        }
    }

    /// What the leaves say: present, writable, dirty, huge.
    pub(crate) fn leaves_mut(&mut self) -> [&mut Frames<L::Set>; 4] {
        [
            &mut self.present,
            &mut self.writable,
            &mut self.dirty_bit,
            &mut self.huge,
        ]
    }

    /// The stale TLB entries and leaves that nobody can use any more are dropped: every vCPU is out for good.
    pub(crate) fn forget_mappings(&mut self, machine: &Machine) {
        self.present.clear();
        self.writable.clear();
        if machine.arch != Arch::S390 {
            // s390's GET has still to collect what the leaves say.
            self.dirty_bit.clear();
            self.huge.clear();
        }
        for vcpu in self.vcpus.iter_mut() {
            vcpu.tlb.clear();
        }
    }

    /// Empties every vCPU's TLB.
    pub fn flush_tlbs(&mut self) {
        for vcpu in self.vcpus.iter_mut() {
            vcpu.tlb.clear();
        }
    }
}
