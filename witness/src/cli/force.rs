//! `dirtysim-witness force` inside the emulated machine, and `hold` outside it.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use dirtysim::trace::TraceReader;
use dirtysim::trace::step::StepRow;
use serde_json::{Map, Value, json};

use super::Outcome;
use super::args::Args;
use crate::force::gdb::{Ask, LENGTH_BASE, serve};
use crate::force::{PROCESSORS, Report, address_of, force};
use crate::kernel::Kernel;
use crate::kvm::{self, sys};
use crate::refusal::Refused;

/// What precedes the address on the console.
const DOORBELL: &str = "doorbell 0x";

/// How long the machine waits for the other side to be there, and that one for the machine.
const MEETING: Duration = Duration::from_secs(4);
const BOOT: Duration = Duration::from_secs(180);

pub(super) fn force_command(arguments: &[String]) -> Result<Outcome, Refused> {
    let args = Args::parse(arguments, &["--json"], &[], usize::MAX)?;
    drop(Kernel::open()?);
    let kvm = kvm::open()?;
    let doorbell = address_of(&["__x64_sys_sethostname"])?;
    println!("{DOORBELL}{doorbell:x}");
    let _ = std::io::stdout().flush();
    std::thread::sleep(MEETING);
    let mut results = Vec::new();
    let mut lines = Vec::new();
    let mut as_expected = true;
    for name in args.positionals("a trace, as in `force TRACE`")? {
        let forced = one(&kvm, name);
        let (line, row, expected) = match forced {
            Ok(report) => told(name, &report),
            Err(Refused(why)) => (
                format!("{name}: not forced: {why}"),
                json!({"trace": name, "not_forced": why}),
                true,
            ),
        };
        as_expected &= expected;
        lines.push(line);
        results.push(row);
    }
    sys::tell(0, LENGTH_BASE + Ask::End as u64, &AtomicU32::new(0));
    let mut document = Map::new();
    document.insert("command".into(), "force".into());
    document.insert("as_expected".into(), as_expected.into());
    document.insert("results".into(), results.into());
    Ok(Outcome {
        document,
        text: lines.join("\n"),
        code: u8::from(!as_expected),
    })
}

fn one(kvm: &kvm_ioctls::Kvm, name: &str) -> Result<Report, Refused> {
    let problem = |error: &dyn std::fmt::Display| Refused(error.to_string());
    let reader = TraceReader::open(Path::new(name)).map_err(|error| problem(&error))?;
    let header = reader.header().clone();
    let rows: Vec<StepRow> = reader
        .rows::<StepRow>()
        .map_err(|error| problem(&error))?
        .map(|row| row.map(|row| row.row).map_err(|error| problem(&error)))
        .collect::<Result<_, _>>()?;
    force(kvm, &header, &rows)
}

fn told(name: &str, report: &Report) -> (String, Value, bool) {
    let as_told = report.lost == report.expected;
    let holds = if report.holds.is_empty() {
        "nothing was held".to_owned()
    } else {
        format!("held {}", report.holds.join(", "))
    };
    let mut line = format!(
        "{name}: {} at try {}: {holds}; pages lost: {:?}, by the schedule {:?}",
        if as_told { "seen" } else { "NOT seen" },
        report.attempts,
        report.lost,
        report.expected,
    );
    for (why, count) in &report.otherwise {
        line.push_str(&format!("; {count} times {why}"));
    }
    let row = json!({
        "trace": name, "seen": as_told, "attempts": report.attempts, "holds": report.holds, "lost": report.lost,
        "expected": report.expected, "otherwise": report.otherwise,
    });
    (line, row, as_told)
}

pub(super) fn hold_command(arguments: &[String]) -> Result<Outcome, Refused> {
    let args = Args::parse(arguments, &["--json"], &[], 2)?;
    let names = args.positionals("a socket and a console's file, as in `hold SOCKET CONSOLE`")?;
    let [socket, console] = names else {
        return Err(Refused::new("give a socket and a console's file"));
    };
    let end = Instant::now() + BOOT;
    let doorbell = loop {
        let text = std::fs::read(console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let found = text.lines().find_map(|line| {
            let (_, address) = line.split_once(DOORBELL)?;
            u64::from_str_radix(address.trim(), 16).ok()
        });
        if let Some(address) = found {
            break address;
        }
        if Instant::now() > end {
            return Err(Refused::new("the machine does not say where to stop it"));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let holds = serve(socket, doorbell, PROCESSORS)?;
    let mut document = Map::new();
    document.insert("command".into(), "hold".into());
    document.insert("holds".into(), holds.into());
    Ok(Outcome {
        document,
        text: format!("a processor was held {holds} times"),
        code: 0,
    })
}
