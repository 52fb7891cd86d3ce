//! What KVM's ioctls and its vCPUs have in common: the marking primitive, re-arming, memslots, the host's notifications, the
//! checks of arguments. The ghosts, which no kernel has, are apart in `ghosts`.
//!
//! ```
//! use dirtysim_model::kernel::query::check_extension;
//! use dirtysim_model::machine::Machine;
//! use dirtysim_model::words::{Arch, Kernel};
//!
//! // KVM_CAP_DIRTY_LOG_RING_ACQ_REL answers how large a ring may be.
//! let machine = Machine::new(Arch::Arm64, Kernel::V7_2, false);
//! assert_eq!(check_extension(&machine, 223), Some(65536 * 16));
//! ```

pub(crate) mod ghosts;
pub(crate) mod mark;
pub mod notifier;
pub mod query;
pub(crate) mod rearm;
pub(crate) mod slots;
pub(crate) mod vcpus;

pub use mark::soft_limit;
