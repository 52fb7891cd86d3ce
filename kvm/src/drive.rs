//! Running code under schedules: all of them, those of seeds, or the one of a trace; with as many threads as it turns out to have.

use std::path::Path;
use std::sync::Arc;

use dirtysim_evidence::replay::steps;
use dirtysim_evidence::trace::TraceReader;
use dirtysim_model::transition::Step;

use crate::checker::Checker;
use crate::failure::{Failure, FailureKind};
use crate::report::{Outcome, Report};
use crate::session::{Code, NOT_APART, TOO_MANY_APART, TOO_MANY_THREADS, Threads};
use crate::vm::Vm;
use crate::work::Work;

/// Seeds that `check` tries before it searches: most bugs are found by these, at once.
const FIRST_SEEDS: u64 = 512;
/// Threads of the code, at most.
const MOST_THREADS: u8 = 3;

impl Checker {
    /// Runs code under every schedule. Where a limit comes first, under those of the seeds, and the report says so.
    ///
    /// # Errors
    /// What went wrong under some schedule, or with the code or machine as such.
    pub fn check<R: Outcome + 'static>(
        &self,
        code: impl Fn(Vm) -> R + Send + Sync + 'static,
    ) -> Result<Report, Box<Failure>> {
        self.drive(code, |work| {
            work.tree.guesses = true;
            let first = self.seeds.start..self.seeds.end.min(self.seeds.start + FIRST_SEEDS);
            work.seeds(first)?;
            work.search()
        })
    }

    /// Runs code under the schedules of the seeds, by a mix of schedulers.
    ///
    /// # Errors
    /// As [`Checker::check`].
    pub fn run<R: Outcome + 'static>(
        &self,
        code: impl Fn(Vm) -> R + Send + Sync + 'static,
    ) -> Result<Report, Box<Failure>> {
        self.drive(code, |work| work.seeds(self.seeds.clone()))
    }

    /// Runs code under the schedule of a trace: its steps where they are possible, in their order; then any. So a trace is good for
    /// code that has changed since.
    ///
    /// # Errors
    /// As [`Checker::check`]; and a trace that is none.
    pub fn replay<R: Outcome + 'static>(
        &self,
        trace: impl AsRef<Path>,
        code: impl Fn(Vm) -> R + Send + Sync + 'static,
    ) -> Result<Report, Box<Failure>> {
        let like = self.read(trace.as_ref())?;
        self.drive(code, |work| work.like(&like, trace.as_ref()))
    }

    /// The steps of a trace.
    fn read(&self, trace: &Path) -> Result<Vec<Step>, Box<Failure>> {
        let file = trace.display().to_string();
        let wrong = |what: String| Failure::of(FailureKind::Trace { what }, &self.name);
        let reader = TraceReader::open(trace).map_err(|error| wrong(error.to_string()))?;
        let scenario = steps::scenario_of(reader.header(), &file);
        let scenario = scenario.map_err(|error| wrong(error.to_string()))?;
        let mut taken = Vec::new();
        steps::replay(reader, &file, scenario, |step| taken.push(step))
            .map_err(|error| wrong(error.to_string()))?;
        Ok(taken)
    }

    fn drive<R: Outcome + 'static>(
        &self,
        code: impl Fn(Vm) -> R + Send + Sync + 'static,
        how: impl Fn(&mut Work<'_>) -> Result<Report, Box<Failure>>,
    ) -> Result<Report, Box<Failure>> {
        let code: Code = Arc::new(move |session| code(Vm::new(session)).into_words());
        let mut threads = Threads {
            count: 1,
            apart: false,
        };
        loop {
            let mut work = Work::new(self, code.clone(), threads, false)?;
            let kept = self.kept().filter(|kept| kept.exists());
            let first = match kept {
                // What cannot be read any more is no reason not to test.
                Some(kept) => match self.read(&kept) {
                    Ok(like) => work.like(&like, &kept).map(|_| ()),
                    Err(failure) => {
                        println!("{}: {}", self.name, failure.kind());
                        Ok(())
                    }
                },
                None => Ok(()),
            };
            let done = first.and_then(|()| how(&mut work));
            match done {
                Err(failure) if other_threads(&failure, threads).is_some() => {
                    threads = other_threads(&failure, threads).unwrap_or(threads);
                }
                Err(failure) if wants_more_threads(&failure) => {
                    let what = format!("more than {MOST_THREADS} threads");
                    let place = match failure.kind {
                        FailureKind::Mistake { place, .. } => place,
                        _ => String::new(),
                    };
                    return Err(Failure::of(
                        FailureKind::Mistake { what, place },
                        &self.name,
                    ));
                }
                Err(mut failure) => {
                    if let Some(kept) = self.kept().filter(|_| failure.found.is_some()) {
                        let written = failure.write_trace(&kept);
                        failure.trace = Some(match written {
                            Ok(()) => Ok(kept),
                            Err(error) => Err(format!("{}: {error}", kept.display())),
                        });
                    }
                    return Err(failure);
                }
                Ok(report) => return Ok(report),
            }
        }
    }
}

fn wants_more_threads(failure: &Failure) -> bool {
    let more = [TOO_MANY_THREADS, TOO_MANY_APART];
    matches!(&failure.kind, FailureKind::Mistake { what, .. } if more.contains(&what.as_str()))
}

/// The threads with which code is to be begun anew, where those that it was given are not what it wants.
fn other_threads(failure: &Failure, now: Threads) -> Option<Threads> {
    let FailureKind::Mistake { what, .. } = &failure.kind else {
        return None;
    };
    match what.as_str() {
        NOT_APART => Some(Threads {
            apart: false,
            ..now
        }),
        TOO_MANY_THREADS | TOO_MANY_APART if now.count < MOST_THREADS => Some(Threads {
            count: now.count + 1,
            apart: what == TOO_MANY_APART,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    #[test]
    fn seeds_go_on_where_there_is_no_room_for_more_histories_and_a_search_falls_back_to_them() {
        use crate::Arch;
        let machine = Machine::new(Arch::X86).slot(0, 3).stores(2);
        let code = |vm: Vm| {
            let ram = vm.memory_region(0);
            vm.set_user_memory_region(ram.log_dirty_pages())?;
            vm.send_all_pages();
            for last in [false, false, true] {
                if last {
                    vm.pause_vcpus();
                }
                let bits = vm.get_dirty_log(0, ram.memory_size as usize)?[0];
                let pages = (0..3).filter(|page| bits >> page & 1 != 0);
                pages.for_each(|page| vm.send_page(0, page));
            }
            vm.assert_copy_is_whole();
            Ok::<(), crate::Errno>(())
        };
        let mut checker = Checker::new(machine).seeds(0..200);
        let whole = checker.check(code).expect("it is right");
        assert!(whole.exhaustive && whole.histories > 13, "{whole}");
        checker.most_histories = 40;
        let report = checker.run(code).expect("it is right");
        assert_eq!(report.schedules, 200);
        assert!(report.histories <= 40, "{report}");
        checker.most_histories = whole.histories as u16 - 1;
        let report = checker.check(code).expect("it is right");
        assert!(!report.exhaustive, "{report}");
        let note = report.note.expect("it says why");
        assert!(note.contains("histories"), "{note}");
        // A run that has no room at all is told.
        checker.most_histories = 3;
        assert!(checker.run(code).is_err());
    }
}
