//! The binary `dirtysim`.

/// A search's threads grow and free what others have allocated, for which the system's allocator may make them wait.
#[cfg(all(unix, feature = "jemalloc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    dirtysim::cli::main()
}
