//! The ladder of layouts: a scenario starts on the layout of a fixed size if that has room for it, and else on the one that grows.
//!
//! What is done with a state, whatever its layout, is written once; the macro `on_any!` does it on the rung. There are two rungs and no
//! more: everything generic over a layout is compiled for each, and a search works on packed states, of which a smaller layout makes
//! none smaller.
//!
//! ```
//! use dirtysim_check::{ladder::small, scenario::builtin};
//!
//! let scenario = builtin("kernel-docs").unwrap();
//! let start = small(&scenario).expect("it is small");
//! assert_eq!(start.threads.len(), scenario.machine.programs.len());
//! ```

use dirtysim_model::state::State;
use dirtysim_model::state::layout::{Large, Small};

use crate::scenario::{NoRoom, Scenario};

/// A scenario's first state on the rung of a fixed size, whose states have a number of bits: for searches.
///
/// # Errors
/// What it has no room for.
pub fn small(scenario: &Scenario) -> Result<State<Small>, NoRoom> {
    scenario.start()
}

/// The first state of a scenario on the rung that grows, for what takes a few schedules and is written for one layout.
///
/// # Panics
/// Never: it has room for every scenario.
#[must_use]
pub fn large(scenario: &Scenario) -> State<Large> {
    scenario
        .start()
        .expect("the large layout has room for every scenario")
}

/// A scenario's first state on the lowest rung that has room for it.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "one is held at a time, and taken apart at once"
)]
pub enum Any {
    /// On the one of a fixed size.
    Small(State<Small>),
    /// On the one that grows.
    Large(State<Large>),
}

impl Any {
    /// The first state of a scenario.
    #[must_use]
    pub fn start(scenario: &Scenario) -> Self {
        match small(scenario) {
            Ok(start) => Self::Small(start),
            Err(_) => Self::Large(large(scenario)),
        }
    }
}

/// Does something with an `Any`, whatever its layout.
macro_rules! on_any {
    ($start:expr, |$state:ident| $work:expr) => {
        match $start {
            $crate::ladder::Any::Small($state) => $work,
            $crate::ladder::Any::Large($state) => $work,
        }
    };
}

pub(crate) use on_any;
