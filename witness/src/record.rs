//! Recording: a script performed on a subject, and a call trace of what it gave.

use std::io::Write;
use std::path::Path;

use dirtysim::trace::call::{CallRow, RecordedCall, Section};
use dirtysim::trace::call_result::CallResult;
use dirtysim::trace::{Header, Kind, Machine, PendingFile, TraceWriter};

use crate::refusal::Refused;
use crate::script::{Script, ScriptRow};
use crate::subject::{Subject, VmCall};

/// Performs calls and writes each with its result.
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

    /// Begins a section.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn section(&mut self, section: Section) -> Result<(), Refused> {
        self.subject.begin_section();
        self.writer
            .row(&CallRow::Section(section))
            .map_err(|error| Refused(error.to_string()))
    }

    /// Performs a call, writes it, and gives its result.
    ///
    /// # Errors
    /// The subject refuses, or the output cannot be written.
    pub fn call(&mut self, VmCall { vm, call }: VmCall) -> Result<CallResult, Refused> {
        let result = self.subject.perform(vm, &call)?.result()?;
        self.calls += 1;
        let row = CallRow::Call(RecordedCall {
            vm,
            call,
            result: result.clone(),
        });
        self.writer
            .row(&row)
            .map_err(|error| Refused(error.to_string()))?;
        Ok(result)
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
    for (line, row) in &script.rows {
        let done = match row {
            ScriptRow::Section(section) => recorder.section(section.clone()),
            ScriptRow::Call(call) => recorder.call(own_layout(call)).map(|_| ()),
        };
        done.map_err(|Refused(problem)| Refused(format!("{script_name}:{line}: {problem}")))?;
    }
    let calls = recorder.calls();
    recorder.into_inner().keep().map_err(cannot)?;
    Ok(calls)
}
