//! Which pages an ITS save writes: from the commands that user space gave it and from where its tables lie.
//!
//! Source: Documentation/virt/kvm/devices/arm-vgic-its.rst (table layout, 8-byte entries); arch/arm64/kvm/vgic/vgic-its.c,
//! vgic_its_save_device_tables(), vgic_its_save_itt(), vgic_its_save_collection_table(); vgic-v3.c, vgic_v3_save_pending_tables().

use std::collections::{BTreeMap, BTreeSet};

use crate::trace::PageRuns;
use crate::trace::call::ItsCommand;

/// Bytes of a device, translation or collection table entry.
const ENTRY_BYTES: u64 = 8;

/// An ITS, as far as its tables in guest memory go.
#[derive(Debug, Clone, Default)]
pub struct Its {
    /// The slot with the tables.
    slot: u16,
    device_table: u64,
    collection_table: u64,
    /// The first page of each vCPU's pending table.
    pending_tables: Vec<u64>,
    /// Commands in the queue that CWRITER has not reached.
    queued: Vec<(u64, ItsCommand)>,
    /// Devices, with the page of their translation table.
    devices: BTreeMap<u32, u64>,
    /// Events of devices, with their interrupt and collection.
    events: BTreeMap<(u32, u32), (u32, u32)>,
    /// Collections, with their vCPU.
    collections: BTreeMap<u32, u32>,
    /// Interrupts that are pending, by vCPU.
    pending: BTreeSet<(u32, u32)>,
    /// The pending bits as guest memory has them.
    saved: BTreeSet<(u32, u32)>,
}

/// Bytes of one command.
const COMMAND_BYTES: u64 = 32;

impl Its {
    /// An ITS whose tables lie in `slot`; the first run of each list is where its table begins, the pending tables' runs
    /// are the vCPUs'.
    #[must_use]
    pub fn new(slot: u16, device: &PageRuns, collection: &PageRuns, pending: &PageRuns) -> Self {
        let first = |runs: &PageRuns| runs.runs().first().map_or(0, |(first, _)| *first);
        Self {
            slot,
            device_table: first(device),
            collection_table: first(collection),
            pending_tables: pending.runs().iter().map(|(first, _)| *first).collect(),
            ..Self::default()
        }
    }

    /// The slot with the tables.
    #[must_use]
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// User space has written commands to the queue, the first at byte `offset` of it.
    pub fn queue(&mut self, offset: u64, commands: &[ItsCommand]) {
        for (index, command) in commands.iter().enumerate() {
            self.queued
                .push((offset + index as u64 * COMMAND_BYTES, command.clone()));
        }
    }

    /// GITS_CWRITER is written: the commands before it are carried out. Answers what GITS_CREADR says then.
    pub fn carry_out(&mut self, writer: u64) -> u64 {
        let queued = std::mem::take(&mut self.queued);
        for (offset, command) in queued {
            if offset >= writer {
                self.queued.push((offset, command));
                continue;
            }
            match command {
                ItsCommand::Mapc { collection, vcpu } => {
                    self.collections.insert(collection, vcpu);
                }
                ItsCommand::Mapd { dev, itt_page, .. } => {
                    self.devices.insert(dev, itt_page);
                }
                ItsCommand::Mapti {
                    dev,
                    event,
                    lpi,
                    collection,
                } => {
                    self.events.insert((dev, event), (lpi, collection));
                }
            }
        }
        writer
    }

    /// The pages that ITS_SAVE_TABLES writes, in order: each device's translation entries, then the device's own entry;
    /// then the collections and the empty entry that ends them.
    #[must_use]
    pub fn save_tables(&self, page_bytes: u64) -> Vec<u64> {
        let mut pages = Vec::new();
        for (dev, itt_page) in &self.devices {
            for (_, event) in self.events.keys().filter(|(of, _)| of == dev) {
                pages.push(itt_page + u64::from(*event) * ENTRY_BYTES / page_bytes);
            }
            pages.push(self.device_table + u64::from(*dev) * ENTRY_BYTES / page_bytes);
        }
        for index in 0..=self.collections.len() as u64 {
            pages.push(self.collection_table + index * ENTRY_BYTES / page_bytes);
        }
        pages.dedup();
        pages
    }

    /// KVM_SIGNAL_MSI: 1 if the event is mapped, so that its interrupt is pending now.
    pub fn signal(&mut self, dev: u32, event: u32) -> Option<u32> {
        let (lpi, collection) = self.events.get(&(dev, event))?;
        let vcpu = self.collections.get(collection)?;
        self.pending.insert((*vcpu, *lpi));
        Some(1)
    }

    /// The pages that SAVE_PENDING_TABLES writes: those of bytes that differ from what memory has.
    pub fn save_pending(&mut self, page_bytes: u64) -> Vec<u64> {
        let mut pages: Vec<u64> = self
            .pending
            .symmetric_difference(&self.saved)
            .filter_map(|(vcpu, lpi)| {
                let table = self.pending_tables.get(*vcpu as usize)?;
                Some(table + u64::from(*lpi) / 8 / page_bytes)
            })
            .collect();
        pages.dedup();
        self.saved.clone_from(&self.pending);
        pages
    }
}
