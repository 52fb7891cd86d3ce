//! The first line of a trace: what it is, of which machine, and what it should show.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{Complaint, Problem};
use super::lines::object_into;
use super::problems::HeaderProblem;
use super::runs::RING_ENTRIES_MAX;

/// What `format` says in every header.
pub const FORMAT: &str = "dirtysim-trace";

/// The version that this code writes, and the only one that it reads.
pub const VERSION: u64 = 1;

/// What the rows of a trace are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A schedule of the simulator: one atomic step a row.
    Step,
    /// Whole calls with their results: what a real kernel did.
    Call,
    /// Partial events from other tools in time order.
    Observed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Step, Kind::Call, Kind::Observed];

    /// The name in the header.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Step => "step",
            Kind::Call => "call",
            Kind::Observed => "observed",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The architecture of a recorded machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Arch {
    /// 64-bit x86, Intel or AMD.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    #[serde(rename = "arm64")]
    Arm64,
    /// 64-bit RISC-V.
    #[serde(rename = "riscv64")]
    Riscv64,
    /// 64-bit LoongArch.
    #[serde(rename = "loongarch64")]
    Loongarch64,
}

impl Arch {
    /// The name in the header.
    pub fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Arm64 => "arm64",
            Arch::Riscv64 => "riscv64",
            Arch::Loongarch64 => "loongarch64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The machine on which a trace was recorded. A `call` trace states all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The architecture.
    pub arch: Arch,
    /// The kernel's release, as `uname -r` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The host's page size, in bytes: a power of two from 4096 to 65536.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u64>,
    /// Where in a vCPU's file descriptor its ring is mapped, in pages (KVM_DIRTY_LOG_PAGE_OFFSET).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_page_offset: Option<u64>,
    /// Address spaces of a VM, where it is not the architecture's usual number: an x86 kernel built without SMM has 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_spaces: Option<u32>,
    /// x86: KVM uses the processor's page-modification log. Absent: no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pml: Option<bool>,
    /// x86: whether guest memory is mapped by two-dimensional paging (EPT, NPT); absent: no, but with PML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub two_dimensional: Option<bool>,
}

/// What whoever imported a log said of the machine, because the log does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckConfig {
    /// Entries of a ring (bytes of `KVM_CAP_DIRTY_LOG_RING` divided by 16): a power of two up to 65536.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_entries: Option<u32>,
    /// Entries in reserve, fewer than the ring has: 64, or 576 on x86 with PML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_reserved: Option<u32>,
    /// The host's page size, in bytes: a power of two from 4096 to 65536.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u64>,
}

impl CheckConfig {
    /// Whether nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is said here, and where nothing is, what `other` says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            ring_entries: self.ring_entries.or(other.ring_entries),
            ring_reserved: self.ring_reserved.or(other.ring_reserved),
            page_size: self.page_size.or(other.page_size),
        }
    }

    /// Whether there can be such a machine.
    ///
    /// # Errors
    ///
    /// The first number that no machine has.
    pub fn check(&self) -> Result<(), Complaint> {
        let most = u32::try_from(RING_ENTRIES_MAX).unwrap_or(u32::MAX);
        if let Some(entries) = self
            .ring_entries
            .filter(|n| !n.is_power_of_two() || *n > most)
        {
            return Err(Complaint::header(
                HeaderProblem::RingEntries(entries),
                format!("a ring has a power of two of entries, at most {most}"),
            ));
        }
        let entries = self.ring_entries.unwrap_or(most);
        if let Some(reserved) = self.ring_reserved.filter(|n| *n >= entries) {
            return Err(Complaint::header(
                HeaderProblem::RingReserved { reserved, entries },
                "the reserve is 64 entries, or 576 on x86 with PML, and the ring is larger",
            ));
        }
        if let Some(bytes) = self.page_size {
            check_page_size(bytes)?;
        }
        Ok(())
    }
}

fn check_page_size(bytes: u64) -> Result<(), Complaint> {
    if bytes.is_power_of_two() && (4096..=65536).contains(&bytes) {
        return Ok(());
    }
    Err(Complaint::header(
        HeaderProblem::PageSize(bytes),
        "write a power of two from 4096 to 65536",
    ))
}

/// The verdict that a trace must give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// Every invariant holds.
    Holds,
    /// This invariant is violated.
    Violated(String),
}

/// The first line of a trace.
///
/// `format` and `version` are not fields: reading checks them and writing adds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// What the rows are.
    pub kind: Kind,
    /// What the trace shows, in a few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The format that the trace was imported from (`kvm-jsonl`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported_from: Option<String>,
    /// The logs that an `observed` trace was imported from, by the names they were given under; a row's `file` is an
    /// index into them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Kind `observed`: what the logs do not say of the machine, and whoever imported them did.
    #[serde(default, skip_serializing_if = "CheckConfig::is_empty")]
    pub known: CheckConfig,
    /// The machine on which it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// The mutations that are switched on when it is replayed, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mutations: Vec<String>,
    /// The verdict that a replay must give; a trace that states none is expected to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
    /// Kind `step`: how the schedule was found, in words (`random, seed 17`, `check`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_by: Option<String>,
    /// Kind `step`: how many of the last steps are a cycle that can be gone for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle: Option<u64>,
    /// Kind `step`: the scenario whose schedule this is, as its file has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<Value>,
}

impl Header {
    /// A header of this kind that states nothing else.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            title: None,
            imported_from: None,
            sources: Vec::new(),
            known: CheckConfig::default(),
            machine: None,
            mutations: Vec::new(),
            expect: None,
            found_by: None,
            cycle: None,
            scenario: None,
        }
    }

    /// The header in an object, checked.
    pub fn from_object(mut object: Map<String, Value>) -> Result<Self, Complaint> {
        let example = format!(
            "the first line is {{\"format\":\"{FORMAT}\",\"version\":{VERSION},\"kind\":\"call\",…}}; \
             `dirtysim import` turns other logs into traces"
        );
        match object.remove("format") {
            Some(Value::String(format)) if format == FORMAT => {}
            _ => {
                return Err(Complaint {
                    problem: Problem::NotATrace,
                    help: example,
                });
            }
        }
        match object.remove("version") {
            Some(Value::Number(version)) if version.as_u64() == Some(VERSION) => {}
            found => {
                let found = found.map_or("(none)".to_owned(), |value| brief(&value));
                let help = format!("this program reads version {VERSION}");
                return Err(Complaint {
                    problem: Problem::WrongVersion(found),
                    help,
                });
            }
        }
        match object.get("kind") {
            Some(Value::String(kind)) if Kind::ALL.iter().any(|known| known.name() == kind) => {}
            found => {
                let found = found.map_or("(none)".to_owned(), brief);
                let help = "the kinds are `step`, `call` and `observed`".to_owned();
                return Err(Complaint {
                    problem: Problem::UnknownKind(found),
                    help,
                });
            }
        }
        Complaint::about_nulls(&object, Problem::header_field)?;
        let header: Header = object_into(object)
            .map_err(|error| Complaint::from_serde(&error, Problem::header_field))?;
        header.check()?;
        Ok(header)
    }

    /// The header as one line, without its line feed.
    pub fn to_line(&self) -> String {
        let mut object = Map::new();
        object.insert("format".to_owned(), FORMAT.into());
        object.insert("version".to_owned(), VERSION.into());
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => object.extend(fields),
            other => unreachable!("a struct with string keys is an object: {other:?}"),
        }
        Value::Object(object).to_string()
    }

    /// What the fields' types leave open: a page size that is none, and what the kind requires.
    pub fn check(&self) -> Result<(), Complaint> {
        let complain = |problem, help: &str| Err(Complaint::header(problem, help));
        if let Some(page_size) = self.machine.as_ref().and_then(|machine| machine.page_size) {
            check_page_size(page_size)?;
        }
        self.known.check()?;
        if !self.known.is_empty() && self.kind != Kind::Observed {
            return complain(
                HeaderProblem::Known,
                "only a trace of logs (kind `observed`) has it: leave it out",
            );
        }
        if let Some(spaces) = self
            .machine
            .as_ref()
            .and_then(|machine| machine.address_spaces)
            && !(1..=2).contains(&spaces)
        {
            return complain(HeaderProblem::AddressSpaces(spaces), "write 1 or 2");
        }
        if self.cycle == Some(0) {
            return complain(
                HeaderProblem::EmptyCycle,
                "write how many of the last steps are a cycle, or leave it out",
            );
        }
        if self.cycle.is_some() && self.kind != Kind::Step {
            return complain(
                HeaderProblem::Cycle,
                "only a schedule (kind `step`) has one: leave it out",
            );
        }
        if self.kind == Kind::Call {
            let Some(machine) = &self.machine else {
                return complain(
                    HeaderProblem::Missing("machine"),
                    "a call trace names the machine that it was recorded on",
                );
            };
            if machine.kernel.is_none() {
                return complain(
                    HeaderProblem::Missing("machine.kernel"),
                    "write the kernel's release, as `uname -r` has it",
                );
            }
            if machine.page_size.is_none() {
                return complain(
                    HeaderProblem::Missing("machine.page_size"),
                    "write the host's page size in bytes",
                );
            }
            if machine.ring_page_offset.is_none() {
                return complain(
                    HeaderProblem::Missing("machine.ring_page_offset"),
                    "write KVM_DIRTY_LOG_PAGE_OFFSET, in pages (64 on every architecture with rings)",
                );
            }
        }
        Ok(())
    }
}

/// A value for an error message: short, whatever it is.
pub(crate) fn brief(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.chars().count() > 40 => {
            format!("\"{}…\"", text.chars().take(40).collect::<String>())
        }
        scalar => scalar.to_string(),
    }
}
