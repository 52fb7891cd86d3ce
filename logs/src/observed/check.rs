//! The checker: one pass, one event at a time.

use std::collections::HashMap;

use dirtysim_model::machine::{Arch, Constants, EXIT_DIRTY_RING_FULL};

use super::harvest::Harvest;
use super::losses::Losses;
use super::report::{CheckReport, Claim, Finding, SoftLimit, Unknown, Weight};
use super::ring::{KEPT_MAX, RING_ENTRIES_MAX, Ring};
use crate::trace::CheckConfig;
use crate::trace::observed::{Observed, ObservedEvent};

/// Entries that KVM keeps in reserve: without PML, and with it.
pub(super) fn reserves() -> [u32; 2] {
    [false, true].map(|pml| Constants::of(Arch::X86, pml).ring_reserved)
}

/// A reset this near to an exit may have been made between the exit's decision and its event, in nanoseconds.
const NEAR_NS: u64 = 20_000;

/// A memslot, as its ioctl set it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// Its size.
    pub(super) bytes: u64,
    /// Its flags ask for a dirty log.
    pub(super) logs: bool,
}

/// Checks a trace of kind `observed` as it goes by.
#[derive(Debug)]
pub struct Checker {
    pub(super) config: CheckConfig,
    report: CheckReport,
    pub(super) rings: HashMap<u32, Ring>,
    /// The ring of the vCPU that a thread runs; `None` for a thread that runs several.
    ring_of_tid: HashMap<u32, Option<u32>>,
    pub(super) slots: HashMap<u32, Slot>,
    pub(super) harvest: Harvest,
    soft_limit: Option<SoftLimit>,
    /// Grows with every re-arming that is known of.
    pub(super) arming: u64,
    saw_ring_exits: bool,
    /// Comparisons by claim and impossible ones by reason; the report's maps are made from them at the end.
    comparisons: [u64; Claim::ALL.len()],
    unknowns: [u64; Unknown::ALL.len()],
    /// Findings that are kept, by claim and weight.
    kept: [[u32; Weight::ALL.len()]; Claim::ALL.len()],
    /// How many defects were found, whatever became of them.
    defects: u64,
    /// The number of each kept defect; of other findings, none.
    numbers: Vec<Option<u64>>,
    losses: Losses,
    file: u32,
    line: u64,
    t_ns: Option<u64>,
    compared: bool,
    unable: bool,
}

impl Checker {
    /// A checker that has seen nothing.
    #[must_use]
    pub fn new(config: CheckConfig) -> Self {
        let soft_limit = match (config.ring_entries, config.ring_reserved) {
            (Some(entries), Some(reserved)) => {
                Some(SoftLimit::Given(entries.saturating_sub(reserved)))
            }
            _ => None,
        };
        Self {
            config,
            report: CheckReport::default(),
            rings: HashMap::new(),
            ring_of_tid: HashMap::new(),
            slots: HashMap::new(),
            harvest: Harvest::default(),
            soft_limit,
            arming: 0,
            saw_ring_exits: false,
            comparisons: [0; Claim::ALL.len()],
            unknowns: [0; Unknown::ALL.len()],
            kept: [[0; Weight::ALL.len()]; Claim::ALL.len()],
            defects: 0,
            numbers: Vec::new(),
            losses: Losses::default(),
            file: 0,
            line: 0,
            t_ns: None,
            compared: false,
            unable: false,
        }
    }

    /// What came of it.
    #[must_use]
    pub fn finish(mut self) -> CheckReport {
        self.report.soft_limit = self.soft_limit;
        for ((claim, _), n) in Claim::ALL
            .iter()
            .zip(self.comparisons)
            .filter(|(_, n)| *n > 0)
        {
            self.report.comparisons.insert(*claim, n);
        }
        for ((reason, ..), n) in Unknown::ALL
            .iter()
            .zip(self.unknowns)
            .filter(|(_, n)| *n > 0)
        {
            self.report.unknown.insert(*reason, n);
        }
        // What lost events can explain is no defect.
        for (finding, number) in self.report.findings.iter_mut().zip(self.numbers) {
            if number.is_some_and(|number| self.losses.explain(number)) {
                finding.weight = Weight::Doubt;
            }
        }
        let explained = self.losses.explained();
        for (weight, n) in [
            (Weight::Defect, self.defects - explained),
            (Weight::Doubt, explained),
        ] {
            if n > 0 {
                *self.report.weights.entry(weight).or_default() += n;
            }
        }
        self.report.findings.sort_by_key(|finding| finding.weight);
        self.report
    }

    /// Takes the next event.
    pub fn event(&mut self, event: &ObservedEvent) {
        (self.file, self.line, self.t_ns) = (event.file, event.line, event.t_ns);
        (self.compared, self.unable) = (false, false);
        if self.losses.begins(event, self.defects) {
            self.gap();
        }
        match event.what {
            Observed::Thread { .. } => return,
            Observed::Gap { reason, .. } => {
                self.losses.gap(event, reason, self.defects);
                return self.gap();
            }
            Observed::RingPush {
                ring,
                dirty_index,
                reset_index,
                slot,
                offset,
                used,
            } => {
                self.thread_runs(event.tid, ring);
                self.push(ring, (dirty_index, reset_index), (slot, offset), used);
            }
            Observed::RingReset {
                ring,
                dirty_index,
                reset_index,
                used,
            } => {
                self.reset(ring, dirty_index, reset_index, used);
            }
            Observed::RingExit { vcpu } => {
                self.thread_runs(event.tid, vcpu);
                self.ring_exit(vcpu);
            }
            Observed::UserspaceExit { reason, .. } => self.userspace_exit(event.tid, reason),
            Observed::QemuPage {
                cpu_index,
                fetch,
                offset,
            } => self.page(cpu_index, fetch, offset),
            Observed::QemuReap { count } => self.reap(count),
            Observed::QemuCreateVcpu { cpu_index, vcpu }
                if self.harvest.vcpu_of_index.len() < KEPT_MAX =>
            {
                self.harvest.vcpu_of_index.insert(cpu_index, vcpu);
            }
            Observed::QemuFlush { finished } => self.paired(finished, true),
            Observed::QemuSyncStart => self.paired(false, false),
            Observed::QemuSyncEnd { .. } => self.paired(true, false),
            Observed::QemuClear { slot, start, size } => {
                self.clear(slot, start, size);
                self.arming += 1;
            }
            Observed::QemuSetMemory {
                slot,
                flags,
                size,
                ret,
                ..
            } => self.set_memory(slot, flags, size, ret),
            Observed::QemuVmIoctl { ioctl } => self.vm_ioctl(ioctl),
            Observed::ProbeIoctl {
                phase, ioctl, ret, ..
            } => self.probe_ioctl(phase, ioctl, ret),
            Observed::ProbeRearm { .. } => self.arming += 1,
            _ => {}
        }
        self.losses.event(event, self.defects);
        if self.compared {
            self.report.compared += 1;
        } else if self.unable {
            self.report.not_compared += 1;
        } else {
            self.report.context += 1;
        }
    }

    /// Compares a claim; the text is made only when it does not hold.
    pub(super) fn claim(
        &mut self,
        claim: Claim,
        holds: bool,
        weight: Weight,
        text: impl FnOnce() -> String,
    ) {
        self.compared = true;
        self.comparisons[claim as usize] += 1;
        if holds {
            return;
        }
        *self.report.counts.entry(claim).or_default() += 1;
        let number = (weight == Weight::Defect).then_some(self.defects);
        match number {
            Some(_) => self.defects += 1,
            None => *self.report.weights.entry(weight).or_default() += 1,
        }
        // Of each claim and weight apart, so that a thousand notes do not hide one defect.
        let kept = &mut self.kept[claim as usize][weight as usize];
        if *kept < CheckReport::KEPT_OF_EACH {
            *kept += 1;
            let finding = Finding {
                claim,
                weight,
                file: self.file,
                line: self.line,
                text: text(),
            };
            self.report.findings.push(finding);
            self.numbers.push(number);
        }
    }

    pub(super) fn unknown(&mut self, reason: Unknown) {
        self.unable = true;
        self.unknowns[reason as usize] += 1;
    }

    fn gap(&mut self) {
        for ring in self.rings.values_mut() {
            ring.forget();
        }
        self.slots.clear();
        self.harvest.forget();
        self.arming += 1;
    }

    fn thread_runs(&mut self, tid: Option<u32>, ring: u32) {
        let Some(tid) = tid else { return };
        if self.ring_of_tid.len() < KEPT_MAX || self.ring_of_tid.contains_key(&tid) {
            self.ring_of_tid
                .entry(tid)
                .and_modify(|known| {
                    if *known != Some(ring) {
                        *known = None;
                    }
                })
                .or_insert(Some(ring));
        }
    }

    /// Takes a ring out, so that claims can be made while it is held; it is put back by the caller.
    fn take_ring(&mut self, ring: u32) -> Option<Ring> {
        if !self.rings.contains_key(&ring) && self.rings.len() >= KEPT_MAX {
            self.unknown(Unknown::TooMany);
            return None;
        }
        Some(std::mem::take(self.rings.entry(ring).or_default()))
    }

    fn indices(&mut self, name: u32, dirty: u32, reset: u32, used: u32) -> bool {
        let difference = dirty.wrapping_sub(reset);
        self.claim(Claim::UsedIsDirtyMinusReset, used == difference, Weight::Defect, || {
            format!("ring {name}: used is {used}; dirty {dirty:#x} less reset {reset:#x} is {difference}")
        });
        let behind = difference <= i32::MAX as u32;
        self.claim(Claim::ResetIndexStaysBehindDirtyIndex, behind, Weight::Defect, || {
            format!("ring {name}: reset {reset:#x} is past dirty {dirty:#x}: entries were reset that were never pushed")
        });
        if behind {
            let (size, which) = match self.config.ring_entries {
                Some(size) => (size, "the ring has"),
                None => (RING_ENTRIES_MAX, "the largest ring has"),
            };
            // The entry that stood where this one goes.
            let under = self
                .rings
                .get(&name)
                .and_then(|ring| ring.entry(dirty.wrapping_sub(1).wrapping_sub(size)));
            self.claim(Claim::RingNeverOverflows, difference <= size, Weight::Defect, || {
                let page = under.map_or(String::new(), |entry| {
                    format!(", now slot {} offset {:#x}, pushed on line {}", entry.page.0, entry.page.1, entry.line)
                });
                format!("ring {name}: {difference} entries in use; {which} {size}: {} were overwritten{page}", difference - size)
            });
        }
        behind
    }

    fn push(&mut self, name: u32, (dirty, reset): (u32, u32), page: (u32, u64), used: u32) {
        let behind = self.indices(name, dirty, reset, used);
        let Some(mut ring) = self.take_ring(name) else {
            return;
        };
        match ring.dirty {
            Some(last) if (dirty, reset) == (1, 0) && last != 0 => {
                self.claim(Claim::RingIsNotRestarted, false, Weight::Note, || {
                    format!("ring {name} starts anew after index {last:#x}: another VM, or the vCPU was made again")
                });
                ring.forget();
            }
            Some(last) => {
                let expected = last.wrapping_add(1);
                self.claim(Claim::DirtyIndexAdvancesByOne, dirty == expected, Weight::Defect, || {
                    format!("ring {name}: dirty index {dirty:#x} after {last:#x}; expected {expected:#x}")
                });
            }
            None => self.unknown(Unknown::FirstOfItsRing),
        }
        if let Some(last) = ring.reset {
            let back = reset.wrapping_sub(last) > i32::MAX as u32;
            self.claim(
                Claim::ResetIndexNeverGoesBack,
                !back,
                Weight::Defect,
                || format!("ring {name}: reset index {reset:#x} after {last:#x}"),
            );
        }
        if behind {
            if ring.consume_to(reset, self.line) {
                self.arming += 1;
            }
            ring.reset = Some(reset);
            let earlier = ring.push(dirty.wrapping_sub(1), page, self.arming, self.line);
            self.claim(Claim::PageIsPushedOncePerArming, earlier.is_none(), Weight::Note, || {
                format!(
                    "ring {name}: slot {} offset {:#x} again, after line {}, with nothing re-armed between: an over-report",
                    page.0,
                    page.1,
                    earlier.unwrap_or_default()
                )
            });
        }
        ring.dirty = Some(dirty);
        ring.used_at_own = behind.then(|| dirty.wrapping_sub(reset));
        ring.most_in_run = ring
            .used_at_own
            .and_then(|used| ring.most_in_run.map(|most| most.max(used)));
        if let Some(pushes) = &mut ring.pushes_since_exit {
            *pushes += 1;
        }
        self.rings.insert(name, ring);
        self.entry_in_slot(name, page);
    }

    fn entry_in_slot(&mut self, ring: u32, (slot, offset): (u32, u64)) {
        let Some(known) = self.slots.get(&slot).copied() else {
            return self.unknown(Unknown::Memslots);
        };
        // A page has at least 4096 bytes: past that, it is outside whatever the page size.
        let pages = known.bytes / self.config.page_size.unwrap_or(4096).max(1);
        self.claim(
            Claim::EntryIsInsideItsSlot,
            offset < pages,
            Weight::Defect,
            || {
                format!(
                    "ring {ring}: offset {offset:#x} in slot {slot}, which has {pages:#x} pages"
                )
            },
        );
        self.claim(
            Claim::EntryIsOfALoggingSlot,
            known.logs,
            Weight::Doubt,
            || format!("ring {ring}: entry for slot {slot}, which does not log dirty pages"),
        );
    }

    fn reset(&mut self, name: u32, dirty: u32, reset: u32, used: u32) {
        let behind = self.indices(name, dirty, reset, used);
        let Some(mut ring) = self.take_ring(name) else {
            return;
        };
        if let Some(last) = ring.dirty {
            // A push's index is visible before its event, so that a reset may be one ahead.
            let ahead = dirty.wrapping_sub(last);
            self.claim(Claim::DirtyIndexAdvancesByOne, ahead <= 1, Weight::Doubt, || {
                format!("ring {name}: dirty index {dirty:#x} at a reset; the last push gave {last:#x}")
            });
        } else {
            self.unknown(Unknown::FirstOfItsRing);
        }
        if let Some(last) = ring.reset {
            let back = reset.wrapping_sub(last) > i32::MAX as u32;
            self.claim(
                Claim::ResetIndexNeverGoesBack,
                !back,
                Weight::Defect,
                || format!("ring {name}: reset index {reset:#x} after {last:#x}"),
            );
        }
        let advance = ring.reset_event.map(|last| reset.wrapping_sub(last));
        self.harvest
            .reset(advance.filter(|n| *n <= i32::MAX as u32));
        if behind && ring.consume_to(reset, self.line) | (advance != Some(0)) {
            self.arming += 1;
        }
        ring.reset = Some(reset);
        ring.reset_event = Some(reset);
        ring.reset_at_ns = self.t_ns;
        ring.pushes_since_exit = None;
        self.rings.insert(name, ring);
    }

    fn ring_exit(&mut self, vcpu: u32) {
        self.saw_ring_exits = true;
        let Some(mut ring) = self.take_ring(vcpu) else {
            return;
        };
        self.exit_is_due(vcpu, &ring, ring.used_at_own);
        ring.used_at_own = ring.used();
        ring.exit_pending = true;
        ring.pushes_since_exit = None;
        self.rings.insert(vcpu, ring);
    }

    fn exit_is_due(&mut self, vcpu: u32, ring: &Ring, used: Option<u32>) {
        let Some(used) = used else {
            return self.unknown(Unknown::RingIndices);
        };
        let near_reset = match (self.t_ns, ring.reset_at_ns) {
            (Some(now), Some(reset)) => now.saturating_sub(reset) < NEAR_NS,
            _ => ring.reset_event.is_some() && self.t_ns.is_none(),
        };
        let weight = if near_reset {
            Weight::Doubt
        } else {
            Weight::Defect
        };
        match self.soft_limit {
            Some(SoftLimit::Given(limit)) => {
                self.claim(Claim::SoftFullExitIsDue, used >= limit, weight, || {
                    format!(
                        "vcpu {vcpu} leaves with {used} entries in use; the soft limit is {limit}"
                    )
                });
            }
            Some(SoftLimit::Inferred(limit)) => {
                self.claim(Claim::SoftLimitIsConstant, used >= limit, Weight::Doubt, || {
                    format!(
                        "vcpu {vcpu} leaves with {used} entries in use; the first exit of this log needs a limit of {limit}"
                    )
                });
            }
            None => {
                self.unknown(Unknown::RingSize);
                self.soft_limit = infer(used, self.config.ring_entries).map(SoftLimit::Inferred);
            }
        }
    }

    fn userspace_exit(&mut self, tid: Option<u32>, reason: Option<u32>) {
        let Some(name) = tid.and_then(|tid| self.ring_of_tid.get(&tid).copied().flatten()) else {
            return self.unknown(Unknown::VcpuOfThread);
        };
        let Some(mut ring) = self.take_ring(name) else {
            return;
        };
        if ring.exit_pending {
            ring.exit_pending = false;
            self.claim(
                Claim::SoftFullExitReachesUserspace,
                reason == Some(EXIT_DIRTY_RING_FULL),
                Weight::Defect,
                || match reason {
                    Some(reason) => format!(
                        "vcpu {name}: exit {reason} follows kvm_dirty_ring_exit; expected 31"
                    ),
                    None => format!(
                        "vcpu {name}: KVM_RUN fails after kvm_dirty_ring_exit; expected exit 31"
                    ),
                },
            );
        } else if reason == Some(EXIT_DIRTY_RING_FULL) {
            // After a gap the event may be in the gap; then the ring's indices are not known either.
            if self.saw_ring_exits && ring.used().is_some() {
                self.claim(
                    Claim::SoftFullExitReachesUserspace,
                    false,
                    Weight::Doubt,
                    || format!("vcpu {name}: exit 31 without a kvm_dirty_ring_exit before it"),
                );
            }
            // Where the ring was looked at is not told; KVM may have stored of its own since, and RESET freed entries.
            if ring.most_in_run.is_none() && ring.used().is_some() {
                self.unknown(Unknown::HarvestBefore);
            } else {
                self.exit_is_due(name, &ring, ring.most_in_run);
            }
        } else if reason.is_some() {
            self.still_running(name, &mut ring);
        }
        if reason == Some(EXIT_DIRTY_RING_FULL) {
            ring.pushes_since_exit = None;
        }
        ring.used_at_own = ring.used();
        ring.most_in_run = ring.used();
        self.rings.insert(name, ring);
    }

    /// An exit with another reason: harmless once, because a ring may fill on the way out. Entries pushed after it,
    /// with the ring soft-full all along, say that the vCPU went on.
    fn still_running(&mut self, name: u32, ring: &mut Ring) {
        let (Some(used), Some(SoftLimit::Given(limit))) = (ring.used(), self.soft_limit) else {
            ring.pushes_since_exit = None;
            return;
        };
        if used < limit {
            ring.pushes_since_exit = None;
            return;
        }
        if let Some(pushes) = ring.pushes_since_exit {
            self.claim(Claim::SoftFullRingDoesNotEnter, pushes == 0, Weight::Doubt, || {
                format!(
                    "vcpu {name}: {pushes} entries between two exits that are not 31, with {used} in use and a soft limit of {limit}"
                )
            });
        }
        ring.pushes_since_exit = Some(0);
    }
}

/// The largest soft limit that a ring can have which leaves with this many entries in use: a size, a power of two that
/// is at most KVM's largest (or the size that is known), less one of the reserves.
fn infer(used: u32, entries: Option<u32>) -> Option<u32> {
    let sizes = (8..=16)
        .map(|n| 1_u32 << n)
        .filter(|size| entries.is_none_or(|known| known == *size));
    sizes
        .flat_map(|size| {
            reserves()
                .into_iter()
                .filter_map(move |reserve| size.checked_sub(reserve))
        })
        .filter(|limit| *limit > 0 && *limit <= used)
        .max()
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
