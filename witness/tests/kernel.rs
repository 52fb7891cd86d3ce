//! This machine's kernel, or a printed reason why it is not asked.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};

use dirtysim::kvm::{Arch as SimulatedArch, Checker, Errno, Hypervisor, Machine};
use dirtysim::trace::call::{Call, CallRow};
use dirtysim::trace::call_result::CallResult;
use dirtysim::trace::{Arch, Cap, TraceReader};
use dirtysim_witness::kernel::{Kernel, arch, with_own_layout};
use dirtysim_witness::lockstep::{End, random_sequence};
use dirtysim_witness::model::Model;
use dirtysim_witness::own_code::{Log, RealVm};
use dirtysim_witness::subject::{Answer, Subject, VmCall};

/// The kernel, unless this machine has none that runs guests.
fn kernel() -> Option<Kernel> {
    match Kernel::open() {
        Ok(kernel) => Some(kernel),
        Err(reason) => {
            eprintln!("skipped: {reason}");
            None
        }
    }
}

/// The recordings of this architecture.
fn recordings() -> Vec<PathBuf> {
    let names: &[&str] = match arch() {
        Arch::Arm64 => &[
            "arm64-linux-6.12.117",
            "arm64-linux-6.12.117.edges",
            "arm64-linux-6.12.117.outcomes",
            "arm64-linux-6.12.117.random",
        ],
        _ => &[
            "x86-linux-6.18.44",
            "x86-linux-6.18.44.edges",
            "x86-linux-6.18.44.outcomes",
            "x86-linux-6.18.44.random",
        ],
    };
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/kernel");
    names
        .iter()
        .map(|name| directory.join(format!("{name}.trace.jsonl")))
        .collect()
}

/// Whether this kernel keeps no entries of a ring in reserve for PML, as on the machines of the recordings: the smallest ring tells.
fn rings_as_recorded(kernel: &mut Kernel) -> bool {
    let smallest = Call::EnableCap {
        cap: Cap::DirtyLogRingAcqRel,
        flags: 0,
        args0: 4096,
    };
    kernel.begin_section();
    kernel.perform(Some(0), &Call::CreateVm {}).expect("a VM");
    let result = kernel
        .perform(Some(0), &smallest)
        .and_then(Answer::result)
        .expect("an answer");
    kernel.begin_section();
    result == CallResult::returned(0)
}

/// Answers that depend on the kernel's version, not on dirty logging: what an executable mapping is refused with, and whether a capability
/// is there at all.
fn depends_on_version(call: &Call) -> bool {
    use dirtysim::trace::call::Prot;
    matches!(
        call,
        Call::CheckExtension { .. }
            | Call::MmapRing {
                prot: Prot::Rx | Prot::Rwx,
                ..
            }
    )
}

#[test]
fn this_kernel_answers_the_stored_recordings_as_the_recorded_one_did() {
    let Some(mut kernel) = kernel() else { return };
    if !rings_as_recorded(&mut kernel) {
        eprintln!(
            "skipped: this machine has PML, or no ring; the recordings are from machines with a ring and without PML"
        );
        return;
    }
    for recording in recordings() {
        let shown = recording.display();
        let rows = TraceReader::open(&recording)
            .expect("a stored recording")
            .rows::<CallRow>()
            .expect("calls");
        let mut compared = 0;
        for located in rows {
            let located = located.expect("a row");
            match located.row {
                CallRow::Section(_) => kernel.begin_section(),
                CallRow::Unknown(unknown) => panic!("{}", unknown.unknown),
                CallRow::Call(row) => {
                    let call = with_own_layout(&VmCall {
                        vm: row.vm,
                        call: row.call,
                    });
                    let result = kernel
                        .perform(call.vm, &call.call)
                        .and_then(Answer::result)
                        .unwrap_or_else(|refused| panic!("{shown}:{}: {refused}", located.line));
                    if !depends_on_version(&call.call) {
                        assert_eq!(
                            result.differences(&row.result),
                            [],
                            "{shown}:{}: {call}",
                            located.line
                        );
                        compared += 1;
                    }
                }
            }
        }
        assert!(
            compared > 100,
            "{shown}: a whole recording was compared, not {compared} calls"
        );
    }
}

#[test]
fn random_calls_give_the_same_results_twice() {
    let (Some(mut once), Some(mut again)) = (kernel(), kernel()) else {
        return;
    };
    let target = once.target();
    for seed in 0..40 {
        let performed = random_sequence(&mut once, &mut again, target, seed, 50)
            .unwrap_or_else(|refused| panic!("seed {seed}: {refused}"));
        assert_eq!(performed.end, End::Agreed, "seed {seed}");
        assert!(performed.calls.len() > 50, "a set-up and 50 calls");
    }
}

#[test]
fn the_model_answers_random_calls_as_this_kernel_does() {
    let Some(mut kernel) = kernel() else { return };
    if !rings_as_recorded(&mut kernel) {
        eprintln!(
            "skipped: this machine has PML, or no ring; lockstep was only ever done without PML"
        );
        return;
    }
    let mut model = Model::new(&kernel.describe()).expect("a machine that the model knows");
    let target = kernel.target();
    for seed in 0..100 {
        let performed = random_sequence(&mut kernel, &mut model, target, seed, 50)
            .unwrap_or_else(|refused| panic!("seed {seed}: {refused}"));
        assert_eq!(performed.end, End::Agreed, "seed {seed}");
    }
}

#[test]
fn a_wrong_order_loses_a_page_while_the_guest_runs_and_the_right_one_does_not() {
    use dirtysim_witness::kvm;
    use dirtysim_witness::live::{Log, Order, live};
    use std::time::Duration;

    if kernel().is_none() {
        return;
    }
    let kvm = kvm::open().expect("it opened before");
    for log in [Log::Ring, Log::Bitmap] {
        let right =
            live(&kvm, log, Order::Right, Duration::from_secs(1), 1).expect("the guest runs");
        assert!(
            right.rounds > 0 && right.collected > 0,
            "{log:?}: something was checked: {right:?}"
        );
        assert_eq!(right.lost, 0, "{log:?}: {right:?}");
        // As long as it takes on a machine that is busy with other things.
        let wrong =
            live(&kvm, log, Order::Wrong, Duration::from_secs(20), 1).expect("the guest runs");
        assert!(
            wrong.lost > 0,
            "{log:?}: a page copied before it is armed again is lost in the end: {wrong:?}"
        );
    }
}

#[test]
fn a_guest_that_never_ends_is_interrupted_at_its_limit() {
    use dirtysim_witness::kvm::guest::{self, Access, Program};
    use dirtysim_witness::kvm::vm::Region;
    use dirtysim_witness::kvm::{self, Alarm, Errno, HostMemory, PAGE_BYTES, RunEnd, Vm};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    if kernel().is_none() {
        return;
    }
    let kvm = kvm::open().expect("it opened before");
    let mut vm = Vm::new(&kvm).expect("a VM");
    let own = Arc::new(HostMemory::new(guest::OWN_PAGES).expect("memory"));
    guest::install(&own, guest::OWN_GPA).expect("the guest's code fits");
    let bytes = guest::OWN_PAGES * PAGE_BYTES;
    let region = Region {
        slot: 0,
        flags: 0,
        gpa: guest::OWN_GPA,
        bytes,
        offset: 0,
    };
    vm.set_memory(region, &own)
        .expect("within memory")
        .expect("a slot");
    let mut vcpu = vm.create_vcpu(0).expect("a vCPU");
    guest::init_vcpu(&kvm, &vm, &vcpu).expect("ready");
    let program = Program {
        access: Access::Spin,
        runs: vec![(guest::OWN_GPA, 1)],
    };
    guest::begin(&vcpu, &own, guest::OWN_GPA, &program).expect("a program");
    let alarm = Alarm::new().expect("a timer");
    let start = Instant::now();
    assert_eq!(
        vcpu.run(&alarm, Duration::from_millis(50)),
        RunEnd::Errno(Errno(libc::EINTR))
    );
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "soon after 50 ms, not {:?}",
        start.elapsed()
    );
}

/// A migration as a VMM has it, which knows no kernel and no simulator.
fn migrate<H: Hypervisor>(vm: &H, rounds: usize, copies_first: bool) -> Result<(), Errno> {
    let collect = || -> Result<Vec<(u32, u64)>, Errno> {
        let mut pages = Vec::new();
        for vcpu in 0..vm.vcpu_count() {
            while let Some(page) = vm.next_dirty_gfn(vcpu) {
                pages.push(page);
            }
        }
        Ok(pages)
    };
    let send = |pages: Vec<(u32, u64)>| {
        for (slot, page) in pages {
            vm.send_page(slot, page);
        }
    };
    for region in vm.memory_regions() {
        vm.set_user_memory_region(region.log_dirty_pages())?;
    }
    vm.send_all_pages();
    for _ in 0..rounds {
        let pages = collect()?;
        if copies_first {
            send(pages);
            vm.reset_dirty_rings()?;
        } else {
            vm.reset_dirty_rings()?;
            send(pages);
        }
    }
    vm.pause_vcpus();
    // A full ring keeps its vCPU out until it is reset, and nothing is stored meanwhile.
    send(collect()?);
    vm.reset_dirty_rings()?;
    send(collect()?);
    vm.assert_copy_is_whole();
    Ok(())
}

#[test]
fn the_same_code_of_a_vmm_runs_on_this_kernel_and_under_every_schedule_of_the_simulated_one() {
    let machine = || {
        Machine::new(SimulatedArch::X86)
            .slot(1, 1)
            .ring(4)
            .stores(2)
    };
    let report = Checker::new(machine()).check(|vm| migrate(&vm, 1, false));
    let report = report.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(report.exhaustive, "{report}");
    let failure = Checker::new(machine()).check(|vm| migrate(&vm, 1, true));
    assert_eq!(failure.unwrap_err().pages(), ["slot1:0"]);
    if kernel().is_none() {
        return;
    }
    let kvm = dirtysim_witness::kvm::open().expect("it was opened before");
    let mut stores = 0;
    for seed in 0..8 {
        let vm = match RealVm::new(&kvm, Log::Ring, seed) {
            Ok(vm) => vm,
            Err(reason) => {
                eprintln!("skipped: {reason}");
                return;
            }
        };
        let before = vm.stores();
        migrate(&vm, 2_000, false).expect("the kernel takes every call");
        stores += vm.stores() - before;
    }
    assert!(stores > 0, "the guest stored while it was migrated");
}
