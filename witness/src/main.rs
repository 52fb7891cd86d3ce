//! `dirtysim-witness`: a real kernel beside the model. `dirtysim-witness --help` says how it is used.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    dirtysim_witness::cli::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("error: dirtysim-witness needs Linux: it performs calls on /dev/kvm");
    ExitCode::from(2)
}
