//! The historical bugs: each is a scenario with a wrong behaviour switched on, and holds with it switched off.
//!
//! Names and texts only. Not here: reading them (`scenario`); how a bug is found and shortened (`reproduce`).
//!
//! ```
//! use dirtysim_check::bugs::{BUGS, Bug};
//!
//! let first = &BUGS[0];
//! assert_eq!(Bug::by_id(first.id), Some(first));
//! ```

mod corpus;
mod kills;

use dirtysim_model::oracle::Invariant;

pub use corpus::BUGS;
pub use kills::MUTATION_SCENARIOS;

/// What a bug does to its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oracle {
    /// The destination differs from the source.
    Lost,
    /// A page is reported though nobody wrote it.
    Spur,
    /// Nothing goes on.
    Stuck,
    /// A call's contract is broken.
    Abi,
    /// The kernel or the VMM crashes.
    Crash,
}

impl Oracle {
    /// The name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "LOST",
            Self::Spur => "SPUR",
            Self::Stuck => "STUCK",
            Self::Abi => "ABI",
            Self::Crash => "CRASH",
        }
    }

    /// Whether breaking `invariant` is what this oracle sees. A call in a state that does not allow it ends the VMM, so that
    /// [`Oracle::Abi`] has `nothing_crashes` among its invariants.
    #[must_use]
    pub const fn sees(self, invariant: Invariant) -> bool {
        match self {
            Self::Lost => matches!(
                invariant,
                Invariant::NoDirtyPageLost | Invariant::StalePageIsAccountedFor
            ),
            Self::Spur => matches!(invariant, Invariant::NoSpuriousDirtyPage),
            Self::Stuck => matches!(invariant, Invariant::MigrationMakesProgress),
            Self::Abi => matches!(
                invariant,
                Invariant::ResetCountEqualsHarvested
                    | Invariant::BitmapEndsAtNpages
                    | Invariant::DirtyGfnFollowsLifecycle
                    | Invariant::TlbIsFlushedOnReturn
                    | Invariant::RingNeverOverflows
                    | Invariant::NothingCrashes
            ),
            Self::Crash => matches!(invariant, Invariant::NothingCrashes),
        }
    }
}

/// How a bug is reproduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reproduction {
    /// By these scenarios, each by name and text; the first is the bug's main one.
    Scenarios(&'static [(&'static str, &'static str)]),
    /// Not at all, for this reason.
    NotExpressible(&'static str),
}

/// A historical bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bug {
    /// Its number in the corpus: K kernel, Q QEMU, F Firecracker, C cloud-hypervisor, P Propolis.
    pub id: &'static str,
    /// What was wrong, in a few words.
    pub title: &'static str,
    /// The year of its fix or report.
    pub year: u16,
    /// Commit or issue.
    pub source: &'static str,
    /// What it does to its user.
    pub oracle: Oracle,
    /// How it is reproduced.
    pub how: Reproduction,
}

impl Bug {
    /// The bug of that number, in either case.
    #[must_use]
    pub fn by_id(id: &str) -> Option<&'static Self> {
        BUGS.iter().find(|bug| bug.id.eq_ignore_ascii_case(id))
    }
}

/// The scenarios of bugs and mutations, by name and text.
pub(crate) fn scenario_files() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    BUGS.iter()
        .flat_map(|bug| match bug.how {
            Reproduction::Scenarios(files) => files,
            Reproduction::NotExpressible(_) => &[],
        })
        .chain(MUTATION_SCENARIOS)
}
