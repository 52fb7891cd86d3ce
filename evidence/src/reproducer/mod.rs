//! A recording as one C file: the same calls on the reader's kernel, every result compared. A schedule as one:
//! [`schedule_to_c`].
//!
//! The file needs a C compiler, the kernel's headers and `/dev/kvm`; its guest is a loop of twenty instructions. What is
//! written once for all files is `runtime.c`; the rest is a call a line, with the line of the trace that it is of.
//!
//! Not written: devices, the ITS among them, and mappings of a ring other than the whole ring.
//!
//! ```
//! use dirtysim_evidence::reproducer::to_c;
//! use dirtysim_evidence::trace::{Header, Kind};
//!
//! // A recording without a machine has no C.
//! let nothing = to_c(&Header::new(Kind::Call), std::iter::empty(), "empty.jsonl", &[]);
//! assert!(nothing.is_err() || nothing.is_ok_and(|text| text.contains("int main")));
//! ```

mod schedule;

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::plain::paragraph;
use crate::trace::call::{Access, Call, CallRow, RecordedCall, UserData};
use crate::trace::call_result::{CallResult, Returned};
use crate::trace::{Arch, Header, Located, PageRuns, RingEntries, TraceError, WordRun};

pub use schedule::{Unforced, schedule_to_c};

const RUNTIME: &str = include_str!("runtime.c");

/// What `runtime.c` has room for.
const MOST_VMS: usize = 64;
const MOST_VCPUS: u32 = 8;
const MOST_NAMES: usize = 16;
const MOST_RUNS: usize = 256;

/// The host memory in which the guest's own code and lists are.
const OWN_MEMORY: &str = "code";

/// Why a recording cannot be written as C.
#[derive(Debug, Clone)]
pub enum ExportError {
    /// A row of the trace is wrong.
    Trace(Box<TraceError>),
    /// A call, or a machine, for which no C is written: its line, what, and what to do instead.
    NoWords {
        /// The line in the trace; the header's is 1.
        line: u64,
        /// What.
        problem: String,
        /// What to do.
        help: String,
    },
}

impl std::fmt::Display for ExportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Trace(error) => error.fmt(f),
            Self::NoWords {
                line,
                problem,
                help,
            } => write!(f, "line {line}: {problem}\nhelp: {help}"),
        }
    }
}

impl std::error::Error for ExportError {}

impl From<Box<TraceError>> for ExportError {
    fn from(error: Box<TraceError>) -> Self {
        Self::Trace(error)
    }
}

/// A section as C.
struct Section {
    name: String,
    title: String,
    body: String,
    /// Pages that a comparison shows to differ: line, memslot, runs.
    lost: Vec<(u64, u16, PageRuns)>,
    /// The first call that has no C, where there is one.
    wordless: Option<(u64, String)>,
    vms: BTreeMap<u32, usize>,
    memories: BTreeMap<String, usize>,
}

/// The recording as a C file; of `sections`, if any are named, only those. `file` is what the trace is called.
///
/// # Errors
/// A row that cannot be read; a call that has no C, with the sections that can be written; a section that is not there.
pub fn to_c(
    header: &Header,
    rows: impl Iterator<Item = Result<Located<CallRow>, Box<TraceError>>>,
    file: &str,
    sections: &[String],
) -> Result<String, ExportError> {
    let machine = header.machine.as_ref();
    let (arch, mode) = match machine.map(|machine| machine.arch) {
        Some(Arch::X86_64) => ("x86_64", "long64/cpl3"),
        Some(Arch::Arm64) => ("arm64", "el1, stage 1 off"),
        other => {
            return Err(ExportError::NoWords {
                line: 1,
                problem: format!(
                    "no guest is written for {}",
                    other.map_or("a machine that is not stated", Arch::name)
                ),
                help: "there are guests for x86_64 and arm64".to_owned(),
            });
        }
    };
    let mut found: Vec<Section> = Vec::new();
    for row in rows {
        let Located { line, row } = row?;
        match row {
            CallRow::Section(section) => found.push(Section::new(section.section, section.title)),
            CallRow::Unknown(unknown) => {
                let section = last(&mut found);
                section.refuse(line, &format!("`{}`", unknown.unknown));
            }
            CallRow::Call(call) => {
                let section = last(&mut found);
                if section.wordless.is_none()
                    && let Err(what) = section.call(line, &call, mode)
                {
                    section.refuse(line, &what);
                }
            }
        }
    }
    let writable = || {
        let names = found.iter().filter(|section| section.wordless.is_none());
        let names: Vec<&str> = names.map(|section| section.name.as_str()).collect();
        match names.as_slice() {
            [] => "no section of this trace can be written".to_owned(),
            names => format!("--section takes one of these: {}", names.join(", ")),
        }
    };
    for wanted in sections {
        if !found.iter().any(|section| section.name == *wanted) {
            return Err(ExportError::NoWords {
                line: 1,
                problem: format!("no section is called `{wanted}`"),
                help: writable(),
            });
        }
    }
    let chosen: Vec<&Section> = found
        .iter()
        .filter(|section| sections.is_empty() || sections.contains(&section.name))
        .collect();
    if let Some((line, what)) = chosen.iter().find_map(|section| section.wordless.as_ref()) {
        return Err(ExportError::NoWords {
            line: *line,
            problem: format!("no C is written for {what}"),
            help: writable(),
        });
    }
    if chosen.iter().all(|section| section.body.is_empty()) {
        return Err(ExportError::NoWords {
            line: 1,
            problem: "the trace has no call".to_owned(),
            help: "give a recording (kind `call`)".to_owned(),
        });
    }
    let ring_page = machine.and_then(|machine| machine.ring_page_offset);
    let mut out = comment(header, file, &chosen);
    let _ = writeln!(
        out,
        "#define RING_PAGE_OFFSET {}ull",
        ring_page.unwrap_or(64)
    );
    out.push_str(RUNTIME);
    for (n, section) in chosen.iter().enumerate() {
        let _ = write!(
            out,
            "\n/* {} */\nstatic void section_{n}(void)\n{{\n{}}}\n",
            in_comment(&section.title),
            section.body
        );
    }
    let _ = write!(out, "\nint main(void)\n{{\n\tstart(\"{arch}\");\n");
    for n in 0..chosen.len() {
        let _ = writeln!(out, "\tsection_{n}();");
    }
    out.push_str("\treturn verdict();\n}\n");
    Ok(out)
}

fn last(found: &mut Vec<Section>) -> &mut Section {
    if found.is_empty() {
        found.push(Section::new("calls".to_owned(), String::new()));
    }
    let end = found.len() - 1;
    &mut found[end]
}

/// What the file is about, for whoever opens it.
fn comment(header: &Header, file: &str, sections: &[&Section]) -> String {
    let mut text = String::new();
    let mut add = |words: &str| {
        paragraph(&mut text, &in_comment(words), " * ", " * ", 80);
        text.push_str(" *\n");
    };
    add(header
        .title
        .as_deref()
        .unwrap_or("Calls of KVM's, made again"));
    let machine = header.machine.as_ref();
    add(&format!(
        "Made by dirtysim {} from {file}, which was recorded on {}{}. Every call is made again, and every result is compared with the recorded one.",
        env!("CARGO_PKG_VERSION"),
        machine.map_or("a machine", |machine| machine.arch.name()),
        machine
            .and_then(|machine| machine.kernel.as_ref())
            .map_or(String::new(), |kernel| format!(", Linux {kernel}")),
    ));
    for section in sections {
        add(&format!("{}: {}.", section.name, section.title));
        for (line, slot, runs) in &section.lost {
            let pages: Vec<String> = runs
                .runs()
                .iter()
                .map(|(first, count)| match count {
                    1 => first.to_string(),
                    _ => format!("{first} to {}", first + count - 1),
                })
                .collect();
            add(&format!(
                "Line {line}: page {} of memslot {slot} differs from the copy although everything that was reported had been copied: it is lost.",
                pages.join(", ")
            ));
        }
    }
    add("Nothing here depends on time or on another thread: what it shows, it shows each time.");
    add(
        "gcc -Wall -O1 -o reproducer FILE.c && ./reproducer, as somebody who may open /dev/kvm. Exit code: 0 reproduced, 1 a result differs (each is printed with its line in the trace), 4 skipped: no KVM here, or another architecture.",
    );
    let text = text.trim_end().trim_end_matches('*').trim_end();
    format!("// SPDX-License-Identifier: MIT OR Apache-2.0\n/*\n{text}\n */\n")
}

/// Text that ends no comment.
fn in_comment(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == ' ' || c.is_ascii_graphic() {
                c
            } else {
                '?'
            }
        })
        .collect::<String>()
        .replace("*/", "* /")
        .replace("/*", "/ *")
}

/// What a call gave back, as the runtime compares it.
fn ret(result: &CallResult) -> String {
    match result.returned {
        None => "0".to_owned(),
        Some(Returned::Value(value)) => value.to_string(),
        Some(Returned::Error(errno)) => format!("-{}", errno.name()),
    }
}

/// A list as C, and how many it has.
fn list(kind: &str, items: &[String]) -> String {
    match items {
        [] => "NULL, 0".to_owned(),
        items => format!(
            "(const struct {kind}[]){{ {} }}, {}",
            items.join(", "),
            items.len()
        ),
    }
}

fn pages(runs: &PageRuns) -> String {
    let items: Vec<String> = runs
        .runs()
        .iter()
        .map(|(first, count)| format!("{{ {first}, {count} }}"))
        .collect();
    list("pages", &items)
}

fn entries(entries: Option<&RingEntries>) -> String {
    let runs = entries.map_or(&[][..], RingEntries::runs);
    let items: Vec<String> = runs
        .iter()
        .map(|(first, count)| {
            format!(
                "{{ {}, {}, {}ull, {count} }}",
                first.flags, first.slot, first.offset
            )
        })
        .collect();
    list("entries", &items)
}

fn words(runs: &[WordRun]) -> String {
    let items: Vec<String> = runs
        .iter()
        .map(|run| format!("{{ {}, {}, {:#x}ull }}", run.first, run.last, run.word))
        .collect();
    list("words", &items)
}

impl Section {
    fn new(name: String, title: String) -> Self {
        Self {
            name,
            title,
            body: String::new(),
            lost: Vec::new(),
            wordless: None,
            vms: BTreeMap::new(),
            memories: BTreeMap::new(),
        }
    }

    fn refuse(&mut self, line: u64, what: &str) {
        if self.wordless.is_none() {
            self.wordless = Some((line, what.to_owned()));
        }
    }

    fn vm(&mut self, number: Option<u32>) -> Result<usize, String> {
        let next = self.vms.len();
        let place = *self.vms.entry(number.unwrap_or(0)).or_insert(next);
        if place >= MOST_VMS {
            return Err(format!("more than {MOST_VMS} VMs in a section"));
        }
        Ok(place)
    }

    fn add(&mut self, text: &str) {
        self.body.push('\t');
        self.body.push_str(text);
        self.body.push_str(";\n");
    }

    /// Adds a call; what has no C is said.
    fn call(&mut self, line: u64, call: &RecordedCall, mode: &str) -> Result<(), String> {
        let result = &call.result;
        let vm = match (&call.call, call.vm) {
            (Call::CheckExtension { .. } | Call::End {}, None) => -1,
            (_, number) => self.vm(number)? as i64,
        };
        let few = |vcpu: u32| {
            (vcpu < MOST_VCPUS)
                .then_some(vcpu)
                .ok_or_else(|| format!("vCPU {vcpu}: there are {MOST_VCPUS} places"))
        };
        let text = match &call.call {
            Call::CheckExtension { cap } => {
                format!(
                    "check_extension({line}, {vm}, {}, {})",
                    cap.number(),
                    ret(result)
                )
            }
            Call::CreateVm {} => format!("create_vm({vm})"),
            Call::CloseVm {} => format!("close_vm({vm})"),
            Call::EnableCap { cap, flags, args0 } => format!(
                "enable_cap({line}, {vm}, {}, {flags}u, {args0:#x}ull, {})",
                cap.number(),
                ret(result)
            ),
            Call::CreateVcpu { vcpu } if matches!(result.returned, Some(Returned::Error(_))) => {
                format!("create_vcpu({line}, {vm}, {vcpu}, {})", ret(result))
            }
            Call::CreateVcpu { vcpu } => {
                format!(
                    "create_vcpu({line}, {vm}, {}, {})",
                    few(*vcpu)?,
                    ret(result)
                )
            }
            Call::VcpuInit { vcpu, mode: wanted } if wanted == mode => {
                format!("vcpu_init({vm}, {})", few(*vcpu)?)
            }
            Call::VcpuInit { mode: wanted, .. } => {
                return Err(format!(
                    "a guest in mode `{wanted}`; there is one for `{mode}`"
                ));
            }
            Call::SetUserMemoryRegion {
                slot,
                as_id,
                flags,
                gpa,
                npages,
                bytes,
                mem,
                mem_offset,
                populated,
                huge,
            } => {
                let next = self.memories.len();
                let name = *self.memories.entry(mem.clone()).or_insert(next);
                if name >= MOST_NAMES {
                    return Err(format!("more than {MOST_NAMES} host memories in a section"));
                }
                let number = u32::from(*as_id) << 16 | u32::from(*slot);
                let bytes = bytes.unwrap_or_else(|| npages.saturating_mul(4096));
                format!(
                    "set_memory({line}, {vm}, (struct region){{ .slot = {number}, .flags = {flags}u, .gpa = {gpa:#x}ull, .bytes = {bytes:#x}ull, .name = {name}, .offset = {mem_offset:#x}ull, .populated = {}, .huge = {}, .own = {} }}, {})",
                    u8::from(*populated),
                    u8::from(*huge),
                    u8::from(mem == OWN_MEMORY),
                    ret(result)
                )
            }
            Call::MmapRing {
                vcpu, touch_byte, ..
            } if touch_byte.is_none() && result.returned == Some(Returned::Value(0)) => {
                format!("map_ring({line}, {vm}, {}, 0)", few(*vcpu)?)
            }
            Call::GuestLayout(_) | Call::End {} => return Ok(()),
            Call::Run { program, .. } if program.at != 0 => {
                return Err("accesses that do not begin at their page's first byte".to_owned());
            }
            Call::Run {
                vcpu,
                program,
                resume,
            } => {
                let stores: Vec<String> = program
                    .store
                    .runs()
                    .iter()
                    .map(|(slot, first, count)| format!("{{ {slot}, {first}, {count} }}"))
                    .collect();
                if stores.len() > MOST_RUNS {
                    return Err(format!("a program of more than {MOST_RUNS} runs"));
                }
                let bytes = match program.access {
                    Access::Store => program.bytes,
                    Access::Load => 0,
                    Access::Copy => {
                        return Err("string instructions from where no memory is".to_owned());
                    }
                };
                let stores = match stores.as_slice() {
                    [] => String::new(),
                    stores => format!(
                        ".stores = (const struct stores[]){{ {} }}, .runs = {}, ",
                        stores.join(", "),
                        stores.len()
                    ),
                };
                format!(
                    "run({line}, {vm}, {}, (struct program){{ {stores}.bytes = {bytes}, .value = {:#x}ull, .resume = {} }},\n\t    (struct ended){{ .ret = {}, .exit = {}, .done = {}, .retired = {} }})",
                    few(*vcpu)?,
                    program.value,
                    u8::from(*resume),
                    ret(result),
                    result.exit.map_or(0, |exit| exit.number()),
                    u8::from(result.program_done == Some(true)),
                    result.stores_retired.unwrap_or(0)
                )
            }
            Call::RingPeek { vcpu, fetch_index } => format!(
                "ring_peek({line}, {vm}, {}, {fetch_index}u, {}, {})",
                few(*vcpu)?,
                entries(result.entries.as_ref()),
                result.count.unwrap_or(0)
            ),
            Call::Harvest {
                vcpu,
                fetch_index,
                max,
                write_flags,
            } => format!(
                "harvest({line}, {vm}, {}, {fetch_index}u, {}, {write_flags}u, {}, {})",
                few(*vcpu)?,
                max.map_or("~0ull".to_owned(), |max| max.to_string()),
                entries(result.entries.as_ref()),
                result.count.unwrap_or(0)
            ),
            Call::RingRead { vcpu, index, count } => format!(
                "ring_read({line}, {vm}, {}, {index}u, {count}, {})",
                few(*vcpu)?,
                entries(result.entries.as_ref())
            ),
            Call::RingWrite {
                vcpu,
                index,
                flags,
                slot,
                offset,
            } => {
                let or_not = |value: Option<u64>| {
                    value.map_or("-1".to_owned(), |value| format!("(long long){value}ull"))
                };
                format!(
                    "ring_write({vm}, {}, {index}u, {}, {}, {})",
                    few(*vcpu)?,
                    or_not(flags.map(u64::from)),
                    or_not(slot.map(u64::from)),
                    or_not(*offset)
                )
            }
            Call::ResetDirtyRings {} => format!("reset_rings({line}, {vm}, {})", ret(result)),
            Call::GetDirtyLog {
                slot,
                as_id,
                bad_pointer,
            } => {
                let number = u32::from(*as_id) << 16 | u32::from(*slot);
                let runs = result.words.as_ref().map_or(&[][..], |words| words.runs());
                format!(
                    "get_log({line}, {vm}, {number}, {}, {}, {})",
                    words(runs),
                    u8::from(*bad_pointer),
                    ret(result)
                )
            }
            Call::ClearDirtyLog {
                slot,
                as_id,
                first_page,
                num_pages,
                words: bits,
                bad_pointer,
                ..
            } => {
                let number = u32::from(*as_id) << 16 | u32::from(*slot);
                format!(
                    "clear_log({line}, {vm}, {number}, {first_page}ull, {num_pages}u, {}, {}, {})",
                    words(bits.runs()),
                    u8::from(*bad_pointer),
                    ret(result)
                )
            }
            Call::UserWrite {
                slot,
                pages: runs,
                data:
                    UserData::Bytes {
                        value,
                        bytes,
                        at: 0,
                    },
            } if *bytes <= 8 => format!(
                "user_write({vm}, {slot}, {}, {value:#x}ull, {bytes})",
                pages(runs)
            ),
            Call::ReadPage {
                slot,
                page,
                at: 0,
                bytes: 8,
            } => format!(
                "read_page({line}, {vm}, {slot}, {page}, {:#x}ull)",
                result.value.unwrap_or(0)
            ),
            Call::Copy { slot, pages: runs } => format!("copy({vm}, {slot}, {})", pages(runs)),
            Call::Compare { slot } => {
                let none = PageRuns::default();
                let differs = result.differs.as_ref().unwrap_or(&none);
                if !differs.runs().is_empty() {
                    self.lost.push((line, *slot, differs.clone()));
                }
                format!("compare({line}, {vm}, {slot}, {})", pages(differs))
            }
            other => return Err(format!("`{}` as it stands here", other.name())),
        };
        self.add(&text);
        Ok(())
    }
}
