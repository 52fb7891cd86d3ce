//! What a run of code is to be: the machine, the seeds, the limits.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use crate::machine::Machine;
use crate::names::{plain_name, test_name};
use crate::tree::{MOST_OPS, PATIENCE};

/// Runs code against a machine, with limits of one's own; [`check`](crate::check) and [`run`](crate::run) are this with the usual ones.
///
/// ```
/// use dirtysim_kvm::{Arch, Checker, FailureKind, Machine, Vm};
///
/// let machine = Machine::new(Arch::X86).slot(0, 1);
/// let failure = Checker::new(machine)
///     .run(|vm: Vm| {
///         let region = vm.memory_region(0);
///         vm.set_user_memory_region(region.log_dirty_pages()).unwrap();
///         vm.send_all_pages();
///         // Nobody asked for what was stored meanwhile.
///         vm.pause_vcpus();
///         vm.assert_copy_is_whole();
///     })
///     .unwrap_err();
/// assert_eq!(*failure.kind(), FailureKind::Broken { claim: "no_dirty_page_lost" });
/// assert_eq!(failure.pages(), ["slot0:0"]);
/// println!("{failure}");
/// ```
#[derive(Debug, Clone)]
pub struct Checker {
    pub(crate) machine: Machine,
    pub(crate) name: String,
    pub(crate) seeds: Range<u64>,
    pub(crate) max_time: Duration,
    pub(crate) max_states: Option<u64>,
    pub(crate) max_memory_bytes: u64,
    pub(crate) max_calls: Option<u32>,
    pub(crate) patience: Duration,
    /// Histories that are remembered.
    pub(crate) most_histories: u16,
    pub(crate) traces: Option<PathBuf>,
    pub(crate) on_the_way: bool,
    /// How its schedule is run again, where no trace is kept.
    pub(crate) again: String,
}

impl Checker {
    /// For a machine: seeds 0 to 10,000, and for a search 60 seconds and 1 GiB. No trace is kept.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        let name = test_name().or_else(|| machine.name().map(plain_name));
        Self {
            name: name.unwrap_or_else(|| "code-under-test".to_owned()),
            machine,
            seeds: 0..10_000,
            max_time: Duration::from_secs(60),
            max_states: None,
            max_memory_bytes: 1 << 30,
            max_calls: None,
            patience: PATIENCE,
            most_histories: MOST_OPS,
            traces: None,
            on_the_way: false,
            again: "Failure::write_trace keeps it, Checker::replay runs it".to_owned(),
        }
    }

    /// What a story says of how to run its schedule again, where no trace is kept.
    #[must_use]
    pub fn run_again_by(mut self, words: &str) -> Self {
        self.again = words.to_owned();
        self
    }

    /// The name in what is told, in place of the test's.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = plain_name(name);
        self
    }

    /// The seeds that are tried, the end excluded.
    #[must_use]
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// The time after which a search is given up, or seeds are.
    #[must_use]
    pub fn max_time(mut self, time: Duration) -> Self {
        self.max_time = time;
        self
    }

    /// The states after which a search is given up.
    #[must_use]
    pub fn max_states(mut self, states: u64) -> Self {
        self.max_states = Some(states);
        self
    }

    /// The bytes after which a search is given up.
    #[must_use]
    pub fn max_memory_bytes(mut self, bytes: u64) -> Self {
        self.max_memory_bytes = bytes;
        self
    }

    /// The calls of one run after which the code is taken to go round for ever: 5,000, and in a search 500.
    #[must_use]
    pub fn max_calls(mut self, calls: u32) -> Self {
        self.max_calls = Some(calls);
        self
    }

    /// How long the code may go on without a call: 10 seconds.
    #[must_use]
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }

    /// Judges every state on the way too, and not the end alone: each page that differs at the destination is in a record of the kernel, or
    /// is owed one, or the code was given it and has not sent it; and what no record has is armed. Before a page is sent first, it counts
    /// as still to be sent. So a page that is lost is seen where it is lost, also by code that would send all of memory again.
    ///
    /// What the code knows by itself, as a page that it sends at the end whatever the kernel says, is not known here: such code breaks these
    /// claims and is right. They are not judged where the code stores to guest memory by itself ([`Vm::store_page`](crate::Vm::store_page)) or has several
    /// threads, since it holds then what it was never given; the [`Report`](crate::Report) says so.
    ///
    /// ```
    /// use dirtysim_kvm::{Arch, Checker, FailureKind, Machine, Vm};
    ///
    /// let failure = Checker::new(Machine::new(Arch::X86).slot(0, 1))
    ///     .claims_on_the_way()
    ///     .check(|vm: Vm| {
    ///         vm.send_all_pages();
    ///         // What was stored before this is in no record.
    ///         let region = vm.memory_region(0).log_dirty_pages();
    ///         vm.set_user_memory_region(region).unwrap();
    ///         vm.pause_vcpus();
    ///         // That mends it, at the price of a second copy.
    ///         vm.send_all_pages();
    ///         vm.assert_copy_is_whole();
    ///     })
    ///     .unwrap_err();
    /// let claim = "stale_page_is_accounted_for";
    /// assert_eq!(*failure.kind(), FailureKind::Broken { claim });
    /// ```
    #[must_use]
    pub fn claims_on_the_way(mut self) -> Self {
        self.on_the_way = true;
        self
    }

    /// Keeps the trace of a failure in this folder, by the name of the test, and tries what is kept there first.
    #[must_use]
    pub fn keep_traces_in(mut self, folder: impl Into<PathBuf>) -> Self {
        self.traces = Some(folder.into());
        self
    }

    /// Where the trace of a failure is kept, if it is.
    pub(crate) fn kept(&self) -> Option<PathBuf> {
        let folder = self.traces.as_ref()?;
        Some(folder.join(format!("{}.jsonl", self.name)))
    }
}
