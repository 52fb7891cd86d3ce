//! What an import says about what it did, and about what the logs could not tell.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::source::LogStats;
use crate::observed::{CheckReport, SoftLimit};

/// Findings of each claim and weight that the text shows.
const SHOWN_OF_EACH: u32 = 10;

/// Something that the logs cannot tell, and what would have told it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hint {
    /// What is not known.
    pub unknown: String,
    /// What to record or to say next time.
    pub help: String,
}

/// The outcome of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogSummary {
    /// Each log.
    pub logs: Vec<LogStats>,
    /// Events that are in the trace, by name.
    pub events: BTreeMap<&'static str, u64>,
    /// Events that were left out because they are not the chosen VM's.
    pub other_vms: u64,
    /// What the logs cannot tell.
    pub unknown: Vec<Hint>,
    /// What the events say about each other.
    pub check: CheckReport,
}

impl LogSummary {
    /// Works out what the logs cannot tell, from what is in them.
    pub(super) fn hints(
        events: &BTreeMap<&'static str, u64>,
        processes: bool,
        times: bool,
    ) -> Vec<Hint> {
        let count = |name: &str| events.get(name).copied().unwrap_or(0);
        let mut hints = Vec::new();
        let mut hint = |unknown: String, help: &str| {
            hints.push(Hint {
                unknown,
                help: help.to_owned(),
            })
        };
        let (pushes, pages) = (count("kvm_dirty_ring_push"), count("kvm_dirty_ring_page"));
        if pages > 0 && pushes == 0 {
            hint(
                format!(
                    "the slot of {pages} harvested pages: QEMU's kvm_dirty_ring_page names a vCPU and an offset only"
                ),
                "record kvm:kvm_dirty_ring_push too",
            );
        }
        if pushes > 0 && count("kvm_dirty_ring_reset") == 0 {
            hint(
                "which entries were reset, and when".to_owned(),
                "record kvm:kvm_dirty_ring_reset too",
            );
        }
        if pushes > 0 && pages == 0 {
            hint(
                "which entries userspace harvested, and when".to_owned(),
                "record QEMU's kvm_dirty_ring_page and kvm_dirty_ring_reap too",
            );
        }
        if count("dirtysim_ioctl") == 0 {
            hint(
                "what the bitmap held: no tracepoint exists for it, nor for KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG"
                    .to_owned(),
                "record with the bpftrace script of docs/bug-reports.md too",
            );
        }
        if !processes {
            hint(
                "which process a thread belongs to".to_owned(),
                "ftrace: set options/record-tgid; perf: `perf script -F +pid`; QEMU's log never says",
            );
        }
        if !times {
            hint(
                "when an event happened; only the order is known".to_owned(),
                "QEMU: add -msg timestamp=on",
            );
        }
        hints
    }
}

impl fmt::Display for LogSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for log in &self.logs {
            writeln!(
                f,
                "{}: {}, {} lines: {} events, {} other events, {} lines of the tool, {} of others, {} damaged",
                log.name,
                log.kind,
                log.lines,
                log.events,
                log.other_events,
                log.own_lines,
                log.foreign_lines,
                log.damaged_lines
            )?;
            if log.overwritten_events > 0 {
                writeln!(
                    f,
                    "  overwritten before the first line: {} events",
                    log.overwritten_events
                )?;
            }
            if log.losses > 0 {
                writeln!(
                    f,
                    "  places where the tool lost events: {}; events that it counted: {}",
                    log.losses, log.lost_events
                )?;
            }
            if log.clock_steps > 0 {
                writeln!(f, "  steps of the clock backwards: {}", log.clock_steps)?;
            }
            if log.joined_lines > 0 {
                writeln!(
                    f,
                    "  lines that were broken, as in a mail, and read as one: {}",
                    log.joined_lines
                )?;
            }
            for place in &log.places {
                writeln!(f, "  {}:{}: {}", log.name, place.line, place.what)?;
            }
        }
        writeln!(f, "events in the trace:")?;
        for (name, n) in &self.events {
            writeln!(f, "  {n:>10} {name}")?;
        }
        if self.other_vms > 0 {
            writeln!(f, "  {:>10} left out: not of the chosen VM", self.other_vms)?;
        }
        let check = &self.check;
        writeln!(
            f,
            "checked against the interface's contract: {} events compared, {} could not be, {} give context",
            check.compared, check.not_compared, check.context
        )?;
        match check.soft_limit {
            Some(SoftLimit::Given(n)) => writeln!(f, "  soft limit: {n} entries, as given")?,
            Some(SoftLimit::Inferred(n)) => writeln!(
                f,
                "  soft limit: {n} entries, inferred from the first exit; say --ring-entries and --ring-reserved to be sure"
            )?,
            None => {}
        }
        for (reason, n) in &check.unknown {
            writeln!(
                f,
                "  {n:>10} not compared: {}; {}",
                reason.name(),
                reason.help()
            )?;
        }
        let total = check.total();
        match check.weights_in_words() {
            none if none.is_empty() => writeln!(f, "findings: 0")?,
            words => writeln!(f, "findings: {words}")?,
        }
        let mut shown = 0;
        for finding in check.first_of_each(SHOWN_OF_EACH) {
            shown += 1;
            let log = self
                .logs
                .get(finding.file as usize)
                .map_or("?", |log| log.name.as_str());
            writeln!(
                f,
                "  {log}:{}: {}: {}: {}",
                finding.line,
                finding.weight.name(),
                finding.claim.name(),
                finding.text
            )?;
        }
        if total > shown {
            writeln!(
                f,
                "  and {} more; --json has the first {} of each claim",
                total - shown,
                CheckReport::KEPT_OF_EACH
            )?;
        }
        writeln!(f, "not known:")?;
        for hint in &self.unknown {
            writeln!(f, "  {}: {}", hint.unknown, hint.help)?;
        }
        Ok(())
    }
}
