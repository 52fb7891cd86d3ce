//! Programs: the operations of a VMM's threads, as data.
//!
//! What an operation does, and everything else that there is to say of it, is in its file in `op/`.

use super::WriterLog;
use crate::words::{Fields, Frame};

/// Where collected pages go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Into {
    /// To the pages that are to be copied, which every thread of the VMM sees.
    #[default]
    Pending,
    /// To the thread's own hands, until it publishes them.
    Hand,
    /// To the VMM's own log, which its threads share, until somebody takes that.
    OwnLog,
    /// Nowhere: the answer is thrown away.
    Nowhere,
}

impl Into {
    /// The fields of a state that collected pages join.
    pub(crate) const fn fields(self) -> Fields {
        match self {
            Self::Pending => Fields::PENDING,
            Self::Hand => Fields::HAND,
            Self::OwnLog => Fields::OWN_LOG,
            Self::Nowhere => Fields::NONE,
        }
    }
}

/// The bits that user space passes to CLEAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClearMask {
    /// The bits that GETs showed and that no CLEAR has cleared yet.
    Seen,
    /// All bits of the range.
    All,
    /// The bits of a list of frames, which is in ascending order.
    List(u16),
}

/// Takes a device's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceSync {
    /// The device.
    pub device: u8,
    /// Where the logged pages go.
    pub into: Into,
}

/// Until when a part of a program is repeated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// For ever; or, where the target lies ahead, a jump.
    Never,
    /// Until no page is left to be copied.
    NothingPending,
    /// Any number of times: whenever the program comes there, the schedule may go on behind it.
    AnyTime,
}

/// A kernel writer that runs without a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelWriter {
    /// KVM_DEV_ARM_ITS_SAVE_TABLES.
    ItsSave,
    /// KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES.
    PendingSave,
    /// KVM_DEV_ARM_ITS_RESTORE_TABLES.
    ItsRestore,
    /// Another one, that holds no vCPU's mutex: an s390 adapter, Xen's shared page.
    Other,
}

impl KernelWriter {
    /// The name in scenarios and traces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ItsSave => "its-save-tables",
            Self::PendingSave => "save-pending-tables",
            Self::ItsRestore => "its-restore-tables",
            Self::Other => "kernel-write",
        }
    }

    /// Whether it takes every vCPU's mutex, and answers EBUSY when one is in an ioctl.
    /// Source: arch/arm64/kvm/vgic/vgic-its.c, vgic_its_ctrl(); vgic-kvm-device.c, vgic_v3_attr_regs_access() and vgic_set_common_attr().
    #[must_use]
    pub const fn locks_vcpus(self) -> bool {
        !matches!(self, Self::Other)
    }
}

/// How user space harvests a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HarvestWay {
    /// By the protocol: in order, flags read first, 10 written last.
    #[default]
    Right,
    /// Passes over the first entry.
    SkipFirst,
    /// Writes 00 in place of 1X.
    WriteZero,
    /// Writes 1X without having looked: also to entries that are still unread, and does not take their pages.
    Unread,
    /// Writes 1X to one entry more than was pushed.
    OneTooMany,
}

/// KVM_ENABLE_CAP. `args0`: bytes for a ring, bits for manual protect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EnableCap {
    /// Capability number.
    pub cap: u32,
    /// `flags` of the argument.
    pub flags: u32,
    /// `args[0]`.
    pub args0: u64,
}

/// KVM_SET_USER_MEMORY_REGION.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetMemoryRegion {
    /// Combined slot number, `as_id << 16 | id`.
    pub slot: u32,
    /// KVM_MEM_* flags.
    pub flags: u32,
    /// Guest physical address, in bytes.
    pub gpa: u64,
    /// Size, in bytes; 0 deletes.
    pub bytes: u64,
    /// Host virtual address, in bytes.
    pub hva: u64,
    /// The template that a created slot takes.
    pub template: u16,
}

/// KVM_GET_DIRTY_LOG.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GetDirtyLog {
    /// Combined slot number.
    pub slot: u32,
    /// Where the pages go.
    pub into: Into,
    /// The user pointer cannot be written.
    pub bad_pointer: bool,
}

/// KVM_CLEAR_DIRTY_LOG.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClearDirtyLog {
    /// Combined slot number.
    pub slot: u32,
    /// First page of the range.
    pub first_page: u64,
    /// Pages of the range.
    pub num_pages: u32,
    /// The bits that are passed.
    pub mask: ClearMask,
    /// The user pointer cannot be read.
    pub bad_pointer: bool,
}

/// KVM_RESET_DIRTY_RINGS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResetRings {
    /// A signal may become pending for the thread while it runs.
    pub signal: bool,
}

/// KVM_PRE_FAULT_MEMORY, on a vCPU: maps its pages as a load of each would.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PreFault {
    /// The vCPU.
    pub vcpu: u8,
    /// The index of the list of frames, in ascending order.
    pub frames: u16,
}

/// A kernel writer without a vCPU writes each frame of a list, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KernelWrite {
    /// Who.
    pub writer: KernelWriter,
    /// The index of the list of frames.
    pub frames: u16,
    /// Fails with EFAULT after so many frames, half-way through the next one; 255: never.
    pub fails_after: u8,
}

/// Harvests rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Harvest {
    /// One vCPU's ring, or all of them in order.
    pub vcpu: Option<u8>,
    /// At most so many entries of each ring.
    pub max: u32,
    /// How.
    pub way: HarvestWay,
    /// Where the pages go.
    pub into: Into,
}

/// Copies those of a list's pages that are to be copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyList {
    /// The index of the list of frames.
    pub frames: u16,
}

/// Signals every vCPU to leave KVM_RUN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kick {
    /// None of them may enter again until [`Op::Resume`].
    pub stop: bool,
}

/// The VMM stores to a frame by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserWrite {
    /// The frame.
    pub frame: Frame,
    /// How the VMM's own log sees it.
    pub log: WriterLog,
}

/// The host ages a page: its leaf loses what says that it was accessed, TLBs are not flushed. Or it takes the page's memory away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostAge {
    /// The frame.
    pub frame: Frame,
    /// The mapping goes, with a flush, as where memory is swapped out, merged or moved.
    pub unmap: bool,
}

/// The guest calls pages free, so that their bytes do not matter until they are stored to again; then the VMM takes them
/// out of those that are to be copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DropFree {
    /// The index of the list of frames.
    pub frames: u16,
}

/// The VMM has done with the pages that the guest called free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndFree {
    /// The index of the list of frames.
    pub frames: u16,
}

/// Moves one slot's pages from the thread's own to those that are to be copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublishSlot {
    /// The slot's template.
    pub template: u16,
}

/// Marks pages in the VMM's own log, without a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MarkOwn {
    /// The index of the list of frames.
    pub frames: u16,
}

/// Goes elsewhere in the program if the last answer was an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OnError {
    /// The operation to go to.
    pub to: u16,
}

/// Goes elsewhere in the program: back for a repetition, forward past what is for errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Again {
    /// The operation to go to.
    pub to: u16,
    /// Until when.
    pub until: Until,
}

/// What the VMM may ask of a memslot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotIs {
    /// It is not there.
    Absent,
    /// It is there, at the place of that number.
    At(u8),
    /// It is there, and it logs.
    Logging,
}

/// Goes past what is for memslots of a kind, unless this one is of that kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PassUnless {
    /// The slot's template.
    pub template: u16,
    /// The kind.
    pub is: SlotIs,
    /// The operation to go to, which lies ahead.
    pub to: u16,
}

/// Reads a page's bytes and sends them, whether or not it is among those that are to be copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendPage {
    /// The frame.
    pub frame: Frame,
}

/// The VMM's own code, between two calls: goes to the call that it makes after such an answer ([`Code`](super::Code)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proceed {
    /// The index of the ways from here on.
    pub ways: u16,
}

/// The end: the destination must equal memory (after a post-copy switch-over: or know which pages it lacks).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finish {
    /// Pages that are still to be copied are fetched on demand.
    pub postcopy: bool,
}

/// An operation of a VMM's thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// KVM_ENABLE_CAP. `args0`: bytes for a ring, bits for manual protect.
    EnableCap(EnableCap),
    /// KVM_CREATE_VCPU, with the next id.
    CreateVcpu,
    /// KVM_SET_USER_MEMORY_REGION.
    SetMemoryRegion(SetMemoryRegion),
    /// KVM_GET_DIRTY_LOG.
    GetDirtyLog(GetDirtyLog),
    /// KVM_CLEAR_DIRTY_LOG.
    ClearDirtyLog(ClearDirtyLog),
    /// KVM_RESET_DIRTY_RINGS.
    ResetRings(ResetRings),
    /// KVM_PRE_FAULT_MEMORY, on a vCPU: maps its pages as a load of each would.
    PreFault(PreFault),
    /// A kernel writer without a vCPU writes each frame of a list, in order.
    KernelWrite(KernelWrite),
    /// Harvests rings.
    Harvest(Harvest),
    /// Moves the thread's own pages to those that are to be copied.
    Publish,
    /// Copies the pages that are to be copied, one by one, until none is left.
    Copy,
    /// Takes all of memory as to be copied, then copies.
    CopyAll,
    /// Copies those of a list's pages that are to be copied.
    CopyList(CopyList),
    /// Takes all of memory as to be copied.
    TakeAll,
    /// Signals every vCPU to leave KVM_RUN.
    Kick(Kick),
    /// Waits until every vCPU that was signalled has left KVM_RUN once.
    WaitKicked,
    /// Waits until every vCPU has left KVM_RUN.
    WaitStopped,
    /// Lets the vCPUs run.
    Resume,
    /// Waits until a vCPU has left with exit 31.
    WaitRingFull,
    /// Lets the vCPUs that left with exit 31 run again.
    AckRingFull,
    /// The VMM stores to a frame by itself.
    UserWrite(UserWrite),
    /// Takes the VMM's own log into the pages that are to be copied.
    CollectOwnLog,
    /// Empties the VMM's own log.
    ResetOwnLog,
    /// Starts a device, with its log.
    DeviceStart(u8),
    /// Lets a device begin no new transfer.
    DeviceStop(u8),
    /// Waits until a device has nothing in flight.
    DeviceDrain(u8),
    /// Takes a device's log.
    DeviceSync(DeviceSync),
    /// An attempt is given up: what was collected and not copied is forgotten.
    Forget,
    /// Waits until another thread's program has come to its end.
    JoinThread(u8),
    /// Takes a lock of user space, by number.
    Lock(u8),
    /// Gives it back.
    Unlock(u8),
    /// Signals those who wait for that number, or will.
    Signal(u8),
    /// Waits for that signal, and takes it away.
    WaitSignal(u8),
    /// The migration fails or is cancelled: what was sent counts for nothing.
    Cancel,
    /// A new, empty destination: everything is stale.
    NewDestination,
    /// The host ages a page, or takes its mapping away.
    HostAge(HostAge),
    /// The guest calls pages free, and the VMM takes them out of those that are to be copied.
    DropFree(DropFree),
    /// The VMM has done with the pages that the guest called free.
    EndFree(EndFree),
    /// Moves one slot's pages from the thread's own to those that are to be copied.
    PublishSlot(PublishSlot),
    /// Marks pages in the VMM's own log, without a store.
    MarkOwn(MarkOwn),
    /// Takes the pages that are always dirty into those that are to be copied.
    TakeAlways,
    /// What was sent counts for nothing, and what was collected goes back to the VMM's own log.
    PutBack,
    /// What was sent counts for nothing, and what was collected is dropped.
    Discard,
    /// Something that may fail: a file's sync.
    MayFail,
    /// Goes elsewhere in the program if the last answer was an error.
    OnError(OnError),
    /// Goes elsewhere in the program: back for a repetition, forward past what is for errors.
    Again(Again),
    /// Goes past what is for memslots of a kind, unless this one is of that kind.
    PassUnless(PassUnless),
    /// Waits until some vCPU is in KVM_RUN, as somebody does who expects the guest to run.
    WaitRunning,
    /// Reads a page's bytes and sends them, whether or not it is among those that are to be copied.
    SendPage(SendPage),
    /// The VMM's own code goes on by what it was answered.
    Proceed(Proceed),
    /// The VMM's own code looks at what its threads share.
    Yield,
    /// The VMM's own code panics.
    Panic,
    /// All is over, and nothing is claimed.
    Leave,
    /// A point at which the destination must equal memory, and after which the VM may run on.
    Checkpoint,
    /// The end: the destination must equal memory (after a post-copy switch-over: or know which pages it lacks).
    Finish(Finish),
}
