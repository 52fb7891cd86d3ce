//! The witness as the only process of a machine under emulation: mounts what it needs, runs one command, ships the files that it wrote, and
//! powers off. See `witness/machines/run`.
//!
//! Files written to `/out` go, one after the other, to the first virtio port, or to the port that the kernel's command line names by
//! `witness_port=`: a line `file NAME BYTES`, then the bytes; at the end a line `exit CODE`. The script on the other side believes nothing
//! that does not end so.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The port that ends in a file of the host, unless the environment names another, a serial one.
const PORT: &str = "/dev/vport0p1";
const PORT_NAMED_BY: &str = "witness_port";

/// Bytes that follow the last ones on a serial port: Bochs keeps the end of such a port's file, 4 KiB, to itself.
const PADDING: usize = 8192;

/// How long to wait for a device to appear: under emulation, drivers take a moment.
const DEVICE_WAIT: Duration = Duration::from_secs(20);

fn mount(kind: &str, place: &str) {
    let _ = fs::create_dir_all(place);
    let (kind, place) = (
        CString::new(kind).expect("no zero byte"),
        CString::new(place).expect("no zero byte"),
    );
    // SAFETY: three strings that end in zero; a failure shows when what should be there is missed.
    unsafe {
        libc::mount(
            kind.as_ptr(),
            place.as_ptr(),
            kind.as_ptr(),
            0,
            std::ptr::null(),
        )
    };
}

/// The settings of transparent huge pages.
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage";

/// Where the script says which modules the kernel needs: a path and its parameters a line.
const MODULES: &str = "/modules/order";

/// Loads the kernel's modules, if it was given any.
fn load_modules() {
    for line in fs::read_to_string(MODULES).unwrap_or_default().lines() {
        let (path, parameters) = line.split_once(' ').unwrap_or((line, ""));
        let parameters =
            CString::new(parameters.trim()).expect("a line of a text has no zero byte");
        let loaded = File::open(path).and_then(|file| {
            // SAFETY: an open file and a string that ends in zero; the kernel copies both.
            let answer = unsafe {
                libc::syscall(
                    libc::SYS_finit_module,
                    file.as_raw_fd(),
                    parameters.as_ptr(),
                    0,
                )
            };
            match answer {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
        if let Err(error) = loaded {
            eprintln!("error: {path}: {error}");
        }
    }
}

/// Memory that huge pages were asked for gets them when it is touched, and at no other time: a load is given memory, not the huge page of zeros, and
/// nobody makes huge pages of small ones meanwhile. A kernel without them has no such files.
fn quiet_huge_pages() {
    for (file, value) in [
        ("use_zero_page", "0"),
        ("khugepaged/scan_sleep_millisecs", "4294967295"),
    ] {
        let _ = fs::write(format!("{HUGE_PAGES}/{file}"), value);
    }
}

pub(super) fn wait_for(path: &str) -> bool {
    let deadline = Instant::now() + DEVICE_WAIT;
    while !Path::new(path).exists() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Every file in `/out`, in the order of names.
fn outputs() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir("/out")
        .map(|entries| {
            entries
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(|path| path.is_file())
                .collect()
        })
        .unwrap_or_default();
    files.sort();
    files
}

/// Bytes go through a serial port as they are, and as fast as it can.
fn make_raw(port: &File) {
    // SAFETY: the structure is zeroed and then filled in by the kernel; a port that is no terminal refuses.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(port.as_raw_fd(), &mut settings) == 0 {
            libc::cfmakeraw(&mut settings);
            settings.c_cflag = (settings.c_cflag & !libc::CBAUD) | libc::B115200;
            libc::tcsetattr(port.as_raw_fd(), libc::TCSANOW, &settings);
        }
    }
}

/// The port that everything goes through which the host reads.
pub(super) fn port() -> String {
    std::env::var(PORT_NAMED_BY).unwrap_or_else(|_| PORT.to_owned())
}

fn ship(code: u8, name: &str) -> std::io::Result<()> {
    let mut port = File::options().write(true).open(name)?;
    let serial = name != PORT;
    if serial {
        make_raw(&port);
    }
    for path in outputs() {
        let bytes = fs::read(&path)?;
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        writeln!(port, "file {name} {}", bytes.len())?;
        port.write_all(&bytes)?;
    }
    writeln!(port, "exit {code}")?;
    if serial {
        port.write_all(&[b'\n'; PADDING])?;
        // SAFETY: waits until all of it has gone.
        unsafe { libc::tcdrain(port.as_raw_fd()) };
    }
    port.flush()
}

/// Ends Bochs, which has no other way out that Linux knows: it takes a word, letter by letter, at this port. To others it is nothing.
#[cfg(target_arch = "x86_64")]
fn end_bochs() {
    // SAFETY: this process may use ports then; nothing is at this one but Bochs itself.
    unsafe {
        if libc::iopl(3) == 0 {
            for letter in *b"Shutdown" {
                core::arch::asm!("out dx, al", in("dx") 0x8900_u16, in("al") letter, options(nomem, nostack, preserves_flags));
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn end_bochs() {}

/// Runs a command as the first process and ends the machine.
pub(super) fn main(arguments: &[String]) -> ! {
    crate::kvm::fault::install();
    mount("devtmpfs", "/dev");
    mount("proc", "/proc");
    mount("sysfs", "/sys");
    let _ = fs::create_dir_all("/out");
    load_modules();
    quiet_huge_pages();
    // Without it the command says so itself.
    wait_for("/dev/kvm");
    let code = super::run(arguments);
    let named = std::env::var(PORT_NAMED_BY).is_ok();
    let port = port();
    if wait_for(&port) {
        if let Err(error) = ship(code, &port) {
            eprintln!("error: {port}: {error}");
        }
    } else {
        eprintln!("error: no {port} to ship results to");
    }
    if named {
        // What was said last, on the console, is in such a file too: the script drops these bytes.
        let _ = std::io::stdout().write_all(&[0; PADDING]);
        let _ = std::io::stdout().flush();
        end_bochs();
    } else {
        // A console that is slow still has the last lines, which are the result, when the power goes.
        let _ = std::io::stdout().flush();
        // SAFETY: waits until all of them have gone; where that is no terminal it does nothing.
        unsafe { libc::tcdrain(libc::STDOUT_FILENO) };
    }
    // SAFETY: syncing and powering off touch no memory of this process; nothing else runs on this machine.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    // The first process may not return.
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}
