//! Code as a state machine without I/O: it is told what its last call was answered, and says which comes next.

use std::hash::Hash;

use crate::errno::Result;
use crate::machine::Page;
use crate::region::UserspaceMemoryRegion;
use crate::vm::Vm;

/// What a [`StateMachine`] asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ask {
    /// [`Vm::set_user_memory_region`].
    SetUserMemoryRegion(UserspaceMemoryRegion),
    /// [`Vm::get_dirty_log`] of a whole memslot.
    GetDirtyLog(u32),
    /// [`Vm::clear_dirty_log`] of a range of a memslot.
    ClearDirtyLog {
        /// The memslot.
        slot: u32,
        /// The page of the lowest bit.
        first_page: u64,
        /// Pages of the range.
        num_pages: u32,
        /// The bits.
        bitmap: Vec<u64>,
    },
    /// [`Vm::reset_dirty_rings`].
    ResetDirtyRings,
    /// The next dirty entry of a vCPU's ring.
    NextDirtyGfn(u8),
    /// [`Vm::send_page`].
    SendPage(Page),
    /// [`Vm::pause_vcpus`].
    PauseVcpus,
    /// [`Vm::resume_vcpus`].
    ResumeVcpus,
    /// [`Vm::assert_copy_is_whole`].
    AssertCopyIsWhole,
    /// Nothing any more.
    End,
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Told {
    /// It begins.
    Begin,
    /// What was asked for is done, or was refused.
    Done(Result<()>),
    /// The memslot's bitmap.
    DirtyLog(Result<Vec<u64>>),
    /// How many entries were taken back.
    Reset(Result<i32>),
    /// The entry's page; none: no entry is dirty.
    DirtyGfn(Option<Page>),
}

/// Code that collects dirty pages as a state machine. Its state is told apart by its hash, so that two ways to one state are one: with
/// [`Vm::drive`] a search has as many places in it as the machine has states, and not as many as there are histories of answers.
///
/// ```
/// use dirtysim_kvm::{Arch, Ask, Machine, Page, StateMachine, Told, check};
///
/// /// Sends all, then what is dirty with the guest stopped.
/// #[derive(Hash)]
/// enum Migration {
///     Log,
///     SendAll(u64),
///     Pause,
///     Get,
///     Send(u64),
///     End,
/// }
///
/// impl StateMachine for Migration {
///     fn step(&mut self, told: Told) -> Ask {
///         if let Told::DirtyLog(bitmap) = told {
///             *self = Migration::Send(bitmap.unwrap()[0]);
///         }
///         let region = dirtysim_kvm::UserspaceMemoryRegion {
///             guest_phys_addr: 0,
///             memory_size: 2 * 4096,
///             userspace_addr: 1 << 32,
///             ..Default::default()
///         };
///         let (next, ask) = match *self {
///             Migration::Log => (
///                 Migration::SendAll(0),
///                 Ask::SetUserMemoryRegion(region.log_dirty_pages()),
///             ),
///             Migration::SendAll(2) => (Migration::Pause, Ask::PauseVcpus),
///             Migration::SendAll(page) => (
///                 Migration::SendAll(page + 1),
///                 Ask::SendPage(Page::new(0, page)),
///             ),
///             Migration::Pause => (Migration::Get, Ask::GetDirtyLog(0)),
///             Migration::Send(0) => (Migration::End, Ask::AssertCopyIsWhole),
///             Migration::Send(bits) => (
///                 Migration::Send(bits & (bits - 1)),
///                 Ask::SendPage(Page::new(0, bits.trailing_zeros().into())),
///             ),
///             Migration::Get | Migration::End => (Migration::End, Ask::End),
///         };
///         *self = next;
///         ask
///     }
/// }
///
/// check(Machine::new(Arch::X86).slot(0, 2).stores(2), |vm| {
///     vm.drive(&mut Migration::Log);
/// });
/// ```
pub trait StateMachine {
    /// What comes after this answer.
    fn step(&mut self, told: Told) -> Ask;
}

impl Vm {
    /// Goes on with a state machine until it ends: each [`Ask`] is a call of this, each answer what it is [`Told`] next.
    #[track_caller]
    pub fn drive<S: StateMachine + Hash>(&self, machine: &mut S) {
        let place = self.site();
        let mut told = Told::Begin;
        loop {
            let is_answer = matches!(told, Told::DirtyLog(_) | Told::Reset(_) | Told::DirtyGfn(_));
            let ask = machine.step(told);
            if is_answer && ask != Ask::End {
                // The answer is used up: what is left of it is in the state, and in what is asked.
                self.depends_only_on_at(&(&*machine, format!("{ask:?}")), place);
            }
            told = match ask {
                Ask::SetUserMemoryRegion(region) => Told::Done(self.set_user_memory_region(region)),
                Ask::GetDirtyLog(slot) => {
                    let bytes = self.memory_region(slot).memory_size as usize;
                    Told::DirtyLog(self.get_dirty_log(slot, bytes))
                }
                Ask::ClearDirtyLog {
                    slot,
                    first_page,
                    num_pages,
                    bitmap,
                } => Told::Done(self.clear_dirty_log(slot, first_page, num_pages, &bitmap)),
                Ask::ResetDirtyRings => Told::Reset(self.reset_dirty_rings()),
                Ask::NextDirtyGfn(vcpu) => {
                    let ring = self.vcpu(vcpu).dirty_log_ring_iter();
                    Told::DirtyGfn(ring.and_then(|mut ring| ring.next()).map(Page::from))
                }
                Ask::SendPage(page) => {
                    self.send_page(page.slot, page.offset);
                    Told::Done(Ok(()))
                }
                Ask::PauseVcpus => {
                    self.pause_vcpus();
                    Told::Done(Ok(()))
                }
                Ask::ResumeVcpus => {
                    self.resume_vcpus();
                    Told::Done(Ok(()))
                }
                Ask::AssertCopyIsWhole => {
                    self.assert_copy_is_whole();
                    Told::Done(Ok(()))
                }
                Ask::End => return,
            };
        }
    }
}
