//! Other tools' logs.
pub mod ftrace;
pub mod perf;
pub mod prefix;
pub mod qemu;
pub mod tracepoint;

mod cursor;
