//! What a call's own answer shows: which errno, and for which of its causes; which exit.
//!
//! A cause is told from the arguments and from what the trace made before. It is no second model: where the model and this disagree, the
//! model's errno is checked by replay, and this only files it.

use std::collections::{BTreeMap, BTreeSet};

use dirtysim::trace::call::{Access, Call, Program, Prot, Sharing};
use dirtysim::trace::call_result::{CallResult, Returned, Touch};
use dirtysim::trace::{Arch, Cap, Errno, Exit};

/// The fewest slot ids that userspace has on any architecture.
const USER_SLOTS: u16 = 32_764;
const PAGE: u64 = 4096;
pub const LOG: u32 = 1;
pub const READONLY: u32 = 2;

#[derive(Clone, Debug)]
pub struct Slot {
    pub flags: u32,
    pub gpa: u64,
    pub pages: u64,
    pub mem: String,
    pub offset: u64,
    pub huge: bool,
    pub populated: bool,
    /// It was without a log once.
    pub was_unlogged: bool,
}

/// A VM, as far as its calls tell.
#[derive(Clone, Debug, Default)]
pub struct Vm {
    pub ring_bytes: u64,
    pub with_bitmap: bool,
    pub manual: u64,
    pub vcpus: BTreeSet<u32>,
    pub slots: BTreeMap<(u16, u16), Slot>,
    pub gic: bool,
    /// The slot of the ITS's tables.
    pub its_slot: Option<u16>,
}

impl Vm {
    pub fn has_ring(&self) -> bool {
        self.ring_bytes > 0
    }

    /// GET and CLEAR exist.
    pub fn has_log(&self) -> bool {
        !self.has_ring() || self.with_bitmap
    }

    pub fn logs(&self, slot: u16) -> bool {
        self.slots
            .get(&(0, slot))
            .is_some_and(|slot| slot.flags & LOG != 0)
    }
}

type Found = Vec<&'static str>;

fn errno(result: &CallResult) -> Option<Errno> {
    match result.returned {
        Some(Returned::Error(errno)) => Some(errno),
        _ => None,
    }
}

/// What a call's answer shows. `vm` is as it was before the call.
pub fn classify(arch: Arch, vm: &Vm, call: &Call, result: &CallResult) -> Found {
    let failed = errno(result);
    match call {
        Call::CheckExtension { .. } => vec![match result.returned {
            Some(Returned::Value(0)) => "check.not_offered",
            _ => "check.offered",
        }],
        Call::EnableCap { cap, flags, args0 } => enable_cap(arch, vm, *cap, *flags, *args0, failed),
        Call::CreateVcpu { .. } => vec![match failed {
            None => "vcpu.made",
            Some(Errno::EEXIST) => "vcpu.exists",
            Some(Errno::EBUSY) => "vcpu.gic",
            Some(Errno::EINVAL) => "vcpu.id",
            Some(other) => panic!("KVM_CREATE_VCPU: {other} is in no row of the table"),
        }],
        Call::SetUserMemoryRegion { .. } => region(vm, call, failed),
        Call::MmapRing { prot, sharing, .. } => {
            let mut found = Vec::new();
            let executable = matches!(prot, Prot::Rx | Prot::Rwx);
            match failed {
                None if *prot == Prot::Rw => found.push("map.ring"),
                None if *prot == Prot::R => found.push("map.readonly"),
                Some(_) if executable => found.push("map.executable"),
                Some(_) if *sharing == Sharing::Private => found.push("map.private"),
                _ => {}
            }
            match result.touch {
                Some(Touch::Ok) => found.push("map.touch"),
                Some(Touch::Sigbus) => found.push("map.sigbus"),
                _ => {}
            }
            found
        }
        Call::Run {
            program, resume, ..
        } => run(vm, program, *resume, result),
        Call::ResetDirtyRings {} => match (failed, result.returned) {
            (Some(_), _) => vec!["reset.no_ring"],
            (_, Some(Returned::Value(0))) => vec!["reset.none"],
            _ => vec!["reset.some"],
        },
        Call::GetDirtyLog { slot, as_id, .. } => get(vm, *slot, *as_id, failed, result),
        Call::ClearDirtyLog { .. } => clear(vm, call, failed),
        _ => interrupts(vm, call, failed, result),
    }
}

fn enable_cap(
    arch: Arch,
    vm: &Vm,
    cap: Cap,
    flags: u32,
    args0: u64,
    failed: Option<Errno>,
) -> Found {
    let arm64 = arch == Arch::Arm64;
    match cap {
        Cap::DirtyLogRing | Cap::DirtyLogRingAcqRel => {
            let size = args0 as u32;
            match failed {
                None => {
                    let mut found = vec!["ring.on"];
                    if !vm.slots.is_empty() {
                        found.push("ring.on_with_slots");
                    }
                    if args0 > u64::from(u32::MAX) {
                        found.push("ring.cut");
                    }
                    found
                }
                Some(Errno::E2BIG) => vec!["ring.too_large"],
                Some(_) if arm64 && cap == Cap::DirtyLogRing => vec!["ring.not_offered"],
                Some(_) if !size.is_power_of_two() => vec!["ring.not_power"],
                Some(_) if size < 4096 => vec!["ring.too_small"],
                Some(_) if vm.has_ring() => vec!["ring.twice"],
                Some(_) => vec!["ring.after_vcpu"],
            }
        }
        Cap::DirtyLogRingWithBitmap => match failed {
            None => {
                let mut found = vec![if vm.with_bitmap {
                    "backup.again"
                } else {
                    "backup.on"
                }];
                if !vm.vcpus.is_empty() {
                    found.push("backup.after_vcpu");
                }
                found
            }
            Some(_) if !arm64 => vec!["backup.not_offered"],
            Some(_) if !vm.has_ring() => vec!["backup.no_ring"],
            Some(_) if flags != 0 => vec!["backup.flags"],
            Some(_) => vec!["backup.slots"],
        },
        Cap::ManualDirtyLogProtect2 => vec![match failed {
            None if args0 == 0 => "manual.off",
            None if args0 == 1 => "manual.on",
            None => "manual.initially_set",
            Some(_) if flags != 0 => "manual.flags",
            Some(_) if args0 & 1 == 0 => "manual.without_bit0",
            Some(_) => "manual.unknown",
        }],
        _ => Vec::new(),
    }
}

fn region(vm: &Vm, call: &Call, failed: Option<Errno>) -> Found {
    let Call::SetUserMemoryRegion {
        slot,
        as_id,
        flags,
        gpa,
        npages,
        bytes,
        mem,
        mem_offset,
        ..
    } = call
    else {
        unreachable!("only a region comes here")
    };
    let size = bytes.unwrap_or(npages.wrapping_mul(PAGE));
    let old = vm.slots.get(&(*as_id, *slot));
    let made = match (old, failed) {
        (None, None) if flags & READONLY != 0 => "slot.create_readonly",
        (None, None) if flags & LOG != 0 => "slot.create_logging",
        (None, None) => "slot.create",
        (Some(_), None) if size == 0 => "slot.delete",
        (Some(old), None) if old.gpa != *gpa => "slot.move",
        (Some(old), None) if old.flags == *flags => "slot.same",
        (Some(_), None) if flags & LOG != 0 => "slot.log_on",
        (Some(_), None) => "slot.log_off",
        (None, Some(Errno::EEXIST)) => "slot.overlap",
        (Some(_), Some(Errno::EEXIST)) => "slot.overlap_move",
        _ if *slot >= USER_SLOTS => "slot.id",
        _ if flags & !(LOG | READONLY) != 0 => "slot.flags",
        _ if !size.is_multiple_of(PAGE) => "slot.size",
        _ if !gpa.is_multiple_of(PAGE) => "slot.gpa",
        _ if !mem_offset.is_multiple_of(PAGE) => "slot.hva",
        _ if *as_id > 0 => "slot.as_id",
        _ if gpa.checked_add(size).is_none() => "slot.wraps",
        _ if size / PAGE > (1 << 31) - 1 => "slot.too_large",
        (None, _) if size == 0 => "slot.delete_missing",
        (Some(old), _) if old.pages * PAGE != size => "slot.resize",
        (Some(old), _) if old.mem != *mem || old.offset != *mem_offset => "slot.other_memory",
        (Some(_), _) => "slot.readonly_changed",
        (None, Some(other)) => panic!("KVM_SET_USER_MEMORY_REGION: {other} is in no row: {call:?}"),
    };
    vec![made]
}

fn run(vm: &Vm, program: &Program, resume: bool, result: &CallResult) -> Found {
    let done = result.program_done == Some(true);
    let retired = result.stores_retired.unwrap_or(0);
    match result.exit {
        _ if done => vec!["run.done"],
        Some(Exit::DirtyRingFull) if retired > 0 => vec!["run.full"],
        // The first store of a program may find the ring almost full; a program that goes on has found it full before.
        Some(Exit::DirtyRingFull) if resume => vec!["run.full_again"],
        Some(Exit::Mmio) => {
            let slot_of = |at: usize| {
                let next = program.store.iter().nth(at);
                next.and_then(|(slot, _)| vm.slots.get(&((slot >> 16) as u16, slot as u16)))
            };
            let total = result.stores_retired_total.unwrap_or(0) as usize;
            // A copy is through with its last element, wherever that is stored to.
            let through = program.access == Access::Copy && retired > 0;
            let slot = match slot_of(total) {
                Some(slot) if through && slot.flags & READONLY == 0 => slot_of(total - 1),
                slot => slot,
            };
            match slot {
                None => vec!["run.no_slot"],
                Some(slot) if slot.flags & READONLY != 0 => vec!["run.readonly"],
                // The guest goes on at the address that it was told, from which the slot has moved.
                Some(_) if resume => vec!["run.no_slot"],
                Some(_) => panic!("an MMIO exit at a slot that is there: {program:?}"),
            }
        }
        _ => Vec::new(),
    }
}

fn get(vm: &Vm, slot: u16, as_id: u16, failed: Option<Errno>, result: &CallResult) -> Found {
    let found = match failed {
        Some(Errno::ENXIO) => "get.ring_alone",
        Some(Errno::EINVAL) if as_id > 0 => "get.as_id",
        Some(Errno::EINVAL) => "get.id",
        Some(Errno::ENOENT) if vm.slots.contains_key(&(as_id, slot)) => "get.no_log",
        Some(Errno::ENOENT) => "get.no_slot",
        // Seen by what the next GET shows.
        Some(Errno::EFAULT) => return Vec::new(),
        Some(other) => panic!("KVM_GET_DIRTY_LOG: {other} is in no row of the table"),
        None => {
            let pages = vm.slots.get(&(as_id, slot)).map_or(0, |slot| slot.pages);
            let ones = result
                .words
                .as_ref()
                .map_or(0, |words| words.iter_pages().count());
            let all = vm.manual == 3 && ones as u64 == pages;
            return if all {
                vec!["get.initially_set"]
            } else {
                Vec::new()
            };
        }
    };
    vec![found]
}

fn clear(vm: &Vm, call: &Call, failed: Option<Errno>) -> Found {
    let Call::ClearDirtyLog {
        slot,
        as_id,
        first_page,
        num_pages,
        ..
    } = call
    else {
        unreachable!("only a CLEAR comes here")
    };
    let pages = vm.slots.get(&(*as_id, *slot)).map_or(0, |slot| slot.pages);
    let end = first_page.saturating_add(u64::from(*num_pages));
    match failed {
        None => {
            let mut found = Vec::new();
            if *num_pages == 0 {
                found.push("clear.none");
            } else if !num_pages.is_multiple_of(64) {
                found.push("clear.last_word");
            }
            if vm.manual == 0 {
                found.push("clear.not_manual");
            }
            found
        }
        Some(Errno::ENXIO) => vec!["clear.ring_alone"],
        Some(Errno::EFAULT) => vec!["clear.fault"],
        Some(Errno::ENOENT) if vm.slots.contains_key(&(*as_id, *slot)) => vec!["clear.no_log"],
        Some(Errno::ENOENT) => vec!["clear.no_slot"],
        Some(_) if *as_id > 0 => vec!["clear.as_id"],
        Some(_) if *slot >= USER_SLOTS => vec!["clear.id"],
        Some(_) if !first_page.is_multiple_of(64) => vec!["clear.alignment"],
        Some(_) if *first_page > pages => vec!["clear.first"],
        Some(_) if end > pages => vec!["clear.beyond"],
        Some(_) => vec!["clear.partial_word"],
    }
}

fn interrupts(vm: &Vm, call: &Call, failed: Option<Errno>, result: &CallResult) -> Found {
    match (call, failed) {
        (
            Call::CreateDevice { .. } | Call::SetDeviceAttr { .. } | Call::RedistRegWrite { .. },
            None,
        ) => {
            vec!["gic.made"]
        }
        (Call::ItsRegWrite { .. }, None) if result.creadr_after.is_some() => vec!["its.command"],
        (Call::ItsRegRead { .. }, None) => vec!["its.read"],
        (Call::ItsReset {}, None) => vec!["its.reset"],
        (Call::ItsSaveTables {}, None)
            if !vm.has_log() && vm.its_slot.is_some_and(|slot| vm.logs(slot)) =>
        {
            vec!["its.save_ring_alone"]
        }
        (Call::ItsRestoreTables {}, None) => vec!["its.restore"],
        (Call::ItsRestoreTables {}, Some(Errno::EEXIST)) => vec!["its.restore_exists"],
        (Call::ItsRestoreTables {}, Some(Errno::EINVAL)) => vec!["its.restore_bad"],
        (Call::SignalMsi { .. }, None) => vec![if result.returned == Some(Returned::Value(0)) {
            "its.msi_unmapped"
        } else {
            "its.msi"
        }],
        (Call::SignalMsi { .. }, Some(Errno::EBUSY)) => vec!["its.msi_disabled"],
        (Call::GuestMmio { .. }, None) if result.program_done == Some(true) => {
            vec!["its.guest_command"]
        }
        _ => Vec::new(),
    }
}

/// The VM after a call.
pub fn advance(vm: &mut Vm, call: &Call, result: &CallResult) {
    if errno(result).is_some() {
        return;
    }
    match call {
        Call::EnableCap { cap, args0, .. } => match cap {
            Cap::DirtyLogRing | Cap::DirtyLogRingAcqRel => vm.ring_bytes = u64::from(*args0 as u32),
            Cap::DirtyLogRingWithBitmap => vm.with_bitmap = true,
            Cap::ManualDirtyLogProtect2 => vm.manual = *args0,
            _ => {}
        },
        Call::CreateVcpu { vcpu } => {
            vm.vcpus.insert(*vcpu);
        }
        Call::CreateDevice { .. } => vm.gic = true,
        Call::ItsSetup { slot, .. } => vm.its_slot = Some(*slot),
        Call::SetUserMemoryRegion {
            slot,
            as_id,
            flags,
            gpa,
            npages,
            mem,
            mem_offset,
            populated,
            huge,
            ..
        } => {
            let key = (*as_id, *slot);
            if *npages == 0 {
                vm.slots.remove(&key);
                return;
            }
            let unlogged = flags & LOG == 0;
            let slot = vm.slots.entry(key).or_insert_with(|| Slot {
                flags: *flags,
                gpa: *gpa,
                pages: *npages,
                mem: mem.clone(),
                offset: *mem_offset,
                huge: *huge,
                populated: *populated,
                was_unlogged: false,
            });
            slot.flags = *flags;
            slot.gpa = *gpa;
            slot.populated |= *populated;
            slot.was_unlogged |= unlogged;
        }
        _ => {}
    }
}
