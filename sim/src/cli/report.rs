//! What a command says: subjects with verdicts, as text or as one JSON document, and the exit code that follows.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use dirtysim_model::words::mutation::Mutation;
use serde_json::{Map, Value, json};

use super::CliError;
use crate::explain;
use crate::fidelity;
use crate::mutated::Acted;
use crate::plain::printable;
pub(crate) use crate::plot::grouped;
use crate::refused::Refused;
use crate::scenario::{Expect, Scenario};
use crate::search;
use crate::sometimes::{Seen, Sometimes, no_claim};

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

impl From<search::Verdict> for Verdict {
    fn from(verdict: search::Verdict) -> Self {
        match verdict {
            search::Verdict::Holds => Self::Holds,
            search::Verdict::Violated => Self::Violated,
            search::Verdict::Inconclusive => Self::Inconclusive,
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

impl Subject {
    /// Why its trace could not be kept; the verdict stands all the same.
    fn unwritten(&self) -> Option<&str> {
        self.json.get(TRACE_ERROR).and_then(Value::as_str)
    }
}

/// What is said of a subject that nobody came to, because the command was interrupted before.
pub(crate) fn not_begun(kind: &str, name: &str) -> Subject {
    cut(kind, name, "not begun")
}

/// What is said of a subject whose verdict an interrupt came before; `how` says how far it was.
pub(crate) fn cut(kind: &str, name: &str, how: &str) -> Subject {
    let mut json = Map::new();
    json.insert(kind.into(), name.into());
    json.insert("verdict".into(), Verdict::Inconclusive.name().into());
    json.insert("as_expected".into(), false.into());
    json.insert("coverage".into(), "truncated".into());
    json.insert("limit".into(), search::Limit::Interrupt.name().into());
    Subject {
        verdict: Verdict::Inconclusive,
        as_expected: false,
        json,
        text: format!("{name}: inconclusive\n  {how}: interrupted\n"),
    }
}

/// The key that says why a trace could not be kept.
pub(crate) const TRACE_ERROR: &str = "trace_error";

/// Notes where the trace of a verdict is, or why it could not be kept, and says that in a line.
pub(crate) fn kept(
    path: &Path,
    written: Result<(), CliError>,
    json: &mut Map<String, Value>,
) -> String {
    match written {
        Ok(()) => {
            json.insert("trace".into(), path.display().to_string().into());
            format!("trace: {}", path.display())
        }
        Err(CliError(error)) => {
            let line = format!("no trace: {error}");
            json.insert(TRACE_ERROR.into(), error.into());
            line
        }
    }
}

/// Tells whoever sits at standard error; where that cannot be written, there is nobody to tell.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(text));
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
    /// A file that was asked for on standard output, which is printed as it is.
    pub(crate) file: String,
    /// Whether an interrupt came before all that was asked for.
    pub(crate) cut: bool,
    /// What could not be judged beside what could: told at the end.
    pub(crate) errors: Vec<CliError>,
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

    /// 1 if a subject has a definite verdict that was not expected, else 3 if one is inconclusive or not all was done,
    /// else 0.
    fn exit_code(&self) -> u8 {
        let unexpected =
            |subject: &Subject| subject.verdict != Verdict::Inconclusive && !subject.as_expected;
        if self.subjects.iter().any(unexpected) {
            1
        } else if self.cut
            || self
                .subjects
                .iter()
                .any(|subject| subject.verdict == Verdict::Inconclusive)
        {
            3
        } else {
            0
        }
    }

    /// Says at the end how many of several scenarios came out as expected.
    pub(crate) fn count(&mut self) {
        let unexpected = self.subjects.iter().filter(|s| !s.as_expected).count();
        if self.many {
            let all = self.subjects.len();
            self.tail = match unexpected {
                0 => format!("{all} scenarios, each as expected\n"),
                _ => format!("{all} scenarios, {unexpected} not as expected\n"),
            };
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
            text.push_str(&printable(&self.head));
            for subject in &self.subjects {
                let words = printable(&subject.text);
                text.push_str(&if colours() {
                    painted(&words, subject.verdict, subject.as_expected)
                } else {
                    words.into_owned()
                });
            }
            text.push_str(&printable(&self.tail));
            text.push_str(&self.file);
        }
        let mut out = std::io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if let Err(error) = written
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            say(&format!("error: standard output: {error}"));
            return ExitCode::from(2);
        }
        let errors = self.errors.iter().map(|CliError(error)| error.as_str());
        let unwritten = self.subjects.iter().filter_map(Subject::unwritten);
        let errors: Vec<&str> = errors.chain(unwritten).collect();
        for error in &errors {
            say(&format!("error: {error}"));
        }
        ExitCode::from(if errors.is_empty() {
            self.exit_code()
        } else {
            2
        })
    }
}

/// Whether standard output is a terminal that wants colours: <https://no-color.org>.
fn colours() -> bool {
    let unwanted = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal()
        && !unwanted("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A subject's text with its first line in the colour of its verdict: what is not as expected stands out, whatever it is.
fn painted(text: &str, verdict: Verdict, as_expected: bool) -> String {
    let colour = match (verdict, as_expected) {
        (Verdict::Inconclusive, _) => "33",
        (_, true) => "32",
        (_, false) => "1;31",
    };
    match text.split_once('\n') {
        Some((first, rest)) => format!("\u{1b}[{colour}m{first}\u{1b}[0m\n{rest}"),
        None => text.to_owned(),
    }
}

/// A verdict on a scenario, with what it rests on.
pub(crate) struct Judged<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) verdict: Verdict,
    pub(crate) expected: Expect,
    pub(crate) as_expected: bool,
    pub(crate) coverage: &'static str,
    pub(crate) limit: Option<&'static str>,
}

impl Judged<'_> {
    /// The keys that come first in every document about a scenario.
    pub(crate) fn json(&self) -> Map<String, Value> {
        let mut json = Map::new();
        json.insert("scenario".into(), self.scenario.name.clone().into());
        json.insert("verdict".into(), self.verdict.name().into());
        json.insert("expected".into(), expected_word(self.expected));
        json.insert("as_expected".into(), self.as_expected.into());
        json.insert("coverage".into(), self.coverage.into());
        if let Some(limit) = self.limit {
            json.insert("limit".into(), limit.into());
        }
        json
    }
}

/// What a scenario expects, in a document's word.
fn expected_word(expect: Expect) -> Value {
    match expect {
        Expect::Holds => "holds".into(),
        Expect::Violated(_) => "violated".into(),
    }
}

/// What a verdict's first line ends with.
pub(crate) fn expected_words(as_expected: bool) -> &'static str {
    if as_expected {
        ", as expected"
    } else {
        ", NOT as expected"
    }
}

/// A number of blocks, in words.
pub(crate) fn block_words(blocks: u64) -> String {
    match blocks {
        1 => "1 block".to_owned(),
        _ => format!("{} blocks", grouped(blocks)),
    }
}

/// What a verdict on a scenario must not be read without: the claims that it chose to be judged by, constants that differ
/// from the architecture's, and what of its machine no kernel was seen doing.
pub(crate) fn caveats(scenario: &Scenario, json: &mut Map<String, Value>) -> String {
    let mut text = String::new();
    if let Some(claims) = scenario.chosen_claims() {
        text.push_str(&format!("  judged by: {}\n", claims.join(", ")));
        json.insert("claims".into(), claims.into());
    }
    if !scenario.scaled.is_empty() {
        json.insert("scaled".into(), scenario.scaled.clone().into());
        text.push_str(&format!("  scaled: {}\n", scenario.scaled.join("; ")));
    }
    let parts = fidelity::never_seen(&scenario.machine);
    if !parts.is_empty() {
        json.insert("never_seen".into(), parts.clone().into());
        text.push_str(&format!("  {}\n", fidelity::sentence(&parts)));
    }
    text
}

/// Why nothing broke and there is still no verdict: what the program must do and no schedule did. Empty where there is
/// another verdict, or a limit of the search came first.
pub(crate) fn unclaimed(
    scenario: &Scenario,
    seen: Seen,
    verdict: Verdict,
    limit: Option<&str>,
    json: &mut Map<String, Value>,
) -> String {
    match no_claim(&scenario.machine, seen) {
        Some(claim)
            if verdict == Verdict::Inconclusive && matches!(limit, None | Some("steps")) =>
        {
            json.insert("reason".into(), claim.missed().into());
            format!("  no verdict: {}\n", claim.missed())
        }
        _ => String::new(),
    }
}

/// The mutations of a verdict, and which of them nothing met in the schedules that were looked at: seeded ones, and the
/// one that is shown.
pub(crate) fn mutated(scenario: &Scenario, acted: &Acted, json: &mut Map<String, Value>) -> String {
    if scenario.machine.mutations().is_empty() {
        return String::new();
    }
    let names = |mutations: &mut dyn Iterator<Item = Mutation>| -> Vec<&'static str> {
        mutations.map(Mutation::name).collect()
    };
    let on = names(&mut scenario.machine.mutations().iter());
    let mut text = format!("  mutations: {}\n", on.join(", "));
    json.insert("mutations".into(), on.into());
    let never = names(&mut acted.never.iter().copied());
    if !never.is_empty() {
        let looked = match acted.schedules {
            1 => "the schedule".to_owned(),
            several => format!("the {} schedules that were looked at", grouped(several)),
        };
        text.push_str(&format!(
            "  never acted in {looked}: {}\n",
            never.join(", ")
        ));
        json.insert("never_acted".into(), never.into());
        json.insert("never_acted_in".into(), acted.schedules.into());
    }
    text
}

/// The ioctls that were refused in some schedule, each with its place in the programs.
pub(crate) fn refused(
    scenario: &Scenario,
    refused: &BTreeSet<Refused>,
    json: &mut Map<String, Value>,
) -> String {
    let mut text = String::new();
    let mut list = Vec::new();
    for Refused { call, errno } in refused {
        let (thread, op) = (call.thread, call.op);
        let program = &scenario.machine.programs[usize::from(thread)];
        let ioctl = explain::op_words(scenario, &program[usize::from(op)]);
        text.push_str(&format!(
            "  refused in some schedule: {ioctl}: {} (thread{thread}, step {} of {})\n",
            errno.name(),
            op + 1,
            program.len()
        ));
        list.push(json!({
            "ioctl": ioctl,
            "errno": errno.name(),
            "thread": thread,
            "operation": op,
        }));
    }
    if !list.is_empty() {
        json.insert("refused".into(), list.into());
    }
    text
}

/// What happened in some schedule; and, unless a claim broke before it could, what the scenario leads one to expect and
/// did not.
pub(crate) fn happened(
    scenario: &Scenario,
    seen: Seen,
    verdict: Verdict,
    json: &mut Map<String, Value>,
) -> String {
    let ring = scenario.ring_entries() > 0;
    let sentences = |wanted: &dyn Fn(Sometimes) -> bool| -> Vec<Value> {
        let claims = Sometimes::ALL.iter().filter(|claim| wanted(**claim));
        claims.map(|claim| claim.sentence().into()).collect()
    };
    let mut text = String::new();
    if verdict != Verdict::Violated {
        // What the program must do is told apart, with the verdict.
        let never = sentences(&|claim| {
            !claim.is_must() && claim.applies(&scenario.machine, ring) && !seen.has(claim)
        });
        for sentence in never.iter().filter_map(Value::as_str) {
            text.push_str(&format!(
                "  never happened, so the verdict says nothing about it: {sentence}\n"
            ));
        }
        if !never.is_empty() {
            json.insert("never_happened".into(), never.into());
        }
    }
    json.insert(
        "sometimes".into(),
        sentences(&|claim| seen.has(claim)).into(),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_is_painted() {
        let text = painted("a: holds\n  more\n", Verdict::Holds, true);
        assert_eq!(text, "\u{1b}[32ma: holds\u{1b}[0m\n  more\n");
        assert!(painted("a\nb\n", Verdict::Holds, false).starts_with("\u{1b}[1;31m"));
    }
}
