//! Whether a machine fits a layout.

use super::State;
use super::layout::{Array, Layout};
use super::pages::PageSet;
use crate::machine::Machine;

/// A part of a machine of which a layout has room for so many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Frames, padding included; or host pages.
    Frames,
    /// Memslots.
    Memslots,
    /// vCPUs.
    Vcpus,
    /// Threads of the VMM.
    Threads,
    /// Devices.
    Devices,
    /// Entries of a PML buffer.
    PmlEntries,
    /// Entries of a ring.
    RingEntries,
}

impl Part {
    /// The name, in the plural.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Memslots => "memslots",
            Self::Vcpus => "vCPUs",
            Self::Threads => "threads",
            Self::Devices => "devices",
            Self::PmlEntries => "PML entries",
            Self::RingEntries => "ring entries",
        }
    }
}

/// A machine that does not fit a layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom {
    /// What there is too much of.
    pub part: Part,
    /// How much there may be.
    pub most: u64,
}

impl core::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "too many {}: at most {}", self.part.name(), self.most)
    }
}

impl core::error::Error for NoRoom {}

impl<L: Layout> State<L> {
    /// Whether the machine's parts fit this layout.
    ///
    /// # Errors
    /// The first part that does not.
    pub fn fits(machine: &Machine) -> Result<(), NoRoom> {
        let count = |len: usize| len as u64;
        let pml = if machine.pml {
            machine.constants.pml_entries
        } else {
            0
        };
        let parts = [
            (Part::Frames, u64::from(machine.pages()), L::Set::CAPACITY),
            (
                Part::Memslots,
                count(machine.slots.len()),
                count(L::Slots::CAPACITY),
            ),
            (
                Part::Vcpus,
                count(machine.vcpus.len()),
                count(L::Vcpus::CAPACITY),
            ),
            (
                Part::Threads,
                count(machine.programs.len()),
                count(L::Threads::CAPACITY),
            ),
            (
                Part::Devices,
                count(machine.devices.len()),
                count(L::Devices::CAPACITY),
            ),
            (Part::PmlEntries, u64::from(pml), count(L::Pml::CAPACITY)),
        ];
        match parts
            .into_iter()
            .find(|(_, size, capacity)| size > capacity)
        {
            Some((part, _, most)) => Err(NoRoom { part, most }),
            None => Ok(()),
        }
    }
}
