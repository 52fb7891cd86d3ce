//! One VM of the kernel's, with what userspace must remember of it: its slots, host memory, vCPUs and devices.

use std::collections::BTreeMap;

use dirtysim::trace::Cap;
use dirtysim::trace::call::{Call, Prot, Sharing};
use dirtysim::trace::call_result::{CallResult, Touch};
use kvm_ioctls::Kvm;

use super::answer::{returned, value_or_errno};
use super::interrupts::Interrupts;
use super::memory::Memory;
use super::{log, ring};
use crate::kvm::ring::{MapHow, Touch as RawTouch};
use crate::kvm::stats::Counter;
use crate::kvm::{Sys, Vcpu, Vm, guest};
use crate::refusal::Refused;

/// What x86 calls exits by the host's interrupts.
/// Source: arch/x86/kvm/vmx/vmx.c, handle_external_interrupt().
const INTERRUPTS: &str = "irq_exits";

/// A vCPU and the program that it is in.
pub(super) struct Processor {
    pub(super) vcpu: Vcpu,
    /// It was made ready to run.
    pub(super) ready: bool,
    /// Accesses of the current program that retired in earlier runs; `None` without an unfinished program.
    pub(super) unfinished: Option<u64>,
    /// How often an interrupt of the host's took it out of the guest; `None` where the kernel does not say.
    pub(super) interrupts: Option<Counter>,
    /// KVM writes a record of stolen time for it.
    pub(super) record: bool,
    /// How often its thread lost the processor within KVM_RUN while KVM wrote one, which is written once more then; and how often a KVM_RUN was
    /// made of several, since the machine is slow.
    pub(super) disturbed: u64,
}

/// One VM. Fields are dropped in this order: vCPUs and devices before the VM, the VM before its memory.
pub(super) struct Machine {
    pub(super) processors: BTreeMap<u32, Processor>,
    pub(super) interrupts: Interrupts,
    pub(super) vm: Vm,
    pub(super) memory: Memory,
    /// Bytes of each vCPU's ring; 0 without one.
    ring_bytes: u64,
}

impl Machine {
    pub(super) fn new(kvm: &Kvm) -> Sys<Self> {
        Ok(Self {
            processors: BTreeMap::new(),
            interrupts: Interrupts::default(),
            vm: Vm::new(kvm)?,
            memory: Memory::default(),
            ring_bytes: 0,
        })
    }

    /// How often an interrupt of the host's took a vCPU out of the guest, as far as the kernel says.
    pub(super) fn interruptions(&self) -> u64 {
        let counters = self
            .processors
            .values()
            .filter_map(|p| p.interrupts.as_ref());
        counters.map(Counter::now).sum()
    }

    /// How often its vCPUs were disturbed by what no interrupt of the host's does.
    pub(super) fn disturbances(&self) -> u64 {
        self.processors.values().map(|p| p.disturbed).sum()
    }

    pub(super) fn processor(&mut self, id: u32) -> Result<&mut Processor, Refused> {
        self.processors.get_mut(&id).ok_or_else(|| {
            Refused(format!(
                "there is no vCPU {id}: KVM_CREATE_VCPU comes first"
            ))
        })
    }

    pub(super) fn init_vcpu(
        &mut self,
        kvm: &Kvm,
        id: u32,
        mode: &str,
    ) -> Result<CallResult, Refused> {
        if !guest::MODES.contains(&mode) {
            let modes = guest::MODES.iter().map(|mode| format!("`{mode}`"));
            return Err(Refused(format!(
                "the guest on this machine runs in mode {}; there is none for `{mode}`",
                modes.collect::<Vec<_>>().join(" or ")
            )));
        }
        let own = self.memory.own.as_ref().map(|own| own.memory.clone());
        let processor = self.processors.get_mut(&id).ok_or_else(|| {
            Refused(format!(
                "there is no vCPU {id}: KVM_CREATE_VCPU comes first"
            ))
        })?;
        guest::init_vcpu(kvm, &self.vm, &processor.vcpu)?;
        // What has no memory of its own yet has the usual mode's when it comes.
        if let Some(own) = own {
            let tables = self.memory.tables.as_ref();
            guest::set_mode(&processor.vcpu, &own, tables, mode)?;
        } else if mode != guest::MODE {
            return Err(Refused(format!(
                "a vCPU in mode `{mode}` needs the guest's own memory before vcpu_init"
            )));
        }
        processor.ready = true;
        Ok(CallResult::returned(0))
    }

    /// Every call on a VM but those that need the whole kernel.
    pub(super) fn perform(&mut self, call: &Call) -> Result<CallResult, Refused> {
        match call {
            Call::EnableCap { cap, flags, args0 } => {
                let result = self.vm.enable_cap(cap.number(), *flags, *args0);
                if result.is_ok() && matches!(cap, Cap::DirtyLogRing | Cap::DirtyLogRingAcqRel) {
                    // The kernel keeps 32 bits of it.
                    self.ring_bytes = *args0 & u64::from(u32::MAX);
                }
                returned(result.map(|ret| ret as u32))
            }
            Call::CreateVcpu { vcpu } => self.create_vcpu(*vcpu),
            Call::SetUserMemoryRegion { .. } => self.memory.set_region(&mut self.vm, call),
            Call::MmapRing {
                vcpu,
                offset_pages,
                bytes,
                prot,
                sharing,
                touch_byte,
            } => {
                let how = MapHow {
                    offset_pages: *offset_pages,
                    bytes: *bytes,
                    prot: protection(*prot),
                    shared: *sharing == Sharing::Shared,
                };
                self.map_ring(*vcpu, how, *touch_byte)
            }
            Call::GuestLayout(_) | Call::ItsSetup { .. } => Ok(CallResult::default()),
            Call::RingPeek { vcpu, fetch_index } => {
                ring::peek(&self.processor(*vcpu)?.vcpu, *fetch_index)
            }
            Call::Harvest {
                vcpu,
                fetch_index,
                max,
                write_flags,
            } => ring::harvest(
                &self.processor(*vcpu)?.vcpu,
                *fetch_index,
                *max,
                *write_flags,
            ),
            Call::RingRead { vcpu, index, count } => {
                ring::read(&self.processor(*vcpu)?.vcpu, *index, *count)
            }
            Call::RingWrite {
                vcpu,
                index,
                flags,
                slot,
                offset,
            } => ring::write(&self.processor(*vcpu)?.vcpu, *index, *flags, *slot, *offset),
            Call::ResetDirtyRings {} => {
                returned(self.vm.reset_dirty_rings().map(|count| count as u32))
            }
            Call::GetDirtyLog {
                slot,
                as_id,
                bad_pointer,
            } => log::get(&self.vm, *slot, *as_id, *bad_pointer),
            Call::ClearDirtyLog { .. } => log::clear(&self.vm, call),
            Call::UserWrite { slot, pages, data } => self.memory.user_write(*slot, pages, data),
            Call::Discard { slot, pages } => self.memory.discard(*slot, pages),
            Call::StolenTime { vcpu, gpa } => {
                let processor = self.processor(*vcpu)?;
                let result = guest::stolen_time(&processor.vcpu, *gpa)?;
                processor.record |= result.is_ok();
                returned(result.map(|()| 0))
            }
            Call::ReadPage {
                slot,
                page,
                at,
                bytes,
            } => self.memory.read_page(*slot, *page, *at, *bytes),
            Call::Copy { slot, pages } => self.memory.copy(*slot, pages),
            Call::Compare { slot } => self.memory.compare(*slot),
            Call::CreateDevice { .. }
            | Call::SetDeviceAttr { .. }
            | Call::RedistRegWrite { .. }
            | Call::ItsRegWrite { .. }
            | Call::ItsRegRead { .. }
            | Call::ItsReset {}
            | Call::ItsSaveTables {}
            | Call::ItsRestoreTables {}
            | Call::VgicSavePendingTables {}
            | Call::SignalMsi { .. } => self.interrupts.perform(&self.vm, call),
            Call::CheckExtension { .. }
            | Call::CreateVm {}
            | Call::CloseVm {}
            | Call::VcpuInit { .. }
            | Call::Run { .. }
            | Call::PreFaultMemory { .. }
            | Call::GuestMmio { .. }
            | Call::End {} => {
                unreachable!("the kernel performs `{}` itself", call.name())
            }
        }
    }

    fn create_vcpu(&mut self, id: u32) -> Result<CallResult, Refused> {
        match self.vm.create_vcpu(id.into()) {
            Ok(vcpu) => {
                let interrupts = Counter::find(vcpu.raw_fd(), INTERRUPTS);
                self.processors.insert(
                    id,
                    Processor {
                        vcpu,
                        ready: false,
                        unfinished: None,
                        interrupts,
                        record: false,
                        disturbed: 0,
                    },
                );
                Ok(CallResult::returned(0))
            }
            Err(errno) => returned(Err(errno)),
        }
    }

    fn map_ring(
        &mut self,
        id: u32,
        how: MapHow,
        touch_byte: Option<u64>,
    ) -> Result<CallResult, Refused> {
        let whole_ring = how == MapHow::usual(self.ring_bytes);
        let processor = self.processor(id)?;
        let (result, entries, touch) = match crate::kvm::RingMap::map(processor.vcpu.raw_fd(), how)
        {
            Ok(map) => {
                let touch = touch_byte.map(|byte| match map.touch(byte) {
                    RawTouch::Ok => Touch::Ok,
                    RawTouch::Sigbus => Touch::Sigbus,
                });
                let entries = map.entries();
                // A part of the ring, one that cannot be written, and whatever else the file has elsewhere, is looked at and let go.
                if whole_ring {
                    processor.vcpu.keep_ring(map);
                }
                (Ok(0), entries, touch)
            }
            Err(errno) => (Err(errno), 0, None),
        };
        Ok(CallResult {
            returned: Some(value_or_errno(result)?),
            mapped_entries: Some(entries.into()),
            touch,
            ..CallResult::default()
        })
    }
}

fn protection(prot: Prot) -> i32 {
    match prot {
        Prot::None => libc::PROT_NONE,
        Prot::R => libc::PROT_READ,
        Prot::W => libc::PROT_WRITE,
        Prot::Rw => libc::PROT_READ | libc::PROT_WRITE,
        Prot::Rx => libc::PROT_READ | libc::PROT_EXEC,
        Prot::Rwx => libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
    }
}
