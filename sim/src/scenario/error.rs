//! What is wrong with a scenario, and where.

use std::fmt;
use std::ops::Range;

/// A complaint about a scenario: the file, the place, the offending text, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioError {
    /// The file, or the built-in scenario's name.
    pub file: String,
    /// Line, counted from 1; 0 where there is none.
    pub line: usize,
    /// Column in characters, counted from 1; 0 where there is none.
    pub column: usize,
    /// The line's text.
    pub text: String,
    /// How many characters of the line are meant.
    pub width: usize,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub help: String,
}

impl ScenarioError {
    /// An error at `span` of `source`, the text of `file`.
    pub(super) fn at(
        file: &str,
        source: &str,
        span: Range<usize>,
        problem: String,
        help: String,
    ) -> Box<Self> {
        if source.is_empty() {
            let file = file.to_owned();
            return Box::new(Self {
                file,
                line: 0,
                column: 0,
                text: String::new(),
                width: 0,
                problem,
                help,
            });
        }
        let start = (0..=span.start.min(source.len()))
            .rev()
            .find(|&at| source.is_char_boundary(at))
            .unwrap_or(0);
        let before = &source[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let text = source[line_start..].lines().next().unwrap_or_default();
        let end = span.end.clamp(start, line_start + text.len()).max(start);
        let width = source
            .get(start..end)
            .map_or(1, |meant| meant.chars().count().max(1));
        Box::new(Self {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: source[line_start..start].chars().count() + 1,
            text: text.to_owned(),
            width,
            problem,
            help,
        })
    }

    /// An error without a place.
    pub(super) fn whole(file: &str, problem: String, help: String) -> Box<Self> {
        Self::at(file, "", 0..0, problem, help)
    }
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "{}: {}\nhelp: {}", self.file, self.problem, self.help);
        }
        writeln!(
            f,
            "{}:{}:{}: {}",
            self.file, self.line, self.column, self.problem
        )?;
        // A line of megabytes is somebody's claim, not something to print.
        if self.text.chars().count() <= 200 {
            writeln!(f, "  | {}", self.text)?;
            writeln!(
                f,
                "  | {}{}",
                " ".repeat(self.column - 1),
                "^".repeat(self.width.min(200))
            )?;
        }
        write!(f, "help: {}", self.help)
    }
}

impl std::error::Error for ScenarioError {}

/// The word of `known` that is nearest to `word`, if one is near enough to have been meant.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(64).enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = corner + usize::from(ca != *cb);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}
