//! JSON Lines, one object at a time, in bounded memory.
//!
//! A trace may be larger than memory, and may be anything at all: no more than the limit is ever kept of a line,
//! whatever its length claims to be, and nesting is bounded by the JSON parser. Keys that appear twice in an object
//! are refused: JSON leaves their meaning open.

use std::fmt;
use std::io::BufRead;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::error::{Complaint, Problem, TraceError};

/// How long a line may be unless the reader is told otherwise, in bytes (1 MiB).
pub const DEFAULT_LINE_LIMIT_BYTES: usize = 1 << 20;

/// The objects of a JSON Lines file, in order.
#[derive(Debug)]
pub struct JsonLines<R> {
    input: R,
    file: String,
    line: u64,
    limit_bytes: usize,
    buffer: Vec<u8>,
    /// Whether the line in the buffer was ended by a line feed.
    ended: bool,
}

impl<R: BufRead> JsonLines<R> {
    /// Reads from `input`; `file` is the name that errors show.
    pub fn new(input: R, file: &str) -> Self {
        Self {
            input,
            file: file.to_owned(),
            line: 0,
            limit_bytes: DEFAULT_LINE_LIMIT_BYTES,
            buffer: Vec::new(),
            ended: false,
        }
    }

    /// Sets the longest line that is accepted, in bytes, its line feed not counted.
    pub fn with_line_limit(mut self, limit_bytes: usize) -> Self {
        self.limit_bytes = limit_bytes;
        self
    }

    /// The number of the line read last, counted from 1; 0 before the first.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The name that errors show.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The next line's object, or `None` at the end of the file.
    pub fn next_object(&mut self) -> Result<Option<Map<String, Value>>, Box<TraceError>> {
        if self.next_text()?.is_none() {
            return Ok(None);
        }
        self.object().map(Some)
    }

    /// The next line, which is UTF-8 and not blank, or `None` at the end of the file. For a reader that knows the line
    /// by its form; [`object`](Self::object) has the last word on what it does not know.
    pub(crate) fn next_text(&mut self) -> Result<Option<&str>, Box<TraceError>> {
        let Some(ended) = self.read_line()? else {
            return Ok(None);
        };
        self.ended = ended;
        if self.text()?.trim_start().is_empty() {
            return Err(self.error(
                Problem::BlankLine,
                "every line is one JSON object; delete this one",
            ));
        }
        self.text().map(Some)
    }

    /// The line read last.
    pub(crate) fn text(&self) -> Result<&str, Box<TraceError>> {
        match std::str::from_utf8(&self.buffer) {
            Ok(text) => Ok(text),
            // The end of the file inside a character is a truncation, not a wrong encoding.
            Err(error) if !self.ended && error.error_len().is_none() => Err(self.truncated()),
            Err(error) => Err(self.error(
                Problem::InvalidUtf8 {
                    column: error.valid_up_to() + 1,
                },
                "a trace is UTF-8 text; save or convert the file as UTF-8",
            )),
        }
    }

    /// The object of the line read last.
    pub(crate) fn object(&self) -> Result<Map<String, Value>, Box<TraceError>> {
        let mut parser = serde_json::Deserializer::from_str(self.text()?);
        let mut duplicate = None;
        let parsed = Strict {
            duplicate: &mut duplicate,
        }
        .deserialize(&mut parser)
        .and_then(|value| parser.end().map(|()| value));
        match parsed {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(self.error(Problem::NotAnObject, "write one object, {…}, a line")),
            Err(error) => {
                if let Some(key) = duplicate {
                    return Err(self.error(Problem::DuplicateKey(key), "keep one of the two"));
                }
                if error.is_eof() && !self.ended {
                    return Err(self.truncated());
                }
                let message = without_position(&error.to_string());
                let column = error.column();
                Err(self.error(
                    Problem::NotJson { column, message },
                    "every line is one complete JSON object, ended by a line feed",
                ))
            }
        }
    }

    /// An error at the current line.
    pub fn error(&self, problem: Problem, help: impl Into<String>) -> Box<TraceError> {
        TraceError::new(&self.file, self.line, problem, help)
    }

    /// A complaint about the line read last, with its place.
    pub fn complain(&self, complaint: Complaint) -> Box<TraceError> {
        complaint.at(&self.file, self.line)
    }

    fn truncated(&self) -> Box<TraceError> {
        self.error(
            Problem::TruncatedLine,
            "the writer was stopped, or the copy is not complete; delete this line or copy the file again",
        )
    }

    /// Puts the next line into the buffer without its line end. `None` at the end of the file, else whether the
    /// line was ended by a line feed.
    fn read_line(&mut self) -> Result<Option<bool>, Box<TraceError>> {
        self.buffer.clear();
        self.line += 1;
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let problem = Problem::Io(error.to_string());
                    return Err(self.error(problem, "check that the file can be read"));
                }
            };
            if available.is_empty() {
                if !self.buffer.is_empty() {
                    return Ok(Some(false));
                }
                self.line -= 1;
                return Ok(None);
            }
            let feed = memchr::memchr(b'\n', available);
            let taken = feed.unwrap_or(available.len());
            if self.buffer.len() + taken > self.limit_bytes {
                let limit_bytes = self.limit_bytes;
                return Err(self.error(
                    Problem::LineTooLong { limit_bytes },
                    format!("one event a line, of at most {limit_bytes} bytes"),
                ));
            }
            self.buffer.extend_from_slice(&available[..taken]);
            self.input.consume(taken + usize::from(feed.is_some()));
            if feed.is_some() {
                if self.buffer.last() == Some(&b'\r') {
                    self.buffer.pop();
                }
                return Ok(Some(true));
            }
        }
    }
}

/// The parser's message without its ` at line 1 column 5`: the line is the file's, not the parser's.
fn without_position(message: &str) -> String {
    message
        .rsplit_once(" at line ")
        .map_or(message, |(text, _)| text)
        .to_owned()
}

/// Builds a [`Value`] and refuses an object that has a key twice.
struct Strict<'a> {
    duplicate: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Strict {
            duplicate: &mut *self.duplicate,
        })? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key_seed(std::marker::PhantomData::<String>)? {
            if object.contains_key(&key) {
                let error = serde::de::Error::custom(format!("the key `{key}` appears twice"));
                *self.duplicate = Some(key);
                return Err(error);
            }
            let value = entries.next_value_seed(Strict {
                duplicate: &mut *self.duplicate,
            })?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// Turns an object into a `T`, which must name every field of it.
///
/// # Errors
/// What serde says of its fields.
pub fn object_into<'de, T: Deserialize<'de>>(
    object: Map<String, Value>,
) -> Result<T, serde_json::Error> {
    T::deserialize(Value::Object(object))
}
