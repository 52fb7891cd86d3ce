//! What the language has, as its reader tells it: a key or a word that it does not know is answered with those that it does.

use dirtysim::scenario::Scenario;

/// A scenario that has every table, each by the name that [`Words`](crate::words::Words) gives it.
pub(crate) const TABLES: &[(&str, &str)] = &[
    ("", "name = \"all\""),
    (
        ".machine",
        "[machine]\narch = \"x86\"\nmmu = \"two-dimensional\"\nvcpus = 2",
    ),
    (".machine.ring", "[machine.ring]\nentries = 4\nreserved = 2"),
    (".slots", "[[slots]]\nname = \"ram\"\npages = 1"),
    (
        ".writers",
        "[writers]\nsend_failures = 1\nalways_dirty = [0]",
    ),
    (".writers.vcpu", "[writers.vcpu]\nstores = 1"),
    (".writers.vcpu.each", "[[writers.vcpu.each]]\nvcpu = 0"),
    (
        ".writers.kernel_record",
        "[writers.kernel_record]\nupdates = 1\npage = 0\nvcpu = 0",
    ),
    (
        ".writers.emulated_stores",
        "[writers.emulated_stores]\nstores = 1\npage = 0\nvcpu = 1",
    ),
    (".writers.its_save", "[writers.its_save]\ntables = [0]"),
    (
        ".writers.pending_save",
        "[writers.pending_save]\ntables = [0]",
    ),
    (
        ".writers.its_restore",
        "[writers.its_restore]\ntables = [0]",
    ),
    (
        ".writers.kernel_write",
        "[writers.kernel_write]\ntables = [0]",
    ),
    (".writers.devices", "[[writers.devices]]\ntransfers = 1"),
    (".protocol", "[protocol]"),
    ("step", "[[protocol.steps]]\nstep = \"finish\""),
    (
        ".protocol.threads",
        "[[protocol.threads]]\nsteps = [\"copy\"]",
    ),
];

/// What the reader says that there is, where a table has `more`, in place of its lines with the same keys.
pub(crate) fn instead_of(table: &str, more: &str) -> Vec<String> {
    let key = |line: &str| line.split(' ').next().map(str::to_owned);
    let others: Vec<_> = more.lines().map(key).collect();
    let mut text = String::new();
    for (name, lines) in TABLES {
        let stays = |own: &&str| *name != table || !others.contains(&key(own));
        for line in lines.lines().filter(stays) {
            text.push_str(&format!("{line}\n"));
        }
        if *name == table {
            text.push_str(&format!("{more}\n"));
        }
    }
    let error = Scenario::from_toml("all", &text).expect_err("it has a word that nobody knows");
    let error = error.to_string();
    let mut list = [" has: ", "known: "]
        .iter()
        .filter_map(|before| error.split_once(before));
    let Some((_, list)) = list.next() else {
        panic!("no list in: {error}\n{text}");
    };
    list.replace("; around steps: ", ", ")
        .split(", ")
        .map(|word| word.trim().to_owned())
        .collect()
}
