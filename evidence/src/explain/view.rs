//! The whole state at a moment, for the slider of the HTML page: sets by memslot, rings, TLBs, where everybody is.

use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::pages::{Frames, PageSet, SetOf};
use dirtysim_model::state::ring::RingEntry;
use dirtysim_model::state::vcpu::Pc;
use dirtysim_model::words::Page;
use serde::Serialize;

use super::words;
use crate::scenario::Scenario;

/// Pages of a set that are listed; more are cut.
const MOST_PAGES: usize = 256;
/// Entries of a ring that are shown.
const MOST_ENTRIES: usize = 64;

/// A state as the page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct View {
    slots: Vec<SlotView>,
    vcpus: Vec<VcpuView>,
    threads: Vec<String>,
    /// Who has no step, and for what it waits, a sentence each.
    waiting: Vec<String>,
    devices: Vec<DeviceView>,
    slots_lock: Option<String>,
    mmu_lock: bool,
}

/// A memslot's sets, as offsets in the slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct SlotView {
    stale: Vec<u32>,
    bitmap: Vec<u32>,
    scratch: Vec<u32>,
    pending: Vec<u32>,
    writable: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct VcpuView {
    place: &'static str,
    tlb: Vec<String>,
    ring: Vec<EntryView>,
    dirty: u32,
    reset: u32,
    fetch: u32,
    pml: Vec<String>,
    request: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct EntryView {
    flags: &'static str,
    page: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct DeviceView {
    in_flight: Vec<String>,
    log: Vec<String>,
}

/// The offsets of the pages of `set` that lie in `first..first + count`.
fn offsets<P: Page, S: PageSet>(set: &SetOf<P, S>, first: P, count: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let first = first.number();
    let mut from = Some(first);
    while let Some(page) = from.and_then(|from| set.numbers().next(from)) {
        if page - first >= count || found.len() == MOST_PAGES {
            break;
        }
        found.push(page - first);
        from = page.checked_add(1);
    }
    found
}

impl View {
    /// The state as it is shown.
    pub(super) fn of<L: Layout>(
        scenario: &Scenario,
        state: &State<L>,
        waiting: Vec<String>,
    ) -> Self {
        let machine = &scenario.machine;
        let names = |set: &Frames<L::Set>| -> Vec<String> {
            set.iter()
                .take(MOST_PAGES)
                .map(|frame| scenario.frame_name(frame))
                .collect()
        };
        let slots = machine
            .slots
            .iter()
            .map(|slot| {
                let mut pending = state.pending.clone();
                for thread in state.threads.iter() {
                    pending.union(&thread.hand);
                }
                SlotView {
                    stale: offsets(&state.stale, slot.host, slot.npages),
                    bitmap: offsets(&state.bitmap, slot.frame, slot.npages),
                    scratch: offsets(&state.scratch, slot.frame, slot.npages),
                    pending: offsets(&pending, slot.host, slot.npages),
                    writable: offsets(&state.writable, slot.frame, slot.npages),
                }
            })
            .collect();
        let vcpus = state
            .vcpus
            .iter()
            .map(|vcpu| VcpuView {
                place: place(vcpu.pc),
                tlb: names(&vcpu.tlb),
                ring: vcpu
                    .ring
                    .entries
                    .iter()
                    .take(MOST_ENTRIES)
                    .map(|entry| entry_view(scenario, entry))
                    .collect(),
                dirty: vcpu.ring.dirty_index,
                reset: vcpu.ring.reset_index,
                fetch: vcpu.ring.fetch_index,
                pml: vcpu
                    .pml
                    .iter()
                    .take(MOST_ENTRIES)
                    .map(|&frame| scenario.frame_name(frame))
                    .collect(),
                request: vcpu.request,
            })
            .collect();
        let threads = state
            .threads
            .iter()
            .zip(&machine.programs)
            .map(|(thread, program)| {
                program
                    .get(usize::from(thread.op))
                    .map_or_else(|| "at its end".to_owned(), |op| words::of_op(scenario, op))
            })
            .collect();
        let devices = state
            .devices
            .iter()
            .map(|device| DeviceView {
                in_flight: names(&device.in_flight),
                log: names(&device.log),
            })
            .collect();
        Self {
            slots,
            vcpus,
            threads,
            waiting,
            devices,
            slots_lock: state
                .slots_lock
                .checked_sub(1)
                .map(|thread| format!("thread{thread}")),
            mmu_lock: state.mmu_lock_write,
        }
    }
}

fn place(pc: Pc) -> &'static str {
    match pc {
        Pc::User => "in user space",
        Pc::Entry => "on its way into the guest",
        Pc::StealMark | Pc::ExitMark => "marking the kernel's record",
        Pc::Guest => "in the guest",
        Pc::Flush | Pc::FlushOnly => "flushing its PML buffer",
        Pc::Fault => "in the fault path",
        Pc::Exit => "on its way to user space",
        Pc::PreFault => "being pre-faulted",
    }
}

fn entry_view<E: RingEntry>(scenario: &Scenario, entry: &E) -> EntryView {
    let flags = match entry.flags() {
        0 => "00",
        1 => "01",
        _ => "1X",
    };
    EntryView {
        flags,
        page: entry_page(scenario, entry),
    }
}

/// The page that an entry of a ring names.
pub(super) fn entry_page<E: RingEntry>(scenario: &Scenario, entry: &E) -> String {
    scenario
        .machine
        .slots
        .iter()
        .find(|slot| slot.number() == entry.slot())
        .map_or_else(
            || format!("{}:{}", entry.slot(), entry.offset().0),
            |slot| format!("{}:{}", slot.name, entry.offset().0),
        )
}
