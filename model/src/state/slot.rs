//! Memslots: what of one changes.

/// The life of a memslot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Life {
    /// Not there.
    #[default]
    Absent = 0,
    /// Published.
    Live = 1,
    /// Published as KVM_MEMSLOT_INVALID, on the way to being moved or deleted.
    Invalid = 2,
}

impl Life {
    /// The life of that number; numbers past the last mean the last.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Absent,
            1 => Self::Live,
            _ => Self::Invalid,
        }
    }
}

/// A memslot's changing part; the rest is its [`SlotTemplate`](crate::machine::SlotTemplate).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Slot {
    /// Whether it is there.
    pub life: Life,
    /// KVM_MEM_LOG_DIRTY_PAGES is set in the published copy.
    pub logging: bool,
    /// KVM_MEM_READONLY.
    pub readonly: bool,
    /// It has a bitmap.
    pub bitmap: bool,
    /// Which of its template's places it stands at.
    pub place: u8,
}

impl Slot {
    /// Whether an ioctl or a ring entry can find it.
    #[must_use]
    #[inline(always)]
    pub fn exists(&self) -> bool {
        self.life != Life::Absent
    }
}
