//! What the binary asks of its allocator: what is freed goes back to the system, or to whoever allocates next, so that
//! `--max-memory` holds for all that a search does in turn.

#[cfg(feature = "jemalloc")]
mod jemalloc {
    use tikv_jemallocator::Jemalloc;

    /// The threads of a search grow and free what others of them allocated, for which the system's allocator may make them
    /// wait for each other. On two cores nothing came of that.
    #[global_allocator]
    static ALLOCATOR: Jemalloc = Jemalloc;

    /// What jemalloc reads when it starts. Whatever takes a MiB or more goes back to the system when it is freed, and not
    /// seconds later: tables that have grown are not to count twice against `--max-memory`.
    // An exported name could clash with another; nothing else has this one.
    #[used]
    #[unsafe(export_name = "_rjem_malloc_conf")]
    static CONF: &[u8; 27] = b"oversize_threshold:1048576\0";
}

/// Sets the C library's allocator up, where it is glibc's; to be called before there are threads.
///
/// By itself it keeps what a thread freed for that thread, and each table that is freed makes it keep larger ones: a run
/// was seen to take half as much again as its limit, when nothing of a search was left but the room that its threads had
/// kept. With one arena a next part finds the room of the one before (two threads search as fast), and whatever takes a MiB
/// goes back at once. Source: mallopt(3), M_ARENA_MAX and M_MMAP_THRESHOLD.
pub(crate) fn set_up() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(feature = "jemalloc")))]
    for (parameter, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, 1 << 20)] {
        // SAFETY: it takes two numbers, and nobody allocates beside this thread. What is refused stays as it was, which is
        // slower to give back and nothing else.
        let _ = unsafe { libc::mallopt(parameter, value) };
    }
}
