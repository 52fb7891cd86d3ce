//! What a simulated migration is told, and what of it is refused.

use super::constants::{
    Costs, ETHERNET_GOODPUT_PER_MILLE, RING_MAX_ENTRIES, RING_MIN_ENTRIES, STREAM_BYTES_PER_S,
};
use super::error::CostError;
use super::fixed::mul_div;
use super::units::{GIB, KIB, MIB, MS, PAGE_BYTES};
use super::workload::{Pattern, WorkingSet, Writer};

/// When a page in the bitmap is armed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rearm {
    /// In KVM_GET_DIRTY_LOG, all at the start of the round.
    Get,
    /// In KVM_CLEAR_DIRTY_LOG, chunk by chunk, just before the pages are sent (manual protect).
    Clear,
    /// The same, and the first round is tracked like that too: KVM_DIRTY_LOG_INITIALLY_SET.
    ClearInitiallySet,
}

/// What records dirty pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// The bitmap of each memslot.
    Bitmap(Rearm),
    /// A ring for each vCPU, and nothing else.
    Ring {
        /// Entries of each ring.
        entries: u64,
    },
    /// A ring for each vCPU, and the bitmap for every write outside a vCPU, collected once, last.
    RingWithBitmap {
        /// Entries of each ring.
        entries: u64,
    },
}

impl Tracking {
    /// The entries of each ring, if there are rings.
    #[must_use]
    pub fn ring_entries(self) -> Option<u64> {
        match self {
            Self::Bitmap(_) => None,
            Self::Ring { entries } | Self::RingWithBitmap { entries } => Some(entries),
        }
    }

    /// The name used on the command line and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bitmap(Rearm::Get) => "bitmap",
            Self::Bitmap(Rearm::Clear) => "bitmap-manual",
            Self::Bitmap(Rearm::ClearInitiallySet) => "bitmap-initially-set",
            Self::Ring { .. } => "ring",
            Self::RingWithBitmap { .. } => "ring+bitmap",
        }
    }
}

/// How fast a round is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RatePolicy {
    /// As fast as the link and the sender go.
    Full,
    /// Xen's rate adaptation: the first round at `floor`, each further one at the last round's dirtying rate plus
    /// `step`; pre-copy ends once that exceeds `cap`. The last copy goes at full speed.
    /// Source: Clark et al., Live Migration of Virtual Machines, NSDI 2005, section 5.3.
    Adaptive {
        /// Bytes per second of the first round.
        floor: u64,
        /// Bytes per second added to the dirtying rate.
        step: u64,
        /// Bytes per second beyond which pre-copy ends.
        cap: u64,
    },
}

/// When pre-copy ends. The first condition that holds is the one reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopRule {
    /// What is left can be sent within so many nanoseconds.
    pub downtime_limit_ns: Option<u64>,
    /// At most so many bytes are left.
    pub few_bytes: u64,
    /// What is left is at least so many thousandths of what the round sent: no progress.
    pub no_progress_per_mille: Option<u64>,
    /// So many rounds have been sent.
    pub rounds_max: u32,
}

impl Default for StopRule {
    /// QEMU's default limit of 300 ms (qapi/migration.json, `downtime-limit`, 5.0), and 50 rounds.
    fn default() -> Self {
        Self {
            downtime_limit_ns: Some(300 * MS),
            few_bytes: 0,
            no_progress_per_mille: None,
            rounds_max: 50,
        }
    }
}

/// One migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// The link's bit rate, in bits per second.
    pub link_bits_per_s: u64,
    /// Thousandths of the bit rate that carry payload.
    pub goodput_per_mille: u64,
    /// What one connection's sender gets through, in bytes per second.
    pub stream_bytes_per_s: u64,
    /// Parallel connections.
    pub connections: u64,
    /// vCPUs.
    pub vcpus: u64,
    /// Who writes what.
    pub working_sets: Vec<WorkingSet>,
    /// Pages that the final device save writes after the vCPUs have stopped (an ITS's tables, say).
    pub device_save_pages: u64,
    /// What records dirty pages.
    pub tracking: Tracking,
    /// How fast a round is sent.
    pub rate: RatePolicy,
    /// When pre-copy ends.
    pub stop: StopRule,
    /// What things cost.
    pub costs: Costs,
}

/// The most guest memory modelled: 2^38 pages.
pub const MEMORY_MAX_BYTES: u64 = 1 << 50;
/// The fastest link and writer modelled.
pub const RATE_MAX: u64 = 1 << 50;
/// The most vCPUs modelled, KVM's own limit on x86 (Linux 6.12, KVM_MAX_VCPUS).
pub const VCPUS_MAX: u64 = 4096;
/// The most parallel connections modelled.
pub const CONNECTIONS_MAX: u64 = 1024;
/// The most rounds modelled.
pub const ROUNDS_MAX: u32 = 10_000;
/// The largest single cost or limit, in its own unit: about 1000 seconds in nanoseconds.
const COST_MAX: u64 = 1 << 40;

impl Default for Inputs {
    /// The guest of the 2022 debate: arm64, 24 GiB, 8 vCPUs, 10 Gbit/s, rings with a backup bitmap, and a final device
    /// save of an ITS's tables (64 KiB each of device, collection and pending tables, and 16 translation tables).
    fn default() -> Self {
        Self {
            memory_bytes: 24 * GIB,
            link_bits_per_s: 10_000_000_000,
            goodput_per_mille: ETHERNET_GOODPUT_PER_MILLE,
            stream_bytes_per_s: STREAM_BYTES_PER_S,
            connections: 1,
            vcpus: 8,
            working_sets: vec![
                WorkingSet {
                    bytes: 4 * GIB,
                    bytes_per_s: 200_000_000,
                    pattern: Pattern::Random,
                    writer: Writer::Vcpu,
                },
                WorkingSet {
                    bytes: 4 * MIB,
                    bytes_per_s: 100_000,
                    pattern: Pattern::Random,
                    writer: Writer::NonVcpu,
                },
            ],
            device_save_pages: (3 * 64 + 16 * 4) * KIB / PAGE_BYTES,
            tracking: Tracking::RingWithBitmap { entries: 4096 },
            rate: RatePolicy::Full,
            stop: StopRule::default(),
            costs: Costs::default(),
        }
    }
}

impl Inputs {
    /// Guest memory in pages.
    #[must_use]
    pub fn memory_pages(&self) -> u64 {
        self.memory_bytes / PAGE_BYTES
    }

    /// The highest rate at which pages and their headers leave, in bytes per second: the link's payload or what the
    /// senders get through, whichever is less. Zero only for inputs that [`Inputs::check`] refuses.
    #[must_use]
    pub fn full_rate(&self) -> u64 {
        let link = mul_div(self.link_bits_per_s, self.goodput_per_mille, 8000).unwrap_or(u64::MAX);
        link.min(self.stream_bytes_per_s.saturating_mul(self.connections))
    }

    /// Refuses what cannot be simulated, before anything is computed.
    ///
    /// # Errors
    /// The first [`CostError`] found.
    pub fn check(&self) -> Result<(), CostError> {
        at_most("memory", self.memory_bytes, MEMORY_MAX_BYTES)?;
        pages("memory", self.memory_bytes)?;
        at_most("bandwidth", self.link_bits_per_s, RATE_MAX)?;
        at_most("goodput", self.goodput_per_mille, 1000)?;
        at_most("stream", self.stream_bytes_per_s, RATE_MAX)?;
        at_most("connections", self.connections, CONNECTIONS_MAX)?;
        at_most("vcpus", self.vcpus, VCPUS_MAX)?;
        at_most(
            "rounds",
            u64::from(self.stop.rounds_max),
            u64::from(ROUNDS_MAX),
        )?;
        if self.full_rate() == 0 {
            return Err(CostError::Zero {
                what: "bandwidth in bytes per second",
            });
        }
        self.check_writers()?;
        self.check_rings()?;
        self.check_rate_policy()?;
        let c = &self.costs;
        for cost in [
            c.harvest_ps_per_entry,
            c.ring_full_exit_ns,
            c.ioctl_ns,
            c.rearm_ps_per_page,
            c.fault_ps_per_page,
            c.pause_ns_per_vcpu,
            c.state_save_ns,
            c.state_send_ns,
            c.handover_ns,
            self.stop.downtime_limit_ns.unwrap_or(0),
        ] {
            if cost > COST_MAX {
                return Err(CostError::TooLarge {
                    what: "a cost or limit",
                    value: cost,
                    max: COST_MAX,
                });
            }
        }
        Ok(())
    }

    fn check_writers(&self) -> Result<(), CostError> {
        let mut sum = u128::from(self.device_save_pages) * u128::from(PAGE_BYTES);
        for set in &self.working_sets {
            pages("working-set", set.bytes)?;
            if set.bytes_per_s > RATE_MAX {
                return Err(CostError::TooLarge {
                    what: "dirty-rate",
                    value: set.bytes_per_s,
                    max: RATE_MAX,
                });
            }
            sum += u128::from(set.bytes);
        }
        if sum > u128::from(self.memory_bytes) {
            return Err(CostError::WorkingSetsExceedMemory {
                sets: u64::try_from(sum).unwrap_or(u64::MAX),
                memory: self.memory_bytes,
            });
        }
        let outside = self.device_save_pages > 0
            || self
                .working_sets
                .iter()
                .any(|s| s.writer == Writer::NonVcpu && s.bytes > 0 && s.bytes_per_s > 0);
        if outside && matches!(self.tracking, Tracking::Ring { .. }) {
            return Err(CostError::NonVcpuWritesNeedBitmap);
        }
        Ok(())
    }

    fn check_rings(&self) -> Result<(), CostError> {
        let Some(entries) = self.tracking.ring_entries() else {
            return Ok(());
        };
        if entries == 0 {
            return Err(CostError::Zero {
                what: "ring-entries",
            });
        }
        if !entries.is_power_of_two() {
            return Err(CostError::RingNotPowerOfTwo { entries });
        }
        if !(RING_MIN_ENTRIES..=RING_MAX_ENTRIES).contains(&entries) {
            return Err(CostError::RingSize {
                entries,
                min: RING_MIN_ENTRIES,
                max: RING_MAX_ENTRIES,
            });
        }
        Ok(())
    }

    fn check_rate_policy(&self) -> Result<(), CostError> {
        let RatePolicy::Adaptive { floor, step, cap } = self.rate else {
            return Ok(());
        };
        let why = if floor == 0 {
            "the first round's rate is zero; give at least 1 byte per second"
        } else if step == 0 {
            "the step is zero, so that the rate never reaches the cap; give at least 1 byte per second"
        } else if cap < floor {
            "the cap lies below the first round's rate; raise it"
        } else if cap > RATE_MAX || step > RATE_MAX {
            "a rate lies above 2^50 bytes per second; give less"
        } else {
            return Ok(());
        };
        Err(CostError::RatePolicy { why })
    }
}

/// `value` is neither zero nor above `max`.
fn at_most(what: &'static str, value: u64, max: u64) -> Result<(), CostError> {
    match value {
        0 => Err(CostError::Zero { what }),
        _ if value > max => Err(CostError::TooLarge { what, value, max }),
        _ => Ok(()),
    }
}

fn pages(what: &'static str, value: u64) -> Result<(), CostError> {
    if value.is_multiple_of(PAGE_BYTES) {
        Ok(())
    } else {
        Err(CostError::NotPages { what, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Inputs)) -> CostError {
        let mut inputs = Inputs::default();
        inputs.check().expect("the defaults are valid");
        change(&mut inputs);
        inputs.check().expect_err("must be refused")
    }

    #[test]
    fn what_cannot_be_simulated_is_refused_by_name() {
        assert_eq!(
            refused(|i| i.link_bits_per_s = 0),
            CostError::Zero { what: "bandwidth" }
        );
        assert_eq!(
            refused(|i| i.memory_bytes = 0),
            CostError::Zero { what: "memory" }
        );
        assert_eq!(
            refused(|i| i.memory_bytes += 1),
            CostError::NotPages {
                what: "memory",
                value: 24 * GIB + 1
            }
        );
        assert!(matches!(
            refused(|i| i.memory_bytes = u64::MAX),
            CostError::TooLarge { what: "memory", .. }
        ));
        assert_eq!(refused(|i| i.vcpus = 0), CostError::Zero { what: "vcpus" });
        assert_eq!(
            refused(|i| i.tracking = Tracking::Ring { entries: 5000 }),
            CostError::NonVcpuWritesNeedBitmap
        );
        assert_eq!(
            refused(|i| i.tracking = Tracking::RingWithBitmap { entries: 5000 }),
            CostError::RingNotPowerOfTwo { entries: 5000 }
        );
        assert!(matches!(
            refused(|i| i.tracking = Tracking::RingWithBitmap { entries: 128 }),
            CostError::RingSize { min: 256, .. }
        ));
        assert!(matches!(
            refused(|i| i.working_sets[0].bytes = 30 * GIB),
            CostError::WorkingSetsExceedMemory { .. }
        ));
        assert!(matches!(
            refused(|i| i.device_save_pages = u64::MAX),
            CostError::WorkingSetsExceedMemory { .. }
        ));
        assert_eq!(
            refused(|i| i.link_bits_per_s = 1),
            CostError::Zero {
                what: "bandwidth in bytes per second"
            }
        );
    }

    #[test]
    fn a_ring_that_is_no_power_of_two_is_told_its_neighbours() {
        let text = CostError::RingNotPowerOfTwo { entries: 5000 }.to_string();
        assert!(text.contains("4096 or 8192"), "{text}");
    }
}
