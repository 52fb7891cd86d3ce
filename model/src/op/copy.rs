//! Copying pages to the destination, in any order. A page stops being stale at the instant at which it is read.

use super::{Act, CopyList, Op, Operation, Single, View};
use crate::kernel::ghosts;
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::state::vcpu::spend;
use crate::words::word::{loud, quiet};
use crate::words::{
    Choice, Effect, Errno, Facts, Fields, Found, Frame, HostPage, Names, Reach, Row, Rule, Waits,
    Word,
};

const ENTER: u8 = 0;
pub(crate) const COPYING: u8 = 1;

const BEGIN_OR_END: Word = quiet("copy-begin-or-end", "looks for pages to copy");
const END: Word = quiet("copy-end", "has no page left to copy");
/// What traces call a copy: it is about a host page.
const PAGE: Word = loud("copy", "copies {page}");
/// What traces call a copy whose send fails: it is about a host page.
const FAILS: Word = loud("send-fails", "reads {page}, but its send fails");

/// Copies the pages that are to be copied, one by one, until none is left.
pub(crate) struct CopyPending;

/// Takes all of memory as to be copied, then copies.
pub(crate) struct CopyAll;

/// Takes all of memory as to be copied.
pub(crate) struct TakeAll;

impl Operation for CopyPending {
    const STAGES: u8 = 2;
    const STEPS: &'static [Word] = &[BEGIN_OR_END, END, PAGE, FAILS];

    fn says(&self) -> &'static str {
        "copies"
    }
    fn facts(&self, _: &Machine) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, machine: &Machine, _: u8) -> Row {
        row(machine)
    }
    fn word<L: Layout>(&self, at: View<'_, L>, choice: Choice) -> Word {
        word(at.stage(), choice)
    }
    fn subject<L: Layout>(&self, _: View<'_, L>) -> Option<Frame> {
        None
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    #[inline(always)]
    fn choices<L: Layout>(&self, at: View<'_, L>, found: Found<'_>) {
        choices(at, |_| true, found);
    }
    #[inline]
    fn step<L: Layout>(&self, act: Act<'_, L>, choice: Choice) -> Effect {
        step(act, choice, true)
    }
    fn alone<L: Layout>(&self, at: View<'_, L>) -> Option<(Rule, Choice)> {
        alone(at)
    }
}

impl Operation for CopyAll {
    const STAGES: u8 = 2;
    const STEPS: &'static [Word] = CopyPending::STEPS;

    fn says(&self) -> &'static str {
        "copies all of memory"
    }
    fn facts(&self, _: &Machine) -> Facts {
        Facts {
            full_copy: true,
            ..Facts::NOTHING
        }
    }
    fn row(&self, machine: &Machine, _: u8) -> Row {
        row(machine)
    }
    fn word<L: Layout>(&self, at: View<'_, L>, choice: Choice) -> Word {
        word(at.stage(), choice)
    }
    fn subject<L: Layout>(&self, _: View<'_, L>) -> Option<Frame> {
        None
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    #[inline(always)]
    fn choices<L: Layout>(&self, at: View<'_, L>, found: Found<'_>) {
        if at.stage() == ENTER {
            return found(Choice::Advance);
        }
        choices(at, |_| true, found);
    }
    #[inline]
    fn step<L: Layout>(&self, mut act: Act<'_, L>, choice: Choice) -> Effect {
        if act.stage() == ENTER {
            take_all(&mut act, |_| true);
            return act.go(COPYING);
        }
        // The first copy of everything reports nothing.
        step(act, choice, false)
    }
    fn alone<L: Layout>(&self, at: View<'_, L>) -> Option<(Rule, Choice)> {
        if at.stage() == ENTER {
            return Some((Rule::CopyBegin, Choice::Advance));
        }
        alone(at)
    }
}

impl Operation for CopyList {
    const STAGES: u8 = 2;
    const STEPS: &'static [Word] = CopyPending::STEPS;

    fn says(&self) -> &'static str {
        "copies a part"
    }
    fn facts(&self, _: &Machine) -> Facts {
        Facts {
            names: Names::Frames(self.frames),
            ..Facts::NOTHING
        }
    }
    fn row(&self, machine: &Machine, _: u8) -> Row {
        row(machine)
    }
    fn word<L: Layout>(&self, at: View<'_, L>, choice: Choice) -> Word {
        word(at.stage(), choice)
    }
    fn subject<L: Layout>(&self, _: View<'_, L>) -> Option<Frame> {
        None
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn choices<L: Layout>(&self, at: View<'_, L>, found: Found<'_>) {
        let machine = at.machine;
        let list = &machine.frame_lists[usize::from(self.frames)];
        choices(
            at,
            |page| list.iter().any(|&frame| machine.host_page(frame) == page),
            found,
        );
    }
    fn step<L: Layout>(&self, act: Act<'_, L>, choice: Choice) -> Effect {
        step(act, choice, true)
    }
    fn alone<L: Layout>(&self, _: View<'_, L>) -> Option<(Rule, Choice)> {
        None
    }
}

impl Single for TakeAll {
    const STEP: Word = loud("take-all", "takes all of memory as to be copied");

    fn says(&self) -> &'static str {
        "takes all of memory as to be copied"
    }
    fn facts(&self) -> Facts {
        Facts {
            full_copy: true,
            ..Facts::NOTHING
        }
    }
    fn row(&self, _: &Machine) -> Row {
        Row::OWN.writes(Fields::PENDING)
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>) -> Effect {
        take_all(&mut act, |_| true);
        act.next_op()
    }
}

fn row(machine: &Machine) -> Row {
    let row = Row::OWN
        .changes(Fields::PENDING)
        .writes(Fields::STALE | Fields::SENT | Fields::FAILURES);
    if machine.track_spurious {
        // Whether a report was spurious depends on every other account of the page.
        let records = Fields::BITMAP | Fields::SCRATCH | Fields::SEEN | Fields::OWN_LOG;
        let others = Fields::DEVICES | Fields::LEAVES | Fields::STALE | Fields::HAND;
        row.reads(records | others | Fields::RING | Fields::ACCESS)
            .reach(Reach::Everything)
    } else {
        row
    }
}

fn word(stage: u8, choice: Choice) -> Word {
    match choice {
        Choice::Page(_) => PAGE,
        Choice::SendFails(_) => FAILS,
        _ if stage == ENTER => BEGIN_OR_END,
        _ => END,
    }
}

/// The copy of each pending page that is wanted, or its send's failure; or the end.
#[inline(always)]
fn choices<L: Layout>(at: View<'_, L>, wanted: impl Fn(HostPage) -> bool, found: Found<'_>) {
    let mut none = true;
    for page in at.state.pending.iter().filter(|page| wanted(*page)) {
        none = false;
        found(Choice::Page(page));
        if at.state.send_failures > 0 {
            found(Choice::SendFails(page));
        }
    }
    if none {
        found(Choice::Advance);
    }
}

#[inline]
fn step<L: Layout>(mut act: Act<'_, L>, choice: Choice, reports: bool) -> Effect {
    let machine = act.machine;
    let checked = checks_answer(&act.view());
    match choice {
        Choice::Page(page) => {
            act.state.pending.remove(page);
            if machine.track_spurious && reports {
                ghosts::note_report(machine, act.state, page);
            }
            sent(&mut act, page);
        }
        Choice::SendFails(_) => {
            // The page stays stale.
            spend(&mut act.state.send_failures);
            if checked {
                return act.leave(Err(Errno::EIO));
            }
        }
        _ => {
            act.next_op();
            if checked {
                act.thread().answer = Ok(0);
            }
        }
    }
    Effect::None
}

/// A page was read, and is on its way: from here on the destination has what it held.
#[inline]
pub(crate) fn sent<L: Layout>(act: &mut Act<'_, L>, page: HostPage) {
    let state = &mut *act.state;
    state.pending.remove(page);
    state.stale.remove(page);
    if act.machine.track_sent {
        state.sent.insert(page);
    }
}

/// Whether the program looks at how this operation went, so that the first send that fails ends it.
fn checks_answer<L: Layout>(at: &View<'_, L>) -> bool {
    let next = usize::from(at.thread().op) + 1;
    matches!(
        at.machine.programs[at.index].get(next),
        Some(Op::OnError(_))
    )
}

/// Every page that is wanted is to be copied.
pub(crate) fn take_all<L: Layout>(act: &mut Act<'_, L>, wanted: impl Fn(Frame) -> bool) {
    for (index, slot) in act.machine.slots.iter().enumerate() {
        if act.state.slots[index].exists() {
            for (frame, host) in slot.frames().zip(slot.hosts()) {
                if wanted(frame) {
                    act.state.pending.insert(host);
                }
            }
        }
    }
}

/// To copy a page earlier is worse, in any order.
fn alone<L: Layout>(at: View<'_, L>) -> Option<(Rule, Choice)> {
    Some(match at.state.pending.next(HostPage(0)) {
        None => (Rule::CopyEnd, Choice::Advance),
        Some(page) => (Rule::CopyPage, Choice::Page(page)),
    })
}
