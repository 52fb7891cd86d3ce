//! Raw recordings of KVM's calls on a real kernel (`--from kvm-jsonl`).
//!
//! A recording is JSON Lines as well, one call a line, cut into scenarios. Its rows carry their scenario and number;
//! the trace has a title row for each scenario instead, so that both are checked here and then left out. The machine
//! moves from the HOST row to the trace's header. Everything else is carried over; see `kvm_jsonl_rows` and `kvm_jsonl_calls`.
//!
//! A recorder may know words that this importer does not: ops, fields, names of capabilities. A row with one is left out,
//! and a row that says so stands in its place, because what follows depends on it, unless the row only read something; so it
//! is with rows that are missing.
//! What contradicts itself, or lacks what its op must have, is an error.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, Write};

use serde_json::{Map, Value};

use super::ImportError;
use super::kvm_jsonl_rows::Op;
use crate::trace::call::{CallRow, Section, Unknown};
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
    /// Words that import does not know, and how many rows were left out for each. A field is named with its op; a row
    /// with several such words counts for each.
    pub unknown: BTreeMap<String, u64>,
    /// Rows that the recording lacks, by its own numbers.
    pub missing: u64,
}

/// Turns a raw recording into a trace of kind `call`.
///
/// `name` is what errors call the input. Nothing but `input` decides what is written, and it is written row by row:
/// after an error, `out` holds a part of a trace. Errors: rows out of order, a recording without a HOST row, anything that a
/// reader of the trace would refuse, and whatever `out` refuses. Words that are not known are none.
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
    machine.address_spaces = address_spaces.or(machine.address_spaces);
    let header = header_of(machine.clone());
    header
        .check()
        .map_err(|complaint| lines.complain(complaint))?;

    let mut trace = TraceWriter::new(out, &header)?;
    let (mut sections, mut calls) = (1, 0);
    write(&mut trace, &CallRow::Section(first_section), &lines)?;
    while let Some(row) = place.next_row(&mut lines)? {
        let (vm, op) = match row {
            Row::Known(vm, op) => (vm, op),
            Row::Unknown(vm, words) => {
                write(&mut trace, &place.unknown(vm, words), &lines)?;
                continue;
            }
            Row::Read => continue,
        };
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
                let reads = matches!(op, Op::CheckExtension { .. });
                match op.into_call(vm, page_size) {
                    Ok(call) => {
                        calls += 1;
                        CallRow::Call(call)
                    }
                    Err(Complaint {
                        problem: Problem::Row(RowProblem::UnknownName { what, name }),
                        ..
                    }) => {
                        let row = place.unknown(vm, vec![format!("{what} {name}")]);
                        if reads {
                            continue;
                        }
                        row
                    }
                    Err(complaint) => return Err(lines.complain(complaint).into()),
                }
            }
        };
        write(&mut trace, &row, &lines)?;
    }
    Ok(ImportSummary {
        machine,
        rows: lines.line(),
        sections,
        calls,
        unknown: place.unknown,
        missing: place.missing,
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
        Some(Row::Known(_, Op::Scenario { title })) => title,
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
        Some(Row::Known(
            _,
            Op::Host {
                arch,
                kernel,
                page_size,
                ring_page_offset,
                address_spaces,
                pml,
                two_dimensional,
            },
        )) => {
            let machine = Machine {
                arch,
                kernel: Some(kernel),
                page_size: Some(page_size),
                ring_page_offset: Some(ring_page_offset),
                address_spaces,
                pml,
                two_dimensional,
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

/// A row: its VM, and what is particular to it.
#[derive(Debug)]
enum Row {
    Known(Option<u32>, Op),
    /// The words in it that are not known.
    Unknown(Option<u32>, Vec<String>),
    /// It has such words, which are counted already; nothing depends on what was only read.
    Read,
}

/// The word for rows that are not there.
const MISSING: &str = "missing rows";

/// Where in a recording a row is: the scenario, and the number of the row that must come next; and what was left out.
#[derive(Debug, Default)]
struct Place {
    scenario: String,
    next: u64,
    unknown: BTreeMap<String, u64>,
    missing: u64,
    /// The row that was read, where something is to be said before it.
    held: VecDeque<Row>,
}

impl Place {
    /// The row that stands for one with words that are not known; they are counted.
    fn unknown(&mut self, vm: Option<u32>, words: Vec<String>) -> CallRow {
        let unknown = words.join(", ");
        self.count(words);
        CallRow::Unknown(Unknown { vm, unknown })
    }

    fn count(&mut self, words: Vec<String>) {
        for word in words.into_iter().filter(|word| word != MISSING) {
            *self.unknown.entry(word).or_insert(0) += 1;
        }
    }

    /// The next row. `None` at the end of the recording.
    fn next_row<R: BufRead>(
        &mut self,
        lines: &mut JsonLines<R>,
    ) -> Result<Option<Row>, Box<TraceError>> {
        if let Some(row) = self.held.pop_front() {
            return Ok(Some(row));
        }
        let Some(object) = lines.next_object()? else {
            return Ok(None);
        };
        self.take(object)
            .map(Some)
            .map_err(|complaint| lines.complain(complaint))
    }

    /// Takes the fields that every row has, checks that the row follows the one before, and gives its VM and the rest.
    fn take(&mut self, mut object: Map<String, Value>) -> Result<Row, Complaint> {
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
        let row = match object.get("op") {
            Some(Value::String(op)) if Op::NAMES.contains(&op.as_str()) => {
                let op = op.clone();
                let (row, beside) = read_op(vm, &op, object)?;
                self.count(beside);
                row
            }
            Some(Value::String(op)) => Row::Unknown(vm, vec![op.clone()]),
            Some(_) => return Err(wrong("op", "a name")),
            None => return Err(missing("op")),
        };
        if let Row::Known(_, Op::Scenario { .. }) = row {
            (self.scenario, self.next) = (scenario, 0);
        } else if scenario != self.scenario {
            return Err(Complaint::row(
                RowProblem::OtherScenario {
                    found: scenario,
                    under_way: self.scenario.clone(),
                },
                "a scenario begins with a SCENARIO row, and its rows follow each other",
            ));
        }
        if number < self.next {
            let help = "rows are numbered from 0 on; one is out of order, or there twice";
            return Err(Complaint::row(
                RowProblem::RowNumber {
                    number,
                    next: self.next,
                },
                help,
            ));
        }
        let missing = number - self.next;
        self.next = number.saturating_add(1);
        if let (Row::Known(_, Op::Scenario { .. } | Op::Host { .. }), Some(_)) = (&row, vm) {
            return Err(wrong("vm", "null in a row that belongs to no VM"));
        }
        if missing == 0 {
            return Ok(row);
        }
        self.missing = self.missing.saturating_add(missing);
        self.held.push_back(row);
        Ok(Row::Unknown(None, vec![MISSING.to_owned()]))
    }
}

/// What is particular to a row whose op is known; and every word in it that is not known.
fn read_op(
    vm: Option<u32>,
    op: &str,
    mut object: Map<String, Value>,
) -> Result<(Row, Vec<String>), Complaint> {
    let mut words = Vec::new();
    loop {
        let error = match crate::trace::object_into::<Op>(object.clone()) {
            // What is said of a scenario or a machine beside what import needs changes nothing.
            Ok(known @ (Op::Scenario { .. } | Op::Host { .. })) => {
                return Ok((Row::Known(vm, known), words));
            }
            Ok(known) if words.is_empty() => return Ok((Row::Known(vm, known), words)),
            Ok(_) => return Ok(left_out(vm, op, words)),
            Err(error) => error,
        };
        // Only the parser knows which words there are, and it names one at a time.
        let message = error.to_string();
        let word = ["unknown field `", "unknown variant `"]
            .iter()
            .find_map(|start| message.strip_prefix(start)?.split_once('`'))
            .map(|(word, _)| word);
        words.extend(word.map(|word| format!("{op}.{word}")));
        if word.is_some_and(|word| object.shift_remove(word).is_some()) {
            continue;
        }
        // It is further inside; or what is wrong besides may be what the unknown words stand for.
        if words.is_empty() || matches!(op, "SCENARIO" | "HOST") {
            return Err(Complaint::from_serde(&error, Problem::row_field));
        }
        return Ok(left_out(vm, op, words));
    }
}

/// A row with words that are not known; and those of them that are to be counted at once.
fn left_out(vm: Option<u32>, op: &str, words: Vec<String>) -> (Row, Vec<String>) {
    if Op::READS.contains(&op) {
        (Row::Read, words)
    } else {
        (Row::Unknown(vm, words), Vec::new())
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
