//! The model against naive oracles, written straight from the interface's contract.
//!
//! Areas verified: page sets; the ring's pushes, soft limit, overflow, harvest and RESET; GET in both modes of protection;
//! CLEAR's ranges; memslots that come, go and change. One call at a time, except in `interleaved`. Not verified here: PML,
//! s390, huge leaves (the recordings of real kernels have them).

#[path = "../support/mod.rs"]
mod support;

mod acts;
mod bitmap;
mod clear;
mod interleaved;
mod naive;
mod pages;
mod reset;
mod ring;
