//! What of a protocol no schedule can come to, as far as its text tells: steps behind one that never goes on, and
//! protocols that claim nothing.
//!
//! A verdict on such a scenario would be about nothing. What only the schedules tell (a thread that waits for ever) is
//! told by `sometimes`.

use dirtysim_model::op::{self, Op, Until};
use dirtysim_model::oracle::Invariant;

use super::Expect;
use super::machine::Parts;
use super::reader::{Result, Source};

/// What the scenario says of itself that lets steps stand which nothing reaches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stated {
    pub(super) expect: Option<Expect>,
    pub(super) liveness: Option<Expect>,
}

impl Stated {
    /// Whether it says that the protocol does not come to its end.
    fn never_ends(self) -> bool {
        let broken = Some(Expect::Violated(Invariant::MigrationMakesProgress));
        self.expect == broken || self.liveness == broken
    }

    /// Whether it is about a claim on the way, which needs no end.
    fn is_about_the_way(self) -> bool {
        matches!(self.expect, Some(Expect::Violated(invariant)) if invariant != Invariant::NoDirtyPageLost)
    }
}

const HELP: &str = "a scenario about what never ends says so: liveness = \"violated\"";

/// Refuses steps that no schedule can come to, and a protocol without any step that claims something.
pub(super) fn check(source: Source<'_>, parts: &Parts, stated: Stated) -> Result<()> {
    if stated.never_ends() {
        return Ok(());
    }
    let programs = &parts.machine.programs;
    let reached = reached(programs);
    for (thread, program) in programs.iter().enumerate() {
        let origins = &parts.origins[thread];
        for (at, span) in origins.iter().enumerate() {
            let Some(span) = span else { continue };
            // A step that is written out several times is reached where one of them is.
            let mut places = (0..program.len()).filter(|&i| origins[i].as_ref() == Some(span));
            if places.any(|i| reached[thread][i]) {
                continue;
            }
            let why = match at.checked_sub(1).map(|before| program[before]) {
                Some(Op::Finish(_)) => "the step before it ends the protocol".to_owned(),
                Some(Op::JoinThread(other)) => {
                    format!("the step before it waits for thread {other}, whose steps never end")
                }
                Some(Op::WaitSignal(signal)) => format!(
                    "the step before it waits for `{}`, which no step that is reached signals",
                    parts.names.signals[usize::from(signal)]
                ),
                Some(Op::Again(op::Again { to, .. })) if usize::from(to) < at => {
                    "the `forever` before it never ends".to_owned()
                }
                Some(Op::Again(_)) => "`end` comes before it".to_owned(),
                _ => "no step leads to it".to_owned(),
            };
            return source.error(
                span,
                format!("never reached: {why}"),
                format!("move it or leave it away; {HELP}"),
            );
        }
    }
    let claims = programs
        .iter()
        .flatten()
        .any(|op| matches!(op, Op::Finish(_) | Op::Checkpoint | Op::Panic));
    if !claims && !stated.is_about_the_way() {
        let span = parts.last_step.clone().unwrap_or(0..0);
        return source.error(
            &span,
            "the protocol ends without a claim, so that there is no verdict to give",
            format!(
                "write \"finish\" (the copy must be whole), \"switch-over\" (post-copy) or \"checkpoint\" behind it; {HELP}"
            ),
        );
    }
    Ok(())
}

/// For each operation of each program, whether the programs' jumps, joins and signals let a thread come to it.
fn reached(programs: &[Vec<Op>]) -> Vec<Vec<bool>> {
    let mut known: Vec<Vec<bool>> = programs.iter().map(|_| vec![false]).collect();
    loop {
        let now: Vec<Vec<bool>> = programs
            .iter()
            .map(|program| reached_in(program, programs, &known))
            .collect();
        if now == known {
            return known;
        }
        known = now;
    }
}

/// The same for one program, its end included; `known` is what is known of all of them.
fn reached_in(program: &[Op], programs: &[Vec<Op>], known: &[Vec<bool>]) -> Vec<bool> {
    let ends = |thread: u8| known[usize::from(thread)].last() == Some(&true);
    let signalled = |signal: u8| {
        programs.iter().zip(known).any(|(program, reached)| {
            let mut steps = program.iter().zip(reached);
            steps.any(|(op, reached)| *reached && *op == Op::Signal(signal))
        })
    };
    let mut reached = vec![false; program.len() + 1];
    let mut open = vec![0];
    while let Some(at) = open.pop() {
        if std::mem::replace(&mut reached[at], true) {
            continue;
        }
        match program.get(at) {
            None | Some(Op::Finish(_) | Op::Panic | Op::Leave) => {}
            Some(Op::JoinThread(other)) if !ends(*other) => {}
            Some(Op::WaitSignal(signal)) if !signalled(*signal) => {}
            Some(Op::Again(op::Again { to, until })) => {
                open.push(usize::from(*to).min(program.len()));
                if *until != Until::Never {
                    open.push(at + 1);
                }
            }
            Some(Op::OnError(op::OnError { to }) | Op::PassUnless(op::PassUnless { to, .. })) => {
                open.extend([usize::from(*to).min(program.len()), at + 1])
            }
            Some(_) => open.push(at + 1),
        }
    }
    reached
}
