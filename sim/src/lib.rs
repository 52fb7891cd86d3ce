//! dirtysim: simulate and check KVM's dirty logging.
#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;
pub mod cost;
pub mod import;
pub mod plot;
pub mod trace;
