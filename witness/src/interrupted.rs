//! A signal that arrives within `KVM_RESET_DIRTY_RINGS`: beyond lockstep, where a call is never interrupted.
//!
//! From 6.17 on the call looks for a signal before each entry and returns what it has done so far. What is tried here is what becomes of
//! the pages whose entries it has consumed by then: the guest stores to every page again, and a page that leaves no entry was not armed.
//! A call that no signal met, in the same set-up, shows that every page leaves one otherwise.

use std::sync::Arc;
use std::time::Duration;

use kvm_ioctls::Kvm;

use crate::kvm::guest::{self, Access, Program};
use crate::kvm::ring::{FLAG_DIRTY, FLAG_RESET, MapHow};
use crate::kvm::vm::Region;
use crate::kvm::{Alarm, Errno, HostMemory, PAGE_BYTES, RingMap, Vcpu, Vm};
use crate::refusal::Refused;

/// Pages of the slot: enough that resetting all of their entries takes longer than a timer needs to expire.
const PAGES: u64 = 8192;
/// Room for them beside the reserve.
const RING_BYTES: u64 = 16_384 * 16;
const SLOT: u32 = 1;
const RUN_LIMIT: Duration = Duration::from_secs(60);
/// Signals that are tried, each after a time that the one before suggests.
const ATTEMPTS: u32 = 24;
const FIRST_DELAY: Duration = Duration::from_micros(100);

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Entries that were harvested, and had to be reset.
    pub harvested: u64,
    /// Entries that the interrupted call had reset; `None` where no signal ended one before its end.
    pub reset: Option<u64>,
    /// Pages without an entry after every page was stored to again, although a second call had reset the rest.
    pub unrecorded: Vec<u64>,
    /// The same after calls that ran to their end: there must be none.
    pub unrecorded_otherwise: u64,
}

struct Guest {
    vm: Vm,
    vcpu: Vcpu,
    own: Arc<HostMemory>,
    ring: RingMap,
    alarm: Alarm,
    fetch: u32,
}

/// Interrupts calls until one has reset a part of its entries, and says what followed.
///
/// # Errors
/// The kernel refuses what this needs, or a guest hangs.
pub fn interrupted_reset(kvm: &Kvm) -> Result<Report, Refused> {
    let mut guest = Guest::new(kvm)?;
    let mut report = Report {
        harvested: PAGES,
        reset: None,
        unrecorded: Vec::new(),
        unrecorded_otherwise: 0,
    };
    let mut delay = FIRST_DELAY;
    guest.store_everywhere()?;
    let mut harvested = guest.harvest();
    for _ in 0..ATTEMPTS {
        let first = guest.reset_within(delay)?;
        let rest = guest.reset()?;
        if first + rest != harvested.len() as u64 {
            return Err(Refused(format!(
                "{} entries were harvested, {first} and {rest} reset",
                harvested.len()
            )));
        }
        guest.store_everywhere()?;
        harvested = guest.harvest();
        let mut armed = vec![false; PAGES as usize];
        for page in &harvested {
            armed[*page as usize] = true;
        }
        let unrecorded: Vec<u64> = (0..PAGES).filter(|page| !armed[*page as usize]).collect();
        if (1..PAGES).contains(&first) && rest > 0 {
            report.reset = Some(first);
            report.unrecorded = unrecorded;
            return Ok(report);
        }
        report.unrecorded_otherwise += unrecorded.len() as u64;
        delay = if first == 0 {
            delay * 3 / 2
        } else {
            delay * 2 / 3
        };
    }
    Ok(report)
}

impl Guest {
    fn new(kvm: &Kvm) -> Result<Self, Refused> {
        let refused =
            |what: &'static str| move |errno: Errno| Refused(format!("{what} failed with {errno}"));
        let mut vm = Vm::new(kvm).map_err(refused("KVM_CREATE_VM"))?;
        vm.enable_cap(223, 0, RING_BYTES)
            .map_err(refused("KVM_CAP_DIRTY_LOG_RING_ACQ_REL"))?;
        let own = Arc::new(HostMemory::new(guest::OWN_PAGES).map_err(refused("mmap"))?);
        let data = Arc::new(HostMemory::new(PAGES).map_err(refused("mmap"))?);
        guest::install(&own, guest::OWN_GPA)?;
        for (slot, flags, gpa, pages, memory) in [
            (0, 0, guest::OWN_GPA, guest::OWN_PAGES, &own),
            (SLOT, 1, guest::DATA_GPA, PAGES, &data),
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
        let ring = RingMap::map(vcpu.raw_fd(), MapHow::usual(RING_BYTES))
            .map_err(refused("mmap of the ring"))?;
        let alarm = Alarm::new().map_err(refused("timer_create"))?;
        Ok(Self {
            vm,
            vcpu,
            own,
            ring,
            alarm,
            fetch: 0,
        })
    }

    fn store_everywhere(&mut self) -> Result<(), Refused> {
        let program = Program {
            access: Access::Store { bytes: 8, value: 1 },
            runs: vec![(guest::DATA_GPA, PAGES)],
        };
        guest::begin(&self.vcpu, &self.own, guest::OWN_GPA, &program)?;
        let end = self.vcpu.run(&self.alarm, RUN_LIMIT);
        if !guest::done(&mut self.vcpu, end) {
            return Err(Refused(format!("the guest ended with {end:?}")));
        }
        self.vcpu.complete_exit();
        Ok(())
    }

    /// The pages of all entries, each given back.
    fn harvest(&mut self) -> Vec<u64> {
        let mut pages = Vec::new();
        loop {
            let entry = self.ring.read(self.fetch);
            if entry.flags != FLAG_DIRTY || entry.slot != SLOT || entry.offset >= PAGES {
                return pages;
            }
            pages.push(entry.offset);
            self.ring.write_flags(self.fetch, FLAG_RESET);
            self.fetch = self.fetch.wrapping_add(1);
        }
    }

    fn reset(&self) -> Result<u64, Refused> {
        let count = self
            .vm
            .reset_dirty_rings()
            .map_err(|errno| Refused(format!("KVM_RESET_DIRTY_RINGS failed with {errno}")))?;
        Ok(u64::from(count.unsigned_abs()))
    }

    /// The same with signals to this thread from `delay` on.
    fn reset_within(&self, delay: Duration) -> Result<u64, Refused> {
        self.alarm.within(delay, || self.reset())
    }
}
