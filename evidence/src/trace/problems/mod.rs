//! The causes of problems, by where they stand: in a field, in the header, in a row, in a call that is to be replayed, in a log, in a mail.

mod call;
mod field;
mod header;
mod log;
mod row;
mod schedule;

pub use call::CallProblem;
pub use field::FieldProblem;
pub use header::HeaderProblem;
pub use log::{Apart, LogProblem};
pub use row::RowProblem;
pub use schedule::ScheduleProblem;
