//! The pages that differ: a file with one a line, as [`names`](crate::page::names) has them.

use std::collections::BTreeSet;
use std::io::BufRead;

use crate::page::names::{self, Complaint, Memory, Named, PagesError};
use crate::scenario::Scenario;
use dirtysim_model::words::{HostPage, Offset};

/// Reads the host pages that a file names; empty lines and lines that begin with `#` are passed over.
///
/// # Errors
/// The first line that names no page of the scenario, and what to write instead; a file without a page.
pub fn read_pages(
    input: impl BufRead,
    file: &str,
    scenario: &Scenario,
) -> Result<BTreeSet<HostPage>, PagesError> {
    let mut pages = BTreeSet::new();
    names::read_list(input, file, Memory::default(), |named| {
        pages.insert(page_of(&named, scenario)?);
        Ok(())
    })?;
    Ok(pages)
}

/// The host page that a name means in a scenario.
///
/// # Errors
/// A name that means none of its pages, and those that there are.
pub fn page_of(named: &Named, scenario: &Scenario) -> Result<HostPage, Complaint> {
    let slots = &scenario.machine.slots;
    match named {
        Named::Gfn(gfn) => {
            let found = slots.iter().find_map(|slot| {
                let offset = gfn.checked_sub(*slot.places.first()?)?;
                slot.host_at(Offset(offset))
            });
            found.ok_or_else(|| {
                let known: Vec<String> = slots
                    .iter()
                    .filter_map(|slot| {
                        let first = *slot.places.first()?;
                        let end = first + u64::from(slot.npages);
                        Some(format!("{} has 0x{first:x} to 0x{:x}", slot.name, end - 1))
                    })
                    .collect();
                (format!("no memslot has gfn 0x{gfn:x}"), known.join(", "))
            })
        }
        Named::At { slot: name, offset } => {
            let Some(slot) = slots.iter().find(|slot| slot.name == *name) else {
                let known: Vec<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
                let shown: String = name.chars().take(40).collect();
                return Err((
                    format!("no memslot is called `{shown}`"),
                    format!("the memslots are {}", known.join(", ")),
                ));
            };
            if *offset >= u64::from(slot.npages) {
                return Err((
                    format!("{} has no page {offset}", slot.name),
                    format!("it has {} pages, counted from 0", slot.npages),
                ));
            }
            Ok(slot.host + *offset as u32)
        }
    }
}
