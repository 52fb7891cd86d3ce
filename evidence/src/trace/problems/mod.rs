//! The causes of problems, by where they stand: in a field, in the header, in a row, in a call that is to be replayed.

mod call;
mod field;
mod header;
mod row;

pub use call::CallProblem;
pub use field::FieldProblem;
pub use header::HeaderProblem;
pub use row::RowProblem;
