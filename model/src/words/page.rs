//! Numbers of pages. A frame is no host page and no offset, though each is a number: where one becomes another, it is said.

use core::fmt;
use core::ops::{Add, Sub};

/// A number that names a page: a frame or a host page.
pub trait Page: Copy + Eq + Ord + fmt::Debug {
    /// The page of that number.
    fn new(number: u32) -> Self;
    /// Its number.
    fn number(self) -> u32;
}

macro_rules! pages {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub u32);

        impl Page for $name {
            #[inline(always)]
            fn new(number: u32) -> Self {
                Self(number)
            }
            #[inline(always)]
            fn number(self) -> u32 {
                self.0
            }
        }

        impl $name {
            /// As an index.
            #[must_use]
            #[inline(always)]
            pub const fn index(self) -> usize {
                self.0 as usize
            }

            /// The `count` pages from this one on.
            #[inline(always)]
            pub fn and_on(self, count: u32) -> impl DoubleEndedIterator<Item = Self> + Clone + use<> {
                (self.0..self.0 + count).map(Self)
            }
        }

        /// The page so many pages further on.
        impl Add<u32> for $name {
            type Output = Self;
            #[inline(always)]
            fn add(self, pages: u32) -> Self {
                Self(self.0 + pages)
            }
        }

        /// How many pages lie between them: the first is not behind the other.
        impl Sub for $name {
            type Output = u32;
            #[inline(always)]
            fn sub(self, first: Self) -> u32 {
                self.0 - first.0
            }
        }
    )+};
}

pages! {
    /// A page as KVM's slots see it: the machine numbers the pages of all slots through, each slot from a multiple of the word size on.
    Frame;
    /// A page of the host's memory behind guest memory; slots that share memory share its numbers.
    HostPage;
}

/// No frame.
pub const NO_FRAME: Frame = Frame(u32::MAX);

/// A page's offset in its slot, in pages. What a ring entry or an ioctl's argument says may be any.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Offset(pub u64);

/// The page that a step is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// A page as the guest and KVM see it.
    Frame(Frame),
    /// A page as the VMM copies it.
    Host(HostPage),
}
