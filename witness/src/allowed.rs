//! Where the kernel's answer and the model's may differ: every such difference has a name and a reason, and there is no other.
//!
//! A difference that is not here is a divergence: the model is wrong, or the kernel has a bug; either way somebody must look.

use dirtysim::trace::call::Call;
use dirtysim::trace::call_result::Difference;

/// A difference that is no divergence.
pub struct Allowed {
    /// A short name, counted in the results.
    pub name: &'static str,
    /// Why both answers are right.
    pub reason: &'static str,
    /// Whether a difference is this one.
    pub covers: fn(&Call, &Difference) -> bool,
}

/// All of them.
pub const ALLOWED: &[Allowed] = &[Allowed {
    name: "executable-mapping-errno",
    reason: "an executable mapping of a ring is refused with EINVAL by 6.12 and with EPERM by later kernels, where a mount option of the \
             anonymous inode's file system answers first: nothing of dirty logging differs",
    covers: |call, difference| {
        let refused = |side: &Option<serde_json::Value>| {
            side.as_ref()
                .and_then(|value| value.as_str())
                .is_some_and(|errno| errno == "EPERM" || errno == "EINVAL")
        };
        matches!(
            call,
            Call::MmapRing {
                prot: dirtysim::trace::call::Prot::Rx | dirtysim::trace::call::Prot::Rwx,
                ..
            }
        ) && difference.field == "ret"
            && refused(&difference.left)
            && refused(&difference.right)
    },
}];

/// The allowed difference that covers this one.
#[must_use]
pub fn allowed(call: &Call, difference: &Difference) -> Option<&'static Allowed> {
    ALLOWED
        .iter()
        .find(|allowed| (allowed.covers)(call, difference))
}
