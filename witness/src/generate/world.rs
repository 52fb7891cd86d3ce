//! What a generator knows of the VM whose calls it draws: enough to draw calls that mean something, learnt from the results.
//!
//! It is no model of dirty logging: it knows which slots, vCPUs and capabilities there are, and nothing about which page is dirty.

use std::collections::BTreeMap;

use dirtysim::trace::call::{Call, Program};
use dirtysim::trace::call_result::{CallResult, Returned};
use dirtysim::trace::{Cap, Exit, Words};

/// A slot that was created.
#[derive(Clone, Debug)]
pub(super) struct SlotView {
    pub(super) gpa: u64,
    pub(super) pages: u64,
    pub(super) flags: u32,
    pub(super) mem: String,
}

/// A vCPU that was created.
#[derive(Clone, Debug)]
pub(super) struct VcpuView {
    pub(super) id: u32,
    pub(super) fetch: u32,
    pub(super) unfinished: Option<Program>,
    pub(super) ready: bool,
    pub(super) mapped: bool,
}

/// The VM so far.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) ring_bytes: u64,
    pub(super) with_bitmap: bool,
    pub(super) slots: BTreeMap<u16, SlotView>,
    pub(super) vcpus: Vec<VcpuView>,
    pub(super) last_get: BTreeMap<u16, Words>,
}

impl World {
    /// Takes in what a call did.
    pub(super) fn observe(&mut self, call: &Call, result: &CallResult) {
        if matches!(result.returned, Some(Returned::Error(_))) {
            return;
        }
        match call {
            Call::EnableCap {
                cap: Cap::DirtyLogRing | Cap::DirtyLogRingAcqRel,
                args0,
                ..
            } => self.ring_bytes = *args0 & 0xffff_ffff,
            Call::EnableCap {
                cap: Cap::DirtyLogRingWithBitmap,
                ..
            } => self.with_bitmap = true,
            Call::CreateVcpu { vcpu } => {
                self.vcpus.push(VcpuView {
                    id: *vcpu,
                    fetch: 0,
                    unfinished: None,
                    ready: false,
                    mapped: false,
                });
            }
            Call::VcpuInit { vcpu, .. } => self.vcpu(*vcpu, |vcpu| vcpu.ready = true),
            Call::MmapRing { vcpu, .. } => self.vcpu(*vcpu, |vcpu| vcpu.mapped = true),
            Call::SetUserMemoryRegion {
                slot,
                flags,
                gpa,
                npages,
                mem,
                ..
            } => self.set_slot(*slot, *flags, *gpa, *npages, mem),
            Call::Run { vcpu, program, .. } => {
                // What is stored to a read-only slot is user space's to emulate: the program ends there.
                let goes_on =
                    result.program_done == Some(false) && result.exit == Some(Exit::DirtyRingFull);
                let unfinished = goes_on.then(|| program.clone());
                self.vcpu(*vcpu, |vcpu| vcpu.unfinished = unfinished);
            }
            Call::GuestMmio { vcpu, .. } => self.vcpu(*vcpu, |vcpu| vcpu.unfinished = None),
            Call::Harvest {
                vcpu, write_flags, ..
            } if write_flags & 2 != 0 => {
                let count = result.count.unwrap_or(0) as u32;
                self.vcpu(*vcpu, |vcpu| vcpu.fetch = vcpu.fetch.wrapping_add(count));
            }
            Call::GetDirtyLog { slot, .. } => {
                if let Some(words) = &result.words {
                    self.last_get.insert(*slot, words.clone());
                }
            }
            _ => {}
        }
    }

    fn vcpu(&mut self, id: u32, change: impl FnOnce(&mut VcpuView)) {
        if let Some(vcpu) = self.vcpus.iter_mut().find(|vcpu| vcpu.id == id) {
            change(vcpu);
        }
    }

    fn set_slot(&mut self, slot: u16, flags: u32, gpa: u64, pages: u64, mem: &str) {
        if pages == 0 {
            self.slots.remove(&slot);
        } else {
            let view = SlotView {
                gpa,
                pages,
                flags,
                mem: mem.to_owned(),
            };
            self.slots.insert(slot, view);
        }
    }
}
