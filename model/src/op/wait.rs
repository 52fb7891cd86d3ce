//! Waiting for vCPUs and threads, and letting the guest run.

use super::{Act, Single, View};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::state::vcpu::Exit;
use crate::words::word::{loud, quiet};
use crate::words::{Effect, Facts, Fields, NO_FRAME, Names, Reach, Row, Waits, Word};

/// Waits until every vCPU has left KVM_RUN.
pub(crate) struct WaitStopped;

impl Single for WaitStopped {
    const STEP: Word = loud("vcpus-stopped", "sees every vCPU stopped");

    fn says(&self) -> &'static str {
        "waits until they have stopped"
    }
    fn facts(&self) -> Facts {
        Facts {
            waits_stopped: true,
            ..Facts::NOTHING
        }
    }
    fn row(&self, machine: &Machine) -> Row {
        // Whether the guest is retired depends on the other threads.
        let alone = machine.programs.len() == 1;
        Row::OWN
            .reads(Fields::PC | Fields::GUEST_RUNS)
            .writes(Fields::LEAVES.and(Fields::VCPU))
            .reach(if alone {
                Reach::Gate
            } else {
                Reach::Everything
            })
    }
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        Waits::Stopped.unless(at.state.vcpus_stopped())
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        // Where nobody has stopped it, the guest only happens to be outside.
        if !act.state.guest_runs && !resumes_elsewhere(&act) {
            retire_guest(&mut act);
        }
        act.next_op()
    }
}

/// Waits until some vCPU is in KVM_RUN.
pub(crate) struct WaitRunning;

impl Single for WaitRunning {
    const STEP: Word = quiet("vcpus-running", "sees a vCPU run");

    fn says(&self) -> &'static str {
        "waits until the guest runs"
    }
    fn facts(&self) -> Facts {
        Facts {
            watches_guest: true,
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.reads(Fields::PC).reach(Reach::Control)
    }
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        Waits::Running.unless(at.state.vcpus.iter().any(|v| !v.is_stopped()))
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.next_op()
    }
}

/// Waits until another thread's program has come to its end.
pub(crate) struct JoinThread(pub(crate) u8);

impl Single for JoinThread {
    const STEP: Word = loud("thread-joined", "sees the other thread at its end");

    fn says(&self) -> &'static str {
        "waits for {thread}"
    }
    fn facts(&self) -> Facts {
        Facts {
            names: Names::Thread(self.0),
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.reads(Fields::PLACE).reach(Reach::Everything)
    }
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        let ended = at
            .state
            .current_op(at.machine, usize::from(self.0))
            .is_none();
        Waits::Thread(self.0).unless(ended)
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.next_op()
    }
}

/// Lets the vCPUs run.
pub(crate) struct Resume;

impl Single for Resume {
    const STEP: Word = loud("resume", "lets the vCPUs run");

    fn says(&self) -> &'static str {
        "lets the vCPUs run"
    }
    fn facts(&self) -> Facts {
        Facts {
            resumes: true,
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN
            .writes(Fields::GUEST_RUNS | Fields::KICKED)
            .reach(Reach::EachVcpu)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.state.guest_runs = true;
        for v in act.state.vcpus.iter_mut() {
            v.kicked = false;
        }
        act.next_op()
    }
}

/// Whether some thread lets the guest run again, this one after the wait.
fn resumes_elsewhere<L: Layout>(act: &Act<'_, L>) -> bool {
    (0..act.machine.programs.len()).any(|thread| {
        let at = usize::from(act.state.threads[thread].op) + usize::from(thread == act.index);
        act.machine.ahead(thread, at).resume
    })
}

/// The guest never runs again: what only its running could use is forgotten.
fn retire_guest<L: Layout>(act: &mut Act<'_, L>) {
    act.state.forget_mappings(act.machine);
    for v in act.state.vcpus.iter_mut() {
        v.stores = 0;
        v.loads = 0;
        v.steal = 0;
        v.record_due = false;
        v.request = false;
        v.kicked = false;
        v.resched = false;
        v.pml_on = false;
        v.waits = false;
        v.exit = Exit::None;
        if !act.machine.track_spurious {
            v.frame = NO_FRAME;
            v.load = false;
        }
    }
}
