//! The interrupt controller's set-up on arm64: which calls succeed, as far as recordings make them.
//!
//! Whatever is not known here has no answer, and is counted as not modelled.
//! Source: arch/arm64/kvm/vgic/vgic-kvm-device.c, vgic_set_common_attr(); vgic-its.c, vgic_its_set_attr(); vgic-init.c,
//! kvm_vgic_create(); Linux 6.12.

use std::collections::BTreeSet;

use super::its::{FRAME_BYTES, Its};
use crate::trace::Errno;
use crate::trace::call_result::CallResult;

const GRP_ADDR: u32 = 0;
const GRP_NR_IRQS: u32 = 3;
const GRP_CTRL: u32 = 4;
const ADDR_DIST: u64 = 2;
const ADDR_ITS: u64 = 4;
const ADDR_REDIST_REGION: u64 = 5;
const CTRL_INIT: u64 = 0;

/// A vGICv3 with at most one ITS.
#[derive(Debug, Default)]
pub(super) struct Gic {
    vgic: bool,
    has_its: bool,
    ready: bool,
    /// Attributes that can be set once and have been.
    set: BTreeSet<(bool, u32, u64)>,
    its_base: Option<u64>,
    /// The ITS.
    pub(super) its: Its,
}

impl Gic {
    /// KVM_CREATE_DEVICE.
    pub(super) fn create(&mut self, device: &str) -> Option<CallResult> {
        match device {
            "VGIC_V3" if self.vgic => Some(CallResult::failed(Errno::EEXIST)),
            "VGIC_V3" => {
                self.vgic = true;
                Some(CallResult::returned(0))
            }
            "VGIC_ITS" if !self.has_its => {
                self.has_its = true;
                Some(CallResult::returned(0))
            }
            _ => None,
        }
    }

    /// KVM_SET_DEVICE_ATTR.
    pub(super) fn set_attr(
        &mut self,
        device: &str,
        group: u32,
        attr: u64,
        value: u64,
    ) -> Option<CallResult> {
        let its = match device {
            "VGIC_V3" if self.vgic => false,
            "VGIC_ITS" if self.has_its => true,
            _ => return None,
        };
        match (its, group, attr) {
            (false, GRP_ADDR, ADDR_DIST) | (true, GRP_ADDR, ADDR_ITS) => {
                if !value.is_multiple_of(FRAME_BYTES) {
                    return Some(CallResult::failed(Errno::EINVAL));
                }
                if !self.set.insert((its, group, attr)) {
                    return Some(CallResult::failed(Errno::EEXIST));
                }
                if its {
                    self.its_base = Some(value);
                }
            }
            (false, GRP_ADDR, ADDR_REDIST_REGION) => {
                // One region alone is known here: `count << 52 | base | index`, its index 0.
                let count = value >> 52;
                if count == 0 || value & 0xffff != 0 || !self.set.insert((its, group, attr)) {
                    return None;
                }
            }
            (false, GRP_NR_IRQS, 0) => {
                if !(64..=1024).contains(&value) || !value.is_multiple_of(32) {
                    return Some(CallResult::failed(Errno::EINVAL));
                }
                if self.ready || !self.set.insert((its, group, attr)) {
                    return Some(CallResult::failed(Errno::EBUSY));
                }
            }
            (false, GRP_CTRL, CTRL_INIT) => self.ready = true,
            (true, GRP_CTRL, CTRL_INIT) => {}
            _ => return None,
        }
        Some(CallResult::returned(0))
    }

    /// Whether the vGIC is initialised.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether the ITS has an address.
    pub(super) fn its_is_placed(&self) -> bool {
        self.its_base.is_some()
    }

    /// Whether there is an interrupt controller.
    pub(super) fn is_there(&self) -> bool {
        self.vgic || self.has_its
    }

    /// Whether there is an ITS that can be spoken to.
    pub(super) fn has_its(&self) -> bool {
        self.has_its
    }

    /// The offset of a guest physical address in the ITS's control frame.
    pub(super) fn its_offset(&self, gpa: u64) -> Option<u64> {
        let offset = gpa.checked_sub(self.its_base?)?;
        (offset < FRAME_BYTES).then_some(offset)
    }
}
