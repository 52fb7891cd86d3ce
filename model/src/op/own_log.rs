//! The VMM's own stores, and its own log of them.

use super::{Act, MarkOwn, Operation, Single, UserWrite, View};
use crate::machine::Machine;
use crate::machine::WriterLog;
use crate::state::layout::Layout;
use crate::words::word::loud;
use crate::words::{
    Choice, Duty, Effect, Facts, Fields, Found, Frame, Names, Row, Rule, Waits, Word,
};

impl Operation for UserWrite {
    const STAGES: u8 = 2;
    const STEPS: &'static [Word] = &[
        loud("vmm-write", "stores to {page} itself"),
        loud("vmm-log", "notes {page} in its own log"),
    ];

    fn says(&self) -> &'static str {
        "stores to {page} itself"
    }
    fn facts(&self, _: &Machine) -> Facts {
        Facts {
            names: Names::Frame(self.frame),
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine, stage: u8) -> Row {
        let row = Row::OWN.writes(Fields::STALE | Fields::OWN_LOG);
        if stage == 1 && self.log != WriterLog::Early {
            row.duty(Duty::OWES)
        } else {
            row
        }
    }
    fn word<L: Layout>(&self, at: View<'_, L>, _: Choice) -> Word {
        Self::STEPS[usize::from(at.stage())]
    }
    fn subject<L: Layout>(&self, _: View<'_, L>) -> Option<Frame> {
        Some(self.frame)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn choices<L: Layout>(&self, _: View<'_, L>, found: Found<'_>) {
        found(Choice::Advance);
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>, _: Choice) -> Effect {
        let first = act.stage() == 0;
        let host = act.machine.host_page(self.frame);
        // Who logs early logs first and stores second.
        if first != (self.log == WriterLog::Early) {
            act.state.store(act.machine, host);
        } else if matches!(self.log, WriterLog::Right | WriterLog::Early) {
            act.state.own_log.insert(host);
        }
        if first && self.log != WriterLog::None {
            return act.go(1);
        }
        act.next_op()
    }
    fn alone<L: Layout>(&self, _: View<'_, L>) -> Option<(Rule, Choice)> {
        None
    }
}

impl Single for MarkOwn {
    const STEP: Word = loud("mark-queues", "marks its devices' queues in its own log");

    fn says(&self) -> &'static str {
        "marks pages in its own log"
    }
    fn facts(&self) -> Facts {
        Facts {
            names: Names::Frames(self.frames),
            declares: true,
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.writes(Fields::OWN_LOG)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        for &frame in &act.machine.frame_lists[usize::from(self.frames)] {
            act.state.own_log.insert(act.machine.host_page(frame));
        }
        act.next_op()
    }
}

/// Takes the log into the pages that are to be copied.
pub(crate) struct CollectOwnLog;

impl Single for CollectOwnLog {
    const STEP: Word = loud("collect-own-log", "collects its own log");

    fn says(&self) -> &'static str {
        "collects its own log"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.changes(Fields::OWN_LOG).writes(Fields::PENDING)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        let log = core::mem::take(&mut act.state.own_log);
        act.state.pending.union(&log);
        act.next_op()
    }
}

/// Empties the log.
pub(crate) struct ResetOwnLog;

impl Single for ResetOwnLog {
    const STEP: Word = loud("reset-own-log", "empties its own log");

    fn says(&self) -> &'static str {
        "empties its own log"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.writes(Fields::OWN_LOG)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.state.own_log.clear();
        act.next_op()
    }
}
