//! One machine's run: its state, what it was asked to give, and the steps that it took.

use std::collections::{BTreeSet, HashMap, VecDeque};

use dirtysim_model::machine::{EXIT_DIRTY_RING_FULL, Machine};
use dirtysim_model::op::Op;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Large;
use dirtysim_model::state::pages::{Frames, Sparse};
use dirtysim_model::state::ring::{F_DIRTY, Ring, RingEntry};
use dirtysim_model::state::thread::{Answer, Thread};
use dirtysim_model::state::vcpu::{UNLIMITED, Vcpu};
use dirtysim_model::transition::{Actor, Choice, Step, apply, describe, for_each_choice};
use dirtysim_model::words::Frame;

use super::entry_order::checks_first;
use super::stuck::{AtRing, Stuck};
use super::{Ended, Tried, ends_in_sight, next_dirty_index, next_push};
use crate::alone::finish_op;
use crate::trace::observed::{KvmIoctl, Observed, ObservedEvent, Phase};

/// Threads of the VMM: one makes ioctls, the other harvests.
pub(super) const THREADS: usize = 2;
/// The thread that makes ioctls.
pub(super) const IOCTLS: usize = 0;
/// The thread that harvests.
pub(super) const HARVESTER: usize = 1;

/// A slot number that no memslot has: of entries that were pushed before the log began.
const NO_SLOT: u32 = u32::MAX;

/// The slot of pages of which only QEMU tells: its events name none.
pub(super) const UNSEEN_SLOT: u32 = 0;

/// Which events a log has at all: what it lacks may have happened unseen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recorded {
    /// The kernel's pushes. Without them a ring is named by QEMU's index, and every page is of one slot.
    pub(super) pushes: bool,
    pub(super) resets: bool,
    pub(super) ring_exits: bool,
    pub(super) userspace_exits: bool,
}

/// A ring as the log knows it, beside the model's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// Its indices were set from its first event.
    pub(super) begun: bool,
    /// A push was made whose event is still to come.
    pub(super) owes_event: bool,
    /// No exit of its vCPU was seen yet: it may have been on its way out when knowledge began.
    pub(super) leaves_from_before: bool,
    /// The log names what was harvested from it.
    pub(super) harvest_named: bool,
}

/// Pages whose last push was taken to be of a store of the guest's, and could as well have been of one of KVM's own, which
/// leaves the page armed.
#[derive(Debug, Default)]
pub(super) struct CouldBeKvms {
    /// They had no leaf.
    pub(super) absent: Frames<Sparse>,
    /// They had one that was not writable.
    pub(super) present: Frames<Sparse>,
    /// They had one whose D bit was clear, and PML logged the store.
    pub(super) logged: Frames<Sparse>,
}

impl CouldBeKvms {
    pub(super) fn remove(&mut self, frame: Frame) {
        self.absent.remove(frame);
        self.present.remove(frame);
        self.logged.remove(frame);
    }
}

/// A run on one machine.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) machine: Machine,
    pub(super) state: State<Large>,
    /// The request check comes before KVM's own stores on the way into the guest.
    pub(super) checks_first: bool,
    /// The vCPU behind a ring's name.
    vcpu_of_ring: HashMap<u32, usize>,
    /// The names of the rings, by vCPU.
    pub(super) names: Vec<u32>,
    pub(super) known: Vec<Known>,
    pub(super) recorded: Recorded,
    /// The vCPU that a thread runs; none for a thread that runs several.
    vcpu_of_tid: HashMap<u32, Option<usize>>,
    /// KVM's vCPU id behind QEMU's index.
    ring_of_index: HashMap<u32, u32>,
    /// Pages that the guest was taken to have stored to, where KVM could have.
    pub(super) could_be_kvms: CouldBeKvms,
    /// The ring with which RESET has done, and whose event is still to come.
    pub(super) reset_owes_event: Option<usize>,
    /// No RESET has ended since the last ring became known: one may have been running before.
    pub(super) reset_from_before: bool,
    /// What the last RESET answered, where all of it is known.
    pub(super) last_reset: Option<Answer>,
    pub(super) tried: Tried,
}

impl Run {
    pub(super) fn new(
        machine: Machine,
        state: State<Large>,
        rings: &BTreeSet<u32>,
        recorded: Recorded,
        words: String,
    ) -> Self {
        Self {
            checks_first: checks_first(&machine),
            machine,
            state,
            vcpu_of_ring: rings.iter().copied().zip(0..).collect(),
            names: rings.iter().copied().collect(),
            known: vec![Known::default(); rings.len()],
            recorded,
            vcpu_of_tid: HashMap::new(),
            ring_of_index: HashMap::new(),
            could_be_kvms: CouldBeKvms::default(),
            reset_owes_event: None,
            reset_from_before: true,
            last_reset: None,
            tried: Tried::new(words),
        }
    }

    /// The set-up is over: its steps do not count.
    pub(super) fn set_up(&mut self) {
        self.tried.steps = 0;
    }

    /// Whether it came to its end before the log.
    pub(super) fn is_over(&self) -> bool {
        self.tried.ended.is_some()
    }

    /// Steps taken.
    pub(super) fn steps(&self) -> u64 {
        self.tried.steps
    }

    pub(super) fn into_tried(self) -> Tried {
        self.tried
    }

    /// Gives the next event, if it can; `ahead` are those that follow. Answers whether the event says anything of a run.
    pub(super) fn event(&mut self, event: &ObservedEvent, ahead: &VecDeque<ObservedEvent>) -> bool {
        match self.give(event, ahead) {
            Ok(said) => {
                self.tried.given += u64::from(said);
                said
            }
            Err(stuck) => {
                self.tried.ended = Some(Ended {
                    line: Some(event.line),
                    why: stuck.to_string(),
                });
                true
            }
        }
    }

    fn give(
        &mut self,
        event: &ObservedEvent,
        ahead: &VecDeque<ObservedEvent>,
    ) -> Result<bool, Stuck> {
        match &event.what {
            Observed::Gap { .. } => {
                self.begin_anew();
                return Ok(false);
            }
            Observed::RingPush {
                ring,
                dirty_index,
                reset_index,
                slot,
                offset,
                ..
            } => {
                let vcpu = self.vcpu_of_ring[ring];
                self.thread_runs(event.tid, vcpu);
                if (*dirty_index, *reset_index) == (1, 0) && self.known[vcpu].begun {
                    // The vCPU was made anew, unless this is its first push indeed.
                    if self.state.vcpus[vcpu].ring.dirty_index > 1 {
                        self.settle(vcpu)?;
                        self.known[vcpu].begun = false;
                    }
                }
                self.begin(vcpu, dirty_index.wrapping_sub(1), *reset_index)?;
                self.push_event(vcpu, (*dirty_index, *reset_index), (*slot, *offset), ahead)?;
            }
            Observed::RingReset {
                ring,
                dirty_index,
                reset_index,
                ..
            } => {
                let vcpu = self.vcpu_of_ring[ring];
                let next = next_dirty_index(ahead, *ring);
                // Its push may have been seen already, and be told only then.
                let before = dirty_index.wrapping_sub(u32::from(next == Some(*dirty_index)));
                let whole = dirty_index == reset_index;
                self.begin(vcpu, before, if whole { before } else { *reset_index })?;
                let unseen = dirty_index.wrapping_sub(self.dirty_index(vcpu)) == 1
                    && !self.known[vcpu].owes_event;
                // RESET may have taken the entry whose push is still to be told; else the push is the later the better.
                if unseen && reset_index == dirty_index {
                    self.push_early(vcpu, ahead)?;
                }
                self.reset_ends(vcpu, *reset_index)?;
                if unseen && reset_index != dirty_index {
                    self.push_early(vcpu, ahead)?;
                }
                self.reset_event(vcpu, (*dirty_index, *reset_index))?;
            }
            Observed::RingExit { vcpu: ring } => {
                let Some(vcpu) = self.begun(*ring) else {
                    return Ok(false);
                };
                self.thread_runs(event.tid, vcpu);
                self.soft_full_exit(vcpu)?;
            }
            Observed::UserspaceExit { reason, .. } => {
                let vcpu = event
                    .tid
                    .and_then(|tid| self.vcpu_of_tid.get(&tid).copied());
                let Some(vcpu) = vcpu.flatten().filter(|&vcpu| self.known[vcpu].begun) else {
                    return Ok(false);
                };
                self.return_to_user(vcpu, *reason == Some(EXIT_DIRTY_RING_FULL), ahead)?;
            }
            Observed::QemuCreateVcpu { cpu_index, vcpu } => {
                self.ring_of_index.insert(*cpu_index, *vcpu);
                return Ok(false);
            }
            Observed::QemuPage {
                cpu_index,
                fetch,
                offset,
            } => {
                if !self.recorded.pushes {
                    return self.harvest_of_the_unseen(*cpu_index, *fetch, *offset);
                }
                let ring = self.ring_of_index.get(cpu_index).copied();
                let Some(vcpu) = ring.and_then(|ring| self.begun(ring)) else {
                    return Ok(false);
                };
                if *fetch == self.dirty_index(vcpu) && !self.known[vcpu].owes_event {
                    self.push_early(vcpu, ahead)?;
                }
                self.harvest_event(vcpu, *fetch, *offset, ahead)?;
            }
            Observed::QemuReap { count } => return self.reap_event(*count),
            Observed::ProbeIoctl {
                phase: Phase::Return,
                ioctl,
                slot,
                first_page,
                num_pages,
                ret: Some(ret),
            } => match (ioctl, slot) {
                (KvmIoctl::ResetDirtyRings, _) => return self.reset_returned(*ret),
                (KvmIoctl::GetDirtyLog, Some(slot)) => {
                    return self.get_returned(*slot, *ret);
                }
                (KvmIoctl::ClearDirtyLog, Some(slot)) => {
                    let range = (first_page.unwrap_or(0), num_pages.unwrap_or(0));
                    return self.clear_returned(*slot, range, *ret);
                }
                _ => return Ok(false),
            },
            Observed::QemuSetMemory { slot, ret: 0, .. } => {
                self.drop_mappings(*slot);
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn thread_runs(&mut self, tid: Option<u32>, vcpu: usize) {
        let Some(tid) = tid else { return };
        self.vcpu_of_tid
            .entry(tid)
            .and_modify(|known| {
                if *known != Some(vcpu) {
                    *known = None;
                }
            })
            .or_insert(Some(vcpu));
    }

    /// Whether a thread runs that vCPU and no other.
    pub(super) fn is_run_by(&self, vcpu: usize, tid: Option<u32>) -> bool {
        tid.is_some_and(|tid| self.vcpu_of_tid.get(&tid) == Some(&Some(vcpu)))
    }

    /// The vCPU of that id, if its ring's indices are known.
    fn begun(&self, ring: u32) -> Option<usize> {
        let vcpu = self.vcpu_of_ring.get(&ring).copied()?;
        self.known[vcpu].begun.then_some(vcpu)
    }

    pub(super) fn dirty_index(&self, vcpu: usize) -> u32 {
        self.state.vcpus[vcpu].ring.dirty_index
    }

    /// Takes a step that is possible; one that is not ends the run.
    pub(super) fn step(&mut self, actor: Actor, choice: Choice) -> Result<(), Stuck> {
        let mut possible = false;
        for_each_choice(&self.machine, &self.state, actor, |other| {
            possible |= other == choice;
        });
        if !possible {
            return self.impossible(actor, choice);
        }
        apply(&self.machine, &mut self.state, Step { actor, choice });
        self.tried.steps += 1;
        Ok(())
    }

    /// A step that is not possible, by its name.
    fn impossible<T>(&self, actor: Actor, choice: Choice) -> Result<T, Stuck> {
        let what = describe(&self.machine, &self.state, Step { actor, choice });
        Err(Stuck::Impossible(what.name()))
    }

    /// The push that comes next in the log is made now: others saw it before its event was written.
    fn push_early(&mut self, vcpu: usize, ahead: &VecDeque<ObservedEvent>) -> Result<(), Stuck> {
        let page = match next_push(ahead, self.names[vcpu]) {
            Some(page) => page,
            // Its event is missing, or past the log's end; which page it was, nobody knows.
            None if ends_in_sight(ahead) => (self.machine.slots[0].number(), 0),
            None => {
                return Err(Stuck::Ring(
                    self.names[vcpu],
                    AtRing::SeenBeforePush(self.dirty_index(vcpu)),
                ));
            }
        };
        self.push(vcpu, page, ahead)?;
        self.known[vcpu].owes_event = true;
        Ok(())
    }

    /// QEMU harvests an entry whose push nobody recorded: it was pushed before that, and that is all that is known.
    fn harvest_of_the_unseen(
        &mut self,
        cpu_index: u32,
        fetch: u32,
        offset: u64,
    ) -> Result<bool, Stuck> {
        let vcpu = self.vcpu_of_ring[&cpu_index];
        let nothing = VecDeque::new();
        self.begin(vcpu, fetch, fetch)?;
        if fetch == self.dirty_index(vcpu) {
            self.push(vcpu, (UNSEEN_SLOT, offset), &nothing)?;
            self.settle(vcpu)?;
        }
        self.harvest_event(vcpu, fetch, offset, &nothing)?;
        Ok(true)
    }

    /// What is not known of a ring begins with its first event, before which its indices were these.
    fn begin(&mut self, vcpu: usize, dirty: u32, reset: u32) -> Result<(), Stuck> {
        if self.known[vcpu].begun {
            return Ok(());
        }
        let size = self.state.vcpus[vcpu].ring.size();
        let used = dirty.wrapping_sub(reset);
        if used > size {
            return Err(Stuck::Ring(self.names[vcpu], AtRing::Begins { used, size }));
        }
        let mut ring = Ring::<Large>::new(size);
        ring.dirty_index = dirty;
        ring.reset_index = reset;
        ring.fetch_index = reset;
        for position in 0..used {
            let entry = ring.entry_mut(reset.wrapping_add(position));
            entry.set_slot(NO_SLOT);
            entry.set_flags(F_DIRTY);
        }
        self.state.vcpus[vcpu] = Vcpu {
            stores: UNLIMITED,
            steal: 1,
            ring,
            ..Vcpu::default()
        };
        self.reset_from_before = true;
        self.known[vcpu] = Known {
            begun: true,
            leaves_from_before: true,
            ..Known::default()
        };
        Ok(())
    }

    /// Nothing is known any more: events are missing.
    fn begin_anew(&mut self) {
        let state = &mut self.state;
        for thread in state.threads.iter_mut() {
            *thread = Thread {
                op: 1,
                ..Thread::default()
            };
        }
        state.slots_lock = 0;
        state.mmu_lock_write = false;
        for vcpu in state.vcpus.iter_mut() {
            *vcpu = Vcpu {
                stores: UNLIMITED,
                steal: 1,
                ring: Ring::new(vcpu.ring.size()),
                ..Vcpu::default()
            };
        }
        state.present.clear();
        state.writable.clear();
        state.dirty_bit.clear();
        self.could_be_kvms = CouldBeKvms::default();
        self.known.fill(Known::default());
        self.vcpu_of_tid.clear();
        self.reset_owes_event = None;
        self.reset_from_before = true;
        self.last_reset = None;
    }

    /// A memslot changed: its pages have no leaves.
    fn drop_mappings(&mut self, number: u32) {
        let Some(slot) = self.state.find_slot(&self.machine, number) else {
            return;
        };
        let (first, pages) = {
            let slot = &self.machine.slots[slot];
            (slot.frame, slot.npages)
        };
        let state = &mut self.state;
        state.present.remove_range(first, pages);
        state.writable.remove_range(first, pages);
        state.dirty_bit.remove_range(first, pages);
        for vcpu in state.vcpus.iter_mut() {
            vcpu.tlb.remove_range(first, pages);
        }
    }

    /// Runs one operation of the thread that makes ioctls to its end, with nobody else acting.
    pub(super) fn ioctl(&mut self, op: Op) -> Result<Answer, Stuck> {
        self.start(IOCTLS, op);
        self.finish(IOCTLS)
    }

    /// Runs what a thread is at to its end, with nobody else acting.
    pub(super) fn finish(&mut self, thread: usize) -> Result<Answer, Stuck> {
        let steps = &mut self.tried.steps;
        finish_op(&self.machine, &mut self.state, thread, |_| *steps += 1)
            .or_else(|_| self.impossible(Actor::Thread(thread as u8), Choice::Advance))
    }

    /// Puts a thread at the beginning of an operation.
    pub(super) fn start(&mut self, thread: usize, op: Op) {
        let program = &mut self.machine.programs[thread];
        program.clear();
        program.push(op);
        self.state.threads[thread].op = 0;
    }
}
