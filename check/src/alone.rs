//! One operation of a thread, run to its end with nobody else acting.
//!
//! ```
//! use dirtysim_check::alone::finish_op;
//! use dirtysim_check::scenario::builtin;
//! use dirtysim_model::state::{State, layout::Small};
//!
//! let scenario = builtin("kernel-docs").unwrap();
//! let mut machine = scenario.machine.clone();
//! machine.programs = vec![scenario.setup.clone()];
//! let mut state = State::<Small>::new(&machine);
//! assert_eq!(finish_op(&machine, &mut state, 0, |_| ()), Ok(Ok(0)));
//! ```

use dirtysim_model::machine::Machine;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::thread::Answer;
use dirtysim_model::transition::{Actor, Effect, Step, apply, for_each_choice};

/// Why an operation does not come to its end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// The kernel or the VMM has crashed.
    Crashed,
    /// Its next step waits for somebody else.
    Waits,
}

/// Takes the steps of the operation that a thread is at, until it is done; `each` is told what each of them meant.
///
/// # Errors
/// It does not come to its end; the state is as far as it came.
pub fn finish_op<L: Layout>(
    machine: &Machine,
    state: &mut State<L>,
    thread: usize,
    mut each: impl FnMut(Effect),
) -> Result<Answer, Unfinished> {
    let actor = Actor::Thread(thread as u8);
    let at = state.threads[thread].op;
    while state.threads[thread].op == at {
        if state.crashed {
            return Err(Unfinished::Crashed);
        }
        let mut next = None;
        for_each_choice(machine, state, actor, |choice| next = next.or(Some(choice)));
        let choice = next.ok_or(Unfinished::Waits)?;
        each(apply(machine, state, Step { actor, choice }));
    }
    Ok(state.threads[thread].answer)
}
