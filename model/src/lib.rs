//! The semantics of KVM's dirty logging.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
