//! LPIs: which exist, to which vCPU they go, which are pending; and their bits in the pending tables.

use std::collections::BTreeMap;

use super::{FIRST_LPI, GuestMemory, ID_BITS};
use crate::trace::Errno;

/// Offsets of registers in a redistributor's frame.
const GICR_CTLR: u64 = 0x0;
const GICR_PROPBASER: u64 = 0x70;
const GICR_PENDBASER: u64 = 0x78;

/// Bit 0 of GICR_CTLR, and bit 62 of GICR_PENDBASER: the pending table is all zeros.
const ENABLE_LPIS: u64 = 1;
const PENDING_TABLE_ZERO: u64 = 1 << 62;

/// An LPI that somebody refers to.
#[derive(Debug, Clone)]
struct Lpi {
    /// Events that are mapped to it, and remembered translations.
    references: u32,
    /// An event is mapped to it.
    mapped: bool,
    vcpu: Option<u32>,
    pending: bool,
}

/// A vCPU's redistributor.
#[derive(Debug, Clone, Default)]
struct Redistributor {
    pendbaser: u64,
    enabled: bool,
}

/// The LPIs of a VM.
#[derive(Debug, Default)]
pub(in crate::replay) struct Lpis {
    lpis: BTreeMap<u32, Lpi>,
    /// Translations that were used: the LPI of a device's event. One that is here keeps its LPI.
    translations: BTreeMap<(u32, u32), u32>,
    propbaser: u64,
    redistributors: BTreeMap<u32, Redistributor>,
}

impl Lpis {
    /// 32 bits of a redistributor's register are written; false where the register is not known here.
    pub(in crate::replay) fn write(
        &mut self,
        vcpu: u32,
        offset: u64,
        value: u64,
        memory: &GuestMemory<'_>,
    ) -> bool {
        let redistributor = self.redistributors.entry(vcpu).or_default();
        let half = |old: u64| {
            let shift = offset % 8 * 8;
            old & !(0xffff_ffff << shift) | (value & 0xffff_ffff) << shift
        };
        match offset & !7 {
            GICR_CTLR if offset == GICR_CTLR => {
                let enable = value & ENABLE_LPIS != 0;
                if enable == redistributor.enabled {
                    return true;
                }
                redistributor.enabled = enable;
                if !enable {
                    self.forget_translations();
                } else if redistributor.pendbaser & PENDING_TABLE_ZERO == 0 {
                    self.read_pending_table(vcpu, memory);
                }
            }
            // Ignored once the vCPU's LPIs are enabled.
            GICR_PROPBASER | GICR_PENDBASER if redistributor.enabled => {}
            GICR_PROPBASER => self.propbaser = half(self.propbaser),
            GICR_PENDBASER => redistributor.pendbaser = half(redistributor.pendbaser),
            _ => return false,
        }
        true
    }

    /// Whether a vCPU's redistributor has LPIs enabled.
    pub(super) fn enabled(&self, vcpu: u32) -> bool {
        self.redistributors
            .get(&vcpu)
            .is_some_and(|redistributor| redistributor.enabled)
    }

    /// Whether an LPI of that number can be: the property table's size bounds them. Source: max_lpis_propbaser().
    pub(super) fn may_be(&self, lpi: u32) -> bool {
        let bits = ((self.propbaser & 0x1f) as u32 + 1).min(ID_BITS);
        (FIRST_LPI..1 << bits).contains(&lpi)
    }

    /// The byte and the bit of an LPI in a vCPU's pending table.
    fn pending_bit(&self, vcpu: u32, lpi: u32) -> (u64, u8) {
        let pendbaser = self
            .redistributors
            .get(&vcpu)
            .map_or(0, |redistributor| redistributor.pendbaser);
        let table = pendbaser & 0x000f_ffff_ffff_0000;
        (table + u64::from(lpi / 8), 1 << (lpi % 8))
    }

    /// An event is mapped to an LPI, which is made if it is not there: then it takes its pending bit out of memory.
    ///
    /// EEXIST where another event is mapped to it and the kernel refuses that. Source: vgic_add_lpi(), vgic_its_map_lpi(),
    /// vgic_v3_lpi_sync_pending_status().
    pub(super) fn map(
        &mut self,
        lpi: u32,
        vcpu: Option<u32>,
        memory: &mut GuestMemory<'_>,
    ) -> Result<(), Errno> {
        if let Some(found) = self.lpis.get_mut(&lpi) {
            if memory.kernel().its_maps_lpi_once() {
                if found.mapped {
                    return Err(Errno::EEXIST);
                }
                found.vcpu = vcpu;
            }
            found.mapped = true;
            found.references += 1;
            return Ok(());
        }
        let properties =
            (self.propbaser & 0x000f_ffff_ffff_f000).wrapping_add(u64::from(lpi - FIRST_LPI));
        memory.read_u8(properties).ok_or(Errno::EFAULT)?;
        let mut pending = false;
        if let Some(vcpu) = vcpu {
            let (gpa, bit) = self.pending_bit(vcpu, lpi);
            let byte = memory.read_u8(gpa).ok_or(Errno::EFAULT)?;
            pending = byte & bit != 0;
            if pending {
                memory.write_u8(gpa, byte & !bit)?;
            }
        }
        let made = Lpi {
            references: 1,
            mapped: true,
            vcpu,
            pending,
        };
        self.lpis.insert(lpi, made);
        Ok(())
    }

    /// An event is no longer mapped to the LPI.
    pub(super) fn unmap(&mut self, lpi: u32) {
        if let Some(found) = self.lpis.get_mut(&lpi) {
            found.mapped = false;
        }
        self.put(lpi);
    }

    /// A reference less; an LPI without one is gone, and its pending state with it.
    fn put(&mut self, lpi: u32) {
        if let Some(found) = self.lpis.get_mut(&lpi) {
            found.references -= 1;
            if found.references == 0 {
                self.lpis.remove(&lpi);
            }
        }
    }

    pub(super) fn set_pending(&mut self, lpi: u32, pending: bool) {
        if let Some(found) = self.lpis.get_mut(&lpi) {
            found.pending = pending;
        }
    }

    /// The LPI goes to another vCPU.
    pub(super) fn set_vcpu(&mut self, lpi: u32, vcpu: u32) {
        if let Some(found) = self.lpis.get_mut(&lpi) {
            found.vcpu = Some(vcpu);
        }
    }

    pub(super) fn remember_translation(&mut self, dev: u32, event: u32, lpi: u32) {
        if let Some(found) = self.lpis.get_mut(&lpi) {
            found.references += 1;
        }
        if let Some(old) = self.translations.insert((dev, event), lpi) {
            self.put(old);
        }
    }

    pub(super) fn forget_translations(&mut self) {
        for lpi in std::mem::take(&mut self.translations).into_values() {
            self.put(lpi);
        }
    }

    /// An MSI whose translation is remembered.
    pub(super) fn signal_cached(&mut self, dev: u32, event: u32) -> bool {
        let Some(&lpi) = self.translations.get(&(dev, event)) else {
            return false;
        };
        self.set_pending(lpi, true);
        true
    }

    /// A vCPU's LPIs take their state from its pending table. Source: its_sync_lpi_pending_table().
    fn read_pending_table(&mut self, vcpu: u32, memory: &GuestMemory<'_>) {
        let mine: Vec<u32> = self
            .lpis
            .iter()
            .filter(|(_, found)| found.vcpu == Some(vcpu))
            .map(|(&lpi, _)| lpi)
            .collect();
        for lpi in mine {
            let (gpa, bit) = self.pending_bit(vcpu, lpi);
            let Some(byte) = memory.read_u8(gpa) else {
                return;
            };
            self.set_pending(lpi, byte & bit != 0);
        }
    }

    /// KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES: bytes that differ alone are written. Source: vgic_v3_save_pending_tables().
    pub(in crate::replay) fn save_pending(
        &self,
        memory: &mut GuestMemory<'_>,
    ) -> Result<(), Errno> {
        for (&lpi, found) in &self.lpis {
            let Some(vcpu) = found.vcpu else { continue };
            let (gpa, bit) = self.pending_bit(vcpu, lpi);
            let byte = memory.read_u8(gpa).ok_or(Errno::EFAULT)?;
            if (byte & bit != 0) != found.pending {
                memory.write_u8(gpa, byte ^ bit)?;
            }
        }
        Ok(())
    }
}
