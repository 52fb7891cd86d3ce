//! Something that may fail: a file's sync.

use super::{Act, Operation, View};
use crate::machine::Machine;
use crate::state::layout::Layout;
use crate::state::vcpu::spend;
use crate::words::word::loud;
use crate::words::{Choice, Effect, Errno, Facts, Fields, Found, Frame, Row, Rule, Waits, Word};

/// It succeeds, or it fails and the program may look at that.
pub(crate) struct MayFail;

impl Operation for MayFail {
    const STAGES: u8 = 1;
    const STEPS: &'static [Word] = &[
        loud("sync", "syncs its file"),
        loud("sync-fails", "fails to sync its file"),
    ];

    fn says(&self) -> &'static str {
        "syncs its file"
    }
    fn facts(&self, _: &Machine) -> Facts {
        Facts::NOTHING
    }
    fn row(&self, _: &Machine, _: u8) -> Row {
        Row::OWN.writes(Fields::FAILURES)
    }
    fn word<L: Layout>(&self, _: View<'_, L>, choice: Choice) -> Word {
        Self::STEPS[usize::from(choice == Choice::Fail)]
    }
    fn subject<L: Layout>(&self, _: View<'_, L>) -> Option<Frame> {
        None
    }
    fn blocked<L: Layout>(&self, _: &View<'_, L>) -> Option<Waits> {
        None
    }
    fn choices<L: Layout>(&self, at: View<'_, L>, found: Found<'_>) {
        if at.state.send_failures > 0 {
            found(Choice::Fail);
        }
        found(Choice::Advance);
    }
    fn step<L: Layout>(&self, mut act: Act<'_, L>, choice: Choice) -> Effect {
        let failed = choice == Choice::Fail;
        if failed {
            spend(&mut act.state.send_failures);
        }
        act.leave(if failed { Err(Errno::EIO) } else { Ok(0) })
    }
    fn alone<L: Layout>(&self, _: View<'_, L>) -> Option<(Rule, Choice)> {
        None
    }
}
