//! What people write for a page: a guest frame number, an address, a place in a memslot, a line of `cmp -l`.

use std::fmt;
use std::io::{BufRead, Read};

/// The longest line of a list, in bytes.
const LINE_LIMIT_BYTES: u64 = 4096;

/// How a page is written, for errors.
pub const FORM: &str = "write slot:offset (ram:3, or 0:0x545a4), a guest frame number (0x545a4, gfn 345508), an address (gpa 0x545a4000), or a line of `cmp -l`";

/// A page as somebody named it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    /// By its guest frame number.
    Gfn(u64),
    /// By its place in a memslot, which has a name in a scenario and a number in a log.
    At {
        /// The memslot.
        slot: String,
        /// Pages from its beginning.
        offset: u64,
    },
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gfn(gfn) => write!(f, "gfn {gfn:#x}"),
            Self::At { slot, offset } => write!(f, "{slot}:{offset:#x}"),
        }
    }
}

/// The memory that addresses and offsets of bytes are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The guest address of the first byte of the dumps that were compared.
    pub base: u64,
    /// A page, in bytes.
    pub page_size: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            base: 0,
            page_size: 4096,
        }
    }
}

/// What is wrong with a list of pages.
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

/// What is wrong with one page, and what to write instead.
pub type Complaint = (String, String);

/// Reads a list of pages, one a line; empty lines and lines that begin with `#` are passed over. `each` says what a
/// page is good for.
///
/// # Errors
/// The first line that names no page, or one that `each` has no use for; a list without a page.
pub fn read_list(
    mut input: impl BufRead,
    file: &str,
    memory: Memory,
    mut each: impl FnMut(Named) -> Result<(), Complaint>,
) -> Result<(), PagesError> {
    let mut bytes = Vec::new();
    let mut line = 0;
    let mut any = false;
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
        any = true;
        parse(text, memory)
            .and_then(&mut each)
            .map_err(|(problem, help)| complain(line, problem, &help))?;
    }
    if !any {
        return Err(complain(
            0,
            "no page".to_owned(),
            "write the pages that differ, one a line: ram:3, or gfn 0x80003",
        ));
    }
    Ok(())
}

/// A number in decimal, or in hexadecimal behind `0x`.
#[must_use]
pub fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if digits.chars().all(|c| c.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16).ok()
        }
        None if text.chars().all(|c| c.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

/// The page that a text names.
///
/// # Errors
/// A text that names none, and what to write instead.
pub fn parse(text: &str, memory: Memory) -> Result<Named, Complaint> {
    // What `diff` of two dumps in text puts in front.
    let text = text.trim().trim_start_matches(['<', '>']).trim_start();
    let shown: String = text.chars().take(40).collect();
    let wrong = |what: &str| Err((format!("`{shown}` {what}"), FORM.to_owned()));
    let page = |address: u64| Named::Gfn(address / memory.page_size);
    if let Some(rest) = text.strip_prefix("gfn ") {
        return match number(rest) {
            Some(gfn) => Ok(Named::Gfn(gfn)),
            None => wrong("is no guest frame number"),
        };
    }
    if let Some(rest) = text.strip_prefix("gpa ") {
        return match number(rest) {
            Some(address) => Ok(page(address)),
            None => wrong("is no guest address"),
        };
    }
    if let Some(byte) = cmp_line(text) {
        return match byte.checked_sub(1).and_then(|n| memory.base.checked_add(n)) {
            Some(address) => Ok(page(address)),
            None => wrong("is no byte of a dump: `cmp -l` counts from 1"),
        };
    }
    if let Some(address) = dump_line(text) {
        return Ok(page(address));
    }
    if let Some((slot, offset)) = text.rsplit_once(':') {
        let Some(offset) = number(offset).filter(|_| !offset.trim().is_empty()) else {
            return wrong("has no offset in pages");
        };
        let slot = slot.trim().to_owned();
        return Ok(Named::At { slot, offset });
    }
    if (text.starts_with("0x") || text.starts_with("0X"))
        && let Some(gfn) = number(text)
    {
        return Ok(Named::Gfn(gfn));
    }
    wrong("names no page")
}

/// The byte of a line of `cmp -l`: its number in decimal, from 1 on, and both values in octal.
fn cmp_line(text: &str) -> Option<u64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [byte, one, other] = words.as_slice() else {
        return None;
    };
    let octal = |value: &str| u8::from_str_radix(value, 8).is_ok();
    let decimal = byte.chars().all(|c| c.is_ascii_digit());
    (decimal && octal(one) && octal(other))
        .then(|| byte.parse().ok())
        .flatten()
}

/// The address of a line of QEMU's `xp`, and of other dumps in text: digits of it, a colon and a blank.
fn dump_line(text: &str) -> Option<u64> {
    let (address, _) = text.split_once(": ")?;
    let hex = address.chars().all(|c| c.is_ascii_hexdigit());
    (hex && (8..=16).contains(&address.len()))
        .then(|| u64::from_str_radix(address, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_named_in_the_ways_of_the_tools() {
        let memory = Memory {
            base: 0x4000_0000,
            page_size: 4096,
        };
        for (text, gfn) in [
            ("0x545a4", 0x545a4),
            ("gfn 345508", 345_508),
            ("gpa 0x545a4010", 0x545a4),
            ("1 0 377", 0x40000),
            ("  4097 12 13", 0x40001),
            ("> 00000000545a4000: 0x00 0x01", 0x545a4),
            ("545a4ff0: 00 01", 0x545a4),
        ] {
            assert_eq!(parse(text, memory), Ok(Named::Gfn(gfn)), "{text}");
        }
        let at = |slot: &str, offset| Named::At {
            slot: slot.to_owned(),
            offset,
        };
        assert_eq!(parse("0:0x545a4", memory), Ok(at("0", 0x545a4)));
        assert_eq!(parse("ram: 3", memory), Ok(at("ram", 3)));
        for text in [
            "3",
            "ram",
            "ram:",
            "ram:-1",
            "0 1 2",
            "gfn",
            "gpa x",
            "0xg",
            "18446744073709551615 1 2",
        ] {
            assert!(parse(text, memory).is_err(), "{text}");
        }
    }
}
