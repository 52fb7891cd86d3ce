//! dirtysim: simulate and check KVM's dirty logging.
#![forbid(unsafe_code)]

pub mod import;
pub mod trace;
