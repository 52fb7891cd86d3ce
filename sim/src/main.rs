//! The binary `dirtysim`.

mod allocator;

fn main() -> std::process::ExitCode {
    allocator::set_up();
    dirtysim::cli::main()
}
