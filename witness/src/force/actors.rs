//! Inside the machine: the actors, each on a processor of its own, which tell at each mark what they are about to do.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dirtysim_model::transition::Actor;
use dirtysim_model::words::constants::{
    CAP_DIRTY_LOG_RING_ACQ_REL, CAP_DIRTY_LOG_RING_WITH_BITMAP, CAP_MANUAL_DIRTY_LOG_PROTECT2,
};
use kvm_ioctls::Kvm;

use super::plan::{Action, Plan};
use super::{TELLS, WAITS, places};
use crate::kvm::guest::{self, Access, Program};
use crate::kvm::ring::{FLAG_DIRTY, FLAG_RESET, MapHow};
use crate::kvm::vm::Region;
use crate::kvm::{Errno, HostMemory, PAGE_BYTES, RingMap, Vcpu, Vm};
use crate::refusal::Refused;

/// Entries enough that no schedule of the model fills them.
const RING_BYTES: u64 = 4096;
/// Guest addresses between two slots' beginnings.
const SLOT_BYTES: u64 = 1 << 30;
/// What one vCPU's guest stores begins so far from what another's does.
const VALUES: u64 = 1000;
/// A number that no slot of the model has.
const OWN_SLOT: u32 = 100;

// The driver holds a processor at this instruction; x0 is what the actor says, and what it is answered.
core::arch::global_asm!(
    ".pushsection .text.dirtysim_force_mark, \"ax\", @progbits",
    ".balign 4",
    ".globl dirtysim_force_mark",
    "dirtysim_force_mark:",
    "   ret",
    ".popsection",
);

unsafe extern "C" {
    fn dirtysim_force_mark(number: u64) -> u64;
}

fn mark(number: u64) -> u64 {
    // SAFETY: an instruction that returns.
    unsafe { dirtysim_force_mark(number) }
}

/// Waits until the driver lets this thread go.
fn wait() {
    while mark(WAITS) != 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Keeps this thread on one processor.
fn stay_on(cpu: usize) -> Result<(), Refused> {
    // SAFETY: a set of processors that is zeroed, filled in and read within these calls.
    let answer = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &set)
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(Refused(format!(
            "there is no processor {cpu}: {}",
            Errno::last()
        )))
    }
}

/// What became of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Pages whose copy differs at the end, by name.
    pub lost: Vec<String>,
    /// The same in the model.
    pub lost_in_model: Vec<String>,
    /// What the kernel told that the model does not, or the other way round.
    pub differences: Vec<String>,
}

struct Shared<'a> {
    plan: &'a Plan,
    vm: Vm,
    memories: Vec<Arc<HostMemory>>,
    rings: Vec<RingMap>,
    fetch: Vec<AtomicU64>,
    pending: Mutex<Vec<bool>>,
    /// What GET has shown and no CLEAR has cleared, of each slot.
    seen: Mutex<Vec<Vec<u64>>>,
    copies: Mutex<Vec<Option<Box<[u64; 512]>>>>,
    lost: Mutex<Option<Vec<String>>>,
    differences: Mutex<Vec<String>>,
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Performs a plan, as far as the driver lets it. Where things are is told through `port`.
///
/// # Errors
/// The kernel refuses what this needs.
pub fn perform(kvm: &Kvm, plan: &Plan, port: &str) -> Result<Report, Refused> {
    let refused =
        |what: &'static str| move |errno: Errno| Refused(format!("{what} failed with {errno}"));
    let mut vm = Vm::new(kvm).map_err(refused("KVM_CREATE_VM"))?;
    for (wanted, cap, arg) in [
        (plan.ring, CAP_DIRTY_LOG_RING_ACQ_REL, RING_BYTES),
        (plan.ring_with_bitmap, CAP_DIRTY_LOG_RING_WITH_BITMAP, 0),
        (
            plan.manual_protect != 0,
            CAP_MANUAL_DIRTY_LOG_PROTECT2,
            plan.manual_protect,
        ),
    ] {
        if wanted {
            vm.enable_cap(cap, 0, arg)
                .map_err(refused("KVM_ENABLE_CAP"))?;
        }
    }
    let own = Arc::new(HostMemory::new(guest::OWN_PAGES).map_err(refused("mmap"))?);
    guest::install(&own, guest::OWN_GPA)?;
    let region = |slot, flags, gpa, pages: u64| Region {
        slot,
        flags,
        gpa,
        bytes: pages * PAGE_BYTES,
        offset: 0,
    };
    vm.set_memory(region(OWN_SLOT, 0, guest::OWN_GPA, guest::OWN_PAGES), &own)?
        .map_err(refused("KVM_SET_USER_MEMORY_REGION"))?;
    let mut memories = Vec::new();
    for (index, slot) in plan.slots.iter().enumerate() {
        let pages = u64::from(slot.pages);
        let memory = Arc::new(HostMemory::new(pages).map_err(refused("mmap"))?);
        memory.populate(0, pages * PAGE_BYTES)?;
        vm.set_memory(
            region(slot.number, u32::from(slot.logs), gpa(index), pages),
            &memory,
        )?
        .map_err(refused("KVM_SET_USER_MEMORY_REGION"))?;
        memories.push(memory);
    }
    let (mut vcpus, mut rings) = (Vec::new(), Vec::new());
    for (number, stores) in plan.vcpus.iter().enumerate() {
        let vcpu = vm
            .create_vcpu(number as u64)
            .map_err(refused("KVM_CREATE_VCPU"))?;
        guest::init_vcpu(kvm, &vm, &vcpu)?;
        let runs = stores.iter().map(|&page| (plan.gpa(page), 1)).collect();
        let first = 1 + number as u64 * VALUES;
        let access = Access::Count { first };
        guest::begin(&vcpu, &own, guest::OWN_GPA, &Program { access, runs })?;
        if plan.ring {
            rings.push(
                RingMap::map(vcpu.raw_fd(), MapHow::usual(RING_BYTES))
                    .map_err(refused("mmap of the ring"))?,
            );
        }
        vcpus.push(vcpu);
    }
    let shared = Shared {
        plan,
        vm,
        memories,
        fetch: rings.iter().map(|_| 0.into()).collect(),
        rings,
        pending: Mutex::new(vec![false; plan.pages.len()]),
        seen: Mutex::new(
            plan.slots
                .iter()
                .map(|slot| vec![0; slot.pages.div_ceil(64) as usize])
                .collect(),
        ),
        copies: Mutex::new(vec![None; plan.pages.len()]),
        lost: Mutex::new(None),
        differences: Mutex::new(Vec::new()),
    };
    std::thread::scope(|scope| {
        let mut actors = Vec::new();
        let mut vcpus = vcpus.into_iter();
        for (index, actor) in plan.actors().into_iter().enumerate() {
            let shared = &shared;
            let vcpu = match actor {
                Actor::Vcpu(_) => vcpus.next(),
                _ => None,
            };
            actors.push(scope.spawn(move || {
                stay_on(index + 1)?;
                wait();
                match (actor, vcpu) {
                    (Actor::Thread(thread), _) => shared.thread(usize::from(thread)),
                    (_, Some(vcpu)) => Ok(run(vcpu)),
                    _ => Ok(()),
                }
            }));
        }
        tell(port, plan)?;
        for actor in actors {
            actor
                .join()
                .unwrap_or_else(|_| Err(Refused::new("an actor's thread panicked")))?;
        }
        Ok(())
    })?;
    let lost = held(&shared.lost).take();
    let names = |pages: &[u32]| -> Vec<String> {
        let names = pages.iter().map(|&page| plan.pages[page as usize].clone());
        names.collect()
    };
    Ok(Report {
        lost: lost.ok_or_else(|| Refused::new("no thread came to its end"))?,
        lost_in_model: names(&plan.lost),
        differences: std::mem::take(&mut *held(&shared.differences)),
    })
}

fn gpa(slot: usize) -> u64 {
    guest::DATA_GPA + slot as u64 * SLOT_BYTES
}

impl Plan {
    /// The numbers of all pages.
    fn numbers(&self) -> impl Iterator<Item = u32> {
        let slots = self.slots.iter();
        slots.flat_map(|slot| slot.first..slot.first + slot.pages)
    }

    fn slot_of(&self, page: u32) -> usize {
        let slot = self
            .slots
            .iter()
            .position(|slot| (slot.first..slot.first + slot.pages).contains(&page));
        slot.expect("a page of a plan is one of its slots'")
    }

    fn gpa(&self, page: u32) -> u64 {
        let slot = self.slot_of(page);
        gpa(slot) + u64::from(page - self.slots[slot].first) * PAGE_BYTES
    }
}

/// A vCPU's only action.
fn run(mut vcpu: Vcpu) {
    mark(0);
    // It stays in the guest until that says that it is done.
    let _ = vcpu.run_until_signalled();
    mark(1);
}

/// Says where things are, and that the actors wait.
fn tell(port: &str, plan: &Plan) -> Result<(), Refused> {
    let cannot = |error: std::io::Error| Refused(format!("{port}: {error}"));
    let symbols = std::fs::read_to_string("/proc/kallsyms").map_err(cannot)?;
    let mut port = std::fs::File::options()
        .write(true)
        .open(port)
        .map_err(cannot)?;
    let mut lines = String::new();
    let mut line = |name: &str, value: u64| {
        lines.push_str(&format!("{TELLS} {name} {value:x}\n"));
    };
    for symbol in symbols.lines() {
        let mut words = symbol.split_whitespace();
        if let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next())
            && places::is_one(name)
            && let Ok(address) = u64::from_str_radix(address, 16)
        {
            line(name, address);
        }
    }
    let mark: unsafe extern "C" fn(u64) -> u64 = dirtysim_force_mark;
    line("mark", mark as usize as u64);
    let places = guest::places();
    line("guest", guest::OWN_GPA);
    line("store", guest::OWN_GPA + places.store);
    line("done", guest::OWN_GPA + places.done);
    line("actors", plan.actors().len() as u64);
    lines.push_str(&format!("{TELLS} ready\n"));
    port.write_all(lines.as_bytes()).map_err(cannot)
}

impl Shared<'_> {
    fn differs(&self, what: String) {
        held(&self.differences).push(what);
    }

    fn thread(&self, thread: usize) -> Result<(), Refused> {
        let program = &self.plan.threads[thread];
        for (number, action) in program.iter().enumerate() {
            mark(number as u64);
            self.act(action)
                .map_err(|Refused(problem)| Refused(format!("thread{thread}: {problem}")))?;
        }
        mark(program.len() as u64);
        Ok(())
    }

    /// A page that the kernel reports.
    fn reported(&self, slot: usize, offset: u64, keep: bool) {
        let slot = &self.plan.slots[slot];
        if offset >= slot.pages.into() {
            self.differs(format!("page {offset} of slot {} is reported", slot.number));
        } else if keep {
            held(&self.pending)[slot.first as usize + offset as usize] = true;
        }
    }

    fn act(&self, action: &Action) -> Result<(), Refused> {
        let failed = |call: &'static str| move |errno: Errno| Refused(format!("{call}: {errno}"));
        match *action {
            Action::SetLog { slot, on } => {
                let of = &self.plan.slots[slot];
                let region = Region {
                    slot: of.number,
                    flags: u32::from(on),
                    gpa: gpa(slot),
                    bytes: u64::from(of.pages) * PAGE_BYTES,
                    offset: 0,
                };
                self.vm
                    .set_log(region, &self.memories[slot])?
                    .map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
            }
            Action::Reset => {
                self.vm
                    .reset_dirty_rings()
                    .map_err(failed("KVM_RESET_DIRTY_RINGS"))?;
            }
            Action::Get { slot, keep } => {
                let (answer, log) = self.vm.get_dirty_log(self.plan.slots[slot].number, false);
                answer.map_err(failed("KVM_GET_DIRTY_LOG"))?;
                for (index, word) in log.words.iter().enumerate() {
                    held(&self.seen)[slot][index] |= word;
                    for bit in (0..64).filter(|bit| word >> bit & 1 == 1) {
                        self.reported(slot, index as u64 * 64 + bit, keep);
                    }
                }
            }
            Action::Clear { slot, all } => {
                let of = &self.plan.slots[slot];
                let mut words = held(&self.seen)[slot].clone();
                if all {
                    words.fill(u64::MAX);
                }
                self.vm
                    .clear_dirty_log(of.number, 0, of.pages, Some(&words))
                    .map_err(failed("KVM_CLEAR_DIRTY_LOG"))?;
                held(&self.seen)[slot].fill(0);
            }
            Action::Harvest { vcpu, max, keep } => {
                for (number, ring) in self.rings.iter().enumerate() {
                    if vcpu.is_none_or(|vcpu| usize::from(vcpu) == number) {
                        self.harvest(number, ring, max, keep);
                    }
                }
            }
            Action::TakeAll => {
                let mut pending = held(&self.pending);
                for page in self.plan.numbers() {
                    pending[page as usize] = true;
                }
            }
            Action::Forget => held(&self.pending).fill(false),
            Action::Copy(page) => {
                let name = &self.plan.pages[page as usize];
                if !std::mem::replace(&mut held(&self.pending)[page as usize], false) {
                    self.differs(format!(
                        "{name} is copied, which the kernel has not reported"
                    ));
                }
                let bytes = self.read(page)?;
                held(&self.copies)[page as usize] = Some(bytes);
            }
            Action::NothingLeft => {
                let pending = held(&self.pending).clone();
                for (page, _) in pending.iter().enumerate().filter(|(_, left)| **left) {
                    let name = &self.plan.pages[page];
                    self.differs(format!(
                        "{name} is reported by the kernel, and not by the model's"
                    ));
                }
            }
            Action::Finish => {
                let mut lost = Vec::new();
                for page in self.plan.numbers() {
                    let here = self.read(page)?;
                    if held(&self.copies)[page as usize].as_ref() != Some(&here) {
                        lost.push(self.plan.pages[page as usize].clone());
                    }
                }
                *held(&self.lost) = Some(lost);
            }
        }
        Ok(())
    }

    fn read(&self, page: u32) -> Result<Box<[u64; 512]>, Refused> {
        let slot = self.plan.slot_of(page);
        let offset = u64::from(page - self.plan.slots[slot].first) * PAGE_BYTES;
        self.memories[slot].read_page(offset)
    }

    fn harvest(&self, number: usize, ring: &RingMap, max: u32, keep: bool) {
        for _ in 0..max {
            let index = self.fetch[number].load(SeqCst) as u32;
            let entry = ring.read(index);
            if entry.flags & FLAG_RESET != 0 || entry.flags & FLAG_DIRTY == 0 {
                break;
            }
            let slot = self
                .plan
                .slots
                .iter()
                .position(|slot| slot.number == entry.slot);
            match slot {
                Some(slot) => self.reported(slot, entry.offset, keep),
                None => self.differs(format!("slot {} is reported", entry.slot)),
            }
            ring.write_flags(index, FLAG_RESET);
            self.fetch[number].store(u64::from(index) + 1, SeqCst);
        }
    }
}
