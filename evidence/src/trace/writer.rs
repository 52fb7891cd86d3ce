//! Writing: rows to any stream, and files that appear only when they are whole.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::error::Complaint;
use super::header::Header;
use super::row::TraceRow;

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

/// A file that is being written: it takes its place only in [`keep`](Self::keep). Dropped before that, it is gone, and what
/// stood in its place is untouched.
///
/// Until then it has no name where the file system can do that (Linux's `O_TMPFILE`), so that a process that is killed
/// leaves nothing; elsewhere it stands beside its place under another name.
///
/// A place that is no regular file (a pipe, `/dev/null`) cannot be replaced; it is written to directly.
#[derive(Debug)]
pub struct PendingFile {
    place: PathBuf,
    output: Output,
}

/// How the name ends that a file has beside its place.
const PARTIAL: &str = ".partial";

/// How that name begins.
fn prefix(place: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(place.file_name().unwrap_or_default());
    prefix
}

/// Where the file will be.
fn directory(place: &Path) -> &Path {
    match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Files without a name.
#[cfg(target_os = "linux")]
mod nameless {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::path::Path;

    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};

    /// A file in the directory; none where that cannot be done, or where it could not be given a name afterwards.
    pub(super) fn create(directory: &Path) -> Option<File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(open(directory, flags, Mode::from_raw_mode(0o666)).ok()?);
        Path::new(&name(&file)).exists().then_some(file)
    }

    /// Gives the file a name, which must be free.
    pub(super) fn link(file: &File, path: &Path) -> io::Result<()> {
        Ok(linkat(CWD, name(file), CWD, path, AtFlags::SYMLINK_FOLLOW)?)
    }

    fn name(file: &File) -> String {
        format!("/proc/self/fd/{}", file.as_raw_fd())
    }
}

#[derive(Debug)]
enum Output {
    #[cfg(target_os = "linux")]
    Nameless(BufWriter<File>),
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
        if place.file_name().is_none() {
            return Err(io::Error::other("the path names no file"));
        }
        #[cfg(target_os = "linux")]
        if let Some(file) = nameless::create(directory(&place)) {
            let output = Output::Nameless(BufWriter::new(file));
            return Ok(Self { place, output });
        }
        let prefix = prefix(&place);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(PARTIAL);
        // What File::create would give, instead of a temporary file's private mode.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let output = Output::Beside(BufWriter::new(builder.tempfile_in(directory(&place))?));
        Ok(Self { place, output })
    }

    /// Puts the file in its place, over what stood there.
    pub fn keep(self) -> io::Result<()> {
        match self.output {
            #[cfg(target_os = "linux")]
            Output::Nameless(writer) => {
                let file = writer
                    .into_inner()
                    .map_err(io::IntoInnerError::into_error)?;
                // A link cannot replace a file; a rename can. By now the file is whole.
                tempfile::Builder::new()
                    .prefix(&prefix(&self.place))
                    .suffix(PARTIAL)
                    .make_in(directory(&self.place), |path| nameless::link(&file, path))?
                    .persist(&self.place)
                    .map_err(|error| error.error)?;
                Ok(())
            }
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

/// Whether what is made of `inputs` may take the place of `path`: it must be none of them, by whatever name, or they would
/// be gone. Files that cannot be replaced (a pipe, a terminal) may be both.
///
/// # Errors
///
/// It is one of them.
pub fn check_apart(path: &Path, inputs: &[impl AsRef<Path>]) -> io::Result<()> {
    let is_input = |input: &Path| same_file::is_same_file(path, input).unwrap_or(false);
    if path.is_file() && inputs.iter().any(|input| is_input(input.as_ref())) {
        let what = "it is the file that is read, and would be gone; give another name";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(())
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.output {
            #[cfg(target_os = "linux")]
            Output::Nameless(writer) => writer.write(bytes),
            Output::Beside(writer) => writer.write(bytes),
            Output::Direct(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.output {
            #[cfg(target_os = "linux")]
            Output::Nameless(writer) => writer.flush(),
            Output::Beside(writer) => writer.flush(),
            Output::Direct(writer) => writer.flush(),
        }
    }
}
