//! A child process measured: how long it took, and the most memory it had.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a child came to.
#[derive(Clone, Debug)]
pub struct Measured {
    /// From before it was started until it had ended, set-up included.
    pub wall: Duration,
    /// Seconds of processor time, of all threads, user and system; to a hundredth.
    pub cpu: f64,
    /// The most resident memory, in bytes, as the kernel counted it (`VmHWM`).
    pub peak_bytes: u64,
    /// What it printed.
    pub printed: String,
}

/// How often the child's memory and times are read. The kernel keeps maximum and sum, so only what came in the last
/// interval before the end can be missed.
const INTERVAL: Duration = Duration::from_millis(5);

/// Runs a child to its end. Reading its memory costs one file every few milliseconds.
///
/// # Errors
/// The child, and how it failed.
pub fn measure(command: &mut Command) -> Result<Measured, String> {
    let begin = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let status_file = format!("/proc/{}/status", child.id());
    let times_file = format!("/proc/{}/stat", child.id());
    let mut peak_bytes = 0;
    let mut cpu = 0.0;
    let status = loop {
        if let Ok(text) = std::fs::read_to_string(&status_file) {
            peak_bytes = peak_bytes.max(high_water_mark(&text).unwrap_or(0));
        }
        if let Ok(text) = std::fs::read_to_string(&times_file) {
            cpu = processor_seconds(&text).unwrap_or(cpu);
        }
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => std::thread::sleep(INTERVAL),
            Err(error) => return Err(format!("{command:?}: {error}")),
        }
    };
    let wall = begin.elapsed();
    // What the children here print fits a pipe's buffer many times over.
    let mut printed = String::new();
    if let Some(mut output) = child.stdout.take() {
        output
            .read_to_string(&mut printed)
            .map_err(|error| format!("{command:?}: {error}"))?;
    }
    if !status.success() {
        return Err(format!("{command:?}: {status}\n{printed}"));
    }
    Ok(Measured {
        wall,
        cpu,
        peak_bytes,
        printed,
    })
}

/// `VmHWM` of a process's status, in bytes.
fn high_water_mark(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Processor time of a process's `stat`: fields 14 and 15, in ticks, of which Linux shows user space 100 a second.
fn processor_seconds(stat: &str) -> Option<f64> {
    // The name in parentheses may have spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11);
    let user: f64 = ticks.next()?.parse().ok()?;
    let system: f64 = ticks.next()?.parse().ok()?;
    Some((user + system) / 100.0)
}
