//! Calls of a trace of kind `call`: what was asked, and which fields the result has.
//!
//! The names are KVM's where the call is an ioctl, and lower case where it is something that userspace did itself: map
//! a ring, harvest it, store to guest memory, read a page.

use serde::{Deserialize, Serialize};

use super::call_args::{GuestLayout, Program, Prot, Sharing, UserData};
use super::call_result::Shape;
use super::hex;
use super::names::Cap;
use super::runs::PageRuns;

/// What was asked, of the kernel or of userspace itself. Slots are ids within their address space, pages are counted
/// from the slot's first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", deny_unknown_fields)]
pub enum Call {
    /// KVM_CHECK_EXTENSION on the system; belongs to no VM.
    #[serde(rename = "KVM_CHECK_EXTENSION")]
    CheckExtension {
        /// The capability.
        cap: Cap,
    },
    /// KVM_CREATE_VM; the row's `vm` is the new VM's number.
    #[serde(rename = "KVM_CREATE_VM")]
    CreateVm {},
    /// The last file descriptor of a VM is closed.
    #[serde(rename = "close_vm")]
    CloseVm {},
    /// KVM_ENABLE_CAP on the VM.
    #[serde(rename = "KVM_ENABLE_CAP")]
    EnableCap {
        /// The capability.
        cap: Cap,
        /// `flags`, 0 where the caller is well-behaved.
        flags: u32,
        /// `args[0]`: for a ring, its size in bytes.
        args0: u64,
    },
    /// KVM_CREATE_VCPU.
    #[serde(rename = "KVM_CREATE_VCPU")]
    CreateVcpu {
        /// The vCPU's id.
        vcpu: u32,
    },
    /// The vCPU is made ready to run.
    #[serde(rename = "vcpu_init")]
    VcpuInit {
        /// The vCPU's id.
        vcpu: u32,
        /// The guest's mode, in words.
        mode: String,
    },
    /// KVM_SET_USER_MEMORY_REGION.
    #[serde(rename = "KVM_SET_USER_MEMORY_REGION")]
    SetUserMemoryRegion {
        /// The id within the address space.
        slot: u16,
        /// The address space.
        as_id: u16,
        /// KVM_MEM_LOG_DIRTY_PAGES is 1, KVM_MEM_READONLY is 2.
        flags: u32,
        /// `guest_phys_addr`.
        #[serde(with = "hex")]
        gpa: u64,
        /// `memory_size` in whole host pages; 0 deletes the slot.
        npages: u64,
        /// `memory_size` in bytes, where that is not `npages` whole pages.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
        /// The name of the host memory behind the slot; two slots may share it.
        mem: String,
        /// Where in that memory the slot begins, in bytes.
        mem_offset: u64,
        /// Its host pages were touched before.
        populated: bool,
        /// Transparent huge pages were asked for.
        huge: bool,
    },
    /// mmap of a vCPU's file descriptor.
    #[serde(rename = "mmap_ring")]
    MmapRing {
        /// The vCPU's id.
        vcpu: u32,
        /// The offset, in host pages.
        offset_pages: u64,
        /// The length, in bytes.
        bytes: u64,
        /// The protection.
        prot: Prot,
        /// Shared or private.
        sharing: Sharing,
        /// The byte of the mapping that was touched afterwards, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        touch_byte: Option<u64>,
    },
    /// Which pages of a slot hold what the guest itself needs. States a fact; does nothing.
    #[serde(rename = "guest_layout")]
    GuestLayout(GuestLayout),
    /// KVM_CREATE_DEVICE.
    #[serde(rename = "KVM_CREATE_DEVICE")]
    CreateDevice {
        /// `VGIC_V3` or `VGIC_ITS`.
        device: String,
    },
    /// KVM_SET_DEVICE_ATTR.
    #[serde(rename = "KVM_SET_DEVICE_ATTR")]
    SetDeviceAttr {
        /// `VGIC_V3` or `VGIC_ITS`.
        device: String,
        /// The attribute, in words.
        what: String,
        /// `group`.
        group: u32,
        /// `attr`.
        #[serde(with = "hex")]
        attr: u64,
        /// What `addr` pointed to.
        #[serde(with = "hex")]
        value: u64,
    },
    /// KVM_RUN.
    #[serde(rename = "KVM_RUN")]
    Run {
        /// The vCPU's id.
        vcpu: u32,
        /// What the guest does.
        program: Program,
        /// Goes on with the program of this vCPU's row before; otherwise starts it.
        resume: bool,
    },
    /// KVM_RUN of a guest that stores to a device's register that KVM itself emulates, and says that it is done.
    #[serde(rename = "guest_mmio")]
    GuestMmio {
        /// The vCPU's id.
        vcpu: u32,
        /// The register's guest physical address.
        #[serde(with = "hex")]
        gpa: u64,
        /// The width of the store, in bytes: 4 or 8.
        bytes: u32,
        /// The value that is stored.
        #[serde(with = "hex")]
        value: u64,
    },
    /// KVM_PRE_FAULT_MEMORY on a vCPU that is not running.
    #[serde(rename = "KVM_PRE_FAULT_MEMORY")]
    PreFaultMemory {
        /// The vCPU's id.
        vcpu: u32,
        /// `gpa`, in bytes.
        #[serde(with = "hex")]
        gpa: u64,
        /// `size`, in host pages.
        npages: u64,
    },
    /// The vCPU's record of stolen time is switched on: on x86 by its MSR, on arm64 by the attribute of the vCPU.
    #[serde(rename = "stolen_time")]
    StolenTime {
        /// The vCPU's id.
        vcpu: u32,
        /// Where the record is, in bytes, a multiple of 64.
        #[serde(with = "hex")]
        gpa: u64,
    },
    /// Reads the entries with flags 01 from an index on, and leaves them as they are.
    #[serde(rename = "ring_peek")]
    RingPeek {
        /// The vCPU's id.
        vcpu: u32,
        /// Where reading starts: a free-running index, counted from the ring's first entry ever.
        fetch_index: u32,
    },
    /// Reads the entries with flags 01 from an index on, and writes flags to each.
    #[serde(rename = "harvest")]
    Harvest {
        /// The vCPU's id.
        vcpu: u32,
        /// Where reading starts, a free-running index.
        fetch_index: u32,
        /// How many entries at most; absent: no limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<u32>,
        /// The flags that each gets: 2 or 3 where the caller is well-behaved.
        write_flags: u32,
    },
    /// Reads entries as they stand, whatever their flags.
    #[serde(rename = "ring_read")]
    RingRead {
        /// The vCPU's id.
        vcpu: u32,
        /// The first entry, a free-running index.
        index: u32,
        /// How many.
        count: u64,
    },
    /// Writes to an entry directly; an absent field is left as it was.
    #[serde(rename = "ring_write")]
    RingWrite {
        /// The vCPU's id.
        vcpu: u32,
        /// The entry, a free-running index.
        index: u32,
        /// The new flags.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        flags: Option<u32>,
        /// The new slot, `as_id << 16 | id`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slot: Option<u32>,
        /// The new offset, a page within the slot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
    },
    /// KVM_RESET_DIRTY_RINGS.
    #[serde(rename = "KVM_RESET_DIRTY_RINGS")]
    ResetDirtyRings {},
    /// KVM_GET_DIRTY_LOG.
    #[serde(rename = "KVM_GET_DIRTY_LOG")]
    GetDirtyLog {
        /// The id within the address space.
        slot: u16,
        /// The address space.
        as_id: u16,
        /// The buffer was not mapped.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        bad_pointer: bool,
    },
    /// KVM_CLEAR_DIRTY_LOG.
    #[serde(rename = "KVM_CLEAR_DIRTY_LOG")]
    ClearDirtyLog {
        /// The id within the address space.
        slot: u16,
        /// The address space.
        as_id: u16,
        /// `first_page`.
        first_page: u64,
        /// `num_pages`.
        num_pages: u32,
        /// The length of the caller's buffer, in words; a claim, which may be more than the call reads.
        words_given: u64,
        /// The words in it, from `first_page` on.
        words: super::words::Words,
        /// The buffer was not mapped.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        bad_pointer: bool,
    },
    /// Which pages of a slot the ITS's and the redistributors' tables have. States a fact; does nothing.
    #[serde(rename = "its_setup")]
    ItsSetup {
        /// The slot of all of them.
        slot: u16,
        /// The command queue.
        command_queue_pages: PageRuns,
        /// The device table.
        device_table_pages: PageRuns,
        /// The collection table.
        collection_table_pages: PageRuns,
        /// The table of the interrupts' properties.
        property_table_pages: PageRuns,
        /// The tables of pending interrupts, one run a vCPU.
        pending_table_pages: PageRuns,
    },
    /// KVM_SET_DEVICE_ATTR on a redistributor's register.
    #[serde(rename = "redist_reg_write")]
    RedistRegWrite {
        /// The vCPU's id.
        vcpu: u32,
        /// The register's name; `+4` its upper half.
        reg: String,
        /// The register's offset, in bytes.
        #[serde(with = "hex")]
        offset: u64,
        /// The value.
        #[serde(with = "hex")]
        value: u64,
    },
    /// KVM_SET_DEVICE_ATTR on a register of the ITS.
    #[serde(rename = "its_reg_write")]
    ItsRegWrite {
        /// The register's name.
        reg: String,
        /// The register's offset, in bytes.
        #[serde(with = "hex")]
        offset: u64,
        /// The value.
        #[serde(with = "hex")]
        value: u64,
    },
    /// KVM_GET_DEVICE_ATTR on a register of the ITS.
    #[serde(rename = "its_reg_read")]
    ItsRegRead {
        /// The register's name.
        reg: String,
        /// The register's offset, in bytes.
        #[serde(with = "hex")]
        offset: u64,
    },
    /// KVM_DEV_ARM_ITS_CTRL_RESET: the ITS forgets its mappings, as before a restore.
    #[serde(rename = "KVM_DEV_ARM_ITS_CTRL_RESET")]
    ItsReset {},
    /// KVM_DEV_ARM_ITS_SAVE_TABLES: the ITS writes its tables to guest memory.
    #[serde(rename = "KVM_DEV_ARM_ITS_SAVE_TABLES")]
    ItsSaveTables {},
    /// KVM_DEV_ARM_ITS_RESTORE_TABLES: the ITS reads its tables from guest memory.
    #[serde(rename = "KVM_DEV_ARM_ITS_RESTORE_TABLES")]
    ItsRestoreTables {},
    /// KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES: pending interrupts are written to guest memory.
    #[serde(rename = "KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES")]
    VgicSavePendingTables {},
    /// KVM_SIGNAL_MSI.
    #[serde(rename = "KVM_SIGNAL_MSI")]
    SignalMsi {
        /// The device.
        dev: u32,
        /// The event.
        event: u32,
    },
    /// Userspace stores to guest memory through its own mapping.
    #[serde(rename = "user_write")]
    UserWrite {
        /// The slot's id, in address space 0.
        slot: u16,
        /// The pages, in order.
        pages: PageRuns,
        /// What was stored.
        data: UserData,
    },
    /// Userspace gives the host memory of pages back (MADV_DONTNEED): they read as zeros from then on.
    #[serde(rename = "discard")]
    Discard {
        /// The slot's id, in address space 0.
        slot: u16,
        /// The pages, in order.
        pages: PageRuns,
    },
    /// Userspace reads bytes of a page: the first 8, unless it says which.
    #[serde(rename = "read_page")]
    ReadPage {
        /// The slot's id, in address space 0.
        slot: u16,
        /// The page.
        page: u64,
        /// The first byte that is read; absent: the page's first.
        #[serde(default, skip_serializing_if = "super::call_args::is_zero")]
        at: u32,
        /// How many bytes are read, 1 to 8; absent: 8.
        #[serde(
            default = "super::call_args::eight",
            skip_serializing_if = "super::call_args::is_eight"
        )]
        bytes: u32,
    },
    /// Userspace copies pages to the destination.
    #[serde(rename = "copy")]
    Copy {
        /// The slot's id, in address space 0.
        slot: u16,
        /// The pages, in order.
        pages: PageRuns,
    },
    /// Userspace compares a slot with the destination.
    #[serde(rename = "compare")]
    Compare {
        /// The slot's id, in address space 0.
        slot: u16,
    },
    /// The recorder came to the end of what it had to do; belongs to no VM.
    #[serde(rename = "end")]
    End {},
}

const RET: Shape = Shape {
    required: &["ret"],
    optional: &[],
};
const NOTHING: Shape = Shape {
    required: &[],
    optional: &[],
};

impl Call {
    /// The names of all calls, in the order of the documentation.
    pub const NAMES: &'static [&'static str] = &[
        "KVM_CHECK_EXTENSION",
        "KVM_CREATE_VM",
        "close_vm",
        "KVM_ENABLE_CAP",
        "KVM_CREATE_VCPU",
        "vcpu_init",
        "KVM_SET_USER_MEMORY_REGION",
        "mmap_ring",
        "guest_layout",
        "KVM_CREATE_DEVICE",
        "KVM_SET_DEVICE_ATTR",
        "KVM_RUN",
        "guest_mmio",
        "KVM_PRE_FAULT_MEMORY",
        "stolen_time",
        "ring_peek",
        "harvest",
        "ring_read",
        "ring_write",
        "KVM_RESET_DIRTY_RINGS",
        "KVM_GET_DIRTY_LOG",
        "KVM_CLEAR_DIRTY_LOG",
        "its_setup",
        "redist_reg_write",
        "its_reg_write",
        "its_reg_read",
        "KVM_DEV_ARM_ITS_CTRL_RESET",
        "KVM_DEV_ARM_ITS_SAVE_TABLES",
        "KVM_DEV_ARM_ITS_RESTORE_TABLES",
        "KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES",
        "KVM_SIGNAL_MSI",
        "user_write",
        "discard",
        "read_page",
        "copy",
        "compare",
        "end",
    ];

    /// The name: an ioctl's, or in lower case an act of userspace.
    pub fn name(&self) -> &'static str {
        match self {
            Call::CheckExtension { .. } => "KVM_CHECK_EXTENSION",
            Call::CreateVm {} => "KVM_CREATE_VM",
            Call::CloseVm {} => "close_vm",
            Call::EnableCap { .. } => "KVM_ENABLE_CAP",
            Call::CreateVcpu { .. } => "KVM_CREATE_VCPU",
            Call::VcpuInit { .. } => "vcpu_init",
            Call::SetUserMemoryRegion { .. } => "KVM_SET_USER_MEMORY_REGION",
            Call::MmapRing { .. } => "mmap_ring",
            Call::GuestLayout(_) => "guest_layout",
            Call::CreateDevice { .. } => "KVM_CREATE_DEVICE",
            Call::SetDeviceAttr { .. } => "KVM_SET_DEVICE_ATTR",
            Call::Run { .. } => "KVM_RUN",
            Call::GuestMmio { .. } => "guest_mmio",
            Call::PreFaultMemory { .. } => "KVM_PRE_FAULT_MEMORY",
            Call::StolenTime { .. } => "stolen_time",
            Call::RingPeek { .. } => "ring_peek",
            Call::Harvest { .. } => "harvest",
            Call::RingRead { .. } => "ring_read",
            Call::RingWrite { .. } => "ring_write",
            Call::ResetDirtyRings {} => "KVM_RESET_DIRTY_RINGS",
            Call::GetDirtyLog { .. } => "KVM_GET_DIRTY_LOG",
            Call::ClearDirtyLog { .. } => "KVM_CLEAR_DIRTY_LOG",
            Call::ItsSetup { .. } => "its_setup",
            Call::RedistRegWrite { .. } => "redist_reg_write",
            Call::ItsRegWrite { .. } => "its_reg_write",
            Call::ItsRegRead { .. } => "its_reg_read",
            Call::ItsReset {} => "KVM_DEV_ARM_ITS_CTRL_RESET",
            Call::ItsSaveTables {} => "KVM_DEV_ARM_ITS_SAVE_TABLES",
            Call::ItsRestoreTables {} => "KVM_DEV_ARM_ITS_RESTORE_TABLES",
            Call::VgicSavePendingTables {} => "KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES",
            Call::SignalMsi { .. } => "KVM_SIGNAL_MSI",
            Call::UserWrite { .. } => "user_write",
            Call::Discard { .. } => "discard",
            Call::ReadPage { .. } => "read_page",
            Call::Copy { .. } => "copy",
            Call::Compare { .. } => "compare",
            Call::End {} => "end",
        }
    }

    /// Which fields the result has.
    pub fn shape(&self) -> Shape {
        match self {
            Call::CheckExtension { .. }
            | Call::CreateVm {}
            | Call::EnableCap { .. }
            | Call::CreateVcpu { .. }
            | Call::VcpuInit { .. }
            | Call::SetUserMemoryRegion { .. }
            | Call::StolenTime { .. }
            | Call::CreateDevice { .. }
            | Call::SetDeviceAttr { .. }
            | Call::ResetDirtyRings {}
            | Call::ClearDirtyLog { .. }
            | Call::RedistRegWrite { .. }
            | Call::ItsReset {}
            | Call::ItsSaveTables {}
            | Call::ItsRestoreTables {}
            | Call::VgicSavePendingTables {}
            | Call::SignalMsi { .. } => RET,
            Call::MmapRing { .. } => Shape {
                required: &["ret", "mapped_entries"],
                optional: &["touch"],
            },
            Call::Run { .. } => Shape {
                required: &[
                    "ret",
                    "exit",
                    "program_done",
                    "stores_retired",
                    "stores_retired_total",
                ],
                optional: &[],
            },
            Call::GuestMmio { .. } => Shape {
                required: &["ret", "exit", "program_done"],
                optional: &[],
            },
            Call::PreFaultMemory { .. } => Shape {
                required: &["ret", "count"],
                optional: &[],
            },
            Call::RingPeek { .. } => Shape {
                required: &["count", "entries", "stop_flags"],
                optional: &[],
            },
            Call::Harvest { .. } => Shape {
                required: &["count", "entries"],
                optional: &["stop_flags"],
            },
            Call::RingRead { .. } => Shape {
                required: &["entries"],
                optional: &[],
            },
            Call::GetDirtyLog { .. } => Shape {
                required: &["ret", "words_written", "words"],
                optional: &[],
            },
            Call::ItsRegWrite { .. } => Shape {
                required: &["ret"],
                optional: &["creadr_after"],
            },
            Call::ItsRegRead { .. } => Shape {
                required: &["ret", "value"],
                optional: &[],
            },
            Call::ReadPage { .. } => Shape {
                required: &["value"],
                optional: &[],
            },
            Call::Compare { .. } => Shape {
                required: &["differs"],
                optional: &[],
            },
            Call::CloseVm {}
            | Call::GuestLayout(_)
            | Call::RingWrite { .. }
            | Call::ItsSetup { .. }
            | Call::UserWrite { .. }
            | Call::Discard { .. }
            | Call::Copy { .. }
            | Call::End {} => NOTHING,
        }
    }

    /// Whether the call is made on a VM.
    pub fn has_vm(&self) -> bool {
        !matches!(self, Call::CheckExtension { .. } | Call::End {})
    }
}
