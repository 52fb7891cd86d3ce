//! What a command says: subjects with verdicts, as text or as one JSON document, and the exit code that follows.

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Map, Value};

use crate::fidelity;
use crate::scenario::Scenario;

/// A verdict on one subject, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Every claim holds within the stated coverage.
    Holds,
    /// A limit was reached first.
    Inconclusive,
    /// A claim is broken.
    Violated,
}

impl Verdict {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Inconclusive => "inconclusive",
            Self::Violated => "violated",
        }
    }
}

/// One thing that was judged.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) verdict: Verdict,
    pub(crate) as_expected: bool,
    /// The document's keys, in order.
    pub(crate) json: Map<String, Value>,
    /// The same for people.
    pub(crate) text: String,
}

/// A command's output.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) command: &'static str,
    /// Text before the subjects.
    pub(crate) head: String,
    pub(crate) subjects: Vec<Subject>,
    /// Keys beside the subjects'.
    pub(crate) extra: Map<String, Value>,
    /// Whether the document is an array of results even when there is one.
    pub(crate) many: bool,
    /// Text after the subjects.
    pub(crate) tail: String,
}

impl Report {
    /// The worst verdict; `holds` where nothing was judged.
    fn verdict(&self) -> Verdict {
        self.subjects
            .iter()
            .map(|subject| subject.verdict)
            .max()
            .unwrap_or(Verdict::Holds)
    }

    /// 1 if a subject has a definite verdict that was not expected, else 3 if one is inconclusive, else 0.
    fn exit_code(&self) -> u8 {
        let unexpected =
            |subject: &Subject| subject.verdict != Verdict::Inconclusive && !subject.as_expected;
        if self.subjects.iter().any(unexpected) {
            1
        } else if self
            .subjects
            .iter()
            .any(|subject| subject.verdict == Verdict::Inconclusive)
        {
            3
        } else {
            0
        }
    }

    fn document(&self) -> Value {
        let mut document = Map::new();
        document.insert("command".into(), self.command.into());
        if let ([subject], false) = (self.subjects.as_slice(), self.many) {
            document.extend(subject.json.clone());
        } else if !self.subjects.is_empty() {
            document.insert("verdict".into(), self.verdict().name().into());
            let as_expected = self.subjects.iter().all(|subject| subject.as_expected);
            document.insert("as_expected".into(), as_expected.into());
            let results: Vec<Value> = self
                .subjects
                .iter()
                .map(|subject| Value::Object(subject.json.clone()))
                .collect();
            document.insert("results".into(), results.into());
        }
        document.extend(self.extra.clone());
        Value::Object(document)
    }

    /// Prints the report and answers with the exit code. A reader that went away is no error.
    pub(crate) fn print(&self, json: bool) -> ExitCode {
        let mut text = String::new();
        if json {
            text = format!("{}\n", self.document());
        } else {
            text.push_str(&self.head);
            for subject in &self.subjects {
                text.push_str(&subject.text);
            }
            text.push_str(&self.tail);
        }
        let mut out = std::io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if let Err(error) = written
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            eprintln!("error: standard output: {error}");
            return ExitCode::from(2);
        }
        ExitCode::from(self.exit_code())
    }
}

/// What of a scenario's machine no kernel was seen doing: no verdict omits it.
pub(crate) fn never_seen(scenario: &Scenario, json: &mut Map<String, Value>) -> String {
    let parts = fidelity::never_seen(&scenario.machine);
    if parts.is_empty() {
        return String::new();
    }
    json.insert("never_seen".into(), parts.clone().into());
    format!(
        "  read in the source, never seen on a kernel: {}\n",
        parts.join("; ")
    )
}

/// A whole number with its thousands apart: 1,234,567.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
