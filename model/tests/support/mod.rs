//! A VM of the model, driven one call at a time. Everything that these tests name of the model, they name here: its
//! paths, its operations, its fields.

pub(crate) use dirtysim_model::machine::{Arch, Kernel};
pub(crate) use dirtysim_model::op::{self, HarvestWay};
pub(crate) use dirtysim_model::state::layout::{Large, Layout, Small};
pub(crate) use dirtysim_model::state::pages::{Inline64, PageSet, Sparse};
pub(crate) use dirtysim_model::words::errno::Errno;
pub(crate) use dirtysim_model::words::mutation::Mutation;

use dirtysim_model::machine::{
    CAP_DIRTY_LOG_RING_ACQ_REL, CAP_DIRTY_LOG_RING_WITH_BITMAP, CAP_MANUAL_DIRTY_LOG_PROTECT2,
    DIRTY_GFN_BYTES, MEM_LOG_DIRTY_PAGES, Machine, SlotTemplate, VcpuConfig,
};
use dirtysim_model::op::{ClearMask, Into, KernelWriter, Op, Until};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Array;
use dirtysim_model::state::ring::RingEntry;
use dirtysim_model::state::vcpu::{Exit, NO_FRAME, Pc, UNLIMITED};
use dirtysim_model::transition::{
    Actor, Choice, Step, apply, describe, for_each_choice, for_each_step,
};
use dirtysim_model::words::{Frame, HostPage};

/// Where guest memory begins: no slot's gfns are its page numbers.
const FIRST_GFN: u64 = 0x100;

/// More steps than any call of these tests takes.
const MOST_STEPS: usize = 100_000;

/// The VM of a test.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) arch: Arch,
    pub(crate) kernel: Kernel,
    /// Entries of each ring and how many of them are in reserve; none: no ring.
    pub(crate) ring: Option<(u32, u32)>,
    /// The rings have bitmaps beside them.
    pub(crate) with_bitmap: bool,
    /// Bits of a bitmap word.
    pub(crate) word_bits: u32,
    /// Pages that one RESET batch can span.
    pub(crate) batch_pages: u32,
    /// Pages of each memslot; their ids count from 0.
    pub(crate) slots: Vec<u32>,
    pub(crate) vcpus: usize,
    pub(crate) mutation: Option<Mutation>,
}

impl Setup {
    /// Where a slot's frames and host pages begin: each slot from a whole word on.
    pub(crate) fn first_frame(&self, slot: usize) -> u32 {
        let padded = |pages: &u32| pages.div_ceil(self.word_bits) * self.word_bits;
        self.slots[..slot].iter().map(padded).sum()
    }
}

/// What a memory access of the guest is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    pub(crate) slot: usize,
    pub(crate) page: u32,
    pub(crate) load: bool,
}

/// How running a vCPU came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ran {
    /// It is in the guest, and its accesses have retired.
    InGuest,
    /// KVM_RUN returned with exit 31; an access that has not retired is tried again next time.
    RingFull,
    /// KVM_RUN returned because there is no memory; the access is given up.
    NoMemory,
}

/// A slot's next shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Region {
    /// It is there and logs.
    Logging,
    /// It is there and does not log.
    Quiet,
    /// It is not there.
    Gone,
}

/// One entry of a ring as user space sees it: its flags, slot number and offset.
pub(crate) type Entry = (u8, u32, u64);

/// A VM, its one VMM thread, and the steps that they take.
pub(crate) struct Vm<L: Layout> {
    machine: Machine,
    state: State<L>,
}

impl<L: Layout> Vm<L> {
    /// The VM with its capabilities on, its slots there and logging, its vCPUs made.
    pub(crate) fn new(setup: &Setup) -> Self {
        let mut machine = Machine::new(setup.arch, setup.kernel, false);
        machine.constants.word_bits = setup.word_bits;
        machine.constants.reset_batch_pages = setup.batch_pages;
        machine.constants.huge_pages = 1;
        if let Some((entries, reserved)) = setup.ring {
            machine.constants.ring_min_entries = entries;
            machine.constants.ring_reserved = reserved;
        }
        for (index, &npages) in setup.slots.iter().enumerate() {
            let frame = setup.first_frame(index);
            machine.slots.push(SlotTemplate {
                as_id: 0,
                id: index as u32,
                npages,
                frame: Frame(frame),
                host: HostPage(frame),
                hva: u64::from(frame) * machine.constants.page_bytes,
                places: vec![FIRST_GFN + u64::from(frame)],
                huge: false,
                name: format!("slot{index}"),
            });
        }
        let pages = |(slot, &npages): (usize, &u32)| {
            let first = setup.first_frame(slot);
            Frame(first).and_on(npages)
        };
        let frames: Vec<Frame> = setup.slots.iter().enumerate().flat_map(pages).collect();
        machine.vcpus = vec![
            VcpuConfig {
                stores: UNLIMITED,
                steal_frame: frames[0],
                own_stores: true,
                frames,
                ..VcpuConfig::default()
            };
            setup.vcpus
        ];
        machine.programs = vec![Vec::new()];
        if let Some(mutation) = setup.mutation {
            dirtysim_model::mutated::switch_on(&mut machine, mutation);
        }
        assert_eq!(State::<L>::fits(&machine), Ok(()), "the layout has room");
        assert!(
            setup
                .ring
                .is_none_or(|(entries, _)| entries as usize <= <L::Entries as Array<_>>::CAPACITY)
        );
        let state = State::new(&machine);
        let mut vm = Self { machine, state };
        if let Some((entries, _)) = setup.ring {
            let bytes = u64::from(entries) * u64::from(DIRTY_GFN_BYTES);
            vm.must(vm_cap(CAP_DIRTY_LOG_RING_ACQ_REL, bytes));
        }
        if setup.with_bitmap {
            vm.must(vm_cap(CAP_DIRTY_LOG_RING_WITH_BITMAP, 0));
        }
        for slot in 0..setup.slots.len() {
            assert_eq!(vm.region(slot, Region::Logging), Ok(0));
        }
        for _ in 0..setup.vcpus {
            vm.must(Op::CreateVcpu);
        }
        vm
    }

    fn must(&mut self, op: Op) {
        assert_eq!(self.call(op, None), Ok(0), "the set-up is legal");
    }

    /// Whether `actor` may take the step now.
    fn may(&self, actor: Actor, choice: Choice) -> bool {
        let mut may = false;
        for_each_choice(&self.machine, &self.state, actor, |found| {
            may |= found == choice;
        });
        may
    }

    fn take(&mut self, actor: Actor, choice: Choice) {
        assert!(self.may(actor, choice), "{actor:?} cannot {choice:?}");
        apply(&self.machine, &mut self.state, Step { actor, choice });
    }

    /// Runs an operation of the VMM's thread to its end; a signal comes at the `signal_at`-th place where it can.
    fn call(&mut self, op: Op, signal_at: Option<usize>) -> Result<u32, Errno> {
        const VMM: Actor = Actor::Thread(0);
        self.machine.programs[0].push(op);
        dirtysim_model::op::ahead::look_ahead(&mut self.machine);
        let end = self.machine.programs[0].len();
        let mut chances = 0;
        for _ in 0..MOST_STEPS {
            if usize::from(self.state.threads[0].op) == end {
                // The program is over, so that the next one begins anew.
                self.machine.programs[0].clear();
                self.state.threads[0].op = 0;
                return self.state.threads[0].answer;
            }
            if self.may(VMM, Choice::Signal) {
                if signal_at == Some(chances) {
                    chances += 1;
                    self.take(VMM, Choice::Signal);
                    continue;
                }
                chances += 1;
            }
            self.take(VMM, Choice::Advance);
        }
        panic!("{op:?} does not end");
    }

    fn actor(vcpu: usize) -> Actor {
        Actor::Vcpu(vcpu as u8)
    }

    /// Runs a vCPU: what it has not retired yet, then `access`; `record`: the kernel updates its record in guest memory on
    /// the way.
    pub(crate) fn run(&mut self, vcpu: usize, access: Option<Access>, record: bool) -> Ran {
        let actor = Self::actor(vcpu);
        let mut asked = access;
        let v = &mut self.state.vcpus[vcpu];
        v.steal = u8::from(record);
        v.loads = u8::from(access.is_some_and(|access| access.load));
        let mut inside = v.pc != Pc::User;
        if record && inside {
            v.resched = true;
            self.take(actor, Choice::Leave);
        }
        for _ in 0..MOST_STEPS {
            let v = &self.state.vcpus[vcpu];
            if v.pc == Pc::User && inside {
                return match v.exit {
                    Exit::DirtyRingFull => Ran::RingFull,
                    Exit::NoMemory => Ran::NoMemory,
                    exit => panic!("nobody asked for {exit:?}"),
                };
            }
            inside = true;
            if self.may(actor, Choice::Steal) {
                self.take(actor, Choice::Steal);
            } else if v.pc == Pc::Guest && v.frame == NO_FRAME {
                let Some(access) = asked.take() else {
                    return Ran::InGuest;
                };
                let frame = self.machine.slots[access.slot].frame + access.page;
                let choice = if access.load {
                    Choice::Load(frame)
                } else {
                    Choice::Store(frame)
                };
                // A load of what is mapped, or an access to no memslot, is no step of the model.
                if self.may(actor, choice) {
                    self.take(actor, choice);
                }
            } else {
                self.take(actor, Choice::Advance);
            }
        }
        panic!("vcpu {vcpu} does not come to rest");
    }

    /// KVM_SET_USER_MEMORY_REGION.
    pub(crate) fn region(&mut self, slot: usize, region: Region) -> Result<u32, Errno> {
        let template = &self.machine.slots[slot];
        let page = self.machine.constants.page_bytes;
        let op = Op::SetMemoryRegion(op::SetMemoryRegion {
            slot: slot as u32,
            flags: if region == Region::Logging {
                MEM_LOG_DIRTY_PAGES
            } else {
                0
            },
            gpa: template.places[0] * page,
            bytes: match region {
                Region::Gone => 0,
                _ => u64::from(template.npages) * page,
            },
            hva: template.hva,
            template: slot as u16,
        });
        self.call(op, None)
    }

    /// KVM_ENABLE_CAP for manual protect.
    pub(crate) fn manual(&mut self, bits: u64) -> Result<u32, Errno> {
        self.call(vm_cap(CAP_MANUAL_DIRTY_LOG_PROTECT2, bits), None)
    }

    /// KVM_GET_DIRTY_LOG: the answer, and the host pages that user space was told.
    pub(crate) fn get(&mut self, number: u32, bad_pointer: bool) -> (Result<u32, Errno>, Vec<u32>) {
        let op = Op::GetDirtyLog(op::GetDirtyLog {
            slot: number,
            into: Into::Hand,
            bad_pointer,
        });
        let answer = self.call(op, None);
        (answer, self.empty_hand())
    }

    /// KVM_CLEAR_DIRTY_LOG with the bits of `given`, frames in ascending order.
    pub(crate) fn clear(
        &mut self,
        number: u32,
        first_page: u64,
        num_pages: u32,
        given: Vec<u32>,
        bad_pointer: bool,
    ) -> Result<u32, Errno> {
        self.machine.frame_lists = vec![given.into_iter().map(Frame).collect()];
        let op = Op::ClearDirtyLog(op::ClearDirtyLog {
            slot: number,
            first_page,
            num_pages,
            mask: ClearMask::List(0),
            bad_pointer,
        });
        self.call(op, None)
    }

    /// KVM_RESET_DIRTY_RINGS.
    pub(crate) fn reset(&mut self, signal_at: Option<usize>) -> Result<u32, Errno> {
        let op = Op::ResetRings(op::ResetRings {
            signal: signal_at.is_some(),
        });
        self.call(op, signal_at)
    }

    /// A kernel writer without a vCPU changes a page and marks it.
    pub(crate) fn kernel_write(&mut self, slot: usize, page: u32) {
        self.machine.frame_lists = vec![vec![self.machine.slots[slot].frame + page]];
        let op = Op::KernelWrite(op::KernelWrite {
            writer: KernelWriter::Other,
            frames: 0,
            fails_after: u8::MAX,
        });
        self.must(op);
    }

    /// Harvests one ring: the slot numbers and offsets, in order, and the host pages that they were taken for.
    pub(crate) fn harvest(&mut self, vcpu: usize, max: u32) -> (Vec<(u32, u64)>, Vec<u32>) {
        let from = self.state.vcpus[vcpu].ring.fetch_index;
        // It answers nothing: the answer is that of the ioctl before.
        let _ = self.call(harvest(Some(vcpu as u8), max, HarvestWay::Right), None);
        let ring = &self.state.vcpus[vcpu].ring;
        let mut entries = Vec::new();
        let mut index = from;
        while index != ring.fetch_index {
            let entry = ring.entry(index);
            entries.push((entry.slot(), entry.offset().0));
            index = index.wrapping_add(1);
        }
        (entries, self.empty_hand())
    }

    fn empty_hand(&mut self) -> Vec<u32> {
        let pages = self.state.threads[0].hand.numbers().iter().collect();
        self.state.threads[0].hand.clear();
        pages
    }

    /// A ring's entries, by their place.
    pub(crate) fn entries(&self, vcpu: usize) -> Vec<Entry> {
        let ring = &self.state.vcpus[vcpu].ring;
        let entries = ring.entries.iter();
        entries
            .map(|entry| (entry.flags(), entry.slot(), entry.offset().0))
            .collect()
    }

    /// A ring's dirty index and reset index.
    pub(crate) fn indices(&self, vcpu: usize) -> (u32, u32) {
        let ring = &self.state.vcpus[vcpu].ring;
        (ring.dirty_index, ring.reset_index)
    }

    /// Frames whose bit is set, padding included.
    pub(crate) fn bits(&self) -> Vec<u32> {
        self.state.bitmap.numbers().iter().collect()
    }

    /// Frames with a leaf that lets stores through.
    pub(crate) fn writable(&self) -> Vec<u32> {
        self.state.writable.numbers().iter().collect()
    }

    /// Frames that some vCPU's TLB lets stores through to, though their leaf does not.
    pub(crate) fn stale_tlbs(&self) -> Vec<u32> {
        let vcpus = self.state.vcpus.iter();
        vcpus
            .flat_map(|vcpu| vcpu.tlb.iter())
            .filter(|frame| !self.state.writable.contains(*frame))
            .map(|frame| frame.0)
            .collect()
    }

    /// From here on the VMM's thread harvests all rings and resets them, for ever.
    pub(crate) fn harvest_and_reset_for_ever(&mut self, way: HarvestWay) {
        self.for_ever(vec![
            harvest(None, u32::MAX, way),
            Op::ResetRings(op::ResetRings { signal: true }),
        ]);
    }

    /// From here on the VMM's thread fetches a slot's log, for ever.
    pub(crate) fn get_for_ever(&mut self) {
        self.for_ever(vec![Op::GetDirtyLog(op::GetDirtyLog {
            slot: 0,
            into: Into::Hand,
            bad_pointer: false,
        })]);
    }

    fn for_ever(&mut self, mut program: Vec<Op>) {
        program.push(Op::Again(op::Again {
            to: 0,
            until: Until::Never,
        }));
        self.machine.programs[0] = program;
        dirtysim_model::op::ahead::look_ahead(&mut self.machine);
    }

    /// Takes one of the steps that are possible, by number, and tells who took it and what it was. Where `vcpus` is false
    /// the VMM's thread alone acts, unless it waits.
    pub(crate) fn any_step(&mut self, number: usize, vcpus: bool) -> (Who, &'static str) {
        let mut steps = Vec::new();
        for_each_step(&self.machine, &self.state, |step| steps.push(step));
        let waits = steps.iter().all(|step| step.actor != Actor::Thread(0));
        steps.retain(|step| vcpus || waits || step.actor == Actor::Thread(0));
        let step = steps[number % steps.len()];
        let word = describe(&self.machine, &self.state, step);
        apply(&self.machine, &mut self.state, step);
        let who = match step.actor {
            Actor::Vcpu(vcpu) => Who::Vcpu(usize::from(vcpu)),
            _ => Who::Vmm,
        };
        (who, word.name())
    }

    /// What the VMM's thread has in its hands since it was last asked.
    pub(crate) fn collected(&mut self) -> Vec<u32> {
        self.empty_hand()
    }
}

/// Who took a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    Vcpu(usize),
    Vmm,
}

fn vm_cap(cap: u32, args0: u64) -> Op {
    Op::EnableCap(op::EnableCap {
        cap,
        flags: 0,
        args0,
    })
}

fn harvest(vcpu: Option<u8>, max: u32, way: HarvestWay) -> Op {
    Op::Harvest(op::Harvest {
        vcpu,
        max,
        way,
        into: Into::Hand,
    })
}
