//! What KVM's ioctls and its vCPUs have in common: the marking primitive, re-arming, memslots, the host's notifications, the
//! checks of arguments. The ghosts, which no kernel has, are apart in `ghosts`.

pub(crate) mod ghosts;
pub(crate) mod mark;
pub mod notifier;
pub mod query;
pub(crate) mod rearm;
pub(crate) mod slots;
pub(crate) mod vcpus;

pub use mark::soft_limit;
