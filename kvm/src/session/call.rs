//! The calls of the code under test: what each is in the language of scenarios, and what it is answered.

use std::fmt;
use std::panic::Location;

use dirtysim_model::words::HostPage;
use serde_json::{Value, json};

use super::Apart;
use crate::machine::Page;
use crate::region::UserspaceMemoryRegion;
use crate::world::World;

/// A call on the simulated KVM, or on what the VMM's threads share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    /// A thread begins: nothing that the code asked for.
    Begin(u8),
    SetUserMemoryRegion(UserspaceMemoryRegion),
    GetDirtyLog(u32),
    ClearDirtyLog {
        slot: u32,
        first_page: u64,
        num_pages: u32,
        /// The offsets of the pages whose bits are set.
        pages: Vec<u64>,
    },
    ResetDirtyRings,
    RingNext(u8),
    SendPage(Page),
    StorePage(Page),
    KickVcpus,
    PauseVcpus,
    ResumeVcpus,
    ItsSaveTables,
    SavePendingTables,
    StartDevice(u8),
    StopDevice(u8),
    DrainDevice(u8),
    DeviceLog(u8),
    WaitRingFull,
    AckRingFull,
    AssertCopyIsWhole,
    Spawn(u8),
    SpawnApart(u8, Apart),
    Join(u8),
    Lock(u8),
    Unlock(u8),
    Signal(u8),
    WaitSignal(u8),
    /// Nothing: others may act.
    Yield,
    /// Nothing: the code says that what it does from here on depends on this alone, as a hash.
    DependsOnlyOn(u64),
}

/// What a call was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) answer: Result<u32, dirtysim_model::words::Errno>,
    pub(crate) pages: Vec<HostPage>,
}

impl Reply {
    /// Of a call that is always answered alike.
    pub(crate) const PLAIN: Self = Self {
        answer: Ok(0),
        pages: Vec::new(),
    };
}

/// A call, and where the code makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) call: Call,
    pub(crate) place: Site,
}

impl Asked {
    /// `file:line`.
    pub(crate) fn at(&self) -> String {
        self.place.to_string()
    }
}

/// A place in the code under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Site {
    file: &'static str,
    line: u32,
    column: u32,
}

impl Site {
    /// Where the caller is called.
    #[track_caller]
    pub(crate) fn caller() -> Self {
        let place = Location::caller();
        Self {
            file: place.file(),
            line: place.line(),
            column: place.column(),
        }
    }

    /// A line.
    pub(crate) fn line(file: &'static str, line: u32) -> Self {
        Self {
            file,
            line,
            column: 0,
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.call, self.at())
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(_) => f.write_str("(the thread's begin)"),
            Self::SetUserMemoryRegion(region) => write!(
                f,
                "set_user_memory_region(slot {}, flags {:#x}, {:#x} bytes)",
                region.slot, region.flags, region.memory_size
            ),
            Self::GetDirtyLog(slot) => write!(f, "get_dirty_log(slot {slot})"),
            Self::ClearDirtyLog {
                slot,
                first_page,
                num_pages,
                ..
            } => write!(
                f,
                "clear_dirty_log(slot {slot}, {num_pages} pages from {first_page} on)"
            ),
            Self::ResetDirtyRings => f.write_str("reset_dirty_rings()"),
            Self::RingNext(vcpu) => write!(f, "the next entry of the ring of vCPU {vcpu}"),
            Self::SendPage(page) => write!(f, "send_page({}, {})", page.slot, page.offset),
            Self::StorePage(page) => write!(f, "store_page({}, {})", page.slot, page.offset),
            Self::KickVcpus => f.write_str("kick_vcpus()"),
            Self::PauseVcpus => f.write_str("pause_vcpus()"),
            Self::ResumeVcpus => f.write_str("resume_vcpus()"),
            Self::ItsSaveTables => f.write_str("its_save_tables()"),
            Self::SavePendingTables => f.write_str("save_pending_tables()"),
            Self::StartDevice(device) => write!(f, "start() of device {device}"),
            Self::StopDevice(device) => write!(f, "stop() of device {device}"),
            Self::DrainDevice(device) => write!(f, "drain() of device {device}"),
            Self::DeviceLog(device) => write!(f, "dirty_pages() of device {device}"),
            Self::WaitRingFull => f.write_str("wait_ring_full()"),
            Self::AckRingFull => f.write_str("ack_ring_full()"),
            Self::AssertCopyIsWhole => f.write_str("assert_copy_is_whole()"),
            Self::Spawn(thread) => write!(f, "spawn(thread {thread})"),
            Self::SpawnApart(thread, _) => write!(f, "spawn_apart(thread {thread})"),
            Self::Join(thread) => write!(f, "join(thread {thread})"),
            Self::Lock(lock) => write!(f, "lock() of mutex {lock}"),
            Self::Unlock(lock) => write!(f, "unlock of mutex {lock}"),
            Self::Signal(signal) => write!(f, "send() on channel {signal}"),
            Self::WaitSignal(signal) => write!(f, "recv() on channel {signal}"),
            Self::Yield => f.write_str("a look without waiting"),
            Self::DependsOnlyOn(_) => f.write_str("depends_only_on()"),
        }
    }
}

impl Call {
    /// Whether it is always answered alike, so that what comes next is known at once.
    pub(crate) fn is_plain(&self) -> bool {
        match self {
            Self::SetUserMemoryRegion(_)
            | Self::GetDirtyLog(_)
            | Self::ClearDirtyLog { .. }
            | Self::ResetDirtyRings
            | Self::RingNext(_)
            | Self::ItsSaveTables
            | Self::SavePendingTables
            | Self::DeviceLog(_) => false,
            Self::Begin(_)
            | Self::SendPage(_)
            | Self::StorePage(_)
            | Self::KickVcpus
            | Self::PauseVcpus
            | Self::ResumeVcpus
            | Self::StartDevice(_)
            | Self::StopDevice(_)
            | Self::DrainDevice(_)
            | Self::WaitRingFull
            | Self::AckRingFull
            | Self::AssertCopyIsWhole
            | Self::Spawn(_)
            | Self::SpawnApart(..)
            | Self::Join(_)
            | Self::Lock(_)
            | Self::Unlock(_)
            | Self::Signal(_)
            | Self::WaitSignal(_)
            | Self::Yield
            | Self::DependsOnlyOn(_) => true,
        }
    }

    /// Whether it comes as often as the code has phases, and not as often as there are pages.
    pub(crate) fn makes_a_phase(&self) -> bool {
        match self {
            Self::Begin(_)
            | Self::SetUserMemoryRegion(_)
            | Self::GetDirtyLog(_)
            | Self::ResetDirtyRings
            | Self::KickVcpus
            | Self::PauseVcpus
            | Self::ResumeVcpus
            | Self::ItsSaveTables
            | Self::SavePendingTables
            | Self::StartDevice(_)
            | Self::StopDevice(_)
            | Self::DrainDevice(_)
            | Self::DeviceLog(_)
            | Self::WaitRingFull
            | Self::AckRingFull
            | Self::AssertCopyIsWhole
            | Self::Spawn(_)
            | Self::SpawnApart(..)
            | Self::Join(_) => true,
            Self::ClearDirtyLog { .. }
            | Self::RingNext(_)
            | Self::SendPage(_)
            | Self::StorePage(_)
            | Self::Lock(_)
            | Self::Unlock(_)
            | Self::Signal(_)
            | Self::WaitSignal(_)
            | Self::Yield
            | Self::DependsOnlyOn(_) => false,
        }
    }

    /// The step that it is in a scenario. Collected pages are to be copied; in the code's program they come with the answer (`answered`).
    pub(crate) fn step(&self, world: &World, answered: bool) -> Value {
        let into = if answered { "hand" } else { "pending" };
        let page = |page: &Page| world.page_name(*page);
        match self {
            Self::Begin(thread) => json!({ "step": "wait", "name": begin(*thread) }),
            Self::SetUserMemoryRegion(region) => json!({
                "step": "set-user-memory-region",
                "slot": world.slot_name(region.slot),
                "flags": region.flags,
                "guest_phys_addr": region.guest_phys_addr,
                "memory_size": region.memory_size,
                "userspace_addr": world.model_address(region),
            }),
            Self::GetDirtyLog(slot) => {
                json!({ "step": "get-dirty-log", "slot": world.slot_name(*slot), "into": into })
            }
            Self::ClearDirtyLog {
                slot,
                first_page,
                num_pages,
                pages,
            } => {
                let mask: Vec<String> = pages
                    .iter()
                    .map(|&offset| page(&Page::new(*slot, offset)))
                    .collect();
                json!({
                    "step": "clear-dirty-log",
                    "slot": world.slot_name(*slot),
                    "first": first_page,
                    "pages": num_pages,
                    "mask": mask,
                })
            }
            Self::ResetDirtyRings => json!({ "step": "reset-rings" }),
            Self::RingNext(vcpu) => {
                json!({ "step": "harvest-rings", "vcpu": vcpu, "max": 1, "into": into })
            }
            Self::SendPage(it) => json!({ "step": "send", "page": page(it) }),
            Self::StorePage(it) => json!({ "step": "vmm-write", "page": page(it), "log": "none" }),
            Self::KickVcpus => json!({ "step": "kick-vcpus" }),
            Self::PauseVcpus => json!({ "step": "pause-vcpus" }),
            Self::ResumeVcpus => json!({ "step": "resume-vcpus" }),
            Self::ItsSaveTables => json!({ "step": "its-save-tables" }),
            Self::SavePendingTables => json!({ "step": "save-pending-tables" }),
            Self::StartDevice(device) => {
                json!({ "step": "start-device", "device": world.device_name(*device) })
            }
            Self::StopDevice(device) => {
                json!({ "step": "stop-devices", "device": world.device_name(*device) })
            }
            Self::DrainDevice(device) => {
                json!({ "step": "drain-devices", "device": world.device_name(*device) })
            }
            Self::DeviceLog(device) => {
                json!({ "step": "device-log-sync", "device": world.device_name(*device), "into": into })
            }
            Self::WaitRingFull => json!({ "step": "wait-ring-full" }),
            Self::AckRingFull => json!({ "step": "ack-ring-full" }),
            Self::AssertCopyIsWhole => json!({ "step": "checkpoint" }),
            Self::Spawn(thread) | Self::SpawnApart(thread, _) => {
                json!({ "step": "signal", "name": begin(*thread) })
            }
            Self::Join(thread) => json!({ "step": "join-thread", "thread": thread }),
            Self::Lock(lock) => json!({ "step": "take-lock", "name": format!("mutex{lock}") }),
            Self::Unlock(lock) => json!({ "step": "drop-lock", "name": format!("mutex{lock}") }),
            Self::Signal(signal) => json!({ "step": "signal", "name": channel(*signal) }),
            Self::WaitSignal(signal) => json!({ "step": "wait", "name": channel(*signal) }),
            Self::Yield | Self::DependsOnlyOn(_) => json!({ "step": "yield" }),
        }
    }
}

/// The signal by which a thread begins.
fn begin(thread: u8) -> String {
    format!("begin{thread}")
}

fn channel(signal: u8) -> String {
    format!("channel{signal}")
}
