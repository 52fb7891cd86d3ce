//! How much memory a search may take.

/// Where the system does not say what is available.
const FALLBACK_BYTES: u64 = 2 << 30;

/// The bytes that a search takes at most where nobody gave a limit: three quarters of what the system has available
/// now, so that it never swaps. Linux only; elsewhere 2 GiB.
#[must_use]
pub fn default_limit_bytes() -> u64 {
    available_bytes().map_or(FALLBACK_BYTES, |bytes| bytes / 4 * 3)
}

/// What a program takes that searches nothing.
const PROGRAM_BYTES: u64 = 12 << 20;

/// The bytes that are left for a search where all of the program may take so many, or [`default_limit_bytes`].
#[must_use]
pub fn for_a_search(limit_bytes: Option<u64>) -> u64 {
    let bytes = limit_bytes.unwrap_or_else(default_limit_bytes);
    bytes - PROGRAM_BYTES.min(bytes / 4)
}

/// Whether the system has so many bytes to give now: others may have taken what it had when a limit was set. True where
/// it does not say.
pub(super) fn has_room_for(bytes: u64) -> bool {
    available_bytes().is_none_or(|available| bytes < available)
}

/// The bytes that the system has available now, where it says that.
fn available_bytes() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let system = field_bytes(&info, "MemAvailable:")?;
    // A container's own limit may be lower; what it takes counts the files that it has read, which make room for others.
    // Source: Documentation/admin-guide/cgroup-v2.rst, memory.max and memory.stat.
    let read = |file: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok();
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    let group = number("memory.max").map(|max| {
        let files = read("memory.stat").map_or(0, |stat| files_bytes(&stat));
        let taken = number("memory.current").unwrap_or(0).saturating_sub(files);
        max.saturating_sub(taken)
    });
    Some(group.map_or(system, |group| group.min(system)))
}

fn field_bytes(info: &str, name: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The bytes of files that a control group keeps and could read again.
fn files_bytes(stat: &str) -> u64 {
    let lines = stat.lines().filter_map(|line| line.split_once(' '));
    let files = lines.filter(|(name, _)| matches!(*name, "active_file" | "inactive_file"));
    files
        .filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::{field_bytes, files_bytes};

    #[test]
    fn files_that_a_group_could_read_again_are_not_taken() {
        let stat = "anon 5\nfile 70\ninactive_anon 2\ninactive_file 40\nactive_file 20\n";
        assert_eq!(files_bytes(stat), 60);
        assert_eq!(files_bytes(""), 0);
    }

    #[test]
    fn the_available_memory_is_read_in_kib() {
        let info = "MemTotal: 100 kB\nMemAvailable:   42 kB\n";
        assert_eq!(field_bytes(info, "MemAvailable:"), Some(42 * 1024));
        assert_eq!(field_bytes("nothing", "MemAvailable:"), None);
    }
}
