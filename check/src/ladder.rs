//! The ladder of layouts: a scenario starts on the lowest rung that has room for it.
//!
//! What is done with a state, whatever its layout, is written once; the macros `on_packed!` and `on_any!` do it on the
//! rung.

use dirtysim_model::state::State;
use dirtysim_model::state::layout::{Large, Medium, Small};

use crate::scenario::{NoRoom, Scenario};

/// A scenario's first state on a rung of a fixed size, whose states have a number of bits: for searches.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "one is held at a time, and taken apart at once"
)]
pub enum Packed {
    /// The smallest.
    Small(State<Small>),
    /// The larger of the two.
    Medium(State<Medium>),
}

impl Packed {
    /// The first state of a scenario.
    ///
    /// # Errors
    /// What no rung of a fixed size has room for.
    pub fn start(scenario: &Scenario) -> Result<Self, NoRoom> {
        match scenario.start() {
            Ok(start) => Ok(Self::Small(start)),
            Err(_) => scenario.start().map(Self::Medium),
        }
    }
}

/// A scenario's first state on any rung.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "one is held at a time, and taken apart at once"
)]
pub enum Any {
    /// On one of a fixed size.
    Packed(Packed),
    /// On the last, which grows.
    Large(State<Large>),
}

impl Any {
    /// The first state of a scenario.
    ///
    /// # Panics
    /// Never: the last rung has room for every scenario.
    #[must_use]
    pub fn start(scenario: &Scenario) -> Self {
        match Packed::start(scenario) {
            Ok(start) => Self::Packed(start),
            Err(_) => Self::Large(large(scenario)),
        }
    }
}

/// The first state of a scenario on the last rung, for what takes a few schedules and is written for one layout.
///
/// # Panics
/// Never: the last rung has room for every scenario.
#[must_use]
pub fn large(scenario: &Scenario) -> State<Large> {
    scenario
        .start()
        .expect("the large layout has room for every scenario")
}

/// Does something with a `Packed`, whatever its layout.
macro_rules! on_packed {
    ($start:expr, |$state:ident| $work:expr) => {
        match $start {
            $crate::ladder::Packed::Small($state) => $work,
            $crate::ladder::Packed::Medium($state) => $work,
        }
    };
}

/// Does something with an `Any`, whatever its layout.
macro_rules! on_any {
    ($start:expr, |$state:ident| $work:expr) => {
        match $start {
            $crate::ladder::Any::Packed(start) => {
                $crate::ladder::on_packed!(start, |$state| $work)
            }
            $crate::ladder::Any::Large($state) => $work,
        }
    };
}

pub(crate) use {on_any, on_packed};
