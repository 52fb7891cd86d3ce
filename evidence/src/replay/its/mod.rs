//! The ITS and the LPIs, as far as they decide which guest memory KVM writes and what its calls answer.
//!
//! Everything that the ITS takes from guest memory it reads there: commands from its queue, tables at a restore, pending bits. What it
//! writes is told to the model, whose `KernelWrite` does the writing and marking.
//!
//! Not here: delivery. No guest of this project enables the distributor or an LPI, so that a pending LPI stays pending until a command or an
//! unmapping takes it. Tables of two levels are; GICv4 is not.
//!
//! Source: arch/arm64/kvm/vgic/vgic-its.c and vgic-v3.c, Linux 6.12.117; formats: Documentation/virt/kvm/devices/arm-vgic-its.rst, "ITS Table
//! ABI REV0", and Arm IHI 0069.

mod commands;
mod lpis;
mod memory;
mod tables;

use crate::trace::Errno;
use lpis::Lpis;
pub(super) use memory::GuestMemory;

/// Bytes of a frame of registers, and alignment of every frame of the interrupt controller's.
pub(super) const FRAME_BYTES: u64 = 65536;
/// Bytes of a device's, a collection's or an event's entry.
const ENTRY_BYTES: u64 = 8;
/// Ids of devices, events and collections have this many bits, LPI numbers at most as many.
const ID_BITS: u32 = 16;
/// The first LPI.
const FIRST_LPI: u32 = 8192;
/// Bit 63 of GITS_CBASER and GITS_BASERn.
const VALID: u64 = 1 << 63;
/// Bit 62 of GITS_BASER0: a table of two levels.
const INDIRECT: u64 = 1 << 62;
/// The bits of GITS_BASERn that cannot be written: type and entry size.
const BASER_READ_ONLY: u64 = 0x7 << 56 | 0x1f << 48;

/// Offsets of registers in the ITS's control frame (Arm IHI 0069).
const GITS_CTLR: u64 = 0x0;
const GITS_CBASER: u64 = 0x80;
pub(super) const GITS_CWRITER: u64 = 0x88;
const GITS_CREADR: u64 = 0x90;
const GITS_BASER0: u64 = 0x100;
const GITS_BASER1: u64 = 0x108;
const GITS_BASER7: u64 = 0x138;

/// An event of a device, mapped to an LPI.
#[derive(Debug, Clone)]
struct Event {
    id: u32,
    lpi: u32,
    /// Its collection; none once that was unmapped.
    collection: Option<u32>,
}

/// A device that is mapped.
#[derive(Debug, Clone)]
struct Device {
    id: u32,
    event_bits: u32,
    /// Where its interrupt translation table is.
    table_gpa: u64,
    events: Vec<Event>,
}

/// A collection, with the vCPU that it stands for; none when an event named it before MAPC did.
#[derive(Debug, Clone)]
struct Collection {
    id: u32,
    vcpu: Option<u32>,
}

/// An ITS. Lists are in the kernel's order: it saves collections in it, and finds the first of two devices with one id.
#[derive(Debug, Default)]
pub(super) struct Its {
    enabled: bool,
    cbaser: u64,
    baser: [u64; 2],
    cwriter: u64,
    creadr: u64,
    devices: Vec<Device>,
    collections: Vec<Collection>,
    /// The VM's LPIs and its redistributors' part of them.
    pub(super) lpis: Lpis,
}

impl Its {
    /// A register is written, by userspace or by the guest; none where the register is not known here.
    pub(super) fn write(
        &mut self,
        offset: u64,
        value: u64,
        by_userspace: bool,
        memory: &mut GuestMemory<'_>,
    ) -> Option<Result<(), Errno>> {
        match offset {
            // Ignored while the ITS is enabled; a new queue begins empty.
            GITS_CBASER if self.enabled => {}
            GITS_CBASER => {
                self.cbaser = value & !0xf000;
                (self.creadr, self.cwriter) = (0, 0);
            }
            GITS_BASER0..=GITS_BASER7 if self.enabled || offset > GITS_BASER1 => {}
            GITS_BASER0 => self.write_baser(0, value & !BASER_READ_ONLY),
            GITS_BASER1 => self.write_baser(1, value & !BASER_READ_ONLY & !INDIRECT),
            GITS_CTLR => self.write_ctlr(value, memory),
            GITS_CWRITER => {
                let value = value & 0xf_ffe0;
                if value < self.queue_bytes() {
                    self.cwriter = value;
                    self.process(memory);
                }
            }
            GITS_CREADR if by_userspace => {
                let value = value & 0xf_ffe0;
                if self.enabled {
                    return Some(Err(Errno::EBUSY));
                }
                if value >= self.queue_bytes() {
                    return Some(Err(Errno::EINVAL));
                }
                self.creadr = value;
            }
            GITS_CREADR => {}
            _ => return None,
        }
        Some(Ok(()))
    }

    /// What a table register's new value makes of it: with another value all that the table held is forgotten.
    fn write_baser(&mut self, index: usize, value: u64) {
        if self.baser[index] == value {
            return;
        }
        self.baser[index] = value;
        if index == 0 {
            self.free_devices();
        } else {
            self.collections_freed();
        }
        self.lpis.forget_translations();
    }

    fn write_ctlr(&mut self, value: u64, memory: &mut GuestMemory<'_>) {
        let enable = value & 1 != 0;
        if !self.enabled && enable && self.cbaser & self.baser[0] & self.baser[1] & VALID == 0 {
            return;
        }
        self.enabled = enable;
        if !enable {
            self.lpis.forget_translations();
        }
        self.process(memory);
    }

    /// GITS_CREADR.
    pub(super) fn creadr(&self) -> u64 {
        self.creadr
    }

    /// A register's value, where it is known here.
    pub(super) fn read(&self, offset: u64) -> Option<u64> {
        match offset {
            GITS_CWRITER => Some(self.cwriter),
            GITS_CREADR => Some(self.creadr),
            _ => None,
        }
    }

    fn queue_bytes(&self) -> u64 {
        ((self.cbaser & 0xff) + 1) * 4096
    }

    /// KVM_DEV_ARM_ITS_CTRL_RESET: registers and mappings are gone; memory stays.
    pub(super) fn reset(&mut self) {
        self.enabled = false;
        (self.cbaser, self.cwriter, self.creadr) = (0, 0, 0);
        self.baser[0] &= !VALID;
        self.baser[1] &= !VALID;
        self.free_devices();
        self.collections_freed();
    }

    /// KVM_SIGNAL_MSI to this ITS's doorbell: 1 for an event that is mapped, 0 for one that is not.
    ///
    /// A translation that was used before answers by itself: vgic_its_inject_cached_translation().
    pub(super) fn signal(&mut self, dev: u32, event: u32) -> Result<u32, Errno> {
        if self.lpis.signal_cached(dev, event) {
            return Ok(1);
        }
        self.trigger(dev, event).map(u32::from)
    }

    /// Makes an event's LPI pending; false where the event leads nowhere. Source: vgic_its_trigger_msi(), vgic_its_resolve_lpi().
    fn trigger(&mut self, dev: u32, event: u32) -> Result<bool, Errno> {
        if !self.enabled {
            return Err(Errno::EBUSY);
        }
        let Some(found) = self.event(dev, event) else {
            return Ok(false);
        };
        let lpi = found.lpi;
        let Some(vcpu) = found.collection.and_then(|id| self.vcpu_of(id)) else {
            return Ok(false);
        };
        if !self.lpis.enabled(vcpu) {
            return Err(Errno::EBUSY);
        }
        self.lpis.remember_translation(dev, event, lpi);
        self.lpis.set_pending(lpi, true);
        Ok(true)
    }

    fn device(&self, id: u32) -> Option<usize> {
        self.devices.iter().position(|device| device.id == id)
    }

    fn event(&self, dev: u32, event: u32) -> Option<&Event> {
        let device = &self.devices[self.device(dev)?];
        device.events.iter().find(|found| found.id == event)
    }

    fn collection(&self, id: u32) -> Option<usize> {
        self.collections.iter().position(|found| found.id == id)
    }

    /// The vCPU behind a collection that is there.
    fn vcpu_of(&self, collection: u32) -> Option<u32> {
        self.collections[self.collection(collection)?].vcpu
    }

    /// Source: vgic_its_free_device().
    fn free_device(&mut self, index: usize) {
        let device = self.devices.remove(index);
        for event in &device.events {
            self.lpis.unmap(event.lpi);
        }
        self.lpis.forget_translations();
    }

    fn free_devices(&mut self) {
        while !self.devices.is_empty() {
            self.free_device(0);
        }
    }

    /// Every collection goes; events keep their LPIs and lose their collections. Source: vgic_its_free_collection_list().
    fn collections_freed(&mut self) {
        while let Some(collection) = self.collections.first() {
            self.free_collection(collection.id);
        }
    }

    fn free_collection(&mut self, id: u32) {
        let Some(index) = self.collection(id) else {
            return;
        };
        for device in &mut self.devices {
            for event in &mut device.events {
                if event.collection == Some(id) {
                    event.collection = None;
                }
            }
        }
        self.collections.remove(index);
    }

    /// Where a table has the entry of an id; none where it has no room for it, or no memory. Source: vgic_its_check_id().
    fn entry_gpa(&self, table: usize, id: u32, memory: &GuestMemory<'_>) -> Option<u64> {
        let baser = self.baser[table];
        if id >= 1 << ID_BITS {
            return None;
        }
        let base = table_gpa(baser);
        let id = u64::from(id);
        let gpa = if baser & INDIRECT == 0 {
            (id < table_bytes(baser) / ENTRY_BYTES).then(|| base + id * ENTRY_BYTES)?
        } else {
            let of_page = FRAME_BYTES / ENTRY_BYTES;
            let index = id / of_page;
            if index >= table_bytes(baser) / 8 {
                return None;
            }
            let entry = memory.read_u64(base + index * 8)?;
            if entry & VALID == 0 {
                return None;
            }
            (entry & 0x000f_ffff_ffff_0000) + id % of_page * ENTRY_BYTES
        };
        memory.is_visible(gpa).then_some(gpa)
    }

    /// Whether a device's table has room, and memory, for an event. Source: vgic_its_check_event_id().
    fn has_room(device: &Device, event: u32, memory: &GuestMemory<'_>) -> bool {
        u64::from(event) < 1 << device.event_bits
            && memory.is_visible(device.table_gpa + u64::from(event) * ENTRY_BYTES)
    }
}

/// Bytes of the table that a GITS_BASERn names: KVM's ITS has pages of 64 KiB.
fn table_bytes(baser: u64) -> u64 {
    ((baser & 0xff) + 1) * FRAME_BYTES
}

/// Where the table is: bits 47 to 16 as they stand, and bits 51 to 48 of the address in bits 15 to 12.
fn table_gpa(baser: u64) -> u64 {
    baser & 0x0000_ffff_ffff_0000 | (baser >> 12 & 0xf) << 48
}
