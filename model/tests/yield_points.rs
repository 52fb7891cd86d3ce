//! `docs/yield-points.md` and the words of the model's steps say the same, and stories have words for each of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Numbers of the list of yield points.
const NUMBERS: std::ops::RangeInclusive<u32> = 1..=61;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words of the model's steps. They are string literals in the functions whose names begin with `describe`, so that
/// those are read.
fn step_words() -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("it is a folder") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                words.extend(words_of(&read(&path)));
            }
        }
    }
    words
}

/// The string literals of a file's functions that describe; such a function ends with the first `}` as far to the left as its `fn`.
fn words_of(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        inside |= line.contains("fn describe");
        if inside {
            words.extend(quoted(line, '"'));
        }
        inside &= line != "}";
    }
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
fn stories_have_words_for_every_step() {
    let text = read(&root().join("sim/src/explain/words.rs"));
    // Kernel writers' steps are told by the writer and the step.
    let writers = [
        "its-save-",
        "pending-save-",
        "its-restore-",
        "kernel-write-",
    ];
    for word in step_words() {
        let by_parts = writers.iter().any(|writer| word.starts_with(writer));
        assert!(
            by_parts || text.contains(&format!("\"{word}\"")),
            "sim/src/explain/words.rs has no words for {word}"
        );
    }
}
