//! One VM of a recording, in the model: a machine that grows as the calls name its slots and vCPUs, and its state.
//!
//! A call becomes an operation of thread 0, whose steps are taken to the end with nobody else acting; the model's one
//! transition function is the only place that knows what an ioctl does.

use std::collections::BTreeSet;

use dirtysim_model::kernel::notifier as host;
use dirtysim_model::machine::{Arch, MEM_MAX_PAGES, Machine, SlotTemplate, VcpuConfig};
use dirtysim_model::op::{self, ClearMask, Into as Collect, KernelWriter, Op};
use dirtysim_model::oracle::{self, Invariants};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Large;
use dirtysim_model::state::slot::Slot;
use dirtysim_model::state::thread::Answer;
use dirtysim_model::transition::Effect;
use dirtysim_model::words::errno::Errno as ModelErrno;
use dirtysim_model::words::{Frame, HostPage, Offset};

use super::gic::Gic;
use super::its::{GuestMemory, Its};
use super::memory::Memories;
use super::program::Cursor;
use crate::alone::{Unfinished, finish_op};
use crate::trace::call_result::{CallResult, Returned};
use crate::trace::{CallProblem, Complaint, Errno, Words};

/// The most pages of a VM that is replayed (1 TiB of 4 KiB pages).
pub const GUEST_PAGES_MAX: u64 = 1 << 28;
/// The most vCPUs of a VM that is replayed.
pub const VCPUS_MAX: usize = 255;
/// KVM_MAX_VCPU_IDS with the number of vCPUs that distributions configure (arch/x86/include/asm/kvm_host.h).
const X86_VCPU_IDS: u32 = 4096;
/// The most vCPUs that a GICv3 has (include/kvm/arm_vgic.h).
const ARM64_VCPU_IDS: u32 = 512;
/// KVM_MAX_VCPUS (arch/riscv/include/asm/kvm_host.h).
const RISCV_VCPU_IDS: u32 = 1024;

/// A VM of a recording.
#[derive(Debug)]
pub(super) struct ModelVm {
    pub(super) machine: Machine,
    pub(super) state: State<Large>,
    /// The host memory behind the slots.
    pub(super) memories: Memories,
    /// The vCPUs' ids, in the order of their creation.
    pub(super) vcpu_ids: Vec<u32>,
    /// What each vCPU's guest is at.
    pub(super) cursors: Vec<Option<Cursor>>,
    /// The interrupt controller.
    pub(super) gic: Gic,
    /// Slots that hold the guest's own code and tables, whose bytes no row tells.
    pub(super) guest_slots: BTreeSet<u16>,
    /// Pages of the guests' own tables, by slot and page, a level after the other: walked on x86.
    pub(super) tables: Vec<(u16, u64)>,
    /// Whether each vCPU's root of the second stage was made before a memslot last went or moved; none without a root. x86 alone has a use for it.
    pub(super) old_roots: Vec<Option<bool>>,
    /// Where each vCPU's record of stolen time is, in bytes of guest memory.
    pub(super) records: Vec<Option<u64>>,
    /// What the last step of the call meant.
    effect: Effect,
}

/// The arguments of KVM_SET_USER_MEMORY_REGION.
pub(super) struct Region<'a> {
    /// Combined slot number.
    pub(super) number: u32,
    pub(super) flags: u32,
    pub(super) gpa: u64,
    pub(super) bytes: u64,
    pub(super) mem: &'a str,
    pub(super) mem_offset: u64,
    /// The host's memory was touched before.
    pub(super) populated: bool,
    pub(super) huge: bool,
}

/// A result of the trace from an answer of the model.
pub(super) fn result(answer: Answer) -> CallResult {
    CallResult {
        returned: Some(returned(answer)),
        ..CallResult::default()
    }
}

/// The model's errno, in the trace's terms.
pub(super) fn errno(errno: ModelErrno) -> Errno {
    Errno::from_number(u32::from(errno as u8))
        .expect("the trace names every errno that the model answers with")
}

fn returned(answer: Answer) -> Returned {
    match answer {
        Ok(value) => Returned::Value(value),
        Err(error) => Returned::Error(errno(error)),
    }
}

impl ModelVm {
    /// A VM without slots and vCPUs.
    pub(super) fn new(machine: &Machine) -> Self {
        let mut machine = machine.clone();
        machine.programs = vec![Vec::new()];
        machine.frame_lists = vec![Vec::new()];
        Self {
            state: State::new(&machine),
            machine,
            memories: Memories::default(),
            vcpu_ids: Vec::new(),
            cursors: Vec::new(),
            gic: Gic::default(),
            guest_slots: BTreeSet::new(),
            tables: Vec::new(),
            records: Vec::new(),
            old_roots: Vec::new(),
            effect: Effect::None,
        }
    }

    /// Runs one operation to its end, with nobody else acting. A kernel that has crashed answers nothing.
    pub(super) fn run(&mut self, op: Op) -> Option<Answer> {
        self.machine.programs[0] = vec![op];
        dirtysim_model::op::ahead::look_ahead(&mut self.machine);
        self.state.threads[0].op = 0;
        self.effect = Effect::None;
        let last = &mut self.effect;
        let done = finish_op(&self.machine, &mut self.state, 0, |effect| {
            if effect != Effect::None {
                *last = effect;
            }
        });
        match done {
            Ok(answer) => Some(answer),
            Err(Unfinished::Crashed) => None,
            Err(Unfinished::Waits) => {
                unreachable!("an operation waits for nobody when nobody else acts")
            }
        }
    }

    /// The same, as a result with nothing but its return value.
    pub(super) fn call(&mut self, op: Op) -> CallResult {
        self.run(op).map_or_else(CallResult::default, result)
    }

    /// The contracts of the interface that are broken now.
    pub(super) fn broken(&mut self) -> Invariants {
        let effect = std::mem::take(&mut self.effect);
        oracle::contracts(&self.machine, &self.state, effect)
    }

    /// The index of a vCPU.
    pub(super) fn vcpu(&self, id: u32) -> Result<usize, Complaint> {
        self.vcpu_ids
            .iter()
            .position(|&known| known == id)
            .ok_or_else(|| {
                Complaint::call(
                    CallProblem::UnknownVcpu(id),
                    "a vCPU is made by KVM_CREATE_VCPU before it is named",
                )
            })
    }

    /// The index of a vCPU that has a ring.
    pub(super) fn ring(&self, id: u32) -> Result<usize, Complaint> {
        let vcpu = self.vcpu(id)?;
        if self.state.vcpus[vcpu].ring.size() == 0 {
            return Err(Complaint::call(
                CallProblem::NoRing(id),
                "KVM_ENABLE_CAP makes rings before the vCPU is created",
            ));
        }
        Ok(vcpu)
    }

    /// KVM_CREATE_VCPU: the id first; then the architecture, which on arm64 makes no more vCPUs once the interrupt controller is
    /// initialised; then an id that is taken. Source: virt/kvm/kvm_main.c, kvm_vm_ioctl_create_vcpu(); arch/arm64/kvm/arm.c,
    /// kvm_arch_vcpu_precreate().
    pub(super) fn create_vcpu(&mut self, id: u32) -> Result<CallResult, Complaint> {
        let ids = match self.machine.arch {
            Arch::X86 => X86_VCPU_IDS,
            Arch::Riscv => RISCV_VCPU_IDS,
            Arch::Arm64 | Arch::Loongarch | Arch::S390 => ARM64_VCPU_IDS,
        };
        if id >= ids {
            return Ok(CallResult::failed(Errno::EINVAL));
        }
        let taken = self.vcpu_ids.contains(&id);
        if taken && self.machine.kernel.vcpu_id_first() {
            return Ok(CallResult::failed(Errno::EEXIST));
        }
        if self.gic.is_ready() {
            return Ok(CallResult::failed(Errno::EBUSY));
        }
        if taken {
            return Ok(CallResult::failed(Errno::EEXIST));
        }
        if self.vcpu_ids.len() == VCPUS_MAX {
            return Err(Complaint::call(
                CallProblem::TooManyVcpus(VCPUS_MAX),
                "replay takes VMs of at most so many",
            ));
        }
        self.machine.vcpus.push(VcpuConfig::default());
        self.vcpu_ids.push(id);
        self.cursors.push(None);
        self.records.push(None);
        self.old_roots.push(None);
        Ok(self.call(Op::CreateVcpu))
    }

    /// KVM_SET_USER_MEMORY_REGION.
    pub(super) fn set_region(&mut self, region: &Region<'_>) -> Result<CallResult, Complaint> {
        let page = self.machine.constants.page_bytes;
        let hva = self.memories.hva(region.mem, region.mem_offset)?;
        if region.populated || region.huge {
            self.populate(region)?;
        }
        let old = self.state.find_slot(&self.machine, region.number);
        let op = |template: usize| {
            Op::SetMemoryRegion(op::SetMemoryRegion {
                slot: region.number,
                flags: region.flags,
                gpa: region.gpa,
                bytes: region.bytes,
                hva,
                template: template as u16,
            })
        };
        let Some(slot) = old else {
            let pages = region.bytes / page;
            if region.bytes == 0 || pages > MEM_MAX_PAGES || !region.bytes.is_multiple_of(page) {
                // Refused before anything is made.
                return Ok(self.call(op(0)));
            }
            let template = self.insert_slot(region, hva, pages)?;
            let result = self.call(op(template));
            if !self.state.slots[template].exists() {
                self.remove_slot(template);
            }
            return Ok(result);
        };
        let gfn = region.gpa / page;
        let template = &mut self.machine.slots[slot];
        if !template.places.contains(&gfn) {
            template.places.push(gfn);
        }
        let before = self.state.slots[slot].place;
        let result = self.call(op(slot));
        if !self.state.slots[slot].exists() || self.state.slots[slot].place != before {
            for root in self.old_roots.iter_mut().flatten() {
                *root = true;
            }
        }
        if self.state.slots[slot].exists() {
            let place = usize::from(self.state.slots[slot].place);
            let places = &mut self.machine.slots[slot].places;
            *places = vec![places[place]];
            self.state.slots[slot].place = 0;
        } else {
            self.remove_slot(slot);
        }
        Ok(result)
    }

    /// The host pages of a region, which begin without memory of their own.
    fn host_pages(&mut self, mem: &str, page: u64, pages: u64) -> Result<HostPage, Complaint> {
        let (host, new) = self.memories.host(mem, page, pages)?;
        if let Some((first, count)) = new {
            self.machine.unbacked.insert_new(first, count);
        }
        Ok(host)
    }

    /// The host gives a region's pages their memory before KVM sees them. Where huge pages were asked for, whole blocks of them have it as good as
    /// before: whoever touches a page first is given all of its block. Source: mm/huge_memory.c, do_huge_pmd_anonymous_page(), with the huge page
    /// of zeros switched off.
    fn populate(&mut self, region: &Region<'_>) -> Result<(), Complaint> {
        let page = self.machine.constants.page_bytes;
        let pages = region.bytes / page;
        if pages == 0 || pages > GUEST_PAGES_MAX || !region.mem_offset.is_multiple_of(page) {
            return Ok(());
        }
        let first = region.mem_offset / page;
        let host = self.host_pages(region.mem, first, pages)?;
        let block = u64::from(self.machine.constants.huge_pages);
        let (begin, end) = if region.populated || block < 2 {
            (first, first + pages)
        } else {
            (
                first.next_multiple_of(block),
                (first + pages) / block * block,
            )
        };
        if begin < end {
            let count = (end - begin) as u32;
            let host = host + (begin - first) as u32;
            host::back(&mut self.machine, &mut self.state, host, count);
        }
        Ok(())
    }

    /// Somebody is about to store to a frame.
    pub(super) fn back(&mut self, frame: Frame) {
        let host = self.machine.host_page(frame);
        host::back(&mut self.machine, &mut self.state, host, 1);
    }

    /// A place for a new slot, in the first gap between the others; templates stay in the order of their frames.
    fn insert_slot(
        &mut self,
        region: &Region<'_>,
        hva: u64,
        pages: u64,
    ) -> Result<usize, Complaint> {
        let too_large = || {
            Complaint::call(
                CallProblem::TooManyPages(GUEST_PAGES_MAX),
                "replay takes guests of at most so many",
            )
        };
        let used: u64 = self
            .machine
            .slots
            .iter()
            .map(|slot| u64::from(slot.npages))
            .sum();
        if used + pages > GUEST_PAGES_MAX {
            return Err(too_large());
        }
        let npages = pages as u32;
        let page_bytes = self.machine.constants.page_bytes;
        let host = self.host_pages(region.mem, region.mem_offset / page_bytes, pages)?;
        let padded = u64::from(self.machine.padded(npages));
        let (mut index, mut frame) = (self.machine.slots.len(), 0);
        for (at, slot) in self.machine.slots.iter().enumerate() {
            if u64::from(slot.frame.0) >= frame + padded {
                index = at;
                break;
            }
            frame = u64::from(slot.frame.0) + u64::from(self.machine.padded(slot.npages));
        }
        // Gaps may add up; the frames still fit 32 bits by far.
        if frame + padded > 1 << 31 {
            return Err(too_large());
        }
        let template = SlotTemplate {
            as_id: region.number >> 16,
            id: region.number & 0xffff,
            npages,
            frame: Frame(frame as u32),
            host,
            hva,
            places: vec![region.gpa / self.machine.constants.page_bytes],
            huge: region.huge,
            name: String::new(),
        };
        self.machine.slots.insert(index, template);
        self.state.slots.insert(index, Slot::default());
        Ok(index)
    }

    fn remove_slot(&mut self, index: usize) {
        self.machine.slots.remove(index);
        self.state.slots.remove(index);
    }

    /// KVM_GET_DIRTY_LOG: the words are those that the model copied out.
    pub(super) fn get_log(
        &mut self,
        number: u32,
        bad_pointer: bool,
    ) -> Result<CallResult, Complaint> {
        let range = self.slot_range(number);
        if let Some((frame, padded, _)) = range {
            self.state.seen.remove_range(frame, padded);
        }
        let mut result = self.call(Op::GetDirtyLog(op::GetDirtyLog {
            slot: number,
            into: Collect::Pending,
            bad_pointer,
        }));
        let mut words = Words::default();
        let mut written = 0;
        if let (Some(Returned::Value(_)), Some((frame, padded, npages))) = (result.returned, range)
        {
            let bits = self.machine.constants.word_bits;
            written = u64::from(npages.div_ceil(bits));
            let mut at = frame;
            while let Some(page) = self
                .state
                .seen
                .next(at)
                .filter(|&page| page < frame + padded)
            {
                let index = (page - frame) / bits;
                let word = self.state.seen.word(frame + index * bits, bits);
                let run = crate::trace::WordRun {
                    first: u64::from(index),
                    last: u64::from(index),
                    word,
                };
                words.push_run(run).map_err(|error| {
                    Complaint::call(CallProblem::Runs(error), "a slot's words ascend")
                })?;
                at = frame + (index + 1) * bits;
            }
        }
        result.words_written = Some(written);
        result.words = Some(words);
        Ok(result)
    }

    /// First frame, padded pages and pages of a slot.
    fn slot_range(&self, number: u32) -> Option<(Frame, u32, u32)> {
        let slot = &self.machine.slots[self.state.find_slot(&self.machine, number)?];
        Some((slot.frame, self.machine.padded(slot.npages), slot.npages))
    }

    /// KVM_CLEAR_DIRTY_LOG. The caller's words are laid where the model keeps user space's copy of the bitmap.
    pub(super) fn clear_log(
        &mut self,
        number: u32,
        first_page: u64,
        num_pages: u32,
        words: &Words,
        words_given: u64,
        bad_pointer: bool,
    ) -> Result<CallResult, Complaint> {
        let bits = u64::from(self.machine.constants.word_bits);
        if let Some((frame, padded, npages)) = self.slot_range(number) {
            self.state.seen.remove_range(frame, padded);
            let end = first_page.saturating_add(u64::from(num_pages));
            if first_page.is_multiple_of(bits) && end <= u64::from(npages) {
                let needed = u64::from(num_pages).div_ceil(bits);
                if words_given < needed && !bad_pointer {
                    return Err(Complaint::call(
                        CallProblem::Words {
                            needed,
                            given: words_given,
                        },
                        "`words_given` is the length of the caller's buffer",
                    ));
                }
                for run in words.runs() {
                    for index in run.first..=run.last.min(needed.wrapping_sub(1)) {
                        if index >= needed {
                            break;
                        }
                        let at = frame + (first_page + index * bits) as u32;
                        self.state.seen.set_word(at, run.word);
                    }
                }
            }
        }
        Ok(self.call(Op::ClearDirtyLog(op::ClearDirtyLog {
            slot: number,
            first_page,
            num_pages,
            mask: ClearMask::Seen,
            bad_pointer,
        })))
    }

    /// A kernel writer without a vCPU writes frames.
    pub(super) fn kernel_write(&mut self, writer: KernelWriter, frames: Vec<Frame>) -> CallResult {
        if frames.is_empty() && writer == KernelWriter::Other {
            return CallResult::returned(0);
        }
        for &frame in &frames {
            self.back(frame);
        }
        self.machine.frame_lists[0] = frames;
        self.call(Op::KernelWrite(op::KernelWrite {
            writer,
            frames: 0,
            fails_after: u8::MAX,
        }))
    }

    /// Lets the ITS act on guest memory; the frames that it wrote come with what it says.
    pub(super) fn its<R>(
        &mut self,
        act: impl FnOnce(&mut Its, &mut GuestMemory<'_>) -> R,
    ) -> (R, Vec<Frame>) {
        let mut memory = GuestMemory::new(
            &self.machine,
            &self.state,
            &mut self.memories,
            &self.vcpu_ids,
        );
        let result = act(&mut self.gic.its, &mut memory);
        (result, memory.into_written())
    }

    /// Where a slot that is there begins, in bytes.
    pub(super) fn slot_gpa(&self, number: u32) -> Option<u64> {
        let slot = self.state.find_slot(&self.machine, number)?;
        let place = usize::from(self.state.slots[slot].place);
        let gfn = self.machine.slots[slot].places.get(place)?;
        Some(gfn * self.machine.constants.page_bytes)
    }

    /// The guest page number at which a slot begins, if the slot is there.
    pub(super) fn slot_gfn(&self, number: u32) -> Option<u64> {
        let index = self.state.find_slot(&self.machine, number)?;
        let place = usize::from(self.state.slots[index].place);
        self.machine.slots[index].places.get(place).copied()
    }

    /// The frame of a slot's page, if the slot is there and has it.
    pub(super) fn frame(&self, number: u32, page: u64) -> Option<Frame> {
        let slot = &self.machine.slots[self.state.find_slot(&self.machine, number)?];
        slot.frame_at(Offset(page))
    }

    /// The host page of a slot's page; the slot is there and has it.
    pub(super) fn host(&self, number: u32, page: u64) -> Result<HostPage, Complaint> {
        let frame = self.frame(number, page).ok_or_else(|| {
            Complaint::call(
                CallProblem::SlotPage { slot: number, page },
                "pages count from the slot's first, and the slot is there",
            )
        })?;
        Ok(self.machine.host_page(frame))
    }
}
