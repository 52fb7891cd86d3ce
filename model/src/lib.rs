//! The semantics of KVM's dirty logging, as one transition function.
//!
//! A [`Machine`](machine::Machine) is what does not change: architecture, kernel version, memslots, the budgets of
//! the writers, and the programs of the VMM's threads. A [`State`](state::State) is what does. [`step::for_each_step`]
//! tells which atomic steps are possible, [`step::apply`] takes one, [`oracle::check`] tells which claims it broke.
//! Everything that runs the model (seeded schedules, exhaustive search, replay, lockstep with a kernel) goes through
//! these three.
//!
//! Not modelled: memory order weaker than sequential consistency outside the named mutations; time; the contents of
//! pages; nested paging structures.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod device;
mod device_steps;
pub mod errno;
pub mod footprint;
pub mod host;
pub mod independence;
mod ioctl;
pub mod layout;
pub mod machine;
pub mod mutation;
pub mod op;
pub mod oracle;
pub mod pack;
pub mod pages;
pub mod query;
pub mod ring;
pub mod slot;
pub mod state;
pub mod step;
pub mod symmetry;
pub mod thread;
mod thread_steps;
pub mod vcpu;
mod vcpu_steps;
mod vmm;
