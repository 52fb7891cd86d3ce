//! A VM of the model that performs the calls of a trace: each becomes operations of the one transition function, run to
//! their end with nobody else acting.

use std::collections::BTreeMap;

use dirtysim_model::layout::Large;
use dirtysim_model::machine::{
    Arch, CAP_DIRTY_LOG_RING, CAP_DIRTY_LOG_RING_ACQ_REL, CAP_DIRTY_LOG_RING_WITH_BITMAP,
    CAP_MANUAL_DIRTY_LOG_PROTECT2, Constants, DIRTY_GFN_BYTES, Kernel, MEM_MAX_PAGES, Machine,
    RING_MAX_ENTRIES, SlotTemplate, VcpuConfig,
};
use dirtysim_model::mutation::Mutations;
use dirtysim_model::op::{ClearMask, Into, KernelWriter, Op};
use dirtysim_model::pages::PageSet;
use dirtysim_model::ring::{F_DIRTY, RingEntry as _};
use dirtysim_model::slot::Slot;
use dirtysim_model::state::State;
use dirtysim_model::step::{Actor, Choice, Step, apply, for_each_choice};
use dirtysim_model::thread::{Answer, Thread};
use dirtysim_model::vcpu::{Exit as ModelExit, NO_FRAME, Pc};

use super::its::Its;
use super::mmap::{Mapping, RingPlace, map_ring};
use crate::trace::call::{Access, Call, Program, UserData};
use crate::trace::call_result::{CallResult, Returned};
use crate::trace::{Cap, Errno, Exit, RingEntries, RingEntry, Words};

/// The host that VMs run on, as a trace's header has it.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// Architecture.
    pub arch: Arch,
    /// Kernel version.
    pub kernel: Kernel,
    /// Bytes in a page.
    pub page_bytes: u64,
    /// KVM_DIRTY_LOG_PAGE_OFFSET.
    pub ring_offset_pages: u64,
    /// Address spaces of a VM.
    pub address_spaces: u32,
    /// Wrong behaviours that are switched on.
    pub mutations: Mutations,
}

/// What the model says to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a reply is made and read once a call; boxing it would cost more than it saves"
)]
pub enum Reply {
    /// The result that the model gives.
    Result(CallResult),
    /// The model does not cover the call; the name under which it is counted.
    NotModelled(&'static str),
}

/// A call that cannot be performed: it names what is not there. The message says what is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

type Performed = Result<Reply, Refused>;

/// The program that a vCPU's guest is in, and how far it is.
#[derive(Debug, Clone)]
struct Running {
    program: Program,
    /// Accesses begun.
    begun: u64,
    retired: u64,
}

/// A VM.
#[derive(Debug)]
pub struct ModelVm {
    host: Host,
    machine: Machine,
    state: State<Large>,
    /// vCPU ids, by the model's number.
    vcpu_ids: Vec<u32>,
    running: Vec<Option<Running>>,
    /// Names of host memory, in the order of their first use.
    mems: Vec<String>,
    /// For each template: its memory and the offset in it, in bytes.
    behind: Vec<(usize, u64)>,
    /// What stores left in pages, by host page.
    values: BTreeMap<u32, u64>,
    its: Option<Its>,
    devices: Vec<String>,
}

/// KVM_MAX_VCPU_IDS, with the number of vCPUs that distributions configure (arch/x86/include/asm/kvm_host.h; arch/arm64: the most that a
/// GICv3 has, include/kvm/arm_vgic.h).
const X86_VCPU_IDS: u32 = 4096;
/// See [`X86_VCPU_IDS`].
const ARM64_VCPU_IDS: u32 = 512;

/// The largest span of pages that one VM's slots may have taken over time.
const MOST_FRAMES: u64 = 1 << 32;

impl ModelVm {
    /// A VM without slots and vCPUs.
    #[must_use]
    pub fn new(host: Host) -> Self {
        let mut machine = Machine::new(host.arch, host.kernel, false);
        machine.constants = Constants {
            address_spaces: host.address_spaces,
            page_bytes: host.page_bytes,
            ..machine.constants
        };
        let page_entries = (host.page_bytes / u64::from(DIRTY_GFN_BYTES)) as u32;
        machine.constants.ring_min_entries = machine.constants.ring_min_entries.max(page_entries);
        machine.mutations = host.mutations;
        machine.programs = vec![Vec::new()];
        let state = State::new(&machine);
        Self {
            host,
            machine,
            state,
            vcpu_ids: Vec::new(),
            running: Vec::new(),
            mems: Vec::new(),
            behind: Vec::new(),
            values: BTreeMap::new(),
            its: None,
            devices: Vec::new(),
        }
    }

    /// The machine and the state, for the oracle.
    #[must_use]
    pub fn model(&self) -> (&Machine, &State<Large>) {
        (&self.machine, &self.state)
    }

    /// Performs a call.
    ///
    /// # Errors
    /// The call names a vCPU, a ring or a slot that is not there.
    pub fn perform(&mut self, call: &Call) -> Performed {
        let zero = || Ok(Reply::Result(CallResult::returned(0)));
        match call {
            Call::EnableCap { cap, flags, args0 } => {
                let answer = self.ioctl(Op::EnableCap {
                    cap: cap.number(),
                    flags: *flags,
                    args0: *args0,
                });
                Ok(result(answer))
            }
            Call::CreateVcpu { vcpu } => self.create_vcpu(*vcpu),
            Call::VcpuInit { vcpu, .. } => self.vcpu(*vcpu).and_then(|_| zero()),
            Call::SetUserMemoryRegion {
                slot,
                as_id,
                flags,
                gpa,
                npages,
                bytes,
                mem,
                mem_offset,
                ..
            } => {
                let number = u32::from(*as_id) << 16 | u32::from(*slot);
                let bytes = bytes.or_else(|| npages.checked_mul(self.host.page_bytes));
                let Some(bytes) = bytes else {
                    return Err(Refused(format!(
                        "{npages} pages are more bytes than an address has"
                    )));
                };
                self.set_region(number, *flags, *gpa, bytes, mem, *mem_offset)
            }
            Call::MmapRing {
                vcpu,
                offset_pages,
                bytes,
                prot,
                sharing,
                touch_byte,
            } => {
                let at = self.vcpu(*vcpu)?;
                let mapping = Mapping {
                    offset_pages: *offset_pages,
                    bytes: *bytes,
                    prot: *prot,
                    sharing: *sharing,
                    touch_byte: *touch_byte,
                };
                let place = RingPlace {
                    offset_pages: self.host.ring_offset_pages,
                    entries: self.state.vcpus[at].ring.size(),
                    page_bytes: self.host.page_bytes,
                };
                Ok(map_ring(&mapping, &place, self.host.kernel)
                    .map_or(Reply::NotModelled("mmap outside the ring"), Reply::Result))
            }
            Call::Run {
                vcpu,
                program,
                resume,
            } => self.run(*vcpu, program, *resume),
            Call::RingPeek { vcpu, fetch_index } => {
                let (entries, stop) = self.unread(*vcpu, *fetch_index, u32::MAX)?;
                let mut result = entries_result(entries)?;
                result.stop_flags = Some(stop);
                Ok(Reply::Result(result))
            }
            Call::Harvest {
                vcpu,
                fetch_index,
                max,
                write_flags,
            } => self.harvest(*vcpu, *fetch_index, *max, *write_flags),
            Call::RingRead { vcpu, index, count } => self.ring_read(*vcpu, *index, *count),
            Call::RingWrite {
                vcpu,
                index,
                flags,
                slot,
                offset,
            } => {
                let at = self.ring_of(*vcpu)?;
                let entry = self.state.vcpus[at].ring.entry_mut(*index);
                if let Some(flags) = flags {
                    entry.set_flags(*flags as u8);
                }
                if let Some(slot) = slot {
                    entry.set_slot(*slot);
                }
                if let Some(offset) = offset {
                    entry.set_offset(*offset);
                }
                Ok(Reply::Result(CallResult::default()))
            }
            Call::ResetDirtyRings {} => Ok(result(self.ioctl(Op::ResetRings { signal: false }))),
            Call::GetDirtyLog {
                slot,
                as_id,
                bad_pointer,
            } => self.get_dirty_log(u32::from(*as_id) << 16 | u32::from(*slot), *bad_pointer),
            Call::ClearDirtyLog {
                slot,
                as_id,
                first_page,
                num_pages,
                words,
                bad_pointer,
                ..
            } => self.clear_dirty_log(
                u32::from(*as_id) << 16 | u32::from(*slot),
                *first_page,
                *num_pages,
                words,
                *bad_pointer,
            ),
            Call::CreateDevice { device } => {
                if self.devices.contains(device) {
                    return Ok(Reply::NotModelled("a device that is created twice"));
                }
                self.devices.push(device.clone());
                zero()
            }
            // Setting the interrupt controller up answers 0 once the device is there; nothing of it touches a dirty log.
            Call::SetDeviceAttr { device, .. } if self.devices.contains(device) => zero(),
            Call::RedistRegWrite { .. } if !self.devices.is_empty() => zero(),
            Call::ItsSetup {
                slot,
                device_table_pages,
                collection_table_pages,
                pending_table_pages,
                ..
            } => {
                self.its = Some(Its::new(
                    *slot,
                    device_table_pages,
                    collection_table_pages,
                    pending_table_pages,
                ));
                Ok(Reply::Result(CallResult::default()))
            }
            Call::ItsRegWrite { reg, value, .. } => {
                let Some(its) = &mut self.its else {
                    return Ok(Reply::NotModelled("an ITS register before its_setup"));
                };
                let mut result = CallResult::returned(0);
                if reg == "GITS_CWRITER" {
                    result.creadr_after = Some(its.carry_out(*value));
                }
                Ok(Reply::Result(result))
            }
            Call::ItsSaveTables {} => self.its_write(KernelWriter::ItsSave),
            Call::VgicSavePendingTables {} => self.its_write(KernelWriter::PendingSave),
            Call::SignalMsi { dev, event } => {
                let delivered = self.its.as_mut().and_then(|its| its.signal(*dev, *event));
                Ok(
                    delivered.map_or(Reply::NotModelled("an MSI that is not mapped"), |ret| {
                        Reply::Result(CallResult::returned(ret))
                    }),
                )
            }
            Call::UserWrite { slot, pages, data } => self.user_write(*slot, pages.iter(), data),
            Call::ReadPage { slot, page } => {
                let (_, host) = self.page(u32::from(*slot), *page)?;
                let value = self.values.get(&host).copied().unwrap_or(0);
                Ok(Reply::Result(CallResult {
                    value: Some(value),
                    ..CallResult::default()
                }))
            }
            Call::CheckExtension { cap } => Ok(Reply::Result(CallResult::returned(
                check_extension(&self.host, *cap),
            ))),
            Call::GuestLayout(_) | Call::CloseVm {} | Call::End {} | Call::CreateVm {} => {
                Ok(Reply::Result(CallResult::returned(0)))
            }
            Call::SetDeviceAttr { .. } | Call::RedistRegWrite { .. } => {
                Ok(Reply::NotModelled("a device that was not created"))
            }
            Call::GuestMmio { .. } => {
                Ok(Reply::NotModelled("device registers written by the guest"))
            }
            Call::ItsRegRead { .. } => Ok(Reply::NotModelled("ITS registers read")),
            Call::ItsReset {} => Ok(Reply::NotModelled("ITS reset")),
            Call::ItsRestoreTables {} => Ok(Reply::NotModelled("ITS restore")),
            Call::Copy { .. } | Call::Compare { .. } => {
                Ok(Reply::NotModelled("the recorder's copies"))
            }
        }
    }

    /// Runs one operation to its end, as an ioctl of a thread with nobody else acting.
    fn ioctl(&mut self, op: Op) -> Answer {
        self.machine.programs[0] = vec![op];
        self.machine.look_ahead();
        self.state.threads[0] = Thread::default();
        while self.state.threads[0].op == 0 {
            let actor = Actor::Thread(0);
            let mut next = None;
            for_each_choice(&self.machine, &self.state, actor, |choice| {
                next.get_or_insert(choice);
            });
            let choice =
                next.expect("an ioctl waits only for vCPUs and threads that run, and none does");
            apply(&self.machine, &mut self.state, Step { actor, choice });
        }
        self.state.threads[0].answer
    }

    fn vcpu(&self, id: u32) -> Result<usize, Refused> {
        let found = self.vcpu_ids.iter().position(|known| *known == id);
        found.ok_or_else(|| {
            Refused(format!(
                "no vCPU {id}: {} were created",
                self.vcpu_ids.len()
            ))
        })
    }

    fn ring_of(&self, id: u32) -> Result<usize, Refused> {
        let at = self.vcpu(id)?;
        if self.state.vcpus[at].ring.size() == 0 {
            return Err(Refused(format!(
                "vCPU {id} has no ring: none was enabled before it was created"
            )));
        }
        Ok(at)
    }

    fn create_vcpu(&mut self, id: u32) -> Performed {
        // Source: virt/kvm/kvm_main.c, kvm_vm_ioctl_create_vcpu(): the id first; then the architecture, which on arm64
        // has no more vCPUs once the interrupt controller is there; then an id that is taken.
        let ids = if self.host.arch == Arch::X86 {
            X86_VCPU_IDS
        } else {
            ARM64_VCPU_IDS
        };
        if id >= ids {
            return Ok(Reply::Result(CallResult::failed(Errno::EINVAL)));
        }
        if self.vcpu_ids.contains(&id) {
            let errno = if self.devices.is_empty() {
                Errno::EEXIST
            } else {
                Errno::EBUSY
            };
            return Ok(Reply::Result(CallResult::failed(errno)));
        }
        if self.vcpu_ids.len() >= 4096 {
            return Err(Refused("more vCPUs than KVM_MAX_VCPUS".to_owned()));
        }
        self.machine.vcpus.push(VcpuConfig::default());
        let answer = self.ioctl(Op::CreateVcpu);
        self.vcpu_ids.push(id);
        self.running.push(None);
        Ok(result(answer))
    }

    fn set_region(
        &mut self,
        number: u32,
        flags: u32,
        gpa: u64,
        bytes: u64,
        mem: &str,
        mem_offset: u64,
    ) -> Performed {
        let mem = self
            .mems
            .iter()
            .position(|known| known == mem)
            .unwrap_or_else(|| {
                self.mems.push(mem.to_owned());
                self.mems.len() - 1
            });
        // Memories lie apart in the host's address space.
        let hva = ((mem as u64 + 1) << 44).wrapping_add(mem_offset);
        let page = self.host.page_bytes;
        let gfn = gpa / page;
        let live = self.state.find_slot(&self.machine, number);
        let template = match live {
            Some(slot) => slot,
            None => self.template(number, bytes / page, gfn, mem, mem_offset, hva)?,
        };
        if let Some(known) = self.machine.slots.get_mut(template)
            && !known.places.contains(&gfn)
        {
            if known.places.len() == usize::from(u8::MAX) {
                return Err(Refused(
                    "a slot that moved to more than 255 places".to_owned(),
                ));
            }
            known.places.push(gfn);
        }
        let op = Op::SetMemoryRegion {
            slot: number,
            flags,
            gpa,
            bytes,
            hva,
            template: template as u16,
        };
        Ok(result(self.ioctl(op)))
    }

    /// The template for a slot that may be about to be created: one like it that was there before, or a new one.
    fn template(
        &mut self,
        number: u32,
        npages: u64,
        gfn: u64,
        mem: usize,
        mem_offset: u64,
        hva: u64,
    ) -> Result<usize, Refused> {
        if npages == 0 || npages > MEM_MAX_PAGES {
            return Ok(0);
        }
        let like = |slot: usize| {
            let known = &self.machine.slots[slot];
            known.number() == number && u64::from(known.npages) == npages && known.hva == hva
        };
        if let Some(slot) = (0..self.machine.slots.len()).find(|slot| like(*slot)) {
            return Ok(slot);
        }
        if self.machine.slots.len() >= usize::from(u16::MAX) {
            return Err(Refused(
                "more memslots over time than a trace may have (65535)".to_owned(),
            ));
        }
        let frame = u64::from(self.machine.frames());
        if frame + npages.next_multiple_of(64) >= MOST_FRAMES {
            return Err(Refused(format!(
                "{npages} pages: the slots of this VM would have more than 2^32 pages over time"
            )));
        }
        let page = self.host.page_bytes;
        // Slots over the same host memory share its pages.
        let shared =
            self.machine
                .slots
                .iter()
                .zip(&self.behind)
                .find_map(|(slot, (other, offset))| {
                    let inside = *other == mem
                        && *offset <= mem_offset
                        && mem_offset + npages * page <= offset + u64::from(slot.npages) * page;
                    inside.then(|| slot.host + ((mem_offset - offset) / page) as u32)
                });
        self.machine.slots.push(SlotTemplate {
            as_id: number >> 16,
            id: number & 0xffff,
            npages: npages as u32,
            frame: frame as u32,
            host: shared.unwrap_or(frame as u32),
            hva,
            places: vec![gfn],
            huge: false,
            name: format!("slot{number}"),
        });
        self.behind.push((mem, mem_offset));
        self.state.slots.push(Slot::default());
        Ok(self.machine.slots.len() - 1)
    }

    /// The frame and the host page of a slot's page.
    fn page(&self, number: u32, page: u64) -> Result<(u32, u32), Refused> {
        let Some(slot) = self.state.find_slot(&self.machine, number) else {
            return Err(Refused(format!("no memslot {number}")));
        };
        let template = &self.machine.slots[slot];
        if page >= u64::from(template.npages) {
            return Err(Refused(format!(
                "page {page} of memslot {number}, which has {} pages",
                template.npages
            )));
        }
        Ok((template.frame + page as u32, template.host + page as u32))
    }

    fn run(&mut self, id: u32, program: &Program, resume: bool) -> Performed {
        let at = self.vcpu(id)?;
        if !resume {
            // The recorder sets the registers anew: an access that had not retired is forgotten.
            self.state.vcpus[at].frame = NO_FRAME;
            self.running[at] = Some(Running {
                program: program.clone(),
                begun: 0,
                retired: 0,
            });
        }
        let Some(mut running) = self.running[at].take() else {
            return Err(Refused(format!("vCPU {id} has no program to resume")));
        };
        let before = running.retired;
        let exit = self.run_guest(at, &mut running)?;
        let done = exit == ModelExit::Interrupted;
        let exit = match (exit, self.host.arch) {
            (ModelExit::DirtyRingFull, _) => Exit::DirtyRingFull,
            // The guest says that it is done: by port on x86, by MMIO elsewhere.
            (ModelExit::Interrupted, Arch::X86) => Exit::Io,
            _ => Exit::Mmio,
        };
        let outcome = CallResult {
            returned: Some(Returned::Value(0)),
            exit: Some(exit),
            program_done: Some(done),
            stores_retired: Some(running.retired - before),
            stores_retired_total: Some(running.retired),
            ..CallResult::default()
        };
        self.running[at] = Some(running);
        Ok(Reply::Result(outcome))
    }

    /// Lets the vCPU run until its program is done or KVM_RUN returns.
    fn run_guest(&mut self, at: usize, running: &mut Running) -> Result<ModelExit, Refused> {
        let actor = Actor::Vcpu(at as u8);
        if at > usize::from(u8::MAX) {
            return Err(Refused("the model runs the first 256 vCPUs".to_owned()));
        }
        let accesses: Vec<(u32, u64)> = running
            .program
            .store
            .iter()
            .skip(running.begun as usize)
            .collect();
        let mut accesses = accesses.into_iter();
        self.state.guest_runs = true;
        loop {
            let v = &self.state.vcpus[at];
            let (pc, pending) = (v.pc, v.frame);
            let mut choice = Choice::Advance;
            match pc {
                Pc::Guest if pending == NO_FRAME => match accesses.next() {
                    Some((slot, page)) => {
                        let (frame, host) = self.page(slot, page)?;
                        running.begun += 1;
                        let v = &mut self.state.vcpus[at];
                        choice = match running.program.access {
                            Access::Store => {
                                v.stores = 1;
                                Choice::Store(frame)
                            }
                            Access::Load => {
                                v.loads = 1;
                                Choice::Load(frame)
                            }
                        };
                        let _ = host;
                    }
                    None => {
                        // The guest says that it is done, and KVM_RUN returns.
                        self.state.vcpus[at].kicked = true;
                        choice = Choice::Leave;
                    }
                },
                _ => {}
            }
            apply(&self.machine, &mut self.state, Step { actor, choice });
            let v = &self.state.vcpus[at];
            let begun = match choice {
                Choice::Store(frame) | Choice::Load(frame) => frame,
                _ => pending,
            };
            if pc == Pc::Guest && begun != NO_FRAME && v.frame == NO_FRAME {
                running.retired += 1;
                if running.program.access == Access::Store {
                    let host = self.machine.host_page(begun);
                    self.note_value(host, running.program.value, running.program.bytes);
                }
            }
            if self.state.vcpus[at].pc == Pc::User {
                return Ok(self.state.vcpus[at].exit);
            }
        }
    }

    /// The first bytes of a page change; the rest of its first eight keep what they were.
    fn note_value(&mut self, host: u32, value: u64, bytes: u32) {
        let mask = if bytes >= 8 {
            u64::MAX
        } else {
            (1 << (8 * bytes)) - 1
        };
        let old = self.values.get(&host).copied().unwrap_or(0);
        self.values.insert(host, old & !mask | value & mask);
    }

    /// Entries with flags 01 from `fetch` on, and the flags at which they end.
    fn unread(&self, id: u32, fetch: u32, max: u32) -> Result<(Vec<RingEntry>, u32), Refused> {
        let at = self.ring_of(id)?;
        let ring = &self.state.vcpus[at].ring;
        let mut entries = Vec::new();
        let most = ring.size().min(max);
        while (entries.len() as u32) < most {
            let entry = ring.entry(fetch.wrapping_add(entries.len() as u32));
            if entry.flags() != F_DIRTY {
                break;
            }
            entries.push(RingEntry {
                flags: u32::from(F_DIRTY),
                slot: entry.slot(),
                offset: entry.offset(),
            });
        }
        let stop = ring.entry(fetch.wrapping_add(entries.len() as u32)).flags();
        Ok((entries, u32::from(stop)))
    }

    fn harvest(&mut self, id: u32, fetch: u32, max: Option<u32>, write_flags: u32) -> Performed {
        let (entries, _) = self.unread(id, fetch, max.unwrap_or(u32::MAX))?;
        let at = self.ring_of(id)?;
        let ring = &mut self.state.vcpus[at].ring;
        for index in 0..entries.len() as u32 {
            ring.entry_mut(fetch.wrapping_add(index))
                .set_flags(write_flags as u8);
        }
        ring.fetch_index = fetch.wrapping_add(entries.len() as u32);
        entries_result(entries).map(Reply::Result)
    }

    fn ring_read(&self, id: u32, index: u32, count: u64) -> Performed {
        let at = self.ring_of(id)?;
        let ring = &self.state.vcpus[at].ring;
        if count > u64::from(RING_MAX_ENTRIES) {
            return Err(Refused(format!(
                "{count} entries: a ring has at most {RING_MAX_ENTRIES}"
            )));
        }
        let entries: Vec<RingEntry> = (0..count as u32)
            .map(|position| {
                let entry = ring.entry(index.wrapping_add(position));
                RingEntry {
                    flags: u32::from(entry.flags()),
                    slot: entry.slot(),
                    offset: entry.offset(),
                }
            })
            .collect();
        let entries = RingEntries::collect(entries).map_err(|error| Refused(error.to_string()))?;
        Ok(Reply::Result(CallResult {
            entries: Some(entries),
            ..CallResult::default()
        }))
    }

    fn get_dirty_log(&mut self, number: u32, bad_pointer: bool) -> Performed {
        let slot = self.state.find_slot(&self.machine, number);
        let answer = self.ioctl(Op::GetDirtyLog {
            slot: number,
            into: Into::Hand,
            bad_pointer,
        });
        let reported = std::mem::take(&mut self.state.threads[0].hand);
        let mut result = match result(answer) {
            Reply::Result(result) => result,
            other => return Ok(other),
        };
        let (mut written, mut words) = (0, Words::default());
        if let (Some(slot), Ok(_)) = (slot, answer) {
            let template = &self.machine.slots[slot];
            written = u64::from(template.npages.div_ceil(64));
            let mut bitmap = Vec::new();
            let mut next = reported.next(template.host);
            // By the pages that were reported, not by the length of the slot.
            while let Some(page) = next {
                let index = (page - template.host) / 64;
                bitmap.push((
                    u64::from(index),
                    reported.word(template.host + index * 64, 64),
                ));
                next = reported.next(template.host + (index + 1) * 64);
            }
            for (index, word) in bitmap {
                let run = crate::trace::WordRun {
                    first: index,
                    last: index,
                    word,
                };
                words
                    .push_run(run)
                    .map_err(|error| Refused(error.to_string()))?;
            }
        }
        result.words_written = Some(written);
        result.words = Some(words);
        Ok(Reply::Result(result))
    }

    fn clear_dirty_log(
        &mut self,
        number: u32,
        first_page: u64,
        num_pages: u32,
        words: &Words,
        bad_pointer: bool,
    ) -> Performed {
        let slot = self.state.find_slot(&self.machine, number);
        let mut frames = Vec::new();
        if let Some(template) = slot.map(|slot| &self.machine.slots[slot]) {
            let most = u64::from(template.npages);
            for page in words.iter_pages() {
                // Bits past the slot's end are not looked at.
                match first_page.checked_add(page).filter(|page| *page < most) {
                    Some(page) => frames.push(template.frame + page as u32),
                    None => break,
                }
            }
        }
        self.machine.frame_lists = vec![frames];
        let op = Op::ClearDirtyLog {
            slot: number,
            first_page,
            num_pages,
            mask: ClearMask::List(0),
            bad_pointer,
        };
        Ok(result(self.ioctl(op)))
    }

    fn its_write(&mut self, writer: KernelWriter) -> Performed {
        let page_bytes = self.host.page_bytes;
        let Some(its) = &mut self.its else {
            return Ok(Reply::NotModelled("a table save before its_setup"));
        };
        let slot = u32::from(its.slot());
        let pages = match writer {
            KernelWriter::ItsSave => its.save_tables(page_bytes),
            _ => its.save_pending(page_bytes),
        };
        let frames: Result<Vec<u32>, Refused> = pages
            .into_iter()
            .map(|page| self.page(slot, page).map(|(frame, _)| frame))
            .collect();
        self.machine.frame_lists = vec![frames?];
        Ok(result(self.ioctl(Op::KernelWrite {
            writer,
            frames: 0,
            fails_after: u8::MAX,
        })))
    }

    fn user_write(
        &mut self,
        slot: u16,
        pages: impl Iterator<Item = u64>,
        data: &UserData,
    ) -> Performed {
        for page in pages {
            let (frame, host) = self.page(u32::from(slot), page)?;
            // No kernel log sees it.
            self.ioctl(Op::UserWrite {
                frame,
                log: dirtysim_model::machine::WriterLog::None,
            })
            .ok();
            if let UserData::Bytes { value, bytes } = data {
                self.note_value(host, *value, *bytes);
            }
        }
        if let (
            UserData::ItsCommands {
                queue_offset,
                commands,
            },
            Some(its),
        ) = (data, &mut self.its)
        {
            its.queue(*queue_offset, commands);
        }
        Ok(Reply::Result(CallResult::default()))
    }
}

/// What an ioctl answered, as a trace has it.
fn result(answer: Answer) -> Reply {
    Reply::Result(match answer {
        Ok(value) => CallResult::returned(value),
        Err(errno) => {
            let errno =
                Errno::from_number(errno as u32).expect("traces know every errno of the model");
            CallResult::failed(errno)
        }
    })
}

fn entries_result(entries: Vec<RingEntry>) -> Result<CallResult, Refused> {
    let count = entries.len() as u64;
    let entries = RingEntries::collect(entries).map_err(|error| Refused(error.to_string()))?;
    Ok(CallResult {
        count: Some(count),
        entries: Some(entries),
        ..CallResult::default()
    })
}

/// KVM_CHECK_EXTENSION. Source: virt/kvm/kvm_main.c, kvm_vm_ioctl_check_extension_generic().
#[must_use]
pub fn check_extension(host: &Host, cap: Cap) -> u32 {
    let ring = RING_MAX_ENTRIES * DIRTY_GFN_BYTES;
    let has_ring = host.arch.has_ring(host.kernel);
    match cap.number() {
        // Only a total store order keeps the older contract.
        CAP_DIRTY_LOG_RING if has_ring && host.arch == Arch::X86 => ring,
        CAP_DIRTY_LOG_RING_ACQ_REL if has_ring => ring,
        CAP_DIRTY_LOG_RING_WITH_BITMAP => u32::from(host.arch.has_ring_with_bitmap(host.kernel)),
        CAP_MANUAL_DIRTY_LOG_PROTECT2 => host.arch.manual_protect_mask() as u32,
        _ => 0,
    }
}
