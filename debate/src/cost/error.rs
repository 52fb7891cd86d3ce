//! What the cost model refuses.

use std::fmt;

/// Why inputs were refused, or why a result cannot be given. Each prints as one sentence with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CostError {
    /// A number was not written as one.
    Number {
        /// The parameter.
        what: &'static str,
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A parameter that must not be zero is.
    Zero {
        /// The parameter.
        what: &'static str,
    },
    /// A parameter lies above what the model takes.
    TooLarge {
        /// The parameter.
        what: &'static str,
        /// What was given.
        value: u64,
        /// The largest value taken.
        max: u64,
    },
    /// A size is not a whole number of pages.
    NotPages {
        /// The parameter.
        what: &'static str,
        /// What was given, in bytes.
        value: u64,
    },
    /// The number of ring entries is not a power of two. Source: `virt/kvm/kvm_main.c`, `kvm_vm_ioctl_enable_dirty_log_ring()`.
    RingNotPowerOfTwo {
        /// What was given.
        entries: u64,
    },
    /// The ring has no room beside its reserve, or is larger than KVM takes.
    RingSize {
        /// What was given.
        entries: u64,
        /// The smallest number of entries taken.
        min: u64,
        /// The largest number of entries taken.
        max: u64,
    },
    /// The working sets and the final device save do not fit into guest memory.
    WorkingSetsExceedMemory {
        /// Their sum, in bytes.
        sets: u64,
        /// Guest memory, in bytes.
        memory: u64,
    },
    /// Something writes outside any vCPU, but only rings are collected: its pages would be lost, not merely late.
    NonVcpuWritesNeedBitmap,
    /// The rate policy asks for less than nothing or more than the link.
    RatePolicy {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A time does not fit in 64 bits of nanoseconds (about 584 years).
    TimeOverflow,
    /// A sweep was not written as one.
    Sweep {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for CostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { what, text, why } => write!(f, "{what}: `{text}` is not a value: {why}"),
            Self::Zero { what } => write!(f, "{what} is zero; give at least 1"),
            Self::TooLarge { what, value, max } => {
                write!(f, "{what} is {value}, but at most {max} is modelled; give less")
            }
            Self::NotPages { what, value } => write!(
                f,
                "{what} is {value} bytes, which is no whole number of 4096-byte pages; give a multiple of 4096"
            ),
            Self::RingNotPowerOfTwo { entries } => {
                let below = 1u64 << (63 - entries.max(&1).leading_zeros());
                write!(
                    f,
                    "a ring of {entries} entries is no power of two, which KVM refuses with EINVAL; give {below} or {}",
                    below.saturating_mul(2)
                )
            }
            Self::RingSize { entries, min, max } => write!(
                f,
                "a ring of {entries} entries is outside what KVM takes here; give a power of two from {min} to {max}"
            ),
            Self::WorkingSetsExceedMemory { sets, memory } => write!(
                f,
                "the working sets together have {sets} bytes, more than the guest's {memory}; shrink them or give more memory"
            ),
            Self::NonVcpuWritesNeedBitmap => f.write_str(
                "something writes guest memory outside any vCPU, but rings alone record no such write; \
                 use rings with a backup bitmap, or the bitmap",
            ),
            Self::RatePolicy { why } => write!(f, "rate policy: {why}"),
            Self::TimeOverflow => f.write_str(
                "a time does not fit in 64 bits of nanoseconds (584 years); give more bandwidth or less memory",
            ),
            Self::Sweep { text, why } => {
                write!(f, "sweep: `{text}`: {why}; write NAME=FROM..TO:POINTS, as in bandwidth=1G..40G:10")
            }
        }
    }
}

impl std::error::Error for CostError {}
