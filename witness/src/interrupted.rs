//! A signal that arrives within `KVM_RESET_DIRTY_RINGS`: beyond lockstep, where a call is never interrupted.
//!
//! From 6.17 on the call looks for a signal before each entry and returns what it has done so far. What is tried here is what becomes of
//! the pages whose entries it has consumed by then: the guest stores to every page again, and a page that leaves no entry was not armed.
//! A call that no signal met, in the same set-up, shows that every page leaves one otherwise.

use std::time::Duration;

use kvm_ioctls::Kvm;

use crate::kvm::ring::{FLAG_DIRTY, FLAG_RESET};
use crate::one_vcpu::{OneVcpu, SLOT};
use crate::refusal::Refused;

/// Pages of the slot: enough that resetting all of their entries takes longer than a timer needs to expire.
const PAGES: u64 = 8192;
/// Room for them beside the reserve.
const RING_BYTES: u64 = 16_384 * 16;
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
    vm: OneVcpu,
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
    guest.vm.store(PAGES)?;
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
        guest.vm.store(PAGES)?;
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
        let cap = (223, "KVM_CAP_DIRTY_LOG_RING_ACQ_REL");
        Ok(Self {
            vm: OneVcpu::new(kvm, cap, RING_BYTES, PAGES)?,
            fetch: 0,
        })
    }

    /// The pages of all entries, each given back.
    fn harvest(&mut self) -> Vec<u64> {
        let mut pages = Vec::new();
        loop {
            let entry = self.vm.ring.read(self.fetch);
            if entry.flags != FLAG_DIRTY || entry.slot != SLOT || entry.offset >= PAGES {
                return pages;
            }
            pages.push(entry.offset);
            self.vm.ring.write_flags(self.fetch, FLAG_RESET);
            self.fetch = self.fetch.wrapping_add(1);
        }
    }

    fn reset(&self) -> Result<u64, Refused> {
        let count = self
            .vm
            .vm
            .reset_dirty_rings()
            .map_err(|errno| Refused(format!("KVM_RESET_DIRTY_RINGS failed with {errno}")))?;
        Ok(u64::from(count.unsigned_abs()))
    }

    /// The same with signals to this thread from `delay` on.
    fn reset_within(&self, delay: Duration) -> Result<u64, Refused> {
        self.vm.alarm.within(delay, || self.reset())
    }
}
