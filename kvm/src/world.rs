//! The machine as its callers name it, and as the model does.

use dirtysim_check::scenario::Scenario;
use dirtysim_model::words::{Frame, HostPage};

use crate::machine::{Machine, Page};
use crate::region::UserspaceMemoryRegion;

/// What there is to know of the machine for who calls it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) slots: Vec<Slot>,
    pub(crate) page_bytes: u64,
    pub(crate) vcpus: u8,
    pub(crate) has_ring: bool,
    /// Their names, by number.
    pub(crate) devices: Vec<String>,
}

/// A memslot of the machine.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) region: UserspaceMemoryRegion,
    name: String,
    pub(crate) npages: u32,
    host: HostPage,
    frame: Frame,
    /// Where the model has it, which a set-up may have put elsewhere.
    hva: u64,
}

impl Slot {
    fn has(&self, host: HostPage) -> bool {
        (self.host..self.host + self.npages).contains(&host)
    }
}

impl World {
    pub(crate) fn of(machine: &Machine, scenario: &Scenario) -> Self {
        let addresses = &machine.addresses;
        let model = &scenario.machine;
        let page_bytes = model.constants.page_bytes;
        let slots = model.slots.iter().map(|slot| Slot {
            region: UserspaceMemoryRegion {
                slot: slot.number(),
                flags: 0,
                guest_phys_addr: slot.places[0] * page_bytes,
                memory_size: u64::from(slot.npages) * page_bytes,
                userspace_addr: addresses.get(&slot.number()).copied().unwrap_or(slot.hva),
            },
            hva: slot.hva,
            name: slot.name.clone(),
            npages: slot.npages,
            host: slot.host,
            frame: slot.frame,
        });
        Self {
            slots: slots.collect(),
            page_bytes,
            vcpus: model.vcpus.len() as u8,
            has_ring: scenario.ring_entries() != 0,
            devices: machine.device_names(),
        }
    }

    pub(crate) fn slot(&self, number: u32) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.region.slot == number)
    }

    pub(crate) fn slot_name(&self, number: u32) -> &str {
        self.slot(number).map_or("", |slot| &slot.name)
    }

    pub(crate) fn page_name(&self, page: Page) -> String {
        format!("{}:{}", self.slot_name(page.slot), page.offset)
    }

    pub(crate) fn device_name(&self, number: u8) -> &str {
        self.devices
            .get(usize::from(number))
            .map_or("", |name| name)
    }

    /// Where the model has what the VMM has there.
    pub(crate) fn model_address(&self, region: &UserspaceMemoryRegion) -> u64 {
        match self.slot(region.slot) {
            Some(slot) => region
                .userspace_addr
                .wrapping_sub(slot.region.userspace_addr)
                .wrapping_add(slot.hva),
            None => region.userspace_addr,
        }
    }

    /// The host page that a page of a memslot is.
    pub(crate) fn host(&self, page: Page) -> Option<HostPage> {
        let slot = self.slot(page.slot)?;
        Some(slot.host + page.offset as u32)
    }

    /// Frames that stand for host pages, one for each, in ascending order.
    pub(crate) fn frames(&self, hosts: &[HostPage]) -> Vec<Frame> {
        let frame = |host: &HostPage| {
            let slot = self.slots.iter().find(|slot| slot.has(*host))?;
            Some(slot.frame + (*host - slot.host))
        };
        let mut frames: Vec<Frame> = hosts.iter().filter_map(frame).collect();
        frames.sort_unstable();
        frames
    }

    /// The page of a memslot that a host page is.
    pub(crate) fn page(&self, host: HostPage) -> Option<Page> {
        let slot = self.slots.iter().find(|slot| slot.has(host))?;
        Some(Page::new(slot.region.slot, u64::from(host - slot.host)))
    }
}
