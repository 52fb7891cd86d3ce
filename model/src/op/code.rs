//! What a VMM's own code does beside its ioctls: sends pages by name, goes on by what it was answered, panics, ends.

use super::{Act, Operation, Proceed, SendPage, Single, View};
use crate::machine::{Machine, Way};
use crate::state::layout::Layout;
use crate::words::word::{loud, quiet};
use crate::words::{
    Choice, Effect, Facts, Fields, Found, Frame, Names, Reach, Row, Rule, Waits, Word,
};

impl Operation for SendPage {
    const STAGES: u8 = 1;
    const STEPS: &'static [Word] = &[loud("send-page", "sends {page}")];

    fn says(&self) -> &'static str {
        "sends {page}"
    }
    fn facts(&self, _: &Machine) -> Facts {
        Facts {
            names: Names::Frame(self.frame),
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine, _: u8) -> Row {
        Row::OWN.writes(Fields::PENDING | Fields::STALE | Fields::SENT)
    }
    fn word<L: Layout>(&self, _: View<'_, L>, _: Choice) -> Word {
        Self::STEPS[0]
    }
    fn subject<L: Layout>(&self, _: View<'_, L>) -> Option<Frame> {
        Some(self.frame)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    #[inline(always)]
    fn choices<L: Layout>(&self, _: View<'_, L>, found: Found<'_>) {
        found(Choice::Advance);
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>, _: Choice) -> Effect {
        let host = act.machine.host_page(self.frame);
        super::copy::sent(&mut act, host);
        act.next_op()
    }
    /// To send a page earlier is worse.
    fn alone<L: Layout>(&self, _: View<'_, L>) -> Option<(Rule, Choice)> {
        Some((Rule::CopyPage, Choice::Advance))
    }
}

/// Where the thread goes, if that is known.
fn way<'m, L: Layout>(proceed: &Proceed, at: &View<'m, L>) -> Option<&'m Way> {
    let code = at.machine.code.as_ref()?;
    let thread = &at.state.threads[at.index];
    let order = code
        .order
        .map_or(0, |order| at.state.threads[usize::from(order)].op);
    code.ways
        .get(usize::from(proceed.ways))?
        .iter()
        .find(|way| {
            way.order[0] == order
                && way.answer == thread.answer
                && thread.hand.iter().eq(way.pages.iter().copied())
        })
}

impl Single for Proceed {
    const STEP: Word = quiet("vmm-goes-on", "goes on by what it was answered");

    fn says(&self) -> &'static str {
        "goes on by what it was answered"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        // What the code may do next counts as ahead of it, which every vCPU that is outside may show.
        Row::OWN
            .reads(Fields::ANSWER | Fields::HAND)
            .writes(Fields::HAND | Fields::PENDING)
            .reach(Reach::Everything)
    }
    fn blocked<L: Layout>(&self, at: &View<'_, L>) -> Option<Waits> {
        Waits::Code.unless(way(self, at).is_some())
    }
    /// The pages that it was given are in its hands from here on, to be copied.
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        let way = way(self, &act.view()).map(|way| (way.to, way.order[1]));
        let hand = core::mem::take(&mut act.thread().hand);
        act.state.pending.union(&hand);
        act.leave(Ok(0));
        let order = act.machine.code.as_ref().and_then(|code| code.order);
        if let Some((to, then)) = way {
            act.thread().op = to;
            if let Some(order) = order {
                act.state.threads[usize::from(order)].op = then;
            }
        }
        Effect::None
    }
}

/// The VMM's own code looks at what its threads share: a point at which others may act.
pub(crate) struct Yield;

impl Single for Yield {
    const STEP: Word = quiet("vmm-looks", "looks at what its threads share");

    fn says(&self) -> &'static str {
        "looks at what its threads share"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.next_op()
    }
}

/// The VMM's own code panics.
pub(crate) struct Panic;

impl Single for Panic {
    const STEP: Word = loud("vmm-panics", "panics");

    fn says(&self) -> &'static str {
        "PANICS"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.writes(Fields::ENDED)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.state.crashed = true;
        act.next_op()
    }
}

/// All is over, and nothing is claimed.
pub(crate) struct Leave;

impl Single for Leave {
    const STEP: Word = quiet("vmm-leaves", "is done");

    fn says(&self) -> &'static str {
        "is done"
    }
    fn facts(&self) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.writes(Fields::ENDED)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        act.state.finished = true;
        act.next_op()
    }
}
