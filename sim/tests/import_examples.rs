//! Every example log in `traces/import/` gives exactly the trace and the report that stand beside it in
//! `traces/import/expected/`. With `DIRTYSIM_BLESS=1` the expected files are written anew; their diff is to be
//! reviewed like code.

use std::fs;
use std::path::{Path, PathBuf};

use dirtysim::import::detect::LogKind;
use dirtysim::import::{LogOptions, import_log_files, import_logs};
use dirtysim::observed::{CheckConfig, Claim, check_rows};
use dirtysim::trace::observed::{Observed, ObservedEvent};
use dirtysim::trace::{Problem, TraceReader};

/// A ring of 512 entries with 64 in reserve, and pages of 4 KiB: what the defect logs were made for.
const RING_512: CheckConfig = CheckConfig {
    ring_entries: Some(512),
    ring_reserved: Some(64),
    page_size: Some(4096),
};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/import")
}

/// The logs' names are shown as they are given, so that results do not depend on where the repository is.
fn import(logs: &[&str], options: &LogOptions) -> (String, Option<Vec<u8>>) {
    let inputs = logs
        .iter()
        .map(|log| {
            (
                (*log).to_owned(),
                fs::File::open(directory().join(log)).expect(log),
            )
        })
        .collect();
    let mut trace = Vec::new();
    match import_logs(inputs, &mut trace, options) {
        Ok(summary) => {
            // The same as a document for `--json`; claims and reasons are keys there.
            let document = serde_json::to_value(&summary).unwrap();
            assert_eq!(document["check"]["compared"], summary.check.compared);
            assert_eq!(
                document["events"].as_object().unwrap().len(),
                summary.events.len()
            );
            // The trace says as much as the log did.
            let reader = TraceReader::new(trace.as_slice(), "trace").unwrap();
            let check = check_rows(reader.rows().unwrap(), options.check).unwrap();
            assert_eq!(check, summary.check);
            (summary.to_string(), Some(trace))
        }
        Err(error) => (format!("{error}\n"), None),
    }
}

fn compare(name: &str, logs: &[&str], options: &LogOptions) {
    let (report, trace) = import(logs, options);
    let expected = directory().join("expected");
    let report_path = expected.join(format!("{name}.txt"));
    let trace_path = expected.join(format!("{name}.jsonl"));
    dirtysim_expected::file(&report_path, report);
    let Some(trace) = trace else {
        dirtysim_expected::no_file(&trace_path);
        return;
    };
    dirtysim_expected::file(&trace_path, &trace);
    let trace = String::from_utf8(trace).unwrap();
    // What was written is a trace: it can be read again, and every row is the same.
    let reader = TraceReader::new(trace.as_bytes(), name).unwrap();
    let rows: Vec<_> = reader
        .rows::<ObservedEvent>()
        .unwrap()
        .map(|row| row.unwrap().row)
        .collect();
    let mut again = Vec::new();
    for row in &rows {
        row.write_line(&mut again).unwrap();
    }
    let (_, body) = trace.split_once('\n').unwrap();
    assert_eq!(String::from_utf8(again).unwrap(), body);
}

fn plain(name: &str) {
    compare(name, &[&format!("{name}.log")], &LogOptions::default());
}

fn defect(name: &str) {
    let name = format!("defect-{name}");
    let options = LogOptions {
        check: RING_512,
        ..LogOptions::default()
    };
    compare(&name, &[&format!("{name}.log")], &options);
}

#[test]
fn the_kernels_events_are_the_same_in_every_tools_form() {
    for name in ["ftrace", "ftrace-latency", "trace-cmd", "perf", "perf-pid"] {
        plain(name);
    }
    // What differs is the front: without it, the traces of the five forms are one.
    let events = |name: &str| -> Vec<_> {
        let (_, trace) = import(&[&format!("{name}.log")], &LogOptions::default());
        let trace = trace.expect(name);
        TraceReader::new(trace.as_slice(), name)
            .unwrap()
            .rows::<ObservedEvent>()
            .unwrap()
            .map(|row| row.unwrap().row.what)
            .filter(|what| what.name() != "thread")
            .collect()
    };
    let ftrace = events("ftrace");
    assert_eq!(ftrace.len(), 16);
    for name in ["ftrace-latency", "trace-cmd", "perf", "perf-pid"] {
        assert_eq!(events(name), ftrace, "{name}");
    }
}

#[test]
fn qemus_log_is_read_in_the_forms_of_its_versions() {
    for name in [
        "qemu-7.2-timestamp",
        "qemu-8.2",
        "qemu-10.2-timestamp",
        "qemu-program-name",
    ] {
        plain(name);
    }
}

/// An imported log: how many of its lines are damaged, and its events without their times.
fn events_of(log: &str) -> (u64, Vec<Observed>) {
    let input = fs::File::open(directory().join(log)).expect(log);
    let mut trace = Vec::new();
    let logs = vec![(log.to_owned(), input)];
    let summary = import_logs(logs, &mut trace, &LogOptions::default()).expect(log);
    let rows = TraceReader::new(trace.as_slice(), log)
        .unwrap()
        .rows::<ObservedEvent>()
        .unwrap();
    let events = rows.map(|row| row.unwrap().row.what).collect();
    (summary.logs[0].damaged_lines, events)
}

/// A memslot of `size` bytes at `gpa`.
fn memslot(slot: u32, flags: u64, gpa: u64, size: u64) -> Observed {
    Observed::QemuSetMemory {
        slot,
        flags,
        gpa,
        size,
        ret: 0,
    }
}

#[test]
fn a_memslot_with_fields_behind_its_result_is_read_and_its_line_may_be_indented() {
    plain("qemu-fields-behind-ret");
    let (damaged, events) = events_of("qemu-fields-behind-ret.log");
    assert_eq!(damaged, 0);
    let expected = [
        memslot(0, 4, 0, 0x8000_0000),
        memslot(1, 5, 0x1_0000_0000, 0x3_8000_0000),
        memslot(0, 0, 0, 0),
        Observed::QemuSyncStart,
        Observed::QemuSyncEnd { dirty_pages: 10 },
    ];
    assert_eq!(events, expected);
}

#[test]
fn qemus_times_may_be_nanoseconds() {
    plain("qemu-nanoseconds");
    let (damaged, events) = events_of("qemu-nanoseconds.log");
    assert_eq!(damaged, 0);
    let expected = [
        Observed::QemuSyncStart,
        Observed::QemuFlush { finished: false },
        Observed::QemuReapVcpu { cpu_index: 0 },
        Observed::QemuPage {
            cpu_index: 0,
            fetch: 0,
            offset: 0x20,
        },
        Observed::QemuReap { count: 1 },
        Observed::QemuFlush { finished: true },
        Observed::QemuSyncEnd { dirty_pages: 1 },
    ];
    assert_eq!(events, expected);
}

#[test]
fn a_log_that_was_quoted_and_broken_by_a_mail_is_read() {
    plain("mail-quoted");
    let (damaged, events) = events_of("mail-quoted.log");
    assert_eq!(damaged, 0);
    let expected = [
        memslot(3, 1, 0xfd00_0000, 0x100_0000),
        memslot(65_539, 1, 0xfd00_0000, 0x100_0000),
        Observed::QemuSyncStart,
        Observed::QemuSyncEnd { dirty_pages: 3 },
    ];
    assert_eq!(events, expected);
}

#[test]
fn logs_of_two_clocks_are_refused_with_both_ranges() {
    let kernel = fs::read_to_string(directory().join("ftrace.log")).unwrap();
    let qemu = fs::read_to_string(directory().join("qemu-7.2-timestamp.log")).unwrap();
    let merge = |qemu: &str| {
        let logs = vec![
            ("kernel.log".to_owned(), kernel.as_bytes()),
            ("qemu.log".to_owned(), qemu.as_bytes()),
        ];
        import_logs(logs, Vec::new(), &LogOptions::default())
    };
    let error = merge(&qemu).unwrap_err().to_string();
    assert_eq!(
        error.lines().next().unwrap_or_default(),
        "kernel.log: its events are from 101.000004 s to 101.000137 s, and those of qemu.log from 1767225600.100014 s \
         (2026-01-01T00:00:00.100014Z) to 1767225600.100263 s (2026-01-01T00:00:00.100263Z): the two have no moment in \
         common, so that nothing says which came first",
        "{error}"
    );
    for word in ["-C mono", "one by one", "`cat`"] {
        assert!(error.contains(word), "{error}");
    }
    // On the kernel's clock they are merged.
    let shifted = qemu.replace("@1767225600.100", "@101.000");
    assert_ne!(shifted, qemu);
    merge(&shifted).unwrap();
}

#[test]
fn the_kernel_and_qemu_in_one_buffer_check_each_other() {
    let options = LogOptions {
        check: RING_512,
        ..LogOptions::default()
    };
    compare("qemu-and-kernel", &["qemu-and-kernel.log"], &options);
}

#[test]
fn two_logs_on_one_clock_become_one_trace() {
    compare(
        "probes",
        &["probes-kernel.log", "probes-bpftrace.log"],
        &LogOptions::default(),
    );
}

#[test]
fn several_vms_have_to_be_chosen_from() {
    let of = |pid| LogOptions {
        pids: vec![pid],
        ..LogOptions::default()
    };
    plain("two-vms");
    compare("two-vms-pid-5000", &["two-vms.log"], &of(5000));
    compare("two-vms-pid-1", &["two-vms.log"], &of(1));
    plain("two-vms-threads-only");
    compare(
        "two-vms-threads-only-pid-4242",
        &["two-vms-threads-only.log"],
        &of(4242),
    );
}

#[test]
fn every_defect_is_found_where_it_is() {
    for name in [
        "index-jump",
        "used",
        "reset-past-dirty",
        "reset-goes-back",
        "overflow",
        "early-exit",
        "exit-swallowed",
        "late-exit",
        "over-report",
        "restarted",
        "reset-ahead",
        "outside-slot",
        "slot-not-logging",
        "harvest-skips",
        "harvest-not-pushed",
        "harvest-after-reset",
        "reap-count",
        "reset-count",
        "unread-entry",
        "harvest-not-reset",
        "reset-returns-other",
        "clear-range",
        "unpaired",
    ] {
        defect(name);
    }
    plain("defect-limits-disagree");
}

#[test]
fn a_log_that_is_damaged_is_read_as_far_as_it_can_be() {
    for name in [
        "bad-cut",
        "bad-interleaved",
        "bad-foreign",
        "bad-clock-step",
        "bad-lost-events",
        "bad-hostile-names",
    ] {
        plain(name);
    }
}

#[test]
fn a_file_that_is_no_log_is_refused_with_what_was_looked_for() {
    plain("bad-not-a-log");
    plain("bad-no-events");
    plain("bad-numbers");
    // Told what it is, import believes it, and finds nothing.
    let options = LogOptions {
        from: Some(LogKind::Qemu),
        ..LogOptions::default()
    };
    compare("bad-not-a-log-from-qemu", &["bad-not-a-log.log"], &options);
    let error = |bytes: &[u8]| {
        let logs = vec![("trace.dat".to_owned(), bytes)];
        import_logs(logs, Vec::new(), &LogOptions::default())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error(b"\x17\x08\x44tracing6\0"),
        "trace.dat: this is a trace.dat of trace-cmd, not a text that import reads\n\
         help: run `trace-cmd report trace.dat > log.txt` and give log.txt"
    );
    assert_eq!(
        error(b""),
        "trace.dat: the file is empty\nhelp: give a log with at least one event"
    );
}

#[test]
fn an_import_that_fails_leaves_nothing_on_disk() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out.jsonl");
    let log = directory().join("two-vms.log");
    import_log_files(std::slice::from_ref(&log), &out, &LogOptions::default()).unwrap_err();
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    fs::write(&out, "precious").unwrap();
    import_log_files(&[log], &out, &LogOptions::default()).unwrap_err();
    assert_eq!(fs::read_to_string(&out).unwrap(), "precious");
    let log = directory().join("ftrace.log");
    import_log_files(&[log], &out, &LogOptions::default()).unwrap();
    assert!(
        fs::read_to_string(&out)
            .unwrap()
            .starts_with("{\"format\":\"dirtysim-trace\"")
    );
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn an_import_that_is_killed_leaves_nothing_on_disk() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let place = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_dirtysim"))
        .args(["import", "/dev/stdin", "-o"])
        .arg(place.path().join("out.jsonl"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let log = fs::read(directory().join("ftrace.log")).unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // Far more than a pipe holds: when all is written, most of it has been read.
    for _ in 0..1_000 {
        pipe.write_all(&log).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn logs_without_times_cannot_be_merged() {
    let inputs = ["qemu-8.2.log", "ftrace.log"]
        .map(|log| {
            (
                log.to_owned(),
                fs::File::open(directory().join(log)).unwrap(),
            )
        })
        .into_iter()
        .collect();
    let error = import_logs(inputs, Vec::new(), &LogOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("qemu-8.2.log:1: this event has no time"),
        "{error}"
    );
}

#[test]
fn a_row_with_a_key_that_says_nothing_is_refused() {
    let text = "{\"format\":\"dirtysim-trace\",\"version\":1,\"kind\":\"observed\"}\n\
                {\"line\":1,\"event\":\"kvm_dirty_ring_exit\",\"vcpu\":0,\"slot\":1}\n";
    let reader = TraceReader::new(text.as_bytes(), "t").unwrap();
    let mut rows = reader.rows::<ObservedEvent>().unwrap();
    let error = rows.next().unwrap().unwrap_err();
    assert_eq!(error.line, 2);
    assert!(matches!(error.problem, Problem::Row(_)), "{error}");
}

fn document(name: &str) -> String {
    fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../docs")
            .join(name),
    )
    .unwrap()
}

#[test]
fn the_documents_name_every_claim_and_every_event() {
    let reports = document("bug-reports.md");
    for (_, name) in Claim::ALL {
        assert!(reports.contains(&format!("`{name}`")), "{name}");
    }
    let format = document("trace-format.md");
    for name in Observed::NAMES.iter().chain(&["gap"]) {
        assert!(format.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn what_the_bpftrace_script_prints_is_read() {
    let script = document("dirty-log.bt");
    let mut formats = 0;
    for text in script.split("printf(\"").skip(1) {
        let format = text
            .split_once("\\n\"")
            .expect("a format ends with a line feed")
            .0;
        // Every conversion becomes a number of its kind; the first four are the front's.
        let mut line = format
            .replace("%16s", "       CPU 0/KVM")
            .replace("%-7d", "4242   ")
            .replace("(%7d)", "(   4000)")
            .replace("[%03d]", "[003]")
            .replace("%5llu.%06llu", "  101.000001");
        for (conversion, value) in [("%llu", "64"), ("%llx", "2a"), ("%u", "3"), ("%d", "-14")] {
            line = line.replace(conversion, value);
        }
        assert!(!line.contains('%'), "{line}");
        let log = format!("{line}\n");
        let logs = vec![("probes".to_owned(), log.as_bytes())];
        let summary = import_logs(logs, Vec::new(), &LogOptions::default()).expect(&line);
        assert_eq!(summary.events.values().sum::<u64>(), 1, "{line}: {summary}");
        assert_eq!(summary.logs[0].damaged_lines, 0, "{line}");
        formats += 1;
    }
    assert_eq!(formats, 8);
}
