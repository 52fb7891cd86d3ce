//! The errnos that the modelled ioctls answer with.

/// An errno, as Linux names it. An errno is an outcome, not a rollback: what the ioctl did before stays done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(clippy::upper_case_acronyms, reason = "the names are the kernel's")]
pub enum Errno {
    /// Not permitted.
    EPERM = 1,
    /// No such slot, or a slot without a bitmap.
    ENOENT = 2,
    /// Interrupted by a signal.
    EINTR = 4,
    /// The process is not the VM's.
    EIO = 5,
    /// The ioctl does not exist in this mode.
    ENXIO = 6,
    /// The argument list is too long: a ring above the maximum.
    E2BIG = 7,
    /// Out of memory.
    ENOMEM = 12,
    /// A user pointer that cannot be read or written.
    EFAULT = 14,
    /// A vCPU runs.
    EBUSY = 16,
    /// A slot overlaps another.
    EEXIST = 17,
    /// No such device or attribute.
    ENODEV = 19,
    /// An argument is wrong.
    EINVAL = 22,
    /// Not supported by this machine.
    EOPNOTSUPP = 95,
}

impl Errno {
    /// Every errno, in ascending order of number.
    pub const ALL: [Self; 13] = [
        Self::EPERM,
        Self::ENOENT,
        Self::EINTR,
        Self::EIO,
        Self::ENXIO,
        Self::E2BIG,
        Self::ENOMEM,
        Self::EFAULT,
        Self::EBUSY,
        Self::EEXIST,
        Self::ENODEV,
        Self::EINVAL,
        Self::EOPNOTSUPP,
    ];

    /// The errno's name, as in `errno.h`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EPERM => "EPERM",
            Self::ENOENT => "ENOENT",
            Self::EINTR => "EINTR",
            Self::EIO => "EIO",
            Self::ENXIO => "ENXIO",
            Self::E2BIG => "E2BIG",
            Self::ENOMEM => "ENOMEM",
            Self::EFAULT => "EFAULT",
            Self::EBUSY => "EBUSY",
            Self::EEXIST => "EEXIST",
            Self::ENODEV => "ENODEV",
            Self::EINVAL => "EINVAL",
            Self::EOPNOTSUPP => "EOPNOTSUPP",
        }
    }

    /// The errno of that number, if the model knows it.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|errno| *errno as u8 == number)
    }
}
