//! The interrupt controller's calls: on arm64 the vGICv3 and the ITS; elsewhere a refusal.

use dirtysim::trace::call::Call;
use dirtysim::trace::call_result::CallResult;

use crate::kvm::Vm;
use crate::refusal::Refused;

#[cfg(target_arch = "aarch64")]
pub(super) use arm64::Interrupts;

/// No such devices here.
#[cfg(not(target_arch = "aarch64"))]
#[derive(Default)]
pub(super) struct Interrupts {}

#[cfg(not(target_arch = "aarch64"))]
impl Interrupts {
    pub(super) fn perform(&mut self, _vm: &Vm, call: &Call) -> Result<CallResult, Refused> {
        Err(Refused(format!(
            "`{}` needs a vGICv3 and an ITS, which only an arm64 machine has",
            call.name()
        )))
    }
}

#[cfg(target_arch = "aarch64")]
mod arm64 {
    use super::super::answer::{returned, value_or_errno};
    use super::{Call, CallResult, Refused, Vm};
    use crate::kvm::Sys;
    use crate::kvm::gic::{self, GITS_CREADR, GicDevice, Kind};

    /// `GITS_CWRITER`, bytes into the ITS's control frame: a write makes the ITS take commands.
    const GITS_CWRITER: u64 = 0x88;

    /// `KVM_DEV_ARM_VGIC_GRP_ADDR` and, within it, `KVM_VGIC_ITS_ADDR_TYPE`.
    const GROUP_ADDR: u32 = 0;
    const ITS_ADDR_TYPE: u64 = 4;

    /// The VM's devices.
    #[derive(Default)]
    pub(in super::super) struct Interrupts {
        vgic: Option<GicDevice>,
        its: Option<GicDevice>,
        its_base: u64,
    }

    fn unit(result: Sys<()>) -> Result<CallResult, Refused> {
        returned(result.map(|()| 0))
    }

    impl Interrupts {
        fn vgic(&self) -> Result<&GicDevice, Refused> {
            self.vgic
                .as_ref()
                .ok_or_else(|| Refused::new("there is no vGICv3: KVM_CREATE_DEVICE comes first"))
        }

        fn its(&self) -> Result<&GicDevice, Refused> {
            self.its
                .as_ref()
                .ok_or_else(|| Refused::new("there is no ITS: KVM_CREATE_DEVICE comes first"))
        }

        pub(in super::super) fn perform(
            &mut self,
            vm: &Vm,
            call: &Call,
        ) -> Result<CallResult, Refused> {
            match call {
                Call::CreateDevice { device } => {
                    let kind = match device.as_str() {
                        "VGIC_V3" => Kind::VgicV3,
                        "VGIC_ITS" => Kind::VgicIts,
                        other => {
                            return Err(Refused(format!(
                                "no device `{other}`: VGIC_V3 or VGIC_ITS"
                            )));
                        }
                    };
                    match GicDevice::new(vm, kind) {
                        Ok(device) => {
                            match kind {
                                Kind::VgicV3 => self.vgic = Some(device),
                                Kind::VgicIts => self.its = Some(device),
                            }
                            Ok(CallResult::returned(0))
                        }
                        Err(errno) => returned(Err(errno)),
                    }
                }
                Call::SetDeviceAttr {
                    device,
                    group,
                    attr,
                    value,
                    ..
                } => {
                    let to_its = device == "VGIC_ITS";
                    let device = if to_its { self.its()? } else { self.vgic()? };
                    let result = device.set(*group, *attr, *value);
                    if to_its && result.is_ok() && *group == GROUP_ADDR && *attr == ITS_ADDR_TYPE {
                        self.its_base = *value;
                    }
                    unit(result)
                }
                Call::RedistRegWrite {
                    vcpu,
                    offset,
                    value,
                    ..
                } => unit(
                    self.vgic()?
                        .write_redistributor((*vcpu).into(), *offset, *value),
                ),
                Call::ItsRegWrite { offset, value, .. } => {
                    let its = self.its()?;
                    let result = its.write_its(*offset, *value);
                    let creadr_after = match result {
                        Ok(()) if *offset == GITS_CWRITER => {
                            Some(its.read_its(GITS_CREADR).map_err(|errno| {
                                Refused(format!("GITS_CREADR cannot be read: {errno}"))
                            })?)
                        }
                        _ => None,
                    };
                    Ok(CallResult {
                        returned: Some(value_or_errno(result.map(|()| 0))?),
                        creadr_after,
                        ..CallResult::default()
                    })
                }
                Call::ItsRegRead { offset, .. } => {
                    let result = self.its()?.read_its(*offset);
                    Ok(CallResult {
                        returned: Some(value_or_errno(result.map(|_| 0))?),
                        value: Some(result.unwrap_or(0)),
                        ..CallResult::default()
                    })
                }
                Call::ItsReset {} => unit(self.its()?.reset()),
                Call::ItsSaveTables {} => unit(self.its()?.save_tables()),
                Call::ItsRestoreTables {} => unit(self.its()?.restore_tables()),
                Call::VgicSavePendingTables {} => unit(self.vgic()?.save_pending_tables()),
                Call::SignalMsi { dev, event } => {
                    returned(gic::signal_msi(vm, self.its_base, *dev, *event).map(|ret| ret as u32))
                }
                _ => unreachable!("only calls on the interrupt controller come here"),
            }
        }
    }
}
