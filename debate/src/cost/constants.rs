//! Every constant of the cost model, once, with where it was measured.
//!
//! None is tuned to a figure that [`super::calibration`] judges the model by. Two are fitted to a published total, and
//! the calibration marks the figure that each was taken from as used; three are assumptions, for want of a published
//! measurement, and a test shows that ten times as much of any of them changes no judged figure by more than 5 %.

use super::units::{GIB, MIB, MS};

/// Where a constant comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Read off, or divided out of, a published measurement.
    Measured,
    /// Chosen so that the model gives one published total; that total is then no evidence for the model.
    Fitted,
    /// No measurement was found; the text says why the value is harmless.
    Assumed,
}

impl Origin {
    /// The word used in tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Fitted => "fitted",
            Self::Assumed => "assumed",
        }
    }
}

/// One row of the table of constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constant {
    /// The constant's name in this module.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// Its unit.
    pub unit: &'static str,
    /// How it was obtained.
    pub origin: Origin,
    /// Series or work, version, author, date, and the arithmetic.
    pub source: &'static str,
}

macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident = $value:expr, $unit:literal, $origin:ident, $source:literal;)*) => {
        $($(#[$doc])* pub const $name: u64 = $value;)*
        /// All constants, in the order in which a migration meets them.
        pub const CONSTANTS: &[Constant] = &[
            $(Constant { name: stringify!($name), value: $name, unit: $unit, origin: Origin::$origin, source: $source },)*
        ];
    };
}

/// Pages in a GiB.
const GIB_PAGES: u64 = GIB / 4096;

constants! {
    /// Bytes that a stream adds to each page.
    PAGE_HEADER_BYTES = 8, "bytes/page", Measured,
        "QEMU 5.0, migration/ram.c, save_page_header(): a 64-bit word of offset and flags before each page";
    /// Share of an Ethernet link's bit rate that carries TCP payload.
    ETHERNET_GOODPUT_PER_MILLE = 941, "per mille", Measured,
        "arithmetic: 1448 payload bytes of 1538 on the wire for a 1500-byte frame with TCP timestamps (RFC 7323, IEEE 802.3)";
    /// What one sending thread of a present-day VMM gets through one TCP connection.
    STREAM_BYTES_PER_S = 1617 * MIB, "bytes/s", Measured,
        "cloud-hypervisor #7669, amphi, 2026-02-05: 1617.29 MiB/s over 1 connection, 50 GB guest, 100 Gbit/s link";
    /// What QEMU's one migration thread got through a 10 Gbit/s link in 2020.
    QEMU_2020_STREAM_BYTES_PER_S = 1_030_000_000, "bytes/s", Fitted,
        "fitted to 55 s, the bitmap half of P. Xu's `KVM: Dirty ring support (QEMU part)`, RFC, 2020-02-05 to 2020-05-23";
    /// Enabling logging by write-protecting everything.
    ENABLE_PS_PER_PAGE = 460 * 1_000_000_000 / (128 * GIB_PAGES), "ps/page", Measured,
        "Linux 3c9bd4006bfc (5.7), Jay Zhou, 2020-02-27: 460 ms for a 128 GiB guest, Xeon Gold 6152";
    /// Enabling logging with KVM_DIRTY_LOG_INITIALLY_SET.
    ENABLE_INITIALLY_SET_PS_PER_PAGE = 10 * 1_000_000_000 / (128 * GIB_PAGES), "ps/page", Measured,
        "Linux 3c9bd4006bfc (5.7), Jay Zhou, 2020-02-27: 10 ms for the same guest";
    /// Re-arming one dirty page: in GET_DIRTY_LOG, in CLEAR_DIRTY_LOG or in RESET_DIRTY_RINGS.
    REARM_PS_PER_PAGE = 1_500_000_000 / GIB_PAGES, "ps/page", Measured,
        "cloud-hypervisor #8899 item 28, phip1611, 2026-09-18: about 1.5 ms of mmu_lock for each cleared GiB";
    /// One pass over a bitmap word by word: the kernel's exchange, its copy-out or a copy-in.
    BITMAP_PASS_PS_PER_PAGE = 4_600_000_000 / (512 * GIB_PAGES), "ps/page", Measured,
        "cloud-hypervisor #8899 item 10, phip1611, 2026-09-18: 4.6 ms a word at a time over a 512 GiB bitmap";
    /// Turning bits into ranges to send, in the VMM, a bit at a time.
    BITMAP_SCAN_PS_PER_DIRTY_PAGE = 171_000_000_000 / (512 * GIB_PAGES), "ps/dirty page", Measured,
        "cloud-hypervisor #8899 item 10, phip1611, 2026-09-18: 171 ms for 512 GiB with every bit set";
    /// An ioctl with its remote TLB flush.
    IOCTL_NS = 5_000, "ns", Assumed,
        "no published figure found; a few per round beside seconds of copying";
    /// Pages in one CLEAR_DIRTY_LOG.
    CLEAR_CHUNK_PAGES = GIB_PAGES, "pages", Measured,
        "QEMU 4.1 and later, migration/migration.h: CLEAR_BITMAP_SHIFT_DEFAULT, 2^18 pages";
    /// A vCPU's first store to an armed page: the fault, the mark and the retry.
    FAULT_PS_PER_PAGE = 260_000, "ps/page", Measured,
        "cloud-hypervisor #8899 item 28, phip1611, 2026-09-18: the guest pays 260 ns for each re-dirtied page";
    /// Harvesting one ring entry: read it, set a bit, hand it back.
    HARVEST_PS_PER_ENTRY = 10_000, "ps/entry", Assumed,
        "no published figure found; two dependent cache misses shared by entries of one line";
    /// A vCPU's exit with a full ring, until its ring is harvested and reset.
    RING_FULL_EXIT_NS = 50_000, "ns", Assumed,
        "no published figure found; it only delays the guest, never the copying";
    /// Ring entries that KVM keeps back on arm64; x86 with page-modification logging keeps back 512 more.
    RING_RESERVED_ENTRIES = 64, "entries", Measured,
        "Linux 6.12, include/linux/kvm_dirty_ring.h: KVM_DIRTY_RING_RSVD_ENTRIES";
    /// The fewest entries that KVM takes for one ring: a 4 KiB page of them. x86 with PML takes no fewer than 1024.
    RING_MIN_ENTRIES = 4096 / 16, "entries", Measured,
        "Linux 6.12, virt/kvm/kvm_main.c, kvm_vm_ioctl_enable_dirty_log_ring(): a ring fills at least one page";
    /// The most entries that KVM takes for one ring.
    RING_MAX_ENTRIES = 65_536, "entries", Measured,
        "Linux 6.12, include/linux/kvm_dirty_ring.h: KVM_DIRTY_RING_MAX_ENTRIES";
    /// Stopping one vCPU.
    PAUSE_NS_PER_VCPU = 4 * MS / 254, "ns/vCPU", Measured,
        "cloud-hypervisor #7290, phip1611, 2025-08-20: about 4 ms for 254 vCPUs";
    /// Saving vCPUs and devices.
    STATE_SAVE_NS = 7 * MS, "ns", Measured,
        "cloud-hypervisor #7979, phip1611, 2026-04-08: state:7ms of a 298 ms downtime";
    /// Sending that state, and the destination's restoring it.
    STATE_SEND_NS = 19 * MS, "ns", Measured,
        "cloud-hypervisor #7979, phip1611, 2026-04-08: send_state:19ms of the same downtime";
    /// Handing over: the last request, answered.
    HANDOVER_NS = MS, "ns", Measured,
        "cloud-hypervisor #7979, phip1611, 2026-04-08: complete:1ms of the same downtime";
    /// Suspending, restarting and re-announcing a Xen domain in 2005, beside the copying.
    XEN_2005_SUSPEND_NS = 50 * MS, "ns", Fitted,
        "fitted to 60 ms, the Quake 3 server of Clark et al., NSDI 2005, of which the model copies for 10 ms";
}

/// The costs that one migration meets; the defaults are the constants above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// See [`HARVEST_PS_PER_ENTRY`].
    pub harvest_ps_per_entry: u64,
    /// See [`RING_FULL_EXIT_NS`].
    pub ring_full_exit_ns: u64,
    /// See [`IOCTL_NS`].
    pub ioctl_ns: u64,
    /// See [`REARM_PS_PER_PAGE`].
    pub rearm_ps_per_page: u64,
    /// See [`FAULT_PS_PER_PAGE`].
    pub fault_ps_per_page: u64,
    /// See [`PAUSE_NS_PER_VCPU`].
    pub pause_ns_per_vcpu: u64,
    /// See [`STATE_SAVE_NS`].
    pub state_save_ns: u64,
    /// See [`STATE_SEND_NS`].
    pub state_send_ns: u64,
    /// See [`HANDOVER_NS`].
    pub handover_ns: u64,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            harvest_ps_per_entry: HARVEST_PS_PER_ENTRY,
            ring_full_exit_ns: RING_FULL_EXIT_NS,
            ioctl_ns: IOCTL_NS,
            rearm_ps_per_page: REARM_PS_PER_PAGE,
            fault_ps_per_page: FAULT_PS_PER_PAGE,
            pause_ns_per_vcpu: PAUSE_NS_PER_VCPU,
            state_save_ns: STATE_SAVE_NS,
            state_send_ns: STATE_SEND_NS,
            handover_ns: HANDOVER_NS,
        }
    }
}

impl Costs {
    /// The fixed costs of a Xen domain in 2005: one figure for suspend, restart and announcement together.
    #[must_use]
    pub fn xen_2005() -> Self {
        Self {
            pause_ns_per_vcpu: 0,
            state_save_ns: 0,
            state_send_ns: 0,
            handover_ns: XEN_2005_SUSPEND_NS,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constant_names_its_source_once() {
        for (i, constant) in CONSTANTS.iter().enumerate() {
            assert!(constant.value > 0, "{} is zero", constant.name);
            assert!(
                constant.source.len() > 20,
                "{} has no source",
                constant.name
            );
            assert!(
                CONSTANTS[..i]
                    .iter()
                    .all(|other| other.name != constant.name)
            );
        }
    }

    #[test]
    fn divided_constants_are_what_the_division_gives() {
        // 460 ms / 2^25 pages = 13.709 ns; 1.5 ms / 2^18 pages = 5.722 ns.
        assert_eq!(ENABLE_PS_PER_PAGE, 13_709);
        assert_eq!(REARM_PS_PER_PAGE, 5_722);
        assert_eq!(PAUSE_NS_PER_VCPU, 15_748);
    }
}
