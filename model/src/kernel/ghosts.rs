//! What no kernel has: the model remembers it for a claim.

use crate::machine::Machine;
use crate::state::State;
use crate::state::accounts::{Account, accounts};
use crate::state::layout::Layout;
use crate::words::{HostPage, NO_FRAME};

/// A page is reported, for `no_spurious_dirty_page`: if nobody wrote it since its last report and no store to it is on its way, that was
/// spurious.
pub(crate) fn note_report<L: Layout>(machine: &Machine, state: &mut State<L>, host: HostPage) {
    let on_its_way = state
        .vcpus
        .iter()
        .any(|vcpu| vcpu.frame != NO_FRAME && machine.host_page(vcpu.frame) == host);
    if !state.written.contains(host) && !on_its_way {
        state.spurious.insert(host);
    }
    // A second record of the same store, in another ring, is still to be reported. A bit that GET has shown and no CLEAR
    // was asked to clear is the record that was reported just now.
    let shown = state.caps.manual()
        && state
            .seen
            .iter()
            .any(|frame| machine.host_page(frame) == host);
    let again = accounts(machine, state, host)
        .iter()
        .any(|account| match account {
            Account::FullCopy | Account::AlwaysDirty => false,
            Account::Bitmap => !shown,
            Account::Declared
            | Account::Pending
            | Account::Hand
            | Account::OwnLog
            | Account::Scratch
            | Account::Ring
            | Account::Pml
            | Account::DeviceLog
            | Account::Owed
            | Account::Leaf => true,
        });
    if !again {
        state.written.remove(host);
    }
}
