//! What each step of a migration costs, and the stop as a whole.

use super::constants::{
    BITMAP_PASS_PS_PER_PAGE, BITMAP_SCAN_PS_PER_DIRTY_PAGE, CLEAR_CHUNK_PAGES,
    ENABLE_INITIALLY_SET_PS_PER_PAGE, ENABLE_PS_PER_PAGE, PAGE_HEADER_BYTES,
};
use super::error::CostError;
use super::fixed::{mul_div, mul_div_up};
use super::inputs::{Inputs, Rearm, Tracking};
use super::units::{PAGE_BYTES, SECOND};

/// Bytes that one page costs on the wire.
pub const WIRE_PAGE_BYTES: u64 = PAGE_BYTES + PAGE_HEADER_BYTES;

/// Where the downtime goes. Times in nanoseconds; the parts add up to the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Downtime {
    /// Stopping the vCPUs.
    pub pause_ns: u64,
    /// The last harvest of the rings.
    pub harvest_ns: u64,
    /// The last KVM_GET_DIRTY_LOG and reading its bitmap.
    pub get_ns: u64,
    /// Copying the pages that vCPUs dirtied.
    pub copy_ns: u64,
    /// Copying the pages that only the final bitmap holds.
    pub copy_bitmap_ns: u64,
    /// Saving vCPUs and devices.
    pub state_save_ns: u64,
    /// Sending and restoring that state.
    pub state_send_ns: u64,
    /// Handing over to the destination.
    pub handover_ns: u64,
}

impl Downtime {
    /// The parts by name, in the order in which they happen.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, u64); 8] {
        [
            ("pause", self.pause_ns),
            ("harvest", self.harvest_ns),
            ("get", self.get_ns),
            ("copy", self.copy_ns),
            ("copy_bitmap", self.copy_bitmap_ns),
            ("state_save", self.state_save_ns),
            ("state_send", self.state_send_ns),
            ("handover", self.handover_ns),
        ]
    }

    /// The downtime.
    ///
    /// # Errors
    /// [`CostError::TimeOverflow`].
    pub fn total_ns(&self) -> Result<u64, CostError> {
        self.parts()
            .iter()
            .try_fold(0u64, |sum, (_, ns)| sum.checked_add(*ns))
            .ok_or(CostError::TimeOverflow)
    }
}

/// The stop, with given pages left: everything between the vCPUs' stop and their start on the other side.
///
/// # Errors
/// [`CostError::TimeOverflow`].
pub fn final_step(
    inputs: &Inputs,
    vcpu_pages: u64,
    bitmap_pages: u64,
) -> Result<Downtime, CostError> {
    let rate = inputs.full_rate();
    let costs = &inputs.costs;
    let (harvested, in_bitmap) = match inputs.tracking {
        Tracking::Bitmap(_) => (None, Some(vcpu_pages.saturating_add(bitmap_pages))),
        Tracking::Ring { .. } => (Some(vcpu_pages), None),
        Tracking::RingWithBitmap { .. } => (Some(vcpu_pages), Some(bitmap_pages)),
    };
    Ok(Downtime {
        pause_ns: costs.pause_ns_per_vcpu * inputs.vcpus,
        // The guest never runs here again: its rings are harvested and not reset.
        harvest_ns: harvested.map_or(Ok(0), |pages| ps(pages, costs.harvest_ps_per_entry))?,
        get_ns: in_bitmap.map_or(Ok(0), |pages| get_ns(inputs, pages))?,
        copy_ns: send_ns(vcpu_pages, rate)?,
        copy_bitmap_ns: send_ns(bitmap_pages, rate)?,
        state_save_ns: costs.state_save_ns,
        state_send_ns: costs.state_send_ns,
        handover_ns: costs.handover_ns,
    })
}

/// Stopping the guest and copying all of it, with no logging at all: what every pre-copy competes with.
///
/// # Errors
/// What [`Inputs::check`] refuses, and [`CostError::TimeOverflow`].
pub fn stop_and_copy(inputs: &Inputs) -> Result<Downtime, CostError> {
    inputs.check()?;
    let costs = &inputs.costs;
    Ok(Downtime {
        pause_ns: costs.pause_ns_per_vcpu * inputs.vcpus,
        copy_ns: send_ns(inputs.memory_pages(), inputs.full_rate())?,
        state_save_ns: costs.state_save_ns,
        state_send_ns: costs.state_send_ns,
        handover_ns: costs.handover_ns,
        ..Downtime::default()
    })
}

/// KVM_GET_DIRTY_LOG over all of memory with `dirty` bits set, and turning the bitmap into ranges. Nanoseconds.
///
/// # Errors
/// [`CostError::TimeOverflow`].
pub fn get_ns(inputs: &Inputs, dirty: u64) -> Result<u64, CostError> {
    let memory = inputs.memory_pages();
    let kernel = match inputs.tracking {
        Tracking::Bitmap(Rearm::Clear | Rearm::ClearInitiallySet) => {
            ps(memory, BITMAP_PASS_PS_PER_PAGE)?
        }
        // Exchange each word, arm its pages, and copy out at the end.
        _ => add(
            ps(memory, 2 * BITMAP_PASS_PS_PER_PAGE)?,
            ps(dirty, inputs.costs.rearm_ps_per_page)?,
        )?,
    };
    add(
        add(inputs.costs.ioctl_ns, kernel)?,
        ps(dirty, BITMAP_SCAN_PS_PER_DIRTY_PAGE)?,
    )
}

/// KVM_CLEAR_DIRTY_LOG for `dirty` pages, chunk by chunk over all of memory at the most. Nanoseconds.
///
/// # Errors
/// [`CostError::TimeOverflow`].
pub fn clear_ns(inputs: &Inputs, dirty: u64) -> Result<u64, CostError> {
    let memory = inputs.memory_pages();
    let chunks = memory.div_ceil(CLEAR_CHUNK_PAGES).min(dirty);
    let pass = ps(
        memory.min(chunks * CLEAR_CHUNK_PAGES),
        BITMAP_PASS_PS_PER_PAGE,
    )?;
    add(
        add(chunks * inputs.costs.ioctl_ns, pass)?,
        ps(dirty, inputs.costs.rearm_ps_per_page)?,
    )
}

/// Enabling logging. Nanoseconds.
///
/// # Errors
/// [`CostError::TimeOverflow`].
pub fn enable_ns(inputs: &Inputs) -> Result<u64, CostError> {
    let per_page = match inputs.tracking {
        Tracking::Bitmap(Rearm::ClearInitiallySet) => ENABLE_INITIALLY_SET_PS_PER_PAGE,
        _ => ENABLE_PS_PER_PAGE,
    };
    ps(inputs.memory_pages(), per_page)
}

/// Sending pages with their headers at a rate in bytes per second. Nanoseconds, rounded up.
pub(super) fn send_ns(pages: u64, rate: u64) -> Result<u64, CostError> {
    let bytes = pages
        .checked_mul(WIRE_PAGE_BYTES)
        .ok_or(CostError::TimeOverflow)?;
    mul_div_up(bytes, SECOND, rate).ok_or(CostError::TimeOverflow)
}

/// `count` times a cost in picoseconds, in nanoseconds.
pub(super) fn ps(count: u64, each: u64) -> Result<u64, CostError> {
    mul_div(count, each, 1000).ok_or(CostError::TimeOverflow)
}

pub(super) fn add(a: u64, b: u64) -> Result<u64, CostError> {
    a.checked_add(b).ok_or(CostError::TimeOverflow)
}
