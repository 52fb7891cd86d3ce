//! A VM with one vCPU, its ring, and a slot that logs: for what is tried beyond lockstep.

use std::sync::Arc;
use std::time::Duration;

use kvm_ioctls::Kvm;

use crate::kvm::guest::{self, Access, Program};
use crate::kvm::ring::MapHow;
use crate::kvm::vm::Region;
use crate::kvm::{Alarm, Errno, HostMemory, PAGE_BYTES, RingMap, RunEnd, Vcpu, Vm};
use crate::refusal::Refused;

/// The number of the slot that logs; it begins at [`guest::DATA_GPA`].
pub(crate) const SLOT: u32 = 1;
/// Longer than any of these guests runs.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// The VM, with what it needs to live.
pub(crate) struct OneVcpu {
    pub(crate) vm: Vm,
    pub(crate) vcpu: Vcpu,
    pub(crate) ring: RingMap,
    pub(crate) alarm: Alarm,
    own: Arc<HostMemory>,
}

impl OneVcpu {
    /// With a ring of so many bytes, by the capability of a number, and so many pages that are logged.
    ///
    /// # Errors
    /// The kernel refuses what this needs.
    pub(crate) fn new(
        kvm: &Kvm,
        (cap, name): (u32, &'static str),
        ring_bytes: u64,
        pages: u64,
    ) -> Result<Self, Refused> {
        let refused =
            |what: &'static str| move |errno: Errno| Refused(format!("{what} failed with {errno}"));
        let mut vm = Vm::new(kvm).map_err(refused("KVM_CREATE_VM"))?;
        vm.enable_cap(cap, 0, ring_bytes).map_err(refused(name))?;
        let own = Arc::new(HostMemory::new(guest::OWN_PAGES).map_err(refused("mmap"))?);
        let data = Arc::new(HostMemory::new(pages).map_err(refused("mmap"))?);
        guest::install(&own, guest::OWN_GPA)?;
        for (slot, flags, gpa, pages, memory) in [
            (0, 0, guest::OWN_GPA, guest::OWN_PAGES, &own),
            (SLOT, 1, guest::DATA_GPA, pages, &data),
        ] {
            let region = Region {
                slot,
                flags,
                gpa,
                bytes: pages * PAGE_BYTES,
                offset: 0,
            };
            vm.set_memory(region, memory)?
                .map_err(refused("KVM_SET_USER_MEMORY_REGION"))?;
        }
        let vcpu = vm.create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
        guest::init_vcpu(kvm, &vm, &vcpu)?;
        let ring = RingMap::map(vcpu.raw_fd(), MapHow::usual(ring_bytes))
            .map_err(refused("mmap of the ring"))?;
        let alarm = Alarm::new().map_err(refused("timer_create"))?;
        Ok(Self {
            vm,
            vcpu,
            ring,
            alarm,
            own,
        })
    }

    /// Gives the guest a program, to be run from its beginning.
    pub(crate) fn begin(&self, program: &Program) -> Result<(), Refused> {
        guest::begin(&self.vcpu, &self.own, guest::OWN_GPA, program)
    }

    /// Lets the guest run until it leaves.
    pub(crate) fn run(&mut self) -> RunEnd {
        self.vcpu.run(&self.alarm, RUN_LIMIT)
    }

    /// Lets the guest store once to each of the first pages of the slot.
    pub(crate) fn store(&mut self, pages: u64) -> Result<(), Refused> {
        self.begin(&Program {
            access: Access::Store { bytes: 8, value: 1 },
            runs: vec![(guest::DATA_GPA, pages)],
        })?;
        let end = self.run();
        if !guest::done(&mut self.vcpu, end) {
            return Err(Refused(format!("the guest's stores ended with {end:?}")));
        }
        self.vcpu.complete_exit();
        Ok(())
    }
}
