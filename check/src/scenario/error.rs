//! What is wrong with a scenario, and where.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::plain::printable;

/// Columns that an error is written for; of a longer line, the part that is meant is shown.
const COLUMNS: usize = 100;

/// A complaint about a scenario: the file, the place, the offending text, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioError {
    /// The file, or the built-in scenario's name.
    pub file: String,
    /// Line, counted from 1; 0 where there is none.
    pub line: usize,
    /// Column in characters, counted from 1; 0 where there is none.
    pub column: usize,
    /// The line's text, without its end.
    pub text: String,
    /// The part of the line that is meant, in bytes; empty where something is missing.
    pub meant: Range<usize>,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub help: String,
}

impl ScenarioError {
    /// An error at `span` of `source`, the text of `file`.
    #[must_use]
    pub fn at(
        file: &str,
        source: &str,
        span: Range<usize>,
        problem: String,
        help: String,
    ) -> Box<Self> {
        let mut error = Box::new(Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            text: String::new(),
            meant: 0..0,
            problem,
            help,
        });
        if source.is_empty() {
            return error;
        }
        // A span may lie in the end of its line, or behind the text.
        let place = floor(source, span.start);
        let begin = source[..place].rfind('\n').map_or(0, |at| at + 1);
        let line = source[begin..].lines().next().unwrap_or_default();
        let start = (place - begin).min(line.len());
        let end = floor(line, span.end.saturating_sub(begin));
        error.line = source[..begin].matches('\n').count() + 1;
        error.column = line[..start].chars().count() + 1;
        error.text = line.to_owned();
        error.meant = start..end.max(start);
        error
    }

    /// An error without a place.
    #[must_use]
    pub fn whole(file: &str, problem: String, help: String) -> Box<Self> {
        Self::at(file, "", 0..0, problem, help)
    }
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "{}: {}\nhelp: {}", self.file, self.problem, self.help);
        }
        let (problem, help) = (printable(&self.problem), printable(&self.help));
        let place = Snippet::source(&self.text)
            .path(&self.file)
            .line_start(self.line)
            .annotation(AnnotationKind::Primary.span(self.meant.clone()));
        let report = [
            Level::ERROR.no_name().primary_title(problem).element(place),
            Group::with_title(Level::HELP.secondary_title(help)),
        ];
        let text = Renderer::plain().term_width(COLUMNS).render(&report);
        f.write_str(&text)
    }
}

impl std::error::Error for ScenarioError {}

/// The last place between characters that is not behind `at`.
fn floor(text: &str, at: usize) -> usize {
    let places = 0..=at.min(text.len());
    places
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0)
}

/// The word of `known` that is nearest to `word`, if one is near enough to have been meant.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // A word of megabytes is nobody's slip.
    let word = &word[..floor(word, 64)];
    known
        .iter()
        .map(|candidate| (strsim::levenshtein(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}
