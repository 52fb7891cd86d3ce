//! What a log tells of userspace's side: which entries it harvested, and what was reset for it.

use std::collections::HashMap;

/// Userspace's side, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Harvest {
    /// KVM's vCPU id behind QEMU's index.
    pub(crate) vcpu_of_index: HashMap<u32, u32>,
    /// VM ioctls are in this log, so that one that is absent was not made.
    pub(crate) ioctls_recorded: bool,
    /// A `KVM_RESET_DIRTY_RINGS` was seen after the last harvested entry.
    pub(crate) reset_after_page: bool,
    /// A flush was started and not ended; `None` before the first.
    pub(crate) flush_open: Option<bool>,
    /// The same of migration's syncs.
    pub(crate) sync_open: Option<bool>,
    /// Entries that RESET has returned and no event has told of.
    pub(crate) untold: u64,
    next_fetch: HashMap<u32, u32>,
    pages_recorded: bool,
    /// Pages and resets since a reap; `None` before the first, where the log does not say what came before.
    since_reap: Option<Since>,
    /// Entries reset since a probed `KVM_RESET_DIRTY_RINGS` was entered.
    since_enter: Option<Since>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Since {
    pages: u64,
    /// Entries consumed by resets.
    reset: u64,
    /// Reset events.
    resets: u64,
    /// A reset whose count is not known.
    uncounted: bool,
}

/// What is known at a reap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Totals {
    /// Pages harvested since the reap before.
    pub(crate) harvested: Option<u64>,
    /// Entries that the kernel reset since then.
    pub(crate) reset: Option<u64>,
    /// Whether the reset's ioctl was seen, where ioctls are recorded.
    pub(crate) ioctl_seen: Option<bool>,
}

impl Harvest {
    /// Forgets what a gap may have changed.
    pub(crate) fn forget(&mut self) {
        self.next_fetch.clear();
        self.since_reap = None;
        self.since_enter = None;
        self.untold = 0;
        self.flush_open = None;
        self.sync_open = None;
        self.reset_after_page = false;
        self.ioctls_recorded = false;
    }

    /// Takes note of a harvested entry; answers the index that was next.
    pub(crate) fn fetch(
        &mut self,
        cpu_index: u32,
        fetch: u32,
        kept_max: usize,
    ) -> Result<Option<u32>, ()> {
        self.pages_recorded = true;
        self.reset_after_page = false;
        if let Some(since) = &mut self.since_reap {
            since.pages += 1;
        }
        if self.next_fetch.len() >= kept_max && !self.next_fetch.contains_key(&cpu_index) {
            return Err(());
        }
        Ok(self.next_fetch.insert(cpu_index, fetch.wrapping_add(1)))
    }

    /// Takes note of a ring's reset that consumed this many entries.
    pub(crate) fn reset(&mut self, advance: Option<u32>) {
        for since in [&mut self.since_reap, &mut self.since_enter]
            .into_iter()
            .flatten()
        {
            since.resets += 1;
            match advance {
                Some(n) => since.reset += u64::from(n),
                None => since.uncounted = true,
            }
        }
    }

    /// Takes note of a reap, and starts to count anew.
    pub(crate) fn reap(&mut self) -> Totals {
        let since = self.since_reap.replace(Since::default());
        Totals {
            harvested: since
                .filter(|_| self.pages_recorded)
                .map(|since| since.pages),
            reset: since
                .filter(|since| since.resets > 0 && !since.uncounted)
                .map(|since| since.reset),
            ioctl_seen: (self.ioctls_recorded && since.is_some()).then_some(self.reset_after_page),
        }
    }

    pub(crate) fn probe_enter(&mut self) {
        self.since_enter = Some(Since::default());
    }

    pub(crate) fn probe_return(&mut self) -> Option<u64> {
        let since = self.since_enter.take()?;
        (since.resets > 0 && !since.uncounted).then_some(since.reset)
    }
}
