//! What userspace does to a vCPU's ring by itself: look, harvest, and write what it should not.

use dirtysim::trace::call_result::CallResult;
use dirtysim::trace::{RingEntries, RingEntry};

use crate::kvm::ring::FLAG_DIRTY;
use crate::kvm::{RawEntry, RingMap, Vcpu};
use crate::refusal::Refused;

fn mapped(vcpu: &Vcpu) -> Result<&RingMap, Refused> {
    vcpu.ring().ok_or_else(|| {
        Refused(format!(
            "vCPU {}'s ring is not mapped: mmap_ring, shared and read-write, comes first",
            vcpu.id()
        ))
    })
}

fn append(entries: &mut RingEntries, entry: RawEntry) -> Result<(), Refused> {
    let entry = RingEntry {
        flags: entry.flags,
        slot: entry.slot,
        offset: entry.offset,
    };
    entries
        .push_run(entry, 1)
        .map_err(|error| Refused(error.to_string()))
}

/// The entries with flags 01 from `fetch_index` on, at most `max` and at most once around.
fn dirty(
    ring: &RingMap,
    fetch_index: u32,
    max: Option<u32>,
) -> Result<(RingEntries, u32), Refused> {
    let mut entries = RingEntries::default();
    let most = max.unwrap_or(u32::MAX).min(ring.entries());
    let mut count = 0;
    while count < most {
        let entry = ring.read(fetch_index.wrapping_add(count));
        if entry.flags != FLAG_DIRTY {
            break;
        }
        append(&mut entries, entry)?;
        count += 1;
    }
    Ok((entries, count))
}

pub(super) fn peek(vcpu: &Vcpu, fetch_index: u32) -> Result<CallResult, Refused> {
    let ring = mapped(vcpu)?;
    let (entries, count) = dirty(ring, fetch_index, None)?;
    let stop_flags = ring.read(fetch_index.wrapping_add(count)).flags;
    Ok(CallResult {
        count: Some(count.into()),
        entries: Some(entries),
        stop_flags: Some(stop_flags),
        ..CallResult::default()
    })
}

pub(super) fn harvest(
    vcpu: &Vcpu,
    fetch_index: u32,
    max: Option<u32>,
    write_flags: u32,
) -> Result<CallResult, Refused> {
    let ring = mapped(vcpu)?;
    let (entries, count) = dirty(ring, fetch_index, max)?;
    for index in 0..count {
        ring.write_flags(fetch_index.wrapping_add(index), write_flags);
    }
    Ok(CallResult {
        count: Some(count.into()),
        entries: Some(entries),
        ..CallResult::default()
    })
}

pub(super) fn read(vcpu: &Vcpu, index: u32, count: u64) -> Result<CallResult, Refused> {
    let ring = mapped(vcpu)?;
    if count > ring.entries().into() {
        return Err(Refused(format!(
            "{count} entries of a ring of {}",
            ring.entries()
        )));
    }
    let mut entries = RingEntries::default();
    for entry in 0..count as u32 {
        append(&mut entries, ring.read(index.wrapping_add(entry)))?;
    }
    Ok(CallResult {
        entries: Some(entries),
        ..CallResult::default()
    })
}

pub(super) fn write(
    vcpu: &Vcpu,
    index: u32,
    flags: Option<u32>,
    slot: Option<u32>,
    offset: Option<u64>,
) -> Result<CallResult, Refused> {
    mapped(vcpu)?.write(index, flags, slot, offset);
    Ok(CallResult::default())
}
