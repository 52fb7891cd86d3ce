//! `docs/yield-points.md` and the names of the model's steps say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use dirtysim_model::transition::for_each_word;

/// Numbers of the list of yield points.
const NUMBERS: std::ops::RangeInclusive<u32> = 1..=61;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words of the model's steps.
fn step_words() -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for_each_word(|word| {
        words.insert(word.name().to_owned());
    });
    words
}

/// What stands between pairs of `mark`.
fn quoted(line: &str, mark: char) -> impl Iterator<Item = String> + '_ {
    line.split(mark).skip(1).step_by(2).map(str::to_owned)
}

/// The cells of a table of the page, row by row.
fn table(page: &str, marker: &str) -> Vec<Vec<String>> {
    let begin = format!("<!-- {marker}: begin -->");
    let end = format!("<!-- {marker}: end -->");
    let (_, rest) = page.split_once(&begin).expect("the table begins");
    let (rows, _) = rest.split_once(&end).expect("the table ends");
    rows.lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let inner = line.trim_matches('|');
            inner
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
}

fn page() -> String {
    read(&root().join("docs/yield-points.md"))
}

/// The words that both tables have.
fn page_words() -> Vec<String> {
    let page = page();
    let numbers = table(&page, "numbers")
        .into_iter()
        .map(|row| row[2].clone());
    let others = table(&page, "others").into_iter().map(|row| row[1].clone());
    let cells = numbers.chain(others);
    cells
        .flat_map(|cell| quoted(&cell, '`').collect::<Vec<_>>())
        .collect()
}

#[test]
fn every_number_has_one_row_in_order_with_words_or_the_reason_for_none() {
    let rows = table(&page(), "numbers");
    let rows: Vec<_> = rows.iter().filter(|row| row[0].starts_with('Y')).collect();
    let numbers: Vec<String> = rows.iter().map(|row| row[0].clone()).collect();
    let wanted: Vec<String> = NUMBERS.map(|number| format!("Y{number}")).collect();
    assert_eq!(numbers, wanted);
    for row in rows {
        let reason = row[2].is_empty() && row[3].contains("ot modelled");
        assert!(row[2].contains('`') || reason, "{}", row[0]);
    }
}

#[test]
fn the_page_has_every_step_of_the_model_and_no_other() {
    let steps = step_words();
    assert!(steps.len() > 100, "the model's words were found: {steps:?}");
    let page: BTreeSet<String> = page_words().into_iter().collect();
    let missing: Vec<_> = steps.difference(&page).collect();
    assert!(missing.is_empty(), "docs/yield-points.md lacks {missing:?}");
    let unknown: Vec<_> = page.difference(&steps).collect();
    assert!(
        unknown.is_empty(),
        "no step of the model is called {unknown:?}"
    );
}

#[test]
fn a_step_without_a_number_has_none() {
    let page = page();
    let numbered: BTreeSet<String> = table(&page, "numbers")
        .iter()
        .flat_map(|row| quoted(&row[2], '`').collect::<Vec<_>>())
        .collect();
    for row in table(&page, "others") {
        for word in quoted(&row[1], '`') {
            assert!(!numbered.contains(&word), "{word} stands in both tables");
        }
    }
}

#[test]
fn a_name_means_one_step_and_has_words_for_stories() {
    let mut said = BTreeMap::new();
    for_each_word(|word| {
        assert!(!word.text().is_empty(), "{word}");
        let before = said.insert(word.name(), word.text());
        assert!(before.is_none_or(|text| text == word.text()), "{word}");
    });
}
