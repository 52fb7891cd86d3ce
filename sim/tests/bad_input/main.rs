//! Bad input, and output that goes nowhere: an error that says where and what instead, exit code 2, no panic, no memory
//! or time without bound; and a verdict that is there is told.

mod command_line;
mod fuzz;
mod limits;
mod scenarios;

use std::path::Path;
use std::process::{Child, Command, Output};

/// The program, in a directory of its own.
fn dirtysim(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirtysim"));
    command.current_dir(dir).args(args);
    command
}

/// Its output, and its exit code; a panic has another.
fn ran(dir: &Path, args: &[&str]) -> (i32, Output) {
    let output = dirtysim(dir, args).output().expect("the binary runs");
    (output.status.code().expect("no signal ended it"), output)
}

/// What it says on standard error.
fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// Presses Ctrl-C.
fn interrupt(child: &Child) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -INT {id}");
}
