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

#[cfg(test)]
mod tests {
    use super::*;
    use dirtysim::trace::call::{Prot, Sharing};
    use serde_json::{Value, json};

    fn mapping(prot: Prot) -> Call {
        Call::MmapRing {
            vcpu: 0,
            offset_pages: 64,
            bytes: 4096,
            prot,
            sharing: Sharing::Shared,
            touch_byte: None,
        }
    }

    fn covered(
        call: &Call,
        field: &'static str,
        left: Value,
        right: Value,
    ) -> Option<&'static str> {
        let difference = Difference {
            field,
            left: Some(left),
            right: Some(right),
        };
        allowed(call, &difference).map(|allowed| allowed.name)
    }

    #[test]
    fn an_executable_mapping_may_be_refused_with_either_errno_and_nothing_else_may_differ() {
        let name = Some("executable-mapping-errno");
        let (einval, eperm) = (json!("EINVAL"), json!("EPERM"));
        for prot in [Prot::Rx, Prot::Rwx] {
            let call = mapping(prot);
            assert_eq!(covered(&call, "ret", einval.clone(), eperm.clone()), name);
            assert_eq!(covered(&call, "ret", eperm.clone(), einval.clone()), name);
            // One side maps it, or refuses it for another reason; another field differs.
            assert_eq!(covered(&call, "ret", json!(0), eperm.clone()), None);
            assert_eq!(covered(&call, "ret", einval.clone(), json!(0)), None);
            assert_eq!(covered(&call, "ret", einval.clone(), json!("EACCES")), None);
            assert_eq!(covered(&call, "touch", einval.clone(), eperm.clone()), None);
        }
        for prot in [Prot::None, Prot::R, Prot::Rw] {
            let call = mapping(prot);
            assert_eq!(covered(&call, "ret", einval.clone(), eperm.clone()), None);
        }
        let reset = Call::ResetDirtyRings {};
        assert_eq!(covered(&reset, "ret", einval, eperm), None);
    }

    #[test]
    fn every_allowed_difference_has_a_name_of_its_own_and_a_reason() {
        let mut names: Vec<&str> = ALLOWED.iter().map(|allowed| allowed.name).collect();
        names.dedup();
        assert_eq!(names.len(), ALLOWED.len());
        assert!(ALLOWED.iter().all(|allowed| allowed.reason.len() > 40));
    }
}
