//! The binary `dirtysim`.

fn main() -> std::process::ExitCode {
    dirtysim::cli::main()
}
