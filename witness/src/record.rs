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
            "section `{name}`: interrupts of the host's changed what PML records, {TRIES} times: record again, or make it shorter"
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
