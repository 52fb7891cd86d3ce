//! What user space does by itself between its ioctls: harvest rings, copy pages, stop vCPUs, keep its own log.

pub(crate) mod copy;
pub(crate) mod harvest;
pub(crate) mod protocol;
