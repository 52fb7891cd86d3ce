//! KVM_RUN in the model: a program of stores or loads, one access after the other, until it is done or an exit happens.

use dirtysim_model::machine::Arch;
use dirtysim_model::op::{self, Into as Collect, Op};
use dirtysim_model::state::vcpu::{Exit as ModelExit, NO_FRAME, Pc};
use dirtysim_model::transition::{Actor, Choice, Step, apply, for_each_choice};
use dirtysim_model::words::{Frame, HostPage, Mmu};

use super::frames::frame_at;
use super::program::Cursor;
use super::vm::ModelVm;
use crate::trace::call::{Access, Program};
use crate::trace::call_result::{CallResult, Returned};
use crate::trace::{CallProblem, Complaint, Errno, Exit, PageRuns};

/// The most accesses of a program.
const PROGRAM_MAX: u64 = 1 << 28;
/// Steps that one access can take: a PML buffer of 512 pages is flushed on the way, five steps a page.
const STEPS_MAX: u32 = 100_000;

/// Where a vCPU has come to rest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// In the guest, with no access under way.
    Guest,
    /// In user space.
    User,
}

impl ModelVm {
    fn step(&mut self, vcpu: usize, choice: Choice) {
        let actor = Actor::Vcpu(vcpu as u8);
        apply(&self.machine, &mut self.state, Step { actor, choice });
    }

    /// Lets a vCPU act, alone, until it rests.
    fn rest(&mut self, vcpu: usize) -> Result<Rest, Complaint> {
        for _ in 0..STEPS_MAX {
            let v = &self.state.vcpus[vcpu];
            match v.pc {
                Pc::User => return Ok(Rest::User),
                Pc::Guest if v.frame == NO_FRAME && !v.kicked && !v.resched => {
                    return Ok(Rest::Guest);
                }
                _ => {}
            }
            let mut next = None;
            for_each_choice(
                &self.machine,
                &self.state,
                Actor::Vcpu(vcpu as u8),
                |choice| {
                    // The kernel's own record comes first where one is due.
                    if next.is_none() || choice == Choice::Steal {
                        next = Some(choice);
                    }
                },
            );
            let Some(choice) = next else { break };
            self.step(vcpu, choice);
        }
        Err(Complaint::call(
            CallProblem::NoFurther,
            "a mutation that is switched on keeps it; leave that out",
        ))
    }

    /// A vCPU's record of stolen time is switched on. arm64 takes one in guest memory, and one alone, where it is sure that there is memory; x86's
    /// MSR takes any. Source: arch/arm64/kvm/pvtime.c, kvm_arm_pvtime_set_attr(); arch/x86/kvm/x86.c, kvm_set_msr_common().
    pub(super) fn stolen_time(&mut self, id: u32, gpa: u64) -> Result<CallResult, Complaint> {
        let vcpu = self.vcpu(id)?;
        let gfn = gpa / self.machine.constants.page_bytes;
        if self.machine.arch == Arch::Arm64 {
            if !gpa.is_multiple_of(64) {
                return Ok(CallResult::failed(Errno::EINVAL));
            }
            if self.records[vcpu].is_some() {
                return Ok(CallResult::failed(Errno::EEXIST));
            }
            if frame_at(&self.machine, &self.state, 0, gfn).is_none() {
                return Ok(CallResult::failed(Errno::EINVAL));
            }
        }
        self.records[vcpu] = Some(gpa);
        Ok(CallResult::returned(0))
    }

    /// KVM_RUN is about to be called: the vCPU's record is due, where there is memory for it that can be written.
    pub(super) fn record_is_due(&mut self, vcpu: usize) {
        let gfn = self.records[vcpu].map(|gpa| gpa / self.machine.constants.page_bytes);
        let found = gfn.and_then(|gfn| frame_at(&self.machine, &self.state, 0, gfn));
        let frame = found.filter(|&(slot, _)| !self.state.slots[slot].readonly);
        self.state.vcpus[vcpu].steal = u8::from(frame.is_some());
        if let Some((_, frame)) = frame {
            self.back(frame);
            self.machine.vcpus[vcpu].steal_frame = frame;
        }
    }

    /// Into KVM_RUN, and into the guest if nothing is in the way.
    pub(super) fn enter(&mut self, vcpu: usize) -> Result<Rest, Complaint> {
        self.step(vcpu, Choice::Advance);
        let rest = self.rest(vcpu)?;
        if rest == Rest::Guest {
            self.old_roots[vcpu] = Some(false);
            return self.walk_tables(vcpu);
        }
        Ok(rest)
    }

    /// The guest's first instruction is fetched. With a two-dimensional MMU the processor's walk of the guest's own tables is a store to each, a level
    /// after the other, whatever their accessed and dirty bits are; what has lost its leaf, or the right to store by it, was flushed, so that there is
    /// a walk to find it. With shadow paging KVM walks, and stores only where a bit is to be set, which replay does not follow.
    /// Source: AMD64 Architecture Programmer's Manual, volume 2, 15.25.5; Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3C, 28.3.3.2.
    fn walk_tables(&mut self, vcpu: usize) -> Result<Rest, Complaint> {
        if self.machine.arch != Arch::X86 || self.machine.mmu != Mmu::TwoDimensional {
            return Ok(Rest::Guest);
        }
        for (slot, page) in self.tables.clone() {
            let Some(frame) = self.frame(slot.into(), page) else {
                continue;
            };
            if self.access(vcpu, frame, Access::Store)? == Rest::User {
                return Ok(Rest::User);
            }
        }
        Ok(Rest::Guest)
    }

    /// Out of the guest, by an exit that user space handles. Whatever the exit itself flushes is flushed; a request that
    /// this raises is looked at by the next KVM_RUN, which is what the model's way out comes to as well.
    pub(super) fn leave(&mut self, vcpu: usize) -> Result<(), Complaint> {
        self.state.vcpus[vcpu].kicked = true;
        self.rest(vcpu).map(|_| ())
    }

    /// The kernel writes frames in the context of a vCPU that is in the guest, on its way out.
    pub(super) fn write_in_context(
        &mut self,
        vcpu: usize,
        frames: &[Frame],
    ) -> Result<(), Complaint> {
        self.state.vcpus[vcpu].kicked = true;
        while self.state.vcpus[vcpu].pc != Pc::Exit {
            let choice = if self.state.vcpus[vcpu].pc == Pc::Guest {
                Choice::Leave
            } else {
                Choice::Advance
            };
            self.step(vcpu, choice);
        }
        for &frame in frames {
            self.back(frame);
            self.machine.vcpus[vcpu].steal_frame = frame;
            self.state.vcpus[vcpu].steal = 1;
            self.step(vcpu, Choice::Steal);
            while self.state.vcpus[vcpu].pc != Pc::Exit {
                self.step(vcpu, Choice::Advance);
            }
        }
        self.rest(vcpu).map(|_| ())
    }

    /// The exit by which a guest of this recorder says that it is done.
    pub(super) fn done_exit(&self) -> Exit {
        if self.machine.arch == Arch::X86 {
            Exit::Io
        } else {
            Exit::Mmio
        }
    }

    /// KVM_RUN.
    pub(super) fn run_guest(
        &mut self,
        id: u32,
        program: &Program,
        resume: bool,
    ) -> Result<CallResult, Complaint> {
        let vcpu = self.vcpu(id)?;
        let mut cursor = match (resume, self.cursors[vcpu].take()) {
            (false, _) => self.begin_program(program)?,
            (true, Some(cursor)) if cursor.is_at(program) => cursor,
            (true, _) => {
                return Err(Complaint::call(
                    CallProblem::CannotResume(id),
                    "`resume` goes on with the program of the vCPU's row before, with the same `store`, `bytes` and `value`",
                ));
            }
        };
        let page_bytes = self.machine.constants.page_bytes;
        let before = cursor.retired();
        self.record_is_due(vcpu);
        let mut rest = self.enter(vcpu)?;
        let mut failed = false;
        while rest == Rest::Guest {
            if cursor.at_end() {
                break;
            }
            let frame = |over: u64| {
                let (as_id, gfn) = cursor.next()?;
                let found = frame_at(&self.machine, &self.state, as_id, gfn + over);
                found.map(|(_, frame)| frame)
            };
            if program.access == Access::Copy {
                let elements: Vec<Option<Frame>> = (0..program.elements)
                    .map(|n| frame(u64::from(program.at + n * program.bytes) / page_bytes))
                    .collect();
                let through = self.copy_string(vcpu, program, &elements)?;
                // With its last element the instruction is through, wherever that is stored to.
                if through + 1 >= elements.len() {
                    cursor.retire();
                }
                if through < elements.len() {
                    failed = true;
                    rest = Rest::User;
                    break;
                }
                rest = self.enter(vcpu)?;
                continue;
            }
            let pages = 1 + u64::from(program.is_over(page_bytes));
            let frames: Option<Vec<Frame>> = (0..pages).map(frame).collect();
            let Some(frames) = frames else {
                // No memslot: MMIO.
                failed = true;
                self.leave(vcpu)?;
                break;
            };
            rest = self.access_all(vcpu, &frames, program.access)?;
            if rest == Rest::User {
                failed = self.state.vcpus[vcpu].exit == ModelExit::NoMemory;
                break;
            }
            if program.access == Access::Store {
                self.store_bytes(&frames, program, page_bytes);
            }
            cursor.retire();
        }
        let done = rest == Rest::Guest && cursor.at_end();
        let exit = if done {
            self.leave(vcpu)?;
            self.done_exit()
        } else if failed {
            Exit::Mmio
        } else {
            Exit::DirtyRingFull
        };
        // The instruction is executed anew when the vCPU enters again, unless user space has moved it elsewhere.
        self.state.vcpus[vcpu].frame = NO_FRAME;
        let result = CallResult {
            returned: Some(Returned::Value(0)),
            exit: Some(exit),
            program_done: Some(done),
            stores_retired: Some(cursor.retired() - before),
            stores_retired_total: Some(cursor.retired()),
            ..CallResult::default()
        };
        self.cursors[vcpu] = Some(cursor);
        Ok(result)
    }

    /// A string instruction from where no memory is, element by element: each element's load leaves for user space, and the KVM_RUN that answers
    /// it stores the element, marks the page, and comes to the next load before it comes to the check of the ring. The element's own leaf has no
    /// part in it. An element that is stored to where nothing can be stored leaves for user space too, and ends the call. How many elements were
    /// stored before. Source: arch/x86/kvm/x86.c, complete_emulated_mmio(), x86_emulate_instruction(), emulator_write_phys(); arch/x86/kvm/emulate.c,
    /// x86_emulate_insn().
    fn copy_string(
        &mut self,
        vcpu: usize,
        program: &Program,
        elements: &[Option<Frame>],
    ) -> Result<usize, Complaint> {
        let page_bytes = self.machine.constants.page_bytes;
        let writable = |frame: Frame| {
            let slot = self.machine.slot_of_frame(frame);
            !slot.is_some_and(|slot| self.state.slots[slot].readonly)
        };
        let stored: Vec<Frame> = elements
            .iter()
            .map_while(|frame| frame.filter(|&frame| writable(frame)))
            .collect();
        self.write_in_context(vcpu, &stored)?;
        for (n, &frame) in (0..).zip(&stored) {
            let at = u64::from(program.at + n * program.bytes) % page_bytes;
            let host = self.machine.host_page(frame);
            self.memories.store(host, at, program.value, program.bytes);
        }
        Ok(stored.len())
    }

    /// An access to one page, or over the end of one to the next: it is begun anew after each fault, and retires when it finds both
    /// pages' leaves as it needs them.
    fn access_all(
        &mut self,
        vcpu: usize,
        frames: &[Frame],
        access: Access,
    ) -> Result<Rest, Complaint> {
        loop {
            for &frame in frames {
                let rest = self.access(vcpu, frame, access)?;
                if rest == Rest::User {
                    return Ok(rest);
                }
            }
            // The second page's fault may have taken the first one's leaf with it.
            let first = frames[0];
            let there = match access {
                Access::Store => self.state.writable.contains(first),
                Access::Load => self.state.present.contains(first),
                Access::Copy => unreachable!("a copy finds no leaf"),
            };
            if there || frames.len() == 1 {
                return Ok(Rest::Guest);
            }
        }
    }

    /// The bytes of a store that has retired.
    fn store_bytes(&mut self, frames: &[Frame], program: &Program, page_bytes: u64) {
        let at = u64::from(program.at);
        let here = u64::from(program.bytes).min(page_bytes - at) as u32;
        let host = self.machine.host_page(frames[0]);
        self.memories.store(host, at, program.value, here);
        if let Some(&next) = frames.get(1) {
            let host = self.machine.host_page(next);
            let rest = program.value >> (here * 8);
            self.memories.store(host, 0, rest, program.bytes - here);
        }
    }

    /// One access; in the guest again when it has retired.
    fn access(&mut self, vcpu: usize, frame: Frame, access: Access) -> Result<Rest, Complaint> {
        let v = &mut self.state.vcpus[vcpu];
        match access {
            Access::Store => {
                v.stores = 1;
                let slot = self.machine.slot_of_frame(frame);
                if !slot.is_some_and(|slot| self.state.slots[slot].readonly) {
                    self.back(frame);
                }
                self.step(vcpu, Choice::Store(frame));
            }
            Access::Load => {
                v.loads = 1;
                self.step(vcpu, Choice::Load(frame));
            }
            Access::Copy => unreachable!("a copy is the kernel's to write"),
        }
        self.rest(vcpu)
    }

    /// A program at its beginning.
    fn begin_program(&self, program: &Program) -> Result<Cursor, Complaint> {
        self.check_program(program)?;
        let runs = program.store.runs().iter();
        let gfns = runs
            .map(|&(slot, first, _)| Some(self.slot_gfn(slot)? + first))
            .collect();
        Ok(Cursor::new(program.clone(), gfns))
    }

    /// Every page of the program lies in its slot, where the slot is there.
    fn check_program(&self, program: &Program) -> Result<(), Complaint> {
        if program.store.count() > PROGRAM_MAX {
            return Err(Complaint::call(
                CallProblem::Accesses(program.store.count()),
                "replay takes programs of at most 2^28 accesses",
            ));
        }
        if program.access == Access::Copy && self.machine.arch != Arch::X86 {
            return Err(Complaint::call(
                CallProblem::Copies,
                "KVM emulates string instructions on x86 alone: leave the row out",
            ));
        }
        let page_bytes = self.machine.constants.page_bytes;
        if u64::from(program.at) >= page_bytes {
            return Err(Complaint::call(
                CallProblem::At(program.at),
                "`at` is below the page's size",
            ));
        }
        let over = u64::from(program.is_over(page_bytes));
        for &(slot, first, count) in program.store.runs() {
            let count = count + over;
            if let Some(index) = self.state.find_slot(&self.machine, slot) {
                let npages = u64::from(self.machine.slots[index].npages);
                if first + count > npages {
                    return Err(Complaint::call(
                        CallProblem::PastSlot {
                            page: first + count - 1,
                            slot,
                            npages,
                        },
                        "pages count from the slot's first",
                    ));
                }
            }
        }
        Ok(())
    }

    /// User space stores to a page through its own mapping; KVM does not see it.
    pub(super) fn user_write(&mut self, number: u32, page: u64) -> Result<HostPage, Complaint> {
        let host = self.host(number, page)?;
        if let Some(frame) = self.frame(number, page) {
            self.back(frame);
            self.run(Op::UserWrite(op::UserWrite {
                frame,
                log: dirtysim_model::machine::WriterLog::None,
            }));
        }
        Ok(host)
    }

    /// User space gives the memory of frames back to the host: what is mapped there goes, in every slot that shares the memory. False, and
    /// nothing is done, where the memory may be in huge pages, of which nobody says how much goes.
    pub(super) fn discard(&mut self, frames: &[Frame]) -> bool {
        let mut all = Vec::new();
        for &frame in frames {
            let host = self.machine.host_page(frame);
            for slot in &self.machine.slots {
                if (slot.host..slot.host + slot.npages).contains(&host) {
                    if slot.huge {
                        return false;
                    }
                    all.push(slot.frame + (host - slot.host));
                }
            }
        }
        for frame in all {
            self.run(Op::HostAge(op::HostAge { frame, unmap: true }));
            let host = self.machine.host_page(frame);
            self.machine.unbacked.insert_range(host, 1);
            self.memories.clear(host);
        }
        true
    }

    /// Whether KVM_PRE_FAULT_MEMORY comes to no end on a vCPU until a signal comes: at 6.12 it does not look whether the root is an old one,
    /// at which every fault is begun anew. With shadow paging, and on other architectures, it is refused before. Source: arch/x86/kvm/mmu/mmu.c, is_page_fault_stale(),
    /// kvm_tdp_map_page(), kvm_arch_vcpu_pre_fault_memory(); seen on 6.12.117.
    pub(super) fn pre_fault_spins(&self, id: u32) -> Result<bool, Complaint> {
        let old = self.old_roots[self.vcpu(id)?] == Some(true);
        Ok(old
            && self.machine.arch == Arch::X86
            && self.machine.mmu == Mmu::TwoDimensional
            && self.machine.kernel.has_pre_fault()
            && !self.machine.kernel.pre_fault_passes_present())
    }

    /// KVM_PRE_FAULT_MEMORY.
    pub(super) fn pre_fault(
        &mut self,
        id: u32,
        gpa: u64,
        npages: u64,
    ) -> Result<CallResult, Complaint> {
        let vcpu = self.vcpu(id)? as u8;
        if npages > PROGRAM_MAX {
            return Err(Complaint::call(
                CallProblem::Accesses(npages),
                "replay takes at most 2^28 pages",
            ));
        }
        let page_bytes = self.machine.constants.page_bytes;
        let gfn = gpa / page_bytes;
        // A range that is none has no pages, and is refused like an empty one.
        let whole = gpa.is_multiple_of(page_bytes) && gfn + npages < 1 << 52;
        let pages = if whole { npages } else { 0 };
        let frames: Vec<Frame> = (gfn..gfn + pages)
            .map(|gfn| frame_at(&self.machine, &self.state, 0, gfn).map_or(NO_FRAME, |(_, at)| at))
            .collect();
        let there = frames.iter().take_while(|&&frame| frame != NO_FRAME);
        let there = there.count() as u64;
        self.machine.frame_lists[0] = frames;
        let result = self.call(Op::PreFault(op::PreFault { vcpu, frames: 0 }));
        let through = matches!(result.returned, Some(Returned::Value(_)));
        if through {
            self.old_roots[usize::from(vcpu)] = Some(false);
        }
        Ok(CallResult {
            count: Some(if through { there } else { 0 }),
            ..result
        })
    }

    /// User space copies a page to the destination.
    pub(super) fn copy(&mut self, slot: u16, pages: &PageRuns, hosts: &[HostPage]) {
        self.machine.programs[0] = vec![Op::Copy];
        dirtysim_model::op::ahead::look_ahead(&mut self.machine);
        self.state.threads[0].op = 0;
        let actor = Actor::Thread(0);
        for (page, &host) in pages.iter().zip(hosts) {
            self.state.pending.insert(host);
            let choice = Choice::Page(host);
            apply(&self.machine, &mut self.state, Step { actor, choice });
            self.memories.copy(slot, page, host);
        }
        // What was collected and is not named stays to be copied.
        let choice = Choice::Advance;
        apply(&self.machine, &mut self.state, Step { actor, choice });
    }

    /// Harvests by the protocol, through the model's own harvest; how many entries it took.
    pub(super) fn harvest(&mut self, vcpu: usize, fetch_index: u32, max: Option<u32>) -> u32 {
        self.state.vcpus[vcpu].ring.fetch_index = fetch_index;
        self.run(Op::Harvest(op::Harvest {
            vcpu: Some(vcpu as u8),
            max: max.unwrap_or(u32::MAX),
            way: dirtysim_model::op::HarvestWay::Right,
            into: Collect::Pending,
        }));
        self.state.vcpus[vcpu]
            .ring
            .fetch_index
            .wrapping_sub(fetch_index)
    }
}
