//! Properties of importing logs: what a tool prints is read back, whatever stands in front of it; no input makes the
//! importer fail in any way but with an error; a ring that keeps its contract has no defect, and one that does not has.

use std::io::Write as _;

use dirtysim::import::detect::LogKind;
use dirtysim::import::prefix::{Line, Prefix, Stamp};
use dirtysim::import::{Body, tracepoint};
use dirtysim::import::{LogOptions, LogSummary, ftrace, import_logs, perf, qemu};
use dirtysim::observed::{CheckConfig, Weight};
use dirtysim::trace::TraceReader;
use dirtysim::trace::observed::{KvmIoctl, Observed, ObservedEvent, Phase};
use proptest::prelude::*;

fn ioctl() -> impl Strategy<Value = KvmIoctl> {
    prop::sample::select(KvmIoctl::ALL.map(|(ioctl, ..)| ioctl).to_vec())
}

fn kernel_event() -> impl Strategy<Value = Observed> {
    let indices = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    prop_oneof![
        (indices, any::<u32>(), any::<u64>()).prop_map(
            |((ring, dirty_index, reset_index, used), slot, offset)| {
                Observed::RingPush {
                    ring,
                    dirty_index,
                    reset_index,
                    slot,
                    offset,
                    used,
                }
            }
        ),
        indices.prop_map(
            |(ring, dirty_index, reset_index, used)| Observed::RingReset {
                ring,
                dirty_index,
                reset_index,
                used
            }
        ),
        any::<u32>().prop_map(|vcpu| Observed::RingExit { vcpu }),
        any::<u32>().prop_map(|reason| Observed::UserspaceExit {
            reason: Some(reason),
            errno: None
        }),
        any::<u32>().prop_map(|errno| Observed::UserspaceExit {
            reason: None,
            errno: Some(errno)
        }),
        any::<u32>().prop_map(|vcpu| Observed::PmlFull { vcpu }),
        (any::<Option<u32>>(), any::<u64>(), any::<u64>()).prop_map(
            |(vcpu, address, error_code)| Observed::PageFault {
                vcpu,
                address,
                error_code
            }
        ),
        (
            any::<u32>(),
            any::<u64>(),
            any::<u64>(),
            any::<u64>(),
            any::<bool>()
        )
            .prop_map(|(vcpu, address, old_spte, new_spte, fixed)| {
                Observed::FastPageFault {
                    vcpu,
                    address,
                    old_spte,
                    new_spte,
                    fixed,
                }
            }),
        (any::<u64>(), any::<u64>(), any::<u32>())
            .prop_map(|(gfn, spte, level)| Observed::SetSpte { gfn, spte, level }),
        (
            any::<u32>(),
            any::<u64>(),
            any::<u32>(),
            any::<u64>(),
            any::<u64>()
        )
            .prop_map(
                |(as_id, gfn, level, old_spte, new_spte)| Observed::TdpSpteChanged {
                    as_id,
                    gfn,
                    level,
                    old_spte,
                    new_spte
                }
            ),
        (any::<u64>(), any::<u64>()).prop_map(|(ipa, hsr)| Observed::GuestFault { ipa, hsr }),
        any::<u64>().prop_map(|ipa| Observed::AccessFault { ipa }),
        (
            any::<bool>(),
            ioctl(),
            any::<Option<u32>>(),
            any::<Option<u64>>(),
            any::<Option<u32>>(),
            prop::option::of(-4095_i64..=i64::from(i32::MAX))
        )
            .prop_map(|(enter, ioctl, slot, first_page, num_pages, ret)| {
                Observed::ProbeIoctl {
                    phase: if enter { Phase::Enter } else { Phase::Return },
                    ioctl,
                    slot,
                    first_page,
                    num_pages,
                    ret,
                }
            }),
        (any::<u32>(), any::<u64>())
            .prop_map(|(slot, offset)| Observed::ProbeMark { slot, offset }),
        (any::<u32>(), any::<u64>(), any::<u64>())
            .prop_map(|(slot, offset, mask)| Observed::ProbeRearm { slot, offset, mask }),
    ]
}

fn qemu_event() -> impl Strategy<Value = Observed> {
    prop_oneof![
        (any::<u32>(), any::<u32>(), any::<u64>()).prop_map(|(cpu_index, fetch, offset)| {
            Observed::QemuPage {
                cpu_index,
                fetch,
                offset,
            }
        }),
        any::<u64>().prop_map(|count| Observed::QemuReap { count }),
        any::<u32>().prop_map(|cpu_index| Observed::QemuReapVcpu { cpu_index }),
        any::<u32>().prop_map(|cpu_index| Observed::QemuRingFull { cpu_index }),
        any::<bool>().prop_map(|finished| Observed::QemuFlush { finished }),
        (any::<u32>(), any::<u64>(), any::<u32>())
            .prop_map(|(slot, start, size)| Observed::QemuClear { slot, start, size }),
        (
            any::<u32>(),
            any::<u64>(),
            any::<u64>(),
            any::<u64>(),
            -4095_i64..=0
        )
            .prop_map(|(slot, flags, gpa, size, ret)| Observed::QemuSetMemory {
                slot,
                flags,
                gpa,
                size,
                ret
            }),
        ioctl().prop_map(|ioctl| Observed::QemuVmIoctl { ioctl }),
        Just(Observed::QemuDeviceIoctl {
            ioctl: KvmIoctl::SetDeviceAttr
        }),
        (any::<u32>(), any::<u32>())
            .prop_map(|(cpu_index, reason)| Observed::QemuRunExit { cpu_index, reason }),
        (any::<u32>(), any::<u32>())
            .prop_map(|(cpu_index, vcpu)| Observed::QemuCreateVcpu { cpu_index, vcpu }),
        Just(Observed::QemuSyncStart),
        any::<u64>().prop_map(|dirty_pages| Observed::QemuSyncEnd { dirty_pages }),
    ]
}

/// Names as tasks have them, and as somebody who means harm would choose them.
fn comm() -> impl Strategy<Value = String> {
    prop_oneof![
        "CPU [0-9]{1,3}/KVM",
        "[ -~]{1,15}",
        "[-\\[\\] 0-9:.()/#]{1,15}",
        Just("a-1 [000] b".to_owned()),
        Just("1 [0] 1.000001:".to_owned()),
        Just("kworker/u8:-3".to_owned()),
    ]
    .prop_filter(
        "a name is not blank, and not ftrace's word for none",
        |name| !name.trim().is_empty() && name != "<...>",
    )
}

fn event_of<'a>(kind: LogKind, line: &'a str) -> (Prefix<'a>, Body) {
    match kind.parse(line.as_bytes()) {
        Line::Event(prefix) => {
            let body = match kind {
                LogKind::Qemu => qemu::parse_body(prefix.event, prefix.body),
                LogKind::Ftrace | LogKind::Perf => tracepoint::parse(prefix.event, prefix.body),
            };
            (prefix, body)
        }
        other => panic!("{line:?} gave {other:?}"),
    }
}

/// Times up to the year 2128, in whole microseconds.
fn time() -> impl Strategy<Value = u64> {
    (0..5_000_000_000_000_000_u64).prop_map(|us| us * 1000)
}

/// Failing cases are shown, and are not kept in files: a case worth keeping becomes a test of its own.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

const PID_MAX: u32 = 4_194_304;

proptest! {
    #![proptest_config(config(4096))]

    #[test]
    fn a_kernel_event_is_read_back_from_ftrace_and_trace_cmd(
        event in kernel_event(), comm in comm(), tid in 0..=PID_MAX, pid in 1..=PID_MAX, cpu in 0..8192_u32,
        t_ns in time(), form in prop::sample::select(ftrace::Form::ALL.to_vec()),
    ) {
        let mut line = String::new();
        ftrace::print(form, &comm, (tid, pid), cpu, t_ns, event.name(), &mut line);
        prop_assert!(tracepoint::print(&event, &mut line));
        let (prefix, body) = event_of(LogKind::Ftrace, &line);
        prop_assert_eq!(body, Body::Event(event), "{}", line);
        prop_assert_eq!((prefix.tid, prefix.cpu), (Some(tid), Some(cpu)), "{}", line);
        prop_assert_eq!(prefix.pid, (form == ftrace::Form::Tgid).then_some(pid));
        prop_assert_eq!(prefix.stamp, Stamp::Ns(t_ns));
        let short = matches!(form, ftrace::Form::Latency | ftrace::Form::TraceCmdLatency);
        let comm = if short { &comm[..comm.len().min(8)] } else { &comm };
        prop_assert_eq!(prefix.comm.unwrap().trim_ascii(), comm.trim().as_bytes());
    }

    #[test]
    fn a_kernel_event_is_read_back_from_perf(
        event in kernel_event(), comm in comm(), tid in 0..=PID_MAX, pid in 1..=PID_MAX, cpu in 0..8192_u32,
        t_ns in time(), form in prop::sample::select(perf::Form::ALL.to_vec()),
    ) {
        let mut line = String::new();
        perf::print(form, &comm, (tid, pid), cpu, t_ns, event.name(), &mut line);
        prop_assert!(tracepoint::print(&event, &mut line));
        let (prefix, body) = event_of(LogKind::Perf, &line);
        prop_assert_eq!(body, Body::Event(event), "{}", line);
        prop_assert_eq!(prefix.tid, Some(tid), "{}", line);
        prop_assert_eq!(prefix.cpu, (form != perf::Form::Period).then_some(cpu));
        prop_assert_eq!(prefix.pid, (form == perf::Form::Pid).then_some(pid));
        prop_assert_eq!(prefix.stamp, Stamp::Ns(t_ns));
        prop_assert_eq!(prefix.comm.unwrap(), comm.trim().as_bytes());
    }

    #[test]
    fn a_qemu_event_is_read_back(
        event in qemu_event(), tid in 1..=PID_MAX, t_ns in time(),
        form in prop::sample::select(qemu::Form::ALL.to_vec()),
    ) {
        let mut line = String::new();
        qemu::print_front(form, tid, t_ns, &mut line);
        prop_assert!(qemu::print(&event, &mut line));
        let (prefix, body) = event_of(LogKind::Qemu, &line);
        prop_assert_eq!(body, Body::Event(event), "{}", line);
        let named = matches!(form, qemu::Form::TidTime | qemu::Form::IsoProgram);
        prop_assert_eq!(prefix.tid, named.then_some(tid), "{}", line);
        let stamp = if form == qemu::Form::Bare { Stamp::None } else { Stamp::Ns(t_ns) };
        prop_assert_eq!(prefix.stamp, stamp, "{}", line);
    }

    #[test]
    fn a_row_is_read_back_from_a_trace(
        what in prop_oneof![kernel_event(), qemu_event()], line in 1..u64::MAX, file in any::<u32>(),
        t_ns in any::<Option<u64>>(), tick in any::<Option<u64>>(), pid in any::<Option<u32>>(),
        tid in any::<Option<u32>>(), cpu in any::<Option<u32>>(),
    ) {
        let event = ObservedEvent { line, file, t_ns, tick, pid, tid, cpu, what };
        let mut text = b"{\"format\":\"dirtysim-trace\",\"version\":1,\"kind\":\"observed\"}\n".to_vec();
        event.write_line(&mut text).unwrap();
        let mut rows = TraceReader::new(text.as_slice(), "t").unwrap().rows::<ObservedEvent>().unwrap();
        prop_assert_eq!(rows.next().unwrap().unwrap().row, event);
    }
}

fn import(
    text: &[u8],
    from: Option<LogKind>,
    check: CheckConfig,
) -> Result<(LogSummary, Vec<u8>), String> {
    let options = LogOptions {
        from,
        check,
        ..LogOptions::default()
    };
    let mut trace = Vec::new();
    match import_logs(vec![("log".to_owned(), text)], &mut trace, &options) {
        Ok(summary) => Ok((summary, trace)),
        Err(error) => Err(error.to_string()),
    }
}

/// Whatever came of it: an error says what to do, and a trace can be read.
fn holds_together(text: &[u8], from: Option<LogKind>) {
    match import(text, from, CheckConfig::default()) {
        Err(error) => assert!(error.contains("\nhelp: "), "{error}"),
        Ok((summary, trace)) => {
            let rows = TraceReader::new(trace.as_slice(), "t")
                .unwrap()
                .rows::<ObservedEvent>()
                .unwrap();
            let rows = rows
                .map(Result::unwrap)
                .filter(|row| !matches!(row.row.what, Observed::Thread { .. }))
                .count();
            assert_eq!(rows as u64, summary.events.values().sum::<u64>());
        }
    }
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn any_bytes_give_a_trace_or_an_error(
        text in prop::collection::vec(any::<u8>(), 0..2000),
        from in prop::option::of(prop::sample::select(LogKind::ALL.to_vec())),
    ) {
        holds_together(&text, from);
    }

    #[test]
    fn a_log_with_bytes_changed_gives_a_trace_or_an_error(
        events in prop::collection::vec((kernel_event(), comm(), time()), 1..20),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..10),
        cut in any::<prop::sample::Index>(),
        is_perf in any::<bool>(),
    ) {
        let mut text = String::new();
        for (event, comm, t_ns) in &events {
            if is_perf {
                perf::print(perf::Form::Pid, comm, (1, 2), 3, *t_ns, event.name(), &mut text);
            } else {
                ftrace::print(ftrace::Form::Ftrace, comm, (1, 2), 3, *t_ns, event.name(), &mut text);
            }
            tracepoint::print(event, &mut text);
            text.push('\n');
        }
        let mut bytes = text.into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        holds_together(&bytes, None);
    }

    /// A ring of 256 entries, driven as KVM and a VMM drive it.
    #[test]
    fn a_ring_that_keeps_its_contract_has_no_defect_and_one_push_less_is_found(
        steps in prop::collection::vec((0..4_u32, 1..80_u32), 3..40),
        start in any::<u32>(),
        lost in any::<prop::sample::Index>(),
    ) {
        let check = CheckConfig { ring_entries: Some(256), ring_reserved: Some(64), page_size: Some(4096) };
        let (mut dirty, mut reset, mut page, mut t_ns) = (start, start, 0_u64, 0);
        let mut lines: Vec<(bool, String)> = Vec::new();
        let emit = |lines: &mut Vec<(bool, String)>, t_ns: &mut u64, event: Observed| {
            *t_ns += 50_000;
            let mut line = String::new();
            ftrace::print(ftrace::Form::Ftrace, "CPU 0/KVM", (7, 7), 0, *t_ns, event.name(), &mut line);
            tracepoint::print(&event, &mut line);
            lines.push((matches!(event, Observed::RingPush { .. }), line));
        };
        for (what, n) in steps {
            if what < 3 {
                for _ in 0..n {
                    if dirty.wrapping_sub(reset) >= 192 {
                        emit(&mut lines, &mut t_ns, Observed::RingExit { vcpu: 0 });
                        emit(&mut lines, &mut t_ns, Observed::UserspaceExit { reason: Some(31), errno: None });
                        break;
                    }
                    (dirty, page) = (dirty.wrapping_add(1), page + 1);
                    let used = dirty.wrapping_sub(reset);
                    emit(&mut lines, &mut t_ns, Observed::RingPush {
                        ring: 0, dirty_index: dirty, reset_index: reset, slot: 0, offset: page, used,
                    });
                }
            } else {
                reset = reset.wrapping_add(n.min(dirty.wrapping_sub(reset)));
                let used = dirty.wrapping_sub(reset);
                emit(&mut lines, &mut t_ns, Observed::RingReset { ring: 0, dirty_index: dirty, reset_index: reset, used });
            }
        }
        let text = |lines: &[(bool, String)]| {
            let mut text = Vec::new();
            for (_, line) in lines {
                writeln!(text, "{line}").unwrap();
            }
            text
        };
        let (summary, _) = import(&text(&lines), Some(LogKind::Ftrace), check).unwrap();
        prop_assert!(summary.check.findings.iter().all(|finding| finding.weight == Weight::Note), "{summary}");
        // The first push and the last have nothing to be compared with.
        let pushes: Vec<usize> = (0..lines.len()).filter(|n| lines[*n].0).collect();
        if pushes.len() >= 3 {
            lines.remove(pushes[1 + lost.index(pushes.len() - 2)]);
            let (summary, _) = import(&text(&lines), Some(LogKind::Ftrace), check).unwrap();
            prop_assert!(summary.check.has(Weight::Defect), "{summary}");
        }
    }
}
