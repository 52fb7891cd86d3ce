//! The guest's layout, as a row of a trace states it.

use dirtysim::trace::PageRuns;
use dirtysim::trace::call::{Call, GuestLayout};

use crate::kvm::guest::{LAYOUT, MODE};
use crate::subject::VmCall;

/// How a script that runs on several architectures writes the mode of the guest that is there.
const OWN_MODE: &str = "own";

/// x86: two tables' entries are accessed, 512 are accessed and dirty.
const ACCESSED_DIRTY_BITS: u64 = 2 + 2 * 512;

/// The layout of this witness's guest, whose own memory is `slot`.
///
/// # Panics
/// Never: the constant's runs are not empty.
#[must_use]
pub fn guest_layout(slot: u16) -> GuestLayout {
    let pages = |what: &str| {
        LAYOUT
            .iter()
            .find(|(name, _, _)| *name == what)
            .map(|(_, first, count)| {
                let mut runs = PageRuns::default();
                runs.push_run(*first, *count).expect("a run of a few pages");
                runs
            })
    };
    let x86 = cfg!(target_arch = "x86_64");
    GuestLayout {
        slot,
        code_pages: pages("code_pages").unwrap_or_default(),
        mailbox_pages: None,
        gdt_pages: pages("gdt_pages"),
        stack_pages: None,
        page_table_pages: pages("page_table_pages"),
        list_pages: pages("list_pages"),
        other_guest_tables: (!x86).then_some(false),
        page_table_accessed_dirty_bits_at_start: x86.then_some(ACCESSED_DIRTY_BITS),
        written_before_slot_creation: x86.then_some(true),
        logged_slot_pages_touched_by_setup: PageRuns::default(),
    }
}

/// The same call, but with what it states of the guest, its layout and its mode, made true of this guest.
#[must_use]
pub fn with_own_layout(call: &VmCall) -> VmCall {
    let own = match &call.call {
        // One without code states where tables are that were put apart.
        Call::GuestLayout(layout) if layout.code_pages.runs().is_empty() => return call.clone(),
        Call::GuestLayout(layout) => Call::GuestLayout(guest_layout(layout.slot)),
        Call::VcpuInit { vcpu, mode } if mode == OWN_MODE => Call::VcpuInit {
            vcpu: *vcpu,
            mode: MODE.to_owned(),
        },
        _ => return call.clone(),
    };
    VmCall {
        vm: call.vm,
        call: own,
    }
}
