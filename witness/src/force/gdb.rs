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
/// Steps of a processor that do nothing, one after another, before it counts as one that does not go on.
const IDLE_STEPS_MAX: u32 = 64;
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

    /// One instruction of one processor, without interrupts; the address at which it stands then.
    ///
    /// QEMU reports a step as done though it did nothing, where something kicks the processor (its timer, say) just before the instruction.
    /// So what stands where it stood is stepped again: nothing that is stepped here branches to itself.
    ///
    /// # Errors
    /// It does not come to its end, or another processor stops.
    pub fn step(&mut self, cpu: Cpu) -> Result<u64, Refused> {
        let before = self.pc(cpu)?;
        for _ in 0..IDLE_STEPS_MAX {
            self.send(&format!("vCont;s:{:x}", cpu + 1))?;
            let stopped = self
                .stopped(ANSWER)?
                .ok_or_else(|| cannot("an instruction that is stepped does not end"))?;
            if stopped != cpu {
                return Err(cannot(format!(
                    "processor {cpu} is stepped, and {stopped} stops"
                )));
            }
            let after = self.pc(cpu)?;
            if after != before {
                return Ok(after);
            }
        }
        Err(cannot(format!(
            "processor {cpu} stays at 0x{before:x} in {IDLE_STEPS_MAX} steps"
        )))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with one processor, which stands at an address of a list, and at the next after each step; what it was asked.
    fn served(addresses: &'static [u64], reports: &'static str) -> Gdb {
        let (stream, mut server) = UnixStream::pair().expect("a pair of sockets");
        std::thread::spawn(move || {
            let mut at = addresses.iter();
            let mut here = *at.next().expect("an address");
            let mut asked = Vec::new();
            let mut byte = [0];
            while server.read_exact(&mut byte).is_ok() {
                asked.push(byte[0]);
                // "$", what is asked, "#", two digits.
                let Some(end) = asked.iter().position(|&byte| byte == b'#') else {
                    continue;
                };
                if asked.len() < end + 3 {
                    continue;
                }
                let text = String::from_utf8_lossy(&asked).into_owned();
                let answer = if text.contains("vCont;s") {
                    here = at.next().copied().unwrap_or(here);
                    reports.to_owned()
                } else if text.contains("$p") {
                    format!("{:016x}", here.swap_bytes())
                } else {
                    "OK".to_owned()
                };
                asked.clear();
                if server
                    .write_all(format!("${answer}#00").as_bytes())
                    .is_err()
                {
                    return;
                }
            }
        });
        Gdb {
            stream,
            read: Vec::new(),
        }
    }

    #[test]
    fn a_step_that_did_nothing_is_done_again() {
        let mut gdb = served(&[0x1000, 0x1000, 0x1000, 0x1004, 0x1008], "T05thread:02;");
        assert_eq!(gdb.step(1), Ok(0x1004));
        assert_eq!(gdb.step(1), Ok(0x1008));
    }

    #[test]
    fn a_processor_that_never_goes_on_is_refused() {
        let Refused(problem) = served(&[0x1000], "T05thread:02;")
            .step(1)
            .expect_err("it stays");
        assert!(problem.contains("stays at 0x1000"), "{problem}");
        let Refused(problem) = served(&[0x1000, 0x1004], "T05thread:01;")
            .step(1)
            .expect_err("another stops");
        assert!(
            problem.contains("processor 1 is stepped, and 0 stops"),
            "{problem}"
        );
    }
}
