//! Why a call that was recorded cannot be performed again: it names what is not there, or is larger than replay takes.

use std::fmt;

use crate::trace::RunError;

/// The causes, a variant each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallProblem {
    /// A call without the VM that it is made on, by its name.
    NoVm(&'static str),
    /// A VM of that number was not created.
    UnknownVm(u32),
    /// A VM of that number is there already.
    VmExists(u32),
    /// More VMs at a time than that.
    TooManyVms(usize),
    /// A vCPU of that id was not created.
    UnknownVcpu(u32),
    /// The vCPU of that id has no ring.
    NoRing(u32),
    /// More vCPUs than that.
    TooManyVcpus(usize),
    /// So many ring entries in all VMs together.
    RingEntries(u64),
    /// More pages in a VM than that.
    TooManyPages(u64),
    /// So many pages in one row.
    PagesInRow(u64),
    /// More host memories in a VM than that.
    TooManyMemories(usize),
    /// A byte past what a memory can have.
    MemOffset(u64),
    /// A page past the room of a memory.
    MemoryPage {
        /// The page.
        page: u64,
        /// The memory's name.
        memory: String,
        /// The pages for which there is room.
        room: u64,
    },
    /// A page that a slot has not, or of a slot that is not there.
    SlotPage {
        /// The combined slot number.
        slot: u32,
        /// The page.
        page: u64,
    },
    /// A page past a slot's end.
    PastSlot {
        /// The page.
        page: u64,
        /// The combined slot number.
        slot: u32,
        /// The slot's pages.
        npages: u64,
    },
    /// A slot of so many pages has no length in bytes.
    Npages(u64),
    /// A buffer that is shorter than what the call reads.
    Words {
        /// Words that are read.
        needed: u64,
        /// The buffer's words.
        given: u64,
    },
    /// A byte that a mapping has not.
    TouchByte {
        /// The byte.
        byte: u64,
        /// The mapping's bytes.
        bytes: u64,
    },
    /// Commands at a byte of the queue where none can be.
    QueueOffset(u64),
    /// A program of so many accesses.
    Accesses(u64),
    /// A string instruction that this architecture's KVM does not emulate.
    Copies,
    /// An access that begins at no byte of its page.
    At(u32),
    /// The vCPU of that id is in another program.
    CannotResume(u32),
    /// The model's vCPU does not come to rest.
    NoFurther,
    /// Runs of pages, words or entries that cannot be.
    Runs(RunError),
}

impl fmt::Display for CallProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVm(call) => write!(f, "`{call}` without a `vm`"),
            Self::UnknownVm(number) => write!(f, "there is no VM {number}"),
            Self::VmExists(number) => write!(f, "there is a VM {number} already"),
            Self::TooManyVms(most) => write!(f, "more than {most} VMs at a time"),
            Self::UnknownVcpu(id) => write!(f, "there is no vCPU {id}"),
            Self::NoRing(id) => write!(f, "vCPU {id} has no ring"),
            Self::TooManyVcpus(most) => write!(f, "more than {most} vCPUs"),
            Self::RingEntries(entries) => write!(f, "rings of {entries} entries in all"),
            Self::TooManyPages(most) => write!(f, "the VM has more than {most} pages"),
            Self::PagesInRow(pages) => write!(f, "{pages} pages in one row"),
            Self::TooManyMemories(most) => {
                write!(f, "more than {most} host memories in a VM")
            }
            Self::MemOffset(offset) => write!(f, "`mem_offset` is {offset}"),
            Self::MemoryPage { page, memory, room } => write!(
                f,
                "page {page} of memory `{memory}`, which has room for {room} pages"
            ),
            Self::SlotPage { slot, page } => write!(f, "slot {slot} has no page {page}"),
            Self::PastSlot { page, slot, npages } => {
                write!(f, "page {page} of slot {slot}, which has {npages} pages")
            }
            Self::Npages(npages) => write!(f, "`npages` is {npages}"),
            Self::Words { needed, given } => write!(
                f,
                "the call reads {needed} words, but `words_given` is {given}"
            ),
            Self::TouchByte { byte, bytes } => {
                write!(f, "`touch_byte` is {byte}, in a mapping of {bytes} bytes")
            }
            Self::QueueOffset(offset) => {
                write!(f, "commands at byte {offset} of the queue")
            }
            Self::Copies => f.write_str("a guest that copies from where no memory is"),
            Self::At(at) => write!(f, "accesses at byte {at} of their pages"),
            Self::Accesses(accesses) => write!(f, "a program of {accesses} accesses"),
            Self::CannotResume(id) => write!(f, "vCPU {id} cannot resume this program"),
            Self::NoFurther => f.write_str("the model's vCPU gets no further"),
            Self::Runs(error) => error.fmt(f),
        }
    }
}
