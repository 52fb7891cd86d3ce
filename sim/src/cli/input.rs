//! A file that is read until somebody presses Ctrl-C.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::interrupted;

/// A file; once somebody has pressed Ctrl-C, reading it is an error.
pub(super) struct Input(pub(super) File);

impl Input {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// Waits until there is something to read, on a pipe for ever, and looks at the interrupt ten times a second.
    #[cfg(target_os = "linux")]
    fn wait(&self) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        use rustix::io::Errno;
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        // The signal itself ends the wait before anybody has noted it. What cannot be polled can be read.
        while !interrupted()
            && matches!(poll(&mut polled, Some(&timeout)), Ok(0) | Err(Errno::INTR))
        {}
    }

    #[cfg(not(target_os = "linux"))]
    fn wait(&self) {}
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let cut = || match interrupted() {
            true => Err(io::Error::other("interrupted")),
            false => Ok(()),
        };
        self.wait();
        cut()?;
        let read = self.0.read(buffer);
        // Whoever wrote to a pipe was interrupted as well, so that its end is no end.
        cut()?;
        read
    }
}

impl Seek for Input {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}
