//! Replay of recorded calls: each is made on the model as well, and the two results are compared field by field.
//!
//! Streaming: what is kept is the model of the VMs that are open, not the trace.

use std::collections::BTreeMap;
use std::io::BufRead;

use dirtysim_model::oracle::Invariant;
use dirtysim_model::words::mutation::{Mutation, Mutations};
use serde_json::Value;

use super::model_host::{ModelHost, Modelled, NO_SPACE};
use crate::trace::call::{Call, CallRow, RecordedCall, Unknown};
use crate::trace::call_result::{CallResult, Returned};
use crate::trace::{Arch, Complaint, Header, HeaderProblem, Rows, TraceError};

/// A field in which a recording and the model differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// The line of the trace.
    pub line: u64,
    /// The section that it is in.
    pub section: String,
    /// The call's name.
    pub call: &'static str,
    /// The field of the result; `ret` stands for the errno too.
    pub field: &'static str,
    /// What was recorded; none where the field is absent.
    pub recorded: Option<Value>,
    /// What the model gives.
    pub modelled: Option<Value>,
}

/// Something about the recorded machine that its header does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learned {
    /// The line whose result showed it.
    pub line: u64,
    /// What, in words.
    pub what: String,
}

/// What a replay came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayOutcome {
    /// Recorded results that were compared.
    pub compared: u64,
    /// Recorded results to which the model has no answer, by the reason's name.
    pub not_modelled: BTreeMap<String, u64>,
    /// The first [`ReplayOptions::divergences_max`] divergences, in the order of their lines.
    pub divergences: Vec<Divergence>,
    /// How many divergences there were.
    pub divergences_total: u64,
    /// Contracts of the interface that broke, by name: how many calls left them broken, and the first one's line. A
    /// recording may abuse its rings on purpose.
    pub violations: BTreeMap<String, (u64, u64)>,
    /// What the recording showed of its machine.
    pub learned: Vec<Learned>,
}

/// How to replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayOptions {
    /// Mutations that are switched on besides those of the header.
    pub mutations: Vec<Mutation>,
    /// How many divergences are kept.
    pub divergences_max: usize,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self {
            mutations: Vec::new(),
            divergences_max: 100,
        }
    }
}

/// Replays the rows of a trace of kind `call`. `file` is the name that errors show.
///
/// # Errors
/// A header whose machine the model does not know; a row that cannot be read, or that names what does not exist.
pub fn replay_calls<R: BufRead>(
    header: &Header,
    rows: Rows<R, CallRow>,
    file: &str,
    options: &ReplayOptions,
) -> Result<ReplayOutcome, Box<TraceError>> {
    let in_header = |complaint: Complaint| complaint.at(file, 1);
    let machine = header.machine.as_ref().ok_or_else(|| {
        in_header(Complaint::header(
            HeaderProblem::Missing("machine"),
            "a call trace names the machine that it was recorded on",
        ))
    })?;
    let mut mutations = options.mutations.clone();
    for name in &header.mutations {
        mutations.push(Mutations::by_name(name).ok_or_else(|| {
            in_header(Complaint::header(
                HeaderProblem::UnknownMutation(name.clone()),
                "`dirtysim list mutations` shows them",
            ))
        })?);
    }
    let mut replay = Replay {
        host: ModelHost::new(machine, &mutations).map_err(in_header)?,
        outcome: ReplayOutcome::default(),
        section: String::new(),
        spaces_unknown: machine.arch == Arch::X86_64 && machine.address_spaces.is_none(),
        unknown: Depends::default(),
        divergences_max: options.divergences_max,
    };
    for located in rows {
        let located = located?;
        match &located.row {
            CallRow::Section(section) => {
                replay.host.begin_section();
                replay.section.clone_from(&section.section);
                replay.unknown = Depends::default();
            }
            CallRow::Unknown(unknown) => {
                replay.host.forget(unknown.vm);
                replay.unknown.note(unknown);
            }
            CallRow::Call(row) => replay
                .call(located.line, row)
                .map_err(|complaint| complaint.at(file, located.line))?,
        }
    }
    Ok(replay.outcome)
}

/// What depends on something that was done and that nobody knows.
#[derive(Debug, Default)]
struct Depends {
    /// Every VM of the section, since then.
    all: Option<String>,
    /// One VM, until it is closed or made anew.
    vms: BTreeMap<u32, String>,
}

impl Depends {
    fn note(&mut self, unknown: &Unknown) {
        let why = format!("what follows `{}`, which nobody knows", unknown.unknown);
        match unknown.vm {
            Some(vm) => {
                self.vms.entry(vm).or_insert(why);
            }
            None => {
                self.all.get_or_insert(why);
            }
        }
    }

    /// Why a call cannot be made on the model, where it cannot.
    fn of(&mut self, row: &RecordedCall) -> Option<String> {
        let vm = row.vm?;
        let before = match row.call {
            Call::CreateVm {} => {
                self.vms.remove(&vm);
                None
            }
            Call::CloseVm {} => self.vms.remove(&vm),
            _ => self.vms.get(&vm).cloned(),
        };
        self.all.clone().or(before)
    }
}

struct Replay {
    host: ModelHost,
    outcome: ReplayOutcome,
    section: String,
    /// Whether the number of address spaces is still to be learned.
    spaces_unknown: bool,
    unknown: Depends,
    divergences_max: usize,
}

impl Replay {
    fn call(&mut self, line: u64, row: &RecordedCall) -> Result<(), Complaint> {
        if let Some(why) = self.unknown.of(row) {
            if !row.result.is_empty() {
                *self.outcome.not_modelled.entry(why).or_insert(0) += 1;
            }
            return Ok(());
        }
        if self.spaces_unknown {
            self.learn_spaces(line, row);
        }
        let modelled = self.host.perform(row.vm, &row.call)?;
        for invariant in self.host.broken(row.vm).iter() {
            self.violated(line, invariant);
        }
        match modelled {
            _ if row.result.is_empty() => {}
            Modelled::Not(why) => {
                *self.outcome.not_modelled.entry(why.to_owned()).or_insert(0) += 1;
            }
            Modelled::Result(result) => {
                self.outcome.compared += 1;
                self.compare(line, row, result);
            }
        }
        Ok(())
    }

    fn compare(&mut self, line: u64, row: &RecordedCall, mut modelled: CallResult) {
        // A field that a recorder may leave out is compared where it did not.
        if row.result.stop_flags.is_none() {
            modelled.stop_flags = None;
        }
        if row.result.creadr_after.is_none() {
            modelled.creadr_after = None;
        }
        for difference in row.result.differences(&modelled) {
            self.outcome.divergences_total += 1;
            if self.outcome.divergences.len() < self.divergences_max {
                self.outcome.divergences.push(Divergence {
                    line,
                    section: self.section.clone(),
                    call: row.call.name(),
                    field: difference.field,
                    recorded: difference.left,
                    modelled: difference.right,
                });
            }
        }
    }

    fn violated(&mut self, line: u64, invariant: Invariant) {
        let entry = self
            .outcome
            .violations
            .entry(invariant.name().to_owned())
            .or_insert((0, line));
        entry.0 += 1;
    }

    /// An x86 kernel with SMM has two address spaces, one without has one, and no header need say which. As long as no
    /// slot was made in address space 1, GET and CLEAR of one there answer EINVAL where there is no such space and
    /// ENOENT where there is; any success shows two. What is refused before the number is looked at, or for another
    /// reason, shows nothing.
    fn learn_spaces(&mut self, line: u64, row: &RecordedCall) {
        let (slot, as_id, tells) = match &row.call {
            Call::GetDirtyLog { slot, as_id, .. } => (*slot, *as_id, true),
            Call::ClearDirtyLog {
                slot,
                as_id,
                first_page,
                ..
            } => (*slot, *as_id, first_page.is_multiple_of(64)),
            Call::SetUserMemoryRegion { slot, as_id, .. } => (*slot, *as_id, false),
            _ => return,
        };
        let user_slots = self.host.user_slots();
        if as_id != 1 || u32::from(slot) >= user_slots {
            return;
        }
        let spaces = match row.result.returned {
            Some(Returned::Error(NO_SPACE)) if tells => 1,
            Some(Returned::Error(NO_SPACE)) | None => return,
            // ENXIO comes before the number is looked at.
            Some(Returned::Error(crate::trace::Errno::ENXIO)) => return,
            Some(_) => 2,
        };
        self.spaces_unknown = false;
        if spaces != self.host.address_spaces() {
            self.host.set_address_spaces(spaces);
        }
        self.outcome.learned.push(Learned {
            line,
            what: format!("address_spaces = {spaces}"),
        });
    }
}
