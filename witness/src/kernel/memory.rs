//! Memslots and the host memory behind them; userspace's own stores, reads and copies.

use std::collections::BTreeMap;
use std::sync::Arc;

use dirtysim::trace::PageRuns;
use dirtysim::trace::call::{Call, UserData};
use dirtysim::trace::call_result::CallResult;

use super::answer::returned;
use crate::kvm::vm::Region;
use crate::kvm::{HostMemory, PAGE_BYTES, Vm, guest};
use crate::refusal::Refused;

/// Pages reserved for each named host memory; those never touched cost nothing. 16 GiB.
const RESERVED_PAGES: u64 = 1 << 22;

/// The name of the host memory that holds the guest's own code, tables and lists.
pub(super) const OWN_MEMORY: &str = "code";

/// The name of the host memory that holds the guest's tables, in a mode that has them apart.
const TABLES_MEMORY: &str = "tables";

/// Host memory by name; two slots may share one.
#[derive(Default)]
struct Memories(BTreeMap<String, Arc<HostMemory>>);

impl Memories {
    fn named(&mut self, name: &str) -> Result<&Arc<HostMemory>, Refused> {
        if !self.0.contains_key(name) {
            let memory = HostMemory::new(RESERVED_PAGES)
                .map_err(|errno| Refused(format!("no address space for host memory: {errno}")))?;
            self.0.insert(name.to_owned(), Arc::new(memory));
        }
        Ok(&self.0[name])
    }
}

/// A memslot that the kernel has.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) gpa: u64,
    pub(super) pages: u64,
    memory: Arc<HostMemory>,
    offset: u64,
}

impl Slot {
    /// Where a page's bytes begin in the slot's host memory.
    fn byte(&self, page: u64) -> Result<u64, Refused> {
        if page >= self.pages {
            return Err(Refused(format!(
                "page {page} of a slot of {} pages",
                self.pages
            )));
        }
        Ok(self.offset + page * PAGE_BYTES)
    }

    /// Where bytes within a page begin in the slot's host memory.
    fn byte_within(&self, page: u64, at: u32, bytes: u32) -> Result<u64, Refused> {
        if u64::from(at) + u64::from(bytes) > PAGE_BYTES {
            return Err(Refused(format!(
                "{bytes} bytes from byte {at} of a page on: they end in the next"
            )));
        }
        Ok(self.byte(page)? + u64::from(at))
    }
}

/// Memslots by address space and id.
#[derive(Default)]
pub(super) struct Slots(BTreeMap<(u16, u16), Slot>);

impl Slots {
    pub(super) fn get(&self, as_id: u16, id: u16) -> Result<&Slot, Refused> {
        self.0
            .get(&(as_id, id))
            .ok_or_else(|| Refused(format!("there is no slot {id} in address space {as_id}")))
    }
}

/// What was copied, by slot and page. A page that never was is zeros, as on a new machine.
#[derive(Default)]
struct Destination(BTreeMap<(u16, u64), Box<[u64; 512]>>);

/// Where the guest's own code, tables and lists are.
#[derive(Clone)]
pub(super) struct Own {
    pub(super) memory: Arc<HostMemory>,
    pub(super) gpa: u64,
}

/// A VM's memory, and the memory that it is copied to.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) slots: Slots,
    memories: Memories,
    pub(super) own: Option<Own>,
    pub(super) tables: Option<guest::Place>,
    destination: Destination,
}

impl Memory {
    pub(super) fn set_region(&mut self, vm: &mut Vm, call: &Call) -> Result<CallResult, Refused> {
        let Call::SetUserMemoryRegion {
            slot,
            as_id,
            flags,
            gpa,
            npages,
            bytes,
            mem,
            mem_offset,
            populated,
            huge,
        } = call
        else {
            unreachable!("only KVM_SET_USER_MEMORY_REGION comes here")
        };
        let memory = Arc::clone(self.memories.named(mem)?);
        let length = match bytes {
            Some(bytes) => *bytes,
            None => npages.checked_mul(PAGE_BYTES).ok_or_else(|| {
                Refused(format!("a slot of {npages} pages has no length in bytes"))
            })?,
        };
        let within = mem_offset
            .checked_add(length)
            .is_some_and(|end| end <= memory.bytes());
        if *huge && within {
            memory.advise_huge(*mem_offset, length)?;
        }
        if *populated && within && length / PAGE_BYTES <= POPULATE_PAGES_MAX {
            memory.populate(*mem_offset, length)?;
        }
        let is_own = mem == OWN_MEMORY && length > 0;
        if is_own && self.own.is_none() {
            if length < guest::OWN_PAGES * PAGE_BYTES || *mem_offset != 0 {
                return Err(Refused(format!(
                    "host memory `{OWN_MEMORY}` is the guest's own: it takes {} pages from its byte 0 on, not {length} bytes from byte {mem_offset}",
                    guest::OWN_PAGES
                )));
            }
            guest::install(&memory, *gpa)?;
        }
        let region = Region {
            slot: u32::from(*as_id) << 16 | u32::from(*slot),
            flags: *flags,
            gpa: *gpa,
            bytes: length,
            offset: *mem_offset,
        };
        let result = vm.set_memory(region, &memory)?;
        if result.is_ok() {
            if is_own {
                self.own = Some(Own {
                    memory: Arc::clone(&memory),
                    gpa: *gpa,
                });
            }
            if mem == TABLES_MEMORY && length > 0 {
                self.tables = Some(guest::Place {
                    memory: Arc::clone(&memory),
                    offset: *mem_offset,
                    gpa: *gpa,
                });
            }
            if length == 0 {
                self.slots.0.remove(&(*as_id, *slot));
            } else {
                self.slots.0.insert(
                    (*as_id, *slot),
                    Slot {
                        gpa: *gpa,
                        pages: length / PAGE_BYTES,
                        memory,
                        offset: *mem_offset,
                    },
                );
            }
        }
        returned(result.map(|()| 0))
    }

    pub(super) fn user_write(
        &mut self,
        slot: u16,
        pages: &PageRuns,
        data: &UserData,
    ) -> Result<CallResult, Refused> {
        let found = self.slots.get(0, slot)?.clone();
        match data {
            UserData::Bytes { value, bytes, at } => {
                let value = value.to_le_bytes();
                let value = value
                    .get(..*bytes as usize)
                    .ok_or_else(|| Refused(format!("a value of {bytes} bytes: at most 8")))?;
                for page in pages.iter() {
                    let first = found.byte_within(page, *at, *bytes)?;
                    found.memory.write(first, value)?;
                }
            }
            UserData::ItsCommands {
                queue_offset,
                commands,
            } => {
                let (first, _) = pages
                    .runs()
                    .first()
                    .ok_or_else(|| Refused::new("ITS commands without a page to write them to"))?;
                let mut at = found
                    .byte(*first)?
                    .checked_add(*queue_offset)
                    .ok_or_else(|| Refused::new("an ITS queue offset beyond every address"))?;
                for command in commands {
                    for word in command.words(found.gpa, PAGE_BYTES) {
                        found.memory.write_u64(at, word)?;
                        at += 8;
                    }
                }
            }
        }
        Ok(CallResult::default())
    }

    pub(super) fn discard(&mut self, slot: u16, pages: &PageRuns) -> Result<CallResult, Refused> {
        let found = self.slots.get(0, slot)?;
        for page in pages.iter() {
            found.memory.discard(found.byte(page)?)?;
        }
        Ok(CallResult::default())
    }

    pub(super) fn read_page(
        &mut self,
        slot: u16,
        page: u64,
        at: u32,
        bytes: u32,
    ) -> Result<CallResult, Refused> {
        let found = self.slots.get(0, slot)?;
        let first = found.byte_within(page, at, bytes)?;
        let mut value = 0;
        for n in 0..u64::from(bytes) {
            let byte = first + n;
            let word = found.memory.read_u64(byte & !7)?;
            value |= (word >> (byte % 8 * 8) & 0xff) << (n * 8);
        }
        Ok(CallResult {
            value: Some(value),
            ..CallResult::default()
        })
    }

    pub(super) fn copy(&mut self, slot: u16, pages: &PageRuns) -> Result<CallResult, Refused> {
        let found = self.slots.get(0, slot)?;
        for page in pages.iter() {
            self.destination
                .0
                .insert((slot, page), found.memory.read_page(found.byte(page)?)?);
        }
        Ok(CallResult::default())
    }

    pub(super) fn compare(&mut self, slot: u16) -> Result<CallResult, Refused> {
        let found = self.slots.get(0, slot)?;
        if found.pages > COMPARE_PAGES_MAX {
            return Err(Refused(format!(
                "a comparison of {} pages: at most {COMPARE_PAGES_MAX}",
                found.pages
            )));
        }
        let mut differs: Vec<(u64, u64)> = Vec::new();
        for page in 0..found.pages {
            let here = found.memory.read_page(found.byte(page)?)?;
            let same = self.destination.0.get(&(slot, page)).map_or_else(
                || here.iter().all(|word| *word == 0),
                |there| *there == here,
            );
            match differs.last_mut() {
                _ if same => {}
                Some((first, count)) if *first + *count == page => *count += 1,
                _ => differs.push((page, 1)),
            }
        }
        let mut runs = PageRuns::default();
        for (first, count) in differs {
            runs.push_run(first, count)
                .map_err(|error| Refused(error.to_string()))?;
        }
        Ok(CallResult {
            differs: Some(runs),
            ..CallResult::default()
        })
    }
}

/// Most pages that are touched ahead: 1 GiB.
const POPULATE_PAGES_MAX: u64 = 1 << 18;

/// Most pages that are compared: 1 GiB.
const COMPARE_PAGES_MAX: u64 = 1 << 18;
