//! Claims of somebody's own, in files in the form of the built-in ones.
//!
//! What a built-in claim's test would find is told here with its place: in a file of somebody's nothing stands that
//! stands for nothing, since a word that nobody knows would make a verdict that is none.

use std::collections::BTreeSet;
use std::ops::Range;

use dirtysim_model::transition::for_each_word;
use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::calls;
use super::claim::{Case, Claim, claims};
use super::expand;
use super::figures;
use crate::scenario::{ScenarioError, check_name, nearest};

/// Several claims in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Several {
    claims: Vec<Claim>,
}

/// The step words of a case's `along` beside those of traces.
const STORE_RETIRES: &str = "store-retires";

/// Reads the claims of a file: one, or several under `[[claims]]`.
///
/// # Errors
/// What is wrong, where, and what to write instead.
pub fn read(file: &str, text: &str) -> Result<Vec<Claim>, Box<ScenarioError>> {
    const HELP: &str =
        "debate/claims/C4.toml is a claim to copy; docs/debate.md says what its keys mean";
    let source = Source { file, text };
    let tree = DeTable::parse(text)
        .map_err(|error| source.at(error.span(), error.message().to_owned(), HELP))?;
    let wrong = |error: toml::de::Error| source.at(error.span(), error.message().to_owned(), HELP);
    let several = tree.get_ref().contains_key("claims");
    let read = if several {
        toml::from_str::<Several>(text).map_err(wrong)?.claims
    } else {
        vec![toml::from_str::<Claim>(text).map_err(wrong)?]
    };
    let mut ids: Vec<String> = Vec::new();
    for (index, claim) in read.iter().enumerate() {
        let table = match several {
            true => element(tree.get_ref().get("claims").map(|v| v.get_ref()), index),
            false => Some(tree.get_ref()),
        };
        let checked = Checked {
            source: &source,
            claim,
            table,
        };
        checked.check(&ids)?;
        ids.push(claim.id.clone());
    }
    Ok(read)
}

/// A file's text, for complaints.
struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn at(
        &self,
        span: Option<Range<usize>>,
        problem: String,
        help: impl Into<String>,
    ) -> Box<ScenarioError> {
        match span {
            Some(span) => ScenarioError::at(self.file, self.text, span, problem, help.into()),
            None => ScenarioError::whole(self.file, problem, help.into()),
        }
    }
}

/// A table in an array of tables.
fn element<'t, 'd>(value: Option<&'t DeValue<'d>>, index: usize) -> Option<&'t DeTable<'d>> {
    let DeValue::Array(items) = value? else {
        return None;
    };
    match items.get(index)?.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

/// A claim, and where it stands.
struct Checked<'a, 'd> {
    source: &'a Source<'a>,
    claim: &'a Claim,
    table: Option<&'a DeTable<'d>>,
}

impl Checked<'_, '_> {
    /// Where a key's value stands in a table.
    fn key(table: Option<&DeTable<'_>>, key: &str) -> Option<Range<usize>> {
        table?.get(key).map(|value| value.span())
    }

    fn wrong(
        &self,
        span: Option<Range<usize>>,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> Box<ScenarioError> {
        self.source.at(span, problem.into(), help)
    }

    fn check(&self, others: &[String]) -> Result<(), Box<ScenarioError>> {
        let claim = self.claim;
        let at = |key: &str| Self::key(self.table, key);
        check_name(&claim.id)
            .map_err(|why| self.wrong(at("id"), format!("the id `{}`", claim.id), why))?;
        if claims()
            .iter()
            .any(|known| known.id.eq_ignore_ascii_case(&claim.id))
        {
            let problem = format!("the id `{}` is a built-in claim's", claim.id);
            return Err(self.wrong(at("id"), problem, "give it another"));
        }
        if others.iter().any(|id| id.eq_ignore_ascii_case(&claim.id)) {
            let problem = format!("a second claim `{}`", claim.id);
            return Err(self.wrong(at("id"), problem, "give it another id"));
        }
        if claim.cases.is_empty() && claim.calls.is_empty() && claim.figure.is_none() {
            let help =
                "add a [[case]]: an order of calls, the machines, and what the claim says of it";
            return Err(self.wrong(at("id"), "a claim without a case decides nothing", help));
        }
        if let Some(figure) = &claim.figure {
            figures::figure(figure)
                .map_err(|error| self.wrong(at("figure"), error, "there is `crossover`"))?;
        }
        for name in &claim.calls {
            calls::enumerate(name).map_err(|error| {
                self.wrong(
                    at("calls"),
                    error,
                    "take one of a built-in claim's, or leave it away",
                )
            })?;
        }
        let mut names = BTreeSet::new();
        for (index, case) in claim.cases.iter().enumerate() {
            let cases = self.table.and_then(|table| table.get("case"));
            let table = element(cases.map(|cases| cases.get_ref()), index);
            if !names.insert(&case.name) {
                let span = Self::key(table, "name");
                let problem = format!("a second case `{}`", case.name);
                return Err(self.wrong(span, problem, "give it another name"));
            }
            self.case(case, table)?;
        }
        if let Some(flip) = &claim.flip
            && !names.contains(&flip.case)
        {
            let problem = format!("the flip is of a case `{}`, which there is not", flip.case);
            return Err(self.wrong(at("flip"), problem, "name one of this claim's cases"));
        }
        Ok(())
    }

    fn case(&self, case: &Case, table: Option<&DeTable<'_>>) -> Result<(), Box<ScenarioError>> {
        let at = |key: &str| Self::key(table, key);
        check_name(&case.name)
            .map_err(|why| self.wrong(at("name"), format!("the name `{}`", case.name), why))?;
        if !case.within && self.claim.condition.is_none() {
            let help = "say the condition (`condition = \"...\"`), or leave `within` away";
            let problem = "outside a condition that the claim does not state";
            return Err(self.wrong(at("within"), problem, help));
        }
        let mut known: Vec<&str> = vec![STORE_RETIRES];
        for_each_word(|word| known.push(word.name()));
        if let Some(word) = case
            .along
            .iter()
            .find(|word| !known.contains(&word.as_str()))
        {
            let near = nearest(word, &known)
                .map_or(String::new(), |near| format!("did you mean `{near}`? "));
            let help = format!(
                "{near}docs/yield-points.md has the words of steps; there is {STORE_RETIRES} beside them"
            );
            let problem = format!("no step is called `{word}`");
            return Err(self.wrong(self.text_in(at("along"), word), problem, help));
        }
        let machines = expand::machines(&case.on).map_err(|error| {
            let help = "write [ARCH:]MODE[/PROTECT]: arm64, x86, x86-pml, riscv, loongarch; bitmap, ring, ring+bitmap; legacy, manual, initially-set, *";
            self.wrong(at("on"), error, help)
        })?;
        if machines.is_empty() {
            return Err(self.wrong(at("on"), "no machine", "name one: on = [\"x86:bitmap\"]"));
        }
        for on in &machines {
            let text = expand::text(&self.claim.id, case, on).map_err(|error| {
                self.wrong(
                    at("steps"),
                    error,
                    "docs/debate.md has the words in capitals",
                )
            })?;
            if let Err(error) = expand::read(&self.claim.id, case, &text) {
                // The text that is meant stands in the claim too, but for the words in capitals.
                let meant = error.text.get(error.meant.clone()).unwrap_or_default();
                let span = self.text_in(span_of(table), meant);
                let problem = format!("on {}: {}", on.slug(), error.problem);
                return Err(self.wrong(span.or(at("steps")), problem, error.help.clone()));
            }
        }
        Ok(())
    }

    /// Where `text` stands within `span`.
    fn text_in(&self, span: Option<Range<usize>>, text: &str) -> Option<Range<usize>> {
        let span = span?;
        let found = self.source.text.get(span.clone())?.find(text);
        match found {
            Some(found) if !text.is_empty() => {
                let start = span.start + found;
                Some(start..start + text.len())
            }
            _ => None,
        }
    }
}

/// From the first to the last value of a table.
fn span_of(table: Option<&DeTable<'_>>) -> Option<Range<usize>> {
    let spans = table?
        .iter()
        .map(|(key, value)| (key.span().start, value.span().end));
    spans
        .reduce(|all, span| (all.0.min(span.0), all.1.max(span.1)))
        .map(|(start, end)| start..end)
}
