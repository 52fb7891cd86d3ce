//! The pages that differ: a file with one a line, `slot:offset` or `gfn 0x...`.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead, Read};

use crate::scenario::Scenario;

/// The longest line, in bytes.
const LINE_LIMIT_BYTES: u64 = 4096;

/// What is wrong with a file of pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PagesError {
    file: String,
    /// From 1 on; 0: the file as a whole.
    line: u64,
    problem: String,
    help: String,
}

impl fmt::Display for PagesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        write!(f, " {}\nhelp: {}", self.problem, self.help)
    }
}

impl std::error::Error for PagesError {}

/// Reads the host pages that a file names; empty lines and lines that begin with `#` are passed over.
///
/// # Errors
/// The first line that names no page of the scenario, and what to write instead; a file without a page.
pub fn read_pages(
    mut input: impl BufRead,
    file: &str,
    scenario: &Scenario,
) -> Result<BTreeSet<u32>, PagesError> {
    let mut pages = BTreeSet::new();
    let mut bytes = Vec::new();
    let mut line = 0;
    let complain = |line, problem: String, help: &str| PagesError {
        file: file.to_owned(),
        line,
        problem,
        help: help.to_owned(),
    };
    loop {
        line += 1;
        bytes.clear();
        let read = (&mut input)
            .take(LINE_LIMIT_BYTES)
            .read_until(b'\n', &mut bytes)
            .map_err(|error| {
                complain(
                    line,
                    format!("cannot read: {error}"),
                    "give a readable file",
                )
            })?;
        if read == 0 {
            break;
        }
        if read as u64 == LINE_LIMIT_BYTES && bytes.last() != Some(&b'\n') {
            return Err(complain(
                line,
                format!("a line of more than {LINE_LIMIT_BYTES} bytes"),
                "write one page a line",
            ));
        }
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Err(complain(
                line,
                "invalid UTF-8".to_owned(),
                "write one page a line: ram:3, or gfn 0x80003",
            ));
        };
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let page =
            parse(text, scenario).map_err(|(problem, help)| complain(line, problem, &help))?;
        pages.insert(page);
    }
    if pages.is_empty() {
        return Err(complain(
            0,
            "no page".to_owned(),
            "write the pages that differ, one a line: ram:3, or gfn 0x80003",
        ));
    }
    Ok(pages)
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if digits.chars().all(|c| c.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16).ok()
        }
        None if text.chars().all(|c| c.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

fn parse(text: &str, scenario: &Scenario) -> Result<u32, (String, String)> {
    const FORM: &str = "write slot:offset (ram:3) or a guest frame number (gfn 0x80003)";
    let shown: String = text.chars().take(40).collect();
    let slots = &scenario.machine.slots;
    if let Some(rest) = text.strip_prefix("gfn") {
        if let Some(gfn) = number(rest) {
            let found = slots.iter().find_map(|slot| {
                let first = *slot.places.first()?;
                let offset = gfn.checked_sub(first)?;
                (offset < u64::from(slot.npages)).then(|| slot.host + offset as u32)
            });
            return found.ok_or_else(|| {
                let known: Vec<String> = slots
                    .iter()
                    .filter_map(|slot| {
                        let first = *slot.places.first()?;
                        let end = first + u64::from(slot.npages);
                        Some(format!("{} has 0x{first:x} to 0x{:x}", slot.name, end - 1))
                    })
                    .collect();
                (format!("no memslot has gfn 0x{gfn:x}"), known.join(", "))
            });
        }
        if !text.contains(':') {
            return Err((
                format!("`{shown}` is no guest frame number"),
                FORM.to_owned(),
            ));
        }
    }
    let Some((name, offset)) = text.rsplit_once(':') else {
        return Err((format!("`{shown}` names no page"), FORM.to_owned()));
    };
    let Some(slot) = slots.iter().find(|slot| slot.name == name.trim()) else {
        let known: Vec<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
        return Err((
            format!(
                "no memslot is called `{}`",
                name.chars().take(40).collect::<String>()
            ),
            format!("the memslots are {}", known.join(", ")),
        ));
    };
    let Some(offset) = number(offset) else {
        return Err((format!("`{shown}` has no offset in pages"), FORM.to_owned()));
    };
    if offset >= u64::from(slot.npages) {
        return Err((
            format!("{} has no page {offset}", slot.name),
            format!("it has {} pages, counted from 0", slot.npages),
        ));
    }
    Ok(slot.host + offset as u32)
}
