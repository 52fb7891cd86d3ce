//! What a check found, what it compared, and what it could not compare.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// A sentence of the interface's contract. Each is a positive claim.
///
/// Sources: virt/kvm/dirty_ring.c and Documentation/virt/kvm/api.rst (sections on `KVM_CAP_DIRTY_LOG_RING` and
/// `KVM_CLEAR_DIRTY_LOG`), Linux 7.2; accel/kvm/kvm-all.c, kvm_dirty_ring_reap_locked(), QEMU 10.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// A push raises its ring's dirty index by one.
    DirtyIndexAdvancesByOne,
    /// The `used` that is printed is the dirty index less the reset index.
    UsedIsDirtyMinusReset,
    /// The reset index never passes the dirty index.
    ResetIndexStaysBehindDirtyIndex,
    /// The reset index never goes back.
    ResetIndexNeverGoesBack,
    /// A ring never holds more entries than it has.
    RingNeverOverflows,
    /// Exit 31 comes only from a ring that is soft-full.
    SoftFullExitIsDue,
    /// Every soft-full exit is at or above one limit, a ring's size less a reserve.
    SoftLimitIsConstant,
    /// A soft-full exit reaches userspace as exit 31.
    SoftFullExitReachesUserspace,
    /// A vCPU whose ring is soft-full does not go on running the guest.
    SoftFullRingDoesNotEnter,
    /// A ring's indices are never started anew.
    RingIsNotRestarted,
    /// A page that was pushed is not pushed again before it was re-armed.
    PageIsPushedOncePerArming,
    /// An entry names a page inside its memslot.
    EntryIsInsideItsSlot,
    /// An entry names a memslot that logs dirty pages.
    EntryIsOfALoggingSlot,
    /// Entries are harvested one after the other.
    HarvestIsInOrder,
    /// What is harvested is what was pushed at that index.
    HarvestedEntryWasPushed,
    /// A reset consumes as many entries as were harvested.
    ResetCountEqualsHarvested,
    /// What was harvested is reset before it is used.
    HarvestIsReset,
    /// `KVM_RESET_DIRTY_RINGS` returns how many entries it consumed.
    ResetReturnsItsCount,
    /// A CLEAR's range is one that KVM accepts.
    ClearRangeIsLegal,
    /// What starts ends, and nothing ends that did not start (flushes, migration's syncs).
    StartsAndEndsArePaired,
}

impl Claim {
    /// Every claim with its name.
    pub const ALL: [(Self, &'static str); 20] = [
        (Self::DirtyIndexAdvancesByOne, "dirty_index_advances_by_one"),
        (Self::UsedIsDirtyMinusReset, "used_is_dirty_minus_reset"),
        (
            Self::ResetIndexStaysBehindDirtyIndex,
            "reset_index_stays_behind_dirty_index",
        ),
        (Self::ResetIndexNeverGoesBack, "reset_index_never_goes_back"),
        (Self::RingNeverOverflows, "ring_never_overflows"),
        (Self::SoftFullExitIsDue, "soft_full_exit_is_due"),
        (Self::SoftLimitIsConstant, "soft_limit_is_constant"),
        (
            Self::SoftFullExitReachesUserspace,
            "soft_full_exit_reaches_userspace",
        ),
        (
            Self::SoftFullRingDoesNotEnter,
            "soft_full_ring_does_not_enter",
        ),
        (Self::RingIsNotRestarted, "ring_is_not_restarted"),
        (
            Self::PageIsPushedOncePerArming,
            "page_is_pushed_once_per_arming",
        ),
        (Self::EntryIsInsideItsSlot, "entry_is_inside_its_slot"),
        (Self::EntryIsOfALoggingSlot, "entry_is_of_a_logging_slot"),
        (Self::HarvestIsInOrder, "harvest_is_in_order"),
        (Self::HarvestedEntryWasPushed, "harvested_entry_was_pushed"),
        (
            Self::ResetCountEqualsHarvested,
            "reset_count_equals_harvested",
        ),
        (Self::HarvestIsReset, "harvest_is_reset"),
        (Self::ResetReturnsItsCount, "reset_returns_its_count"),
        (Self::ClearRangeIsLegal, "clear_range_is_legal"),
        (Self::StartsAndEndsArePaired, "starts_and_ends_are_paired"),
    ];

    /// The claim's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

impl Serialize for Claim {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// How much a finding says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// The contract is broken.
    Defect,
    /// The contract is broken, or clocks of two processors disagree, or events are missing that no tool counted.
    Doubt,
    /// Allowed, and worth knowing (an over-report, a ring started anew).
    Note,
}

impl Weight {
    /// Every weight, the gravest first.
    pub const ALL: [Self; 3] = [Self::Defect, Self::Doubt, Self::Note];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Defect => "defect",
            Self::Doubt => "doubt",
            Self::Note => "note",
        }
    }
}

/// Why a claim could not be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unknown {
    /// The first event of a ring, or the first after a gap: there is nothing to compare it with.
    FirstOfItsRing,
    /// The ring's indices at that moment are not known.
    RingIndices,
    /// The ring's size, and with it the soft limit, is not known.
    RingSize,
    /// Which vCPU a thread runs is not known.
    VcpuOfThread,
    /// Which vCPU id QEMU's index stands for is not known.
    VcpuOfIndex,
    /// The memslots are not known.
    Memslots,
    /// The host's page size is not known.
    PageSize,
    /// The entry was harvested in the instant of its push.
    InFlight,
    /// What came before the log began, or in a gap: harvests, and the start of what ends first.
    HarvestBefore,
    /// More rings, threads or memslots than the checker keeps.
    TooMany,
}

impl Unknown {
    /// Every reason: its name, and what to record or to say for it to be decided.
    pub const ALL: [(Self, &'static str, &'static str); 10] = [
        (
            Self::FirstOfItsRing,
            "first event of its ring",
            "start to record before logging is enabled",
        ),
        (
            Self::RingIndices,
            "the ring's indices at that moment",
            "record kvm:kvm_dirty_ring_push and kvm:kvm_dirty_ring_reset too",
        ),
        (
            Self::RingSize,
            "the ring's size",
            "say --ring-entries N (QEMU: dirty-ring-size) and --ring-reserved N",
        ),
        (
            Self::VcpuOfThread,
            "the vCPU that a thread runs",
            "record kvm:kvm_dirty_ring_push too",
        ),
        (
            Self::VcpuOfIndex,
            "the vCPU id behind QEMU's index",
            "record QEMU's kvm_create_vcpu (older versions: kvm_init_vcpu) from its start on",
        ),
        (
            Self::Memslots,
            "the memslots",
            "record QEMU's kvm_set_user_memory from its start on",
        ),
        (
            Self::PageSize,
            "the host's page size",
            "say --page-size BYTES",
        ),
        (
            Self::InFlight,
            "an entry harvested in the instant of its push",
            "nothing: the order of two processors is open",
        ),
        (
            Self::HarvestBefore,
            "what came before the first of its kind",
            "start to record before the first harvest",
        ),
        (
            Self::TooMany,
            "more rings, threads or memslots than are kept",
            "choose one VM with --pid",
        ),
    ];

    /// What is not known.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// What would have decided it.
    #[must_use]
    pub fn help(self) -> &'static str {
        Self::ALL[self as usize].2
    }
}

impl Serialize for Unknown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One place where a claim does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which claim.
    pub claim: Claim,
    /// How much it says.
    pub weight: Weight,
    /// Which log, an index into the sources.
    pub file: u32,
    /// Line in that log.
    pub line: u64,
    /// What was expected and what was seen.
    pub text: String,
}

/// From how many used entries on a vCPU leaves with exit 31.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SoftLimit {
    /// From the size and reserve that the caller gave, in entries.
    Given(u32),
    /// From the first exit: the largest `2^n - 64` or `2^n - 576` that is not above the entries then in use.
    Inferred(u32),
}

impl SoftLimit {
    /// The limit, in entries.
    #[must_use]
    pub fn entries(self) -> u32 {
        match self {
            Self::Given(n) | Self::Inferred(n) => n,
        }
    }
}

/// The outcome of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Events for which at least one claim was compared.
    pub compared: u64,
    /// Events that a claim is about, and none could be compared.
    pub not_compared: u64,
    /// Events that no claim is about; they give the others their context.
    pub context: u64,
    /// How often each claim was compared.
    pub comparisons: BTreeMap<Claim, u64>,
    /// How often a comparison was impossible, and why.
    pub unknown: BTreeMap<Unknown, u64>,
    /// How often each claim did not hold.
    pub counts: BTreeMap<Claim, u64>,
    /// How many findings there are of each weight: what a verdict is made of.
    pub weights: BTreeMap<Weight, u64>,
    /// The first findings of each claim and weight, the gravest first and then in the order of the trace.
    pub findings: Vec<Finding>,
    /// The soft limit that was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_limit: Option<SoftLimit>,
}

impl CheckReport {
    /// Findings of one claim and weight that are kept with their text; all are counted.
    pub const KEPT_OF_EACH: u32 = 100;

    /// How many findings have this weight, kept or not.
    #[must_use]
    pub fn count(&self, weight: Weight) -> u64 {
        self.weights.get(&weight).copied().unwrap_or(0)
    }

    /// Whether a finding has this weight, kept or not.
    #[must_use]
    pub fn has(&self, weight: Weight) -> bool {
        self.count(weight) > 0
    }

    /// How many findings there are, kept or not.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights.values().sum()
    }

    /// How many there are of each weight, in words; empty where there are none.
    #[must_use]
    pub fn weights_in_words(&self) -> String {
        let words: Vec<String> = self
            .weights
            .iter()
            .map(|(weight, n)| {
                let several = if *n == 1 { "" } else { "s" };
                format!("{n} {}{several}", weight.name())
            })
            .collect();
        words.join(", ")
    }

    /// The first `most` findings of each claim and weight, for a reader who wants to see each kind.
    pub fn first_of_each(&self, most: u32) -> impl Iterator<Item = &Finding> {
        let mut seen = BTreeMap::new();
        self.findings.iter().filter(move |finding| {
            let n = seen.entry((finding.claim, finding.weight)).or_insert(0_u32);
            *n += 1;
            *n <= most
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stand_in_the_order_of_their_variants() {
        for (index, (claim, _)) in Claim::ALL.iter().enumerate() {
            assert_eq!(*claim as usize, index);
        }
        for (index, (unknown, ..)) in Unknown::ALL.iter().enumerate() {
            assert_eq!(*unknown as usize, index);
        }
    }
}
