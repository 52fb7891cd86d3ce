//! A client of QEMU's gdb server: what is needed to let single processors go on, and no more.
//! Format: "GDB Remote Serial Protocol", appendix E of GDB's manual; `vCont` names the processors that go on, all others stay.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::refusal::Refused;

/// A processor of the machine, from 0.
pub type Cpu = usize;

/// The connection. While it is there and nothing was told to go on, the machine stands.
pub struct Gdb {
    stream: UnixStream,
    read: Vec<u8>,
}

/// The numbers of registers, as the server has them on arm64.
const PC: u32 = 32;

/// An answer to a command comes within this.
const ANSWER: Duration = Duration::from_secs(60);
/// What is said without being asked comes within this.
const SETTLE: Duration = Duration::from_millis(500);

fn cannot(error: impl std::fmt::Display) -> Refused {
    Refused(format!("QEMU's gdb server: {error}"))
}

impl Gdb {
    /// Connects, which stops the machine.
    ///
    /// # Errors
    /// No server there, or one that says something else.
    pub fn connect(socket: &Path) -> Result<Self, Refused> {
        let stream = UnixStream::connect(socket)
            .map_err(|error| cannot(format!("{}: {error}", socket.display())))?;
        let mut gdb = Self {
            stream,
            read: Vec::new(),
        };
        // The stop that connecting makes is reported or not.
        while gdb.receive(SETTLE)?.is_some() {}
        gdb.command("?")?;
        while gdb.receive(SETTLE)?.is_some() {}
        // Only who has asked for the registers' description may ask for one of them.
        gdb.command("qXfer:features:read:target.xml:0,ffb")?;
        Ok(gdb)
    }

    fn send(&mut self, text: &str) -> Result<(), Refused> {
        let sum = text.bytes().fold(0_u8, u8::wrapping_add);
        self.stream
            .write_all(format!("${text}#{sum:02x}").as_bytes())
            .map_err(cannot)
    }

    /// The next packet; none where none comes in time.
    fn receive(&mut self, limit: Duration) -> Result<Option<String>, Refused> {
        let deadline = Instant::now() + limit;
        loop {
            let begin = self.read.iter().position(|&byte| byte == b'$');
            let end = self.read.iter().position(|&byte| byte == b'#');
            if let (Some(begin), Some(end)) = (begin, end)
                && begin < end
                && self.read.len() >= end + 3
            {
                let text = String::from_utf8_lossy(&self.read[begin + 1..end]).into_owned();
                self.read.drain(..end + 3);
                self.stream.write_all(b"+").map_err(cannot)?;
                return Ok(Some(text));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left)).map_err(cannot)?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(cannot("the machine has ended")),
                Ok(bytes) => self.read.extend_from_slice(&buffer[..bytes]),
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(error) => return Err(cannot(error)),
            }
        }
    }

    fn command(&mut self, text: &str) -> Result<String, Refused> {
        self.send(text)?;
        self.receive(ANSWER)?
            .ok_or_else(|| cannot(format!("no answer to `{text}`")))
    }

    fn expect_ok(&mut self, text: &str) -> Result<(), Refused> {
        match self.command(text)?.as_str() {
            "OK" => Ok(()),
            other => Err(cannot(format!("`{text}` gives `{other}`"))),
        }
    }

    /// A register of a processor that stands; 64 bits.
    ///
    /// # Errors
    /// The server has none of that number.
    pub fn register(&mut self, cpu: Cpu, number: u32) -> Result<u64, Refused> {
        self.expect_ok(&format!("Hg{:x}", cpu + 1))?;
        let answer = self.command(&format!("p{number:x}"))?;
        u64::from_str_radix(&answer, 16)
            .map(u64::swap_bytes)
            .map_err(|_| cannot(format!("register {number} reads `{answer}`")))
    }

    /// Where a processor stands.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub fn pc(&mut self, cpu: Cpu) -> Result<u64, Refused> {
        self.register(cpu, PC)
    }

    /// Writes a register.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub fn set_register(&mut self, cpu: Cpu, number: u32, value: u64) -> Result<(), Refused> {
        self.expect_ok(&format!("Hg{:x}", cpu + 1))?;
        self.expect_ok(&format!("P{number:x}={:016x}", value.swap_bytes()))
    }

    /// One instruction of one processor, without interrupts.
    ///
    /// # Errors
    /// It does not come to its end.
    pub fn step(&mut self, cpu: Cpu) -> Result<(), Refused> {
        self.send(&format!("vCont;s:{:x}", cpu + 1))?;
        self.stopped(ANSWER)?
            .map(|_| ())
            .ok_or_else(|| cannot("an instruction that is stepped does not end"))
    }

    /// Lets processors go on until one of them comes to one of these addresses; which one. None where that takes longer than `limit`.
    ///
    /// # Errors
    /// The server, or the machine has ended.
    pub fn run(
        &mut self,
        cpus: &[Cpu],
        until: &[u64],
        limit: Duration,
    ) -> Result<Option<Cpu>, Refused> {
        for address in until {
            self.expect_ok(&format!("Z0,{address:x},4"))?;
        }
        let go = cpus.iter().map(|cpu| format!(";c:{:x}", cpu + 1));
        let go: String = go.collect();
        self.send(&format!("vCont{go}"))?;
        let mut stopped = self.stopped(limit)?;
        if stopped.is_none() {
            self.stream.write_all(&[3]).map_err(cannot)?;
            // What came to an address while it was interrupted counts.
            let _ = self
                .stopped(ANSWER)?
                .ok_or_else(|| cannot("the machine cannot be interrupted"))?;
            stopped = None;
        }
        for address in until {
            self.expect_ok(&format!("z0,{address:x},4"))?;
        }
        Ok(stopped)
    }

    /// Waits for the report of a stop: which processor.
    fn stopped(&mut self, limit: Duration) -> Result<Option<Cpu>, Refused> {
        let Some(report) = self.receive(limit)? else {
            return Ok(None);
        };
        let number = report
            .strip_prefix('T')
            .and_then(|rest| rest.split_once("thread:"))
            .and_then(|(_, rest)| rest.split(';').next())
            .and_then(|digits| usize::from_str_radix(digits, 16).ok());
        match number {
            Some(number @ 1..) => Ok(Some(number - 1)),
            _ => Err(cannot(format!("a stop is reported as `{report}`"))),
        }
    }

    /// Lets the machine go on by itself.
    ///
    /// # Errors
    /// The gdb.
    pub fn detach(mut self) -> Result<(), Refused> {
        self.expect_ok("D")
    }
}
