use super::*;
use crate::trace::observed::{KvmIoctl, Phase};

fn push(ring: u32, dirty_index: u32, reset_index: u32, offset: u64) -> Observed {
    let used = dirty_index.wrapping_sub(reset_index);
    Observed::RingPush {
        ring,
        dirty_index,
        reset_index,
        slot: 0,
        offset,
        used,
    }
}

fn reset(ring: u32, dirty_index: u32, reset_index: u32) -> Observed {
    let used = dirty_index.wrapping_sub(reset_index);
    Observed::RingReset {
        ring,
        dirty_index,
        reset_index,
        used,
    }
}

fn page(fetch: u32, offset: u64) -> Observed {
    Observed::QemuPage {
        cpu_index: 0,
        fetch,
        offset,
    }
}

fn check(config: CheckConfig, events: impl IntoIterator<Item = Observed>) -> CheckReport {
    let mut checker = Checker::new(config);
    for (line, what) in (1..).zip(events) {
        let tid = Some(100);
        checker.event(&ObservedEvent {
            tid,
            ..ObservedEvent::at(line, what)
        });
    }
    checker.finish()
}

/// The claims that do not hold, with their lines.
fn broken(report: &CheckReport) -> Vec<(u64, &'static str)> {
    report
        .findings
        .iter()
        .map(|finding| (finding.line, finding.claim.name()))
        .collect()
}

const SMALL: CheckConfig = CheckConfig {
    ring_entries: Some(256),
    ring_reserved: Some(64),
    page_size: Some(4096),
};

#[test]
fn a_clean_log_has_no_findings_and_says_what_it_compared() {
    let mut events: Vec<_> = (1..=192).map(|n| push(0, n, 0, u64::from(n))).collect();
    events.push(Observed::RingExit { vcpu: 0 });
    events.push(Observed::UserspaceExit {
        reason: Some(31),
        errno: None,
    });
    events.push(reset(0, 192, 192));
    events.push(push(0, 193, 192, 1));
    let report = check(SMALL, events);
    assert_eq!(broken(&report), []);
    assert_eq!(report.compared, 196);
    assert_eq!(report.not_compared, 0);
    assert_eq!(report.comparisons[&Claim::DirtyIndexAdvancesByOne], 193);
    assert_eq!(report.unknown[&Unknown::FirstOfItsRing], 1);
}

#[test]
fn every_index_that_jumps_is_found() {
    let report = check(
        CheckConfig::default(),
        [
            push(0, 1, 0, 1),
            push(0, 3, 0, 2),
            push(1, 9, 8, 2),
            push(0, 3, 0, 4),
        ],
    );
    assert_eq!(
        broken(&report),
        [
            (2, "dirty_index_advances_by_one"),
            (4, "dirty_index_advances_by_one")
        ]
    );
}

#[test]
fn indices_wrap_without_a_finding() {
    let report = check(
        CheckConfig::default(),
        [
            push(0, u32::MAX, u32::MAX - 1, 1),
            push(0, 0, u32::MAX - 1, 2),
            reset(0, 0, 0),
            push(0, 1, 0, 1),
        ],
    );
    assert_eq!(broken(&report), []);
}

#[test]
fn a_wrong_used_is_found() {
    let what = Observed::RingReset {
        ring: 0,
        dirty_index: 5,
        reset_index: 3,
        used: 3,
    };
    assert_eq!(
        broken(&check(SMALL, [what])),
        [(1, "used_is_dirty_minus_reset")]
    );
}

#[test]
fn a_reset_past_what_was_pushed_is_found() {
    let report = check(SMALL, [push(0, 5, 3, 1), reset(0, 5, 6)]);
    assert_eq!(
        broken(&report),
        [(2, "reset_index_stays_behind_dirty_index")]
    );
}

#[test]
fn a_reset_index_that_goes_back_is_found() {
    let report = check(SMALL, [push(0, 5, 3, 1), reset(0, 5, 5), push(0, 6, 4, 1)]);
    assert_eq!(broken(&report), [(3, "reset_index_never_goes_back")]);
}

#[test]
fn an_overflow_is_found_with_the_size_given_and_without() {
    let events = [push(0, 300, 44, 1), push(0, 301, 44, 2)];
    assert_eq!(broken(&check(SMALL, events)), [(2, "ring_never_overflows")]);
    let report = check(CheckConfig::default(), [push(0, 65_537, 0, 1)]);
    assert_eq!(broken(&report), [(1, "ring_never_overflows")]);
}

#[test]
fn an_exit_below_the_soft_limit_is_found() {
    let report = check(SMALL, [push(0, 191, 0, 1), Observed::RingExit { vcpu: 0 }]);
    assert_eq!(broken(&report), [(2, "soft_full_exit_is_due")]);
}

#[test]
fn without_its_event_an_exit_is_compared_with_the_most_that_its_run_had_in_use() {
    let exit = |reason| Observed::UserspaceExit {
        reason: Some(reason),
        errno: None,
    };
    // Where the run began is not seen: the ring may have been full before.
    let report = check(SMALL, [push(0, 191, 0, 1), exit(31)]);
    assert_eq!(broken(&report), []);
    assert_eq!(report.unknown[&Unknown::HarvestBefore], 1);
    let report = check(
        SMALL,
        [push(0, 190, 0, 1), exit(2), push(0, 191, 0, 2), exit(31)],
    );
    assert_eq!(broken(&report), [(4, "soft_full_exit_is_due")]);
    // KVM's own stores on the way out, with a RESET between.
    let run = [
        push(0, 191, 0, 1),
        exit(2),
        push(0, 192, 0, 2),
        push(0, 193, 9, 3),
        exit(31),
    ];
    assert_eq!(broken(&check(SMALL, run)), []);
}

#[test]
fn without_a_size_the_limit_is_inferred_and_said() {
    let exit = Observed::RingExit { vcpu: 0 };
    let report = check(
        CheckConfig::default(),
        [
            push(0, 448, 0, 1),
            exit.clone(),
            reset(0, 448, 400),
            push(0, 449, 400, 2),
            exit,
        ],
    );
    assert_eq!(report.soft_limit, Some(SoftLimit::Inferred(448)));
    assert_eq!(broken(&report), [(5, "soft_limit_is_constant")]);
}

#[test]
fn an_exit_that_gets_another_reason_is_found() {
    let report = check(
        SMALL,
        [
            push(0, 192, 0, 1),
            Observed::RingExit { vcpu: 0 },
            Observed::UserspaceExit {
                reason: Some(2),
                errno: None,
            },
        ],
    );
    assert_eq!(broken(&report), [(3, "soft_full_exit_reaches_userspace")]);
}

#[test]
fn a_soft_full_vcpu_that_goes_on_is_found() {
    let io = Observed::UserspaceExit {
        reason: Some(2),
        errno: None,
    };
    let report = check(
        SMALL,
        [
            push(0, 192, 0, 1),
            io.clone(),
            push(0, 193, 0, 2),
            io.clone(),
        ],
    );
    assert_eq!(broken(&report), [(4, "soft_full_ring_does_not_enter")]);
    let report = check(
        SMALL,
        [
            push(0, 192, 0, 1),
            io.clone(),
            reset(0, 192, 192),
            push(0, 193, 192, 2),
            io,
        ],
    );
    assert_eq!(broken(&report), []);
}

#[test]
fn a_page_pushed_twice_is_an_over_report_unless_something_was_rearmed() {
    let report = check(SMALL, [push(0, 1, 0, 7), push(0, 2, 0, 7)]);
    assert_eq!(broken(&report), [(2, "page_is_pushed_once_per_arming")]);
    assert!(!report.has(Weight::Defect));
    // Another ring's reset re-arms whole ranges on arm64.
    let report = check(
        SMALL,
        [
            push(0, 1, 0, 7),
            push(1, 5, 4, 9),
            reset(1, 5, 5),
            push(0, 2, 0, 7),
        ],
    );
    assert_eq!(broken(&report), []);
    let clear = Observed::QemuClear {
        slot: 0,
        start: 0,
        size: 64,
    };
    assert_eq!(
        broken(&check(SMALL, [push(0, 1, 0, 7), clear, push(0, 2, 0, 7)])),
        []
    );
}

#[test]
fn entries_are_held_against_their_slots() {
    let slot = |flags, size| Observed::QemuSetMemory {
        slot: 0,
        flags,
        gpa: 0,
        size,
        ret: 0,
    };
    let report = check(
        SMALL,
        [
            slot(1, 0x8000),
            push(0, 1, 0, 8),
            slot(0, 0x8000),
            push(0, 2, 0, 7),
        ],
    );
    assert_eq!(
        broken(&report),
        [
            (2, "entry_is_inside_its_slot"),
            (4, "entry_is_of_a_logging_slot")
        ]
    );
}

#[test]
fn a_harvest_is_held_against_pushes_and_resets() {
    let create = Observed::QemuCreateVcpu {
        cpu_index: 0,
        vcpu: 4,
    };
    let report = check(
        SMALL,
        [
            create.clone(),
            push(4, 1, 0, 7),
            push(4, 2, 0, 9),
            page(0, 7),
            page(1, 8),
            page(1, 9),
        ],
    );
    assert_eq!(
        broken(&report),
        [
            (5, "harvested_entry_was_pushed"),
            (6, "harvest_is_in_order")
        ]
    );
    let report = check(
        SMALL,
        [create, push(4, 1, 0, 7), reset(4, 1, 1), page(0, 7)],
    );
    assert_eq!(broken(&report), [(4, "harvested_entry_was_pushed")]);
}

#[test]
fn a_reap_is_held_against_what_was_harvested_and_reset() {
    let reap = |count| Observed::QemuReap { count };
    let report = check(
        SMALL,
        [
            reap(3),
            page(3, 1),
            page(4, 2),
            reap(2),
            page(5, 1),
            reap(2),
        ],
    );
    assert_eq!(broken(&report), [(6, "reset_count_equals_harvested")]);
    let report = check(
        SMALL,
        [
            reset(0, 5, 3),
            reap(3),
            page(3, 1),
            page(4, 2),
            reset(0, 5, 4),
            reap(2),
        ],
    );
    assert_eq!(broken(&report), [(6, "reset_count_equals_harvested")]);
    let ioctl = Observed::QemuVmIoctl {
        ioctl: KvmIoctl::ResetDirtyRings,
    };
    let report = check(SMALL, [ioctl, reap(3), page(3, 1), reap(1)]);
    assert_eq!(broken(&report), [(4, "harvest_is_reset")]);
}

#[test]
fn a_probed_reset_returns_its_count() {
    let probe = |phase, ret| Observed::ProbeIoctl {
        phase,
        ioctl: KvmIoctl::ResetDirtyRings,
        slot: None,
        first_page: None,
        num_pages: None,
        ret,
    };
    let report = check(
        SMALL,
        [
            reset(0, 5, 3),
            probe(Phase::Enter, None),
            reset(0, 5, 5),
            probe(Phase::Return, Some(3)),
        ],
    );
    assert_eq!(broken(&report), [(4, "reset_returns_its_count")]);
}

#[test]
fn the_range_of_a_clear_is_checked() {
    let slot = Observed::QemuSetMemory {
        slot: 0,
        flags: 1,
        gpa: 0,
        size: 100 * 4096,
        ret: 0,
    };
    let clear = |start, size| Observed::QemuClear {
        slot: 0,
        start,
        size,
    };
    let report = check(
        SMALL,
        [
            slot,
            clear(64, 36),
            clear(0, 64),
            clear(32, 64),
            clear(64, 64),
            clear(0, 36),
        ],
    );
    assert_eq!(
        broken(&report),
        [
            (4, "clear_range_is_legal"),
            (5, "clear_range_is_legal"),
            (6, "clear_range_is_legal")
        ]
    );
}

#[test]
fn what_ends_has_started() {
    let flush = |finished| Observed::QemuFlush { finished };
    let report = check(SMALL, [flush(false), flush(true), flush(true)]);
    assert_eq!(broken(&report), [(3, "starts_and_ends_are_paired")]);
}

#[test]
fn nothing_is_compared_across_a_gap() {
    let gap = Observed::Gap {
        reason: crate::trace::observed::GapReason::Lost,
        lost: Some(3),
    };
    let report = check(SMALL, [push(0, 1, 0, 1), gap, push(0, 5, 2, 1)]);
    assert_eq!(broken(&report), []);
    assert_eq!(report.unknown[&Unknown::FirstOfItsRing], 2);
}

#[test]
fn exit_31_without_its_event_is_found_unless_the_event_may_be_in_a_gap() {
    let exit = || Observed::UserspaceExit {
        reason: Some(31),
        errno: None,
    };
    let before = [push(0, 192, 0, 1), Observed::RingExit { vcpu: 0 }, exit()];
    let report = check(SMALL, before.clone().into_iter().chain([exit()]));
    assert_eq!(broken(&report), [(4, "soft_full_exit_reaches_userspace")]);
    let gap = Observed::Gap {
        reason: crate::trace::observed::GapReason::Damaged,
        lost: None,
    };
    let report = check(SMALL, before.into_iter().chain([gap, exit()]));
    assert_eq!(broken(&report), []);
}

#[test]
fn two_vcpus_on_one_thread_leave_its_exits_unknown() {
    let exit = Observed::UserspaceExit {
        reason: Some(2),
        errno: None,
    };
    let report = check(SMALL, [push(0, 1, 0, 1), push(1, 1, 0, 1), exit]);
    assert_eq!(report.unknown[&Unknown::VcpuOfThread], 1);
}
