//! What lies ahead of a thread in its program.

use alloc::vec::Vec;

use crate::machine::{Ahead, Machine, Op};
use crate::words::Jump;

/// Computes [`Machine::ahead`] from the programs; to be called after they change.
pub fn look_ahead(machine: &mut Machine) {
    machine.ahead = machine
        .programs
        .iter()
        .map(|program| {
            backwards(machine, program, |op, next: Ahead, elsewhere: Ahead| {
                let facts = op.facts(machine);
                // Nothing is sure to come behind a jump that is always taken.
                let next = if facts.jump.is_some_and(|jump| jump.always) {
                    Ahead::default()
                } else {
                    next
                };
                Ahead {
                    full_copy: elsewhere.full_copy || next.full_copy || facts.full_copy,
                    resume: elsewhere.resume || next.resume || facts.resumes,
                }
            })
        })
        .collect();
}

/// For each operation of a program and after its last, what is known from there on: `at` makes it of the operation, of what is known
/// behind it and of what is known where it jumps to, until nothing changes.
pub(crate) fn backwards<T: Copy + Default + PartialEq>(
    machine: &Machine,
    program: &[Op],
    at: impl Fn(&Op, T, T) -> T,
) -> Vec<T> {
    let mut known = alloc::vec![T::default(); program.len() + 1];
    loop {
        let mut changed = false;
        for (index, op) in program.iter().enumerate().rev() {
            let jump = op.facts(machine).jump;
            let elsewhere = jump.map_or(T::default(), |Jump { to, .. }| known[usize::from(to)]);
            let now = at(op, known[index + 1], elsewhere);
            changed |= now != known[index];
            known[index] = now;
        }
        if !changed {
            return known;
        }
    }
}
