//! `KVM_RUN` of a program: starting it, going on with it, and how far it came.

use std::time::Duration;

use dirtysim::trace::Exit;
use dirtysim::trace::call::{Access as TraceAccess, Call, Program};
use dirtysim::trace::call_result::{CallResult, Returned};

use super::answer::named;
use super::machine::{Machine, Processor};
use super::memory::OWN_MEMORY;
use crate::kvm::guest::{self, Access};
use crate::kvm::sys::context_switches;
use crate::kvm::vcpu::EXIT_MMIO;
use crate::kvm::{Alarm, Errno, PAGE_BYTES, RunEnd};
use crate::refusal::Refused;
use crate::subject::Subject;

impl Machine {
    pub(super) fn run(
        &mut self,
        alarm: &Alarm,
        limit: Duration,
        id: u32,
        program: &Program,
        resume: bool,
    ) -> Result<CallResult, Refused> {
        let own = self.memory.own.clone().ok_or_else(no_memory)?;
        let runs = if resume {
            Vec::new()
        } else {
            self.addresses(program)?
        };
        let processor = self.processor(id)?;
        if !processor.ready {
            return Err(not_ready(id));
        }
        let before = if resume {
            processor.unfinished.ok_or_else(|| {
                Refused(format!("vCPU {id} has no unfinished program to go on with"))
            })?
        } else {
            let access = match program.access {
                TraceAccess::Store => Access::Store {
                    bytes: program.bytes,
                    value: program.value,
                },
                TraceAccess::Load => Access::Load {
                    bytes: program.bytes,
                },
                TraceAccess::Copy => copy(program)?,
            };
            guest::begin(
                &processor.vcpu,
                &own.memory,
                own.gpa,
                &guest::Program { access, runs },
            )?;
            0
        };
        // What its loads from where no memory is are answered with.
        let answer = (program.access == TraceAccess::Copy).then_some(program.value);
        let ended = processor.enter(alarm, limit, before, answer)?;
        let total = guest::retired(&processor.vcpu)?;
        processor.unfinished = (!ended.done).then_some(total);
        Ok(CallResult {
            returned: Some(ended.returned),
            exit: Some(ended.exit),
            program_done: Some(ended.done),
            stores_retired: Some(total.saturating_sub(before)),
            stores_retired_total: Some(total),
            ..CallResult::default()
        })
    }

    /// A run that stores to a register of a device of KVM's own.
    pub(super) fn guest_mmio(
        &mut self,
        alarm: &Alarm,
        limit: Duration,
        call: &Call,
    ) -> Result<CallResult, Refused> {
        let Call::GuestMmio {
            vcpu: id,
            gpa,
            bytes,
            value,
        } = call
        else {
            unreachable!("only `guest_mmio` comes here")
        };
        let own = self.memory.own.clone().ok_or_else(no_memory)?;
        let processor = self.processor(*id)?;
        if !processor.ready {
            return Err(not_ready(*id));
        }
        let access = Access::Store {
            bytes: *bytes,
            value: *value,
        };
        guest::begin(
            &processor.vcpu,
            &own.memory,
            own.gpa,
            &guest::Program {
                access,
                runs: vec![(*gpa, 1)],
            },
        )?;
        processor.unfinished = None;
        let ended = processor.enter(alarm, limit, 0, None)?;
        Ok(CallResult {
            returned: Some(ended.returned),
            exit: Some(ended.exit),
            program_done: Some(ended.done),
            ..CallResult::default()
        })
    }

    /// A program's accesses as guest physical addresses.
    fn addresses(&self, program: &Program) -> Result<Vec<(u64, u64)>, Refused> {
        let at = u64::from(program.at);
        let run = |&(slot, first, pages): &(u32, u64, u64)| {
            let found = self.memory.slots.get((slot >> 16) as u16, slot as u16)?;
            if first.checked_add(pages).is_none_or(|end| end > found.pages) {
                return Err(Refused(format!(
                    "{pages} pages from page {first} on, of slot {slot}, which has {}",
                    found.pages
                )));
            }
            Ok((found.gpa + first * PAGE_BYTES + at, pages))
        };
        program.store.runs().iter().map(run).collect()
    }
}

fn no_memory() -> Refused {
    Refused(format!(
        "the guest has no memory of its own: a slot backed by host memory `{OWN_MEMORY}` comes before KVM_RUN"
    ))
}

fn not_ready(id: u32) -> Refused {
    Refused(format!(
        "vCPU {id} is not ready: vcpu_init comes before KVM_RUN"
    ))
}

/// A copy from where no memory is.
#[cfg(target_arch = "x86_64")]
fn copy(program: &Program) -> Result<Access, Refused> {
    if program.bytes != 8 || !(1..=PAGE_BYTES / 8).contains(&program.elements.into()) {
        return Err(Refused(format!(
            "a copy of {} elements of {} bytes: the guest copies 1 to {} of 8",
            program.elements,
            program.bytes,
            PAGE_BYTES / 8
        )));
    }
    Ok(Access::CopyFrom {
        gpa: guest::HOLE_GPA,
        elements: program.elements.into(),
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn copy(_: &Program) -> Result<Access, Refused> {
    Err(Refused::new(
        "a copy from where no memory is: KVM emulates string instructions on x86 alone",
    ))
}

/// How one `KVM_RUN` ended.
struct Ended {
    returned: Returned,
    exit: Exit,
    /// The guest says that its program is done.
    done: bool,
}

impl Processor {
    /// `KVM_RUN` once, and whatever KVM must do to finish the exit. That a guest did not come back within its limit is a result: EINTR. One that has
    /// made accesses within it, `before` of which had retired when it began, is on a machine that is slow, and goes on.
    /// Loads from where no memory is are answered, if there is an answer, and it is called again.
    fn enter(
        &mut self,
        alarm: &Alarm,
        limit: Duration,
        before: u64,
        answer: Option<u64>,
    ) -> Result<Ended, Refused> {
        let mut before = before;
        let mut end = self.run_answering(alarm, limit, answer);
        while end == RunEnd::Errno(Errno(libc::EINTR)) {
            let retired = guest::retired(&self.vcpu)?;
            if retired == before {
                break;
            }
            before = retired;
            self.disturbed += 1;
            end = self.run_answering(alarm, limit, answer);
        }
        let exit = Exit::from_number(self.vcpu.exit_reason());
        let done = guest::done(&mut self.vcpu, end);
        if matches!(exit, Exit::Io | Exit::Mmio) {
            // An access that left the guest is finished by the next KVM_RUN: at once, so that a new program finds nothing of it.
            self.vcpu.complete_exit();
        }
        let returned = match end {
            RunEnd::Exit(_) => Returned::Value(0),
            RunEnd::Errno(errno) => Returned::Error(named(errno)?),
        };
        Ok(Ended {
            returned,
            exit,
            done,
        })
    }

    /// `KVM_RUN`, and again as long as it leaves for a load that user space answers.
    fn run_answering(&mut self, alarm: &Alarm, limit: Duration, answer: Option<u64>) -> RunEnd {
        let mut end = self.run_once(alarm, limit);
        while let (RunEnd::Exit(EXIT_MMIO), Some(value)) = (end, answer)
            && self.vcpu.answer_load(value)
        {
            end = self.run_once(alarm, limit);
        }
        end
    }

    fn run_once(&mut self, alarm: &Alarm, limit: Duration) -> RunEnd {
        let switches = self.record.then(context_switches);
        let end = self.vcpu.run(alarm, limit);
        if let Some(before) = switches {
            self.disturbed += context_switches() - before;
        }
        end
    }
}

/// One guest, one store, one exit.
pub(super) fn probe(kernel: &mut impl Subject) -> Result<(), Refused> {
    let mut store = dirtysim::trace::StoreRuns::default();
    store
        .push_run(1, 0, 1)
        .map_err(|error| Refused(error.to_string()))?;
    let slot = |slot, gpa, npages, mem: &str| Call::SetUserMemoryRegion {
        slot,
        as_id: 0,
        flags: 0,
        gpa,
        npages,
        bytes: None,
        mem: mem.to_owned(),
        mem_offset: 0,
        populated: true,
        huge: false,
    };
    let calls = [
        Call::CreateVm {},
        slot(0, guest::OWN_GPA, guest::OWN_PAGES, OWN_MEMORY),
        slot(1, guest::DATA_GPA, 1, "data"),
        Call::CreateVcpu { vcpu: 0 },
        Call::VcpuInit {
            vcpu: 0,
            mode: guest::MODE.to_owned(),
        },
        Call::Run {
            vcpu: 0,
            program: Program {
                store,
                bytes: 8,
                value: 1,
                access: TraceAccess::Store,
                elements: 1,
                at: 0,
            },
            resume: false,
        },
        Call::ReadPage {
            slot: 1,
            page: 0,
            at: 0,
            bytes: 8,
        },
    ];
    for call in calls {
        let result = kernel.perform(Some(0), &call)?.result()?;
        if let Some(Returned::Error(errno)) = result.returned {
            return Err(Refused(format!("{} failed with {errno}", call.name())));
        }
        if result.program_done == Some(false) {
            let exit = result
                .exit
                .map_or_else(|| "nothing".to_owned(), |exit| exit.to_string());
            return Err(Refused(format!(
                "a guest that stores once ended with {exit}"
            )));
        }
        if result.value.is_some_and(|value| value != 1) {
            return Err(Refused::new(
                "a guest that stored once left another value in memory",
            ));
        }
    }
    Ok(())
}
