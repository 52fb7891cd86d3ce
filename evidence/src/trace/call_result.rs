//! What a call gave back, apart from what it was asked.
//!
//! Every field may be absent in the type; which of them a call has is its [`Shape`]. A replay builds the result that
//! the model gives and compares the two field by field.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::error::Complaint;
use super::hex;
use super::names::{Errno, Exit};
use super::problems::RowProblem;
use super::runs::{PageRuns, RingEntries};
use super::words::Words;

/// A return value, or the errno in its place: `"ret":0`, or `"ret":-1,"errno":"EINVAL"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Returned {
    /// The call succeeded with this value: KVM's calls return an `int` (a file descriptor counts as 0).
    Value(u32),
    /// The call failed.
    Error(Errno),
}

impl Returned {
    /// The value, unless the call failed.
    pub fn value(self) -> Option<u32> {
        match self {
            Returned::Value(value) => Some(value),
            Returned::Error(_) => None,
        }
    }

    /// From the pair that a recording has. An error unless exactly one of a value and an errno is there.
    pub fn from_pair(ret: i64, errno: Option<Errno>) -> Result<Self, Complaint> {
        match (u32::try_from(ret), errno) {
            (Ok(value), None) => Ok(Returned::Value(value)),
            (Err(_), Some(errno)) if ret == -1 => Ok(Returned::Error(errno)),
            (Ok(_), Some(errno)) => Err(Complaint::row(
                RowProblem::RetAndErrno { ret, errno },
                "a call that succeeds has no errno; one that fails has `\"ret\":-1`",
            )),
            (Err(_), None) if ret > 0 => Err(Complaint::row(
                RowProblem::Ret(ret),
                "a call returns a C int, of at most 32 bits",
            )),
            (Err(_), None) => Err(Complaint::row(
                RowProblem::RetWithoutErrno(ret),
                "a call that fails has `\"ret\":-1` and its errno's name",
            )),
            (Err(_), Some(_)) => Err(Complaint::row(
                RowProblem::Ret(ret),
                "a call that fails has `\"ret\":-1`",
            )),
        }
    }
}

/// What touching a byte of a mapping did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Touch {
    /// The byte could be read.
    #[serde(rename = "ok")]
    Ok,
    /// A bus error: nothing is there.
    #[serde(rename = "SIGBUS")]
    Sigbus,
    /// A segmentation fault: not mapped, or not allowed.
    #[serde(rename = "SIGSEGV")]
    Sigsegv,
}

/// What a call gave back. `None` is a field that the call does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct CallResult {
    /// The return value or the errno.
    pub returned: Option<Returned>,
    /// KVM_RUN: the exit reason.
    pub exit: Option<Exit>,
    /// KVM_RUN: the guest's program came to its end.
    pub program_done: Option<bool>,
    /// KVM_RUN: stores of the program that retired during this call.
    pub stores_retired: Option<u64>,
    /// KVM_RUN: stores of the program that have retired so far.
    pub stores_retired_total: Option<u64>,
    /// Ring acts: how many entries were found; the sum over `entries`. KVM_PRE_FAULT_MEMORY: how many pages it went through.
    pub count: Option<u64>,
    /// Ring acts: the entries.
    pub entries: Option<RingEntries>,
    /// Ring acts: the flags of the entry at which reading stopped.
    pub stop_flags: Option<u32>,
    /// GET: how many words the kernel wrote to the buffer.
    pub words_written: Option<u64>,
    /// GET: the words.
    pub words: Option<Words>,
    /// mmap of a ring: entries that the mapping has room for, 0 where it failed.
    pub mapped_entries: Option<u64>,
    /// mmap of a ring: what touching the byte did; absent where none was touched.
    pub touch: Option<Touch>,
    /// A write to the ITS: GITS_CREADR afterwards.
    pub creadr_after: Option<u64>,
    /// A value that was read: a page's first 64 bits, or a register.
    pub value: Option<u64>,
    /// Comparing memory with the destination: the pages that differ.
    pub differs: Option<PageRuns>,
}

/// The result as it is in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ret: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno: Option<Errno>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit: Option<Exit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    program_done: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stores_retired: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stores_retired_total: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entries: Option<RingEntries>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop_flags: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    words_written: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    words: Option<Words>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mapped_entries: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    touch: Option<Touch>,
    #[serde(default, with = "hex::option", skip_serializing_if = "Option::is_none")]
    creadr_after: Option<u64>,
    #[serde(default, with = "hex::option", skip_serializing_if = "Option::is_none")]
    value: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    differs: Option<PageRuns>,
}

impl Serialize for CallResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (ret, errno) = match self.returned {
            None => (None, None),
            Some(Returned::Value(value)) => (Some(i64::from(value)), None),
            Some(Returned::Error(errno)) => (Some(-1), Some(errno)),
        };
        let this = self.clone();
        Fields {
            ret,
            errno,
            exit: this.exit,
            program_done: this.program_done,
            stores_retired: this.stores_retired,
            stores_retired_total: this.stores_retired_total,
            count: this.count,
            entries: this.entries,
            stop_flags: this.stop_flags,
            words_written: this.words_written,
            words: this.words,
            mapped_entries: this.mapped_entries,
            touch: this.touch,
            creadr_after: this.creadr_after,
            value: this.value,
            differs: this.differs,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CallResult {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        let returned = match (fields.ret, fields.errno) {
            (None, None) => None,
            (None, Some(_)) => {
                let help = "a call that fails has `\"ret\":-1` and its errno's name";
                return Err(Complaint::row(RowProblem::ErrnoWithoutRet, help).for_serde());
            }
            (Some(ret), errno) => {
                Some(Returned::from_pair(ret, errno).map_err(Complaint::for_serde)?)
            }
        };
        Ok(Self {
            returned,
            exit: fields.exit,
            program_done: fields.program_done,
            stores_retired: fields.stores_retired,
            stores_retired_total: fields.stores_retired_total,
            count: fields.count,
            entries: fields.entries,
            stop_flags: fields.stop_flags,
            words_written: fields.words_written,
            words: fields.words,
            mapped_entries: fields.mapped_entries,
            touch: fields.touch,
            creadr_after: fields.creadr_after,
            value: fields.value,
            differs: fields.differs,
        })
    }
}

/// Which fields a call's result has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Always there.
    pub required: &'static [&'static str],
    /// There or not.
    pub optional: &'static [&'static str],
}

/// One field in which two results differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The field; `ret` stands for the errno too.
    pub field: &'static str,
    /// The left side's value, as it stands in a trace; `None` where the field is absent.
    pub left: Option<Value>,
    /// The right side's.
    pub right: Option<Value>,
}

impl CallResult {
    /// The names of all fields, in the order in which they are written; `ret` stands for the errno too.
    pub const FIELDS: [&'static str; 15] = [
        "ret",
        "exit",
        "program_done",
        "stores_retired",
        "stores_retired_total",
        "count",
        "entries",
        "stop_flags",
        "words_written",
        "words",
        "mapped_entries",
        "touch",
        "creadr_after",
        "value",
        "differs",
    ];

    /// The result of a call that returned `value` and gave nothing else.
    pub fn returned(value: u32) -> Self {
        Self {
            returned: Some(Returned::Value(value)),
            ..Self::default()
        }
    }

    /// The result of a call that failed and gave nothing else.
    pub fn failed(errno: Errno) -> Self {
        Self {
            returned: Some(Returned::Error(errno)),
            ..Self::default()
        }
    }

    /// No field is there.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The fields that are there, in the order in which they are written; `ret` stands for the errno too.
    pub fn present(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.presence()
            .into_iter()
            .filter_map(|(name, present)| present.then_some(name))
    }

    /// The fields in which `self` (left) and `other` (right) differ, in the order in which they are written.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        if self == other {
            return Vec::new();
        }
        let (left, right) = (self.values(), other.values());
        self.presence()
            .into_iter()
            .filter_map(|(field, _)| {
                // An errno in place of a value is shown as the errno.
                let side = |values: &Map<String, Value>| match field {
                    "ret" => values.get("errno").or_else(|| values.get("ret")).cloned(),
                    _ => values.get(field).cloned(),
                };
                let (left, right) = (side(&left), side(&right));
                (left != right).then_some(Difference { field, left, right })
            })
            .collect()
    }

    fn values(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(values)) => values,
            other => unreachable!("a struct with string keys is an object: {other:?}"),
        }
    }

    /// Every field's name, and whether it is there.
    fn presence(&self) -> [(&'static str, bool); 15] {
        let present = [
            self.returned.is_some(),
            self.exit.is_some(),
            self.program_done.is_some(),
            self.stores_retired.is_some(),
            self.stores_retired_total.is_some(),
            self.count.is_some(),
            self.entries.is_some(),
            self.stop_flags.is_some(),
            self.words_written.is_some(),
            self.words.is_some(),
            self.mapped_entries.is_some(),
            self.touch.is_some(),
            self.creadr_after.is_some(),
            self.value.is_some(),
            self.differs.is_some(),
        ];
        std::array::from_fn(|index| (Self::FIELDS[index], present[index]))
    }

    /// Whether the fields are those of `shape`, and agree with each other.
    pub(crate) fn check(&self, call: &str, shape: Shape) -> Result<(), Complaint> {
        let list = |fields: &[&str]| match fields {
            [] => "nothing".to_owned(),
            fields => fields
                .iter()
                .map(|field| format!("`{field}`"))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let help = || {
            let mut help = format!("the result of `{call}` has {}", list(shape.required));
            if !shape.optional.is_empty() {
                help += &format!(", and may have {}", list(shape.optional));
            }
            help
        };
        for (field, present) in self.presence() {
            let required = shape.required.contains(&field);
            if required && !present {
                return Err(Complaint::row(RowProblem::ResultHasNo(field), help()));
            }
            if present && !required && !shape.optional.contains(&field) {
                return Err(Complaint::row(RowProblem::ResultHas(field), help()));
            }
        }
        if let (Some(count), Some(entries)) = (self.count, &self.entries)
            && count != entries.count()
        {
            return Err(Complaint::row(
                RowProblem::Count {
                    count,
                    entries: entries.count(),
                },
                "`count` is the sum of the runs' counts",
            ));
        }
        if let (Some(written), Some(last)) = (
            self.words_written,
            self.words.as_ref().and_then(Words::last_index),
        ) && last >= written
        {
            return Err(Complaint::row(
                RowProblem::WordPastWritten { last, written },
                "every word's index is below `words_written`",
            ));
        }
        Ok(())
    }
}
