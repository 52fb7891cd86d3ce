//! The ioctls that matter to dirty logging, by their numbers: other tools' logs have nothing else.

use serde::{Deserialize, Serialize};

/// An ioctl that matters to dirty logging, recognised by its number.
///
/// Source: include/uapi/linux/kvm.h, Linux 7.2; the numbers are those of the generic _IOC layout (x86, arm64, riscv,
/// loongarch, s390).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KvmIoctl {
    /// `KVM_GET_DIRTY_LOG`, a VM ioctl.
    #[serde(rename = "KVM_GET_DIRTY_LOG")]
    GetDirtyLog,
    /// `KVM_CLEAR_DIRTY_LOG`, a VM ioctl.
    #[serde(rename = "KVM_CLEAR_DIRTY_LOG")]
    ClearDirtyLog,
    /// `KVM_RESET_DIRTY_RINGS`, a VM ioctl.
    #[serde(rename = "KVM_RESET_DIRTY_RINGS")]
    ResetDirtyRings,
    /// `KVM_SET_USER_MEMORY_REGION`, a VM ioctl.
    #[serde(rename = "KVM_SET_USER_MEMORY_REGION")]
    SetUserMemoryRegion,
    /// `KVM_SET_USER_MEMORY_REGION2`, a VM ioctl.
    #[serde(rename = "KVM_SET_USER_MEMORY_REGION2")]
    SetUserMemoryRegion2,
    /// `KVM_ENABLE_CAP`, a VM ioctl here.
    #[serde(rename = "KVM_ENABLE_CAP")]
    EnableCap,
    /// `KVM_SET_DEVICE_ATTR`, a device ioctl: on arm64 the way to `ITS_SAVE_TABLES`. The number does not say which
    /// attribute.
    #[serde(rename = "KVM_SET_DEVICE_ATTR")]
    SetDeviceAttr,
}

impl KvmIoctl {
    /// Every ioctl known here, with its number and its name.
    pub const ALL: [(Self, u32, &'static str); 7] = [
        (Self::GetDirtyLog, 0x4010_ae42, "KVM_GET_DIRTY_LOG"),
        (Self::ClearDirtyLog, 0xc018_aec0, "KVM_CLEAR_DIRTY_LOG"),
        (Self::ResetDirtyRings, 0xaec7, "KVM_RESET_DIRTY_RINGS"),
        (
            Self::SetUserMemoryRegion,
            0x4020_ae46,
            "KVM_SET_USER_MEMORY_REGION",
        ),
        (
            Self::SetUserMemoryRegion2,
            0x40a0_ae49,
            "KVM_SET_USER_MEMORY_REGION2",
        ),
        (Self::EnableCap, 0x4068_aea3, "KVM_ENABLE_CAP"),
        (Self::SetDeviceAttr, 0x4018_aee1, "KVM_SET_DEVICE_ATTR"),
    ];

    /// The ioctl with this number, where it matters to dirty logging.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, n, _)| *n == number)
            .map(|(ioctl, ..)| *ioctl)
    }

    /// The ioctl with this name.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(.., n)| n.as_bytes() == name)
            .map(|(ioctl, ..)| *ioctl)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u32 {
        Self::ALL[self as usize].1
    }

    /// Its name in KVM's API.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ioctl_stands_where_its_table_says() {
        for (ioctl, number, name) in KvmIoctl::ALL {
            assert_eq!((ioctl.number(), ioctl.name()), (number, name));
            assert_eq!(KvmIoctl::from_number(number), Some(ioctl));
            assert_eq!(KvmIoctl::from_name(name.as_bytes()), Some(ioctl));
        }
    }
}
