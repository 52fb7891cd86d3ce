//! `pages = "any"`: which of them a list means; what is refused with it, and why.

use std::collections::BTreeMap;

use dirtysim_model::machine::{Op, SlotTemplate};
use dirtysim_model::words::{Frame, HostPage};

use super::machine::Parts;
use super::reader::{Result, Source};
use crate::search::tracked;

/// Refuses a scenario that cannot be about any number of pages; puts pages of the machine by which it is searched in place of what is
/// wanted.
pub(super) fn check(source: Source<'_>, parts: &mut Parts) -> Result<()> {
    let Some(span) = parts.any_pages.clone() else {
        return Ok(());
    };
    const HELP: &str = "write a number in pages; docs/proofs.md says what is argued for any number";
    let (machine, meant) = (&mut parts.machine, &mut parts.meant);
    let meanings = |frames: &mut Vec<Frame>| {
        let of = meant.of(frames);
        if !of.is_empty() {
            *frames = vec![tracked::TRACKED, tracked::FAR];
        }
        of
    };
    let lists = machine.frame_lists.iter_mut().map(meanings).collect();
    let vcpus = machine.vcpus.iter_mut();
    let vcpus = vcpus.map(|vcpu| meanings(&mut vcpu.frames)).collect();
    let devices = machine.devices.iter_mut();
    let devices = devices.map(|device| meanings(&mut device.frames)).collect();
    let always = machine.always_dirty.iter();
    let mut always: Vec<Frame> = always.map(|host| Frame(host.0)).collect();
    let always_dirty = meanings(&mut always);
    machine.always_dirty = always.iter().map(|frame| HostPage(frame.0)).collect();
    let mut one = |frame: &mut Frame| {
        let of = meant.of_one(*frame);
        if of.is_some() {
            *frame = tracked::TRACKED;
        }
        of
    };
    let records = machine.vcpus.iter_mut().map(|vcpu| {
        let has_one = vcpu.steal > 0;
        has_one.then(|| one(&mut vcpu.steal_frame)).flatten()
    });
    let records = records.collect();
    let mut ops = BTreeMap::new();
    for (thread, program) in machine.programs.iter_mut().enumerate() {
        for (place, op) in program.iter_mut().enumerate() {
            let of = tracked::page_of(op).and_then(&mut one);
            ops.extend(of.map(|of| ((thread, place), of)));
        }
    }
    (meant.lists, meant.vcpus, meant.devices) = (lists, vcpus, devices);
    (meant.always_dirty, meant.records, meant.ops) = (always_dirty, records, ops);
    let comes = comes_at_a_number(parts).then_some(
        "a memslot that comes or goes beside others, where one has an address in numbers, is not argued",
    );
    let why = comes.or_else(|| tracked::stands_in_the_way(&parts.machine, &parts.meant));
    if let Some(why) = why {
        return source.error(&span, format!("any number of pages: {why}"), HELP);
    }
    for (program, origins) in parts.machine.programs.iter().zip(&parts.origins) {
        for (op, origin) in program.iter().zip(origins) {
            if let Some(why) = tracked::not_argued(&parts.machine, op) {
                let span = origin.as_ref().unwrap_or(&span);
                return source.error(span, format!("any number of pages: {why}"), HELP);
            }
        }
    }
    Ok(())
}

/// Whether a memslot comes or goes beside others, and one of them has an address in numbers: whether two overlap goes by their sizes.
fn comes_at_a_number(parts: &Parts) -> bool {
    let machine = &parts.machine;
    let goes = |op: &Op| matches!(op, Op::SetMemoryRegion(op) if op.bytes == 0);
    let follows = |slot: &SlotTemplate| slot.places[..] == [u64::from(slot.frame.0)];
    machine.slots.len() > 1
        && (parts.slots.iter().any(|slot| !slot.present) || machine.ops().any(goes))
        && !machine.slots.iter().all(follows)
}
