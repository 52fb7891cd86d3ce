//! The rows of a raw recording, field by field. A field is here if and only if recordings have it, or a trace's header does.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::trace::call::{Access, GuestLayout, ItsCommand, Program, Prot, Sharing};
use crate::trace::call_result::Touch;
use crate::trace::{Arch, Errno, PageRuns, RingEntries, StoreRuns, Words};

/// A number, or a hexadecimal string.
#[derive(Debug, Deserialize)]
pub(super) struct Hex(#[serde(with = "crate::trace::hex")] pub(super) u64);

/// A row's `op` and what belongs to it. A field that may be null must still be there.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub(super) enum Op {
    Scenario {
        title: String,
    },
    Host {
        arch: Arch,
        kernel: String,
        page_size: u64,
        ring_page_offset: u64,
        address_spaces: Option<u32>,
        pml: Option<bool>,
        two_dimensional: Option<bool>,
    },
    End {},
    CheckExtension {
        cap: String,
        cap_number: u32,
        ret: i64,
    },
    NewVm {
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
    },
    CloseVm {},
    EnableCap {
        cap: String,
        cap_number: u32,
        flags: u32,
        args0: u64,
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
    },
    CreateVcpu {
        vcpu: u32,
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
    },
    VcpuInit {
        vcpu: u32,
        mode: String,
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
    },
    SetUserMemoryRegion {
        slot: u16,
        as_id: u16,
        flags: u32,
        gpa: Hex,
        npages: u64,
        bytes: u64,
        mem: String,
        mem_offset: u64,
        populated: bool,
        huge: bool,
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
    },
    MmapRing {
        vcpu: u32,
        offset_pages: u64,
        bytes: u64,
        prot: Prot,
        sharing: Sharing,
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
        entries: u64,
        #[serde(deserialize_with = "Option::deserialize")]
        touch_byte: Option<u64>,
        #[serde(deserialize_with = "Option::deserialize")]
        touch: Option<Touch>,
    },
    GuestLayout(GuestLayout),
    CreateDevice {
        device: String,
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
    },
    SetDeviceAttr {
        device: String,
        what: String,
        group: u32,
        attr: Hex,
        value: Hex,
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
    },
    Run {
        vcpu: u32,
        program: RawProgram,
        resume: bool,
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
        exit: String,
        exit_reason: u32,
        program_done: bool,
        stores_retired: u64,
        stores_retired_total: u64,
    },
    RingPeek {
        vcpu: u32,
        fetch_index: u32,
        count: u64,
        entries: RingEntries,
        stop_flags: u32,
    },
    Harvest {
        vcpu: u32,
        fetch_index: u32,
        #[serde(deserialize_with = "Option::deserialize")]
        max: Option<u32>,
        write_flags: u32,
        count: u64,
        entries: RingEntries,
        stop_flags: Option<u32>,
    },
    RingRead {
        vcpu: u32,
        index: u32,
        count: u64,
        entries: RingEntries,
    },
    RingWrite {
        vcpu: u32,
        index: u32,
        #[serde(deserialize_with = "Option::deserialize")]
        flags: Option<u32>,
        #[serde(deserialize_with = "Option::deserialize")]
        slot: Option<u32>,
        #[serde(deserialize_with = "Option::deserialize")]
        offset: Option<u64>,
    },
    ResetDirtyRings {
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
    },
    GetDirtyLog {
        slot: u16,
        as_id: u16,
        #[serde(default)]
        bad_pointer: bool,
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
        words_written: u64,
        words: Words,
    },
    ClearDirtyLog {
        slot: u16,
        as_id: u16,
        first_page: u64,
        num_pages: u32,
        #[serde(default)]
        bad_pointer: bool,
        words_given: u64,
        words: Words,
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
    },
    ItsSetup {
        slot: u16,
        command_queue_pages: PageRuns,
        device_table_pages: PageRuns,
        collection_table_pages: PageRuns,
        property_table_pages: PageRuns,
        pending_table_pages: PageRuns,
    },
    RedistRegWrite {
        vcpu: u32,
        reg: String,
        offset: Hex,
        value: Hex,
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
    },
    ItsRegWrite {
        reg: String,
        offset: Hex,
        value: Hex,
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
        creadr_after: Option<Hex>,
    },
    ItsRegRead {
        reg: String,
        offset: Hex,
        value: Hex,
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
    },
    ItsSaveTables {
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
    },
    ItsRestoreTables {
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
    },
    VgicSavePendingTables {
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
    },
    SignalMsi {
        dev: u32,
        event: u32,
        ret: i64,
        #[serde(deserialize_with = "Option::deserialize")]
        errno: Option<Errno>,
    },
    UserWrite {
        slot: u16,
        pages: PageRuns,
        what: UserWriteKind,
        value: Option<Hex>,
        bytes: Option<u32>,
        offset: Option<u32>,
        queue_offset: Option<u64>,
        commands: Option<Vec<ItsCommand>>,
    },
    ReadPage {
        slot: u16,
        page: u64,
        offset: Option<u32>,
        u64: Option<Hex>,
        u8: Option<Hex>,
    },
    Copy {
        slot: u16,
        pages: PageRuns,
    },
    Compare {
        slot: u16,
        #[serde(alias = "differ")]
        differs: PageRuns,
    },
}

/// What a guest does, as recordings say it: it stores, it reads, or it does nothing and says that it is done.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProgram {
    store: Option<StoreRuns>,
    read: Option<StoreRuns>,
    nop: Option<IgnoredAny>,
    bytes: Option<u32>,
    value: Option<Hex>,
}

impl RawProgram {
    /// The program, unless it is no single one of them.
    pub(super) fn into_program(self) -> Option<Program> {
        let (store, bytes, value, access) = match self {
            Self {
                store: Some(store),
                read: None,
                nop: None,
                bytes: Some(bytes),
                value: Some(Hex(value)),
            } => (store, bytes, value, Access::Store),
            Self {
                store: None,
                read: Some(read),
                nop: None,
                bytes,
                ..
            } => (read, bytes.unwrap_or(1), 0, Access::Load),
            Self {
                store: None,
                read: None,
                nop: Some(_),
                ..
            } => (StoreRuns::default(), 1, 0, Access::Store),
            _ => return None,
        };
        Some(Program {
            store,
            bytes,
            value,
            access,
            elements: 1,
            at: 0,
        })
    }
}

/// What a USER_WRITE stored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum UserWriteKind {
    Bytes,
    ItsCommands,
}

impl Op {
    /// The names of those that only read: nothing that follows depends on them.
    pub(super) const READS: &'static [&'static str] = &[
        "CHECK_EXTENSION",
        "RING_PEEK",
        "RING_READ",
        "ITS_REG_READ",
        "READ_PAGE",
        "COMPARE",
    ];
    /// The names of all ops, for an error that must list them.
    pub(super) const NAMES: &'static [&'static str] = &[
        "SCENARIO",
        "HOST",
        "END",
        "CHECK_EXTENSION",
        "NEW_VM",
        "CLOSE_VM",
        "ENABLE_CAP",
        "CREATE_VCPU",
        "VCPU_INIT",
        "SET_USER_MEMORY_REGION",
        "MMAP_RING",
        "GUEST_LAYOUT",
        "CREATE_DEVICE",
        "SET_DEVICE_ATTR",
        "RUN",
        "RING_PEEK",
        "HARVEST",
        "RING_READ",
        "RING_WRITE",
        "RESET_DIRTY_RINGS",
        "GET_DIRTY_LOG",
        "CLEAR_DIRTY_LOG",
        "ITS_SETUP",
        "REDIST_REG_WRITE",
        "ITS_REG_WRITE",
        "ITS_REG_READ",
        "ITS_SAVE_TABLES",
        "ITS_RESTORE_TABLES",
        "VGIC_SAVE_PENDING_TABLES",
        "SIGNAL_MSI",
        "USER_WRITE",
        "READ_PAGE",
        "COPY",
        "COMPARE",
    ];
}
