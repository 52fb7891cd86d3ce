//! The guests and the single steps that the published figures are simulated from.

use crate::cost::constants::{Costs, QEMU_2020_STREAM_BYTES_PER_S};
use crate::cost::error::CostError;
use crate::cost::fixed::mul_div;
use crate::cost::inputs::{Inputs, RatePolicy, Rearm, StopRule, Tracking};
use crate::cost::units::{GIB, MIB, MS, PAGE_BYTES, SECOND};
use crate::cost::workload::{Pattern, WorkingSet, Writer};
use crate::cost::{Outcome, Round, clear_ns, enable_ns, get_ns, simulate};

/// `ns` in units of `unit`, to the nearest.
pub(super) fn rounded(ns: u64, unit: u64) -> u64 {
    ns / unit + u64::from(ns % unit >= unit.div_ceil(2))
}

pub(super) fn downtime_ms(inputs: &Inputs) -> Result<u64, CostError> {
    Ok(rounded(simulate(inputs)?.downtime_ns, MS))
}

pub(super) fn total_s(inputs: &Inputs) -> Result<u64, CostError> {
    Ok(rounded(simulate(inputs)?.total_ns, SECOND))
}

/// Megabytes as papers and mails count them, in whole pages.
const fn mb_tenths(tenths: u64) -> u64 {
    tenths * 100_000 / PAGE_BYTES * PAGE_BYTES
}

const fn set(bytes: u64, bytes_per_s: u64, pattern: Pattern) -> WorkingSet {
    WorkingSet {
        bytes,
        bytes_per_s,
        pattern,
        writer: Writer::Vcpu,
    }
}

/// A rate, in bytes per second, at which a sweep dirties its whole working set again however short a round is: the
/// writable working set in NSDI 2005's sense, pages dirtied faster than they can be sent.
const CONSTANTLY: u64 = 1 << 40;

/// Bytes per second in a Mbit/s.
const MBIT: u64 = 1_000_000 / 8;

/// A Xen domain of 2005 and its rates. Source: NSDI 2005, sections 5.3 and 6.
fn xen_2005(memory_bytes: u64, link_mbit: u64, working_sets: Vec<WorkingSet>) -> Inputs {
    Inputs {
        memory_bytes,
        link_bits_per_s: link_mbit * 1_000_000,
        // The link speeds above are payload already.
        goodput_per_mille: 1000,
        vcpus: 1,
        working_sets,
        device_save_pages: 0,
        tracking: Tracking::Bitmap(Rearm::Get),
        rate: RatePolicy::Adaptive {
            floor: 100 * MBIT,
            step: 50 * MBIT,
            cap: 500 * MBIT,
        },
        stop: StopRule {
            downtime_limit_ns: None,
            few_bytes: 256 * 1024,
            ..StopRule::default()
        },
        costs: Costs::xen_2005(),
        ..Inputs::default()
    }
}

/// The SPECweb server's writable working set, for each of `n` vCPUs: the part that is rewritten all the time.
fn specweb_hot(n: u64) -> WorkingSet {
    set(mb_tenths(142 * n), CONSTANTLY, Pattern::Sweep)
}

pub(super) fn specweb() -> Inputs {
    let rest = set(mb_tenths(6_600), 2_200_000, Pattern::Random);
    xen_2005(800 * MIB, 870, vec![specweb_hot(1), rest])
}

pub(super) fn quake() -> Inputs {
    let sets = vec![
        set(mb_tenths(10), CONSTANTLY, Pattern::Sweep),
        set(mb_tenths(550), 4_000_000, Pattern::Random),
    ];
    xen_2005(64 * MIB, 870, sets)
}

pub(super) fn diabolical() -> Inputs {
    xen_2005(
        512 * MIB,
        500,
        vec![set(256 * MIB, CONSTANTLY, Pattern::Sweep)],
    )
}

/// A guest of Google's fleet with so many vCPUs.
pub(super) fn fleet(vcpus: u64) -> Inputs {
    Inputs {
        memory_bytes: mb_tenths(37_500 * vcpus),
        vcpus,
        working_sets: vec![
            specweb_hot(vcpus),
            set(mb_tenths(6_600 * vcpus), 2_200_000 * vcpus, Pattern::Random),
        ],
        device_save_pages: 0,
        tracking: Tracking::Bitmap(Rearm::Get),
        stop: StopRule {
            downtime_limit_ns: None,
            no_progress_per_mille: Some(900),
            ..StopRule::default()
        },
        ..Inputs::default()
    }
}

pub(super) fn qemu_2020(tracking: Tracking) -> Inputs {
    Inputs {
        stream_bytes_per_s: QEMU_2020_STREAM_BYTES_PER_S,
        working_sets: vec![set(20 * GIB, 800_000_000, Pattern::Random)],
        device_save_pages: 0,
        tracking,
        ..Inputs::default()
    }
}

/// The guest of cloud-hypervisor #7799's log.
fn stress() -> Result<Outcome, CostError> {
    simulate(&Inputs {
        memory_bytes: 6144 * MIB,
        // Local TCP: no wire, so that the sender limits.
        link_bits_per_s: 1 << 40,
        working_sets: vec![set(5418 * MIB, CONSTANTLY, Pattern::Sweep)],
        device_save_pages: 0,
        tracking: Tracking::Bitmap(Rearm::Get),
        // Five rounds, as in the VMM of the time.
        stop: StopRule {
            downtime_limit_ns: None,
            rounds_max: 5,
            ..StopRule::default()
        },
        ..Inputs::default()
    })
}

pub(super) fn expected_copy_ms(round: usize) -> Result<u64, CostError> {
    // The stress guest never converges: five rounds are always there.
    Ok(stress()?
        .rounds
        .get(round)
        .map_or(0, |round| rounded(round.expected_copy_ns, MS)))
}

pub(super) fn guest_of(memory_bytes: u64, rearm: Rearm) -> Inputs {
    Inputs {
        memory_bytes,
        tracking: Tracking::Bitmap(rearm),
        ..Inputs::default()
    }
}

pub(super) fn stall_per_page_ns() -> Result<u64, CostError> {
    let mut inputs = guest_of(64 * GIB, Rearm::Get);
    inputs.working_sets = vec![set(64 * GIB, CONSTANTLY, Pattern::Sweep)];
    inputs.device_save_pages = 0;
    inputs.stop.rounds_max = 1;
    let outcome = simulate(&inputs)?;
    let pages: u64 = outcome.rounds.iter().map(|round| round.dirtied).sum();
    Ok(rounded(outcome.guest_stall_ns, pages.max(1)))
}

/// Nine pages in ten of 64 GiB.
pub(super) const MOSTLY: u64 = 64 * GIB / PAGE_BYTES / 10 * 9;

pub(super) fn get_64_gib(rearm: Rearm) -> Result<u64, CostError> {
    get_ns(&guest_of(64 * GIB, rearm), MOSTLY)
}

pub(super) fn get_and_clear_per_mille() -> Result<u64, CostError> {
    let clear = clear_ns(&guest_of(64 * GIB, Rearm::Clear), MOSTLY)?;
    let both = get_64_gib(Rearm::Clear)?
        .checked_add(clear)
        .ok_or(CostError::TimeOverflow)?;
    mul_div(both, 1000, get_64_gib(Rearm::Get)?).ok_or(CostError::TimeOverflow)
}

/// Enabling logging, in units of so many nanoseconds.
pub(super) fn enable(memory_bytes: u64, rearm: Rearm, unit: u64) -> Result<u64, CostError> {
    Ok(rounded(enable_ns(&guest_of(memory_bytes, rearm))?, unit))
}

/// What so many connections get through a 100 Gbit/s link.
pub(super) fn connections_mib_per_s(connections: u64) -> Result<u64, CostError> {
    let inputs = Inputs {
        link_bits_per_s: 100_000_000_000,
        connections,
        ..Inputs::default()
    };
    inputs.check()?;
    Ok(rounded(inputs.full_rate(), MIB))
}

/// How long the stress guest took until round 3 had been sent.
pub(super) fn elapsed_ms() -> Result<u64, CostError> {
    Ok(rounded(
        stress()?.rounds.iter().take(4).map(Round::ns).sum(),
        MS,
    ))
}
