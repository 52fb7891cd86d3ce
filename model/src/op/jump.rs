//! Going elsewhere in the program.

use super::{Act, Again, OnError, PassUnless, Single, SlotIs, Until, View};
use crate::machine::Machine;
use crate::state::State;
use crate::state::layout::Layout;
use crate::state::pages::PageSet;
use crate::words::word::quiet;
use crate::words::{Effect, Facts, Fields, Jump, Names, Reach, Row, Waits, Word};

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

impl Single for Again {
    const STEP: Word = quiet("repeat", "looks whether to go round again");

    fn says(&self) -> &'static str {
        "goes on elsewhere in its program"
    }
    fn facts(&self) -> Facts {
        Facts {
            jump: Some(Jump {
                to: self.to,
                always: self.until == Until::Never,
            }),
            ..Facts::NOTHING
        }
    }
    fn row(&self, machine: &Machine) -> Row {
        Row::OWN.reads(Fields::PENDING).reach(reach(machine))
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        let again = match self.until {
            Until::Never => true,
            Until::NothingPending => !act.state.pending.is_empty(),
        };
        act.next_op();
        if again {
            act.thread().op = self.to;
        }
        Effect::None
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
