//! Your VMM's own dirty-page collection under every schedule of a simulated KVM.
//!
//! Whoever writes a VMM wraps his own collection code once, and `cargo test` runs *that code* against the simulated kernel: under
//! thousands of schedules, or under all of them. Where a page is lost, the test panics with the shortest story of how.
//!
//! ```
//! use dirtysim_kvm::{Arch, Errno, Machine, Vm, check};
//!
//! /// The code under test, as a VMM has it.
//! fn migrate(vm: &Vm) -> Result<(), Errno> {
//!     let ram = vm.memory_region(0);
//!     vm.set_user_memory_region(ram.log_dirty_pages())?;
//!     vm.send_all_pages();
//!     for last in [false, true] {
//!         if last {
//!             vm.pause_vcpus();
//!         }
//!         let bitmap = vm.get_dirty_log(0, ram.memory_size as usize)?;
//!         for page in (0..64).filter(|page| bitmap[0] >> page & 1 != 0) {
//!             vm.send_page(0, page);
//!         }
//!     }
//!     Ok(())
//! }
//!
//! // #[test]
//! fn my_migration_loses_nothing() {
//!     let machine = Machine::new(Arch::X86).slot(0, 2).stores(2);
//!     check(machine, |vm: Vm| {
//!         migrate(&vm)?;
//!         vm.assert_copy_is_whole();
//!         Ok::<(), Errno>(())
//!     });
//! }
//! # my_migration_loses_nothing();
//! ```
//!
//! # What the code may do
//!
//! It may do anything that is deterministic and learns of the world by the calls on [`Vm`] alone. Then it is a function from the answers so far
//! to its next call, and that is what is searched: it is run again from its begin only for a history of answers that is new.
//! What differs from run to run (time, the order of a hash map, random numbers) is found and told. Threads are started by [`Vm::spawn`], and wait for each other by
//! [`Vm::mutex`] and [`Vm::channel`].
//!
//! # What is claimed
//!
//! [`Vm::assert_copy_is_whole`] claims that the destination equals memory. Beside it stand the kernel's own contracts (rings never overflow, entries
//! go through their life in order, and so on), panics and errors of the code, and deadlocks.
//! The claims on the way to the end, that every page which differs is accounted for, are off: what the code will do with what it holds in its
//! variables is not known.
#![forbid(unsafe_code)]

pub mod by_number;
mod checker;
mod drive;
mod errno;
mod failure;
mod hypervisor;
mod in_a_test;
mod machine;
#[cfg(test)]
mod naive;
mod names;
mod own_bitmap;
mod region;
mod report;
mod session;
mod set_up;
mod steps;
#[cfg(feature = "proptest")]
pub mod strategies;
mod taken;
mod threads;
mod tree;
mod vm;
mod work;
mod workers;
mod world;

pub use checker::Checker;
pub use errno::{Errno, Result};
pub use failure::{Failure, FailureKind};
pub use hypervisor::Hypervisor;
pub use in_a_test::{EnvironmentError, check, replay, run};
pub use machine::{Arch, Machine, MachineError, Page};
pub use own_bitmap::OwnBitmap;
pub use region::{KVM_MEM_LOG_DIRTY_PAGES, UserspaceMemoryRegion};
pub use report::{OnTheWay, Outcome, Report};
pub use set_up::{
    EnableCap, KVM_CAP_DIRTY_LOG_RING, KVM_CAP_DIRTY_LOG_RING_ACQ_REL,
    KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, SetUp,
};
pub use steps::{Ask, StateMachine, Told};
pub use threads::{JoinHandle, Mutex, MutexGuard, Receiver, RecvError, Sender};
pub use vm::{Device, DirtyLogRing, Vcpu, Vm};
