//! The interrupt controller of an arm64 VM: vGICv3 and ITS as KVM devices, and the ITS's commands.
//!
//! These are KVM's writers of guest memory without a vCPU: `KVM_DEV_ARM_ITS_SAVE_TABLES`, `KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES` and
//! `KVM_DEV_ARM_ITS_RESTORE_TABLES`.
//!
//! Source: Documentation/virt/kvm/devices/arm-vgic-v3.rst and arm-vgic-its.rst; commands: the GIC architecture specification (IHI 0069), 5.3.

use kvm_bindings::{
    KVM_DEV_ARM_ITS_CTRL_RESET, KVM_DEV_ARM_ITS_RESTORE_TABLES, KVM_DEV_ARM_ITS_SAVE_TABLES,
    KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_GRP_ITS_REGS, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
    KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES, KVM_MSI_VALID_DEVID, kvm_create_device, kvm_device_attr,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, kvm_msi,
};
use kvm_ioctls::DeviceFd;

use super::{Sys, Vm};

/// The two devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The distributor and the redistributors.
    VgicV3,
    /// The interrupt translation service.
    VgicIts,
}

/// `GITS_CREADR`, in the ITS's control frame, bytes.
pub const GITS_CREADR: u64 = 0x90;

/// `GITS_TRANSLATER`: in the frame after the control frame, bytes from the ITS's base.
pub const GITS_TRANSLATER: u64 = 0x1_0040;

/// A device of the interrupt controller.
pub struct GicDevice(DeviceFd);

impl GicDevice {
    /// `KVM_CREATE_DEVICE`.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn new(vm: &Vm, kind: Kind) -> Sys<Self> {
        let type_ = match kind {
            Kind::VgicV3 => kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
            Kind::VgicIts => kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS,
        };
        let mut device = kvm_create_device {
            type_,
            ..Default::default()
        };
        Ok(Self(vm.fd().create_device(&mut device)?))
    }

    /// `KVM_SET_DEVICE_ATTR` whose value is a 64-bit word; KVM reads fewer bytes of it where the attribute is smaller.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn set(&self, group: u32, attr: u64, value: u64) -> Sys<()> {
        let attr = kvm_device_attr {
            group,
            attr,
            addr: std::ptr::from_ref(&value) as u64,
            flags: 0,
        };
        Ok(self.0.set_device_attr(&attr)?)
    }

    /// `KVM_GET_DEVICE_ATTR` of a 64-bit word.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn get(&self, group: u32, attr: u64) -> Sys<u64> {
        let mut value = 0_u64;
        let mut attr = kvm_device_attr {
            group,
            attr,
            addr: std::ptr::from_mut(&mut value) as u64,
            flags: 0,
        };
        // SAFETY: the attribute's address is that of a local 64-bit word, the largest that this device's attributes have.
        unsafe { self.0.get_device_attr(&mut attr) }?;
        Ok(value)
    }

    /// `KVM_DEV_ARM_ITS_SAVE_TABLES`, of an ITS.
    ///
    /// # Errors
    /// The kernel's errno: `EBUSY` while a vCPU is in an ioctl.
    pub fn save_tables(&self) -> Sys<()> {
        self.set(
            KVM_DEV_ARM_VGIC_GRP_CTRL,
            KVM_DEV_ARM_ITS_SAVE_TABLES.into(),
            0,
        )
    }

    /// `KVM_DEV_ARM_ITS_RESTORE_TABLES`, of an ITS.
    ///
    /// # Errors
    /// The kernel's errno: `EBUSY` while a vCPU is in an ioctl.
    pub fn restore_tables(&self) -> Sys<()> {
        self.set(
            KVM_DEV_ARM_VGIC_GRP_CTRL,
            KVM_DEV_ARM_ITS_RESTORE_TABLES.into(),
            0,
        )
    }

    /// `KVM_DEV_ARM_ITS_CTRL_RESET`, of an ITS.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn reset(&self) -> Sys<()> {
        self.set(
            KVM_DEV_ARM_VGIC_GRP_CTRL,
            KVM_DEV_ARM_ITS_CTRL_RESET.into(),
            0,
        )
    }

    /// `KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES`, of a vGICv3.
    ///
    /// # Errors
    /// The kernel's errno: `EBUSY` while a vCPU is in an ioctl.
    pub fn save_pending_tables(&self) -> Sys<()> {
        self.set(
            KVM_DEV_ARM_VGIC_GRP_CTRL,
            KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES.into(),
            0,
        )
    }

    /// Writes 32 bits of a vCPU's redistributor.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn write_redistributor(&self, vcpu: u64, offset: u64, value: u64) -> Sys<()> {
        self.set(
            KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
            (affinity(vcpu) << 32) | offset,
            value,
        )
    }

    /// Writes a register of an ITS.
    ///
    /// # Errors
    /// The kernel's errno: `EBUSY` while a vCPU is in an ioctl.
    pub fn write_its(&self, offset: u64, value: u64) -> Sys<()> {
        self.set(KVM_DEV_ARM_VGIC_GRP_ITS_REGS, offset, value)
    }

    /// Reads a register of an ITS.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn read_its(&self, offset: u64) -> Sys<u64> {
        self.get(KVM_DEV_ARM_VGIC_GRP_ITS_REGS, offset)
    }
}

/// The affinity that KVM gives a vCPU by its id: 16 to a cluster.
fn affinity(vcpu: u64) -> u64 {
    (vcpu & 0xf) | (((vcpu >> 4) & 0xff) << 8)
}

/// `KVM_SIGNAL_MSI` to the ITS at `its_base`: more than 0 if it was delivered, 0 if the guest blocks it.
///
/// # Errors
/// The kernel's errno.
pub fn signal_msi(vm: &Vm, its_base: u64, device: u32, event: u32) -> Sys<i32> {
    let doorbell = its_base.wrapping_add(GITS_TRANSLATER);
    let msi = kvm_msi {
        address_lo: doorbell as u32,
        address_hi: (doorbell >> 32) as u32,
        data: event,
        flags: KVM_MSI_VALID_DEVID,
        devid: device,
        ..Default::default()
    };
    Ok(vm.fd().signal_msi(msi)?)
}
