//! The semantics of KVM's dirty logging, as one transition function.
//!
//! A [`Machine`](machine::Machine) is what does not change: architecture, kernel version, memslots, the budgets of
//! the writers, and the programs of the VMM's threads. A [`State`](state::State) is what does. [`transition::for_each_step`]
//! tells which atomic steps are possible, [`transition::apply`] takes one, [`oracle::check`] tells which claims it broke.
//! Everything that runs the model (seeded schedules, exhaustive search, replay, lockstep with a kernel) goes through
//! these three.
//!
//! Arrows point one way: `words`, `machine`, `state`, `kernel`, then `vcpu`, `device` and `op`, then `mutated` and `transition`;
//! `oracle` and `reduce` stand above and are imported by none of these.
//!
//! Not modelled: memory order weaker than sequential consistency outside the named mutations; time; the contents of
//! pages; nested paging structures.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod device;
pub mod kernel;
pub mod machine;
pub mod mutated;
pub mod op;
pub mod oracle;
pub mod reduce;
pub mod state;
pub mod transition;
mod vcpu;
pub mod words;
