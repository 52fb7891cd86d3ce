//! The debate of 2022 on KVM's list, claim by claim: decided, with the evidence.
//!
//! [`claim`] reads the claims and [`own`] somebody's own, [`expand`] makes scenarios of their cases, [`decide`] decides each scenario by
//! exhaustive search, [`calls`] asks the model's ioctls, [`judge`] draws the verdict from what was found, and
//! [`report`] writes it down for people.
//!
//! ```
//! use dirtysim_debate::debate::claim::claims;
//!
//! assert!(claims().iter().any(|claim| claim.id == "C1"));
//! ```

pub mod calls;
pub mod claim;
pub mod decide;
pub mod expand;
pub mod figures;
pub mod judge;
pub mod lanes;
pub mod own;
pub mod report;
