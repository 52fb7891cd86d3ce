//! The guests: a loop of about twenty instructions that reads a list of runs of pages and stores to, or loads from, each page once.
//!
//! It says that it is done by a port (x86) or an MMIO exit (arm64, RISC-V), and counts what retired in a register, so that the witness writes nothing
//! to guest memory to learn how far it came. Its own code, tables and lists live in one memslot that is not logged.
//!
//! The guest's architecture is the host's, so that the loop is assembled with the witness.

#[cfg(target_arch = "aarch64")]
mod arm64;
#[cfg(target_arch = "riscv64")]
mod riscv64;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub use arm64::*;
#[cfg(target_arch = "riscv64")]
pub use riscv64::*;
#[cfg(target_arch = "x86_64")]
pub use x86::*;

#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
mod one_reg;

#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
use one_reg::{get_one_reg, set_one_reg};

use std::sync::Arc;

use super::{HostMemory, PAGE_BYTES};
#[cfg(not(target_arch = "x86_64"))]
use crate::kvm::Vcpu;
use crate::refusal::Refused;

unsafe extern "C" {
    static dirtysim_guest_start: u8;
    static dirtysim_guest_end: u8;
}

/// The loop's machine code, between the labels that each architecture's has; it runs at any address.
fn code() -> &'static [u8] {
    between(
        &raw const dirtysim_guest_start,
        &raw const dirtysim_guest_end,
    )
}

/// The bytes between a guest's two labels.
fn between(start: *const u8, end: *const u8) -> &'static [u8] {
    // SAFETY: all callers' labels are in one read-only section, end after start, with the loop's bytes between.
    unsafe { std::slice::from_raw_parts(start, end.offset_from(start) as usize) }
}

/// The modes that a vCPU can be put into.
#[cfg(not(target_arch = "x86_64"))]
pub const MODES: &[&str] = &[MODE];

/// The modes in which the guest copies from where no memory is.
#[cfg(not(target_arch = "x86_64"))]
pub const MODES_THAT_COPY: &[&str] = &[];

/// The modes in which the guest's tables are in memory of their own.
#[cfg(not(target_arch = "x86_64"))]
pub const MODES_WITH_TABLES: &[&str] = &[];

/// Memory of the guest's: the host's, and where in it and at which guest address it begins, bytes.
#[derive(Clone)]
pub struct Place {
    /// The host's memory.
    pub memory: Arc<HostMemory>,
    /// Where in it.
    pub offset: u64,
    /// The guest's address.
    pub gpa: u64,
}

/// Puts a vCPU that is ready to run into one of [`MODES`].
///
/// # Errors
/// None here.
#[cfg(not(target_arch = "x86_64"))]
pub fn set_mode(
    _vcpu: &Vcpu,
    _memory: &HostMemory,
    _tables: Option<&Place>,
    _mode: &str,
) -> Result<(), Refused> {
    Ok(())
}

/// What a guest does to each page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Stores the low bytes of a value.
    Store {
        /// How many: 1, 2, 4 or 8.
        bytes: u32,
        /// The value.
        value: u64,
    },
    /// Stores 8 bytes of a number that grows by one with each store, so that no two stores leave the same page behind.
    Count {
        /// The first number.
        first: u64,
    },
    /// Loads.
    Load {
        /// How many bytes: 1 or 8.
        bytes: u32,
    },
    /// Copies to each page, by one string instruction, from where no memory is.
    #[cfg(target_arch = "x86_64")]
    CopyFrom {
        /// The guest physical address that is copied from.
        gpa: u64,
        /// Elements of 8 bytes.
        elements: u64,
    },
    /// Stays at the first page for ever and touches nothing.
    Spin,
}

/// A program: an access to each page of a list, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// What to do.
    pub access: Access,
    /// Runs of (guest physical address of the first access, pages).
    pub runs: Vec<(u64, u64)>,
}

/// Most runs in one program: one page of the list a vCPU.
pub const MAX_RUNS: usize = (PAGE_BYTES / 16) as usize;

/// Most vCPUs that have a list of their own.
pub const MAX_VCPUS: u64 = 8;

/// Writes a program's list to the page of `vcpu`, from byte `first_list` of the guest's own memory on. The guest reaches addresses
/// below `reach`.
fn write_list(
    memory: &HostMemory,
    first_list: u64,
    reach: u64,
    vcpu: u64,
    program: &Program,
) -> Result<(), Refused> {
    if program.runs.len() > MAX_RUNS {
        return Err(Refused(format!(
            "a program of {} runs of pages: at most {MAX_RUNS} fit; split it",
            program.runs.len()
        )));
    }
    if vcpu >= MAX_VCPUS {
        return Err(Refused(format!(
            "vCPU {vcpu} has no place for its program: only vCPUs 0 to {} can run one",
            MAX_VCPUS - 1
        )));
    }
    for &(gpa, pages) in &program.runs {
        if pages
            .checked_mul(PAGE_BYTES)
            .and_then(|bytes| bytes.checked_add(gpa))
            .is_none_or(|end| end > reach)
        {
            return Err(Refused(format!(
                "{pages} pages at guest address 0x{gpa:x} reach beyond 0x{reach:x}, where the guest's addresses end"
            )));
        }
    }
    let start = first_list + vcpu * PAGE_BYTES;
    for (index, (gpa, pages)) in program.runs.iter().enumerate() {
        memory.write_u64(start + index as u64 * 16, *gpa)?;
        memory.write_u64(start + index as u64 * 16 + 8, *pages)?;
    }
    Ok(())
}

/// The operation code of an access in the guest's loop (bytes stored; 0 for a load of one byte, 128 of 8, 16 for a count, 32 to spin, 64 to copy) and its value.
fn operation(access: Access) -> Result<(u64, u64), Refused> {
    match access {
        Access::Load { bytes: 1 } => Ok((0, 0)),
        Access::Load { bytes: 8 } => Ok((128, 0)),
        Access::Load { bytes } => Err(Refused(format!(
            "a load of {bytes} bytes: the guest loads 1 or 8"
        ))),
        Access::Spin => Ok((32, 0)),
        #[cfg(target_arch = "x86_64")]
        Access::CopyFrom { gpa, .. } => Ok((64, gpa)),
        Access::Count { first } => Ok((16, first)),
        Access::Store {
            bytes: bytes @ (1 | 2 | 4 | 8),
            value,
        } => Ok((bytes.into(), value)),
        Access::Store { bytes, .. } => Err(Refused(format!(
            "a store of {bytes} bytes: the guest stores 1, 2, 4 or 8"
        ))),
    }
}
