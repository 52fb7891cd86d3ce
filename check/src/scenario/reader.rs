//! Reading a scenario's tree: every key is known, every value is of its kind, every complaint has its place.

use std::ops::Range;

use super::error::{ScenarioError, nearest};
use super::keys;
use super::node::{Kind, Node};

pub(super) type Result<T> = std::result::Result<T, Box<ScenarioError>>;

/// The file that is being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn error<T>(
        &self,
        span: &Range<usize>,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> Result<T> {
        Err(ScenarioError::at(
            self.file,
            self.text,
            span.clone(),
            problem.into(),
            help.into(),
        ))
    }
}

/// One table of the tree, whose keys are taken one by one; what is left at the end is unknown.
#[derive(Debug)]
pub(super) struct Table<'a> {
    pub(super) source: Source<'a>,
    pub(super) span: Range<usize>,
    /// The table's name in messages.
    name: String,
    rows: &'a [(Node, Node)],
    taken: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn new(source: Source<'a>, node: &'a Node, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        match &node.kind {
            Kind::Table(rows) => Ok(Self {
                source,
                span: node.span.clone(),
                name,
                rows,
                taken: Vec::new(),
            }),
            other => source.error(
                &node.span,
                format!("{name} is {}", other.words()),
                "write a table: { key = value, … }",
            ),
        }
    }

    /// The value of `key`, if the table has it.
    pub(super) fn get(&mut self, key: &'static str) -> Option<&'a Node> {
        self.taken.push(key);
        self.rows
            .iter()
            .find(|(name, _)| matches!(&name.kind, Kind::Text(text) if text == key))
            .map(|(_, value)| value)
    }

    /// Complains about the first key that nobody took.
    pub(super) fn finish(self) -> Result<()> {
        keys::note(&self.name, &self.taken);
        for (key, _) in self.rows {
            let Kind::Text(word) = &key.kind else {
                continue;
            };
            if !self.taken.contains(&word.as_str()) {
                let (name, has) = self.has();
                let help = match nearest(word, &self.taken) {
                    Some(near) => format!("did you mean `{near}`? {name} has: {has}"),
                    None => format!("{name} has: {has}"),
                };
                return self.source.error(
                    &key.span,
                    format!("unknown key `{word}` in {name}"),
                    help,
                );
            }
        }
        Ok(())
    }

    /// What the table is called, and the keys that it has; those of a step first, then those that stand around steps in its place.
    fn has(&self) -> (String, String) {
        let step = self.rows.iter().find_map(|row| match row {
            (
                Node {
                    kind: Kind::Text(key),
                    ..
                },
                Node {
                    kind: Kind::Text(word),
                    ..
                },
            ) if key == "step" => Some(word),
            _ => None,
        });
        let at = self.taken.iter().position(|key| *key == "step");
        let (Some(step), Some(at)) = (step, at) else {
            return (self.name.clone(), self.taken.join(", "));
        };
        let (around, own) = (self.taken[..at].join(", "), &self.taken[at + 1..]);
        (
            format!("`{step}`"),
            format!("{}; around steps: {around}", own.join(", ")),
        )
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<&'a str>> {
        self.get(key)
            .map(|node| text(self.source, node, key))
            .transpose()
    }

    /// The name of what the table describes, or `usual`; `taken` are those of its kind that come before.
    pub(super) fn name<'t>(
        &mut self,
        what: &str,
        usual: String,
        mut taken: impl Iterator<Item = &'t str>,
    ) -> Result<String> {
        let source = self.source;
        let (name, span) = match self.get("name") {
            Some(node) => (name(source, node, what)?.to_owned(), node.span.clone()),
            None => (usual, self.span.clone()),
        };
        if taken.any(|other| other == name) {
            return source.error(
                &span,
                format!("a second {what} `{name}`"),
                "write name = \"…\" with another name: steps and pages are found by it",
            );
        }
        Ok(name)
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Result<Option<bool>> {
        let Some(node) = self.get(key) else {
            return Ok(None);
        };
        match node.kind {
            Kind::Boolean(value) => Ok(Some(value)),
            _ => self.source.error(
                &node.span,
                format!("`{key}` is {}", node.kind.words()),
                "write true or false",
            ),
        }
    }

    pub(super) fn integer(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>> {
        let source = self.source;
        self.get(key)
            .map(|node| integer(source, node, key, range))
            .transpose()
    }

    pub(super) fn list(&mut self, key: &'static str) -> Result<Option<&'a [Node]>> {
        let source = self.source;
        self.get(key)
            .map(|node| list(source, node, key))
            .transpose()
    }
}

pub(super) fn text<'a>(source: Source<'_>, node: &'a Node, key: &str) -> Result<&'a str> {
    match &node.kind {
        Kind::Text(text) => Ok(text),
        other => source.error(
            &node.span,
            format!("`{key}` is {}", other.words()),
            "write a string, in quotes",
        ),
    }
}

pub(super) fn integer(
    source: Source<'_>,
    node: &Node,
    key: &str,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64> {
    let help = || format!("write an integer from {} to {}", range.start(), range.end());
    let Kind::Integer(value) = node.kind else {
        return source.error(
            &node.span,
            format!("`{key}` is {}", node.kind.words()),
            help(),
        );
    };
    match u64::try_from(value)
        .ok()
        .filter(|value| range.contains(value))
    {
        Some(value) => Ok(value),
        None => source.error(&node.span, format!("`{key}` is {value}"), help()),
    }
}

pub(super) fn list<'a>(source: Source<'_>, node: &'a Node, key: &str) -> Result<&'a [Node]> {
    match &node.kind {
        Kind::List(list) => Ok(list),
        other => source.error(
            &node.span,
            format!("`{key}` is {}", other.words()),
            "write an array: [ …, … ]",
        ),
    }
}

/// A name that a scenario gives: stories, traces, pages and files are made of it.
pub(super) fn name<'a>(source: Source<'_>, node: &'a Node, what: &str) -> Result<&'a str> {
    let name = text(source, node, "name")?;
    if let Err(rule) = super::check_name(name) {
        return source.error(&node.span, format!("the {what} `{name}`"), rule);
    }
    Ok(name)
}

/// The entry of `known` that a word names.
pub(super) fn pick<T: Copy>(
    source: Source<'_>,
    node: &Node,
    what: &str,
    known: &[(&'static str, T)],
) -> Result<T> {
    let words = || {
        let words: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        format!("known: {}", words.join(", "))
    };
    pick_of_many(source, node, what, known, words)
}

/// The same, where `words` says which there are.
pub(super) fn pick_of_many<T: Copy>(
    source: Source<'_>,
    node: &Node,
    what: &str,
    known: &[(&'static str, T)],
    words: impl Fn() -> String,
) -> Result<T> {
    let word = text(source, node, what)?;
    if let Some((_, value)) = known.iter().find(|(name, _)| *name == word) {
        return Ok(*value);
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let help = match nearest(word, &names) {
        Some(near) => format!("did you mean `{near}`? {}", words()),
        None => words(),
    };
    source.error(&node.span, format!("unknown {what} `{word}`"), help)
}
