//! What is done to a real kernel for a schedule of the model: each actor's program, and whose turn it is until where.

use std::path::Path;

use dirtysim::ladder::large;
use dirtysim::replay::steps::{replay, scenario_of};
use dirtysim::scenario::Scenario;
use dirtysim::trace::TraceReader;
use dirtysim::trace::step::actor_name;
use dirtysim_model::machine::program::{ClearMask, HarvestWay, Into};
use dirtysim_model::machine::{Arch, Op};
use dirtysim_model::oracle;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Large;
use dirtysim_model::state::pages::PageSet;
use dirtysim_model::state::vcpu::Pc;
use dirtysim_model::transition::{Actor, Choice, Step, apply, describe, for_each_choice, subject};
use dirtysim_model::words::constants::MEM_LOG_DIRTY_PAGES;
use dirtysim_model::words::{Frame, Subject};

use super::places;
use crate::refusal::Refused;

/// A memslot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its number.
    pub number: u32,
    /// The first of its pages, among all.
    pub first: u32,
    /// Pages.
    pub pages: u32,
    /// Whether it logs from the beginning.
    pub logs: bool,
}

/// What a thread does in one go, unless it is held inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// KVM_SET_USER_MEMORY_REGION with or without the log.
    SetLog {
        /// The slot, by its place in the plan.
        slot: usize,
        /// On or off.
        on: bool,
    },
    /// KVM_RESET_DIRTY_RINGS.
    Reset,
    /// KVM_GET_DIRTY_LOG.
    Get {
        /// The slot, by its place in the plan.
        slot: usize,
        /// Whether its pages are to be copied.
        keep: bool,
    },
    /// KVM_CLEAR_DIRTY_LOG of a whole slot.
    Clear {
        /// The slot, by its place in the plan.
        slot: usize,
        /// All bits, or those that GET has shown and no CLEAR has cleared.
        all: bool,
    },
    /// Harvests a vCPU's ring.
    Harvest {
        /// The vCPU; all of them, in order.
        vcpu: Option<u8>,
        /// Most entries of each.
        max: u32,
        /// Whether their pages are to be copied.
        keep: bool,
    },
    /// All pages are to be copied.
    TakeAll,
    /// What is to be copied is not any more.
    Forget,
    /// Copies a page, which is to be copied.
    Copy(u32),
    /// No page is left that is to be copied.
    NothingLeft,
    /// The end: memory is compared with the copy.
    Finish,
}

/// Where an actor is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before an action of its program, by number; a vCPU's only one is KVM_RUN.
    Action(u64),
    /// Where a function of the kernel begins; the word of the model's step there.
    Kernel(&'static str),
    /// At the guest's next store.
    Store,
    /// In the guest, behind its last store or before it has left.
    Guest,
}

/// One actor goes on alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Who.
    pub actor: Actor,
    /// The stores that its guest tries to make on the way, in order: whether each faults.
    pub faults: Vec<bool>,
    /// Where it ends.
    pub to: Place,
    /// How often it passes there first.
    pub passes: u32,
    /// The model's words for what is done.
    pub words: Vec<&'static str>,
}

/// A schedule as it is forced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The scenario's name.
    pub name: String,
    /// Whether vCPUs have rings.
    pub ring: bool,
    /// Whether the bitmap is beside them.
    pub ring_with_bitmap: bool,
    /// KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2.
    pub manual_protect: u64,
    /// The memslots.
    pub slots: Vec<Slot>,
    /// The names of all pages.
    pub pages: Vec<String>,
    /// Each vCPU's stores: pages, in order.
    pub vcpus: Vec<Vec<u32>>,
    /// The programs of the VMM's threads.
    pub threads: Vec<Vec<Action>>,
    /// Who goes on, and until where.
    pub turns: Vec<Turn>,
    /// The pages that are lost in the end.
    pub lost: Vec<u32>,
}

impl Plan {
    /// The actors, vCPUs first; an actor's processor is its place here and one more.
    #[must_use]
    pub fn actors(&self) -> Vec<Actor> {
        let vcpus = (0..self.vcpus.len()).map(|vcpu| Actor::Vcpu(vcpu as u8));
        let threads = (0..self.threads.len()).map(|thread| Actor::Thread(thread as u8));
        vcpus.chain(threads).collect()
    }

    /// The plan of a trace of kind `step`.
    ///
    /// # Errors
    /// A trace that is wrong, or something in it that cannot be forced.
    pub fn open(path: &Path) -> Result<Self, Refused> {
        let name = path.display().to_string();
        let wrong = |error: &dyn std::fmt::Display| Refused(error.to_string());
        let reader = TraceReader::open(path).map_err(|error| wrong(&error))?;
        let scenario = scenario_of(reader.header(), &name).map_err(|error| wrong(&error))?;
        if !scenario.machine.mutations().is_empty() {
            return Err(Refused(format!(
                "{name}: its kernel is a wrong one (mutations): only the right one can be had"
            )));
        }
        if scenario.machine.arch != Arch::Arm64 {
            return Err(Refused(format!(
                "{name}: a schedule of {}: the places that are known are arm64's",
                scenario.machine.arch.name()
            )));
        }
        let mut steps = Vec::new();
        replay(reader, &name, scenario.clone(), |step| steps.push(step))
            .map_err(|error| wrong(&error))?;
        Self::of(&scenario, steps).map_err(|Refused(problem)| Refused(format!("{name}: {problem}")))
    }

    fn of(scenario: &Scenario, mut steps: Vec<Step>) -> Result<Self, Refused> {
        // A turn that ends where no function begins goes on to the next place, as long as the model lets it.
        let most = steps.len() * steps.len();
        for _ in 0..=most {
            let walk = Walk::of(scenario, &steps)?;
            match walk.first_nowhere() {
                None => return walk.plan(scenario),
                Some((end, next)) => {
                    let step = steps.remove(next);
                    steps.insert(end + 1, step);
                }
            }
        }
        Err(Refused::new("its turns do not come to an end"))
    }
}

/// What is known of one step.
struct Taken {
    step: Step,
    word: &'static str,
    /// Where its actor is held before it; none where it cannot be.
    place: Option<Place>,
    /// The page that its guest stores to, and whether the store is tried: a walk that fills the TLB is a step of the model alone.
    store: Option<(u32, bool)>,
}

/// The schedule, taken once more.
struct Walk {
    start: State<Large>,
    taken: Vec<Taken>,
    end: State<Large>,
    threads: Vec<Vec<Action>>,
}

impl Walk {
    fn of(scenario: &Scenario, steps: &[Step]) -> Result<Self, Refused> {
        let machine = &scenario.machine;
        let start: State<Large> = large(scenario);
        let mut state = start.clone();
        let mut threads = vec![Vec::new(); machine.programs.len()];
        let mut taken = Vec::new();
        for &step in steps {
            let mut possible = false;
            for_each_choice(machine, &state, step.actor, |choice| {
                possible |= choice == step.choice;
            });
            let word = describe(machine, &state, step).name();
            if !possible {
                return Err(Refused(format!(
                    "{} is to be held where no function of the kernel begins, and cannot go on to where one does: \
                     `{word}` is not possible there",
                    actor_name(step.actor)
                )));
            }
            let (place, store) = match step.actor {
                Actor::Vcpu(vcpu) => {
                    let page = subject(machine, &state, step).map(number);
                    let page = page.filter(|_| matches!(word, "store" | "retry-store"));
                    let v = &state.vcpus[usize::from(vcpu)];
                    let walks = |page| {
                        let frame = Frame(page);
                        !v.tlb.contains(frame) && state.writable.contains(frame)
                    };
                    (vcpu_place(word)?, page.map(|page| (page, !walks(page))))
                }
                Actor::Thread(thread) => {
                    let index = usize::from(thread);
                    let actions: &mut Vec<Action> = &mut threads[index];
                    let at = actions.len() as u64;
                    let stage = state.threads[index].stage;
                    let op = state.current_op(machine, index).copied();
                    let op = op.ok_or_else(|| Refused::new("a step behind its program's end"))?;
                    let begun = begins(scenario, &op)?;
                    let place = match begun {
                        // Inside an ioctl, or inside a harvest, which user space makes in one go.
                        Some(_) if stage != 0 => function_place(word),
                        _ => Some(Place::Action(at)),
                    };
                    match (begun, word) {
                        (Some(action), _) if stage == 0 => actions.push(action),
                        (Some(_), _) => {}
                        (None, "copy") => actions.push(Action::Copy(
                            subject(machine, &state, step).map_or(0, number),
                        )),
                        (None, "send-fails") => {
                            return Err(Refused::new("a send that fails cannot be forced"));
                        }
                        (None, "copy-begin-or-end") if matches!(op, Op::CopyAll) && stage == 0 => {
                            actions.push(Action::TakeAll);
                        }
                        // What is pending now is what begins to be copied.
                        (None, "copy-end" | "copy-begin-or-end")
                            if !matches!(op, Op::CopyList(_)) && state.pending.is_empty() =>
                        {
                            actions.push(Action::NothingLeft);
                        }
                        _ => {}
                    }
                    (place, None)
                }
                Actor::Device(_) => {
                    return Err(Refused::new("a device's steps cannot be forced"));
                }
            };
            taken.push(Taken {
                step,
                word,
                place,
                store,
            });
            apply(machine, &mut state, step);
        }
        Ok(Self {
            start,
            taken,
            end: state,
            threads,
        })
    }

    /// The last step of a turn that ends nowhere, and the next one of the same actor.
    fn first_nowhere(&self) -> Option<(usize, usize)> {
        let turns = self.taken.windows(2).enumerate();
        let ends = turns.filter(|(_, pair)| pair[0].step.actor != pair[1].step.actor);
        ends.map(|(end, _)| end).find_map(|end| {
            let next = self.next(end)?;
            self.taken[next].place.is_none().then_some((end, next))
        })
    }

    /// The next step of the actor of a step.
    fn next(&self, step: usize) -> Option<usize> {
        let actor = self.taken[step].step.actor;
        (step + 1..self.taken.len()).find(|&later| self.taken[later].step.actor == actor)
    }

    fn plan(self, scenario: &Scenario) -> Result<Plan, Refused> {
        let machine = &scenario.machine;
        if machine.aliased() {
            return Err(Refused::new("slots that share memory cannot be forced"));
        }
        if !self.end.finished {
            return Err(Refused::new(
                "it does not come to its `finish`, where the end is compared",
            ));
        }
        let mut slots = Vec::new();
        let mut pages = Vec::new();
        for (template, slot) in machine.slots.iter().zip(&self.start.slots) {
            if !slot.exists() || slot.readonly || template.huge {
                return Err(Refused(format!(
                    "slot {}: only one that is there from the beginning, writable and in small pages, can be forced",
                    template.name
                )));
            }
            pages.resize((template.host + template.npages).index(), String::new());
            for host in template.hosts() {
                pages[host.index()] = scenario.page_name(host);
            }
            slots.push(Slot {
                number: template.number(),
                first: template.host.0,
                pages: template.npages,
                logs: slot.logging,
            });
        }
        let mut plan = Plan {
            name: scenario.name.clone(),
            ring: self.start.caps.ring_entries > 0,
            ring_with_bitmap: self.start.caps.ring_with_bitmap,
            manual_protect: self.start.caps.manual_protect.into(),
            slots,
            pages,
            vcpus: vec![Vec::new(); machine.vcpus.len()],
            threads: Vec::new(),
            turns: Vec::new(),
            lost: oracle::lost(machine, &self.end, false)
                .numbers()
                .iter()
                .collect(),
        };
        for (vcpu, stores) in plan.vcpus.iter_mut().enumerate() {
            *stores = self.stores(vcpu as u8)?;
        }
        let mut begin = 0;
        while begin < self.taken.len() {
            let actor = self.taken[begin].step.actor;
            let same = |taken: &&Taken| taken.step.actor == actor;
            let length = self.taken[begin..].iter().take_while(same).count();
            plan.turns.push(self.turn(scenario, begin, begin + length)?);
            begin += length;
        }
        plan.threads = self.threads;
        Ok(plan)
    }

    /// The stores of a vCPU's guest, which all have to retire before it leaves KVM_RUN.
    fn stores(&self, vcpu: u8) -> Result<Vec<u32>, Refused> {
        let of_it = |&at: &usize| self.taken[at].step.actor == Actor::Vcpu(vcpu);
        let its = (0..self.taken.len()).filter(of_it);
        let given_up = self.end.vcpus[usize::from(vcpu)].pc == Pc::User
            && its
                .clone()
                .rfind(|&at| self.tries(at))
                .is_some_and(|at| self.faults(at));
        if given_up {
            return Err(Refused(format!(
                "vcpu{vcpu} leaves KVM_RUN with a store that it has not made: its guest would make it"
            )));
        }
        let begins = its.filter(|&at| self.taken[at].word == "store");
        Ok(begins
            .filter_map(|at| self.taken[at].store)
            .map(|(page, _)| page)
            .collect())
    }

    /// Whether its guest tries to make a store in that step.
    fn tries(&self, at: usize) -> bool {
        self.taken[at].store.is_some_and(|(_, tries)| tries)
    }

    /// Whether a store that is tried faults: its actor's next step is in the fault path.
    fn faults(&self, at: usize) -> bool {
        self.next(at)
            .is_some_and(|next| self.taken[next].word == "fault-resolve")
    }

    fn turn(&self, scenario: &Scenario, begin: usize, end: usize) -> Result<Turn, Refused> {
        let actor = self.taken[begin].step.actor;
        let to = match self.next(end - 1) {
            Some(next) => self.taken[next].place.clone(),
            None => self.last_place(scenario, actor),
        };
        let to = to.ok_or_else(|| {
            Refused(format!(
                "{} stops for good where no function of the kernel begins",
                actor_name(actor)
            ))
        })?;
        // What lies before a store is passed on the way to it.
        let tries = (begin..end).filter(|&at| self.tries(at));
        let inside = tries.clone().next_back().unwrap_or(begin) + 1..end;
        let passes = match &to {
            Place::Kernel(word) => inside
                .filter(|&at| match &self.taken[at].place {
                    Some(Place::Kernel(other)) => {
                        places::functions(other) == places::functions(word)
                    }
                    _ => false,
                })
                .count() as u32,
            _ => 0,
        };
        Ok(Turn {
            actor,
            faults: tries.map(|at| self.faults(at)).collect(),
            to,
            passes,
            words: self.taken[begin..end]
                .iter()
                .map(|taken| taken.word)
                .collect(),
        })
    }

    /// Where an actor stays that has no step any more.
    fn last_place(&self, scenario: &Scenario, actor: Actor) -> Option<Place> {
        let machine = &scenario.machine;
        match actor {
            Actor::Thread(thread) if self.end.threads[usize::from(thread)].stage == 0 => {
                let actions = self.threads[usize::from(thread)].len();
                return Some(Place::Action(actions as u64));
            }
            Actor::Vcpu(vcpu) => match self.end.vcpus[usize::from(vcpu)].pc {
                Pc::User => return Some(Place::Action(1)),
                Pc::Guest => return Some(Place::Guest),
                _ => {}
            },
            _ => {}
        }
        // In the kernel, before what it would do next.
        let step = Step {
            actor,
            choice: Choice::Advance,
        };
        function_place(describe(machine, &self.end, step).name())
    }
}

/// The number of a page: where no memory is shared, a host page has its frame's.
fn number(page: Subject) -> u32 {
    match page {
        Subject::Frame(frame) => frame.0,
        Subject::Host(host) => host.0,
    }
}

fn function_place(word: &'static str) -> Option<Place> {
    (!places::functions(word).is_empty()).then_some(Place::Kernel(word))
}

fn vcpu_place(word: &'static str) -> Result<Option<Place>, Refused> {
    match word {
        "run" => Ok(Some(Place::Action(0))),
        "store" | "retry-store" => Ok(Some(Place::Store)),
        "leave-guest" => Ok(Some(Place::Guest)),
        // A kernel's ring is larger than a scenario's, and is not soft-full where that is.
        "load" | "retry-load" | "tlb-miss" | "kernel-record-write" | "check-soft-full" => {
            Err(Refused(format!("a vCPU's `{word}` cannot be forced")))
        }
        _ => Ok(function_place(word)),
    }
}

/// What an operation does in one go; none for what only user space knows of.
fn begins(scenario: &Scenario, op: &Op) -> Result<Option<Action>, Refused> {
    let machine = &scenario.machine;
    let slot = |number: u32| {
        let slot = machine
            .slots
            .iter()
            .position(|slot| slot.number() == number);
        slot.ok_or_else(|| Refused(format!("there is no slot {number}")))
    };
    let keep = |into: Into| match into {
        Into::Pending => Ok(true),
        Into::Nowhere => Ok(false),
        Into::Hand | Into::OwnLog => Err(Refused::new(
            "pages that go to a thread's hand or to the VMM's log cannot be forced",
        )),
    };
    Ok(match op {
        Op::SetMemoryRegion(set) => {
            let index = slot(set.slot)?;
            if set.bytes != u64::from(machine.slots[index].npages) * crate::kvm::PAGE_BYTES {
                return Err(Refused::new("of memslots only the log can be switched"));
            }
            Some(Action::SetLog {
                slot: index,
                on: set.flags & MEM_LOG_DIRTY_PAGES != 0,
            })
        }
        Op::ResetRings(reset) if !reset.signal => Some(Action::Reset),
        Op::GetDirtyLog(get) if !get.bad_pointer => Some(Action::Get {
            slot: slot(get.slot)?,
            keep: keep(get.into)?,
        }),
        Op::ClearDirtyLog(clear) if !clear.bad_pointer => {
            let index = slot(clear.slot)?;
            let whole = u64::from(machine.slots[index].npages);
            if clear.first_page != 0 || u64::from(clear.num_pages) != whole {
                return Err(Refused::new("a CLEAR of a part of a slot cannot be forced"));
            }
            let all = match clear.mask {
                ClearMask::Seen => false,
                ClearMask::All => true,
                ClearMask::List(_) => {
                    return Err(Refused::new("a CLEAR of listed pages cannot be forced"));
                }
            };
            Some(Action::Clear { slot: index, all })
        }
        Op::Harvest(harvest) if harvest.way == HarvestWay::Right => Some(Action::Harvest {
            vcpu: harvest.vcpu,
            max: harvest.max,
            keep: keep(harvest.into)?,
        }),
        Op::TakeAll => Some(Action::TakeAll),
        Op::Forget => Some(Action::Forget),
        Op::Finish(finish) if !finish.postcopy => Some(Action::Finish),
        Op::Copy
        | Op::CopyAll
        | Op::CopyList(_)
        | Op::Kick(_)
        | Op::WaitKicked
        | Op::WaitStopped
        | Op::WaitRunning
        | Op::JoinThread(_)
        | Op::Lock(_)
        | Op::Unlock(_)
        | Op::Signal(_)
        | Op::WaitSignal(_)
        | Op::Again(_)
        | Op::PassUnless(_) => None,
        other => {
            let name = format!("{other:?}");
            let name = name.split(['(', ' ']).next().unwrap_or_default();
            return Err(Refused(format!("the operation {name} cannot be forced")));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schedules that are kept: where somebody is held in the kernel, and what is lost.
    #[test]
    fn every_kept_schedule_can_be_forced() {
        let kept: [(&str, &[&str], &[u32]); 6] = [
            ("clear-copy", &["clear-flush"], &[0]),
            ("clear-copy-after-flush", &["clear-flush"], &[]),
            ("get-copy", &["get-rearm"], &[0]),
            ("log-on-copy", &["slot-rearm"], &[0]),
            ("mark-late", &["set-bitmap-bit"], &[0]),
            ("two-resets", &["reset-flush"], &[0]),
        ];
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/forced");
        for (name, words, lost) in kept {
            let plan = Plan::open(&directory.join(format!("{name}.trace.jsonl")));
            let plan = plan.expect("a schedule that can be forced");
            let held = plan.turns.iter().filter_map(|turn| match turn.to {
                Place::Kernel(word) => Some(word),
                _ => None,
            });
            assert_eq!(held.collect::<Vec<_>>(), words, "{name}");
            assert_eq!(plan.lost, lost, "{name}");
        }
        let files = std::fs::read_dir(directory).expect("a directory").count();
        assert_eq!(files, kept.len(), "each is named above");
    }

    #[test]
    fn what_no_kernel_does_is_refused() {
        let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/bugs/k20.trace.jsonl");
        let Refused(problem) = Plan::open(&trace).expect_err("a mutation");
        assert!(problem.contains("only the right one"), "{problem}");
    }
}
