//! The binary `dirtysim`.

#[cfg(all(unix, feature = "jemalloc"))]
mod allocator;

fn main() -> std::process::ExitCode {
    dirtysim::cli::main()
}
