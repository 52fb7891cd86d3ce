//! What lets a search look at less: states as bits, what a step depends on, pages and vCPUs that are alike, steps that need no
//! interleaving. Types and algorithms; what they know of operations comes from the rows, and of fields from the walk.

pub mod footprint;
pub mod independence;
pub mod pack;
pub mod symmetry;
mod widths;
