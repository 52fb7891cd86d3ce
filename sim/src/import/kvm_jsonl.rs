//! Raw recordings of KVM's calls on a real kernel (`--from kvm-jsonl`).
//!
//! A recording is JSON Lines as well, one call a line, cut into scenarios. Its rows carry their scenario and number;
//! the trace has a title row for each scenario instead, so that both are checked here and then left out. The machine
//! moves from the HOST row to the trace's header. Everything else is carried over; see `kvm_jsonl_rows` and `kvm_jsonl_calls`.

use std::io::{BufRead, Write};

use serde_json::{Map, Value};

use super::ImportError;
use super::kvm_jsonl_rows::Op;
use crate::trace::call::{CallRow, Section};
use crate::trace::{
    Complaint, Header, JsonLines, Kind, Machine, Problem, RowProblem, TraceError, TraceWriter,
    WriteError,
};

/// What an import did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportSummary {
    /// The machine of the recording.
    pub machine: Machine,
    /// Rows that were read, each of them a line.
    pub rows: u64,
    /// Sections that were written.
    pub sections: u64,
    /// Calls that were written.
    pub calls: u64,
}

/// Turns a raw recording into a trace of kind `call`.
///
/// `name` is what errors call the input. Nothing but `input` decides what is written, and it is written row by row:
/// after an error, `out` holds a part of a trace. Errors: an op or a field that raw recordings do not have, rows out
/// of order, a recording without a HOST row, anything that a reader of the trace would refuse, and whatever `out`
/// refuses.
///
/// `address_spaces` is what the recording does not say: how many its VMs had, where that is not the architecture's
/// usual number.
pub fn import_kvm_jsonl(
    input: impl BufRead,
    name: &str,
    address_spaces: Option<u32>,
    out: &mut dyn Write,
) -> Result<ImportSummary, ImportError> {
    let mut lines = JsonLines::new(input, name);
    let mut place = Place::default();
    let (first_section, mut machine, page_size) = preamble(&mut lines, &mut place)?;
    machine.address_spaces = address_spaces;
    let header = header_of(machine.clone());
    header
        .check()
        .map_err(|complaint| lines.complain(complaint))?;

    let mut trace = TraceWriter::new(out, &header)?;
    let (mut sections, mut calls) = (1, 0);
    write(&mut trace, &CallRow::Section(first_section), &lines)?;
    while let Some((vm, op)) = place.next_row(&mut lines)? {
        let row = match op {
            Op::Scenario { title } => {
                sections += 1;
                CallRow::Section(Section {
                    section: place.scenario.clone(),
                    title,
                })
            }
            Op::Host { .. } => {
                let help = "a recording is of one machine; split the file";
                return Err(lines
                    .complain(Complaint::row(RowProblem::SecondHost, help))
                    .into());
            }
            op => {
                calls += 1;
                let call = op.into_call(vm, page_size);
                CallRow::Call(call.map_err(|complaint| lines.complain(complaint))?)
            }
        };
        write(&mut trace, &row, &lines)?;
    }
    Ok(ImportSummary {
        machine,
        rows: lines.line(),
        sections,
        calls,
    })
}

/// The first two rows: a scenario's title, and the machine with its page size in bytes, not checked yet.
fn preamble<R: BufRead>(
    lines: &mut JsonLines<R>,
    place: &mut Place,
) -> Result<(Section, Machine, u64), Box<TraceError>> {
    let title = match place.next_row(lines)? {
        None => {
            let help = "a recording begins with a SCENARIO row and a HOST row";
            return Err(TraceError::new(lines.file(), 0, Problem::Empty, help));
        }
        Some((_, Op::Scenario { title })) => title,
        Some(_) => {
            let help = "a recording begins with a SCENARIO row and a HOST row";
            return Err(lines.complain(Complaint::row(RowProblem::NoScenario, help)));
        }
    };
    let section = Section {
        section: place.scenario.clone(),
        title,
    };
    match place.next_row(lines)? {
        Some((
            _,
            Op::Host {
                arch,
                kernel,
                page_size,
                ring_page_offset,
            },
        )) => {
            let machine = Machine {
                arch,
                kernel: Some(kernel),
                page_size: Some(page_size),
                ring_page_offset: Some(ring_page_offset),
                address_spaces: None,
                pml: None,
                two_dimensional: None,
            };
            Ok((section, machine, page_size))
        }
        _ => {
            let help = "the row after the first SCENARIO is HOST: it names the machine";
            Err(lines.complain(Complaint::row(RowProblem::NoHost, help)))
        }
    }
}

/// The header: everything in it comes from the HOST row.
fn header_of(machine: Machine) -> Header {
    let kernel = machine.kernel.as_deref().unwrap_or_default();
    let title = format!("calls recorded on {}, Linux {kernel}", machine.arch);
    Header {
        title: Some(title),
        imported_from: Some("kvm-jsonl".to_owned()),
        machine: Some(machine),
        ..Header::new(Kind::Call)
    }
}

/// Writes a row; a row that no reader would take is an error of the line that it came from.
fn write<R: BufRead>(
    trace: &mut TraceWriter<&mut dyn Write>,
    row: &CallRow,
    lines: &JsonLines<R>,
) -> Result<(), ImportError> {
    trace.row(row).map_err(|error| match error {
        WriteError::Io(error) => ImportError::Write(error),
        WriteError::Row(complaint) => lines.complain(complaint).into(),
    })
}

/// Where in a recording a row is: the scenario, and the number of the row that must come next.
#[derive(Debug, Default)]
struct Place {
    scenario: String,
    next: u64,
}

impl Place {
    /// The next row: its VM, and what is particular to it. `None` at the end of the recording.
    fn next_row<R: BufRead>(
        &mut self,
        lines: &mut JsonLines<R>,
    ) -> Result<Option<(Option<u32>, Op)>, Box<TraceError>> {
        let Some(object) = lines.next_object()? else {
            return Ok(None);
        };
        self.take(object)
            .map(Some)
            .map_err(|complaint| lines.complain(complaint))
    }

    /// Takes the fields that every row has, checks that the row follows the one before, and gives its VM and the rest.
    fn take(&mut self, mut object: Map<String, Value>) -> Result<(Option<u32>, Op), Complaint> {
        let mut take = |key: &'static str| object.remove(key).ok_or_else(|| missing(key));
        let Value::String(scenario) = take("scenario")? else {
            return Err(wrong("scenario", "a short name"));
        };
        let Some(number) = take("n")?.as_u64() else {
            return Err(wrong(
                "n",
                "the number of the row within its scenario, from 0 on",
            ));
        };
        let vm = match take("vm")? {
            Value::Null => None,
            vm => match vm.as_u64().and_then(|vm| u32::try_from(vm).ok()) {
                Some(vm) => Some(vm),
                None => {
                    return Err(wrong(
                        "vm",
                        "the number of the VM within the scenario, or null",
                    ));
                }
            },
        };
        match object.get("op") {
            Some(Value::String(op)) if Op::NAMES.contains(&op.as_str()) => {}
            Some(op) => {
                return Err(Complaint {
                    problem: Problem::UnknownCall(crate::trace::brief(op)),
                    help: format!("the ops are {}", Op::NAMES.join(", ")),
                });
            }
            None => return Err(missing("op")),
        }
        let op: Op = crate::trace::object_into(object)
            .map_err(|error| Complaint::from_serde(&error, Problem::row_field))?;
        if let Op::Scenario { .. } = op {
            *self = Place { scenario, next: 0 };
        } else if scenario != self.scenario {
            return Err(Complaint::row(
                RowProblem::OtherScenario {
                    found: scenario,
                    under_way: self.scenario.clone(),
                },
                "a scenario begins with a SCENARIO row, and its rows follow each other",
            ));
        }
        if number != self.next {
            let help = "rows are numbered from 0 without gaps; one is missing or out of order";
            return Err(Complaint::row(
                RowProblem::RowNumber {
                    number,
                    next: self.next,
                },
                help,
            ));
        }
        self.next += 1;
        if matches!(op, Op::Scenario { .. } | Op::Host { .. }) && vm.is_some() {
            return Err(wrong("vm", "null in a row that belongs to no VM"));
        }
        Ok((vm, op))
    }
}

fn missing(key: &'static str) -> Complaint {
    Complaint::row(
        RowProblem::Missing(key),
        "every row has `scenario`, `n`, `vm` and `op`",
    )
}

fn wrong(key: &'static str, expected: &str) -> Complaint {
    Complaint::row(RowProblem::Malformed(key), format!("write {expected}"))
}
