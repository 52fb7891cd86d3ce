//! What came of reading an event's text, whoever wrote it: the kernel's tracepoints or QEMU.

use crate::trace::observed::Observed;

/// What came of reading the text of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// An event that this tool knows.
    Event(Observed),
    /// An event of another kind.
    Other,
    /// The name is known, the text behind it is not what the kernel writes.
    Damaged,
}
