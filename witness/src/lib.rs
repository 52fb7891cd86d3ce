//! A real kernel as witness: KVM's dirty logging on this machine's `/dev/kvm`, call by call, in the project's trace format.
//!
//! The model is right only if kernels say so. [`kvm`] is a thin safe layer over `/dev/kvm` with guests of a few dozen instructions that
//! store to, or read, the pages that they are told; everything above it is about calls and their results and knows no pointer.
//!
//! Not here: any statement of what KVM should do. That is the model's, in `dirtysim-model`.

pub mod allowed;
#[cfg(target_os = "linux")]
pub mod cli;
#[cfg(target_os = "linux")]
pub mod force;
pub mod generate;
#[cfg(target_os = "linux")]
pub mod interrupted;
#[cfg(target_os = "linux")]
pub mod kernel;
#[cfg(target_os = "linux")]
pub mod kvm;
#[cfg(target_os = "linux")]
pub mod live;
pub mod lockstep;
pub mod model;
#[cfg(target_os = "linux")]
mod one_vcpu;
#[cfg(target_os = "linux")]
pub mod own_code;
pub mod record;
pub mod refusal;
pub mod script;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod strings;
pub mod subject;
