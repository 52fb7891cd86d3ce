//! What a first pass over a trace tells of the machine: its rings, its memslots, and what was recorded at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::run::UNSEEN_SLOT;
use crate::observed::CheckConfig;
use crate::trace::observed::{KvmIoctl, Observed, ObservedEvent};
use crate::trace::{Arch, Header};

/// Rings and memslots of which note is taken; a search takes fewer.
const KEPT_MAX: usize = 65_536;

/// The machine behind a trace, as far as its events tell.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    pub(super) config: CheckConfig,
    pub(super) arch: Option<Arch>,
    pub(super) pml: Option<bool>,
    /// vCPU ids with a ring.
    pub(super) rings: BTreeSet<u32>,
    /// Pages of each memslot: one more than the largest offset.
    pub(super) slots: BTreeMap<u32, u64>,
    /// Entries in use at the soft-full exit that had fewest.
    pub(super) least_at_exit: Option<u32>,
    /// The most entries that were in use.
    pub(super) most_used: u32,
    /// Pushes are recorded.
    pub(super) pushes: bool,
    /// Resets are recorded.
    pub(super) resets: bool,
    /// The soft-full exits are recorded.
    pub(super) ring_exits: bool,
    /// The exits to user space are recorded.
    pub(super) userspace_exits: bool,
    /// QEMU's indices of vCPUs from which it harvested, and one more than the largest offset there.
    pub(super) unseen: (BTreeSet<u32>, u64),
    /// Indices of each ring: dirty, reset.
    indices: HashMap<u32, (u32, u32)>,
    /// Entries in use, at most, at the last event of the ring's vCPU itself.
    used_at_own: HashMap<u32, u32>,
}

impl Shape {
    /// Nothing is known but what the header and the caller say.
    #[must_use]
    pub fn new(header: &Header, config: CheckConfig) -> Self {
        let machine = header.machine.as_ref();
        Self {
            config,
            arch: machine.map(|machine| machine.arch),
            pml: machine.and_then(|machine| machine.pml),
            ..Self::default()
        }
    }

    /// A log in which only QEMU names entries: its indices stand for the rings, and there is one slot, which it does not
    /// name.
    pub(super) fn seen_by_qemu_alone(&self) -> Option<Self> {
        let alone = !self.pushes && self.rings.is_empty() && !self.unseen.0.is_empty();
        alone.then(|| Self {
            rings: self.unseen.0.clone(),
            slots: BTreeMap::from([(UNSEEN_SLOT, self.unseen.1)]),
            ..self.clone()
        })
    }

    /// Takes note of an event.
    pub fn event(&mut self, event: &ObservedEvent) {
        match &event.what {
            Observed::RingPush {
                ring,
                dirty_index,
                reset_index,
                slot,
                offset,
                ..
            } => {
                self.pushes = true;
                self.ring(*ring, *dirty_index, *reset_index);
                self.own(*ring);
                self.page(*slot, *offset);
            }
            Observed::RingReset {
                ring,
                dirty_index,
                reset_index,
                ..
            } => {
                self.resets = true;
                self.ring(*ring, *dirty_index, *reset_index);
            }
            Observed::RingExit { vcpu } => {
                self.ring_exits = true;
                if let Some(&used) = self.used_at_own.get(vcpu) {
                    self.least_at_exit = Some(self.least_at_exit.map_or(used, |n| n.min(used)));
                }
                self.own(*vcpu);
            }
            Observed::UserspaceExit { .. } => self.userspace_exits = true,
            Observed::PmlFull { .. } => {
                self.arch = self.arch.or(Some(Arch::X86_64));
                self.pml = self.pml.or(Some(true));
            }
            Observed::PageFault { .. }
            | Observed::FastPageFault { .. }
            | Observed::SetSpte { .. }
            | Observed::TdpSpteChanged { .. } => self.arch = self.arch.or(Some(Arch::X86_64)),
            Observed::GuestFault { .. } | Observed::AccessFault { .. } => {
                self.arch = self.arch.or(Some(Arch::Arm64));
            }
            Observed::QemuClear { slot, start, size } => {
                self.page(
                    *slot,
                    start.saturating_add(u64::from(*size)).saturating_sub(1),
                );
            }
            Observed::ProbeIoctl {
                ioctl: KvmIoctl::GetDirtyLog | KvmIoctl::ClearDirtyLog,
                slot: Some(slot),
                first_page,
                num_pages,
                ..
            } => {
                let pages = u64::from(num_pages.unwrap_or(0));
                let end = first_page.unwrap_or(0).saturating_add(pages);
                self.page(*slot, end.saturating_sub(1));
            }
            Observed::QemuPage {
                cpu_index, offset, ..
            } if self.unseen.0.len() < KEPT_MAX => {
                self.unseen.0.insert(*cpu_index);
                self.unseen.1 = self.unseen.1.max(offset.saturating_add(1));
            }
            Observed::Gap { .. } => {
                self.indices.clear();
                self.used_at_own.clear();
            }
            _ => {}
        }
    }

    fn ring(&mut self, ring: u32, dirty: u32, reset: u32) {
        if self.rings.len() < KEPT_MAX {
            self.rings.insert(ring);
            self.indices.insert(ring, (dirty, reset));
        }
        let used = dirty.wrapping_sub(reset);
        if used <= i32::MAX as u32 {
            self.most_used = self.most_used.max(used);
        }
    }

    /// The vCPU had an event: whatever it looks at, it looks at after this.
    fn own(&mut self, ring: u32) {
        if let Some((dirty, reset)) = self.indices.get(&ring) {
            self.used_at_own.insert(ring, dirty.wrapping_sub(*reset));
        }
    }

    fn page(&mut self, slot: u32, offset: u64) {
        if self.slots.len() < KEPT_MAX || self.slots.contains_key(&slot) {
            let pages = self.slots.entry(slot).or_insert(0);
            *pages = (*pages).max(offset.saturating_add(1));
        }
    }
}
