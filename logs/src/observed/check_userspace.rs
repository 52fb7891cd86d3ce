//! The checker's other half: what userspace did, as QEMU or a probe saw it.

use std::cmp::Ordering;

use super::check::{Checker, Slot};
use super::report::{Claim, Unknown, Weight};
use super::ring::KEPT_MAX;
use super::ring::{Page, Ring};
use crate::trace::observed::{KvmIoctl, Phase};

impl Checker {
    pub(super) fn page(&mut self, cpu_index: u32, fetch: u32, offset: u64) {
        match self.harvest.fetch(cpu_index, fetch, KEPT_MAX) {
            Ok(Some(expected)) => {
                self.claim(
                    Claim::HarvestIsInOrder,
                    fetch == expected,
                    Weight::Defect,
                    || {
                        format!(
                            "QEMU cpu {cpu_index}: fetch index {fetch} where {expected} was next"
                        )
                    },
                );
            }
            Ok(None) => self.unknown(Unknown::FirstOfItsRing),
            Err(()) => self.unknown(Unknown::TooMany),
        }
        if self.rings.is_empty() {
            return self.unknown(Unknown::RingIndices);
        }
        let Some(&vcpu) = self.harvest.vcpu_of_index.get(&cpu_index) else {
            return self.unknown(Unknown::VcpuOfIndex);
        };
        let Some(ring) = self.rings.get_mut(&vcpu) else {
            return self.unknown(Unknown::RingIndices);
        };
        ring.read(fetch);
        if let Some(entry) = ring.entry(fetch) {
            let ((slot, pushed), line) = (entry.page, entry.line);
            self.claim(Claim::HarvestedEntryWasPushed, pushed == offset, Weight::Defect, || {
                format!("vcpu {vcpu}: offset {offset:#x} harvested at {fetch}; slot {slot} offset {pushed:#x} was pushed there, on line {line}")
            });
        } else if ring.is_reset(fetch) {
            let reset = ring.reset.unwrap_or_default();
            let gone = ring.gone(fetch);
            self.claim(Claim::HarvestedEntryWasPushed, false, Weight::Defect, || {
                let page = gone.map_or(String::new(), |(entry, line)| {
                    format!(": slot {} offset {:#x}, pushed on line {}, reset on line {line}", entry.page.0, entry.page.1, entry.line)
                });
                format!("vcpu {vcpu}: index {fetch} harvested after it was reset (reset index {reset}){page}")
            });
        } else if ring.dirty == Some(fetch) {
            self.unknown(Unknown::InFlight);
        } else if let Some(dirty) = ring.dirty
            && fetch.wrapping_sub(dirty) <= i32::MAX as u32
        {
            self.claim(Claim::HarvestedEntryWasPushed, false, Weight::Doubt, || {
                format!(
                    "vcpu {vcpu}: index {fetch} harvested, and only {dirty} entries were pushed"
                )
            });
        } else {
            self.unknown(Unknown::RingIndices);
        }
    }

    pub(super) fn reap(&mut self, count: u64) {
        let totals = self.harvest.reap();
        match totals.harvested {
            Some(pages) => {
                self.claim(Claim::ResetCountEqualsHarvested, pages == count, Weight::Defect, || {
                    format!("QEMU reaped {count} pages; {pages} kvm_dirty_ring_page since the reap before")
                });
            }
            None => self.unknown(Unknown::HarvestBefore),
        }
        let unread = self.first_unread();
        if let Some(reset) = totals.reset {
            self.claim(
                Claim::ResetCountEqualsHarvested,
                reset == count,
                Weight::Defect,
                || {
                    let page = unread.unwrap_or_default();
                    format!("QEMU reaped {count} pages; the kernel reset {reset} entries{page}")
                },
            );
        }
        if let Some(was_reset) = totals.ioctl_seen {
            self.claim(Claim::HarvestIsReset, was_reset, Weight::Defect, || {
                "QEMU reaped, and no KVM_RESET_DIRTY_RINGS follows the last harvested entry"
                    .to_owned()
            });
        }
    }

    /// The entry with the lowest line that was reset since the reap before, and that nobody had read; of rings whose reader is
    /// known.
    fn first_unread(&mut self) -> Option<String> {
        let mut first: Option<(u64, Page, u32, u64)> = None;
        for vcpu in self.harvest.vcpu_of_index.values() {
            if let Some((entry, reset)) = self.rings.get_mut(vcpu).and_then(Ring::take_unread)
                && first.is_none_or(|(line, ..)| entry.line < line)
            {
                first = Some((entry.line, entry.page, *vcpu, reset));
            }
        }
        let (line, (slot, offset), ring, reset) = first?;
        Some(format!(
            "; of ring {ring} nobody had read slot {slot} offset {offset:#x}, pushed on line {line}, reset on line {reset}"
        ))
    }

    pub(super) fn paired(&mut self, ends: bool, flush: bool) {
        let open = if flush {
            &mut self.harvest.flush_open
        } else {
            &mut self.harvest.sync_open
        };
        let before = open.replace(!ends);
        let what = if flush { "flush" } else { "sync" };
        match before {
            Some(was_open) => self.claim(
                Claim::StartsAndEndsArePaired,
                was_open == ends,
                Weight::Note,
                || {
                    if ends {
                        format!("a {what} ends that did not start")
                    } else {
                        format!("a {what} starts before the one before it ended")
                    }
                },
            ),
            None => self.unknown(Unknown::HarvestBefore),
        }
    }

    pub(super) fn clear(&mut self, slot: u32, start: u64, size: u32) {
        self.claim(
            Claim::ClearRangeIsLegal,
            start.is_multiple_of(64),
            Weight::Defect,
            || {
                format!(
                    "CLEAR of slot {slot} starts at page {start:#x}, which is no multiple of 64"
                )
            },
        );
        let Some(known) = self.slots.get(&slot).copied() else {
            return self.unknown(Unknown::Memslots);
        };
        let end = start.saturating_add(u64::from(size));
        let pages = known.bytes / self.config.page_size.unwrap_or(4096).max(1);
        self.claim(
            Claim::ClearRangeIsLegal,
            end <= pages,
            Weight::Defect,
            || format!("CLEAR of slot {slot} ends at page {end:#x}; the slot has {pages:#x}"),
        );
        if self.config.page_size.is_some() {
            self.claim(Claim::ClearRangeIsLegal, size.is_multiple_of(64) || end == pages, Weight::Defect, || {
                format!("CLEAR of slot {slot} has {size:#x} pages, no multiple of 64, and does not end with the slot")
            });
        } else {
            self.unknown(Unknown::PageSize);
        }
    }

    pub(super) fn set_memory(&mut self, slot: u32, flags: u64, bytes: u64, ret: i64) {
        if ret != 0 {
            return;
        }
        if bytes == 0 {
            self.slots.remove(&slot);
        } else if self.slots.len() < KEPT_MAX || self.slots.contains_key(&slot) {
            self.slots.insert(
                slot,
                Slot {
                    bytes,
                    logs: flags & 1 != 0,
                },
            );
        } else {
            self.unknown(Unknown::TooMany);
        }
    }

    pub(super) fn vm_ioctl(&mut self, ioctl: KvmIoctl) {
        self.harvest.ioctls_recorded = true;
        match ioctl {
            KvmIoctl::ResetDirtyRings => {
                self.harvest.reset_after_page = true;
                self.arming += 1;
            }
            KvmIoctl::GetDirtyLog | KvmIoctl::ClearDirtyLog => self.arming += 1,
            _ => {}
        }
    }

    /// RESET has returned this, and its events told of so many. From Linux 6.17 on a signal ends it within a ring, of which no event
    /// tells then; what was consumed there, the ring's next event tells.
    fn reset_returned(&mut self, ret: u64, counted: u64) {
        let untold = self.harvest.untold.saturating_add(ret);
        self.harvest.untold = untold.saturating_sub(counted);
        let (holds, weight) = match ret.cmp(&counted) {
            Ordering::Equal => (true, Weight::Defect),
            Ordering::Greater => (false, Weight::Doubt),
            Ordering::Less => (counted <= untold, Weight::Defect),
        };
        self.claim(Claim::ResetReturnsItsCount, holds, weight, || {
            format!("KVM_RESET_DIRTY_RINGS returned {ret}; its events consumed {counted} entries")
        });
    }

    pub(super) fn probe_ioctl(&mut self, phase: Phase, ioctl: KvmIoctl, ret: Option<i64>) {
        match (phase, ioctl) {
            (Phase::Enter, KvmIoctl::ResetDirtyRings) => self.harvest.probe_enter(),
            (Phase::Return, KvmIoctl::ResetDirtyRings) => {
                self.arming += 1;
                let counted = self.harvest.probe_return();
                let ret = ret.and_then(|ret| u64::try_from(ret).ok());
                if let (Some(counted), Some(ret)) = (counted, ret) {
                    self.reset_returned(ret, counted);
                } else {
                    // A call that a signal ended in its first ring has no event: what it consumed is told later as well.
                    let untold = self.harvest.untold.saturating_add(ret.unwrap_or(0));
                    self.harvest.untold = untold;
                    self.unknown(Unknown::RingIndices);
                }
            }
            (Phase::Return, KvmIoctl::GetDirtyLog | KvmIoctl::ClearDirtyLog) => self.arming += 1,
            _ => {}
        }
    }
}
