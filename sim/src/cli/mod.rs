//! What only the binary needs: arguments in, text and exit codes out.

pub mod cost;
