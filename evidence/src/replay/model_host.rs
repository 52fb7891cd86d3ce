//! A host whose KVM is the model: it performs calls of a trace, one after the other, and says what each gives.

use std::collections::BTreeMap;

use dirtysim_model::kernel::query::{self, Mapping};
use dirtysim_model::machine::{
    Arch as ModelArch, Constants, DIRTY_GFN_BYTES, Kernel, Machine, Mmu, X86_PREFETCH_PAGES,
};
use dirtysim_model::op::{self, KernelWriter, Op};
use dirtysim_model::oracle::Invariants;
use dirtysim_model::state::ring::{F_DIRTY, F_RESET, RingEntry as _};
use dirtysim_model::words::mutation::Mutation;
use dirtysim_model::words::{Frame, HostPage, Offset};

use super::guest::Rest;
use super::its::{GITS_CWRITER, Its};
use super::vm::{ModelVm, Region, errno};
use crate::trace::call::{Call, ItsCommand, Prot, Sharing, UserData};
use crate::trace::call_result::{CallResult, Returned, Touch};
use crate::trace::{
    Arch, CallProblem, Complaint, Errno, Exit, HeaderProblem, Machine as TraceMachine, PageRuns,
    RingEntries, RingEntry,
};

/// The most VMs at a time.
const VMS_MAX: usize = 1024;
/// The most ring entries of all VMs together (128 MiB).
const RING_ENTRIES_TOTAL_MAX: u64 = 1 << 23;
/// The most pages that one row of userspace's own stores or copies names.
const PAGES_MAX: u64 = super::vm::GUEST_PAGES_MAX;

/// The most pages of a guest's tables.
const TABLE_PAGES_MAX: u64 = 4096;

/// Bytes of the largest command queue of an ITS.
const QUEUE_BYTES_MAX: u64 = 256 * 4096;

/// What the model says to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every call has a result, and one is held at a time"
)]
pub enum Modelled {
    /// Its result. Optional fields are all there.
    Result(CallResult),
    /// The model has no answer; why, as a name that `docs/fidelity.md` lists.
    Not(&'static str),
}

impl From<CallResult> for Modelled {
    fn from(result: CallResult) -> Self {
        Self::Result(result)
    }
}

/// A host whose KVM is the model.
#[derive(Debug)]
pub struct ModelHost {
    machine: Machine,
    ring_page: u64,
    vms: BTreeMap<u32, ModelVm>,
}

/// The kernel version of the model that stands for a release: the newest that is not newer, by the changes that
/// versions are known to differ in (arm64's marks since 6.2, RESET's signal test since 6.17, which page of a block arm64 marks).
fn kernel_of(release: &str) -> Option<Kernel> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let major: u32 = numbers.next()?.parse().ok()?;
    let minor: u32 = numbers.next()?.parse().ok()?;
    match (major, minor) {
        (5, 15) => Some(Kernel::V5_15),
        (6, 1) => Some(Kernel::V6_1),
        (6, 2..=8) => Some(Kernel::V6_6),
        (6, 9..=16) => Some(Kernel::V6_12),
        (6, 17..) => Some(Kernel::V6_18),
        (7, 0..=2) => Some(Kernel::V7_2),
        (7.., _) => Some(Kernel::V7_3),
        _ => None,
    }
}

impl ModelHost {
    /// A host like the one of a recording.
    ///
    /// # Errors
    /// A machine that the model does not know.
    pub fn new(recorded: &TraceMachine, mutations: &[Mutation]) -> Result<Self, Complaint> {
        let arch = match recorded.arch {
            Arch::X86_64 => ModelArch::X86,
            Arch::Arm64 => ModelArch::Arm64,
            Arch::Riscv64 => ModelArch::Riscv,
            Arch::Loongarch64 => ModelArch::Loongarch,
        };
        let release = recorded.kernel.as_deref().unwrap_or_default();
        let kernel = kernel_of(release).ok_or_else(|| {
            Complaint::header(
                HeaderProblem::UnknownKernel(release.to_owned()),
                "the model knows Linux 5.15, 6.1 and newer; write what `uname -r` prints",
            )
        })?;
        let pml = recorded.pml.unwrap_or(false);
        let mut machine = Machine::new(arch, kernel, pml);
        let constants = Constants::of(arch, pml);
        let page_bytes = recorded.page_size.unwrap_or(constants.page_bytes);
        machine.constants = Constants {
            page_bytes,
            ring_min_entries: ((page_bytes / u64::from(DIRTY_GFN_BYTES)) as u32)
                .max(constants.ring_reserved.next_power_of_two()),
            address_spaces: recorded.address_spaces.unwrap_or(constants.address_spaces),
            ..constants
        };
        machine.mmu = if arch != ModelArch::X86 || recorded.two_dimensional.unwrap_or(pml) {
            Mmu::TwoDimensional
        } else {
            Mmu::Shadow
        };
        if machine.mmu == Mmu::Shadow {
            machine.prefetch_pages = X86_PREFETCH_PAGES;
        }
        for &mutation in mutations {
            dirtysim_model::mutated::switch_on(&mut machine, mutation);
        }
        Ok(Self {
            machine,
            ring_page: recorded.ring_page_offset.unwrap_or(64),
            vms: BTreeMap::new(),
        })
    }

    /// Address spaces of a VM from now on.
    pub(super) fn set_address_spaces(&mut self, spaces: u32) {
        self.machine.constants.address_spaces = spaces;
        for vm in self.vms.values_mut() {
            vm.machine.constants.address_spaces = spaces;
        }
    }

    /// Slot ids below this can be user space's.
    pub(super) fn user_slots(&self) -> u32 {
        self.machine.constants.user_slots
    }

    pub(super) fn address_spaces(&self) -> u32 {
        self.machine.constants.address_spaces
    }

    /// A section begins: every VM before it is gone.
    pub fn begin_section(&mut self) {
        self.vms.clear();
    }

    /// Nothing is known of a VM any more, or of any.
    pub(super) fn forget(&mut self, vm: Option<u32>) {
        match vm {
            Some(vm) => drop(self.vms.remove(&vm)),
            None => self.vms.clear(),
        }
    }

    /// The contracts of the interface that are broken after the last call on a VM.
    pub fn broken(&mut self, vm: Option<u32>) -> Invariants {
        vm.and_then(|vm| self.vms.get_mut(&vm))
            .map_or(Invariants::NONE, ModelVm::broken)
    }

    /// Performs one call.
    ///
    /// # Errors
    /// A call that cannot be made: it names a VM, a vCPU or a page that does not exist, or asks for more than replay
    /// takes. What the kernel would refuse is no error but a result.
    pub fn perform(&mut self, vm: Option<u32>, call: &Call) -> Result<Modelled, Complaint> {
        match call {
            Call::CheckExtension { cap } => {
                return Ok(match query::check_extension(&self.machine, cap.number()) {
                    Some(value) => CallResult::returned(value).into(),
                    None => Modelled::Not("KVM_CHECK_EXTENSION of another capability"),
                });
            }
            Call::End {} => return Ok(CallResult::default().into()),
            _ => {}
        }
        let number = vm.ok_or_else(|| {
            Complaint::call(CallProblem::NoVm(call.name()), "write the VM's number")
        })?;
        if let Call::CreateVm {} = call {
            return self.create_vm(number).map(Modelled::from);
        }
        let entries: u64 = self
            .vms
            .values()
            .flat_map(|vm| vm.state.vcpus.iter())
            .map(|vcpu| u64::from(vcpu.ring.size()))
            .sum();
        let ring_page = self.ring_page;
        let Some(vm) = self.vms.get_mut(&number) else {
            return Err(Complaint::call(
                CallProblem::UnknownVm(number),
                "KVM_CREATE_VM comes first, in the same section",
            ));
        };
        if vm.state.crashed {
            return Ok(CallResult::default().into());
        }
        match call {
            Call::CloseVm {} => {
                self.vms.remove(&number);
                Ok(CallResult::default().into())
            }
            Call::CreateVcpu { vcpu } => {
                let more = u64::from(vm.state.caps.ring_entries);
                if entries + more > RING_ENTRIES_TOTAL_MAX {
                    return Err(Complaint::call(
                        CallProblem::RingEntries(entries + more),
                        "replay takes at most 2^23 entries at a time",
                    ));
                }
                vm.create_vcpu(*vcpu).map(Modelled::from)
            }
            Call::MmapRing {
                vcpu,
                offset_pages,
                bytes,
                prot,
                sharing,
                touch_byte,
            } => {
                vm.vcpu(*vcpu)?;
                let mapping = Mapping {
                    first_page: *offset_pages,
                    pages: bytes.div_ceil(vm.machine.constants.page_bytes),
                    ring_page,
                    executable: matches!(prot, Prot::Rx | Prot::Rwx),
                    shared: *sharing == Sharing::Shared,
                };
                map_ring(vm, &mapping, *bytes, *prot, *touch_byte)
            }
            _ => perform_on(vm, call),
        }
    }

    fn create_vm(&mut self, number: u32) -> Result<CallResult, Complaint> {
        if self.vms.contains_key(&number) {
            return Err(Complaint::call(
                CallProblem::VmExists(number),
                "close it first, or give the new one another number",
            ));
        }
        if self.vms.len() == VMS_MAX {
            return Err(Complaint::call(
                CallProblem::TooManyVms(VMS_MAX),
                "close_vm closes one; a section begins with none",
            ));
        }
        self.vms.insert(number, ModelVm::new(&self.machine));
        Ok(CallResult::returned(0))
    }
}

fn map_ring(
    vm: &ModelVm,
    mapping: &Mapping,
    bytes: u64,
    prot: Prot,
    touch_byte: Option<u64>,
) -> Result<Modelled, Complaint> {
    let mut result = match query::map_vcpu(&vm.machine, &vm.state, *mapping) {
        Ok(()) => CallResult {
            mapped_entries: Some(bytes / u64::from(DIRTY_GFN_BYTES)),
            ..CallResult::returned(0)
        },
        Err(error) => {
            return Ok(CallResult {
                mapped_entries: Some(0),
                ..CallResult::failed(errno(error))
            }
            .into());
        }
    };
    if let Some(byte) = touch_byte {
        if byte >= bytes {
            return Err(Complaint::call(
                CallProblem::TouchByte { byte, bytes },
                "touch a byte of the mapping",
            ));
        }
        let page = mapping
            .first_page
            .saturating_add(byte / vm.machine.constants.page_bytes);
        let there = query::vcpu_page_exists(&vm.machine, &vm.state, mapping.ring_page, page);
        result.touch = Some(match (prot, there) {
            (Prot::None, _) => Touch::Sigsegv,
            (_, true) => Touch::Ok,
            (_, false) => Touch::Sigbus,
        });
    }
    Ok(result.into())
}

fn perform_on(vm: &mut ModelVm, call: &Call) -> Result<Modelled, Complaint> {
    let number = |slot: u16, as_id: u16| u32::from(as_id) << 16 | u32::from(slot);
    let page_bytes = vm.machine.constants.page_bytes;
    let result = match call {
        Call::EnableCap { cap, flags, args0 } => {
            if query::check_extension(&vm.machine, cap.number()).is_none() {
                return Ok(Modelled::Not("KVM_ENABLE_CAP of another capability"));
            }
            vm.call(Op::EnableCap(op::EnableCap {
                cap: cap.number(),
                flags: *flags,
                args0: *args0,
            }))
        }
        Call::VcpuInit { vcpu, .. } => {
            vm.vcpu(*vcpu)?;
            CallResult::returned(0)
        }
        Call::SetUserMemoryRegion {
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
        } => {
            let whole = npages.checked_mul(page_bytes).ok_or_else(|| {
                Complaint::call(CallProblem::Npages(*npages), "a size in bytes has 64 bits")
            })?;
            vm.set_region(&Region {
                number: number(*slot, *as_id),
                flags: *flags,
                gpa: *gpa,
                bytes: bytes.unwrap_or(whole),
                mem,
                mem_offset: *mem_offset,
                populated: *populated,
                huge: *huge,
            })?
        }
        Call::GuestLayout(layout) => {
            vm.guest_slots.insert(layout.slot);
            if let Some(pages) = &layout.page_table_pages {
                let total = pages.runs().iter().map(|run| run.1).sum();
                if total > TABLE_PAGES_MAX {
                    return Err(Complaint::call(
                        CallProblem::PagesInRow(total),
                        "replay takes guests with at most 4096 pages of tables",
                    ));
                }
                vm.tables = pages.iter().map(|page| (layout.slot, page)).collect();
            }
            CallResult::default()
        }
        Call::Run {
            vcpu,
            program,
            resume,
        } => vm.run_guest(*vcpu, program, *resume)?,
        Call::RingPeek { vcpu, fetch_index } => {
            let vcpu = vm.ring(*vcpu)?;
            let (entries, stop_flags) = dirty_entries(vm, vcpu, *fetch_index, None);
            CallResult {
                count: Some(entries.len() as u64),
                entries: Some(runs(entries)?),
                stop_flags: Some(stop_flags),
                ..CallResult::default()
            }
        }
        Call::Harvest {
            vcpu,
            fetch_index,
            max,
            write_flags,
        } => harvest(vm, *vcpu, *fetch_index, *max, *write_flags)?,
        Call::RingRead { vcpu, index, count } => {
            let vcpu = vm.ring(*vcpu)?;
            let count = (*count).min(crate::trace::RING_ENTRIES_MAX) as u32;
            let entries = (0..count).map(|n| entry(vm, vcpu, index.wrapping_add(n)));
            CallResult {
                entries: Some(runs(entries)?),
                ..CallResult::default()
            }
        }
        Call::RingWrite {
            vcpu,
            index,
            flags,
            slot,
            offset,
        } => {
            let vcpu = vm.ring(*vcpu)?;
            let entry = vm.state.vcpus[vcpu].ring.entry_mut(*index);
            if let Some(flags) = flags {
                entry.set_flags((flags & u32::from(F_DIRTY | F_RESET)) as u8);
            }
            if let Some(slot) = slot {
                entry.set_slot(*slot);
            }
            if let Some(offset) = offset {
                entry.set_offset(Offset(*offset));
            }
            CallResult::default()
        }
        Call::ResetDirtyRings {} => vm.call(Op::ResetRings(op::ResetRings { signal: false })),
        Call::GetDirtyLog {
            slot,
            as_id,
            bad_pointer,
        } => vm.get_log(number(*slot, *as_id), *bad_pointer)?,
        Call::ClearDirtyLog {
            slot,
            as_id,
            first_page,
            num_pages,
            words_given,
            words,
            bad_pointer,
        } => vm.clear_log(
            number(*slot, *as_id),
            *first_page,
            *num_pages,
            words,
            *words_given,
            *bad_pointer,
        )?,
        Call::UserWrite { slot, pages, data } => user_write(vm, *slot, pages, data)?,
        Call::Discard { slot, pages } => {
            hosts(vm, *slot, pages)?;
            let frames = pages
                .iter()
                .filter_map(|page| vm.frame((*slot).into(), page));
            let frames: Vec<Frame> = frames.collect();
            if !vm.discard(&frames) {
                return Ok(Modelled::Not(
                    "a discard of memory that the host may have given huge pages",
                ));
            }
            CallResult::default()
        }
        Call::StolenTime { vcpu, gpa } => {
            if !matches!(vm.machine.arch, ModelArch::X86 | ModelArch::Arm64) {
                return Ok(Modelled::Not("stolen time of another architecture"));
            }
            vm.stolen_time(*vcpu, *gpa)?
        }
        Call::PreFaultMemory { vcpu, .. } if vm.pre_fault_spins(*vcpu)? => {
            return Ok(Modelled::Not(
                "a pre-fault after a memslot has gone or moved, which spins until a signal",
            ));
        }
        Call::PreFaultMemory { vcpu, gpa, npages } => vm.pre_fault(*vcpu, *gpa, *npages)?,
        Call::ReadPage {
            slot,
            page,
            at,
            bytes,
        } => {
            let host = vm.host(u32::from(*slot), *page)?;
            if vm.guest_slots.contains(slot) {
                return Ok(Modelled::Not("bytes that no row tells"));
            }
            CallResult {
                value: Some(
                    vm.memories
                        .bytes(host, within(*at, *bytes, page_bytes)?, *bytes),
                ),
                ..CallResult::default()
            }
        }
        Call::Copy { slot, pages } => {
            let hosts = hosts(vm, *slot, pages)?;
            vm.copy(*slot, pages, &hosts);
            CallResult::default()
        }
        Call::Compare { slot } => return compare(vm, *slot),
        _ => return interrupt_controller(vm, call),
    };
    Ok(result.into())
}

fn entry(vm: &ModelVm, vcpu: usize, index: u32) -> RingEntry {
    let entry = vm.state.vcpus[vcpu].ring.entry(index);
    RingEntry {
        flags: u32::from(entry.flags()),
        slot: entry.slot(),
        offset: entry.offset().0,
    }
}

/// The entries with flags 01 from an index on, and the flags of the entry at which that ends.
fn dirty_entries(vm: &ModelVm, vcpu: usize, from: u32, max: Option<u32>) -> (Vec<RingEntry>, u32) {
    let most = vm.state.vcpus[vcpu]
        .ring
        .size()
        .min(max.unwrap_or(u32::MAX));
    let entries: Vec<RingEntry> = (0..most)
        .map(|n| entry(vm, vcpu, from.wrapping_add(n)))
        .take_while(|entry| entry.flags == u32::from(F_DIRTY))
        .collect();
    let stop = entry(vm, vcpu, from.wrapping_add(entries.len() as u32)).flags;
    (entries, stop)
}

fn runs(entries: impl IntoIterator<Item = RingEntry>) -> Result<RingEntries, Complaint> {
    RingEntries::collect(entries).map_err(|error| {
        Complaint::call(CallProblem::Runs(error), "a ring has at most 65536 entries")
    })
}

fn harvest(
    vm: &mut ModelVm,
    id: u32,
    fetch_index: u32,
    max: Option<u32>,
    write_flags: u32,
) -> Result<CallResult, Complaint> {
    let vcpu = vm.ring(id)?;
    let (entries, stop_flags) = dirty_entries(vm, vcpu, fetch_index, max);
    let mut count = entries.len() as u32;
    if write_flags == u32::from(F_RESET) {
        count = vm.harvest(vcpu, fetch_index, max);
    } else {
        let ring = &mut vm.state.vcpus[vcpu].ring;
        for n in 0..count {
            let flags = (write_flags & u32::from(F_DIRTY | F_RESET)) as u8;
            ring.entry_mut(fetch_index.wrapping_add(n)).set_flags(flags);
        }
        ring.fetch_index = fetch_index.wrapping_add(count);
    }
    Ok(CallResult {
        count: Some(u64::from(count)),
        entries: Some(runs(entries)?),
        stop_flags: Some(stop_flags),
        ..CallResult::default()
    })
}

/// The host pages of a row's pages, in order.
fn hosts(vm: &ModelVm, slot: u16, pages: &PageRuns) -> Result<Vec<HostPage>, Complaint> {
    let total = pages
        .runs()
        .iter()
        .fold(0u64, |sum, run| sum.saturating_add(run.1));
    if total > PAGES_MAX {
        return Err(Complaint::call(
            CallProblem::PagesInRow(total),
            "replay takes at most 2^28",
        ));
    }
    for &(first, count) in pages.runs() {
        vm.host(u32::from(slot), first + count - 1)?;
    }
    pages
        .iter()
        .map(|page| vm.host(u32::from(slot), page))
        .collect()
}

/// A place within a page, of bytes that end in it too.
fn within(at: u32, bytes: u32, page_bytes: u64) -> Result<u64, Complaint> {
    if u64::from(at) + u64::from(bytes) > page_bytes {
        return Err(Complaint::call(
            CallProblem::At(at),
            "`at` and the bytes from there on are within the page",
        ));
    }
    Ok(at.into())
}

fn user_write(
    vm: &mut ModelVm,
    slot: u16,
    pages: &PageRuns,
    data: &UserData,
) -> Result<CallResult, Complaint> {
    let page_bytes = vm.machine.constants.page_bytes;
    hosts(vm, slot, pages)?;
    for page in pages.iter() {
        let host = vm.user_write(u32::from(slot), page)?;
        if let UserData::Bytes { value, bytes, at } = *data {
            let at = within(at, bytes.min(8), page_bytes)?;
            vm.memories.store(host, at, value, bytes);
        }
    }
    if let UserData::ItsCommands {
        queue_offset,
        commands,
    } = data
    {
        write_commands(vm, slot, pages, *queue_offset, commands)?;
    }
    Ok(CallResult::default())
}

/// Lays commands into guest memory, from a place in the queue on that begins at the first page named.
fn write_commands(
    vm: &mut ModelVm,
    slot: u16,
    pages: &PageRuns,
    queue_offset: u64,
    commands: &[ItsCommand],
) -> Result<(), Complaint> {
    let page_bytes = vm.machine.constants.page_bytes;
    let first = pages.runs().first().map_or(0, |run| run.0);
    if !queue_offset.is_multiple_of(ItsCommand::BYTES) || queue_offset >= QUEUE_BYTES_MAX {
        return Err(Complaint::call(
            CallProblem::QueueOffset(queue_offset),
            "a queue has commands of 32 bytes, and at most 1 MiB",
        ));
    }
    let gpa = vm.slot_gpa(slot.into()).unwrap_or(0);
    let words = commands
        .iter()
        .flat_map(|command| command.words(gpa, page_bytes));
    for (value, at) in words.zip((queue_offset..).step_by(8)) {
        let host = vm.host(slot.into(), first + at / page_bytes)?;
        vm.memories.set_word(host, at % page_bytes / 8, value);
    }
    Ok(())
}

fn compare(vm: &ModelVm, slot: u16) -> Result<Modelled, Complaint> {
    let first = vm.host(u32::from(slot), 0)?;
    let frame = vm.frame(u32::from(slot), 0).unwrap_or_default();
    let npages = vm
        .machine
        .slot_of_frame(frame)
        .map_or(1, |slot| vm.machine.slots[slot].npages);
    let mut differs: Vec<(u64, u64)> = Vec::new();
    for host in vm.memories.touched(slot, first, npages) {
        if vm.guest_slots.contains(&slot) {
            return Ok(Modelled::Not("bytes that no row tells"));
        }
        let page = u64::from(host - first);
        if vm.memories.differs(slot, page, host) {
            match differs.last_mut() {
                Some((first, count)) if *first + *count == page => *count += 1,
                _ => differs.push((page, 1)),
            }
        }
    }
    let mut pages = PageRuns::default();
    for (first, count) in differs {
        pages.push_run(first, count).map_err(|error| {
            Complaint::call(
                CallProblem::Runs(error),
                "pages count from the slot's first",
            )
        })?;
    }
    Ok(CallResult {
        differs: Some(pages),
        ..CallResult::default()
    }
    .into())
}

/// Why the model has no answer about the interrupt controller.
const CONTROLLER: &str = "interrupt controller outside the usual set-up";

fn interrupt_controller(vm: &mut ModelVm, call: &Call) -> Result<Modelled, Complaint> {
    if vm.machine.arch != ModelArch::Arm64 {
        return Ok(Modelled::Not(CONTROLLER));
    }
    let answer = match call {
        Call::CreateDevice { device } => vm.gic.create(device),
        Call::SetDeviceAttr {
            device,
            group,
            attr,
            value,
            ..
        } => vm.gic.set_attr(device, *group, *attr, *value),
        Call::ItsSetup { .. } => Some(CallResult::default()),
        Call::RedistRegWrite {
            vcpu,
            offset,
            value,
            ..
        } => {
            vm.vcpu(*vcpu)?;
            if !vm.gic.is_ready() || !vm.gic.has_its() {
                return Ok(Modelled::Not(CONTROLLER));
            }
            let (known, _) = vm.its(|its, memory| its.lpis.write(*vcpu, *offset, *value, memory));
            known.then(|| CallResult::returned(0))
        }
        Call::VgicSavePendingTables {} if !vm.gic.is_there() => None,
        Call::VgicSavePendingTables {} if !vm.gic.is_ready() => {
            Some(CallResult::failed(Errno::ENXIO))
        }
        Call::VgicSavePendingTables {} => {
            let (result, written) = vm.its(|its, memory| its.lpis.save_pending(memory));
            Some(written_by(vm, KernelWriter::PendingSave, result, written))
        }
        _ if !vm.gic.has_its() => None,
        Call::GuestMmio {
            vcpu, gpa, value, ..
        } => return guest_mmio(vm, *vcpu, *gpa, *value),
        _ => its_call(vm, call),
    };
    Ok(answer.map_or(Modelled::Not(CONTROLLER), Modelled::Result))
}

/// A call on the ITS, which is there.
fn its_call(vm: &mut ModelVm, call: &Call) -> Option<CallResult> {
    let placed = vm.gic.its_is_placed();
    match call {
        Call::ItsRegWrite { .. } | Call::ItsRegRead { .. } if !placed => {
            Some(CallResult::failed(Errno::ENXIO))
        }
        Call::ItsRegWrite { offset, value, .. } => {
            let (result, written) = vm.its(|its, memory| its.write(*offset, *value, true, memory));
            let mut result = written_by(vm, KernelWriter::Other, result?, written);
            result.creadr_after = (*offset == GITS_CWRITER).then_some(vm.gic.its.creadr());
            Some(result)
        }
        Call::ItsRegRead { offset, .. } => vm.gic.its.read(*offset).map(|value| CallResult {
            value: Some(value),
            ..CallResult::returned(0)
        }),
        Call::ItsReset {} => {
            vm.gic.its.reset();
            Some(CallResult::returned(0))
        }
        Call::ItsSaveTables {} => {
            let (result, written) = vm.its(Its::save_tables);
            Some(written_by(vm, KernelWriter::ItsSave, result, written))
        }
        Call::ItsRestoreTables {} => {
            let (result, written) = vm.its(Its::restore_tables);
            Some(written_by(vm, KernelWriter::ItsRestore, result, written))
        }
        Call::SignalMsi { .. } if !placed => Some(CallResult::failed(Errno::EINVAL)),
        Call::SignalMsi { dev, event } => Some(match vm.gic.its.signal(*dev, *event) {
            Ok(value) => CallResult::returned(value),
            Err(error) => CallResult::failed(error),
        }),
        _ => None,
    }
}

/// The model writes and marks the frames that the interrupt controller wrote; a call that failed keeps its errno.
fn written_by(
    vm: &mut ModelVm,
    writer: KernelWriter,
    result: Result<(), Errno>,
    written: Vec<Frame>,
) -> CallResult {
    let answer = vm.kernel_write(writer, written);
    match result {
        Ok(()) => answer,
        Err(error) => CallResult::failed(error),
    }
}

/// A store of the guest to a register of the ITS: what that makes KVM write goes to the ring of this vCPU, all of it before the guest
/// goes on.
fn guest_mmio(vm: &mut ModelVm, id: u32, gpa: u64, value: u64) -> Result<Modelled, Complaint> {
    let vcpu = vm.vcpu(id)?;
    let Some(offset) = vm.gic.its_offset(gpa) else {
        return Ok(Modelled::Not(CONTROLLER));
    };
    vm.record_is_due(vcpu);
    let mut rest = vm.enter(vcpu)?;
    if rest == Rest::Guest {
        let (known, written) = vm.its(|its, memory| its.write(offset, value, false, memory));
        if known.is_none() {
            vm.leave(vcpu)?;
            return Ok(Modelled::Not(CONTROLLER));
        }
        vm.write_in_context(vcpu, &written)?;
        rest = vm.enter(vcpu)?;
    }
    let done = rest == Rest::Guest;
    if done {
        vm.leave(vcpu)?;
    }
    Ok(CallResult {
        returned: Some(Returned::Value(0)),
        exit: Some(if done {
            Exit::Mmio
        } else {
            Exit::DirtyRingFull
        }),
        program_done: Some(done),
        ..CallResult::default()
    }
    .into())
}

/// The errno of an address space that does not exist.
pub(super) const NO_SPACE: Errno = Errno::EINVAL;
