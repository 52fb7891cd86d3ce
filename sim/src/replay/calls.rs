//! Replay of a recording: every call performed on the model, every result compared.

use std::collections::BTreeMap;
use std::io::BufRead;

use dirtysim_model::machine::{Arch, Constants, Kernel};
use dirtysim_model::mutation::Mutations;
use serde_json::Value;

use super::vm::{Host, ModelVm, Refused, Reply, check_extension};
use crate::trace::call::{Call, CallRow};
use crate::trace::call_result::CallResult;
use crate::trace::{self, Complaint, Header, Problem, TraceError, TraceReader};

/// The most VMs that a section may have open at a time.
const MOST_VMS: usize = 1024;

/// A result on which recording and model differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Divergence {
    /// The line of the trace.
    pub line: u64,
    /// The section that it is in.
    pub section: String,
    /// The call.
    pub call: &'static str,
    /// The field of the result.
    pub field: &'static str,
    /// What the kernel answered.
    pub recorded: Option<Value>,
    /// What the model answers.
    pub modelled: Option<Value>,
}

/// What a replay of calls came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CallReplay {
    /// Calls.
    pub calls: u64,
    /// Results compared: fields of calls.
    pub compared: u64,
    /// Results that the model does not cover, by what they are.
    pub not_modelled: BTreeMap<&'static str, u64>,
    /// Where the two differ, in the order of the lines.
    pub divergences: Vec<Divergence>,
}

impl CallReplay {
    /// Results that the model does not cover.
    #[must_use]
    pub fn not_modelled_total(&self) -> u64 {
        self.not_modelled.values().sum()
    }
}

/// The host of a recording.
///
/// # Errors
/// A release that is no version number.
pub fn host_of(header: &Header, file: &str, mutations: Mutations) -> Result<Host, Box<TraceError>> {
    let complain = |message: String, help: &str| {
        Complaint {
            problem: Problem::Header(message),
            help: help.to_owned(),
        }
        .at(file, 1)
    };
    let Some(machine) = &header.machine else {
        return Err(complain(
            "no `machine`".to_owned(),
            "a call trace names the machine that it was recorded on",
        ));
    };
    let arch = match machine.arch {
        trace::Arch::X86_64 => Arch::X86,
        trace::Arch::Arm64 => Arch::Arm64,
        trace::Arch::Riscv64 => Arch::Riscv,
        trace::Arch::Loongarch64 => Arch::Loongarch,
    };
    let release = machine.kernel.as_deref().unwrap_or_default();
    let Some(kernel) = kernel_of(release) else {
        return Err(complain(
            format!("`machine.kernel` is `{release}`"),
            "write the kernel's release, as `uname -r` has it: 6.12.117",
        ));
    };
    Ok(Host {
        arch,
        kernel,
        page_bytes: machine.page_size.unwrap_or(4096),
        ring_offset_pages: machine.ring_page_offset.unwrap_or(64),
        address_spaces: machine
            .address_spaces
            .unwrap_or(Constants::of(arch, false).address_spaces),
        mutations,
    })
}

/// The newest version that the model knows and that is not newer than `release`.
#[must_use]
pub fn kernel_of(release: &str) -> Option<Kernel> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let major: u32 = numbers.next()?.parse().ok()?;
    let minor: u32 = numbers.next()?.parse().ok()?;
    Some(match (major, minor) {
        // Behaviours of 6.18 that differ from 6.12's came with 6.14 (PML order) and 6.17 (signals in RESET).
        (7.., _) => Kernel::V7_2,
        (6, 17..) => Kernel::V6_18,
        (6, 2..) => Kernel::V6_12,
        _ => Kernel::V6_1,
    })
}

/// Replays the call trace that `reader` has begun to read.
///
/// # Errors
/// A line that is no call, or that names what is not there.
pub fn replay<R: BufRead>(
    reader: TraceReader<R>,
    file: &str,
    mutations: Mutations,
) -> Result<CallReplay, Box<TraceError>> {
    let host = host_of(reader.header(), file, mutations)?;
    let mut outcome = CallReplay::default();
    let mut vms: BTreeMap<u32, ModelVm> = BTreeMap::new();
    let mut section = String::new();
    for read in reader.rows::<CallRow>()? {
        let read = read?;
        let recorded = match read.row {
            CallRow::Section(row) => {
                section = row.section;
                vms.clear();
                continue;
            }
            CallRow::Call(recorded) => recorded,
        };
        outcome.calls += 1;
        let reply = perform(&host, &mut vms, recorded.vm, &recorded.call).map_err(|Refused(message)| {
            let help = "the calls of a trace are about VMs, vCPUs and slots that calls before them made".to_owned();
            Complaint { problem: Problem::Row(message), help }.at(file, read.line)
        })?;
        match reply {
            Reply::NotModelled(name) => {
                *outcome.not_modelled.entry(name).or_insert(0) +=
                    recorded.result.present().count() as u64;
            }
            Reply::Result(modelled) => compare(
                &mut outcome,
                read.line,
                &section,
                &recorded.call,
                &recorded.result,
                &modelled,
            ),
        }
    }
    Ok(outcome)
}

/// Performs a call on the VM that it is about.
///
/// # Errors
/// The call names what is not there.
pub fn perform(
    host: &Host,
    vms: &mut BTreeMap<u32, ModelVm>,
    vm: Option<u32>,
    call: &Call,
) -> Result<Reply, Refused> {
    match (call, vm) {
        (Call::CheckExtension { cap }, _) => Ok(Reply::Result(CallResult::returned(
            check_extension(host, *cap),
        ))),
        (Call::CreateVm {}, Some(vm)) => {
            if vms.len() >= MOST_VMS {
                return Err(Refused(format!("more than {MOST_VMS} VMs at a time")));
            }
            vms.insert(vm, ModelVm::new(*host));
            Ok(Reply::Result(CallResult::returned(0)))
        }
        (Call::CloseVm {}, Some(vm)) => {
            vms.remove(&vm);
            Ok(Reply::Result(CallResult::default()))
        }
        (_, Some(number)) => match vms.get_mut(&number) {
            Some(vm) => vm.perform(call),
            None => Err(Refused(format!("no VM {number}"))),
        },
        (Call::End {}, None) => Ok(Reply::Result(CallResult::default())),
        (_, None) => Err(Refused(format!("`{}` without a `vm`", call.name()))),
    }
}

fn compare(
    outcome: &mut CallReplay,
    line: u64,
    section: &str,
    call: &Call,
    recorded: &CallResult,
    modelled: &CallResult,
) {
    outcome.compared += recorded.present().count() as u64;
    if recorded.is_empty() {
        return;
    }
    for difference in recorded.differences(modelled) {
        outcome.divergences.push(Divergence {
            line,
            section: section.to_owned(),
            call: call.name(),
            field: difference.field,
            recorded: difference.left,
            modelled: difference.right,
        });
    }
}
