//! Telling virtual machines apart in one log.
//!
//! With process numbers (`record-tgid`, `perf script -F +pid`) it is plain. Without, a ring gives it away: two threads
//! that push to a ring of the same number, each with indices that follow its own and not the other's, are vCPUs of two
//! VMs. Then the log cannot be one VM's trace, and the caller has to choose.

use std::collections::{BTreeMap, HashMap};

use crate::trace::observed::{Observed, ObservedEvent};

/// Threads, processes and rings that are kept.
const KEPT_MAX: usize = 65_536;

/// A process, or a thread where processes are not known, that a log has events of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenPid {
    /// Its number, as `--pid` takes it.
    pub pid: u32,
    /// Whether it is a thread's number.
    pub is_thread: bool,
    /// Its name, or its first thread's.
    pub comm: String,
    /// Events that import knows.
    pub events: u64,
    /// Line of the first, in its log.
    pub line: u64,
    /// Rings that it pushed to, the first few.
    pub rings: Vec<u32>,
}

/// Which events belong to the VM that is wanted.
#[derive(Debug, Default)]
pub(crate) struct Vms {
    chosen: Vec<u32>,
    seen: BTreeMap<(bool, u32), SeenPid>,
    last: HashMap<u32, (u32, u32)>,
    last_of_thread: HashMap<(u32, u32), u32>,
    process: Option<u32>,
    several: bool,
    admitted: u64,
}

impl Vms {
    pub(crate) fn new(chosen: &[u32]) -> Self {
        Self {
            chosen: chosen.to_owned(),
            ..Self::default()
        }
    }

    /// The log holds events of more than one VM, and none was chosen.
    pub(crate) fn several(&self) -> bool {
        self.several
    }

    /// Events that belong to the VM.
    pub(crate) fn admitted(&self) -> u64 {
        self.admitted
    }

    /// Everyone seen.
    pub(crate) fn into_seen(self) -> Vec<SeenPid> {
        self.seen.into_values().collect()
    }

    /// Whether an event belongs to the VM that is wanted.
    pub(crate) fn admit(&mut self, event: &ObservedEvent, comm: Option<&[u8]>) -> bool {
        self.note(event, comm);
        let admitted = if self.chosen.is_empty() {
            self.conflict(event);
            !self.several
        } else if event.tid.is_none() && event.pid.is_none() {
            // A log that names no thread is of one program.
            true
        } else {
            [event.pid, event.tid]
                .into_iter()
                .flatten()
                .any(|id| self.chosen.contains(&id))
        };
        self.admitted += u64::from(admitted);
        admitted
    }

    fn note(&mut self, event: &ObservedEvent, comm: Option<&[u8]>) {
        let Some((is_thread, pid)) = event
            .pid
            .map(|pid| (false, pid))
            .or(event.tid.map(|tid| (true, tid)))
        else {
            return;
        };
        let full = self.seen.len() >= KEPT_MAX;
        let seen = match self.seen.entry((is_thread, pid)) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(_) if full => return,
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(SeenPid {
                pid,
                is_thread,
                comm: String::from_utf8_lossy(comm.unwrap_or_default().trim_ascii()).into_owned(),
                events: 0,
                line: event.line,
                rings: Vec::new(),
            }),
        };
        seen.events += 1;
        if let Observed::RingPush { ring, .. } = event.what
            && seen.rings.len() < 8
            && !seen.rings.contains(&ring)
        {
            seen.rings.push(ring);
        }
    }

    fn conflict(&mut self, event: &ObservedEvent) {
        if let Some(pid) = event.pid {
            self.several |= self.process.replace(pid).is_some_and(|known| known != pid);
            return;
        }
        let (
            Some(tid),
            &Observed::RingPush {
                ring, dirty_index, ..
            },
        ) = (event.tid, &event.what)
        else {
            return;
        };
        let before = self.last.get(&ring).copied();
        let own = self.last_of_thread.get(&(ring, tid)).copied();
        if let Some((thread, last)) = before
            && thread != tid
            && dirty_index != last.wrapping_add(1)
            && own.is_none_or(|own| dirty_index == own.wrapping_add(1))
        {
            self.several = true;
        }
        if self.last.len() < KEPT_MAX || before.is_some() {
            self.last.insert(ring, (tid, dirty_index));
        }
        if self.last_of_thread.len() < KEPT_MAX || own.is_some() {
            self.last_of_thread.insert((ring, tid), dirty_index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(tid: u32, pid: Option<u32>, dirty_index: u32) -> ObservedEvent {
        let what = Observed::RingPush {
            ring: 0,
            dirty_index,
            reset_index: 0,
            slot: 0,
            offset: 0,
            used: dirty_index,
        };
        ObservedEvent {
            tid: Some(tid),
            pid,
            ..ObservedEvent::at(1, what)
        }
    }

    #[test]
    fn two_threads_that_take_turns_on_one_ring_are_one_vm() {
        let mut vms = Vms::new(&[]);
        for (tid, n) in [(1, 1), (1, 2), (2, 3), (1, 4)] {
            assert!(vms.admit(&push(tid, None, n), None));
        }
    }

    #[test]
    fn two_threads_with_indices_of_their_own_are_two_vms() {
        let mut vms = Vms::new(&[]);
        for (tid, n) in [(1, 1), (1, 2), (2, 901), (1, 3)] {
            vms.admit(&push(tid, None, n), Some(b"CPU 0/KVM"));
        }
        assert!(vms.several());
        let seen = vms.into_seen();
        assert_eq!(
            seen.iter()
                .map(|s| (s.pid, s.is_thread, s.events))
                .collect::<Vec<_>>(),
            [(1, true, 3), (2, true, 1)]
        );
    }

    #[test]
    fn processes_are_told_by_their_number_and_chosen_by_it() {
        let mut vms = Vms::new(&[]);
        vms.admit(&push(1, Some(10), 1), None);
        vms.admit(&push(2, Some(20), 1), None);
        assert!(vms.several());
        let mut vms = Vms::new(&[20]);
        assert!(!vms.admit(&push(1, Some(10), 1), None));
        assert!(vms.admit(&push(2, Some(20), 1), None));
        assert!(!vms.several());
        assert_eq!(vms.admitted(), 1);
    }
}
