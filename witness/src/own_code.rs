//! Code that `dirtysim::kvm` tests under every schedule, on this machine's kernel: the same calls on `/dev/kvm`, with a guest that stores
//! on a thread of its own until it is paused.
//!
//! What the simulator has for every schedule this has for the one that happens; it shows that the code and the calls are those of a VMM.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use dirtysim::kvm::{self, Hypervisor, UserspaceMemoryRegion};
use kvm_ioctls::Kvm;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::kvm::guest::{self, Access, Program};
use crate::kvm::ring::{FLAG_DIRTY, FLAG_RESET, MapHow};
use crate::kvm::vcpu::EXIT_DIRTY_RING_FULL;
use crate::kvm::vm::Region;
use crate::kvm::{Alarm, Errno, HostMemory, PAGE_BYTES, RingMap, RunEnd, Sys, Vcpu, Vm};
use crate::refusal::Refused;

/// Where dirty pages are recorded.
pub use crate::live::Log;

const SLOT: u32 = 1;
const PAGES: u64 = 48;
const RING_BYTES: u64 = 4096;
/// Runs of pages in a program, and most pages of one: a thread looks whether it is to pause between two programs.
const RUNS: u64 = 8;
const RUN_PAGES: u64 = 8;
const RUN_LIMIT: Duration = Duration::from_secs(20);

/// What the guest's thread and the code's tell each other.
#[derive(Default)]
struct Shared {
    pause: AtomicBool,
    is_paused: AtomicBool,
    ends: AtomicBool,
    stores: AtomicU64,
}

/// A VM of one memslot and one vCPU, whose guest stores to pages at random.
pub struct RealVm {
    vm: RefCell<Vm>,
    data: Arc<HostMemory>,
    ring: Option<RingMap>,
    fetch: Cell<u32>,
    /// The destination.
    copy: RefCell<Vec<Box<[u64; 512]>>>,
    shared: Arc<Shared>,
    guest: Option<JoinHandle<Result<(), Refused>>>,
}

impl RealVm {
    /// A VM whose guest has begun to run.
    ///
    /// # Errors
    /// What this machine lacks.
    pub fn new(kvm: &Kvm, log: Log, seed: u64) -> Result<Self, Refused> {
        let refused =
            |what: &'static str| move |errno: Errno| Refused(format!("{what} failed with {errno}"));
        let mut vm = Vm::new(kvm).map_err(refused("KVM_CREATE_VM"))?;
        match log {
            Log::Ring => vm.enable_cap(223, 0, RING_BYTES),
            Log::Bitmap => vm.enable_cap(168, 0, 1),
        }
        .map_err(refused("KVM_ENABLE_CAP"))?;
        let own = Arc::new(HostMemory::new(guest::OWN_PAGES).map_err(refused("mmap"))?);
        let data = Arc::new(HostMemory::new(PAGES).map_err(refused("mmap"))?);
        guest::install(&own, guest::OWN_GPA)?;
        let region = |slot, gpa, pages| Region {
            slot,
            flags: 0,
            gpa,
            bytes: pages * PAGE_BYTES,
            offset: 0,
        };
        vm.set_memory(region(0, guest::OWN_GPA, guest::OWN_PAGES), &own)?
            .map_err(refused("KVM_SET_USER_MEMORY_REGION"))?;
        vm.set_memory(region(SLOT, guest::DATA_GPA, PAGES), &data)?
            .map_err(refused("KVM_SET_USER_MEMORY_REGION"))?;
        let vcpu = vm.create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
        guest::init_vcpu(kvm, &vm, &vcpu)?;
        let ring = match log {
            Log::Ring => {
                let map = RingMap::map(vcpu.raw_fd(), MapHow::usual(RING_BYTES));
                Some(map.map_err(refused("mmap of the ring"))?)
            }
            Log::Bitmap => None,
        };
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let guest = std::thread::spawn(move || run_guest(vcpu, &own, seed, &theirs));
        let mut vm = Self {
            vm: RefCell::new(vm),
            data,
            ring,
            fetch: Cell::new(0),
            copy: RefCell::new(vec![[0; 512].into(); PAGES as usize]),
            shared,
            guest: Some(guest),
        };
        while vm.stores() == 0 {
            if let Some(guest) = vm.guest.take_if(|guest| guest.is_finished()) {
                let ended = guest.join();
                return Err(match ended {
                    Ok(Err(refused)) => refused,
                    Ok(Ok(())) | Err(_) => Refused::new("the guest's thread ended by itself"),
                });
            }
            std::thread::yield_now();
        }
        Ok(vm)
    }

    /// Stores that the guest has made.
    #[must_use]
    pub fn stores(&self) -> u64 {
        self.shared.stores.load(SeqCst)
    }

    fn wait_until(&self, is_paused: bool) {
        let has_ended = || self.guest.as_ref().is_none_or(JoinHandle::is_finished);
        while self.shared.is_paused.load(SeqCst) != is_paused {
            assert!(!has_ended(), "the guest's thread ended by itself");
            std::thread::yield_now();
        }
    }
}

impl Drop for RealVm {
    fn drop(&mut self) {
        self.shared.ends.store(true, SeqCst);
        if let Some(guest) = self.guest.take() {
            // What it was refused is told where somebody waits for it.
            let _ = guest.join();
        }
    }
}

/// The guest's thread: program after program, until it is told to end.
fn run_guest(mut vcpu: Vcpu, own: &HostMemory, seed: u64, shared: &Shared) -> Result<(), Refused> {
    let alarm = Alarm::new().map_err(|errno| Refused(format!("no timer: {errno}")))?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut first = 1;
    while !shared.ends.load(SeqCst) {
        stand(shared);
        let runs = (0..RUNS)
            .map(|_| {
                let page = u64::from(random.next_u32()) % PAGES;
                let pages = 1 + u64::from(random.next_u32()) % RUN_PAGES;
                (guest::DATA_GPA + page * PAGE_BYTES, pages.min(PAGES - page))
            })
            .collect();
        let access = Access::Count { first };
        guest::begin(&vcpu, own, guest::OWN_GPA, &Program { access, runs })?;
        loop {
            let end = vcpu.run(&alarm, RUN_LIMIT);
            if guest::done(&mut vcpu, end) {
                break;
            }
            if end != RunEnd::Exit(EXIT_DIRTY_RING_FULL) {
                return Err(Refused(format!("the guest ended with {end:?}")));
            }
            // Whoever collects makes room.
            stand(shared);
            if shared.ends.load(SeqCst) {
                return Ok(());
            }
            std::thread::yield_now();
        }
        let stores = guest::retired(&vcpu)?;
        vcpu.complete_exit();
        first += stores;
        shared.stores.fetch_add(stores, SeqCst);
    }
    Ok(())
}

/// Stands while it is to pause.
fn stand(shared: &Shared) {
    while shared.pause.load(SeqCst) && !shared.ends.load(SeqCst) {
        shared.is_paused.store(true, SeqCst);
        std::thread::yield_now();
    }
    shared.is_paused.store(false, SeqCst);
}

fn answer<T>(answer: Sys<T>) -> kvm::Result<T> {
    answer.map_err(|errno| kvm::Errno::new(errno.0))
}

impl Hypervisor for RealVm {
    fn memory_regions(&self) -> Vec<UserspaceMemoryRegion> {
        vec![UserspaceMemoryRegion {
            slot: SLOT,
            flags: 0,
            guest_phys_addr: guest::DATA_GPA,
            memory_size: PAGES * PAGE_BYTES,
            userspace_addr: self.data.address(0),
        }]
    }

    fn page_size(&self) -> usize {
        PAGE_BYTES as usize
    }

    fn vcpu_count(&self) -> u8 {
        1
    }

    fn set_user_memory_region(&self, region: UserspaceMemoryRegion) -> kvm::Result<()> {
        let region = Region {
            slot: region.slot,
            flags: region.flags,
            gpa: region.guest_phys_addr,
            bytes: region.memory_size,
            offset: 0,
        };
        let set = self.vm.borrow_mut().set_memory(region, &self.data);
        answer(set.unwrap_or_else(|refused| panic!("{refused}"))).map(|_| ())
    }

    fn get_dirty_log(&self, slot: u32, memory_size: usize) -> kvm::Result<Vec<u64>> {
        let (got, log) = self.vm.borrow().get_dirty_log(slot, false);
        answer(got)?;
        let words = memory_size.div_ceil(PAGE_BYTES as usize).div_ceil(64);
        let mut bitmap = log.words;
        bitmap.resize(words, 0);
        Ok(bitmap)
    }

    fn clear_dirty_log(
        &self,
        slot: u32,
        first_page: u64,
        num_pages: u32,
        bitmap: &[u64],
    ) -> kvm::Result<()> {
        let buffer = bitmap.to_vec();
        let vm = self.vm.borrow();
        answer(vm.clear_dirty_log(slot, first_page, num_pages, Some(&buffer)))
    }

    fn reset_dirty_rings(&self) -> kvm::Result<i32> {
        answer(self.vm.borrow().reset_dirty_rings())
    }

    fn next_dirty_gfn(&self, _vcpu: u8) -> Option<(u32, u64)> {
        let ring = self.ring.as_ref()?;
        let entry = ring.read(self.fetch.get());
        if entry.flags != FLAG_DIRTY {
            return None;
        }
        ring.write_flags(self.fetch.get(), FLAG_RESET);
        self.fetch.set(self.fetch.get().wrapping_add(1));
        Some((entry.slot, entry.offset))
    }

    fn pause_vcpus(&self) {
        self.shared.pause.store(true, SeqCst);
        self.wait_until(true);
    }

    fn resume_vcpus(&self) {
        self.shared.pause.store(false, SeqCst);
        self.wait_until(false);
    }

    fn send_page(&self, slot: u32, offset: u64) {
        assert_eq!(
            slot, SLOT,
            "the code is about the one memslot that it was told of"
        );
        let page = self.data.read_page(offset * PAGE_BYTES);
        let page = page.unwrap_or_else(|refused| panic!("{refused}"));
        self.copy.borrow_mut()[offset as usize] = page;
    }

    fn assert_copy_is_whole(&self) {
        let copy = self.copy.borrow();
        let lost: Vec<u64> = (0..PAGES)
            .filter(|page| {
                let here = self.data.read_page(page * PAGE_BYTES);
                let here = here.unwrap_or_else(|refused| panic!("{refused}"));
                here != copy[*page as usize]
            })
            .collect();
        assert!(lost.is_empty(), "pages that were lost: {lost:?}");
    }
}
