//! The three functions for tests, and what they take from around them: the environment, the test's name, the package's folder.

use std::fmt;
use std::ops::Range;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dirtysim_evidence::trace::TraceReader;

use crate::checker::Checker;
use crate::failure::Failure;
use crate::machine::Machine;
use crate::names::test_name;
use crate::report::{Outcome, Report};
use crate::vm::Vm;

/// Runs code under every schedule of the machine, within the bounds of its guest. Where a limit comes first, under 10,000
/// schedules of seeds, and a line says so.
///
/// `DIRTYSIM_SEEDS=50000` or `DIRTYSIM_SEEDS=0..50000` sets the seeds, `DIRTYSIM_MAX_TIME=300` the seconds that a search, or the seeds, may
/// take, `DIRTYSIM_TRACE=…` replays that trace alone, in the test whose it is.
///
/// # Panics
/// With the story of the schedule under which the code fails. Its trace is kept in `dirtysim-traces/` beside the package's
/// `Cargo.toml`, by the name of the test, and tried first next time.
///
/// ```
/// use dirtysim_kvm::{Arch, Machine, Vm, check};
///
/// let machine = Machine::new(Arch::X86).slot(0, 1).stores(1);
/// check(machine, |vm: Vm| {
///     let region = vm.memory_region(0);
///     vm.set_user_memory_region(region.log_dirty_pages())?;
///     vm.send_all_pages();
///     vm.pause_vcpus();
///     let bitmap = vm.get_dirty_log(0, region.memory_size as usize)?;
///     if bitmap[0] & 1 != 0 {
///         vm.send_page(0, 0);
///     }
///     vm.assert_copy_is_whole();
///     Ok::<(), dirtysim_kvm::Errno>(())
/// });
/// ```
#[track_caller]
pub fn check<R: Outcome + 'static>(
    machine: Machine,
    code: impl Fn(Vm) -> R + Send + Sync + 'static,
) {
    let checker = in_a_test(machine, Location::caller());
    conclude(match trace_of(&checker) {
        Some(trace) => checker.replay(trace, code),
        None => checker.check(code),
    });
}

/// Runs code under the schedules of seeds, by a mix of schedulers. The environment is as for [`check`].
///
/// # Panics
/// As [`check`].
///
/// ```
/// use dirtysim_kvm::{Arch, Machine, Vm, run};
///
/// let machine = Machine::new(Arch::Arm64).slot(0, 2).ring(4).stores(2);
/// run(machine, 0..100, |vm: Vm| {
///     let region = vm.memory_region(0).log_dirty_pages();
///     vm.set_user_memory_region(region).unwrap();
///     vm.send_all_pages();
///     vm.pause_vcpus();
///     for (slot, offset) in vm.vcpu(0).dirty_log_ring_iter().unwrap() {
///         vm.send_page(slot, offset);
///     }
///     vm.assert_copy_is_whole();
/// });
/// ```
#[track_caller]
pub fn run<R: Outcome + 'static>(
    machine: Machine,
    seeds: Range<u64>,
    code: impl Fn(Vm) -> R + Send + Sync + 'static,
) {
    let mut checker = in_a_test(machine, Location::caller());
    if std::env::var_os("DIRTYSIM_SEEDS").is_none() {
        checker.seeds = seeds;
    }
    conclude(match trace_of(&checker) {
        Some(trace) => checker.replay(trace, code),
        None => checker.run(code),
    });
}

/// Runs code under the schedule of a trace that a failure left.
///
/// # Panics
/// As [`check`]; and where the trace cannot be read.
#[track_caller]
pub fn replay<R: Outcome + 'static>(
    machine: Machine,
    trace: impl AsRef<Path>,
    code: impl Fn(Vm) -> R + Send + Sync + 'static,
) {
    let mut checker = in_a_test(machine, Location::caller());
    checker.traces = None;
    conclude(checker.replay(trace, code));
}

#[track_caller]
fn conclude(done: Result<Report, Box<Failure>>) {
    match done {
        Ok(report) => println!("{report}"),
        Err(failure) => panic!("{failure}"),
    }
}

/// As the environment has it, with traces kept beside the package's `Cargo.toml`.
fn in_a_test(machine: Machine, place: &Location<'_>) -> Checker {
    let checker = Checker::from_environment(machine);
    let mut checker = checker.unwrap_or_else(|wrong| panic!("{wrong}"));
    if test_name().is_none() {
        let file = Path::new(place.file()).file_stem().unwrap_or_default();
        checker = checker.name(&file.to_string_lossy());
    }
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    checker.keep_traces_in(package.unwrap_or_default().join("dirtysim-traces"))
}

/// The trace that the environment names, if it is this test's.
fn trace_of(checker: &Checker) -> Option<PathBuf> {
    let trace = PathBuf::from(std::env::var_os("DIRTYSIM_TRACE")?);
    match TraceReader::open(&trace) {
        Ok(reader) if reader.header().title.as_deref() != Some(&checker.name) => None,
        // Replaying says what is wrong with it.
        Ok(_) | Err(_) => Some(trace),
    }
}

fn read_seeds(text: &str) -> Option<Range<u64>> {
    match text.split_once("..") {
        Some((from, to)) => Some(from.trim().parse().ok()?..to.trim().parse().ok()?),
        None => Some(0..text.trim().parse().ok()?),
    }
}

fn read_time(text: &str) -> Option<Duration> {
    let seconds: f64 = text.trim().trim_end_matches('s').parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A variable of the environment that cannot be read: what is wrong, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentError(String);

impl fmt::Display for EnvironmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EnvironmentError {}

impl Checker {
    /// The same, with the seeds of `DIRTYSIM_SEEDS` and the time of `DIRTYSIM_MAX_TIME`.
    ///
    /// # Errors
    /// What is wrong with one of these, and what to write.
    pub fn from_environment(machine: Machine) -> Result<Self, EnvironmentError> {
        let mut checker = Self::new(machine);
        if let Ok(seeds) = std::env::var("DIRTYSIM_SEEDS") {
            checker.seeds = read_seeds(&seeds).ok_or_else(|| {
                let help = "write a number, or a range as 0..50000";
                EnvironmentError(format!("DIRTYSIM_SEEDS={seeds}: {help}"))
            })?;
        }
        if let Ok(time) = std::env::var("DIRTYSIM_MAX_TIME") {
            checker.max_time = read_time(&time).ok_or_else(|| {
                let help = "write seconds, as 300";
                EnvironmentError(format!("DIRTYSIM_MAX_TIME={time}: {help}"))
            })?;
        }
        Ok(checker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_times_are_read_as_they_are_written() {
        assert_eq!(read_seeds("500"), Some(0..500));
        assert_eq!(read_seeds("7..9"), Some(7..9));
        assert_eq!(read_seeds("many"), None);
        assert_eq!(read_time("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(read_time("30s"), Some(Duration::from_secs(30)));
        assert_eq!(read_time("-1"), None);
    }
}
