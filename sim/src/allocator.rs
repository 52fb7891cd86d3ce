//! The allocator of the binary with the feature `jemalloc`. The threads of a search grow and free what others of them
//! allocated, for which the system's allocator may make them wait for each other. On two cores nothing came of that.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// What jemalloc reads when it starts. Whatever takes a MiB or more goes back to the system when it is freed, and not seconds
/// later: tables that have grown are not to count twice against `--max-memory`.
// An exported name could clash with another; nothing else has this one.
#[used]
#[unsafe(export_name = "_rjem_malloc_conf")]
static CONF: &[u8; 27] = b"oversize_threshold:1048576\0";
