//! Rows of kind `call`: one whole call a line, with the VM that it was made on and what it gave back.
//!
//! A recording is cut into sections; each begins with no VM.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::call_args::{Access, Program};
use super::call_result::CallResult;
use super::calls::Call;
use super::error::{Complaint, Problem};
use super::header::{Kind, brief};
use super::lines::object_into;
use super::problems::RowProblem;
use super::row::TraceRow;

/// A row of a trace of kind `call`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every row is a call, and one is held at a time"
)]
pub enum CallRow {
    /// A section begins: every VM before it is gone, and numbers of VMs start again.
    Section(Section),
    /// A call and its result.
    Call(RecordedCall),
    /// Something was done that the trace has no word for.
    Unknown(Unknown),
}

/// The title row of a section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// A short name, without blanks.
    pub section: String,
    /// What the section does.
    pub title: String,
}

/// Something that a recorder saw done and this program has no word for. What comes after it on its VM depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unknown {
    /// The number of the VM within the section; absent where it may be any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<u32>,
    /// The recorder's word for it.
    pub unknown: String,
}

/// A call, the VM that it was made on, and what it gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedCall {
    /// The number of the VM within the section; `None` for a call that belongs to no VM.
    pub vm: Option<u32>,
    /// What was asked.
    pub call: Call,
    /// What was given back.
    pub result: CallResult,
}

impl RecordedCall {
    /// What the fields' types leave open: the row's VM, the result's fields, and fields that must agree.
    pub fn check(&self) -> Result<(), Complaint> {
        let name = self.call.name();
        match (self.call.has_vm(), self.vm) {
            (true, None) => {
                let help = "write `\"vm\":` and the VM's number within its section";
                return Err(Complaint::row(RowProblem::NoVm(name), help));
            }
            (false, Some(_)) => {
                return Err(Complaint::row(
                    RowProblem::HasVm(name),
                    "it belongs to none; leave `vm` out",
                ));
            }
            _ => {}
        }
        self.result.check(name, self.call.shape())?;
        match &self.call {
            Call::Run { program, .. } if !matches!(program.bytes, 1 | 2 | 4 | 8) => {
                Err(Complaint::row(
                    RowProblem::StoreBytes(program.bytes),
                    "`bytes` is 1, 2, 4 or 8",
                ))
            }
            Call::Run { program, .. } if program.at >= 65_536 => Err(Complaint::row(
                RowProblem::StoreAt(program.at),
                "`at` counts bytes from the start of each page, below the page's size",
            )),
            Call::Run { program, .. }
                if program.elements != 1 && program.access != Access::Copy =>
            {
                Err(Complaint::row(
                    RowProblem::Elements(program.elements),
                    "`elements` are those of a string instruction: write \"access\":\"copy\", or leave it out",
                ))
            }
            Call::Run { program, .. } if program.access == Access::Copy && !copies(program) => {
                Err(Complaint::row(
                    RowProblem::Copy {
                        elements: program.elements,
                        bytes: program.bytes,
                        at: program.at,
                    },
                    "a string instruction copies 1 to 512 elements of 8 bytes, from a multiple of 8 on",
                ))
            }
            Call::ReadPage { bytes, .. } if !(1..=8).contains(bytes) => Err(Complaint::row(
                RowProblem::ReadBytes(*bytes),
                "`bytes` is 1 to 8",
            )),
            Call::GuestMmio { bytes, .. } if !matches!(bytes, 4 | 8) => Err(Complaint::row(
                RowProblem::RegisterBytes(*bytes),
                "`bytes` is 4 or 8",
            )),
            Call::RingRead { count, .. }
                if self
                    .result
                    .entries
                    .as_ref()
                    .is_some_and(|entries| entries.count() != *count) =>
            {
                let found = self
                    .result
                    .entries
                    .as_ref()
                    .map_or(0, |entries| entries.count());
                Err(Complaint::row(
                    RowProblem::Count {
                        count: *count,
                        entries: found,
                    },
                    "`count` is the sum of the runs' counts",
                ))
            }
            Call::ClearDirtyLog {
                words, words_given, ..
            } if words.last_index().is_some_and(|last| last >= *words_given) => {
                Err(Complaint::row(
                    RowProblem::WordsPastGiven(*words_given),
                    "every word's index is below `words_given`",
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a copy is one that a guest of this format makes: elements in one page or two, none of them over a page's end, and fewer than
/// KVM does without a look at the guest.
fn copies(program: &Program) -> bool {
    program.bytes == 8 && program.at.is_multiple_of(8) && (1..=512).contains(&program.elements)
}

/// A call's row as it is written: the VM, the call's name and arguments, the result.
#[derive(Serialize)]
struct CallLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vm: Option<u32>,
    #[serde(flatten)]
    call: &'a Call,
    #[serde(skip_serializing_if = "CallResult::is_empty")]
    result: &'a CallResult,
}

impl TraceRow for CallRow {
    const KIND: Kind = Kind::Call;

    fn from_object(mut object: Map<String, Value>) -> Result<Self, Complaint> {
        let serde = |error: serde_json::Error| Complaint::from_serde(&error, Problem::row_field);
        Complaint::about_nulls(&object, Problem::row_field)?;
        match object.get("call") {
            None if object.contains_key("section") => {
                let section: Section = object_into(object).map_err(serde)?;
                if section.section.is_empty() || section.section.contains(char::is_whitespace) {
                    return Err(Complaint::row(
                        RowProblem::SectionName,
                        "write a short word",
                    ));
                }
                Ok(CallRow::Section(section))
            }
            None if object.contains_key("unknown") => {
                object_into(object).map(CallRow::Unknown).map_err(serde)
            }
            None => Err(Complaint::row(
                RowProblem::NeitherCallNorSection,
                "write {\"vm\":1,\"call\":\"KVM_RESET_DIRTY_RINGS\",\"result\":{\"ret\":0}}, say",
            )),
            Some(Value::String(name)) if Call::NAMES.contains(&name.as_str()) => {
                let vm = match object.remove("vm") {
                    None => None,
                    Some(value) => Some(
                        value
                            .as_u64()
                            .and_then(|vm| u32::try_from(vm).ok())
                            .ok_or_else(|| {
                                Complaint::row(
                                    RowProblem::Vm(brief(&value)),
                                    "write a number from 0 to 4294967295",
                                )
                            })?,
                    ),
                };
                let result = match object.remove("result") {
                    None => CallResult::default(),
                    Some(value) => CallResult::deserialize(value).map_err(serde)?,
                };
                let call = object_into(object).map_err(serde)?;
                let row = RecordedCall { vm, call, result };
                row.check()?;
                Ok(CallRow::Call(row))
            }
            Some(found) => Err(Complaint {
                problem: Problem::UnknownCall(brief(found)),
                help: format!("the calls are {}", Call::NAMES.join(", ")),
            }),
        }
    }

    fn check(&self) -> Result<(), Complaint> {
        match self {
            CallRow::Section(_) | CallRow::Unknown(_) => Ok(()),
            CallRow::Call(row) => row.check(),
        }
    }

    fn to_line(&self) -> Result<String, Complaint> {
        let line = match self {
            CallRow::Section(section) => serde_json::to_string(section),
            CallRow::Unknown(unknown) => serde_json::to_string(unknown),
            CallRow::Call(RecordedCall { vm, call, result }) => serde_json::to_string(&CallLine {
                vm: *vm,
                call,
                result,
            }),
        };
        line.map_err(|error| Complaint::from_serde(&error, Problem::row_field))
    }
}
