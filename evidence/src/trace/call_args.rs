//! Arguments of calls that have a shape of their own.

use serde::{Deserialize, Serialize};

use super::hex;
use super::runs::{PageRuns, StoreRuns};

/// How a ring's mapping is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prot {
    /// PROT_NONE.
    None,
    /// PROT_READ.
    R,
    /// PROT_WRITE.
    W,
    /// PROT_READ and PROT_WRITE.
    Rw,
    /// PROT_READ and PROT_EXEC.
    Rx,
    /// All three.
    Rwx,
}

/// Whether a mapping is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// MAP_SHARED.
    Shared,
    /// MAP_PRIVATE.
    Private,
}

/// What a guest program does to each of its pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Stores the value.
    #[default]
    Store,
    /// Loads. `stores_retired` then counts loads.
    Load,
    /// Copies by one string instruction from where no memory is, so that KVM emulates it (x86); user space answers each element's load with the
    /// value, and calls KVM_RUN again. `stores_retired` then counts instructions.
    Copy,
}

impl Access {
    fn is_store(&self) -> bool {
        *self == Access::Store
    }
}

/// A guest program that stores one value to, or loads from, each of a list of pages.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The pages, in order: `[slot, first page, count]`.
    pub store: StoreRuns,
    /// The width of each access, of each element of a copy, in bytes: 1, 2, 4 or 8.
    pub bytes: u32,
    /// The value that is stored, in each element of a copy.
    #[serde(with = "hex")]
    pub value: u64,
    /// Whether the pages are stored to, loaded from or copied to; absent: stored to.
    #[serde(default, skip_serializing_if = "Access::is_store")]
    pub access: Access,
    /// How many elements a copy's instruction has, side by side; absent: one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub elements: u32,
    /// Where in each page the access begins, in bytes, below the page's size; absent: at its first. One that goes beyond the page's end is to the
    /// next page too.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub at: u32,
}

impl Program {
    /// Whether each access, or each instruction of a copy, goes beyond the end of a page of so many bytes, to the next page.
    #[must_use]
    pub fn is_over(&self, page_bytes: u64) -> bool {
        u64::from(self.at) + u64::from(self.bytes) * u64::from(self.elements) > page_bytes
    }
}

fn one() -> u32 {
    1
}

fn is_one(elements: &u32) -> bool {
    *elements == 1
}

pub(super) fn is_zero(at: &u32) -> bool {
    *at == 0
}

pub(super) fn eight() -> u32 {
    8
}

pub(super) fn is_eight(bytes: &u32) -> bool {
    *bytes == 8
}

/// What userspace stored to guest memory through its own mapping.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum UserData {
    /// The same value to bytes of each page.
    Bytes {
        /// The value.
        #[serde(with = "hex")]
        value: u64,
        /// How many bytes of it.
        bytes: u32,
        /// The first byte of the page that it goes to; absent: the page's first.
        #[serde(default, skip_serializing_if = "is_zero")]
        at: u32,
    },
    /// Commands into the queue of an ITS.
    ItsCommands {
        /// Where in the queue, in bytes.
        queue_offset: u64,
        /// The commands, in order.
        commands: Vec<ItsCommand>,
    },
}

/// A command to an ITS (Arm IHI 0069, chapter 5). The field names are short forms of Arm's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "UPPERCASE", deny_unknown_fields)]
pub enum ItsCommand {
    /// Maps a collection to a vCPU's redistributor.
    Mapc {
        /// The collection.
        collection: u32,
        /// The vCPU's id.
        vcpu: u32,
    },
    /// Maps a device to an interrupt translation table.
    Mapd {
        /// The device.
        dev: u32,
        /// The width of its event ids, in bits.
        event_bits: u32,
        /// The page of the slot at which the table begins.
        itt_page: u64,
    },
    /// Maps a device's event to an interrupt.
    Mapti {
        /// The device.
        dev: u32,
        /// The event.
        event: u32,
        /// The physical interrupt, 8192 or above.
        lpi: u32,
        /// The collection.
        collection: u32,
    },
    /// Moves a device's event to another collection.
    Movi {
        /// The device.
        dev: u32,
        /// The event.
        event: u32,
        /// The collection.
        collection: u32,
    },
    /// Makes an event's interrupt pending.
    Int {
        /// The device.
        dev: u32,
        /// The event.
        event: u32,
    },
    /// Takes the pending state from an event's interrupt.
    Clear {
        /// The device.
        dev: u32,
        /// The event.
        event: u32,
    },
    /// Unmaps an event: its entry in memory becomes zeros.
    Discard {
        /// The device.
        dev: u32,
        /// The event.
        event: u32,
    },
    /// MAPD without its valid bit: unmaps a device; its entry in memory becomes zeros.
    Unmapd {
        /// The device.
        dev: u32,
    },
    /// MAPC without its valid bit: unmaps a collection.
    Unmapc {
        /// The collection.
        collection: u32,
    },
}

impl ItsCommand {
    /// Bytes of a command.
    pub const BYTES: u64 = 32;
    /// The numbers of the commands, in the low byte of the first word (Arm IHI 0069, 5.3).
    pub const MOVI: u8 = 0x01;
    /// INT.
    pub const INT: u8 = 0x03;
    /// CLEAR.
    pub const CLEAR: u8 = 0x04;
    /// MAPD.
    pub const MAPD: u8 = 0x08;
    /// MAPC.
    pub const MAPC: u8 = 0x09;
    /// MAPTI.
    pub const MAPTI: u8 = 0x0a;
    /// DISCARD.
    pub const DISCARD: u8 = 0x0f;
    /// The valid bit of MAPC and MAPD, in the third word.
    pub const VALID: u64 = 1 << 63;

    /// The four words of the command, in a queue whose slot begins at `slot_gpa` and has pages of `page_bytes`.
    #[must_use]
    pub fn words(&self, slot_gpa: u64, page_bytes: u64) -> [u64; 4] {
        let first = |number: u8, dev: u32| u64::from(number) | u64::from(dev) << 32;
        match *self {
            Self::Mapc { collection, vcpu } => [
                first(Self::MAPC, 0),
                0,
                Self::VALID | u64::from(vcpu) << 16 | u64::from(collection & 0xffff),
                0,
            ],
            Self::Mapd {
                dev,
                event_bits,
                itt_page,
            } => {
                let table = slot_gpa.wrapping_add(itt_page.wrapping_mul(page_bytes));
                [
                    first(Self::MAPD, dev),
                    u64::from(event_bits.wrapping_sub(1) & 0x1f),
                    Self::VALID | table & 0x000f_ffff_ffff_ff00,
                    0,
                ]
            }
            Self::Mapti {
                dev,
                event,
                lpi,
                collection,
            } => [
                first(Self::MAPTI, dev),
                u64::from(event) | u64::from(lpi) << 32,
                u64::from(collection & 0xffff),
                0,
            ],
            Self::Movi {
                dev,
                event,
                collection,
            } => [
                first(Self::MOVI, dev),
                event.into(),
                u64::from(collection & 0xffff),
                0,
            ],
            Self::Int { dev, event } => [first(Self::INT, dev), event.into(), 0, 0],
            Self::Clear { dev, event } => [first(Self::CLEAR, dev), event.into(), 0, 0],
            Self::Discard { dev, event } => [first(Self::DISCARD, dev), event.into(), 0, 0],
            Self::Unmapd { dev } => [first(Self::MAPD, dev), 0, 0, 0],
            Self::Unmapc { collection } => {
                [first(Self::MAPC, 0), 0, u64::from(collection & 0xffff), 0]
            }
        }
    }
}

/// Which pages of a slot hold what the guest itself needs, and whether getting there disturbed anything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestLayout {
    /// The slot's id, in address space 0.
    pub slot: u16,
    /// The program.
    pub code_pages: PageRuns,
    /// What the program is told and tells (arm64).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox_pages: Option<PageRuns>,
    /// The descriptor table (x86).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gdt_pages: Option<PageRuns>,
    /// The stack (x86).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack_pages: Option<PageRuns>,
    /// The guest's page tables (x86).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_table_pages: Option<PageRuns>,
    /// The list of stores (x86).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_pages: Option<PageRuns>,
    /// There are other tables of the guest's (arm64).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_guest_tables: Option<bool>,
    /// How many accessed and dirty bits were set in the guest's page tables at the start (x86).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_table_accessed_dirty_bits_at_start: Option<u64>,
    /// All of it was written before its slot existed (x86).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_before_slot_creation: Option<bool>,
    /// Pages of the logged slot that set-up touched.
    pub logged_slot_pages_touched_by_setup: PageRuns,
}
