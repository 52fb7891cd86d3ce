//! Which sections of a packed state an actor's next step reads and writes.
//!
//! A packed state has a VM-wide section (memslots, leaves, bitmaps, what is stale, locks, devices), one for each vCPU
//! and one for each thread: see [`super::pack`]. Most steps need two or three of them, and a search that knows which can
//! answer "what does this actor do next?" from those alone, once for all the states that have them in common.
//!
//! An actor may read and write its own section, and write the VM-wide one; of that it reads the fields that its row names
//! ([`crate::words::Row`]), or for vCPUs and devices the functions here. What it writes of others is a bit set or a bit cleared,
//! whatever the bit was before. What a vCPU or a device depends on besides is nothing, with one exception: a vCPU outside KVM_RUN that
//! will never enter again is packed without what only running could use, and whether it will depends on what lies ahead of the
//! threads ([`resume_ahead`]). What a thread depends on besides is its row's [`Reach`].
//!
//! A step that a mutation may change ([`mutated::may_change`]) may read or write anything, as far as a memo asks. What the rules for local
//! steps count on is in [`crate::mutated::declared`].

use crate::machine::{Machine, Op};
use crate::mutated;
use crate::mutated::declared::writes_besides as declared_besides;
use crate::state::State;
use crate::state::fields::{Look, Number, Size, look_thread, look_vcpu, look_vm};
use crate::state::layout::Layout;
use crate::state::pages::{PageSet, SetOf};
use crate::state::ring::{Ring, RingEntry};
use crate::state::vcpu::Pc;
use crate::state::{Batch, vcpu};
use crate::vcpu::fault;
use crate::words::fault::FaultStage;
use crate::words::{Actor, Choice, Fields, Frame, Offset, Page, Reach, Row, Step, Written};

/// The VM-wide fields that a vCPU's choices and steps read, the leaves apart: [`frames_of_vcpu`] tells whose. What they
/// write besides: a page becomes stale, its bit is set.
#[must_use]
pub fn reads_of_vcpu(pc: Pc) -> Fields {
    match pc {
        Pc::Fault => Fields::COMMON | Fields::MMU_LOCK,
        // Outside, or about to be: see `resume_ahead`.
        Pc::User | Pc::Exit => Fields::COMMON | Fields::GUEST_RUNS,
        Pc::Entry
        | Pc::StealMark
        | Pc::Guest
        | Pc::Flush
        | Pc::FlushOnly
        | Pc::ExitMark
        | Pc::PreFault => Fields::COMMON,
    }
}

/// Those that a device's read. What they write besides: a page becomes stale, the VMM's log has it.
#[must_use]
pub fn reads_of_device() -> Fields {
    Fields::COMMON | Fields::DEVICES
}

/// What a vCPU's step may write: what it does with its own at every step, and what stores, faults and marks write besides.
#[inline]
fn writes_of_vcpu<L: Layout>(machine: &Machine, v: &vcpu::Vcpu<L>, choice: Choice) -> Fields {
    let own = Fields::CONTROL | Fields::ACCESS | Fields::REQUEST | Fields::RESCHED;
    let marks = Fields::RING | Fields::BITMAP;
    own | match v.pc {
        Pc::Entry | Pc::Exit if choice == Choice::Steal => Fields::STALE,
        Pc::User | Pc::Entry | Pc::Exit => Fields::NONE,
        // Preempted within a push.
        _ if choice == Choice::Steal => marks | Fields::STALE,
        Pc::Guest if choice == Choice::Leave => Fields::NONE,
        Pc::Guest => Fields::TLB | Fields::LEAVES | Fields::STALE,
        Pc::Fault => match fault::stage(machine, v) {
            FaultStage::Resolve => Fields::NONE,
            FaultStage::Lock | FaultStage::Unlock => Fields::MMU_LOCK,
            FaultStage::Map | FaultStage::FastMap => Fields::LEAVES,
            FaultStage::Mark => marks,
            FaultStage::SplitStore => Fields::ALL,
        },
        Pc::StealMark | Pc::ExitMark | Pc::Flush | Pc::FlushOnly => marks,
        Pc::PreFault => Fields::ALL,
    }
}

/// What a device's steps may write.
#[must_use]
pub fn writes_of_device() -> Fields {
    Fields::STALE | Fields::DEVICES | Fields::OWN_LOG
}

/// What `step`, possible in `state`, may write; of one that a mutation may change, anything.
#[must_use]
#[inline]
pub fn writes<L: Layout>(machine: &Machine, state: &State<L>, step: Step) -> Written {
    if !machine.mutations.is_empty() && mutated::may_change(machine, state, step.actor) {
        return Written {
            fields: Fields::ALL,
            vcpus: u32::MAX,
        };
    }
    match step.actor {
        Actor::Vcpu(vcpu) => Written {
            fields: writes_of_vcpu(machine, &state.vcpus[usize::from(vcpu)], step.choice),
            vcpus: 1 << vcpu,
        },
        Actor::Device(_) => Written {
            fields: writes_of_device(),
            vcpus: 0,
        },
        Actor::Thread(thread) => {
            let index = usize::from(thread);
            let t = &state.threads[index];
            let Some(op) = state.current_op(machine, index) else {
                return Written {
                    fields: Fields::OWN,
                    vcpus: 0,
                };
            };
            let row = op.row(machine, t.stage);
            Written {
                fields: row.writes | Fields::OWN,
                vcpus: match row.vcpus {
                    Reach::Own | Reach::Control => 0,
                    Reach::IndexedVcpu | Reach::IndexedOnControl => 1 << t.index.min(31),
                    Reach::EachVcpu | Reach::Gate | Reach::Everything => u32::MAX,
                },
            }
        }
    }
}

/// Those that a thread's read, at a stage of its operation.
#[must_use]
pub fn reads_of_thread(machine: &Machine, op: Option<&Op>, stage: u8) -> Fields {
    op.map_or(Row::ALWAYS, |op| Row::ALWAYS | op.row(machine, stage).reads)
}

/// What the next step of a thread reads or writes of the vCPUs, at a stage of its operation.
#[must_use]
pub fn reach(machine: &Machine, op: Option<&Op>, stage: u8) -> Reach {
    match op {
        Some(op) if mutated::may_change_op(machine, op) => Reach::Everything,
        Some(op) => op.row(machine, stage).vcpus,
        None => Reach::Own,
    }
}

/// What tells which leaves a vCPU's next step reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VcpuPlace {
    /// Where its thread is.
    pub pc: Pc,
    /// The frame of the access that has not retired, if there is one.
    pub frame: Option<Frame>,
    /// Whether it may begin another access.
    pub has_budget: bool,
    /// The frames in its TLB, one bit each.
    pub tlb: u64,
}

/// The frames whose leaves a vCPU's choices and steps, and the claims about its TLB, read: one bit each.
#[must_use]
#[inline]
pub fn frames_of_vcpu(has_huge: bool, place: VcpuPlace) -> u64 {
    let may_begin = place.pc == Pc::Guest && place.frame.is_none() && place.has_budget;
    if has_huge || may_begin {
        return u64::MAX;
    }
    place.frame.map_or(0, |frame| 1 << (frame.0 % 64)) | place.tlb
}

/// Whether the guest may be let run again, with the threads at `ops`.
#[must_use]
pub fn resume_ahead(machine: &Machine, ops: impl IntoIterator<Item = usize>) -> bool {
    ops.into_iter()
        .enumerate()
        .any(|(thread, op)| machine.ahead(thread, op).resume)
}

/// The kinds of fields that the step from `before` to `after` wrote and that are not declared, or that are of vCPUs which it is said not to
/// reach. To be asked where assertions are on.
#[must_use]
pub fn undeclared<L: Layout>(
    machine: &Machine,
    before: &State<L>,
    step: Step,
    after: &State<L>,
) -> Fields {
    let mut declared = writes(machine, before, step);
    if let Actor::Thread(thread) = step.actor
        && let Some(op) = before.current_op(machine, usize::from(thread))
        && mutated::may_change_op(machine, op)
    {
        // Its stages may be others; what all of them write is what rules count on.
        declared.fields = op.touches(machine).1 | declared_besides(machine) | Fields::OWN;
    }
    written(machine, before, after, declared.vcpus).without(declared.fields)
}

/// The kinds of fields in which two states differ; all of them where a vCPU differs that is not among `vcpus`.
fn written<L: Layout>(
    machine: &Machine,
    before: &State<L>,
    after: &State<L>,
    vcpus: u32,
) -> Fields {
    let mut all = Fields::NONE;
    let pml = machine.constants.pml_entries;
    let differ = |a: Values, b: Values| {
        if a.0.len() != b.0.len() {
            return Fields::ALL;
        }
        let pairs = a.0.into_iter().zip(b.0);
        pairs.fold(
            Fields::NONE,
            |kinds, ((kind, a), (_, b))| {
                if a == b { kinds } else { kinds | kind }
            },
        )
    };
    let vm = |state| {
        let mut values = Values::default();
        look_vm(state, &mut values);
        values
    };
    all = all | differ(vm(before), vm(after));
    for (vcpu, (a, b)) in before.vcpus.iter().zip(after.vcpus.iter()).enumerate() {
        if vcpus >> vcpu.min(31) & 1 == 0 && a != b {
            return Fields::ALL;
        }
        let of = |v: &vcpu::Vcpu<L>| {
            let mut values = Values::default();
            look_vcpu(v, pml, &mut values);
            values
        };
        all = all | differ(of(a), of(b));
    }
    for (a, b) in before.threads.iter().zip(after.threads.iter()) {
        let of = |t| {
            let mut values = Values::default();
            look_thread(t, &mut values);
            values
        };
        all = all | differ(of(a), of(b));
    }
    all
}

/// The value of every field, with its kind.
#[derive(Default)]
struct Values(alloc::vec::Vec<(Fields, u64)>);

impl<L: Layout> Look<L> for Values {
    fn bits(&mut self, kind: Fields, _: Size, value: u64) {
        self.0.push((kind, value));
    }
    fn pages<P: Page>(&mut self, kind: Fields, _: Size, pages: &SetOf<P, L::Set>) {
        self.0.push((kind, pages.numbers().word(0, 64)));
    }
    fn frame(&mut self, kind: Fields, frame: &Frame) {
        self.0.push((kind, u64::from(frame.0)));
    }
    fn indices(&mut self, ring: &Ring<L>) {
        self.0
            .push((Fields::DIRTY_INDEX, ring.dirty_index.to_bits()));
        self.0
            .push((Fields::RESET_INDEX, ring.reset_index.to_bits()));
        self.0
            .push((Fields::FETCH_INDEX, ring.fetch_index.to_bits()));
        // By their places: the walk goes from RESET's index on.
        for entry in ring.entries.iter() {
            let payload = entry.offset().0 << 40 | u64::from(entry.slot()) << 8;
            self.0
                .push((Fields::ENTRIES, payload | u64::from(entry.flags())));
        }
    }
    fn entry(&mut self, _: &L::Entry, _: Option<u8>) {}
    fn buffer(&mut self, pml: &L::Pml, capacity: u32) {
        for place in 0..capacity.min(64) as usize {
            let frame = pml.get(place).map_or(0, |frame| u64::from(frame.0) + 1);
            self.0.push((Fields::ACCESS, frame));
        }
    }
    fn page(&mut self, slot: &u32, offset: &Offset, _: bool) {
        self.0.push((Fields::PLACE, u64::from(*slot)));
        self.0.push((Fields::PLACE, offset.0));
    }
    fn batch(&mut self, batch: &Batch) {
        self.0.push((Fields::BATCH, u64::from(batch.slot)));
        self.0.push((Fields::BATCH, batch.offset.0));
        self.0.push((Fields::BATCH, batch.mask));
    }
}
