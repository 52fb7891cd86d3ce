//! Why a run of the model cannot give a log.

use std::fmt;

/// Why a run cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stuck {
    /// A step is not possible, by its word in traces.
    Impossible(&'static str),
    /// There is no memslot of that number.
    NoSlot(u32),
    /// At a ring, by its name in the log.
    Ring(u32, AtRing),
    /// At a vCPU, by its name in the log.
    Vcpu(u32, AtVcpu),
    /// RESET has done with a ring, and the event that says so is missing.
    ResetOwesEvent(u32),
    /// RESET passes a ring on its way to another, and the event that says so is missing.
    ResetPasses {
        /// The ring that it comes to first.
        ring: u32,
        /// The one that it is on its way to.
        to: u32,
    },
    /// RESET is to have done with one ring, and is at another.
    ResetStays {
        /// The ring that is wanted.
        wanted: u32,
        /// The one that it is at.
        at: u32,
    },
    /// QEMU reaped another number of entries than RESET answered.
    Reaped {
        /// What QEMU says.
        count: u64,
        /// What RESET answered.
        answer: u32,
    },
    /// An ioctl returned something else than the model gives.
    Returned {
        /// The ioctl.
        ioctl: &'static str,
        /// What it returned.
        ret: i64,
        /// What the model gives.
        modelled: i64,
    },
}

/// What is in the way at a ring. Indices run freely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AtRing {
    /// An entry past that index was seen, and nobody pushed it.
    SeenBeforePush(u32),
    /// It begins with more entries in use than it has.
    Begins {
        /// Entries in use.
        used: u32,
        /// Its entries.
        size: u32,
    },
    /// An index that RESET was past before.
    ResetWentBack {
        /// What the log says.
        index: u32,
        /// Where RESET was.
        reached: u32,
    },
    /// RESET ended too early.
    ResetEnded {
        /// Where.
        at: u32,
        /// What it was to reach.
        index: u32,
    },
    /// RESET goes on past what its event says.
    ResetGoesOn {
        /// Where it comes to.
        to: u32,
        /// What the event says.
        said: u32,
    },
    /// Another dirty index at a reset.
    DirtyAtReset {
        /// What the event says.
        said: u32,
        /// What the run has pushed.
        pushed: u32,
    },
    /// A reset past what was pushed.
    ResetPastPushes {
        /// Up to where.
        index: u32,
        /// What was pushed.
        pushed: u32,
    },
    /// A reset past what QEMU names.
    ResetPastNames {
        /// Up to where.
        index: u32,
        /// What is named.
        named: u32,
    },
    /// An entry that is not dirty.
    NothingToHarvest(u32),
    /// An entry is harvested out of order.
    HarvestOrder {
        /// The index that is next.
        next: u32,
        /// What the event says.
        said: u32,
    },
    /// An entry of another page is harvested.
    HarvestOffset {
        /// Where the entry lies.
        index: u32,
        /// Its offset.
        offset: u64,
        /// What the event says.
        said: u64,
    },
    /// The push that comes next gives another index.
    NextPush {
        /// The index that it gives.
        next: u32,
        /// What the event says.
        said: u32,
    },
    /// The last push gave another index.
    LastPush {
        /// The index that it gave.
        last: u32,
        /// What the event says.
        said: u32,
    },
    /// The last push was of another page, each as slot and offset.
    PushedPage {
        /// The one that was pushed.
        pushed: (u32, u64),
        /// What the event says.
        said: (u32, u64),
    },
}

/// What is in the way at a vCPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AtVcpu {
    /// Another page is first in its PML buffer.
    OtherPageFirst,
    /// It leaves with so many pages in its PML buffer.
    LeavesWithPml(usize),
    /// It does not come to where it is to be.
    NoWay(Goal),
    /// Its ring is soft-full with so many entries in use, and it would leave first.
    LeavesFirst(u32),
    /// It leaves for a ring that is not soft-full.
    NotSoftFull {
        /// Entries in use.
        used: u32,
        /// The soft limit.
        limit: u32,
    },
    /// It leaves again on its way out.
    LeavesAgain,
    /// It returns for a soft-full ring, and the event before that is missing.
    NoRingExit,
    /// It was on its way out for a soft-full ring, and returns for another reason.
    OtherReason,
}

/// Where a vCPU is to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Out of the guest.
    Out,
    /// Into the guest.
    IntoGuest,
    /// To a store of KVM's own.
    OwnStore,
    /// To a push.
    Push,
    /// To the exit for a soft-full ring.
    SoftFullExit,
}

impl Goal {
    const fn words(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::IntoGuest => "into the guest",
            Self::OwnStore => "to a store of KVM's own",
            Self::Push => "to a push",
            Self::SoftFullExit => "to the soft-full exit",
        }
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Impossible(word) => write!(f, "the model cannot take `{word}` here"),
            Self::NoSlot(slot) => write!(f, "there is no slot {slot}"),
            Self::Ring(ring, why) => why.tell(*ring, f),
            Self::Vcpu(vcpu, why) => why.tell(*vcpu, f),
            Self::ResetOwesEvent(ring) => write!(
                f,
                "RESET has done with ring {ring}, and its event does not follow"
            ),
            Self::ResetPasses { ring, to } => write!(
                f,
                "RESET comes to ring {ring} before ring {to}, and no event says so"
            ),
            Self::ResetStays { wanted, at } => write!(
                f,
                "ring {wanted} is wanted while RESET is at ring {at}, and no event says that it went on"
            ),
            Self::Reaped { count, answer } => {
                write!(f, "QEMU reaped {count} entries; RESET answered {answer}")
            }
            Self::Returned {
                ioctl,
                ret,
                modelled,
            } => write!(f, "{ioctl} returned {ret}; the model gives {modelled}"),
        }
    }
}

impl AtRing {
    fn tell(&self, ring: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SeenBeforePush(index) => write!(
                f,
                "ring {ring}: an entry past {index:#x} was seen, and no push of it follows"
            ),
            Self::Begins { used, size } => write!(
                f,
                "ring {ring} begins with {used} entries in use; it has {size}"
            ),
            Self::ResetWentBack { index, reached } => write!(
                f,
                "ring {ring}: reset index {index:#x}, and {reached:#x} was reached before"
            ),
            Self::ResetEnded { at, index } => {
                write!(f, "ring {ring}: RESET ended at {at:#x}, before {index:#x}")
            }
            Self::ResetGoesOn { to, said } => write!(
                f,
                "ring {ring}: RESET goes on to {to:#x}, which was harvested; the event says {said:#x}"
            ),
            Self::DirtyAtReset { said, pushed } => write!(
                f,
                "ring {ring}: dirty index {said:#x} at a reset; the run has pushed up to {pushed:#x}"
            ),
            Self::ResetPastPushes { index, pushed } => write!(
                f,
                "ring {ring}: reset up to {index:#x}, and only {pushed:#x} were pushed"
            ),
            Self::ResetPastNames { index, named } => write!(
                f,
                "ring {ring}: reset up to {index:#x}, and no kvm_dirty_ring_page names what lies above {named:#x}"
            ),
            Self::NothingToHarvest(index) => {
                write!(f, "ring {ring}: nothing is to be harvested at {index:#x}")
            }
            Self::HarvestOrder { next, said } => write!(
                f,
                "ring {ring}: index {next:#x} is to be harvested next, not {said:#x}"
            ),
            Self::HarvestOffset {
                index,
                offset,
                said,
            } => write!(
                f,
                "ring {ring}: offset {offset:#x} lies at {index:#x}, not {said:#x}"
            ),
            Self::NextPush { next, said } => write!(
                f,
                "ring {ring}: the push that comes next gives {next:#x}, not {said:#x}"
            ),
            Self::LastPush { last, said } => {
                write!(f, "ring {ring}: {last:#x} was pushed last, not {said:#x}")
            }
            Self::PushedPage { pushed, said } => write!(
                f,
                "ring {ring}: slot {} offset {:#x} was pushed, not slot {} offset {:#x}",
                pushed.0, pushed.1, said.0, said.1
            ),
        }
    }
}

impl AtVcpu {
    fn tell(&self, vcpu: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherPageFirst => {
                write!(f, "vcpu {vcpu}: its PML buffer has another page first")
            }
            Self::LeavesWithPml(pages) => {
                write!(f, "vcpu {vcpu} leaves with {pages} pages in its PML buffer")
            }
            Self::NoWay(goal) => write!(f, "vcpu {vcpu}: no way {}", goal.words()),
            Self::LeavesFirst(used) => write!(
                f,
                "vcpu {vcpu}: {used} entries are in use and the ring is soft-full: KVM leaves with exit 31 before anything else"
            ),
            Self::NotSoftFull { used, limit } => write!(
                f,
                "vcpu {vcpu} leaves with {used} entries in use; its ring is soft-full from {limit} on"
            ),
            Self::LeavesAgain => write!(
                f,
                "vcpu {vcpu} leaves again before it returned to user space"
            ),
            Self::NoRingExit => write!(
                f,
                "vcpu {vcpu}: exit 31, and no kvm_dirty_ring_exit before it"
            ),
            Self::OtherReason => write!(
                f,
                "vcpu {vcpu}: KVM decided to leave with exit 31, and user space saw another reason"
            ),
        }
    }
}
