//! What lies ahead of a thread in its program.

use alloc::vec::Vec;

use crate::machine::{Ahead, Machine, Op};
use crate::words::{Frame, Jump, Names};

/// Computes [`Machine::ahead`] from the programs; to be called after they change.
pub fn look_ahead(machine: &mut Machine) {
    machine.ahead = machine
        .programs
        .iter()
        .map(|program| {
            backwards(machine, program, |op, next: Ahead, elsewhere: Ahead| {
                let facts = op.facts(machine);
                // Nothing is sure to come behind a jump that is always taken.
                let mut ahead = if facts.jump.is_some_and(|jump| jump.always) {
                    Ahead::default()
                } else {
                    next
                };
                ahead.full_copy |= elsewhere.full_copy || facts.full_copy;
                ahead.resume |= elsewhere.resume || facts.resumes;
                join(&mut ahead.declared, &elsewhere.declared);
                for (here, elsewhere) in ahead.log_on.iter_mut().zip(&elsewhere.log_on) {
                    join(here, elsewhere);
                }
                if facts.declares {
                    join(&mut ahead.declared, named_frames(machine, facts.names));
                }
                if let Some(on) = facts.turns_log {
                    for slot in named_slots(machine, facts.names) {
                        turn_log(&mut ahead.log_on, slot, on);
                    }
                }
                ahead
            })
        })
        .collect();
}

/// What is ahead of an operation that turns a slot's log on or off; `log_on` is what is ahead behind it.
fn turn_log(log_on: &mut [Vec<u16>; 2], slot: u16, on: bool) {
    let [off_here, on_here] = log_on;
    if on {
        join(off_here, &[slot]);
    } else {
        // Wherever it stands here, it is off behind.
        on_here.retain(|other| *other != slot);
        if off_here.contains(&slot) {
            join(on_here, &[slot]);
        }
    }
}

/// Adds what is not there yet.
fn join<T: Copy + Ord>(set: &mut Vec<T>, more: &[T]) {
    if !more.is_empty() {
        set.extend(more);
        set.sort_unstable();
        set.dedup();
    }
}

fn named_frames(machine: &Machine, names: Names) -> &[Frame] {
    match names {
        Names::Frames(list) => &machine.frame_lists[usize::from(list)],
        Names::Nothing
        | Names::Frame(_)
        | Names::Slot(..)
        | Names::Template(_)
        | Names::Vcpu(_)
        | Names::Thread(_)
        | Names::Device(_)
        | Names::Signal(_)
        | Names::Anything => &[],
    }
}

/// The templates of the memslot that is named by its number.
fn named_slots(machine: &Machine, names: Names) -> impl Iterator<Item = u16> {
    let slots = machine.slots.iter().enumerate();
    slots.filter_map(move |(index, slot)| {
        (names == Names::Slot(slot.number(), None)).then_some(index as u16)
    })
}

/// For each operation of a program and after its last, what is known from there on: `at` makes it of the operation, of what is known
/// behind it and of what is known where it jumps to, until nothing changes.
pub(crate) fn backwards<T: Clone + Default + PartialEq>(
    machine: &Machine,
    program: &[Op],
    at: impl Fn(&Op, T, T) -> T,
) -> Vec<T> {
    let mut known = alloc::vec![T::default(); program.len() + 1];
    loop {
        let mut changed = false;
        for (index, op) in program.iter().enumerate().rev() {
            let jump = op.facts(machine).jump;
            let elsewhere = jump.map_or(T::default(), |Jump { to, .. }| {
                known[usize::from(to)].clone()
            });
            let now = at(op, known[index + 1].clone(), elsewhere);
            changed |= now != known[index];
            known[index] = now;
        }
        if !changed {
            return known;
        }
    }
}
