//! Writing: rows to any stream, and files that appear only when they are whole.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::error::Complaint;
use super::header::Header;
use super::reader::TraceRow;

/// Why a trace could not be written.
#[derive(Debug)]
pub enum WriteError {
    /// The operating system refused.
    Io(io::Error),
    /// The row is not one that could be read again.
    Row(Complaint),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Io(error) => write!(f, "cannot write: {error}"),
            WriteError::Row(complaint) => {
                write!(f, "{}\nhelp: {}", complaint.problem, complaint.help)
            }
        }
    }
}

impl std::error::Error for WriteError {}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        WriteError::Io(error)
    }
}

/// Writes a header, then rows, to a stream.
#[derive(Debug)]
pub struct TraceWriter<W> {
    out: W,
}

impl<W: Write> TraceWriter<W> {
    /// Writes the header.
    pub fn new(mut out: W, header: &Header) -> io::Result<Self> {
        writeln!(out, "{}", header.to_line())?;
        Ok(Self { out })
    }

    /// Writes one row. A row that a reader would refuse is not written.
    pub fn row<T: TraceRow>(&mut self, row: &T) -> Result<(), WriteError> {
        row.check().map_err(WriteError::Row)?;
        let line = row.to_line().map_err(WriteError::Row)?;
        writeln!(self.out, "{line}")?;
        Ok(())
    }

    /// Gives the stream back.
    pub fn into_inner(self) -> W {
        self.out
    }
}

/// A file that is being written: it stands beside its place under another name, and takes its place only in
/// [`keep`](Self::keep). Dropped before that, it is removed, and what stood in its place is untouched.
///
/// A place that is no regular file (a pipe, `/dev/null`) cannot be replaced; it is written to directly.
#[derive(Debug)]
pub struct PendingFile {
    place: PathBuf,
    output: Output,
}

#[derive(Debug)]
enum Output {
    Beside(BufWriter<NamedTempFile>),
    Direct(BufWriter<File>),
}

impl PendingFile {
    /// Opens a file beside `path`. The directory must exist.
    pub fn create(path: &Path) -> io::Result<Self> {
        // A link is followed, so that the file that it names is replaced, and not the link.
        let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if let Ok(metadata) = fs::metadata(&place) {
            if metadata.is_dir() {
                return Err(io::Error::new(
                    io::ErrorKind::IsADirectory,
                    "it is a directory",
                ));
            }
            if !metadata.is_file() {
                let file = File::options().write(true).open(&place)?;
                return Ok(Self {
                    place,
                    output: Output::Direct(BufWriter::new(file)),
                });
            }
        }
        let directory = match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut prefix = OsString::from(".");
        prefix.push(
            place
                .file_name()
                .ok_or_else(|| io::Error::other("the path names no file"))?,
        );
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".partial");
        // What File::create would give, instead of a temporary file's private mode.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(directory)?;
        Ok(Self {
            place,
            output: Output::Beside(BufWriter::new(file)),
        })
    }

    /// Puts the file in its place, over what stood there.
    pub fn keep(self) -> io::Result<()> {
        match self.output {
            Output::Beside(writer) => {
                let file = writer
                    .into_inner()
                    .map_err(io::IntoInnerError::into_error)?;
                file.persist(&self.place).map_err(|error| error.error)?;
                Ok(())
            }
            Output::Direct(mut writer) => writer.flush(),
        }
    }
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.output {
            Output::Beside(writer) => writer.write(bytes),
            Output::Direct(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.output {
            Output::Beside(writer) => writer.flush(),
            Output::Direct(writer) => writer.flush(),
        }
    }
}
