//! The ITS's tables in guest memory: written by a save, read by a restore.

use super::{Collection, Device, ENTRY_BYTES, Event, FIRST_LPI, GuestMemory, ID_BITS, Its};
use super::{FRAME_BYTES, INDIRECT, VALID, table_bytes, table_gpa};
use crate::trace::Errno;

/// A device's entry: valid, distance to the next device, its table's address from bit 8 on, event bits less one.
const DEVICE_NEXT_SHIFT: u32 = 49;
const DEVICE_NEXT_MAX: u32 = (1 << 14) - 1;
const DEVICE_TABLE_SHIFT: u32 = 5;
const DEVICE_TABLE_BITS: u64 = (1 << 44) - 1;
const DEVICE_EVENT_BITS: u64 = 0x1f;

/// An event's entry: distance to the next event, LPI, collection.
const EVENT_NEXT_SHIFT: u32 = 48;
const EVENT_NEXT_MAX: u32 = (1 << 16) - 1;
const EVENT_LPI_SHIFT: u32 = 16;

/// A collection's entry: valid, vCPU, id.
const COLLECTION_VCPU_SHIFT: u32 = 16;
/// The vCPU of a collection that stands for none.
const NO_VCPU: u32 = u32::MAX;

/// What a table's entry leads to: the end of the table, or the next entry so many ids further.
enum Next {
    End,
    After(u64),
}

/// Goes through a table's entries. Source: scan_its_table().
fn scan(
    base: u64,
    bytes: u64,
    first_id: u32,
    memory: &mut GuestMemory<'_>,
    mut entry: impl FnMut(u32, u64, &mut GuestMemory<'_>) -> Result<Next, Errno>,
) -> Result<Next, Errno> {
    let (mut gpa, mut left, mut id) = (base, bytes, first_id);
    loop {
        let value = memory.read_u64(gpa).ok_or(Errno::EFAULT)?;
        let Next::After(ids) = entry(id, value, memory)? else {
            return Ok(Next::End);
        };
        let step = ids * ENTRY_BYTES;
        if step >= left {
            return Ok(Next::After(1));
        }
        id += ids as u32;
        gpa += step;
        left -= step;
    }
}

/// Sorts as the kernel's list_sort() does with a comparison that never says «equal»: two of one key change places.
fn sort_by_id<T>(list: &mut [T], id: impl Fn(&T) -> u32) {
    list.reverse();
    list.sort_by_key(id);
}

impl Its {
    /// KVM_DEV_ARM_ITS_SAVE_TABLES. Source: vgic_its_save_tables_v0().
    pub(in crate::replay) fn save_tables(
        &mut self,
        memory: &mut GuestMemory<'_>,
    ) -> Result<(), Errno> {
        if self.baser[0] & VALID != 0 {
            self.save_devices(memory)?;
        }
        if self.baser[1] & VALID != 0 {
            self.save_collections(memory)?;
        }
        Ok(())
    }

    fn save_devices(&mut self, memory: &mut GuestMemory<'_>) -> Result<(), Errno> {
        sort_by_id(&mut self.devices, |device| device.id);
        for index in 0..self.devices.len() {
            let id = self.devices[index].id;
            let Some(gpa) = self.entry_gpa(0, id, memory) else {
                continue;
            };
            sort_by_id(&mut self.devices[index].events, |event| event.id);
            let device = &self.devices[index];
            for (at, event) in device.events.iter().enumerate() {
                let entry = match event.collection {
                    None => 0,
                    Some(collection) => {
                        // Newer kernels pass over events that are saved as zeros.
                        let passes = memory.kernel().its_maps_lpi_once();
                        let next = device.events[at + 1..]
                            .iter()
                            .find(|next| !passes || next.collection.is_some())
                            .map_or(0, |next| (next.id - event.id).min(EVENT_NEXT_MAX));
                        u64::from(next) << EVENT_NEXT_SHIFT
                            | u64::from(event.lpi) << EVENT_LPI_SHIFT
                            | u64::from(collection)
                    }
                };
                memory.write_u64(device.table_gpa + u64::from(event.id) * ENTRY_BYTES, entry)?;
            }
            let next = self.devices[index + 1..]
                .iter()
                .find(|next| self.entry_gpa(0, next.id, memory).is_some())
                .map_or(0, |next| (next.id - id).min(DEVICE_NEXT_MAX));
            let entry = VALID
                | u64::from(next) << DEVICE_NEXT_SHIFT
                | device.table_gpa >> 8 << DEVICE_TABLE_SHIFT
                | u64::from(device.event_bits - 1);
            memory.write_u64(gpa, entry)?;
        }
        Ok(())
    }

    /// One entry more than there are collections, all zeros, where the table has room for it.
    fn save_collections(&self, memory: &mut GuestMemory<'_>) -> Result<(), Errno> {
        let base = table_gpa(self.baser[1]);
        let mut filled = 0;
        for collection in &self.collections {
            let vcpu = collection.vcpu.unwrap_or(NO_VCPU);
            let entry = VALID | u64::from(vcpu) << COLLECTION_VCPU_SHIFT | u64::from(collection.id);
            memory.write_u64(base + filled, entry)?;
            filled += ENTRY_BYTES;
        }
        if filled == table_bytes(self.baser[1]) {
            return Ok(());
        }
        memory.write_u64(base + filled, 0)
    }

    /// KVM_DEV_ARM_ITS_RESTORE_TABLES. What fails takes everything with it. Source: vgic_its_restore_tables_v0().
    pub(in crate::replay) fn restore_tables(
        &mut self,
        memory: &mut GuestMemory<'_>,
    ) -> Result<(), Errno> {
        let mut restored = Ok(());
        if self.baser[1] & VALID != 0 {
            restored = self.restore_collections(memory);
        }
        if restored.is_ok() && self.baser[0] & VALID != 0 {
            restored = self.restore_devices(memory);
            if restored.is_err() {
                self.free_devices();
            }
        }
        if restored.is_err() {
            self.collections_freed();
        }
        restored
    }

    /// Source: vgic_its_restore_cte().
    fn restore_collections(&mut self, memory: &GuestMemory<'_>) -> Result<(), Errno> {
        let base = table_gpa(self.baser[1]);
        for at in 0..table_bytes(self.baser[1]) / ENTRY_BYTES {
            let entry = memory
                .read_u64(base + at * ENTRY_BYTES)
                .ok_or(Errno::EFAULT)?;
            if entry & VALID == 0 {
                return Ok(());
            }
            let vcpu = (entry >> COLLECTION_VCPU_SHIFT) as u32;
            let id = (entry & 0xffff) as u32;
            if vcpu != NO_VCPU && !memory.has_vcpu(vcpu) {
                return Err(Errno::EINVAL);
            }
            if self.collection(id).is_some() {
                return Err(Errno::EEXIST);
            }
            self.entry_gpa(1, id, memory).ok_or(Errno::EINVAL)?;
            self.collections.push(Collection {
                id,
                vcpu: (vcpu != NO_VCPU).then_some(vcpu),
            });
        }
        Ok(())
    }

    fn restore_devices(&mut self, memory: &mut GuestMemory<'_>) -> Result<(), Errno> {
        let baser = self.baser[0];
        let (base, bytes) = (table_gpa(baser), table_bytes(baser));
        if baser & INDIRECT == 0 {
            scan(base, bytes, 0, memory, |id, entry, memory| {
                self.restore_device(id, entry, memory)
            })?;
            return Ok(());
        }
        scan(base, bytes, 0, memory, |index, entry, memory| {
            if entry & VALID == 0 {
                return Ok(Next::After(1));
            }
            let table = entry & 0x000f_ffff_ffff_0000;
            let first = index * (FRAME_BYTES / ENTRY_BYTES) as u32;
            scan(table, FRAME_BYTES, first, memory, |id, entry, memory| {
                self.restore_device(id, entry, memory)
            })
        })?;
        Ok(())
    }

    /// Source: vgic_its_restore_dte(). A device that is there already is there twice then.
    fn restore_device(
        &mut self,
        id: u32,
        entry: u64,
        memory: &mut GuestMemory<'_>,
    ) -> Result<Next, Errno> {
        if entry & VALID == 0 {
            return Ok(Next::After(1));
        }
        let next = entry >> DEVICE_NEXT_SHIFT & u64::from(DEVICE_NEXT_MAX);
        let event_bits = (entry & DEVICE_EVENT_BITS) as u32 + 1;
        if event_bits > ID_BITS || self.entry_gpa(0, id, memory).is_none() {
            return Err(Errno::EINVAL);
        }
        let device = Device {
            id,
            event_bits,
            table_gpa: (entry >> DEVICE_TABLE_SHIFT & DEVICE_TABLE_BITS) << 8,
            events: Vec::new(),
        };
        let (base, bytes) = (device.table_gpa, ENTRY_BYTES << event_bits);
        self.devices.push(device);
        let index = self.devices.len() - 1;
        let restored = scan(base, bytes, 0, memory, |event, entry, memory| {
            self.restore_event(index, event, entry, memory)
        });
        if let Err(error) = restored {
            self.free_device(index);
            return Err(error);
        }
        Ok(if next == 0 {
            Next::End
        } else {
            Next::After(next)
        })
    }

    /// Source: vgic_its_restore_ite().
    fn restore_event(
        &mut self,
        device: usize,
        event: u32,
        entry: u64,
        memory: &mut GuestMemory<'_>,
    ) -> Result<Next, Errno> {
        let lpi = (entry >> EVENT_LPI_SHIFT) as u32;
        let id = (entry & 0xffff) as u32;
        let next = entry >> EVENT_NEXT_SHIFT;
        if lpi == 0 {
            return Ok(Next::After(1));
        }
        if lpi < FIRST_LPI
            || u64::from(event) + next >= 1 << self.devices[device].event_bits
            || self.collection(id).is_none()
            || !Self::has_room(&self.devices[device], event, memory)
        {
            return Err(Errno::EINVAL);
        }
        match self.lpis.map(lpi, self.vcpu_of(id), memory) {
            Ok(()) => self.devices[device].events.push(Event {
                id: event,
                lpi,
                collection: Some(id),
            }),
            // As with MAPTI, the event that has it keeps it.
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(error),
        }
        Ok(if next == 0 {
            Next::End
        } else {
            Next::After(next)
        })
    }
}
