//! The ITS as far as it writes guest memory: which pages each save, restore or command changes.
//!
//! Layout of the tables (Documentation/virt/kvm/devices/arm-vgic-its.rst, "ITS Table ABI REV0"; Linux 6.12): a device's
//! entry is 8 bytes at its id in the flat device table; a collection's is 8 bytes, one after the other, with a zero
//! entry behind the last; an event's is 8 bytes at its id in its device's interrupt translation table; a pending
//! interrupt is one bit at its number in its vCPU's pending table.
//! Order and conditions: arch/arm64/kvm/vgic/vgic-its.c, vgic_its_save_tables_v0(), vgic_its_process_commands(),
//! vgic_its_resolve_lpi(); vgic-v3.c, vgic_v3_save_pending_tables(), vgic_v3_lpi_sync_pending_status(); Linux 6.12.
//! What is written, the model is told; writing and marking is the model's `KernelWrite`.

use std::collections::{BTreeMap, BTreeSet};

use crate::trace::call::ItsCommand;
use crate::trace::{Complaint, Errno, PageRuns};

/// Bytes of a device's, a collection's or an event's entry, and of a register.
const ENTRY_BYTES: u64 = 8;
/// Bytes of a command.
const COMMAND_BYTES: u64 = 32;
/// Bytes of the largest command queue: 256 pages of 4 KiB.
const QUEUE_BYTES_MAX: u64 = 256 * 4096;
/// The width of event ids and of LPI numbers that KVM offers, in bits.
const ID_BITS: u32 = 16;
/// The first LPI.
const FIRST_LPI: u32 = 8192;
/// Bit 63 of GITS_CBASER and GITS_BASERn.
const VALID: u64 = 1 << 63;
/// Bit 62 of GITS_BASERn: a table of two levels.
const INDIRECT: u64 = 1 << 62;

/// Offsets of registers in the ITS's control frame (Arm IHI 0069).
const GITS_CTLR: u64 = 0x0;
const GITS_CBASER: u64 = 0x80;
pub(super) const GITS_CWRITER: u64 = 0x88;
const GITS_CREADR: u64 = 0x90;
const GITS_BASER0: u64 = 0x100;
const GITS_BASER1: u64 = 0x108;

/// Where the tables are, in pages of one slot.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The slot of all of them, in address space 0.
    pub(super) slot: u32,
    /// The device table's first page.
    pub(super) device_table: u64,
    /// The collection table's first page.
    pub(super) collection_table: u64,
    /// The pending tables' first pages, by vCPU.
    pub(super) pending_tables: Vec<u64>,
}

impl Layout {
    /// From an `its_setup` row; every table has at least one page.
    pub(super) fn new(
        slot: u16,
        device: &PageRuns,
        collection: &PageRuns,
        pending: &PageRuns,
    ) -> Result<Self, Complaint> {
        let first = |runs: &PageRuns, what: &str| {
            runs.runs().first().map(|&(first, _)| first).ok_or_else(|| {
                Complaint::row(
                    format!("`{what}` is empty"),
                    "write `[[first page, count]]`",
                )
            })
        };
        Ok(Self {
            slot: u32::from(slot),
            device_table: first(device, "device_table_pages")?,
            collection_table: first(collection, "collection_table_pages")?,
            pending_tables: pending.runs().iter().map(|&(first, _)| first).collect(),
        })
    }
}

/// A device that is mapped.
#[derive(Debug, Clone, Default)]
struct Device {
    event_bits: u32,
    itt_page: u64,
    /// LPI and collection by event.
    events: BTreeMap<u32, (u32, u32)>,
}

/// What SAVE_TABLES left in memory.
#[derive(Debug, Clone, Default)]
struct Tables {
    devices: BTreeMap<u32, Device>,
    collections: BTreeMap<u32, u32>,
}

/// An ITS, as recorded calls set it up.
#[derive(Debug, Default)]
pub(super) struct Its {
    layout: Option<Layout>,
    enabled: bool,
    cbaser: u64,
    baser: [u64; 2],
    cwriter: u64,
    creadr: u64,
    /// The commands that userspace wrote, by their offset in the queue.
    queue: BTreeMap<u64, ItsCommand>,
    tables: Tables,
    saved: Option<Tables>,
    /// LPIs that are pending.
    pending: BTreeSet<u32>,
    /// Bits that are set in the pending tables, by vCPU and LPI.
    pending_in_memory: BTreeSet<(u32, u32)>,
    /// It executed a command that no row tells: what it would write is not known.
    lost: bool,
}

/// Pages of the tables' slot, in the order in which they are written.
pub(super) type Written = Vec<u64>;

impl Its {
    /// The slot of the tables, once it is known.
    pub(super) fn slot(&self) -> Option<u32> {
        self.layout.as_ref().map(|layout| layout.slot)
    }

    /// An `its_setup` row.
    pub(super) fn set_layout(&mut self, layout: Layout) {
        self.layout = Some(layout);
    }

    /// Userspace writes commands.
    pub(super) fn queue(&mut self, offset: u64, commands: &[ItsCommand]) -> Result<(), Complaint> {
        let end = (commands.len() as u64)
            .checked_mul(COMMAND_BYTES)
            .and_then(|bytes| bytes.checked_add(offset));
        if !offset.is_multiple_of(COMMAND_BYTES) || end.is_none_or(|end| end > QUEUE_BYTES_MAX) {
            return Err(Complaint::row(
                format!("{} commands at byte {offset} of the queue", commands.len()),
                "a queue has commands of 32 bytes, and at most 1 MiB",
            ));
        }
        for (command, at) in commands
            .iter()
            .zip((offset..).step_by(COMMAND_BYTES as usize))
        {
            self.queue.insert(at, command.clone());
        }
        Ok(())
    }

    /// A register is written; the pages that commands make the kernel write, or none if the register or a command is
    /// not known here.
    pub(super) fn write(
        &mut self,
        offset: u64,
        value: u64,
        page: u64,
        vcpus: &[u32],
    ) -> Option<Written> {
        match offset {
            // Ignored while the ITS is enabled; a new queue begins empty.
            GITS_CBASER | GITS_BASER0 | GITS_BASER1 if self.enabled => {}
            GITS_CBASER => {
                self.cbaser = value;
                (self.creadr, self.cwriter) = (0, 0);
            }
            GITS_BASER0 => self.baser[0] = value,
            GITS_BASER1 => self.baser[1] = value,
            GITS_CTLR => {
                let wanted = value & 1 != 0;
                let valid = self.cbaser & self.baser[0] & self.baser[1] & VALID != 0;
                self.enabled = wanted && valid;
                return self.process(page, vcpus);
            }
            GITS_CWRITER => {
                let value = value & 0xf_ffe0;
                if value < self.queue_bytes() {
                    self.cwriter = value;
                }
                return self.process(page, vcpus);
            }
            _ => return None,
        }
        Some(Vec::new())
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

    fn process(&mut self, page: u64, vcpus: &[u32]) -> Option<Written> {
        let mut written = Vec::new();
        if !self.enabled {
            return Some(written);
        }
        while self.creadr != self.cwriter {
            match self.queue.get(&self.creadr).cloned() {
                Some(command) => self.execute(&command, page, vcpus, &mut written),
                None => self.lost = true,
            }
            self.creadr = (self.creadr + COMMAND_BYTES) % self.queue_bytes();
        }
        (!self.lost).then_some(written)
    }

    /// A command that is wrong is passed over. Source: vgic_its_cmd_handle_mapd(), _mapc(), _mapi().
    fn execute(&mut self, command: &ItsCommand, page: u64, vcpus: &[u32], written: &mut Written) {
        match *command {
            ItsCommand::Mapc { collection, vcpu } => {
                if fits(self.baser[1], collection) && vcpus.contains(&vcpu) {
                    self.tables.collections.insert(collection, vcpu);
                }
            }
            ItsCommand::Mapd {
                dev,
                event_bits,
                itt_page,
            } => {
                if !fits(self.baser[0], dev) || event_bits > ID_BITS {
                    return;
                }
                let device = Device {
                    event_bits,
                    itt_page,
                    events: BTreeMap::new(),
                };
                if let Some(old) = self.tables.devices.insert(dev, device) {
                    for (lpi, _) in old.events.values() {
                        self.pending.remove(lpi);
                    }
                }
            }
            ItsCommand::Mapti {
                dev,
                event,
                lpi,
                collection,
            } => {
                let Some(device) = self.tables.devices.get_mut(&dev) else {
                    return;
                };
                if u64::from(event) >= 1 << device.event_bits
                    || !(FIRST_LPI..1 << ID_BITS).contains(&lpi)
                    || device.events.contains_key(&event)
                {
                    return;
                }
                device.events.insert(event, (lpi, collection));
                self.take_pending(lpi, collection, page, written);
            }
        }
    }

    /// A new LPI takes its pending bit out of memory.
    fn take_pending(&mut self, lpi: u32, collection: u32, page: u64, written: &mut Written) {
        let Some(&vcpu) = self.tables.collections.get(&collection) else {
            return;
        };
        if self.pending_in_memory.remove(&(vcpu, lpi)) {
            self.pending.insert(lpi);
            written.extend(self.pending_page(vcpu, lpi, page));
        }
    }

    fn pending_page(&self, vcpu: u32, lpi: u32, page: u64) -> Option<u64> {
        let first = self.layout.as_ref()?.pending_tables.get(vcpu as usize)?;
        Some(first + u64::from(lpi / 8) / page)
    }

    /// KVM_SIGNAL_MSI: 1 for an event that is mapped, 0 for one that is not; none where that is not known.
    pub(super) fn signal(&mut self, dev: u32, event: u32) -> Option<Result<u32, Errno>> {
        if self.lost {
            return None;
        }
        if !self.enabled {
            return Some(Err(Errno::EBUSY));
        }
        let mapped = self
            .tables
            .devices
            .get(&dev)
            .and_then(|device| device.events.get(&event))
            .filter(|(_, collection)| self.tables.collections.contains_key(collection));
        Some(Ok(match mapped {
            Some(&(lpi, _)) => {
                self.pending.insert(lpi);
                1
            }
            None => 0,
        }))
    }

    /// The pages that KVM_DEV_ARM_ITS_SAVE_TABLES writes; none where that is not known.
    pub(super) fn save_tables(&mut self, page: u64) -> Option<Written> {
        if self.lost || (self.baser[0] | self.baser[1]) & INDIRECT != 0 {
            return None;
        }
        self.saved = Some(self.tables.clone());
        let mut written = Vec::new();
        let known = self.baser.iter().all(|baser| baser & VALID == 0);
        let Some(layout) = &self.layout else {
            return known.then_some(written);
        };
        let entry = |first: u64, index: u64| first.saturating_add(ENTRY_BYTES * index / page);
        if self.baser[0] & VALID != 0 {
            for (&dev, device) in &self.tables.devices {
                for &event in device.events.keys() {
                    written.push(entry(device.itt_page, u64::from(event)));
                }
                written.push(entry(layout.device_table, u64::from(dev)));
            }
        }
        if self.baser[1] & VALID != 0 {
            let entries = self.tables.collections.len() as u64;
            // One more than there are: the zero entry, where the table has room for it.
            let end = (entries + 1).min(table_bytes(self.baser[1]) / ENTRY_BYTES);
            written.extend((0..end).map(|index| entry(layout.collection_table, index)));
        }
        written.dedup();
        Some(written)
    }

    /// The pages that KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES writes: bytes that differ from memory alone.
    pub(super) fn save_pending(&mut self, page: u64) -> Option<Written> {
        if self.lost {
            return None;
        }
        let mut lpis = BTreeMap::new();
        for device in self.tables.devices.values() {
            for &(lpi, collection) in device.events.values() {
                if let Some(&vcpu) = self.tables.collections.get(&collection) {
                    lpis.insert(lpi, vcpu);
                }
            }
        }
        let mut written = Vec::new();
        for (lpi, vcpu) in lpis {
            let is_pending = self.pending.contains(&lpi);
            if is_pending == self.pending_in_memory.contains(&(vcpu, lpi)) {
                continue;
            }
            if is_pending {
                self.pending_in_memory.insert((vcpu, lpi));
            } else {
                self.pending_in_memory.remove(&(vcpu, lpi));
            }
            written.push(self.pending_page(vcpu, lpi, page)?);
        }
        written.dedup();
        Some(written)
    }

    /// KVM_DEV_ARM_ITS_CTRL_RESET: registers and mappings are gone; memory stays.
    pub(super) fn reset(&mut self) {
        self.enabled = false;
        (self.cbaser, self.cwriter, self.creadr) = (0, 0, 0);
        self.baser = [0; 2];
        self.tables = Tables::default();
        self.pending.clear();
    }

    /// The pages that KVM_DEV_ARM_ITS_RESTORE_TABLES writes: the pending bits that it takes out of memory. None where
    /// no save was recorded.
    ///
    /// EEXIST, with the collections before it restored, where a collection is there already: vgic_its_restore_cte().
    pub(super) fn restore_tables(&mut self, page: u64) -> Option<Result<Written, Errno>> {
        if self.lost {
            return None;
        }
        let saved = self.saved.clone()?;
        for (collection, vcpu) in saved.collections {
            if self.tables.collections.contains_key(&collection) {
                return Some(Err(Errno::EEXIST));
            }
            self.tables.collections.insert(collection, vcpu);
        }
        self.tables.devices.extend(saved.devices);
        let events: Vec<(u32, u32)> = self
            .tables
            .devices
            .values()
            .flat_map(|device| device.events.values().copied())
            .collect();
        let mut written = Vec::new();
        for (lpi, collection) in events {
            self.take_pending(lpi, collection, page, &mut written);
        }
        written.dedup();
        Some(Ok(written))
    }
}

/// Bytes of the table that a GITS_BASERn names: KVM's ITS has pages of 64 KiB.
fn table_bytes(baser: u64) -> u64 {
    ((baser & 0xff) + 1) * 65536
}

/// Whether a flat table has room for an id.
fn fits(baser: u64, id: u32) -> bool {
    baser & VALID != 0 && (u64::from(id) + 1) * ENTRY_BYTES <= table_bytes(baser)
}
