//! Going elsewhere in the program.

use super::{Act, Again, OnError, Operation, PassUnless, Single, SlotIs, Until, View};
use crate::machine::Machine;
use crate::state::State;
use crate::state::layout::Layout;
use crate::words::word::quiet;
use crate::words::{
    Choice, Effect, Facts, Fields, Found, Frame, Jump, Names, Reach, Row, Rule, Waits, Word,
};

impl Single for OnError {
    const STEP: Word = quiet("look-for-error", "looks for an error");

    fn says(&self) -> &'static str {
        "looks whether that failed"
    }
    fn facts(&self) -> Facts {
        Facts {
            jump: Some(Jump {
                to: self.to,
                always: false,
            }),
            ..Facts::NOTHING
        }
    }
    fn row(&self, machine: &Machine) -> Row {
        Row::OWN.reads(Fields::ANSWER).reach(reach(machine))
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        let failed = act.thread().answer.is_err();
        act.leave(Ok(0));
        if failed {
            act.thread().op = self.to;
        }
        Effect::None
    }
}

impl Operation for Again {
    const STAGES: u8 = 1;
    const STEPS: &'static [Word] = &[
        quiet("repeat", "looks whether to go round again"),
        quiet("once-more", "goes round once more"),
    ];

    fn says(&self) -> &'static str {
        match self.until {
            Until::AnyTime => "goes round any number of times",
            Until::Never | Until::NothingPending => "goes on elsewhere in its program",
        }
    }
    fn facts(&self, _: &Machine) -> Facts {
        Facts {
            jump: Some(Jump {
                to: self.to,
                always: self.until == Until::Never,
            }),
            ..Facts::NOTHING
        }
    }
    fn row(&self, machine: &Machine, _: u8) -> Row {
        Row::OWN.reads(Fields::PENDING).reach(reach(machine))
    }
    fn word<L: Layout>(&self, _: View<'_, L>, choice: Choice) -> Word {
        Self::STEPS[usize::from(choice == Choice::Again)]
    }
    fn subject<L: Layout>(&self, _: View<'_, L>) -> Option<Frame> {
        None
    }
    #[inline(always)]
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    #[inline(always)]
    fn choices<L: Layout>(&self, _: View<'_, L>, found: Found<'_>) {
        found(Choice::Advance);
        if self.until == Until::AnyTime {
            found(Choice::Again);
        }
    }
    #[inline(always)]
    fn step<L: Layout>(&self, mut act: Act<'_, L>, choice: Choice) -> Effect {
        let again = match self.until {
            Until::Never => true,
            Until::NothingPending => !act.state.pending.is_empty(),
            Until::AnyTime => choice == Choice::Again,
        };
        act.next_op();
        if again {
            act.thread().op = self.to;
        }
        Effect::None
    }
    fn alone<L: Layout>(&self, _: View<'_, L>) -> Option<(Rule, Choice)> {
        None
    }
}

impl PassUnless {
    /// Whether the memslot is of the kind.
    #[must_use]
    pub fn is_so<L: Layout>(&self, state: &State<L>) -> bool {
        let slot = &state.slots[usize::from(self.template)];
        match self.is {
            SlotIs::Absent => !slot.exists(),
            SlotIs::At(place) => slot.exists() && slot.place == place,
            SlotIs::Logging => slot.exists() && slot.logging,
        }
    }
}

impl Single for PassUnless {
    const STEP: Word = quiet("look-at-slot", "looks at a memslot");

    fn says(&self) -> &'static str {
        match self.is {
            SlotIs::Absent => "looks whether {slot} is absent",
            SlotIs::At(_) => "looks whether {slot} is there",
            SlotIs::Logging => "looks whether {slot} logs",
        }
    }
    fn facts(&self) -> Facts {
        Facts {
            names: Names::Template(self.template),
            jump: Some(Jump {
                to: self.to,
                always: false,
            }),
            ..Facts::NOTHING
        }
    }
    fn row(&self, machine: &Machine) -> Row {
        Row::OWN.reads(Fields::SLOTS).reach(reach(machine))
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        let is_so = self.is_so(act.state);
        act.next_op();
        if !is_so {
            act.thread().op = self.to;
        }
        Effect::None
    }
}

/// A jump may leave a resumption behind, which every vCPU that is outside shows.
fn reach(machine: &Machine) -> Reach {
    let resumes = |op: &super::Op| op.facts(machine).resumes;
    if machine.ops().any(resumes) {
        Reach::Everything
    } else {
        Reach::Own
    }
}
