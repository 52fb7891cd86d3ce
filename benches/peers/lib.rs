//! What tests and benchmarks share: the model's graph for other model checkers, those checkers, and programs measured.
//!
//! Not published, and no part of the program.

pub mod arguments;
pub mod graph;
pub mod in_stateright;
pub mod measure;
pub mod rumur;
pub mod sizes;
pub mod spin;
