//! Traces: what is read is what was written, bad input gives an error that helps, and the schema says the same.

mod bad_import;
mod bad_trace;
mod files;
mod roundtrip;
mod schema;
mod strategies;
