//! What a system call answered, in the trace's terms.

use dirtysim::trace::call_result::{CallResult, Returned};

use crate::kvm::{Errno, Sys};
use crate::refusal::Refused;

/// An ioctl's result as a row has it.
///
/// # Errors
/// An errno that the trace format has no name for.
pub(super) fn returned(result: Sys<u32>) -> Result<CallResult, Refused> {
    Ok(CallResult {
        returned: Some(value_or_errno(result)?),
        ..CallResult::default()
    })
}

pub(super) fn value_or_errno(result: Sys<u32>) -> Result<Returned, Refused> {
    match result {
        Ok(value) => Ok(Returned::Value(value)),
        Err(errno) => Ok(Returned::Error(named(errno)?)),
    }
}

pub(super) fn named(errno: Errno) -> Result<dirtysim::trace::Errno, Refused> {
    errno.named().ok_or_else(|| {
        Refused(format!(
            "the kernel answered with errno {}, for which the trace format has no name",
            errno.0
        ))
    })
}
