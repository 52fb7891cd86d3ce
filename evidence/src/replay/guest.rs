//! KVM_RUN in the model: a program of stores or loads, one access after the other, until it is done or an exit happens.

use dirtysim_model::machine::Arch;
use dirtysim_model::op::{self, Into as Collect, Op};
use dirtysim_model::state::vcpu::{Exit as ModelExit, NO_FRAME, Pc};
use dirtysim_model::transition::{Actor, Choice, Step, apply, for_each_choice};
use dirtysim_model::words::{Frame, HostPage};

use super::frames::frame_at;
use super::program::Cursor;
use super::vm::ModelVm;
use crate::trace::call::{Access, Program};
use crate::trace::call_result::{CallResult, Returned};
use crate::trace::{CallProblem, Complaint, Exit, PageRuns};

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

    /// Into KVM_RUN, and into the guest if nothing is in the way.
    pub(super) fn enter(&mut self, vcpu: usize) -> Result<Rest, Complaint> {
        self.step(vcpu, Choice::Advance);
        self.rest(vcpu)
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
        let before = cursor.retired();
        let mut rest = self.enter(vcpu)?;
        let mut failed = false;
        while rest == Rest::Guest {
            if cursor.at_end() {
                break;
            }
            let frame = cursor
                .next()
                .and_then(|(as_id, gfn)| frame_at(&self.machine, &self.state, as_id, gfn));
            let Some((_, frame)) = frame else {
                // No memslot: MMIO.
                failed = true;
                self.leave(vcpu)?;
                break;
            };
            rest = self.access(vcpu, frame, program.access)?;
            if rest == Rest::User {
                failed = self.state.vcpus[vcpu].exit == ModelExit::NoMemory;
                break;
            }
            if program.access == Access::Store {
                let host = self.machine.host_page(frame);
                self.memories.store(host, program.value, program.bytes);
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
        for &(slot, first, count) in program.store.runs() {
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
