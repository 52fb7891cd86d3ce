//! What the command line says to input that makes no sense: a sentence on standard error, exit code 2, nothing on standard output.
#![cfg(target_os = "linux")]

use std::process::{Command, Output};

fn witness(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dirtysim-witness"))
        .args(arguments)
        .output()
        .expect("the binary runs")
}

#[test]
fn bad_arguments_are_named_and_end_with_code_2() {
    for (arguments, said) in [
        (&[][..], "no command"),
        (&["bogus"], "no command `bogus`"),
        (&["lockstep", "--seeds", "5..3"], "write A..B"),
        (&["lockstep", "--sedes", "0..3"], "no option `--sedes`"),
        (
            &["record", "/nowhere/script", "-o", "/nowhere/trace"],
            "/nowhere/script",
        ),
        (&["record", "/nowhere/script"], "give `-o TRACE`"),
        (&["live", "--seconds", "soon"], "write a whole number"),
    ] {
        let output = witness(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(said), "{arguments:?}: {errors}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_is_on_standard_output() {
    let output = witness(&["--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("lockstep [--seeds A..B]"));
}
