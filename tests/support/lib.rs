//! Expected files: what tests compare their output with, and the one switch that writes them anew; and what a command says.
//!
//! `DIRTYSIM_BLESS=1 cargo test` rewrites every file and every section that a test hands to this crate; the diff is
//! reviewed like code. Not published, and no part of the program.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

/// The environment variable that has the expected files rewritten, whatever its value.
pub const SWITCH: &str = "DIRTYSIM_BLESS";

/// Two tests of one process may hold a section each of one file.
static WRITING: Mutex<()> = Mutex::new(());

/// The file is, byte for byte, `got`.
///
/// # Panics
/// If it is not, with the first line that differs; or if the file cannot be written, with the switch on.
#[track_caller]
pub fn file(path: &Path, got: impl AsRef<[u8]>) {
    done(compare_file(path, got.as_ref(), switched_on()));
}

/// The file's lines between `<!-- marker: begin -->` and `<!-- marker: end -->` are, byte for byte, `got`.
///
/// # Panics
/// If they are not, with the first line that differs; or if the markers are not there.
#[track_caller]
pub fn section(path: &Path, marker: &str, got: &str) {
    done(compare_section(path, marker, got, switched_on()));
}

/// There is no such file, because what would be written there failed.
///
/// # Panics
/// If there is one; with the switch on it goes.
#[track_caller]
pub fn no_file(path: &Path) {
    done(compare_absence(path, switched_on()));
}

fn switched_on() -> bool {
    std::env::var_os(SWITCH).is_some()
}

#[track_caller]
fn done(outcome: Result<(), String>) {
    if let Err(why) = outcome {
        panic!("{why}");
    }
}

fn compare_file(path: &Path, got: &[u8], rewrite: bool) -> Result<(), String> {
    let expected = match fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    if expected.as_deref() == Some(got) {
        return Ok(());
    }
    if rewrite {
        return write(path, got);
    }
    Err(match expected {
        Some(expected) => differs(&path.display().to_string(), &expected, got),
        None => format!(
            "{} is not there; {SWITCH}=1 cargo test writes it",
            path.display()
        ),
    })
}

fn compare_section(path: &Path, marker: &str, got: &str, rewrite: bool) -> Result<(), String> {
    let _alone = WRITING.lock();
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let begin = format!("<!-- {marker}: begin -->\n");
    let end = format!("<!-- {marker}: end -->");
    let parts = text.split_once(&begin).and_then(|(head, rest)| {
        let (old, tail) = rest.split_once(&end)?;
        Some((head, old, tail))
    });
    let Some((head, old, tail)) = parts else {
        return Err(format!(
            "{}: no lines `{}` and `{end}`; write both where the section belongs",
            path.display(),
            begin.trim_end()
        ));
    };
    if old == got {
        return Ok(());
    }
    if rewrite {
        return write(path, format!("{head}{begin}{got}{end}{tail}").as_bytes());
    }
    let what = format!("{}, section {marker}", path.display());
    Err(differs(&what, old.as_bytes(), got.as_bytes()))
}

fn compare_absence(path: &Path, rewrite: bool) -> Result<(), String> {
    if !path.exists() {
        return Ok(());
    }
    if rewrite {
        return fs::remove_file(path).map_err(|error| format!("{}: {error}", path.display()));
    }
    Err(format!(
        "{} is there, and nothing writes it any more; {SWITCH}=1 cargo test removes it",
        path.display()
    ))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(path, bytes))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Where two texts differ first, and what to do about it.
fn differs(what: &str, expected: &[u8], got: &[u8]) -> String {
    let (mut old, mut new) = (expected.split(end_of_line), got.split(end_of_line));
    let mut number = 1;
    loop {
        let (left, right) = (old.next(), new.next());
        if left != right || left.is_none() {
            return format!(
                "{what} differs at line {number}:\n  expected {}\n  got      {}\n\
                 look at the difference; if it is right, {SWITCH}=1 cargo test rewrites it, and its diff is reviewed like code",
                shown(left),
                shown(right)
            );
        }
        number += 1;
    }
}

fn end_of_line(byte: &u8) -> bool {
    *byte == b'\n'
}

fn shown(line: Option<&[u8]>) -> String {
    line.map_or_else(
        || "nothing more".to_owned(),
        |line| format!("{:?}", String::from_utf8_lossy(line)),
    )
}

/// What a command says: its exit code, its output and its errors.
///
/// # Panics
/// Where it cannot be run, or does not speak UTF-8.
#[must_use]
pub fn said(command: &mut std::process::Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("the command runs");
    let text = |bytes| String::from_utf8(bytes).expect("it speaks UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A file of a test's own, with that text.
    fn scratch(name: &str, text: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dirtysim-expected-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_file_that_differs_is_named_with_its_first_line_and_the_switch() {
        let path = scratch("differs", "one\ntwo\n");
        assert_eq!(compare_file(&path, b"one\ntwo\n", false), Ok(()));
        let why = compare_file(&path, b"one\nthree\n", false).unwrap_err();
        assert!(
            why.contains("differs at line 2") && why.contains("\"three\"") && why.contains(SWITCH),
            "{why}"
        );
        let why = compare_file(&path, b"one\ntwo\nthree\n", false).unwrap_err();
        assert!(why.contains("differs at line 3"), "{why}");
        // Without the switch nothing is written.
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn with_the_switch_a_file_is_written_and_then_it_is_equal() {
        let path = scratch("written", "old");
        assert_eq!(compare_file(&path, b"new", true), Ok(()));
        assert_eq!(compare_file(&path, b"new", false), Ok(()));
        fs::remove_file(&path).unwrap();
        let why = compare_file(&path, b"new", false).unwrap_err();
        assert!(why.contains("is not there"), "{why}");
        assert_eq!(compare_file(&path, b"new", true), Ok(()));
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_section_is_rewritten_and_what_is_around_it_stays() {
        let text = "head\n<!-- a: begin -->\nold\n<!-- a: end -->\ntail\n";
        let path = scratch("section", text);
        assert_eq!(compare_section(&path, "a", "old\n", false), Ok(()));
        let why = compare_section(&path, "a", "new\n", false).unwrap_err();
        assert!(why.contains("section a differs at line 1"), "{why}");
        let why = compare_section(&path, "b", "new\n", true).unwrap_err();
        assert!(why.contains("<!-- b: begin -->"), "{why}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(compare_section(&path, "a", "new\n", true), Ok(()));
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            text.replace("old", "new")
        );
    }

    #[test]
    fn a_file_that_must_not_be_there_goes_with_the_switch_alone() {
        let path = scratch("absent", "left over");
        let why = compare_absence(&path, false).unwrap_err();
        assert!(why.contains(SWITCH) && path.exists(), "{why}");
        assert_eq!(compare_absence(&path, true), Ok(()));
        assert_eq!(compare_absence(&path, false), Ok(()));
    }
}
