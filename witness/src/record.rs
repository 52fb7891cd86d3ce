//! Recording: a script performed on a subject, and a call trace of what it gave.

use std::io::Write;
use std::path::Path;

use dirtysim::trace::call::{CallRow, RecordedCall, Section};
use dirtysim::trace::call_result::CallResult;
use dirtysim::trace::{Header, Kind, Machine, PendingFile, TraceWriter};

use crate::refusal::Refused;
use crate::script::Script;
use crate::subject::{Subject, VmCall};

/// How often a section is performed, as long as something disturbs it.
const TRIES: u32 = 12;

/// Performs the calls of one section and keeps each with its result.
pub struct Performing<'a, S: ?Sized> {
    subject: &'a mut S,
    rows: Vec<RecordedCall>,
}

impl<S: Subject + ?Sized> Performing<'_, S> {
    /// Performs a call and gives its result.
    ///
    /// # Errors
    /// The subject refuses.
    pub fn call(&mut self, VmCall { vm, call }: VmCall) -> Result<CallResult, Refused> {
        let result = self.subject.perform(vm, &call)?.result()?;
        self.rows.push(RecordedCall {
            vm,
            call,
            result: result.clone(),
        });
        Ok(result)
    }
}

/// Performs sections and writes their calls, each with its result.
pub struct Recorder<'a, W, S: ?Sized> {
    subject: &'a mut S,
    writer: TraceWriter<W>,
    calls: u64,
}

impl<'a, W: Write, S: Subject + ?Sized> Recorder<'a, W, S> {
    /// Writes the header.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn new(
        out: W,
        machine: Machine,
        title: Option<String>,
        subject: &'a mut S,
    ) -> Result<Self, Refused> {
        let header = Header {
            machine: Some(machine),
            title,
            ..Header::new(Kind::Call)
        };
        let writer = TraceWriter::new(out, &header)
            .map_err(|error| Refused(format!("cannot write: {error}")))?;
        Ok(Self {
            subject,
            writer,
            calls: 0,
        })
    }

    /// Performs a section and writes it, once nothing disturbed it: `calls` makes its calls by what it is given, the same ones whenever it is
    /// asked.
    ///
    /// # Errors
    /// The subject refuses a call, it was disturbed each time, or the output cannot be written.
    pub fn section(
        &mut self,
        section: Option<Section>,
        mut calls: impl FnMut(&mut Performing<S>) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        for _ in 0..TRIES {
            self.subject.begin_section();
            let before = self.subject.disturbed();
            let mut performing = Performing {
                subject: self.subject,
                rows: Vec::new(),
            };
            calls(&mut performing)?;
            let rows = performing.rows;
            if self.subject.disturbed() == before {
                self.calls += rows.len() as u64;
                return (section.map(CallRow::Section).into_iter())
                    .chain(rows.into_iter().map(CallRow::Call))
                    .try_for_each(|row| self.writer.row(&row))
                    .map_err(|error| Refused(error.to_string()));
            }
        }
        let name = section.map_or_else(String::new, |section| section.section);
        Err(Refused(format!(
            "section `{name}`: interrupts of the host's, or other threads, changed what is recorded, {TRIES} times: record again, or make it shorter"
        )))
    }

    /// Calls recorded so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Gives the output back.
    pub fn into_inner(self) -> W {
        self.writer.into_inner()
    }
}

/// Performs a script and puts the trace of it at `output`, which appears only when it is whole. Says how many calls it has.
///
/// # Errors
/// The subject refuses a call (with the script's line), or the output cannot be written.
pub fn record<S: Subject + ?Sized>(
    script: &Script,
    script_name: &str,
    machine: Machine,
    own_layout: impl Fn(&VmCall) -> VmCall,
    subject: &mut S,
    output: &Path,
) -> Result<u64, Refused> {
    let cannot = |error: std::io::Error| Refused(format!("{}: {error}", output.display()));
    let out = PendingFile::create(output).map_err(cannot)?;
    let mut recorder = Recorder::new(out, machine, script.title.clone(), subject)?;
    for section in &script.sections {
        recorder.section(section.section.clone(), |performing| {
            for (line, call) in &section.calls {
                performing
                    .call(own_layout(call))
                    .map_err(|Refused(problem)| {
                        Refused(format!("{script_name}:{line}: {problem}"))
                    })?;
            }
            Ok(())
        })?;
    }
    let calls = recorder.calls();
    recorder.into_inner().keep().map_err(cannot)?;
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use dirtysim::trace::Arch;
    use dirtysim::trace::call::Call;

    use super::*;
    use crate::subject::Answer;

    /// Answers with the number of the section; something disturbs it in the first ones.
    struct Disturbed {
        section: u32,
        quiet_from: u32,
        disturbed: u64,
    }

    impl Subject for Disturbed {
        fn name(&self) -> String {
            "disturbed".to_owned()
        }

        fn begin_section(&mut self) {
            self.section += 1;
        }

        fn disturbed(&self) -> u64 {
            self.disturbed
        }

        fn perform(&mut self, _vm: Option<u32>, _call: &Call) -> Result<Answer, Refused> {
            self.disturbed += u64::from(self.section < self.quiet_from);
            Ok(Answer::Result(CallResult::returned(self.section)))
        }
    }

    /// What is written of one section with one call.
    fn recorded(quiet_from: u32) -> Result<String, Refused> {
        let mut subject = Disturbed {
            section: 0,
            quiet_from,
            disturbed: 0,
        };
        let machine = Machine {
            arch: Arch::X86_64,
            kernel: None,
            page_size: None,
            ring_page_offset: None,
            address_spaces: None,
            pml: Some(true),
            two_dimensional: None,
        };
        let mut recorder = Recorder::new(Vec::new(), machine, None, &mut subject)?;
        recorder.section(None, |performing| {
            let call = Call::ResetDirtyRings {};
            performing.call(VmCall { vm: Some(1), call }).map(|_| ())
        })?;
        assert_eq!(recorder.calls(), 1);
        Ok(String::from_utf8(recorder.into_inner()).expect("text"))
    }

    #[test]
    fn a_section_is_written_as_it_was_when_nothing_disturbed_it() {
        for quiet_from in [1, 3, TRIES] {
            let text = recorded(quiet_from).expect("it was quiet at last");
            let results: Vec<&str> = text.lines().skip(1).collect();
            assert_eq!(results.len(), 1, "{text}");
            assert!(
                results[0].contains(&format!("\"ret\":{quiet_from}")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_section_that_is_disturbed_each_time_is_no_recording() {
        let Refused(problem) = recorded(TRIES + 1).expect_err("it never was quiet");
        assert!(problem.contains("12 times"), "{problem}");
    }
}
