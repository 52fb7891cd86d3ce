//! dirtysim: simulate and check KVM's dirty logging.
#![forbid(unsafe_code)]

pub mod import;
pub mod random;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod sometimes;
pub mod trace;
