//! Collecting while the guest runs: beyond lockstep, where only the end can be checked.
//!
//! A vCPU stores on a thread of its own while this one collects dirty pages and copies them, again and again; then the vCPU stops, the last
//! dirty pages are collected, and the destination must equal memory. Done in rounds of some hundred stores, so that many ends are checked.
//!
//! A right order loses nothing. A wrong one copies a page before it is armed again: a store between the two is recorded nowhere. That one is
//! caught is what shows that the check can fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvm_ioctls::Kvm;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::kvm::guest::{self, Access, Program};
use crate::kvm::ring::{FLAG_DIRTY, FLAG_RESET, MapHow};
use crate::kvm::vcpu::EXIT_DIRTY_RING_FULL;
use crate::kvm::vm::Region;
use crate::kvm::{Alarm, Errno, HostMemory, PAGE_BYTES, RingMap, RunEnd, Vcpu, Vm};
use crate::refusal::Refused;

/// Where dirty pages are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// The vCPU's ring.
    Ring,
    /// The slot's bitmap, with manual protect.
    Bitmap,
}

/// When a page is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// After it was armed again: RESET, or CLEAR, comes before the copy.
    Right,
    /// Before.
    Wrong,
}

/// What a run of this saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Ends that were checked.
    pub rounds: u64,
    /// Stores that retired.
    pub stores: u64,
    /// Collections while the guest ran or stood.
    pub passes: u64,
    /// Dirty pages collected.
    pub collected: u64,
    /// Times the ring was full.
    pub ring_full: u64,
    /// Pages that differed at an end.
    pub lost: u64,
}

/// Pages of the logged slot: few, so that each is stored to, collected and stored to again all the time.
const PAGES: u64 = 48;

/// Runs of pages in one round's program, and most pages of one run.
const ROUND_RUNS: u64 = 96;
const RUN_PAGES: u64 = 12;

/// What sending the copied pages takes: some of the time in which a round's stores are made.
const SENDING: Duration = Duration::from_micros(200);

const RING_BYTES: u64 = 4096;
const SLOT: u32 = 1;
const ROUND_LIMIT: Duration = Duration::from_secs(20);

/// What the two threads tell each other.
struct Shared {
    /// Rounds that the vCPU has begun, and ended. It runs while they differ.
    begun: AtomicU64,
    ended: AtomicU64,
    stop: AtomicBool,
    stores: AtomicU64,
    ring_full: AtomicU64,
}

/// Collects dirty pages of a guest that runs, for a time; ends early on the first lost page of a wrong order.
///
/// # Errors
/// The kernel refuses what this needs, or a guest hangs.
pub fn live(
    kvm: &Kvm,
    log: Log,
    order: Order,
    time: Duration,
    seed: u64,
) -> Result<Report, Refused> {
    let refused =
        |what: &'static str| move |errno: Errno| Refused(format!("{what} failed with {errno}"));
    let mut vm = Vm::new(kvm).map_err(refused("KVM_CREATE_VM"))?;
    match log {
        Log::Ring => vm.enable_cap(223, 0, RING_BYTES).map_err(|errno| {
            Refused(format!(
                "this kernel has no dirty ring: KVM_CAP_DIRTY_LOG_RING_ACQ_REL gives {errno}"
            ))
        })?,
        Log::Bitmap => vm.enable_cap(168, 0, 1).map_err(|errno| {
            Refused(format!(
                "this kernel has no manual protect: it gives {errno}"
            ))
        })?,
    };
    let own = Arc::new(HostMemory::new(guest::OWN_PAGES).map_err(refused("mmap"))?);
    let data = Arc::new(HostMemory::new(PAGES).map_err(refused("mmap"))?);
    guest::install(&own, guest::OWN_GPA)?;
    let region = |slot, flags, gpa, pages| Region {
        slot,
        flags,
        gpa,
        bytes: pages * PAGE_BYTES,
        offset: 0,
    };
    vm.set_memory(region(0, 0, guest::OWN_GPA, guest::OWN_PAGES), &own)?
        .map_err(refused("KVM_SET_USER_MEMORY_REGION"))?;
    vm.set_memory(region(SLOT, 1, guest::DATA_GPA, PAGES), &data)?
        .map_err(refused("KVM_SET_USER_MEMORY_REGION"))?;
    let vcpu = vm.create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
    guest::init_vcpu(kvm, &vm, &vcpu)?;
    let ring = match log {
        Log::Ring => Some(
            RingMap::map(vcpu.raw_fd(), MapHow::usual(RING_BYTES))
                .map_err(refused("mmap of the ring"))?,
        ),
        Log::Bitmap => None,
    };
    let shared = Shared {
        begun: 0.into(),
        ended: 0.into(),
        stop: false.into(),
        stores: 0.into(),
        ring_full: 0.into(),
    };
    let mut collector = Collector {
        vm: &vm,
        ring,
        fetch: 0,
        memory: &data,
        copy: vec![[0; 512].into(); PAGES as usize],
        order,
        report: Report::default(),
    };
    let (ran, guest_ran) = std::thread::scope(|scope| {
        let guest = scope.spawn(|| {
            let result = run_rounds(vcpu, &own, seed, &shared);
            // Whatever ended it, the collector must not wait for a round that will not come.
            shared.stop.store(true, Ordering::Release);
            shared
                .ended
                .store(shared.begun.load(Ordering::Acquire), Ordering::Release);
            result
        });
        let ran = collector.run(&shared, time);
        shared.stop.store(true, Ordering::Release);
        (
            ran,
            guest
                .join()
                .unwrap_or_else(|_| Err(Refused::new("the guest's thread panicked"))),
        )
    });
    guest_ran?;
    ran?;
    let mut report = collector.report;
    report.stores = shared.stores.load(Ordering::Relaxed);
    report.ring_full = shared.ring_full.load(Ordering::Relaxed);
    Ok(report)
}

/// The guest's thread: a round's program whenever the collector has begun one.
fn run_rounds(mut vcpu: Vcpu, own: &HostMemory, seed: u64, shared: &Shared) -> Result<(), Refused> {
    let alarm = Alarm::new().map_err(|errno| Refused(format!("no timer: {errno}")))?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut first = 1;
    let mut round = 0;
    loop {
        while shared.begun.load(Ordering::Acquire) == round {
            if shared.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            std::thread::yield_now();
        }
        round += 1;
        let runs = (0..ROUND_RUNS)
            .map(|_| {
                let page = u64::from(random.next_u32()) % PAGES;
                let pages = 1 + u64::from(random.next_u32()) % RUN_PAGES;
                (guest::DATA_GPA + page * PAGE_BYTES, pages.min(PAGES - page))
            })
            .collect();
        guest::begin(
            &vcpu,
            own,
            guest::OWN_GPA,
            &Program {
                access: Access::Count { first },
                runs,
            },
        )?;
        loop {
            let end = vcpu.run(&alarm, ROUND_LIMIT);
            if guest::done(&mut vcpu, end) {
                break;
            }
            match end {
                RunEnd::Exit(EXIT_DIRTY_RING_FULL) => {
                    shared.ring_full.fetch_add(1, Ordering::Relaxed);
                    // The collector makes room; until then the guest comes back at once.
                    std::thread::yield_now();
                    if shared.stop.load(Ordering::Acquire) {
                        return Ok(());
                    }
                }
                other => {
                    return Err(Refused(format!(
                        "the guest ended with {other:?} in round {round}"
                    )));
                }
            }
        }
        let stores = guest::retired(&vcpu)?;
        vcpu.complete_exit();
        first += stores;
        shared.stores.fetch_add(stores, Ordering::Relaxed);
        shared.ended.store(round, Ordering::Release);
    }
}

/// This thread: collects, copies, compares.
struct Collector<'a> {
    vm: &'a Vm,
    ring: Option<RingMap>,
    fetch: u32,
    memory: &'a HostMemory,
    /// The destination.
    copy: Vec<Box<[u64; 512]>>,
    order: Order,
    report: Report,
}

impl Collector<'_> {
    fn run(&mut self, shared: &Shared, time: Duration) -> Result<(), Refused> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let round = shared.begun.fetch_add(1, Ordering::AcqRel) + 1;
            while shared.ended.load(Ordering::Acquire) < round {
                self.pass()?;
            }
            if shared.stop.load(Ordering::Acquire) {
                break;
            }
            // The vCPU stands: one more collection has everything.
            self.pass()?;
            self.report.rounds += 1;
            self.compare()?;
            if self.order == Order::Wrong && self.report.lost > 0 {
                break;
            }
        }
        Ok(())
    }

    /// One collection: which pages are dirty, arming them again, copying them; the last two in the order that is tried.
    fn pass(&mut self) -> Result<(), Refused> {
        self.report.passes += 1;
        let (pages, words) = match &self.ring {
            Some(ring) => {
                let mut pages = Vec::new();
                loop {
                    let entry = ring.read(self.fetch);
                    if entry.flags != FLAG_DIRTY {
                        break;
                    }
                    if entry.slot != SLOT || entry.offset >= PAGES {
                        return Err(Refused(format!(
                            "the ring names page {} of slot {}, which the guest has not",
                            entry.offset, entry.slot
                        )));
                    }
                    pages.push(entry.offset);
                    ring.write_flags(self.fetch, FLAG_RESET);
                    self.fetch = self.fetch.wrapping_add(1);
                }
                (pages, Vec::new())
            }
            None => {
                let (result, log) = self.vm.get_dirty_log(SLOT, false);
                result
                    .map_err(|errno| Refused(format!("KVM_GET_DIRTY_LOG failed with {errno}")))?;
                let pages = (0..PAGES)
                    .filter(|page| log.words.first().is_some_and(|word| word >> page & 1 == 1))
                    .collect();
                (pages, log.words)
            }
        };
        self.report.collected += pages.len() as u64;
        if self.order == Order::Wrong {
            self.copy_pages(&pages)?;
            // Who copies first also sends first, and that takes a while.
            std::thread::sleep(SENDING);
        }
        match &self.ring {
            Some(_) => {
                let reset = self.vm.reset_dirty_rings().map_err(|errno| {
                    Refused(format!("KVM_RESET_DIRTY_RINGS failed with {errno}"))
                })?;
                if reset as usize != pages.len() {
                    return Err(Refused(format!(
                        "{} entries were harvested and {reset} reset",
                        pages.len()
                    )));
                }
            }
            None => self
                .vm
                .clear_dirty_log(SLOT, 0, PAGES as u32, Some(&words))
                .map_err(|errno| Refused(format!("KVM_CLEAR_DIRTY_LOG failed with {errno}")))?,
        }
        if self.order == Order::Right {
            self.copy_pages(&pages)?;
        }
        Ok(())
    }

    fn copy_pages(&mut self, pages: &[u64]) -> Result<(), Refused> {
        for page in pages {
            self.copy[*page as usize] = self.memory.read_page(page * PAGE_BYTES)?;
        }
        Ok(())
    }

    /// Counts pages whose destination differs, and makes them equal for the next round.
    fn compare(&mut self) -> Result<(), Refused> {
        for page in 0..PAGES {
            let here = self.memory.read_page(page * PAGE_BYTES)?;
            if here != self.copy[page as usize] {
                self.report.lost += 1;
                self.copy[page as usize] = here;
            }
        }
        Ok(())
    }
}

/// What the calls that write guest memory without a vCPU answer while a vCPU is in `KVM_RUN`, by name; `None` where one succeeded.
///
/// # Errors
/// The kernel refuses what this needs.
#[cfg(target_arch = "aarch64")]
pub fn writers_while_running(kvm: &Kvm) -> Result<Vec<(&'static str, Option<Errno>)>, Refused> {
    use crate::kvm::alarm;
    use crate::kvm::gic::{GicDevice, Kind};

    let refused =
        |what: &'static str| move |errno: Errno| Refused(format!("{what} failed with {errno}"));
    let mut vm = Vm::new(kvm).map_err(refused("KVM_CREATE_VM"))?;
    let own = Arc::new(HostMemory::new(guest::OWN_PAGES).map_err(refused("mmap"))?);
    guest::install(&own, guest::OWN_GPA)?;
    let region = Region {
        slot: 0,
        flags: 0,
        gpa: guest::OWN_GPA,
        bytes: guest::OWN_PAGES * PAGE_BYTES,
        offset: 0,
    };
    vm.set_memory(region, &own)?
        .map_err(refused("KVM_SET_USER_MEMORY_REGION"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
    guest::init_vcpu(kvm, &vm, &vcpu)?;
    let vgic =
        GicDevice::new(&vm, Kind::VgicV3).map_err(refused("KVM_CREATE_DEVICE of the vGICv3"))?;
    let its =
        GicDevice::new(&vm, Kind::VgicIts).map_err(refused("KVM_CREATE_DEVICE of the ITS"))?;
    for (device, group, attr, value) in [
        (&vgic, 0, 2, 0x0800_0000),
        (&vgic, 0, 5, 0x080a_0000 | 1 << 52),
        (&vgic, 4, 0, 0),
        (&its, 0, 4, 0x0808_0000),
        (&its, 4, 0, 0),
    ] {
        device
            .set(group, attr, value)
            .map_err(refused("KVM_SET_DEVICE_ATTR"))?;
    }
    guest::begin(
        &vcpu,
        &own,
        guest::OWN_GPA,
        &Program {
            access: Access::Spin,
            runs: vec![(guest::OWN_GPA, 1)],
        },
    )?;
    alarm::install_handler();
    let thread = std::sync::OnceLock::new();
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| {
            // SAFETY: the id of this thread, which outlives its use: it is joined below.
            let _ = thread.set(unsafe { libc::pthread_self() });
            vcpu.run_until_signalled()
        });
        // Long enough to be in the guest; should it not be, an answer says so, since nothing is busy.
        std::thread::sleep(Duration::from_millis(500));
        let answers = vec![
            ("KVM_DEV_ARM_ITS_SAVE_TABLES", its.save_tables().err()),
            ("KVM_DEV_ARM_ITS_RESTORE_TABLES", its.restore_tables().err()),
            (
                "KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES",
                vgic.save_pending_tables().err(),
            ),
        ];
        while !runner.is_finished() {
            if let Some(thread) = thread.get() {
                // SAFETY: the thread has not been joined; the signal's handler does nothing.
                unsafe { libc::pthread_kill(*thread, alarm::signal()) };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        match runner.join() {
            Ok(RunEnd::Errno(Errno(libc::EINTR))) => Ok(answers),
            Ok(other) => Err(Refused(format!("a guest that spins ended with {other:?}"))),
            Err(_) => Err(Refused::new("the guest's thread panicked")),
        }
    })
}
