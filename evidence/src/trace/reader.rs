//! Reading a trace: the header at once, then one row at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::marker::PhantomData;
use std::path::Path;

use super::enclosed;
use super::error::{Problem, TraceError};
use super::header::Header;
use super::lines::{DEFAULT_LINE_LIMIT_BYTES, JsonLines};
use super::row::TraceRow;

/// The longest text in which a schedule is looked for, in bytes (4 MiB).
const MAIL_LIMIT_BYTES: u64 = 4 << 20;

/// A row, and the line on which it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The line, counted from 1; the header is line 1.
    pub line: u64,
    /// The row.
    pub row: T,
}

/// A trace whose header has been read.
#[derive(Debug)]
pub struct TraceReader<R> {
    lines: JsonLines<R>,
    header: Header,
}

impl TraceReader<BufReader<File>> {
    /// Opens a file and reads its header; of a text that carries a schedule ([`enclosed`]), that. Errors show the path as
    /// it was given.
    pub fn open(path: &Path) -> Result<Self, Box<TraceError>> {
        Self::open_through(path, |file| file)
    }
}

impl<R: Read + Seek> TraceReader<BufReader<R>> {
    /// The same, where the file is read by what `through` makes of it.
    pub fn open_through(path: &Path, through: impl Fn(File) -> R) -> Result<Self, Box<TraceError>> {
        let name = path.display().to_string();
        let unreadable = |error: std::io::Error| {
            TraceError::new(
                &name,
                0,
                Problem::Io(error.to_string()),
                "check the path of the trace",
            )
        };
        let mut input = BufReader::new(through(File::open(path).map_err(unreadable)?));
        let begins = input.fill_buf().map_err(unreadable)?.first().copied();
        // A trace begins with its header's brace. What is no regular file cannot be read twice.
        if begins == Some(b'{') || !path.is_file() {
            return Self::new(input, &name);
        }
        let mut text = String::new();
        let read = (&mut input)
            .take(MAIL_LIMIT_BYTES)
            .read_to_string(&mut text);
        match read.ok().and_then(|_| enclosed::trace(&text)) {
            Some(Ok(trace)) => {
                let mut file = tempfile::tempfile().map_err(unreadable)?;
                file.write_all(trace.as_bytes())
                    .and_then(|()| file.rewind())
                    .map_err(unreadable)?;
                Self::new(
                    BufReader::new(through(file)),
                    &format!("{name}, its schedule"),
                )
            }
            Some(Err((line, problem))) => Err(TraceError::new(
                &name,
                line as u64,
                Problem::Schedule(problem),
                "copy the lines from the one mark to the other as they were",
            )),
            None => {
                input.rewind().map_err(unreadable)?;
                Self::new(input, &name)
            }
        }
    }
}

impl<R: BufRead> TraceReader<R> {
    /// Reads the header from `input`; `file` is the name that errors show.
    pub fn new(input: R, file: &str) -> Result<Self, Box<TraceError>> {
        Self::with_line_limit(input, file, DEFAULT_LINE_LIMIT_BYTES)
    }

    /// The same, with another limit to a line's length, in bytes.
    pub fn with_line_limit(
        input: R,
        file: &str,
        limit_bytes: usize,
    ) -> Result<Self, Box<TraceError>> {
        let mut lines = JsonLines::new(input, file).with_line_limit(limit_bytes);
        let Some(object) = lines.next_object()? else {
            return Err(TraceError::new(
                file,
                0,
                Problem::Empty,
                "a trace has a header on its first line; `dirtysim import` and `dirtysim run` write one",
            ));
        };
        let header = Header::from_object(object).map_err(|complaint| complaint.at(file, 1))?;
        Ok(Self { lines, header })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The rows, one at a time. An error if the header names another kind than `T`'s.
    pub fn rows<T: TraceRow>(self) -> Result<Rows<R, T>, Box<TraceError>> {
        if self.header.kind != T::KIND {
            let problem = Problem::WrongKind {
                wanted: T::KIND,
                found: self.header.kind,
            };
            let help = format!("give a trace whose header says `\"kind\":\"{}\"`", T::KIND);
            return Err(TraceError::new(self.lines.file(), 1, problem, help));
        }
        Ok(Rows {
            lines: self.lines,
            failed: false,
            row: PhantomData,
        })
    }
}

/// The rows of a trace. Ends after the first error.
#[derive(Debug)]
pub struct Rows<R, T> {
    lines: JsonLines<R>,
    failed: bool,
    row: PhantomData<fn() -> T>,
}

impl<R: BufRead, T: TraceRow> Rows<R, T> {
    /// Reads the next line; what is in it, the caller asks.
    pub(crate) fn read_line(&mut self) -> Result<Option<Line<'_, R, T>>, Box<TraceError>> {
        let more = self.lines.next_text()?.is_some();
        Ok(more.then_some(Line { rows: self }))
    }

    fn read(&mut self) -> Result<Option<Located<T>>, Box<TraceError>> {
        let Some(line) = self.read_line()? else {
            return Ok(None);
        };
        let number = line.number();
        let row = match T::from_text(line.text()?) {
            Some(row) => row,
            None => line.row()?,
        };
        Ok(Some(Located { line: number, row }))
    }
}

/// A line of a trace, read and not yet understood.
pub(crate) struct Line<'a, R, T> {
    rows: &'a Rows<R, T>,
}

impl<R: BufRead, T: TraceRow> Line<'_, R, T> {
    /// Its number, counted from 1.
    pub(crate) fn number(&self) -> u64 {
        self.rows.lines.line()
    }

    /// Its text.
    pub(crate) fn text(&self) -> Result<&str, Box<TraceError>> {
        self.rows.lines.text()
    }

    /// Its row.
    pub(crate) fn row(&self) -> Result<T, Box<TraceError>> {
        T::from_object(self.rows.lines.object()?)
            .map_err(|complaint| self.rows.lines.complain(complaint))
    }
}

impl<R: BufRead, T: TraceRow> Iterator for Rows<R, T> {
    type Item = Result<Located<T>, Box<TraceError>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let read = self.read();
        self.failed = read.is_err();
        read.transpose()
    }
}
