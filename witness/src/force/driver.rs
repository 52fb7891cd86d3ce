//! From outside: lets one actor after the other go on until its next place, and looks whether its guest's stores do what the model's do.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use dirtysim::trace::step::actor_name;
use dirtysim_model::transition::Actor;

use super::gdb::Gdb;
use super::plan::{Place, Plan, Turn};
use super::{TELLS, WAITS, places};
use crate::refusal::Refused;

/// How long the machine may take until its actors wait, and how long a turn may take before its actor counts as stuck.
const BOOT: Duration = Duration::from_secs(240);
const TURN: Duration = Duration::from_secs(20);
/// More instructions than the guest has between two stores.
const STEPS_MAX: u32 = 64;
/// The guest's instructions are within so many bytes.
const GUEST_BYTES: u64 = 4096;
/// An instruction of arm64.
const INSTRUCTION_BYTES: u64 = 4;

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Every actor came to every place.
    Forced,
    /// One did not: the sentence says which, and where it was instead.
    NotAllowed(String),
}

/// What the machine told: addresses by name.
struct Told(BTreeMap<String, u64>);

impl Told {
    /// Waits until the machine's actors wait.
    fn wait(port: &Path) -> Result<Self, Refused> {
        let deadline = Instant::now() + BOOT;
        loop {
            let text = std::fs::read(port).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let mut told = BTreeMap::new();
            for line in text.lines() {
                let mut words = line.split(' ');
                if words.next() != Some(TELLS) {
                    return Err(Refused(
                        "the machine has ended before its actors waited".into(),
                    ));
                }
                match (words.next(), words.next()) {
                    (Some("ready"), _) => return Ok(Self(told)),
                    (Some(name), Some(value)) => {
                        if let Ok(value) = u64::from_str_radix(value, 16) {
                            told.insert(name.to_owned(), value);
                        }
                    }
                    _ => {}
                }
            }
            if Instant::now() > deadline {
                return Err(Refused(format!(
                    "the machine's actors do not wait after {} s",
                    BOOT.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn address(&self, name: &str) -> Result<u64, Refused> {
        let address = self.0.get(name).copied();
        address.ok_or_else(|| Refused(format!("the machine does not say where {name} is")))
    }
}

struct Driver<'a> {
    gdb: Gdb,
    told: Told,
    plan: &'a Plan,
    actors: Vec<Actor>,
    /// Where each actor is held.
    at: Vec<Place>,
    /// What was done so far, a line a turn.
    story: String,
}

/// Why a turn does not end: the kernel's doing, or something that cannot be had.
enum Stuck {
    Kernel(String),
    Refused(Refused),
}

impl From<Refused> for Stuck {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// Forces a plan on the machine whose gdb server and port these are; how it ended, and the story of it.
///
/// # Errors
/// The machine does not come so far, or its gdb server does not do what it should.
pub fn force(plan: &Plan, gdb: &Path, port: &Path) -> Result<(End, String), Refused> {
    let told = Told::wait(port)?;
    let actors = plan.actors();
    let mut driver = Driver {
        gdb: Gdb::connect(gdb)?,
        told,
        plan,
        at: vec![Place::Action(WAITS); actors.len()],
        actors,
        story: String::new(),
    };
    let all = driver.all();
    let story = std::mem::take(&mut driver.story);
    let detached = driver.gdb.detach();
    let end = match all {
        Ok(()) => End::Forced,
        Err(Stuck::Kernel(what)) => End::NotAllowed(what),
        Err(Stuck::Refused(refused)) => return Err(refused),
    };
    detached?;
    Ok((end, story))
}

/// Whether the store that was stepped retired, by where its processor stands: at the next instruction, or out of the guest, where it faulted.
fn retired(guest: u64, store: u64, pc: u64) -> Result<bool, Refused> {
    if pc == store + INSTRUCTION_BYTES {
        Ok(true)
    } else if (guest..guest + GUEST_BYTES).contains(&pc) {
        Err(Refused(format!(
            "a store at 0x{store:x} was stepped, and its processor is at 0x{pc:x}: neither behind it nor in the kernel"
        )))
    } else {
        Ok(false)
    }
}

impl Driver<'_> {
    fn all(&mut self) -> Result<(), Stuck> {
        self.gather()?;
        for turn in &self.plan.turns {
            self.turn(turn)?;
        }
        Ok(())
    }

    /// Holds every actor before the first action of its program.
    fn gather(&mut self) -> Result<(), Stuck> {
        let mark = self.told.address("mark")?;
        for actor in 0..self.actors.len() {
            let cpu = actor + 1;
            self.arrive(actor, &[mark], 0)?;
            self.gdb.set_register(cpu, 0, 0)?;
            self.arrive(actor, &[mark], 0)?;
            let number = self.gdb.register(cpu, 0)?;
            self.is_action(actor, number, 0)?;
            self.at[actor] = Place::Action(0);
        }
        Ok(())
    }

    fn is_action(&self, actor: usize, number: u64, expected: u64) -> Result<(), Stuck> {
        if number == expected {
            return Ok(());
        }
        Err(Stuck::Kernel(format!(
            "{} is before action {number} of its program, and should be before {expected}",
            actor_name(self.actors[actor])
        )))
    }

    /// Lets an actor, and nobody else, go on until it has come to one of these addresses once more than `passes` times.
    fn arrive(&mut self, actor: usize, addresses: &[u64], passes: u32) -> Result<(), Stuck> {
        let cpu = actor + 1;
        let begun = Instant::now();
        let mut left = passes;
        // What stands at one of them is past it.
        if addresses.contains(&self.gdb.pc(cpu)?) {
            self.gdb.step(cpu)?;
        }
        loop {
            let limit = TURN.saturating_sub(begun.elapsed());
            let Some(stopped) = self.gdb.run(&[0, cpu], addresses, limit)? else {
                let pc = self.gdb.pc(cpu)?;
                return Err(Stuck::Kernel(format!(
                    "{} does not come to its next place; after {} s it is at 0x{pc:x}",
                    actor_name(self.actors[actor]),
                    TURN.as_secs()
                )));
            };
            if stopped == cpu && addresses.contains(&self.gdb.pc(cpu)?) {
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
            }
            self.gdb.step(stopped)?;
        }
    }

    fn turn(&mut self, turn: &Turn) -> Result<(), Stuck> {
        let actor = self
            .actors
            .iter()
            .position(|&actor| actor == turn.actor)
            .expect("a turn is one of the plan's actors'");
        for &faults in &turn.faults {
            self.store(actor, faults)?;
        }
        match &turn.to {
            Place::Action(number) => {
                let mark = self.told.address("mark")?;
                if self.at[actor] != turn.to {
                    loop {
                        self.arrive(actor, &[mark], 0)?;
                        let here = self.gdb.register(actor + 1, 0)?;
                        if here >= *number {
                            self.is_action(actor, here, *number)?;
                            break;
                        }
                    }
                }
            }
            Place::Kernel(word) => {
                let functions = places::functions(word);
                let addresses: Vec<u64> = functions
                    .iter()
                    .filter_map(|name| self.told.address(name).ok())
                    .collect();
                if addresses.is_empty() {
                    return Err(Stuck::Refused(Refused(format!(
                        "this kernel has no function {}",
                        functions.join(" or ")
                    ))));
                }
                self.arrive(actor, &addresses, turn.passes)?;
            }
            Place::Store => self.reach_store(actor)?,
            Place::Guest => {}
        }
        self.at[actor] = turn.to.clone();
        let place = self.name(actor, &turn.to)?;
        let _ = writeln!(
            self.story,
            "{}: {}; held {place}",
            actor_name(turn.actor),
            turn.words.join(", ")
        );
        Ok(())
    }

    fn name(&mut self, actor: usize, place: &Place) -> Result<String, Refused> {
        Ok(match place {
            Place::Action(_) => "in user space".to_owned(),
            Place::Store => "in the guest, before a store".to_owned(),
            Place::Guest => "in the guest".to_owned(),
            Place::Kernel(word) => {
                let pc = self.gdb.pc(actor + 1)?;
                let names = places::functions(word).iter();
                let mut here = names.filter(|name| self.told.address(name) == Ok(pc));
                format!("at {}()", here.next().unwrap_or(&"?"))
            }
        })
    }

    /// Lets a vCPU go on to its guest's next store, if it does not stand there.
    fn reach_store(&mut self, actor: usize) -> Result<(), Stuck> {
        let store = self.told.address("store")?;
        if self.gdb.pc(actor + 1)? != store {
            self.arrive(actor, &[store], 0)?;
        }
        Ok(())
    }

    /// One try of the guest's next store, and, if it retires, what the guest does up to the next: by single steps, which let no interrupt end
    /// what the processor remembers of the page's mapping.
    fn store(&mut self, actor: usize, faults: bool) -> Result<(), Stuck> {
        let cpu = actor + 1;
        self.reach_store(actor)?;
        let pc = self.gdb.step(cpu)?;
        let (guest, store) = (self.told.address("guest")?, self.told.address("store")?);
        let retired = retired(guest, store, pc)?;
        if retired == faults {
            return Err(Stuck::Kernel(format!(
                "a store of {} {} here, and the model's {}",
                actor_name(self.actors[actor]),
                if retired { "retires" } else { "faults" },
                if faults { "faults" } else { "retires" },
            )));
        }
        if !retired {
            return Ok(());
        }
        let ends = [store, self.told.address("done")?];
        for _ in 0..STEPS_MAX {
            if ends.contains(&self.gdb.pc(cpu)?) {
                return Ok(());
            }
            self.gdb.step(cpu)?;
        }
        Err(Stuck::Kernel(format!(
            "the guest of {} does not come to its next store",
            actor_name(self.actors[actor])
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_retired_where_its_processor_stands_behind_it() {
        let (guest, store) = (0x4000_0000, 0x4000_0050);
        assert_eq!(retired(guest, store, 0x4000_0054), Ok(true));
        assert_eq!(retired(guest, store, 0xffff_8000_1234_0400), Ok(false));
        for other in [guest, store, 0x4000_0058] {
            assert!(retired(guest, store, other).is_err(), "0x{other:x}");
        }
    }
}
