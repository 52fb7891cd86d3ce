//! Who waits for what, where nobody can act any more or somebody never does.

use dirtysim_model::machine::{Machine, Op};
use dirtysim_model::state::layout::{Large, Layout};
use dirtysim_model::state::vcpu::Pc;
use dirtysim_model::state::{State, Vcpu};
use dirtysim_model::transition::{Actor, Step, apply, blocked, for_each_choice};
use dirtysim_model::words::Waits;

use crate::scenario::Scenario;

/// Somebody who has no step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The number of its last step, from 1 on; 0: it took none.
    pub since: usize,
    /// Who, and for what it waits, as a sentence.
    pub sentence: String,
}

/// What has to be followed through a schedule for that: who holds the VMM's locks, and who acted last when.
#[derive(Debug, Default)]
pub(super) struct Watch {
    holders: [Option<u8>; 8],
    acted: Vec<(Actor, usize)>,
    steps: usize,
}

impl Watch {
    /// Notes a step before it is taken.
    pub(super) fn note<L: Layout>(&mut self, machine: &Machine, state: &State<L>, step: Step) {
        self.steps += 1;
        self.acted.retain(|(actor, _)| *actor != step.actor);
        self.acted.push((step.actor, self.steps));
        if let Actor::Thread(thread) = step.actor {
            match state.current_op(machine, usize::from(thread)) {
                Some(Op::Lock(lock)) => self.holders[usize::from(*lock)] = Some(thread),
                Some(Op::Unlock(lock)) => self.holders[usize::from(*lock)] = None,
                _ => {}
            }
        }
    }

    /// Everybody who has no step now and still has something to do; threads are called `thread` and their number.
    pub(super) fn tell<L: Layout>(
        &self,
        scenario: &Scenario,
        state: &State<L>,
        thread: &str,
    ) -> Vec<Waiting> {
        let vcpus = (0..state.vcpus.len()).map(|index| Actor::Vcpu(index as u8));
        let threads = (0..state.threads.len()).map(|index| Actor::Thread(index as u8));
        let told = Told {
            watch: self,
            scenario,
            state,
            thread,
        };
        vcpus
            .chain(threads)
            .filter_map(|actor| {
                let mut can_act = false;
                for_each_choice(&scenario.machine, state, actor, |_| can_act = true);
                let acted = self.acted.iter().find(|(who, _)| *who == actor);
                let sentence = told.sentence(actor).filter(|_| !can_act)?;
                Some(Waiting {
                    since: acted.map_or(0, |(_, step)| *step),
                    sentence,
                })
            })
            .collect()
    }
}

/// Who waits for what at the end of a schedule, with threads by their names in traces.
pub fn at_the_end(scenario: &Scenario, steps: &[Step]) -> Vec<Waiting> {
    let mut watch = Watch::default();
    let Ok(mut state) = scenario.start::<Large>() else {
        return Vec::new();
    };
    for &step in steps {
        watch.note(&scenario.machine, &state, step);
        apply(&scenario.machine, &mut state, step);
    }
    watch.tell(scenario, &state, "thread")
}

/// A moment that is told.
struct Told<'a, L: Layout> {
    watch: &'a Watch,
    scenario: &'a Scenario,
    state: &'a State<L>,
    thread: &'a str,
}

impl<L: Layout> Told<'_, L> {
    fn thread(&self, thread: u8) -> String {
        // Alone it has no number in its lane, and waits for no other thread.
        if self.thread == "VMM" && self.scenario.machine.programs.len() == 1 {
            return "The VMM".to_owned();
        }
        let names = &self.scenario.names.threads;
        match names.get(usize::from(thread)) {
            Some(Some(name)) => format!("{}{thread} ({name})", self.thread),
            _ => format!("{}{thread}", self.thread),
        }
    }

    /// The vCPUs of which something is so.
    fn vcpus(&self, is_so: impl Fn(&Vcpu<L>) -> bool) -> String {
        let vcpus = self.state.vcpus.iter().enumerate();
        let names: Vec<String> = vcpus
            .filter(|(_, vcpu)| is_so(vcpu))
            .map(|(index, _)| format!("vcpu{index}"))
            .collect();
        names.join(" and ")
    }

    fn sentence(&self, actor: Actor) -> Option<String> {
        let waits = blocked(&self.scenario.machine, self.state, actor);
        match (actor, waits) {
            (Actor::Vcpu(vcpu), None) => {
                let v = &self.state.vcpus[usize::from(vcpu)];
                let idle = format!("vcpu{vcpu} is in the guest and has nothing left to do.");
                (v.pc == Pc::Guest).then_some(idle)
            }
            (Actor::Vcpu(vcpu), Some(waits)) => {
                Some(format!("vcpu{vcpu} {}.", self.words(actor, waits)))
            }
            (Actor::Thread(thread), Some(waits)) => {
                let who = self.thread(thread);
                Some(format!("{who} {}.", self.words(actor, waits)))
            }
            (Actor::Thread(_) | Actor::Device(_), _) => None,
        }
    }

    fn words(&self, actor: Actor, waits: Waits) -> String {
        let names = &self.scenario.names;
        let name = |names: &[String], index: u8| {
            let name = names.get(usize::from(index));
            name.map_or_else(|| index.to_string(), |name| format!("`{name}`"))
        };
        match waits {
            Waits::Lock(lock) => {
                let holder = match self.watch.holders[usize::from(lock)] {
                    Some(thread) if Actor::Thread(thread) == actor => {
                        ", which it holds itself".to_owned()
                    }
                    Some(thread) => format!(", which {} holds", self.thread(thread)),
                    None => String::new(),
                };
                format!("waits for the lock {}{holder}", name(&names.locks, lock))
            }
            Waits::Signal(signal) => {
                let threads = 0..self.state.threads.len() as u8;
                let senders: Vec<String> = threads
                    .filter(|thread| self.has_ahead(*thread, Op::Signal(signal)))
                    .map(|thread| self.thread(thread))
                    .collect();
                let senders = if senders.is_empty() {
                    "nobody gives any more".to_owned()
                } else {
                    format!("{} has still to give", senders.join(" or "))
                };
                format!(
                    "waits for the signal {}, which {senders}",
                    name(&names.signals, signal)
                )
            }
            Waits::Thread(thread) => format!("waits for the end of {}", self.thread(thread)),
            Waits::SlotsLock(thread) => {
                format!("waits for slots_lock, which {} holds", self.thread(thread))
            }
            Waits::MmuLock => "waits for mmu_lock".to_owned(),
            Waits::Mutex(vcpu) if actor == Actor::Vcpu(vcpu) => {
                "waits for its mutex, which an ioctl holds".to_owned()
            }
            Waits::Mutex(vcpu) => format!("waits for the mutex of vcpu{vcpu}"),
            Waits::OldSlots => format!(
                "waits until {} has done with the old memslots",
                self.vcpus(|vcpu| vcpu.old_slots)
            ),
            Waits::Flush => format!(
                "waits until {} has left the guest",
                self.vcpus(|vcpu| vcpu.pc == Pc::Guest && !vcpu.pml_on)
            ),
            Waits::Left => format!(
                "waits until {} has left KVM_RUN",
                self.vcpus(|vcpu| vcpu.kicked)
            ),
            Waits::Stopped => format!(
                "waits until {} is outside KVM_RUN",
                self.vcpus(|vcpu| !vcpu.is_stopped())
            ),
            Waits::Running => "waits until a vCPU is in KVM_RUN".to_owned(),
            Waits::RingFull => "waits until a vCPU leaves for a full ring (exit 31)".to_owned(),
            Waits::Device(device) => {
                format!("waits until device{device} has nothing in flight")
            }
            Waits::Code => "waits for what its code does next".to_owned(),
            Waits::Resume => "is outside KVM_RUN and waits until the VMM lets it run".to_owned(),
            Waits::Ack => {
                "has left for its full ring (exit 31) and waits for the VMM's `ack-ring-full`"
                    .to_owned()
            }
        }
    }

    /// Whether a thread can still come to that step.
    fn has_ahead(&self, thread: u8, wanted: Op) -> bool {
        let machine = &self.scenario.machine;
        let program = &machine.programs[usize::from(thread)];
        let mut known = vec![false; program.len()];
        let mut open = vec![usize::from(self.state.threads[usize::from(thread)].op)];
        while let Some(at) = open.pop() {
            let Some(op) = program.get(at) else { continue };
            if std::mem::replace(&mut known[at], true) {
                continue;
            }
            if *op == wanted {
                return true;
            }
            let jump = op.facts(machine).jump;
            open.extend(jump.map(|jump| usize::from(jump.to)));
            if jump.is_none_or(|jump| !jump.always) {
                open.push(at + 1);
            }
        }
        false
    }
}
