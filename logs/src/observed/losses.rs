//! What lost events can explain.
//!
//! A tracer has a buffer for each processor, and says that one lost events where its next event stands: those of other
//! processors come between. So from the last event of a processor up to where its loss is told, anything may be missing,
//! also what another processor's event is compared with; and a buffer that was overwritten begins anywhere. A defect that
//! was found in such a stretch is a doubt.

use std::collections::HashMap;

use super::ring::KEPT_MAX;
use crate::trace::observed::{GapReason, ObservedEvent};

/// Stretches of a log in which events are missing, by the defects that were found in them: these are numbered from 0.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Defects that had been found at the last event of a log's processor.
    last: HashMap<(u32, u32), u64>,
    /// The same where a buffer was overwritten: processors of that log begin anywhere after it.
    overwritten: HashMap<u32, u64>,
    /// From the first defect up to the last, this not included; they rise, and none touches the next.
    stretches: Vec<(u64, u64)>,
}

impl Losses {
    /// Takes note of an event, before which so many defects had been found; whether its processor's buffer was overwritten and
    /// begins here, so that nothing before can be relied on.
    pub(super) fn begins(&mut self, event: &ObservedEvent, defects: u64) -> bool {
        let from = event
            .cpu
            .filter(|cpu| !self.last.contains_key(&(event.file, *cpu)))
            .and_then(|_| self.overwritten.get(&event.file).copied());
        if let Some(from) = from {
            self.missing(from, defects);
        }
        from.is_some()
    }

    /// Takes note of an event, after which so many defects had been found.
    pub(super) fn event(&mut self, event: &ObservedEvent, defects: u64) {
        let Some(cpu) = event.cpu else { return };
        let key = (event.file, cpu);
        if self.last.len() < KEPT_MAX || self.last.contains_key(&key) {
            self.last.insert(key, defects);
        }
    }

    /// Takes note that events are missing.
    pub(super) fn gap(&mut self, event: &ObservedEvent, reason: GapReason, defects: u64) {
        match (reason, event.cpu) {
            // Of a processor that was not seen, or that nobody names, they may have been anywhere.
            (GapReason::Lost, cpu) => {
                let last = cpu.and_then(|cpu| self.last.get(&(event.file, cpu)).copied());
                self.missing(last.unwrap_or(0), defects);
            }
            (GapReason::Overwritten, _) => {
                self.overwritten.insert(event.file, defects);
            }
            // Lines stand where they stand.
            (GapReason::Damaged | GapReason::Overlong, _) => {}
        }
    }

    fn missing(&mut self, mut from: u64, to: u64) {
        while let Some((first, end)) = self.stretches.pop() {
            if end < from {
                self.stretches.push((first, end));
                break;
            }
            from = from.min(first);
        }
        if from < to {
            self.stretches.push((from, to));
        }
    }

    /// Whether a defect lies where events are missing.
    pub(super) fn explain(&self, defect: u64) -> bool {
        let after = self.stretches.partition_point(|(_, end)| *end <= defect);
        self.stretches
            .get(after)
            .is_some_and(|(first, _)| *first <= defect)
    }

    /// How many do.
    pub(super) fn explained(&self) -> u64 {
        self.stretches.iter().map(|(first, end)| end - first).sum()
    }
}
