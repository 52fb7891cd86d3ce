//! Rows of kind `call`: what was asked, and what the answer was.

pub use super::call_args::{Access, GuestLayout, ItsCommand, Program, Prot, Sharing, UserData};
pub use super::call_row::{CallRow, RecordedCall, Section, Unknown};
pub use super::calls::Call;
