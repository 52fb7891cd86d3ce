//! What KVM answers when it refuses.

use std::fmt;

/// An errno, as the ioctls of kvm-ioctls answer it: by number.
///
/// ```
/// use dirtysim_kvm::Errno;
///
/// let error = Errno::new(22);
/// assert_eq!(error.errno(), 22);
/// assert_eq!(error.to_string(), "Invalid argument (os error 22)");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

/// What a call on the simulated KVM answers.
pub type Result<T> = std::result::Result<T, Errno>;

impl Errno {
    /// The errno of that number.
    #[must_use]
    pub fn new(errno: i32) -> Self {
        Self(errno)
    }

    /// Its number: 22 is EINVAL.
    #[must_use]
    pub fn errno(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl std::error::Error for Errno {}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

impl From<dirtysim_model::words::Errno> for Errno {
    fn from(errno: dirtysim_model::words::Errno) -> Self {
        Self(errno as i32)
    }
}
