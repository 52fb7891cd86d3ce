//! The lines of a story: what a run of steps of one lane comes to.

use dirtysim_model::op::{Op, Until};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::vcpu::{Exit, NO_FRAME, Pc};
use dirtysim_model::transition::{Actor, Choice, Step};
use dirtysim_model::words::{Frame, Word};

use super::words;
use crate::refused::is_ioctl;
use crate::scenario::Scenario;

/// Pages that a line names; of more, it tells the number.
const MOST_NAMED: usize = 6;

/// A line of the story: steps of one block in one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The block, from 1 on. A block that has steps in two lanes has several rows.
    pub block: usize,
    /// The lane.
    pub lane: usize,
    /// The first step, from 1 on.
    pub first: usize,
    /// The last step.
    pub last: usize,
    /// What happened, in order.
    pub phrases: Vec<Phrase>,
}

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phrase {
    /// The first step that it tells of, from 1 on.
    pub first: usize,
    /// The last.
    pub last: usize,
    /// What they came to.
    pub text: String,
}

impl Row {
    /// What happened, in a line.
    #[must_use]
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self
            .phrases
            .iter()
            .map(|phrase| phrase.text.as_str())
            .collect();
        texts.join("; ")
    }
}

/// Puts steps together to lines.
pub(super) struct RowWriter<'a> {
    scenario: &'a Scenario,
    rows: Vec<Row>,
    open: Option<Open>,
    steps: usize,
    /// By thread: the operation that an earlier line has begun.
    begun: Vec<Option<u16>>,
}

/// A line that may go on.
struct Open {
    block: usize,
    lane: usize,
    first: usize,
    actor: Actor,
    phrases: Vec<Phrase>,
    /// What the last step did, where no phrase says it yet.
    unsaid: Option<Phrase>,
    op: Option<OpenOp>,
}

/// How much a thread's step says about its operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    Quiet,
    Loud,
    Odd,
}

/// An operation of a thread, as far as the line has it.
struct OpenOp {
    index: u16,
    first: usize,
    last_step: usize,
    goes_on: bool,
    /// Pages copied or collected.
    pages: Vec<String>,
    loud: Vec<String>,
    /// What went otherwise than usual: told even where the operation is told as a whole.
    odd: Vec<String>,
    last: String,
    /// It has come to its end: what it answered, where that is worth telling.
    ended: Option<String>,
}

impl<'a> RowWriter<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            rows: Vec::new(),
            open: None,
            steps: 0,
            begun: vec![None; scenario.machine.programs.len()],
        }
    }

    /// Adds a step, and gives it back in words.
    #[allow(
        clippy::too_many_arguments,
        reason = "a step, its two names, and the states on either side"
    )]
    pub(super) fn step<L: Layout>(
        &mut self,
        block: usize,
        lane: usize,
        step: Step,
        word: Word,
        page: Option<&str>,
        before: &State<L>,
        after: &State<L>,
    ) -> String {
        self.steps += 1;
        let same = self
            .open
            .as_ref()
            .is_some_and(|open| open.block == block && open.lane == lane);
        if !same {
            self.close();
            self.open = Some(Open {
                block,
                lane,
                first: self.steps,
                actor: step.actor,
                phrases: Vec::new(),
                unsaid: None,
                op: None,
            });
        }
        let (name, quiet) = (word.name(), word.is_quiet());
        let mut plain = words::with_page(word.text(), page);
        if let Actor::Thread(thread) = step.actor
            && step.choice == Choice::Advance
            && let Some(Op::Again(again)) =
                before.current_op(&self.scenario.machine, usize::from(thread))
            && again.until == Until::AnyTime
        {
            // Nothing is looked at: the schedule has it so.
            "is done with the rounds".clone_into(&mut plain);
        }
        match step.actor {
            Actor::Thread(thread) => {
                let thread = usize::from(thread);
                let odd = matches!(
                    name,
                    "reset-signal" | "send-fails" | "sync-fails" | "get-clear-all"
                );
                let weight = match (odd, quiet) {
                    (true, _) => Weight::Odd,
                    (false, true) => Weight::Quiet,
                    (false, false) => Weight::Loud,
                };
                self.thread_step(thread, page, before, after, &plain, weight);
                self.thread_words(thread, before, plain)
            }
            Actor::Vcpu(vcpu) => {
                let said = vcpu_words(
                    name,
                    page,
                    &before.vcpus[usize::from(vcpu)],
                    &after.vcpus[usize::from(vcpu)],
                    |frame| after.writable.contains(frame),
                );
                let quiet = quiet && said.is_none();
                let said = said.unwrap_or(plain);
                self.phrase(said.clone(), quiet);
                said
            }
            Actor::Device(_) => {
                self.phrase(plain.clone(), quiet);
                plain
            }
        }
    }

    fn phrase(&mut self, words: String, quiet: bool) {
        let last = self.steps;
        let Some(open) = &mut self.open else { return };
        let said = open
            .phrases
            .last()
            .map_or(open.first, |phrase| phrase.last + 1);
        let phrase = Phrase {
            text: words,
            first: said,
            last,
        };
        if quiet {
            open.unsaid = Some(phrase);
        } else {
            open.unsaid = None;
            open.phrases.push(phrase);
        }
    }

    /// A thread's step by itself: with the ioctl that it belongs to.
    fn thread_words<L: Layout>(&self, thread: usize, before: &State<L>, plain: String) -> String {
        let at = usize::from(before.threads[thread].op);
        let op = self.scenario.machine.programs[thread].get(at);
        let ioctl = match op {
            Some(Op::GetDirtyLog(_)) => "GET_DIRTY_LOG",
            Some(Op::ClearDirtyLog(_)) => "CLEAR_DIRTY_LOG",
            Some(Op::ResetRings(_)) => "RESET_DIRTY_RINGS",
            Some(Op::SetMemoryRegion(_)) => "SET_USER_MEMORY_REGION",
            Some(Op::Harvest(_)) => "harvest",
            Some(op @ Op::KernelWrite(_)) => op
                .says()
                .trim_start_matches("KVM_DEV_ARM_")
                .trim_start_matches("VGIC_"),
            Some(Op::CopyAll) if before.threads[thread].stage == 0 => {
                return "takes all of memory as to be copied".to_owned();
            }
            _ => return plain,
        };
        format!("{ioctl}: {plain}")
    }

    fn thread_step<L: Layout>(
        &mut self,
        thread: usize,
        page: Option<&str>,
        before: &State<L>,
        after: &State<L>,
        plain: &str,
        weight: Weight,
    ) {
        let index = before.threads[thread].op;
        let is_same = self
            .open
            .as_ref()
            .and_then(|open| open.op.as_ref())
            .is_some_and(|op| op.index == index);
        if !is_same {
            self.close_op();
            let goes_on = self.begun[thread] == Some(index);
            self.begun[thread] = Some(index);
            if let Some(open) = &mut self.open {
                open.op = Some(OpenOp {
                    index,
                    first: self.steps,
                    last_step: self.steps,
                    goes_on,
                    pages: Vec::new(),
                    loud: Vec::new(),
                    odd: Vec::new(),
                    last: String::new(),
                    ended: None,
                });
            }
        }
        let scenario = self.scenario;
        let program = &scenario.machine.programs[thread];
        let op = program.get(usize::from(index));
        let mut pages = Vec::new();
        match op {
            Some(Op::Copy | Op::CopyAll) => {
                pages.extend(page.map(str::to_owned));
            }
            _ => {
                let mut collected = after.pending.clone();
                collected.union(&after.threads[thread].hand);
                collected.subtract(&before.pending);
                collected.subtract(&before.threads[thread].hand);
                pages.extend(collected.iter().map(|host| scenario.page_name(host)));
            }
        }
        if after.threads[thread].op != index {
            // A program may come back to it, and then begins it anew.
            self.begun[thread] = None;
        }
        let ended = (after.threads[thread].op != index).then(|| {
            let is_ioctl = op.is_some_and(is_ioctl);
            match (is_ioctl, op, after.threads[thread].answer) {
                (true, _, Err(errno)) => format!(" fails with {}", errno.name()),
                (true, Some(Op::ResetRings(_)), Ok(count)) => format!(" returns {count}"),
                _ => String::new(),
            }
        });
        let Some(open) = self.open.as_mut().and_then(|open| open.op.as_mut()) else {
            return;
        };
        open.last_step = self.steps;
        open.pages.extend(pages);
        if weight != Weight::Quiet {
            open.loud.push(plain.to_owned());
        }
        if weight == Weight::Odd {
            open.odd.push(plain.to_owned());
        }
        plain.clone_into(&mut open.last);
        open.ended = ended;
    }

    fn close_op(&mut self) {
        let scenario = self.scenario;
        let Some(open) = &mut self.open else { return };
        let Some(done) = open.op.take() else { return };
        let Actor::Thread(thread) = open.actor else {
            return;
        };
        let program = &scenario.machine.programs[usize::from(thread)];
        let Some(op) = program.get(usize::from(done.index)) else {
            return;
        };
        let place = place(scenario, usize::from(thread), done.index);
        if merge_stop(program, &done, &mut open.phrases) {
            if let Some(last) = open.phrases.last_mut() {
                last.text.push_str(&place);
            }
            return;
        }
        open.phrases.push(Phrase {
            text: op_phrase(scenario, op, &done) + &place,
            first: done.first,
            last: done.last_step,
        });
    }

    fn close(&mut self) {
        self.close_op();
        if let Some(mut open) = self.open.take() {
            open.phrases.extend(open.unsaid.take());
            self.rows.push(Row {
                block: open.block,
                lane: open.lane,
                first: open.first,
                // The step that opens the next line is counted already.
                last: self.steps - 1,
                phrases: open.phrases,
            });
        }
    }

    pub(super) fn finish(mut self) -> Vec<Row> {
        self.steps += 1;
        self.close();
        self.rows
    }
}

/// "Signals the vCPUs to stop" and the wait behind it are one thing.
fn merge_stop(program: &[Op], done: &OpenOp, phrases: &mut [Phrase]) -> bool {
    let index = usize::from(done.index);
    let waits = matches!(program.get(index), Some(Op::WaitStopped | Op::WaitKicked));
    let signalled = index > 0 && matches!(program.get(index - 1), Some(Op::Kick(_)));
    let Some(last) = phrases.last_mut() else {
        return false;
    };
    if !(waits && signalled && last.text.starts_with("signals the vCPUs")) {
        return false;
    }
    last.last = done.last_step;
    last.text = match program.get(index) {
        Some(Op::WaitStopped) => "stops the vCPUs".to_owned(),
        _ => "kicks the vCPUs out of the guest once".to_owned(),
    };
    true
}

/// Where the VMM's source has an operation, behind what it does; empty where the scenario does not say.
fn place(scenario: &Scenario, thread: usize, op: u16) -> String {
    let places = scenario.names.places.get(thread);
    let place = places.and_then(|places| places.get(usize::from(op))?.as_deref());
    place.map_or_else(String::new, |place| format!(" [{place}]"))
}

fn name_pages(pages: &[String]) -> String {
    match pages {
        [] => "nothing".to_owned(),
        [first, .., last] if pages.len() > MOST_NAMED => {
            format!("{} pages ({first} ... {last})", pages.len())
        }
        pages => pages.join(", "),
    }
}

fn op_phrase(scenario: &Scenario, op: &Op, done: &OpenOp) -> String {
    let words = words::of_op(scenario, op);
    let mut phrase = match op {
        Op::Copy if !done.odd.is_empty() => done.loud.join(", "),
        Op::Copy => format!("copies {}", name_pages(&done.pages)),
        Op::CopyAll => format!("{words}: {}", name_pages(&done.pages)),
        // Which way it went says all.
        Op::Again(again) if again.until == Until::AnyTime => done.last.clone(),
        Op::KernelWrite(_) => {
            format!("{words}: {}", done.loud.join(", "))
        }
        _ if (done.goes_on || done.ended.is_none()) && !done.loud.is_empty() => {
            format!("{words}: {}", done.loud.join(", "))
        }
        _ if !done.odd.is_empty() => format!("{words}: {}", done.odd.join(", ")),
        _ => words,
    };
    let collects = matches!(
        op,
        Op::GetDirtyLog(_) | Op::Harvest(_) | Op::CollectOwnLog | Op::DeviceSync(_)
    );
    match &done.ended {
        Some(answer) => {
            if !answer.is_empty() && phrase.contains(": ") {
                phrase.push(',');
            }
            phrase.push_str(answer);
            if collects && answer.is_empty() {
                phrase.push_str(" -> ");
                phrase.push_str(&name_pages(&done.pages));
            }
        }
        None => {
            // Somebody else acts in the middle of it: the last thing that was done matters.
            if !phrase.ends_with(&done.last) {
                let joint = if phrase.contains(": ") { ", " } else { ": " };
                phrase.push_str(joint);
                phrase.push_str(&done.last);
            }
            if collects && !done.pages.is_empty() {
                phrase.push_str(&format!(" (so far {})", name_pages(&done.pages)));
            }
            phrase.push_str(" ...");
        }
    }
    if done.goes_on {
        phrase.insert_str(0, "... ");
    }
    phrase
}

/// What a vCPU's step did, where that depends on how it went; none where its name says it all.
fn vcpu_words<L: Layout>(
    name: &str,
    page: Option<&str>,
    before: &dirtysim_model::state::vcpu::Vcpu<L>,
    after: &dirtysim_model::state::vcpu::Vcpu<L>,
    is_writable: impl Fn(Frame) -> bool,
) -> Option<String> {
    let page = page.unwrap_or("a page");
    Some(match name {
        "store" | "retry-store" | "tlb-miss" => {
            if after.pc == Pc::Guest && after.frame == NO_FRAME {
                format!("stores to {page}")
            } else if after.pc == Pc::Guest {
                format!("walks to {page}, filling its TLB")
            } else if after.pc == Pc::FlushOnly {
                "leaves the guest for its full PML buffer".to_owned()
            } else {
                format!("faults on {page}")
            }
        }
        "load" | "retry-load" => {
            if after.frame == NO_FRAME {
                format!("loads from {page}")
            } else {
                format!("faults on {page}, reading")
            }
        }
        "fault-map" => {
            let how = if before.frame != NO_FRAME && is_writable(before.frame) {
                "writable"
            } else {
                "read-only"
            };
            format!("maps {page} {how}")
        }
        "check-soft-full" => {
            if after.exit == Exit::DirtyRingFull {
                "exits for its soft-full ring".to_owned()
            } else {
                "finds its ring no longer soft-full".to_owned()
            }
        }
        "return-to-user" => match after.exit {
            Exit::DirtyRingFull => "KVM_RUN returns KVM_EXIT_DIRTY_RING_FULL".to_owned(),
            Exit::Interrupted => "KVM_RUN returns EINTR".to_owned(),
            Exit::NoMemory | Exit::None => "KVM_RUN returns".to_owned(),
        },
        _ => return None,
    })
}
