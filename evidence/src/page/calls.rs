//! Pages in a recording of KVM's calls: every call that names one.

use std::collections::HashMap;

use super::names::{Named, number};
use super::{Event, Events};
use crate::trace::call::{Access, Call, CallRow, RecordedCall};
use crate::trace::{Located, RingEntries, TraceError};

/// Memslots that are kept.
const KEPT_MAX: usize = 65_536;

/// A page and the calls that name it.
#[derive(Debug, Clone)]
pub struct CallPage {
    /// As it was named.
    pub name: Named,
    /// The calls.
    pub events: Events,
    /// What the last comparison of memory with the copy said of it: its line, and whether it differs.
    pub compared: Option<(u64, bool)>,
}

/// Follows pages through a recording. A memslot has the number of KVM's API.
///
/// # Errors
/// The first row that cannot be read.
pub fn follow(
    rows: impl Iterator<Item = Result<Located<CallRow>, Box<TraceError>>>,
    names: Vec<Named>,
    page_size: u64,
) -> Result<Vec<CallPage>, Box<TraceError>> {
    let mut pages: Vec<CallPage> = names
        .into_iter()
        .map(|name| CallPage {
            name,
            events: Events::default(),
            compared: None,
        })
        .collect();
    // By VM and number: the first frame, and how many pages.
    let mut slots: HashMap<(u32, u32), (u64, u64)> = HashMap::new();
    for row in rows {
        let Located { line, row } = row?;
        let call = match row {
            CallRow::Section(_) => {
                slots.clear();
                continue;
            }
            CallRow::Unknown(_) => continue,
            CallRow::Call(call) => call,
        };
        let vm = call.vm.unwrap_or_default();
        if let Call::SetUserMemoryRegion {
            slot,
            as_id,
            gpa,
            npages,
            ..
        } = &call.call
            && slots.len() < KEPT_MAX
        {
            let number = u32::from(*as_id) << 16 | u32::from(*slot);
            slots.insert((vm, number), (gpa / page_size, *npages));
        }
        for page in &mut pages {
            let at = |slot: u32, offset: u64| match &page.name {
                Named::At {
                    slot: text,
                    offset: wanted,
                } => number(text) == Some(u64::from(slot)) && *wanted == offset,
                Named::Gfn(gfn) => slots
                    .get(&(vm, slot))
                    .is_some_and(|(first, pages)| offset < *pages && first + offset == *gfn),
            };
            if let Call::Compare { slot } = &call.call
                && let Some(differs) = &call.result.differs
                && slots_page(&page.name, &slots, vm, u32::from(*slot)).is_some()
            {
                let found = differs.iter().any(|offset| at(u32::from(*slot), offset));
                page.compared = Some((line, found));
            }
            if let Some(what) = names_page(&call, &at, page_size) {
                page.events.push(Event {
                    file: 0,
                    line,
                    who: Some(call.call.name().to_owned()),
                    what,
                });
            }
        }
    }
    Ok(pages)
}

/// The page's offset in a memslot, if it lies there.
fn slots_page(
    name: &Named,
    slots: &HashMap<(u32, u32), (u64, u64)>,
    vm: u32,
    slot: u32,
) -> Option<u64> {
    match name {
        Named::At { slot: text, offset } => {
            (number(text) == Some(u64::from(slot))).then_some(*offset)
        }
        Named::Gfn(gfn) => {
            let (first, pages) = slots.get(&(vm, slot))?;
            gfn.checked_sub(*first).filter(|offset| offset < pages)
        }
    }
}

/// What a call has to do with a page, if anything.
fn names_page(
    call: &RecordedCall,
    at: &impl Fn(u32, u64) -> bool,
    page_size: u64,
) -> Option<String> {
    let entries = |entries: Option<&RingEntries>| {
        entries?
            .iter()
            .position(|entry| at(entry.slot, entry.offset))
    };
    let result = &call.result;
    match &call.call {
        Call::Run { vcpu, program, .. } => {
            // An access over a page's end is to the next page too.
            let over = program.is_over(page_size);
            let store = program
                .store
                .iter()
                .any(|(slot, offset)| at(slot, offset) || over && at(slot, offset + 1));
            let verb = match program.access {
                Access::Store => "stores to it",
                Access::Load => "loads from it",
                Access::Copy => "copies to it from where no memory is",
            };
            store.then(|| format!("vCPU {vcpu}'s guest program {verb}"))
        }
        Call::Harvest {
            vcpu, fetch_index, ..
        } => entries(result.entries.as_ref()).map(|n| {
            let index = fetch_index.wrapping_add(n as u32);
            format!("read from vCPU {vcpu}'s ring, entry {index}")
        }),
        Call::RingPeek { vcpu, .. } | Call::RingRead { vcpu, .. } => {
            entries(result.entries.as_ref())
                .map(|n| format!("seen in vCPU {vcpu}'s ring, the entry {n} behind the first"))
        }
        Call::GetDirtyLog { slot, as_id, .. } => {
            let number = u32::from(*as_id) << 16 | u32::from(*slot);
            let mut pages = result.words.as_ref()?.iter_pages();
            pages
                .any(|offset| at(number, offset))
                .then(|| "reported by the bitmap".to_owned())
        }
        Call::ClearDirtyLog {
            slot,
            as_id,
            first_page,
            words,
            ..
        } => {
            let number = u32::from(*as_id) << 16 | u32::from(*slot);
            words
                .iter_pages()
                .any(|offset| at(number, first_page.saturating_add(offset)))
                .then(|| "re-armed, its bit taken from the bitmap".to_owned())
        }
        Call::UserWrite { slot, pages, .. } => pages
            .iter()
            .any(|offset| at(u32::from(*slot), offset))
            .then(|| "written by the VMM itself".to_owned()),
        Call::Discard { slot, pages } => pages
            .iter()
            .any(|offset| at(u32::from(*slot), offset))
            .then(|| "its memory given back to the host: zeros from here on".to_owned()),
        Call::Copy { slot, pages } => pages
            .iter()
            .any(|offset| at(u32::from(*slot), offset))
            .then(|| "copied".to_owned()),
        Call::ReadPage { slot, page, .. } => {
            at(u32::from(*slot), *page).then(|| "read by the VMM".to_owned())
        }
        Call::Compare { slot } => result
            .differs
            .as_ref()?
            .iter()
            .any(|offset| at(u32::from(*slot), offset))
            .then(|| "DIFFERS from the copy".to_owned()),
        _ => None,
    }
}
