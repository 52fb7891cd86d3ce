//! What is wrong with a step is said with the word that the language has for it; the rows of the language are what is read and what is
//! documented.

use std::path::Path;

use dirtysim::scenario::Scenario;
use dirtysim::scenario::vocabulary::{VOCABULARY, table};
use dirtysim::search::{Options, Verdict, check};
use dirtysim_model::oracle::Invariant;

#[test]
fn a_kernel_writer_without_pages_is_named_by_its_own_word() {
    for word in [
        "its-save-tables",
        "save-pending-tables",
        "its-restore-tables",
        "kernel-write",
    ] {
        let text = format!(
            r#"
name = "no-pages"
[machine]
arch = "arm64"
vcpus = 1
pages = 2
[protocol]
steps = ["enable-logging", "pause-vcpus", "{word}", "finish"]
"#
        );
        let error = Scenario::from_toml("no-pages.toml", &text).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains(&format!("`{word}` does not say which pages it writes")),
            "{error}"
        );
    }
}

#[test]
fn the_pages_table_of_words_is_made_of_the_rows() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scenarios.md");
    dirtysim_expected::section(&page, "words", &table());
}

/// Keys of tables around steps, which an error names as well.
const AROUND: [&str; 9] = [
    "at",
    "forever",
    "until_clean",
    "any_number",
    "each_chunk",
    "try",
    "repeat",
    "lock",
    "step",
];

#[test]
fn a_word_takes_the_keys_of_its_row_and_no_other() {
    for (word, keys, _) in VOCABULARY {
        // What a key needs beside it is given, so that the one key that is wrong is all that is.
        let given = match *word {
            "vmm-write" | "host-age" | "host-unmap" => "page = 0,",
            "its-save-tables"
            | "save-pending-tables"
            | "its-restore-tables"
            | "kernel-write"
            | "pre-fault"
            | "drop-free"
            | "end-free"
            | "mark-queues" => "pages = [0],",
            "join-thread" => "thread = 1,",
            "signal" | "wait" | "take-lock" | "drop-lock" => "name = \"asked\",",
            "remove-slot" | "move-slot" | "set-user-memory-region" => "slot = \"ram\",",
            "send" => "page = 0,",
            _ => "",
        };
        let text = format!(
            r#"
name = "keys"
[machine]
arch = "x86"
vcpus = 1
pages = 2
ring = {{ entries = 4, reserved = 2 }}
[writers]
always_dirty = [1]
send_failures = 1
devices = [{{ name = "net", transfers = 1, pages = [0] }}]
[protocol]
steps = [{{ step = "{word}", {given} nonsense = 1 }}, "copy", "finish"]
[[protocol.threads]]
name = "other"
steps = ["copy"]
"#
        );
        let error = Scenario::from_toml("keys.toml", &text).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("unknown key `nonsense`"), "{word}: {error}");
        let (_, has) = error.split_once(" has: ").expect("it says what there is");
        let has = has.replace("; around steps: ", ", ");
        let mut has: Vec<&str> = has
            .trim()
            .split(", ")
            .filter(|key| !AROUND.contains(key))
            .collect();
        has.sort_unstable();
        let mut row = keys.to_vec();
        row.sort_unstable();
        assert_eq!(has, row, "{word}: {error}");
    }
}

/// What is wrong with a protocol of two threads.
fn wrong(first: &str, second: &str) -> String {
    let text = format!(
        r#"
name = "signals"
[machine]
arch = "x86"
vcpus = 1
pages = 1
[protocol]
steps = ["enable-logging", "copy-all", {first}, "finish"]
[[protocol.threads]]
name = "answers"
steps = [{second}]
"#
    );
    match Scenario::from_toml("signals.toml", &text) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_signal_has_two_sides_and_comes_before_what_waits_for_it() {
    let ask = r#"{ signal = "asked" }, { wait = "answered" }"#;
    let long = r#"{ step = "wait", name = "asked" }, { step = "signal", name = "answered" }"#;
    assert_eq!(wrong(ask, long), "");
    for (first, second, says) in [
        (
            ask,
            r#"{ wait = "asked" }"#,
            "`answered` is waited for, and nobody signals it",
        ),
        (
            r#"{ signal = "asked" }"#,
            r#""copy""#,
            "`asked` is signalled, and nobody waits for it",
        ),
        (
            ask,
            r#"{ wait = "asked" }, { signal = "answred" }"#,
            "did you mean `answred`?",
        ),
        (
            ask,
            r#"{ wait = "answered" }, { signal = "answered" }, { wait = "asked" }"#,
            "the step before it waits for `answered`, which no step that is reached signals",
        ),
        (
            r#"{ signal = "asked", name = "x" }"#,
            r#"{ wait = "asked" }"#,
            "unknown key `name`",
        ),
        (r#"{ signal = true }"#, r#""copy""#, "`name` is"),
        (r#""wait""#, r#""copy""#, "`wait` without `name`"),
    ] {
        let error = wrong(first, second);
        assert!(error.contains(says), "{first} / {second}: {error}");
        assert!(error.contains("signals.toml:"), "{error}");
    }
    let many: Vec<String> = (0..9)
        .map(|signal| format!("{{ signal = \"s{signal}\" }}"))
        .collect();
    assert!(wrong(&many.join(", "), r#""copy""#).contains("more than 8 signals"));
}

#[test]
fn linux_5_15_refuses_what_it_has_not_and_oopses_where_a_ring_wants_a_vcpu() {
    let scenario = |machine: &str, step: &str| {
        let text = format!(
            "name = \"old\"\nclaims = [\"nothing_crashes\"]\n[machine]\n{machine}\nkernel = \"5.15\"\npages = 1\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", {step}, \"finish\"]\n"
        );
        Scenario::from_toml("old.toml", &text).map_err(|error| error.to_string())
    };
    let ring = "ring = { entries = 4, reserved = 2 }";
    for (machine, refused) in [
        (
            format!("arch = \"arm64\"\n{ring}"),
            "a dirty ring on arm64 with Linux 5.15",
        ),
        (
            format!("arch = \"x86\"\n{ring}\nring_with_bitmap = true"),
            "ring with bitmap on x86",
        ),
        (
            "arch = \"riscv\"".to_owned(),
            "Linux 5.15 on riscv: no KVM there before 5.16",
        ),
        (
            "arch = \"s390\"".to_owned(),
            "Linux 5.15 on s390: nobody has read",
        ),
    ] {
        let error = scenario(&machine, "\"pause-vcpus\"").unwrap_err();
        assert!(error.contains(refused), "{error}");
    }
    let step = "{ step = \"kernel-write\", pages = [0] }, \"copy\"";
    for (machine, crashes) in [
        (format!("arch = \"x86\"\n{ring}"), true),
        ("arch = \"x86\"".to_owned(), false),
    ] {
        let scenario = scenario(&machine, step).unwrap();
        let report = check(&scenario, &Options::default(), &|_| true).unwrap();
        let broken = report.broken.has(Invariant::NothingCrashes);
        assert_eq!(
            broken, crashes,
            "{machine}: {:?} {:?}",
            report.verdict, report.broken
        );
    }
}

/// Every claim, whatever of the step's row is taken for unknown there.
#[test]
fn a_write_without_a_vcpu_is_still_owed_on_linux_5_15() {
    let text = r#"
name = "owed"
[machine]
arch = "x86"
kernel = "5.15"
pages = 2
[writers]
vcpu = { stores = 1 }
[protocol]
steps = ["enable-logging", "copy-all", { step = "kernel-write", pages = [1] }, "pause-vcpus", "get-dirty-log", "copy", "finish"]
"#;
    let scenario = Scenario::from_toml("owed.toml", text).unwrap();
    let report = check(&scenario, &Options::default(), &|_| true).unwrap();
    assert_eq!(report.verdict, Verdict::Holds, "{:?}", report.broken);
}
