//! What is told of code that is not as it has to be, and traces that are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use dirtysim_kvm::{Arch, Checker, Errno, Failure, FailureKind, Machine, OnTheWay, Vm};

fn machine() -> Machine {
    Machine::new(Arch::X86).slot(0, 2)
}

fn log(vm: &Vm) -> Result<(), Errno> {
    vm.set_user_memory_region(vm.memory_region(0).log_dirty_pages())
}

fn get(vm: &Vm) -> Result<u64, Errno> {
    let bytes = vm.memory_region(0).memory_size as usize;
    Ok(vm.get_dirty_log(0, bytes)?[0])
}

/// Both ways find it, and the search tells it with or without seeds before it.
fn fails(
    code: impl Fn(Vm) -> Result<(), Errno> + Clone + Send + Sync + 'static,
) -> [Box<Failure>; 2] {
    let checker = Checker::new(machine()).patience(Duration::from_millis(200));
    let by_seeds = checker.run(code.clone()).unwrap_err();
    let by_search = checker.seeds(0..0).check(code).unwrap_err();
    [by_seeds, by_search]
}

#[test]
fn code_that_does_not_do_the_same_twice_is_told_with_both_calls_and_their_places() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    for failure in fails(|vm| {
        log(&vm)?;
        if RUNS.fetch_add(1, Relaxed).is_multiple_of(2) {
            vm.send_page(0, 0);
        } else {
            vm.send_page(0, 1);
        }
        get(&vm)?;
        vm.pause_vcpus();
        get(&vm)?;
        vm.assert_copy_is_whole();
        Ok(())
    }) {
        let FailureKind::NotDeterministic { first, again } = failure.kind() else {
            panic!("{failure}");
        };
        let both = format!("{first}; {again}");
        for words in ["send_page(0, 0) at ", "send_page(0, 1) at ", "troubles.rs:"] {
            assert!(both.contains(words), "{both}");
        }
    }
}

#[test]
fn code_that_depends_on_more_than_it_says_is_told_with_both_calls() {
    for failure in fails(|vm| {
        log(&vm)?;
        vm.send_all_pages();
        let first = get(&vm)?;
        (0..2)
            .filter(|page| first >> page & 1 != 0)
            .for_each(|page| vm.send_page(0, page));
        // It says nothing of `first`, and goes by it later.
        vm.depends_only_on(&());
        vm.pause_vcpus();
        get(&vm)?;
        vm.send_page(0, u64::from(first == 0));
        vm.send_page(0, u64::from(first != 0));
        vm.assert_copy_is_whole();
        Ok(())
    }) {
        let FailureKind::DependsOnMore {
            place,
            first,
            again,
        } = failure.kind()
        else {
            panic!("{failure}");
        };
        assert!(place.contains("troubles.rs:"), "{place}");
        let both = format!("{first}; {again}");
        for words in ["send_page(0, 0) at ", "send_page(0, 1) at "] {
            assert!(both.contains(words), "{both}");
        }
    }
}

#[test]
fn the_claims_on_the_way_see_a_page_that_is_lost_and_mended() {
    let code = |late: bool| {
        move |vm: Vm| {
            if late {
                vm.send_all_pages();
                log(&vm)?;
            } else {
                log(&vm)?;
                vm.send_all_pages();
            }
            let dirty = get(&vm)?;
            (0..2)
                .filter(|page| dirty >> page & 1 != 0)
                .for_each(|page| vm.send_page(0, page));
            vm.pause_vcpus();
            vm.send_all_pages();
            vm.assert_copy_is_whole();
            Ok::<(), Errno>(())
        }
    };
    let checker = Checker::new(machine());
    assert_eq!(
        checker.check(code(true)).unwrap().on_the_way,
        OnTheWay::NotAsked
    );
    let checker = checker.claims_on_the_way();
    let report = checker.check(code(false)).unwrap();
    assert!(report.exhaustive, "{report}");
    assert_eq!(report.on_the_way, OnTheWay::Judged);
    for failure in [
        checker.check(code(true)).unwrap_err(),
        checker.clone().seeds(0..0).check(code(true)).unwrap_err(),
    ] {
        let claim = "stale_page_is_accounted_for";
        assert_eq!(*failure.kind(), FailureKind::Broken { claim });
    }
    // What the code knows by itself is not known here.
    let report = checker.check(|vm: Vm| {
        log(&vm)?;
        vm.send_all_pages();
        vm.store_page(0, 1);
        vm.pause_vcpus();
        vm.send_all_pages();
        vm.assert_copy_is_whole();
        Ok::<(), Errno>(())
    });
    let report = report.unwrap();
    assert!(report.exhaustive, "{report}");
    assert!(
        report
            .to_string()
            .contains("were not judged: the code stores"),
        "{report}"
    );
}

#[test]
fn a_panic_is_a_verdict_with_its_schedule() {
    for failure in fails(|vm| {
        log(&vm)?;
        vm.send_all_pages();
        // The guest may have stored by now.
        assert_eq!(get(&vm)?, 0, "nobody stores");
        vm.pause_vcpus();
        vm.send_all_pages();
        vm.assert_copy_is_whole();
        Ok(())
    }) {
        let FailureKind::Panicked { message, place } = failure.kind() else {
            panic!("{failure}");
        };
        assert!(message.contains("nobody stores"), "{message}");
        assert!(place.contains("troubles.rs:"), "{place}");
        let story = failure.story();
        assert!(
            story.contains("PANICS") && story.contains("KVM_GET_DIRTY_LOG"),
            "{story}"
        );
    }
}

#[test]
fn an_error_is_a_verdict_too() {
    for failure in fails(|vm| {
        // Without the log.
        get(&vm)?;
        vm.assert_copy_is_whole();
        Ok(())
    }) {
        let error = "Errno(2)".to_owned();
        assert_eq!(*failure.kind(), FailureKind::ReturnedError { error });
    }
}

#[test]
fn a_loop_that_never_ends_is_told_by_the_calls_that_it_goes_round() {
    let checker = Checker::new(machine()).max_calls(60);
    let failure = checker
        .run(|vm: Vm| {
            log(&vm)?;
            vm.send_all_pages();
            vm.pause_vcpus();
            // The guest is stopped: these two never come.
            while get(&vm)? != u64::MAX {
                vm.send_page(0, 1);
            }
            vm.assert_copy_is_whole();
            Ok::<(), Errno>(())
        })
        .unwrap_err();
    let FailureKind::Endless { round, calls } = failure.kind() else {
        panic!("{failure}");
    };
    assert_eq!(*calls, 60);
    assert_eq!(round.len(), 2, "{round:?}");
    let both = round.join("; ");
    assert!(
        both.contains("get_dirty_log(slot 0) at ") && both.contains("send_page(0, 1) at "),
        "{both}"
    );
}

#[test]
fn a_search_of_code_that_may_go_round_for_ever_falls_back_to_seeds_and_says_so() {
    let checker = Checker::new(machine()).seeds(0..300).max_calls(40);
    let report = checker.check(|vm: Vm| {
        log(&vm)?;
        vm.send_all_pages();
        // Some schedule lets the guest wait for ever; those of seeds do not.
        while get(&vm)? == 0 {}
        vm.pause_vcpus();
        get(&vm)?;
        vm.send_all_pages();
        vm.assert_copy_is_whole();
        Ok::<(), Errno>(())
    });
    // Where a seed goes round as long, that is told.
    match report {
        Ok(report) => {
            let text = report.to_string();
            assert!(!report.exhaustive, "{text}");
            assert!(text.contains("get_dirty_log(slot 0)"), "{text}");
        }
        Err(failure) => assert!(
            matches!(failure.kind(), FailureKind::Endless { .. }),
            "{failure}"
        ),
    }
}

#[test]
fn a_loop_without_calls_is_told_by_the_call_before_it() {
    let failure = Checker::new(machine())
        .patience(Duration::from_millis(50))
        .run(|vm: Vm| {
            log(&vm).unwrap();
            loop {
                std::thread::sleep(Duration::from_millis(20));
                std::hint::spin_loop();
                if RELEASED.load(Relaxed) == 1 {
                    return;
                }
            }
        })
        .unwrap_err();
    RELEASED.store(1, Relaxed);
    let FailureKind::Silent { after } = failure.kind() else {
        panic!("{failure}");
    };
    assert!(after.contains("set_user_memory_region(slot 0"), "{after}");
}

/// Lets the code of that test end when it is no longer needed.
static RELEASED: AtomicU32 = AtomicU32::new(0);

#[test]
fn code_that_claims_nothing_is_told() {
    for failure in fails(|vm| log(&vm)) {
        assert_eq!(*failure.kind(), FailureKind::ClaimsNothing);
    }
}

#[test]
fn two_threads_that_wait_for_each_other_are_told_with_what_they_wait_for() {
    let code = |vm: Vm| {
        let (one, other) = (Arc::new(vm.mutex(())), Arc::new(vm.mutex(())));
        let (theirs, first) = (one.clone(), other.clone());
        let thread = vm.spawn(move || {
            let _first = first.lock();
            let _then = theirs.lock();
        });
        {
            let _first = one.lock();
            let _then = other.lock();
        }
        thread.join();
        vm.pause_vcpus();
        vm.send_all_pages();
        vm.assert_copy_is_whole();
    };
    let failure = Checker::new(machine()).check(code).unwrap_err();
    let claim = "migration_makes_progress";
    assert_eq!(*failure.kind(), FailureKind::Broken { claim });
    let story = failure.story();
    for words in [
        "VMM0 waits for the lock `mutex1`",
        "VMM1 waits for the lock `mutex0`",
    ] {
        assert!(story.contains(words), "{words}: {story}");
    }
    assert!(story.contains("troubles.rs:"), "{story}");
}

#[test]
fn threads_talk_by_a_channel_and_its_end_is_seen() {
    let code = |vm: Vm| {
        let (sender, receiver) = vm.channel();
        let pauser = vm.clone();
        let thread = vm.spawn(move || {
            pauser.pause_vcpus();
            for page in 0..2 {
                sender.send(page);
            }
        });
        while let Ok(page) = receiver.recv() {
            vm.send_page(0, page);
        }
        thread.join();
        vm.assert_copy_is_whole();
    };
    let report = Checker::new(machine()).check(code).unwrap();
    assert!(report.exhaustive && report.threads == 2, "{report}");
}

#[test]
fn mistakes_are_told_with_their_place() {
    let mistake = |code: fn(Vm)| {
        let failure = Checker::new(machine()).run(code).unwrap_err();
        match failure.kind() {
            FailureKind::Mistake { what, place } => {
                assert!(place.contains("troubles.rs:"), "{place}");
                what.clone()
            }
            _ => panic!("{failure}"),
        }
    };
    let no_slot = mistake(|vm| vm.send_page(7, 0));
    assert!(
        no_slot.contains("memslot 7") && no_slot.contains("[0]"),
        "{no_slot}"
    );
    let no_page = mistake(|vm| vm.send_page(0, 2));
    assert!(
        no_page.contains("page 2 of memslot 0: it has 2"),
        "{no_page}"
    );
    let short = mistake(|vm| {
        let _ = vm.get_dirty_log(0, 0);
    });
    assert!(short.contains("behind the buffer"), "{short}");
    let no_vcpu = mistake(|vm| {
        let _ = vm.vcpu(1);
    });
    assert!(no_vcpu.contains("the machine has 1"), "{no_vcpu}");
}

#[test]
fn a_machine_that_cannot_be_is_told_with_what_to_write() {
    let failure = Checker::new(Machine::new(Arch::S390).slot(0, 1).ring(4))
        .run(|_| ())
        .unwrap_err();
    let text = failure.to_string();
    assert!(
        text.contains("a dirty ring on s390") && text.contains("help: "),
        "{text}"
    );
    let error =
        Machine::from_toml("name = \"x\"\n[machine]\narch = \"arm46\"\npages = 1\n").unwrap_err();
    let text = error.to_string();
    assert!(text.contains("arm46") && text.contains("arm64"), "{text}");
}

#[test]
fn a_failing_trace_is_kept_tried_first_and_good_for_code_that_changed() {
    let folder = std::env::temp_dir().join(format!("dirtysim-kvm-{}", std::process::id()));
    let checker = Checker::new(machine()).name("kept").keep_traces_in(&folder);
    let code = |forgets: bool| {
        move |vm: Vm| {
            log(&vm)?;
            vm.send_all_pages();
            vm.pause_vcpus();
            let dirty = if forgets { 0 } else { get(&vm)? };
            (0..2)
                .filter(|page| dirty >> page & 1 != 0)
                .for_each(|page| vm.send_page(0, page));
            vm.assert_copy_is_whole();
            Ok::<(), Errno>(())
        }
    };
    let first = checker.run(code(true)).unwrap_err();
    let kept = folder.join("kept.jsonl");
    assert_eq!(first.trace(), Some(kept.as_path()));
    assert!(first.to_string().contains("DIRTYSIM_TRACE="), "{first}");
    // Without a seed, by the trace alone.
    let again = checker.clone().seeds(0..0).run(code(true)).unwrap_err();
    assert!(
        again.found_by().starts_with("the trace "),
        "{}",
        again.found_by()
    );
    assert_eq!(
        (again.steps(), again.pages()),
        (first.steps(), first.pages())
    );
    let replayed = Checker::new(machine())
        .replay(&kept, code(true))
        .unwrap_err();
    assert_eq!(replayed.steps(), first.steps());
    // The code was mended: the steps that are left are taken, and nothing breaks.
    let report = checker.run(code(false)).unwrap();
    assert_eq!(report.schedules, 10_001);
    assert!(first.html().contains("<html"));
    let missing = Checker::new(machine()).replay(folder.join("none.jsonl"), code(true));
    let missing = missing.unwrap_err();
    assert!(
        matches!(missing.kind(), FailureKind::Trace { .. }),
        "{missing}"
    );
    std::fs::remove_dir_all(&folder).unwrap();
}
