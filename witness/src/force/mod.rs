//! A schedule of the model made to happen on a real kernel: what is held where the schedule interrupts it, and what is lost in the end.
//!
//! Every order within an ioctl that the model explores rests on reading. Here some are seen: a thread's ioctl is stopped at a function's
//! entry by QEMU's gdb stub (`gdb`), on a machine whose other processors run on; meanwhile the guest stores and user space copies as the
//! schedule has it. The machine has three processors: the ioctl that is held is on the first, the guest on the second, all else on the
//! third. In the end the copy and memory are compared, and what differs is what the schedule says, or is not.
//!
//! A stale TLB entry, which some schedules need, is gone when the processor leaves the guest for any reason, and an emulated one leaves it at
//! every tick of its clock. So each schedule is tried again until it was seen, and how often it was not is told.

pub mod gdb;
pub mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use dirtysim::trace::Header;
use dirtysim::trace::step::StepRow;
use kvm_ioctls::Kvm;

use crate::kvm::guest::{self, Orders};
use crate::kvm::ring::{FLAG_DIRTY, FLAG_RESET, MapHow};
use crate::kvm::sys::{stay_on, tell};
use crate::kvm::vm::Region;
use crate::kvm::{Alarm, Errno, HostMemory, PAGE_BYTES, RingMap, Vcpu, Vm};
use crate::refusal::Refused;
use gdb::{Ask, LENGTH_BASE};
use plan::{Hold, Ioctl, Move, Plan};

/// The processors of the machine.
pub const PROCESSORS: u32 = 3;
const HELD_ON: usize = 0;
const GUEST_ON: usize = 1;
const REST_ON: usize = 2;

const SLOT: u32 = 1;
const RING_BYTES: u64 = 4096;
/// How long a move may take, and how often a schedule is tried.
const PATIENCE: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 60;
const GUEST_LIMIT: Duration = Duration::from_secs(60);

/// What came of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Tries, the last of which is the one that is told of.
    pub attempts: u32,
    /// Places at which an ioctl was held in the last.
    pub holds: Vec<String>,
    /// Pages whose copy differs in the end.
    pub lost: Vec<u64>,
    /// Pages that the schedule loses.
    pub expected: Vec<u64>,
    /// Why the others did not go as the schedule does, and how often.
    pub otherwise: BTreeMap<String, u32>,
}

/// What a scenario's machine has that matters here.
#[derive(Clone, Copy, Debug)]
struct Set {
    ring: bool,
    manual: bool,
    logs_at_first: bool,
    pages: u64,
}

impl Set {
    fn of(header: &Header) -> Result<Self, Refused> {
        let scenario = header
            .scenario
            .as_ref()
            .ok_or_else(|| Refused::new("a trace without a scenario"))?;
        let machine = &scenario["machine"];
        let slots = scenario["slots"].as_array();
        if machine["vcpus"].as_u64() != Some(1) || slots.is_some_and(|slots| slots.len() != 1) {
            return Err(Refused::new(
                "a schedule that is forced has one vCPU and one memslot",
            ));
        }
        let slot = slots.and_then(|slots| slots.first());
        let pages = slot
            .and_then(|slot| slot["pages"].as_u64())
            .or_else(|| machine["pages"].as_u64());
        Ok(Self {
            ring: machine.get("ring").is_some(),
            manual: machine["manual_protect"].as_bool() == Some(true),
            logs_at_first: slot.is_some_and(|slot| slot["logging"].as_bool() == Some(true)),
            pages: pages.unwrap_or(1),
        })
    }
}

/// Tells the other side something.
fn doorbell(address: u64, ask: Ask, word: &AtomicU32) {
    tell(address, LENGTH_BASE + ask as u64, word);
}

/// Where a function of the kernel begins.
///
/// # Errors
/// There is no such function, or addresses are not told.
pub fn address_of(functions: &[&str]) -> Result<u64, Refused> {
    let symbols = std::fs::read_to_string("/proc/kallsyms")
        .map_err(|error| Refused(format!("/proc/kallsyms: {error}")))?;
    for function in functions {
        let address = symbols.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let (address, _, name) = (words.next()?, words.next()?, words.next()?);
            (name == *function).then(|| u64::from_str_radix(address, 16).ok())?
        });
        if let Some(address) = address.filter(|address| *address != 0) {
            return Ok(address);
        }
    }
    Err(Refused(format!(
        "this kernel has no function {}",
        functions.join(" or ")
    )))
}

/// Forces a schedule until it was seen to go as it says, or for a number of tries.
///
/// # Errors
/// The schedule cannot be forced, or the kernel refuses what it needs.
pub fn force(kvm: &Kvm, header: &Header, rows: &[StepRow]) -> Result<Report, Refused> {
    let set = Set::of(header)?;
    let plan = plan::plan(rows)?;
    let mut otherwise = BTreeMap::new();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let tried = attempt(kvm, set, &plan)?;
        let as_told = tried.strayed.is_none() && tried.lost == plan.lost;
        if as_told || attempts == ATTEMPTS {
            return Ok(Report {
                attempts,
                holds: tried.holds,
                lost: tried.lost,
                expected: plan.lost,
                otherwise,
            });
        }
        let why = tried
            .strayed
            .unwrap_or_else(|| "the end differs".to_owned());
        *otherwise.entry(why).or_default() += 1;
    }
}

/// One try.
struct Tried {
    holds: Vec<String>,
    lost: Vec<u64>,
    /// The first move that did not go as the schedule has it.
    strayed: Option<String>,
}

/// What the thread of the ioctl that is held shares with the one that has it held.
struct Shared {
    /// The other side writes 1 when it holds the thread.
    held: AtomicU32,
    returned: AtomicBool,
    problem: std::sync::Mutex<Option<Errno>>,
}

fn attempt(kvm: &Kvm, set: Set, plan: &Plan) -> Result<Tried, Refused> {
    let refused =
        |what: &'static str| move |errno: Errno| Refused(format!("{what} failed with {errno}"));
    let mut vm = Vm::new(kvm).map_err(refused("KVM_CREATE_VM"))?;
    if set.ring {
        vm.enable_cap(192, 0, RING_BYTES)
            .map_err(refused("KVM_CAP_DIRTY_LOG_RING"))?;
    }
    if set.manual {
        vm.enable_cap(168, 0, 1)
            .map_err(refused("KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2"))?;
    }
    let own = Arc::new(HostMemory::new(guest::OWN_PAGES).map_err(refused("mmap"))?);
    let data = Arc::new(HostMemory::new(set.pages).map_err(refused("mmap"))?);
    data.populate(0, set.pages * PAGE_BYTES)?;
    guest::install(&own, guest::OWN_GPA)?;
    let region = |slot, flags, gpa, pages| Region {
        slot,
        flags,
        gpa,
        bytes: pages * PAGE_BYTES,
        offset: 0,
    };
    let logged = |flags| region(SLOT, flags, guest::DATA_GPA, set.pages);
    let created = vm.set_memory(region(0, 0, guest::OWN_GPA, guest::OWN_PAGES), &own)?;
    created.map_err(refused("KVM_SET_USER_MEMORY_REGION"))?;
    let created = vm.set_memory(logged(u32::from(set.logs_at_first)), &data)?;
    created.map_err(refused("KVM_SET_USER_MEMORY_REGION"))?;
    let vcpu = vm.create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
    guest::init_vcpu(kvm, &vm, &vcpu)?;
    let ring = if set.ring {
        let map = RingMap::map(vcpu.raw_fd(), MapHow::usual(RING_BYTES));
        Some(map.map_err(refused("mmap of the ring"))?)
    } else {
        None
    };
    let orders = Orders::new(Arc::clone(&own))?;
    guest::begin(&vcpu, &own, guest::OWN_GPA, &Orders::program())?;
    let shared = Shared {
        held: AtomicU32::new(0),
        returned: AtomicBool::new(true),
        problem: std::sync::Mutex::new(None),
    };
    let left = AtomicBool::new(false);
    let (calls, queue) = channel();
    stay_on(REST_ON).map_err(refused("sched_setaffinity"))?;
    let ioctls = Ioctls {
        vm: &vm,
        manual: set.manual,
        pages: set.pages,
    };
    std::thread::scope(|scope| {
        let helper = scope.spawn(|| ioctls.serve(queue, &shared));
        let runner = scope.spawn(|| run_guest(vcpu, &left));
        let mut actor = Actor {
            ioctls: &ioctls,
            ring,
            fetch: 0,
            data: &data,
            copy: vec![0; set.pages as usize],
            orders,
            value: 0,
            shared: &shared,
            calls,
            left: &left,
            holds: Vec::new(),
            strayed: None,
        };
        let mut result = Ok(());
        for act in &plan.moves {
            result = actor.make(act);
            if result.is_err() {
                break;
            }
        }
        // Whatever came of it, nobody stays behind.
        doorbell(0, Ask::Release, &shared.held);
        let ended = actor.end();
        let Actor {
            holds,
            strayed,
            copy,
            calls,
            ..
        } = actor;
        drop(calls);
        let served = helper.join();
        let ran = runner.join();
        result?;
        ended?;
        if served.is_err() || !matches!(ran, Ok(Ok(()))) {
            return Err(Refused(format!("a thread ended otherwise: {ran:?}")));
        }
        let mut lost = Vec::new();
        for (page, copied) in copy.iter().enumerate() {
            if data.read_u64(page as u64 * PAGE_BYTES)? != *copied {
                lost.push(page as u64);
            }
        }
        Ok(Tried {
            holds,
            lost,
            strayed,
        })
    })
}

/// The guest's thread.
fn run_guest(mut vcpu: Vcpu, left: &AtomicBool) -> Result<(), Refused> {
    stay_on(GUEST_ON).map_err(|errno| Refused(format!("sched_setaffinity: {errno}")))?;
    let alarm = Alarm::new().map_err(|errno| Refused(format!("no timer: {errno}")))?;
    let end = vcpu.run(&alarm, GUEST_LIMIT);
    left.store(true, Ordering::Release);
    if guest::done(&mut vcpu, end) {
        Ok(())
    } else {
        Err(Refused(format!("the guest ended with {end:?}")))
    }
}

/// The ioctls of a VM, called by one thread or another.
struct Ioctls<'a> {
    vm: &'a Vm,
    manual: bool,
    pages: u64,
}

impl Ioctls<'_> {
    fn call(&self, ioctl: Ioctl) -> Result<(), Errno> {
        match ioctl {
            Ioctl::Reset => self.vm.reset_dirty_rings().map(|_| ()),
            Ioctl::Get => self.vm.get_dirty_log(SLOT, false).0,
            Ioctl::Clear => {
                let words = vec![u64::MAX; self.pages.div_ceil(64) as usize];
                let bits = if self.manual { Some(&words[..]) } else { None };
                self.vm.clear_dirty_log(SLOT, 0, self.pages as u32, bits)
            }
            Ioctl::LogOn => unreachable!("a plan with it is refused"),
        }
    }

    /// Calls what it is told, on the processor where things are held.
    fn serve(&self, queue: Receiver<Ioctl>, shared: &Shared) {
        let _ = stay_on(HELD_ON);
        for ioctl in queue {
            let result = self.call(ioctl);
            *shared.problem.lock().expect("nobody panics with it") = result.err();
            shared.returned.store(true, Ordering::Release);
        }
    }
}

/// The thread that has all of it done.
struct Actor<'a> {
    ioctls: &'a Ioctls<'a>,
    ring: Option<RingMap>,
    fetch: u32,
    data: &'a HostMemory,
    copy: Vec<u64>,
    orders: Orders,
    value: u64,
    shared: &'a Shared,
    calls: Sender<Ioctl>,
    left: &'a AtomicBool,
    holds: Vec<String>,
    strayed: Option<String>,
}

/// Waits for something; whether it came.
fn wait(mut come: impl FnMut() -> Result<bool, Refused>) -> Result<bool, Refused> {
    let end = Instant::now() + PATIENCE;
    while !come()? {
        if Instant::now() > end {
            return Ok(false);
        }
        std::hint::spin_loop();
    }
    Ok(true)
}

impl Actor<'_> {
    fn make(&mut self, act: &Move) -> Result<(), Refused> {
        match act {
            Move::Store { page, faults } => self.store(*page, *faults),
            Move::Begin {
                ioctl: Ioctl::LogOn,
                ..
            } => Err(Refused::new(
                "this schedule switches the log on while it runs; let its memslot log from the beginning",
            )),
            Move::Begin {
                ioctl, hold: None, ..
            } => {
                let result = self.ioctls.call(*ioctl);
                result.map_err(|errno| Refused(format!("{ioctl:?} failed with {errno}")))
            }
            Move::Begin {
                ioctl,
                hold: Some(hold),
                ..
            } => {
                self.ask_for(*hold)?;
                self.shared.returned.store(false, Ordering::Release);
                self.calls
                    .send(*ioctl)
                    .map_err(|_| Refused::new("the ioctls' thread is gone"))?;
                self.wait_for(Some(*hold))
            }
            Move::GoOn { hold } => {
                if let Some(hold) = hold {
                    self.ask_for(*hold)?;
                }
                doorbell(0, Ask::Release, &self.shared.held);
                self.wait_for(*hold)
            }
            Move::Harvest => {
                let ring = self
                    .ring
                    .as_ref()
                    .ok_or_else(|| Refused::new("a harvest without a ring"))?;
                if ring.read(self.fetch).flags == FLAG_DIRTY {
                    ring.write_flags(self.fetch, FLAG_RESET);
                    self.fetch = self.fetch.wrapping_add(1);
                } else {
                    self.stray("there is no entry to harvest");
                }
                Ok(())
            }
            Move::Copy(page) => {
                self.copy[*page as usize] = self.data.read_u64(page * PAGE_BYTES)?;
                Ok(())
            }
            Move::Pause => self.pause(),
        }
    }

    fn stray(&mut self, what: &str) {
        self.strayed.get_or_insert_with(|| what.to_owned());
    }

    /// Entries that the ring has beyond those that were harvested.
    fn entries(&self) -> u32 {
        let Some(ring) = &self.ring else { return 0 };
        (0..ring.entries())
            .take_while(|at| ring.read(self.fetch.wrapping_add(*at)).flags == FLAG_DIRTY)
            .count() as u32
    }

    fn store(&mut self, page: u64, faults: bool) -> Result<(), Refused> {
        let before = self.entries();
        self.value += 1;
        self.orders
            .give(guest::DATA_GPA + page * PAGE_BYTES, self.value)?;
        if !wait(|| self.orders.done())? {
            return Err(Refused::new("the guest does not store"));
        }
        let recorded = self.entries() != before;
        if self.ring.is_some() && recorded != faults {
            self.stray(if recorded {
                "a store was recorded whose leaf, or TLB entry, should have let it through"
            } else {
                "a store was not recorded that should have been"
            });
        }
        Ok(())
    }

    fn ask_for(&mut self, hold: Hold) -> Result<(), Refused> {
        self.shared.held.store(0, Ordering::Release);
        doorbell(address_of(hold.functions)?, Ask::Hold, &self.shared.held);
        Ok(())
    }

    /// Waits until the ioctl is held, or has returned where it is not to be.
    fn wait_for(&mut self, hold: Option<Hold>) -> Result<(), Refused> {
        let shared = self.shared;
        let is_held = || shared.held.load(Ordering::Acquire) == 1;
        let has_returned = || shared.returned.load(Ordering::Acquire);
        if !wait(|| Ok(has_returned() || (hold.is_some() && is_held())))? {
            return Err(Refused::new("an ioctl neither returns nor is held"));
        }
        match hold {
            Some(hold) if is_held() => self.holds.push(format!(
                "before {}, at {}()",
                hold.before, hold.functions[0]
            )),
            Some(hold) => self.stray(&format!(
                "an ioctl returned that was to be held before {}",
                hold.before
            )),
            None => {}
        }
        let problem = *shared.problem.lock().expect("nobody panics with it");
        problem.map_or(Ok(()), |errno| {
            Err(Refused(format!("an ioctl failed with {errno}")))
        })
    }

    fn pause(&mut self) -> Result<(), Refused> {
        if !self.left.load(Ordering::Acquire) {
            self.orders.give(0, 0)?;
            if !wait(|| Ok(self.left.load(Ordering::Acquire)))? {
                return Err(Refused::new("the guest does not leave"));
            }
        }
        Ok(())
    }

    /// Lets the guest go and waits for what was called.
    fn end(&mut self) -> Result<(), Refused> {
        wait(|| Ok(self.shared.returned.load(Ordering::Acquire)))?;
        self.pause()
    }
}
