//! The other side of `force`: on the host, at QEMU's gdb stub. It stops one emulated processor at an address of the kernel's while the
//! others run on, as the machine asks.
//!
//! The machine asks by a system call that does nothing else: sethostname() with a length that the kernel refuses, at whose entry this stops
//! it. The registers say what is asked ([`Ask`]), an address of the kernel's, and a word of the asking process's memory that becomes 1 when a
//! processor is held there. Nothing of the machine is changed but that word.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::refusal::Refused;

/// The length from which on sethostname() is a question; the kernel takes at most 64.
pub const LENGTH_BASE: u64 = 1000;

/// What a machine asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Hold whoever comes to the address next.
    Hold = 1,
    /// Let go of who is held.
    Release = 2,
    /// It is over.
    End = 3,
}

impl Ask {
    fn from_length(length: u64) -> Option<Self> {
        let asks = [Self::Hold, Self::Release, Self::End];
        asks.into_iter()
            .find(|ask| LENGTH_BASE + *ask as u64 == length)
    }
}

/// Where x86's entry of a system call keeps the caller's registers, bytes into `struct pt_regs`.
const PT_REGS_DX: u64 = 96;
const PT_REGS_SI: u64 = 104;
const PT_REGS_DI: u64 = 112;
/// Where a register is among the stub's, counted in 64-bit words.
const RDI: usize = 5;
const RIP: usize = 16;

/// How long the machine may go on without asking anything.
const PATIENCE: Duration = Duration::from_secs(240);

/// A connection to the stub.
struct Stub {
    stream: UnixStream,
    processors: u32,
}

fn refused(what: &str) -> impl Fn(std::io::Error) -> Refused + '_ {
    move |error| Refused(format!("{what}: {error}"))
}

impl Stub {
    fn send(&mut self, text: &str) -> Result<(), Refused> {
        let sum = text.bytes().fold(0_u8, u8::wrapping_add);
        self.stream
            .write_all(format!("${text}#{sum:02x}").as_bytes())
            .map_err(refused("the stub takes no packet"))
    }

    fn byte(&mut self) -> Result<u8, Refused> {
        let mut byte = [0];
        self.stream
            .read_exact(&mut byte)
            .map_err(refused("the stub says nothing"))?;
        Ok(byte[0])
    }

    /// The next packet; acknowledgements between are passed over.
    fn receive(&mut self) -> Result<String, Refused> {
        while self.byte()? != b'$' {}
        let mut text = String::new();
        loop {
            match self.byte()? {
                b'#' => break,
                byte => text.push(byte.into()),
            }
        }
        self.byte()?;
        self.byte()?;
        self.stream
            .write_all(b"+")
            .map_err(refused("the stub takes no acknowledgement"))?;
        Ok(text)
    }

    fn ask(&mut self, text: &str) -> Result<String, Refused> {
        self.send(text)?;
        self.receive()
    }

    fn expect_ok(&mut self, text: &str) -> Result<(), Refused> {
        match self.ask(text)?.as_str() {
            "OK" => Ok(()),
            other => Err(Refused(format!("the stub answers `{text}` with `{other}`"))),
        }
    }

    /// Waits until a processor stops; which.
    fn stopped(&mut self) -> Result<u32, Refused> {
        let text = self.receive()?;
        let thread = text
            .strip_prefix('T')
            .and_then(|rest| rest.split_once("thread:"))
            .and_then(|(_, rest)| rest.split(';').next())
            .and_then(|number| u32::from_str_radix(number.rsplit('.').next()?, 16).ok());
        thread.ok_or_else(|| Refused(format!("the stub says `{text}`, which names no processor")))
    }

    fn registers(&mut self, processor: u32) -> Result<Vec<u64>, Refused> {
        self.expect_ok(&format!("Hg{processor:x}"))?;
        let text = self.ask("g")?;
        text.as_bytes()
            .chunks_exact(16)
            .take(RIP + 1)
            .map(|word| {
                let text = std::str::from_utf8(word).unwrap_or_default();
                u64::from_str_radix(text, 16)
                    .map(u64::swap_bytes)
                    .map_err(|_| Refused(format!("registers that are no numbers: {text}")))
            })
            .collect()
    }

    fn word(&mut self, address: u64) -> Result<u64, Refused> {
        let text = self.ask(&format!("m{address:x},8"))?;
        u64::from_str_radix(&text, 16)
            .map(u64::swap_bytes)
            .map_err(|_| Refused(format!("no memory at 0x{address:x}: {text}")))
    }

    fn stop_at(&mut self, address: u64, on: bool) -> Result<(), Refused> {
        let letter = if on { 'Z' } else { 'z' };
        self.expect_ok(&format!("{letter}0,{address:x},1"))
    }

    /// Lets every processor run that is not held.
    fn go_on(&mut self, held: Option<u32>) -> Result<(), Refused> {
        let actions: String = (1..=self.processors)
            .filter(|processor| Some(*processor) != held)
            .map(|processor| format!(";c:{processor:x}"))
            .collect();
        self.send(&format!("vCont{actions}"))
    }

    /// Past an address where it stopped, alone.
    fn step_past(&mut self, processor: u32, address: u64) -> Result<(), Refused> {
        self.stop_at(address, false)?;
        self.send(&format!("vCont;s:{processor:x}"))?;
        self.stopped()?;
        self.stop_at(address, true)
    }
}

/// Serves a machine's questions until it says that it is over. `doorbell` is where sethostname() begins.
///
/// # Errors
/// No stub there, one that answers otherwise, or a machine that asks nothing for a long time.
pub fn serve(socket: &str, doorbell: u64, processors: u32) -> Result<u64, Refused> {
    let stream = UnixStream::connect(socket).map_err(refused(socket))?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .map_err(refused(socket))?;
    let mut stub = Stub { stream, processors };
    stub.ask("?")?;
    stub.stop_at(doorbell, true)?;
    let mut place = None;
    let mut held = None;
    let mut holds = 0;
    loop {
        stub.go_on(held)?;
        let processor = stub.stopped()?;
        let registers = stub.registers(processor)?;
        let rip = registers.get(RIP).copied().unwrap_or_default();
        if rip == doorbell {
            let frame = registers[RDI];
            let asked = Ask::from_length(stub.word(frame + PT_REGS_SI)?);
            let address = stub.word(frame + PT_REGS_DI)?;
            let flag = stub.word(frame + PT_REGS_DX)?;
            match asked {
                Some(Ask::Hold) => {
                    if let Some((old, _)) = place.replace((address, flag)) {
                        stub.stop_at(old, false)?;
                    }
                    stub.stop_at(address, true)?;
                }
                Some(Ask::Release) => held = None,
                Some(Ask::End) => {
                    stub.stop_at(doorbell, false)?;
                    stub.expect_ok("D")?;
                    return Ok(holds);
                }
                None => {}
            }
            stub.step_past(processor, doorbell)?;
        } else if let Some((address, flag)) = place.filter(|(address, _)| *address == rip) {
            stub.expect_ok(&format!("M{flag:x},4:01000000"))?;
            stub.stop_at(address, false)?;
            place = None;
            held = Some(processor);
            holds += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_says_what_is_asked() {
        assert_eq!(Ask::from_length(1001), Some(Ask::Hold));
        assert_eq!(Ask::from_length(1003), Some(Ask::End));
        assert_eq!(Ask::from_length(64), None);
    }
}
