//! The words that everything else is said in: architectures, kernels, KVM's numbers, errnos, who acts and how, the names of steps.
//!
//! Nothing here knows a machine or a state.
//!
//! ```
//! use dirtysim_model::words::{Arch, Errno};
//!
//! assert_eq!(Arch::ALL.iter().filter(|arch| arch.name() == "arm64").count(), 1);
//! assert_eq!((Errno::EINVAL as i32, Errno::EINVAL.name()), (22, "EINVAL"));
//! ```

pub mod arch;
pub mod claims;
pub mod constants;
pub mod errno;
pub mod fault;
pub mod fields;
pub mod kernel;
pub mod mutation;
pub mod page;
pub mod row;
pub mod rule;
pub mod sizes;
pub mod step;
pub mod waits;
pub mod word;

pub use arch::{Arch, Mmu};
pub use claims::{Invariant, Invariants};
pub use errno::Errno;
pub use fields::{Fields, Reach, Written};
pub use kernel::Kernel;
pub use mutation::{Mutation, Mutations};
pub use row::{Counts, Duty, Facts, Jump, Names, Row};
pub use rule::Rule;
pub use sizes::Constants;
pub use step::{Actor, Choice, Effect, Found, ResetCount, Step};
pub use waits::Waits;
pub use word::Word;

pub use page::{Frame, HostPage, NO_FRAME, Offset, Page, Subject};
