//! `KVM_GET_DIRTY_LOG` and `KVM_CLEAR_DIRTY_LOG`.

use dirtysim::trace::Words;
use dirtysim::trace::call::Call;
use dirtysim::trace::call_result::CallResult;

use super::answer::{returned, value_or_errno};
use crate::kvm::Vm;
use crate::refusal::Refused;

fn number(slot: u16, as_id: u16) -> u32 {
    u32::from(as_id) << 16 | u32::from(slot)
}

pub(super) fn get(
    vm: &Vm,
    slot: u16,
    as_id: u16,
    bad_pointer: bool,
) -> Result<CallResult, Refused> {
    let (result, log) = vm.get_dirty_log(number(slot, as_id), bad_pointer);
    let words = Words::from_bitmap(log.words).map_err(|error| Refused(error.to_string()))?;
    Ok(CallResult {
        returned: Some(value_or_errno(result.map(|()| 0))?),
        words_written: Some(log.written as u64),
        words: Some(words),
        ..CallResult::default()
    })
}

pub(super) fn clear(vm: &Vm, call: &Call) -> Result<CallResult, Refused> {
    let Call::ClearDirtyLog {
        slot,
        as_id,
        first_page,
        num_pages,
        words,
        bad_pointer,
        ..
    } = call
    else {
        unreachable!("only KVM_CLEAR_DIRTY_LOG comes here")
    };
    // As many words as the kernel may read for `num_pages`: a claim of the caller's about a longer buffer is not needed, nor believed.
    let length = u64::from(*num_pages).div_ceil(64);
    let buffer: Vec<u64> = (0..length).map(|index| words.word(index)).collect();
    returned(
        vm.clear_dirty_log(
            number(*slot, *as_id),
            *first_page,
            *num_pages,
            (!bad_pointer).then_some(&buffer),
        )
        .map(|()| 0),
    )
}
