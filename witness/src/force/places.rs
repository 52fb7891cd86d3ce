//! Where a real kernel can be held: functions by the model's words for the steps that begin there.
//!
//! A function is listed only where nothing of the step before is left to do when it is entered, and where compilers cannot have made it part of
//! its callers: it lies in another file than they do.

/// Words of the model's steps, and the functions of which the first that is entered is where such a step begins.
const PLACES: &[(&[&str], &[&str])] = &[
    (&["fault-resolve"], &["kvm_handle_guest_abort"]),
    (
        &["fault-map"],
        &["kvm_pgtable_stage2_map", "kvm_pgtable_stage2_relax_perms"],
    ),
    (
        &["set-bitmap-bit", "push-slot"],
        &["mark_page_dirty_in_slot"],
    ),
    (&["slot-publish"], &["kvm_arch_prepare_memory_region"]),
    (&["slot-rearm"], &["kvm_arch_commit_memory_region"]),
    (
        &["slot-flush", "get-flush", "clear-flush", "reset-flush"],
        &[
            "kvm_arch_flush_remote_tlbs",
            "kvm_arch_flush_remote_tlbs_range",
        ],
    ),
    (&["reset-load-flags"], &["kvm_dirty_ring_reset"]),
    (
        &["reset-rearm", "get-rearm", "clear-rearm"],
        &["kvm_arch_mmu_enable_log_dirty_pt_masked"],
    ),
    (
        &["get-mmu-lock", "clear-copy-in"],
        &["kvm_arch_sync_dirty_log"],
    ),
];

/// The functions of which the first that is entered is where a step of that name begins; none for a step that no function begins.
#[must_use]
pub fn functions(word: &str) -> &'static [&'static str] {
    let place = PLACES.iter().find(|(words, _)| words.contains(&word));
    place.map_or(&[], |(_, functions)| functions)
}

/// Whether somebody may be held at a function of that name.
#[must_use]
pub fn is_one(name: &str) -> bool {
    PLACES
        .iter()
        .any(|(_, functions)| functions.contains(&name))
}
