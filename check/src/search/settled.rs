//! A question that is too large as it was asked, settled by a larger one.
//!
//! What is proved with any number of stores, rounds and pages (`docs/proofs.md`) holds with a scenario's own, and one page that is tracked
//! makes fewer states than many that are kept. So a search that knows many states and has not ended asks for that first, once, and goes
//! on from where it was if that is not proved.

use std::time::Instant;

use super::limits::Limits;
use super::{Coverage, Options, Progress, Report, Watch, tracked};
use crate::run::{self, Scheduler, run, target};
use crate::scenario::Scenario;
use crate::sometimes::no_claim;

/// Many states: some seconds of a search. The larger question may have as many.
pub(super) const MANY_STATES: u64 = 1 << 24;

/// Seeded schedules that are asked whether the machine does what its program must.
const SCHEDULES: u64 = 16;

/// What a search asks while it goes on.
pub(super) struct Settled<'a> {
    scenario: &'a Scenario,
    options: &'a Options,
    limits: Limits<'a>,
    watch: Watch<'a>,
    begun: Instant,
    /// The states after which it is asked; none: it was, or is not to be.
    after: Option<u64>,
    report: Option<Report>,
}

impl<'a> Settled<'a> {
    /// Time counts from now on.
    pub(super) fn new(
        scenario: &'a Scenario,
        options: &'a Options,
        limits: Limits<'a>,
        watch: Watch<'a>,
    ) -> Self {
        let machine = &scenario.machine;
        // Nothing is argued for a wrong kernel, nor of code that is not known whole; and what is expected to break has no proof.
        let may_be_proved =
            machine.mutations().is_empty() && machine.code.is_none() && target(scenario).is_none();
        Self {
            after: (options.reductions.any_number_after).filter(|_| may_be_proved),
            scenario,
            options,
            limits,
            watch,
            begun: Instant::now(),
            report: None,
        }
    }

    /// Whether a search that has broken nothing so far need not go on. Asked after each of its levels.
    pub(super) fn is_by_any_number(&mut self, progress: &Progress) -> bool {
        if self.after.is_none_or(|after| progress.states < after) {
            return false;
        }
        self.after = None;
        self.report = self.proof(progress);
        self.report.is_some()
    }

    /// What was proved in the place of the search.
    pub(super) fn report(self) -> Option<Report> {
        self.report
    }

    fn proof(&self, progress: &Progress) -> Option<Report> {
        let wide = self.scenario.widened()?.scenario;
        if !wide.any_pages {
            return None;
        }
        let options = Options {
            max_states: Some(
                self.options
                    .max_states
                    .unwrap_or(MANY_STATES)
                    .min(MANY_STATES),
            ),
            max_memory_bytes: Some(self.limits.bytes().saturating_sub(progress.bytes)),
            max_time: (self.options.max_time).map(|time| time.saturating_sub(self.begun.elapsed())),
            ..self.options.clone()
        };
        let (report, broken) = tracked::abstracted(&wide, &options, self.watch).ok()?;
        let proved = broken.is_none() && report.coverage == Coverage::Proved;
        (proved && does_what_it_must(self.scenario)).then_some(Report {
            own_numbers: Some(progress.states),
            ..report
        })
    }
}

/// Whether some schedule of the machine as it is does what its program must: with other numbers, or with pages in another order, there are
/// schedules that it has not.
pub(super) fn does_what_it_must(scenario: &Scenario) -> bool {
    let options = run::Options {
        seeds: 0..SCHEDULES,
        scheduler: Scheduler::Mix,
        keep_going: true,
    };
    no_claim(&scenario.machine, run(scenario, &options, &|_| true).seen).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::builtin;
    use crate::search::{Reductions, Verdict, check};

    fn asked_after(scenario: &Scenario, any_number_after: Option<u64>) -> Report {
        let options = Options {
            reductions: Reductions {
                any_number_after,
                ..Reductions::ALL
            },
            ..Options::default()
        };
        let report = check(scenario, &options, &|_| true).expect("it has room");
        let peak_bytes = 0;
        Report {
            peak_bytes,
            ..report
        }
    }

    #[test]
    fn what_is_proved_for_any_number_ends_a_search() {
        let scenario = builtin("x86-bitmap-fast-path").expect("it comes with the program");
        let report = asked_after(&scenario, Some(1_000));
        assert_eq!(
            (report.verdict, report.coverage),
            (Verdict::Holds, Coverage::Proved)
        );
        assert!(report.own_numbers.is_some_and(|states| states >= 1_000));
    }

    #[test]
    fn a_search_goes_on_where_nothing_is_proved() {
        // The first loses a page, with any number as with its own; for the second any number of pages is not argued.
        let text = |name: &str, arch: &str, end: &str| {
            let text = format!(
                "name = \"{name}\"\n[machine]\narch = \"{arch}\"\npages = 2\n[writers]\nvcpu = {{ stores = 2 }}\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", {end}, \"copy\", \"finish\"]\n"
            );
            Scenario::from_toml(name, &text).expect("it is right")
        };
        let early = text("early", "x86", "\"get-dirty-log\", \"pause-vcpus\"");
        let s390 = text("s390", "s390", "\"pause-vcpus\", \"get-dirty-log\"");
        for scenario in [early, s390] {
            let asked = asked_after(&scenario, Some(10));
            assert_eq!(asked.own_numbers, None, "{}", scenario.name);
            assert!(asked.states > 10, "{}", scenario.name);
            assert_eq!(asked, asked_after(&scenario, None), "{}", scenario.name);
        }
    }
}
