//! What a build server wants: JUnit's file, annotations in a change, and exit code 1 for a verdict that rests on nothing.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use quick_junit::{NonSuccessKind, Report as JUnit, TestCase, TestCaseStatus, TestSuite};

use super::report::expected_words;
use super::schedule::deliver;
use super::{CliError, Global, Report, Subject, Verdict};
use crate::scenario::Scenario;

/// What `run` and `check` take for build servers.
#[derive(Debug, Clone, Args)]
pub(crate) struct CiArgs {
    /// Also write the verdicts as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// How verdicts are said
    #[arg(long, value_enum, default_value_t = Format::Text, conflicts_with = "json")]
    format: Format,
    /// Take this for not as expected, too
    #[arg(long, value_enum, value_name = "WHAT")]
    deny: Vec<Deny>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// The same, and annotations for GitHub's workflows: the file, the line of `expect`, what came
    Github,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Deny {
    /// A scenario that holds in which something that it leads one to expect never happened
    Vacuous,
}

impl CiArgs {
    /// Denies, writes and annotates what the report says.
    pub(super) fn apply(
        &self,
        report: &mut Report,
        scenarios: &[Scenario],
        global: &Global,
    ) -> Result<(), CliError> {
        if self.deny.contains(&Deny::Vacuous) {
            for subject in &mut report.subjects {
                if subject.verdict == Verdict::Holds && subject.json.contains_key("never_happened")
                {
                    subject.as_expected = false;
                    let (right, wrong) = (expected_words(true), expected_words(false));
                    subject.text = subject.text.replacen(right, wrong, 1);
                    subject.json.insert("as_expected".into(), false.into());
                    subject.json.insert("denied".into(), "vacuous".into());
                    subject
                        .text
                        .push_str("  denied: vacuous (--deny vacuous)\n");
                }
            }
            report.count();
        }
        if let Some(path) = &self.junit {
            let xml = junit(report)?;
            deliver(xml.as_bytes(), Some(path), global, "the JUnit file")?;
        }
        if self.format == Format::Github {
            let annotations: String = report
                .subjects
                .iter()
                .zip(scenarios)
                .filter_map(|(subject, scenario)| {
                    annotation(subject, &scenario.file, scenario.line)
                })
                .collect();
            report.tail.push_str(&annotations);
        }
        Ok(())
    }
}

fn word<'a>(subject: &'a Subject, key: &str) -> &'a str {
    subject
        .json
        .get(key)
        .and_then(|value| value.as_str())
        .unwrap_or_default()
}

/// The first line of what is said of a subject.
fn headline(subject: &Subject) -> &str {
    subject.text.lines().next().unwrap_or_default()
}

fn junit(report: &Report) -> Result<String, CliError> {
    let mut suite = TestSuite::new(report.command);
    for subject in &report.subjects {
        let status = match subject.verdict {
            Verdict::Inconclusive => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                status
                    .set_message(headline(subject))
                    .set_type("inconclusive");
                status
            }
            verdict if !subject.as_expected => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status
                    .set_message(headline(subject))
                    .set_type(verdict.name());
                status
            }
            _ => TestCaseStatus::success(),
        };
        let mut case = TestCase::new(word(subject, "scenario"), status);
        case.set_classname(format!("dirtysim.{}", report.command));
        if let Some(seconds) = subject
            .json
            .get("elapsed_s")
            .and_then(|value| value.as_f64())
        {
            case.set_time(std::time::Duration::from_secs_f64(seconds.max(0.0)));
        }
        case.set_system_out(&subject.text);
        suite.add_test_case(case);
    }
    let mut document = JUnit::new("dirtysim");
    document.add_test_suite(suite);
    document
        .to_string()
        .map_err(|error| CliError(format!("the JUnit file cannot be made: {error}")))
}

/// A line that GitHub's runner turns into a mark beside the file; nothing where all is as expected.
fn annotation(subject: &Subject, file: &str, line: usize) -> Option<String> {
    let level = match subject.verdict {
        Verdict::Inconclusive => "warning",
        _ if !subject.as_expected => "error",
        _ => return None,
    };
    // A built-in scenario has no file of the reader's.
    let place = match std::path::Path::new(file).is_file() {
        true => format!("file={},line={line},", property(file)),
        false => String::new(),
    };
    Some(format!(
        "::{level} {place}title=dirtysim {}::{}\n",
        property(word(subject, "scenario")),
        message(&subject.text)
    ))
}

/// A value of an annotation: what ends one is written as the runner reads it.
fn property(text: &str) -> String {
    message(text).replace(':', "%3A").replace(',', "%2C")
}

fn message(text: &str) -> String {
    text.trim_end()
        .replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(verdict: Verdict, as_expected: bool) -> Subject {
        let mut json = serde_json::Map::new();
        json.insert("scenario".into(), "a,b".into());
        Subject {
            verdict,
            as_expected,
            json,
            text: "a: 100 %\nand <more>\n".to_owned(),
        }
    }

    #[test]
    fn an_annotation_escapes_what_would_end_it() {
        let file = "Cargo.toml";
        let line = annotation(&subject(Verdict::Violated, false), file, 3);
        let expected =
            "::error file=Cargo.toml,line=3,title=dirtysim a%2Cb::a: 100 %25%0Aand <more>\n";
        assert_eq!(line.as_deref(), Some(expected));
        let line = annotation(&subject(Verdict::Inconclusive, false), "builtin", 1);
        assert!(line.is_some_and(|line| line.starts_with("::warning title=")));
        assert_eq!(annotation(&subject(Verdict::Violated, true), file, 3), None);
    }

    #[test]
    fn junit_tells_failures_from_errors() {
        let report = Report {
            command: "check",
            subjects: vec![
                subject(Verdict::Holds, true),
                subject(Verdict::Violated, false),
                subject(Verdict::Inconclusive, false),
            ],
            ..Report::default()
        };
        let xml = junit(&report).expect("it can be written");
        assert!(xml.contains("tests=\"3\""), "{xml}");
        assert!(
            xml.contains("failures=\"1\"") && xml.contains("errors=\"1\""),
            "{xml}"
        );
        assert!(xml.contains("&lt;more&gt;"), "{xml}");
    }
}
