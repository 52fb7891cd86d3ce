//! Lines of a log as bytes, in bounded memory and without a copy where a line lies whole in the buffer.

use std::io::{self, Read};

/// The longest line of any of these tools is far below this, in bytes.
pub(crate) const LINE_MAX: usize = 16 << 10;

/// What is read at once, in bytes; also how much of a log is looked at to tell what it is.
pub(crate) const BUFFER: usize = 256 << 10;

/// A line without its line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RawLine<'a> {
    /// A whole line.
    Whole(&'a [u8]),
    /// The last line, without a line end: it may have been cut.
    Cut(&'a [u8]),
    /// A line longer than [`LINE_MAX`]; its bytes were passed over.
    Overlong,
}

/// Reads lines from anything.
#[derive(Debug)]
pub(crate) struct RawLines<R> {
    input: R,
    buffer: Vec<u8>,
    /// The bytes that were read and not handed out.
    from: usize,
    to: usize,
    ended: bool,
    /// Number of the line handed out last, from 1.
    line: u64,
    bytes: u64,
}

impl<R: Read> RawLines<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            buffer: vec![0; BUFFER],
            from: 0,
            to: 0,
            ended: false,
            line: 0,
            bytes: 0,
        }
    }

    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// Bytes handed out or passed over.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The log's first bytes, without taking them: a full buffer, or the whole log.
    pub(crate) fn peek(&mut self) -> io::Result<&[u8]> {
        while !self.ended && self.to < self.buffer.len() {
            self.fill()?;
        }
        Ok(&self.buffer[self.from..self.to])
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.from > 0 {
            self.buffer.copy_within(self.from..self.to, 0);
            self.to -= self.from;
            self.from = 0;
        }
        let n = loop {
            match self.input.read(&mut self.buffer[self.to..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.ended = n == 0;
        self.to += n;
        Ok(())
    }

    /// The next line.
    pub(crate) fn next(&mut self) -> io::Result<Option<RawLine<'_>>> {
        let mut overlong = false;
        let mut searched = 0;
        loop {
            if let Some(n) = memchr::memchr(b'\n', &self.buffer[self.from + searched..self.to]) {
                let start = self.from;
                let end = start + searched + n;
                self.from = end + 1;
                self.bytes += (end + 1 - start) as u64;
                self.line += 1;
                let line = &self.buffer[start..end];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if overlong || line.len() > LINE_MAX {
                    return Ok(Some(RawLine::Overlong));
                }
                return Ok(Some(RawLine::Whole(line)));
            }
            searched = self.to - self.from;
            if self.ended {
                if searched == 0 && !overlong {
                    return Ok(None);
                }
                self.line += 1;
                self.bytes += searched as u64;
                let start = self.from;
                self.from = self.to;
                if overlong || searched > LINE_MAX {
                    return Ok(Some(RawLine::Overlong));
                }
                return Ok(Some(RawLine::Cut(&self.buffer[start..self.to])));
            }
            if searched > LINE_MAX {
                overlong = true;
                self.bytes += searched as u64;
                self.from = self.to;
                searched = 0;
            }
            self.fill()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<String> {
        let mut reader = RawLines::new(text);
        let mut out = Vec::new();
        while let Some(line) = reader.next().unwrap() {
            out.push(match line {
                RawLine::Whole(line) => format!("whole {}", String::from_utf8_lossy(line)),
                RawLine::Cut(line) => format!("cut {}", String::from_utf8_lossy(line)),
                RawLine::Overlong => "overlong".to_owned(),
            });
        }
        assert_eq!(reader.bytes(), text.len() as u64);
        assert_eq!(reader.line(), out.len() as u64);
        out
    }

    #[test]
    fn lines_end_with_or_without_a_carriage_return_and_the_last_may_be_cut() {
        assert_eq!(lines(b"a\r\n\nb"), ["whole a", "whole ", "cut b"]);
        assert_eq!(lines(b""), [] as [&str; 0]);
    }

    #[test]
    fn a_line_of_any_length_takes_no_more_than_the_buffer() {
        let mut text = vec![b'x'; 3 * BUFFER + 5];
        text.push(b'\n');
        text.extend_from_slice(b"after\n");
        text.extend(vec![b'y'; LINE_MAX + 1]);
        assert_eq!(lines(&text), ["overlong", "whole after", "overlong"]);
    }
}
