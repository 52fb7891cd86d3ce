//! Each row's call. What a recording says twice (a capability's name and number, pages and bytes) must agree; the trace
//! says it once.

use super::kvm_jsonl_rows::{Hex, Op, UserWriteKind};
use crate::trace::call::{Access, Call, ItsCommand, RecordedCall, UserData};
use crate::trace::call_result::{CallResult, Returned};
use crate::trace::{Cap, Complaint, Errno, Exit, RowProblem};

/// `ret` and `errno`, as most rows end with.
fn returned(ret: i64, errno: Option<Errno>) -> Result<CallResult, Complaint> {
    Ok(CallResult {
        returned: Some(Returned::from_pair(ret, errno)?),
        ..CallResult::default()
    })
}

impl Op {
    /// The call of a row that is one, made on `vm`. SCENARIO and HOST are none. `page_size` is the host's, in bytes.
    pub(super) fn into_call(
        self,
        vm: Option<u32>,
        page_size: u64,
    ) -> Result<RecordedCall, Complaint> {
        let nothing = CallResult::default();
        let (call, result) = match self {
            Op::Scenario { .. } | Op::Host { .. } => {
                unreachable!("the importer takes SCENARIO and HOST before it asks for a call")
            }
            Op::End {} => (Call::End {}, nothing),
            Op::CheckExtension {
                cap,
                cap_number,
                ret,
            } => (
                Call::CheckExtension {
                    cap: named_cap(&cap, cap_number)?,
                },
                returned(ret, None)?,
            ),
            Op::NewVm { ret, errno } => (Call::CreateVm {}, returned(ret, errno)?),
            Op::CloseVm {} => (Call::CloseVm {}, nothing),
            Op::EnableCap {
                cap,
                cap_number,
                flags,
                args0,
                ret,
                errno,
            } => {
                let cap = named_cap(&cap, cap_number)?;
                (Call::EnableCap { cap, flags, args0 }, returned(ret, errno)?)
            }
            Op::CreateVcpu { vcpu, ret, errno } => {
                (Call::CreateVcpu { vcpu }, returned(ret, errno)?)
            }
            Op::VcpuInit {
                vcpu,
                mode,
                ret,
                errno,
            } => (Call::VcpuInit { vcpu, mode }, returned(ret, errno)?),
            Op::SetUserMemoryRegion {
                slot,
                as_id,
                flags,
                gpa: Hex(gpa),
                npages,
                bytes,
                mem,
                mem_offset,
                populated,
                huge,
                ret,
                errno,
            } => {
                if bytes / page_size != npages {
                    return Err(Complaint::row(
                        RowProblem::SlotSizes { npages, bytes },
                        format!(
                            "`npages` is `bytes` divided by the page size, {page_size}, rounded down"
                        ),
                    ));
                }
                let bytes = (bytes % page_size != 0).then_some(bytes);
                let call = Call::SetUserMemoryRegion {
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
                };
                (call, returned(ret, errno)?)
            }
            Op::MmapRing {
                vcpu,
                offset_pages,
                bytes,
                prot,
                sharing,
                ret,
                errno,
                entries,
                touch_byte,
                touch,
            } => (
                Call::MmapRing {
                    vcpu,
                    offset_pages,
                    bytes,
                    prot,
                    sharing,
                    touch_byte,
                },
                CallResult {
                    mapped_entries: Some(entries),
                    touch,
                    ..returned(ret, errno)?
                },
            ),
            Op::GuestLayout(layout) => (Call::GuestLayout(layout), nothing),
            Op::CreateDevice { device, ret, errno } => {
                (Call::CreateDevice { device }, returned(ret, errno)?)
            }
            Op::SetDeviceAttr {
                device,
                what,
                group,
                attr: Hex(attr),
                value: Hex(value),
                ret,
                errno,
            } => (
                Call::SetDeviceAttr {
                    device,
                    what,
                    group,
                    attr,
                    value,
                },
                returned(ret, errno)?,
            ),
            Op::Run {
                vcpu,
                program,
                resume,
                ret,
                errno,
                exit,
                exit_reason,
                program_done,
                stores_retired,
                stores_retired_total,
            } => {
                let program = program.into_program().ok_or_else(|| {
                    Complaint::row(
                        RowProblem::UnknownName {
                            what: "program",
                            name: "that is none of `store`, `read` and `nop` alone".to_owned(),
                        },
                        "import leaves the row out",
                    )
                })?;
                // A recorder may count what its name says, stores alone; of loads that were begun and ended here all retired.
                let uncounted = program.access == Access::Load
                    && (resume, program_done, stores_retired_total) == (false, true, 0);
                let retired = uncounted.then(|| program.store.count());
                let result = CallResult {
                    exit: Some(named_exit(&exit, exit_reason)?),
                    program_done: Some(program_done),
                    stores_retired: Some(retired.unwrap_or(stores_retired)),
                    stores_retired_total: Some(retired.unwrap_or(stores_retired_total)),
                    ..returned(ret, errno)?
                };
                let call = Call::Run {
                    vcpu,
                    program,
                    resume,
                };
                (call, result)
            }
            Op::RingPeek {
                vcpu,
                fetch_index,
                count,
                entries,
                stop_flags,
            } => (
                Call::RingPeek { vcpu, fetch_index },
                CallResult {
                    count: Some(count),
                    entries: Some(entries),
                    stop_flags: Some(stop_flags),
                    ..nothing
                },
            ),
            Op::Harvest {
                vcpu,
                fetch_index,
                max,
                write_flags,
                count,
                entries,
                stop_flags,
            } => (
                Call::Harvest {
                    vcpu,
                    fetch_index,
                    max,
                    write_flags,
                },
                CallResult {
                    count: Some(count),
                    entries: Some(entries),
                    stop_flags,
                    ..nothing
                },
            ),
            Op::RingRead {
                vcpu,
                index,
                count,
                entries,
            } => (
                Call::RingRead { vcpu, index, count },
                CallResult {
                    entries: Some(entries),
                    ..nothing
                },
            ),
            Op::RingWrite {
                vcpu,
                index,
                flags,
                slot,
                offset,
            } => (
                Call::RingWrite {
                    vcpu,
                    index,
                    flags,
                    slot,
                    offset,
                },
                nothing,
            ),
            Op::ResetDirtyRings { ret, errno } => (Call::ResetDirtyRings {}, returned(ret, errno)?),
            Op::GetDirtyLog {
                slot,
                as_id,
                bad_pointer,
                ret,
                errno,
                words_written,
                words,
            } => (
                Call::GetDirtyLog {
                    slot,
                    as_id,
                    bad_pointer,
                },
                CallResult {
                    words_written: Some(words_written),
                    words: Some(words),
                    ..returned(ret, errno)?
                },
            ),
            Op::ClearDirtyLog {
                slot,
                as_id,
                first_page,
                num_pages,
                bad_pointer,
                words_given,
                words,
                ret,
                errno,
            } => (
                Call::ClearDirtyLog {
                    slot,
                    as_id,
                    first_page,
                    num_pages,
                    words_given,
                    words,
                    bad_pointer,
                },
                returned(ret, errno)?,
            ),
            Op::ItsSetup {
                slot,
                command_queue_pages,
                device_table_pages,
                collection_table_pages,
                property_table_pages,
                pending_table_pages,
            } => (
                Call::ItsSetup {
                    slot,
                    command_queue_pages,
                    device_table_pages,
                    collection_table_pages,
                    property_table_pages,
                    pending_table_pages,
                },
                nothing,
            ),
            Op::RedistRegWrite {
                vcpu,
                reg,
                offset: Hex(offset),
                value: Hex(value),
                ret,
                errno,
            } => (
                Call::RedistRegWrite {
                    vcpu,
                    reg,
                    offset,
                    value,
                },
                returned(ret, errno)?,
            ),
            Op::ItsRegWrite {
                reg,
                offset: Hex(offset),
                value: Hex(value),
                ret,
                errno,
                creadr_after,
            } => (
                Call::ItsRegWrite { reg, offset, value },
                CallResult {
                    creadr_after: creadr_after.map(|Hex(creadr)| creadr),
                    ..returned(ret, errno)?
                },
            ),
            Op::ItsRegRead {
                reg,
                offset: Hex(offset),
                value: Hex(value),
                ret,
                errno,
            } => (
                Call::ItsRegRead { reg, offset },
                CallResult {
                    value: Some(value),
                    ..returned(ret, errno)?
                },
            ),
            Op::ItsSaveTables { ret, errno } => (Call::ItsSaveTables {}, returned(ret, errno)?),
            Op::ItsRestoreTables { ret, errno } => {
                (Call::ItsRestoreTables {}, returned(ret, errno)?)
            }
            Op::VgicSavePendingTables { ret, errno } => {
                (Call::VgicSavePendingTables {}, returned(ret, errno)?)
            }
            Op::SignalMsi {
                dev,
                event,
                ret,
                errno,
            } => (Call::SignalMsi { dev, event }, returned(ret, errno)?),
            Op::UserWrite {
                slot,
                pages,
                what,
                value,
                bytes,
                offset,
                queue_offset,
                commands,
            } => {
                let data = user_data(what, value, bytes, offset, queue_offset, commands)?;
                (Call::UserWrite { slot, pages, data }, nothing)
            }
            Op::ReadPage {
                slot,
                page,
                offset,
                u64,
                u8,
            } => {
                let (Hex(value), bytes) = match (u64, u8) {
                    (Some(value), None) => (value, 8),
                    (None, Some(value)) => (value, 1),
                    _ => {
                        return Err(Complaint::row(
                            RowProblem::Read,
                            "a READ_PAGE row has `u64` or `u8`, what was read",
                        ));
                    }
                };
                let call = Call::ReadPage {
                    slot,
                    page,
                    at: offset.unwrap_or(0),
                    bytes,
                };
                let result = CallResult {
                    value: Some(value),
                    ..nothing
                };
                (call, result)
            }
            Op::Copy { slot, pages } => (Call::Copy { slot, pages }, nothing),
            Op::Compare { slot, differs } => (
                Call::Compare { slot },
                CallResult {
                    differs: Some(differs),
                    ..nothing
                },
            ),
        };
        Ok(RecordedCall { vm, call, result })
    }
}

/// A capability by the name and the number that a row gives, which must be of the same one.
fn named_cap(name: &str, number: u32) -> Result<Cap, Complaint> {
    let cap = Cap::from_number(number);
    if cap.name().and_then(|known| known.strip_prefix("KVM_CAP_")) == Some(name) {
        return Ok(cap);
    }
    unknown_name(
        "capability",
        "KVM_CAP_",
        name,
        number,
        Cap::NAMED
            .iter()
            .map(|known| (known.name(), known.number())),
    )?;
    let known: Vec<String> = Cap::NAMED
        .iter()
        .filter_map(|cap| {
            Some(format!(
                "{} ({})",
                cap.name()?.strip_prefix("KVM_CAP_")?,
                cap.number()
            ))
        })
        .collect();
    Err(Complaint::row(
        RowProblem::NameAndNumber {
            what: "capability",
            name: name.to_owned(),
            number,
        },
        format!("the capabilities are {}", known.join(", ")),
    ))
}

/// An exit by the name and the number that a row gives, which must be of the same one.
fn named_exit(name: &str, number: u32) -> Result<Exit, Complaint> {
    let exit = Exit::from_number(number);
    if exit
        .name()
        .and_then(|known| known.strip_prefix("KVM_EXIT_"))
        == Some(name)
    {
        return Ok(exit);
    }
    unknown_name(
        "exit",
        "KVM_EXIT_",
        name,
        number,
        Exit::NAMED
            .iter()
            .map(|known| (known.name(), known.number())),
    )?;
    let known: Vec<String> = Exit::NAMED
        .iter()
        .filter_map(|exit| {
            Some(format!(
                "{} ({})",
                exit.name()?.strip_prefix("KVM_EXIT_")?,
                exit.number()
            ))
        })
        .collect();
    Err(Complaint::row(
        RowProblem::NameAndNumber {
            what: "exit",
            name: name.to_owned(),
            number,
        },
        format!("the exits are {}", known.join(", ")),
    ))
}

/// An error where neither the name nor the number is of anything that is known: then they do not contradict each other.
fn unknown_name<'a>(
    what: &'static str,
    prefix: &str,
    name: &str,
    number: u32,
    mut known: impl Iterator<Item = (Option<&'a str>, u32)>,
) -> Result<(), Complaint> {
    let full = format!("{prefix}{name}");
    if known.any(|(known, known_number)| known == Some(&full) || known_number == number) {
        return Ok(());
    }
    let name = name.to_owned();
    Err(Complaint::row(
        RowProblem::UnknownName { what, name },
        "import leaves the row out",
    ))
}

/// What a USER_WRITE stored, from the fields that its `what` calls for.
fn user_data(
    what: UserWriteKind,
    value: Option<Hex>,
    bytes: Option<u32>,
    offset: Option<u32>,
    queue_offset: Option<u64>,
    commands: Option<Vec<ItsCommand>>,
) -> Result<UserData, Complaint> {
    match (what, value, bytes, offset, queue_offset, commands) {
        (UserWriteKind::Bytes, Some(Hex(value)), Some(bytes), at, None, None) => {
            Ok(UserData::Bytes {
                value,
                bytes,
                at: at.unwrap_or(0),
            })
        }
        (UserWriteKind::ItsCommands, None, None, None, Some(queue_offset), Some(commands)) => {
            Ok(UserData::ItsCommands {
                queue_offset,
                commands,
            })
        }
        _ => Err(Complaint::row(
            RowProblem::Stored,
            "`bytes` has `value` and `bytes`, and may have `offset`; `its_commands` has `queue_offset` and `commands`",
        )),
    }
}
