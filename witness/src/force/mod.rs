//! One interleaving, forced on a real kernel: a schedule of the model whose actors are held where its steps say.
//!
//! The kernel runs on an emulated machine with one processor for each actor and one for everything else. QEMU's gdb server stops an actor's
//! processor at a function of the kernel, or at an instruction of the guest, and leaves it there while another's goes on. So of all actors
//! one moves at a time, as in the model, and what lies between two holds happens at once.
//!
//! The same program reads the same trace on both sides: inside, as the machine's first process, it is the actors (`actors.rs`); outside, it is the
//! one that lets each of them go on to its next place (`driver.rs`).

#[cfg(target_arch = "aarch64")]
pub mod actors;
pub mod driver;
pub mod gdb;
pub mod places;
pub mod plan;

/// How a line of the machine begins that tells the driver an address, a number of it, or that the actors wait.
pub const TELLS: &str = "force";
/// What an actor's first mark says, before its program: it waits to be let go.
pub const WAITS: u64 = u64::MAX;
