//! The kernel's names for numbers: capabilities, exits, errnos.
//!
//! Each is written by its name; a capability or an exit that has no name here is written as its number. Numbers are
//! those of the UAPI headers (include/uapi/linux/kvm.h, include/uapi/asm-generic/errno-base.h and errno.h; v7.2).
//!
//! The model has numbers of capabilities and errnos too, and only those that its ioctls take and answer with; here are those that a
//! recording of any kernel may have. A test holds the two together.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// A number that the kernel's headers name, one table a type.
macro_rules! named_number {
    ($(#[$doc:meta])* $type:ident, $what:literal, other: $other:literal, [$($(#[$vdoc:meta])* $variant:ident = $number:literal $name:literal,)*]) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type {
            $($(#[$vdoc])* $variant,)*
            #[doc = $other]
            Other(u32),
        }

        impl $type {
            /// Every one that has a name, in the order of their numbers.
            pub const NAMED: &'static [$type] = &[$($type::$variant,)*];

            /// The number in the kernel's interface.
            pub fn number(self) -> u32 {
                match self {
                    $($type::$variant => $number,)*
                    $type::Other(number) => number,
                }
            }

            /// The one with this number, by its name if it has one.
            pub fn from_number(number: u32) -> Self {
                match number {
                    $($number => $type::$variant,)*
                    other => $type::Other(other),
                }
            }

            /// The name in the kernel's headers, if it is one of those listed here.
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $($type::$variant => Some($name),)*
                    $type::Other(_) => None,
                }
            }

            /// The one with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::NAMED.iter().copied().find(|known| known.name() == Some(name))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}", self.number()),
                }
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.name() {
                    Some(name) => serializer.serialize_str(name),
                    None => serializer.serialize_u32(self.number()),
                }
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct NameOrNumber;
                impl Visitor<'_> for NameOrNumber {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("the number of ", $what, ", or one of"))?;
                        for (index, known) in $type::NAMED.iter().enumerate() {
                            write!(f, "{}{known}", if index == 0 { " " } else { ", " })?;
                        }
                        Ok(())
                    }

                    fn visit_u64<E: Error>(self, value: u64) -> Result<$type, E> {
                        u32::try_from(value)
                            .map($type::from_number)
                            .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(value), &self))
                    }

                    fn visit_str<E: Error>(self, value: &str) -> Result<$type, E> {
                        $type::from_name(value)
                            .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(value), &self))
                    }
                }
                deserializer.deserialize_any(NameOrNumber)
            }
        }
    };
}

named_number! {
    /// A capability of KVM, as KVM_CHECK_EXTENSION and KVM_ENABLE_CAP take it.
    Cap, "a capability", other: "A capability without a name here.", [
        /// The obsolete first form of manual protect.
        ManualDirtyLogProtect = 166 "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT",
        /// GET leaves the bits alone, CLEAR takes them.
        ManualDirtyLogProtect2 = 168 "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2",
        /// Dirty rings, for architectures with total store order.
        DirtyLogRing = 192 "KVM_CAP_DIRTY_LOG_RING",
        /// Dirty rings, with acquire and release on an entry's flags.
        DirtyLogRingAcqRel = 223 "KVM_CAP_DIRTY_LOG_RING_ACQ_REL",
        /// A backup bitmap beside the rings.
        DirtyLogRingWithBitmap = 225 "KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP",
    ]
}

named_number! {
    /// Why KVM_RUN returned to userspace: `kvm_run.exit_reason`.
    Exit, "an exit reason", other: "An exit reason without a name here.", [
        /// KVM does not know why.
        Unknown = 0 "KVM_EXIT_UNKNOWN",
        /// An exception in the guest.
        Exception = 1 "KVM_EXIT_EXCEPTION",
        /// Port I/O (x86).
        Io = 2 "KVM_EXIT_IO",
        /// A hypercall.
        Hypercall = 3 "KVM_EXIT_HYPERCALL",
        /// A debug event.
        Debug = 4 "KVM_EXIT_DEBUG",
        /// The guest halted.
        Hlt = 5 "KVM_EXIT_HLT",
        /// An access to no memslot.
        Mmio = 6 "KVM_EXIT_MMIO",
        /// The guest can take an interrupt.
        IrqWindowOpen = 7 "KVM_EXIT_IRQ_WINDOW_OPEN",
        /// The guest shut down, a triple fault on x86.
        Shutdown = 8 "KVM_EXIT_SHUTDOWN",
        /// The processor refused to enter the guest.
        FailEntry = 9 "KVM_EXIT_FAIL_ENTRY",
        /// A signal.
        Intr = 10 "KVM_EXIT_INTR",
        /// KVM cannot go on.
        InternalError = 17 "KVM_EXIT_INTERNAL_ERROR",
        /// The guest asked for power off, reset or suspend.
        SystemEvent = 24 "KVM_EXIT_SYSTEM_EVENT",
        /// The vCPU's dirty ring reached its soft limit.
        DirtyRingFull = 31 "KVM_EXIT_DIRTY_RING_FULL",
        /// An access that KVM cannot resolve.
        MemoryFault = 39 "KVM_EXIT_MEMORY_FAULT",
    ]
}

/// An errno by its name. The list is closed: a name that is not in it is an error of the trace.
macro_rules! errnos {
    ($($(#[$vdoc:meta])* $name:ident = $number:literal,)*) => {
        /// Why a call failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[allow(clippy::upper_case_acronyms)] // the field's own names
        pub enum Errno {
            $($(#[$vdoc])* $name,)*
        }

        impl Errno {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Errno] = &[$(Errno::$name,)*];

            /// The number on Linux (positive), the same on every architecture that has a dirty ring.
            pub fn number(self) -> u32 {
                match self { $(Errno::$name => $number,)* }
            }

            /// The name.
            pub fn name(self) -> &'static str {
                match self { $(Errno::$name => stringify!($name),)* }
            }

            /// The one with this number.
            pub fn from_number(number: u32) -> Option<Self> {
                Self::ALL.iter().copied().find(|errno| errno.number() == number)
            }
        }

        impl fmt::Display for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

errnos! {
    /// Operation not permitted.
    EPERM = 1,
    /// No such file, slot or bitmap.
    ENOENT = 2,
    /// Interrupted by a signal.
    EINTR = 4,
    /// Input or output error; the VM is dead or belongs to another process.
    EIO = 5,
    /// No such device or address; GET and CLEAR with a ring and no bitmap.
    ENXIO = 6,
    /// Argument too long; a ring above the largest.
    E2BIG = 7,
    /// Bad file descriptor.
    EBADF = 9,
    /// Try again.
    EAGAIN = 11,
    /// Out of memory.
    ENOMEM = 12,
    /// Permission denied.
    EACCES = 13,
    /// Bad address.
    EFAULT = 14,
    /// Busy; a vCPU is running.
    EBUSY = 16,
    /// Exists already; memslots overlap.
    EEXIST = 17,
    /// No such device.
    ENODEV = 19,
    /// Invalid argument.
    EINVAL = 22,
    /// Too many open files in the system.
    ENFILE = 23,
    /// Too many open files.
    EMFILE = 24,
    /// No such ioctl.
    ENOTTY = 25,
    /// No space left.
    ENOSPC = 28,
    /// Out of range.
    ERANGE = 34,
    /// Not implemented.
    ENOSYS = 38,
    /// Value too large for the type.
    EOVERFLOW = 75,
    /// Operation not supported.
    EOPNOTSUPP = 95,
}

#[cfg(test)]
mod tests {
    use dirtysim_model::machine::{
        CAP_DIRTY_LOG_RING, CAP_DIRTY_LOG_RING_ACQ_REL, CAP_DIRTY_LOG_RING_WITH_BITMAP,
        CAP_MANUAL_DIRTY_LOG_PROTECT2,
    };
    use dirtysim_model::words::errno::Errno as ModelErrno;

    use super::*;

    #[test]
    fn every_errno_of_the_models_has_its_name_here() {
        for errno in ModelErrno::ALL {
            let here = Errno::from_number(u32::from(errno as u8));
            assert_eq!(here.map(Errno::name), Some(errno.name()));
        }
    }

    #[test]
    fn capabilities_have_the_models_numbers() {
        assert_eq!(
            Cap::ManualDirtyLogProtect2.number(),
            CAP_MANUAL_DIRTY_LOG_PROTECT2
        );
        assert_eq!(Cap::DirtyLogRing.number(), CAP_DIRTY_LOG_RING);
        assert_eq!(Cap::DirtyLogRingAcqRel.number(), CAP_DIRTY_LOG_RING_ACQ_REL);
        assert_eq!(
            Cap::DirtyLogRingWithBitmap.number(),
            CAP_DIRTY_LOG_RING_WITH_BITMAP
        );
    }
}
