//! What two real kernels did, on the model: no divergence, and nothing skipped silently.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use dirtysim::replay::calls::{CallReplay, replay};
use dirtysim::trace::TraceReader;
use dirtysim_model::mutation::{Mutation, Mutations};

fn stored(recording: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(
        root.join("traces/kernel")
            .join(format!("{recording}.trace.jsonl")),
    )
    .expect("the stored trace")
}

fn replayed(text: &str, mutations: Mutations) -> CallReplay {
    let reader = TraceReader::new(Cursor::new(text.as_bytes()), "recording")
        .unwrap_or_else(|error| panic!("{error}"));
    replay(reader, "recording", mutations).unwrap_or_else(|error| panic!("{error}"))
}

/// Calls and results of each recording, as `grep -c '"call"'` and a count of the keys in `result` give them.
#[test]
fn both_recordings_replay_without_divergence_and_the_counts_are_pinned() {
    let arm64 = replayed(&stored("arm64-linux-6.12.117"), Mutations::default());
    assert_eq!(arm64.divergences, []);
    assert_eq!((arm64.calls, arm64.compared), (558, 861));
    assert_eq!(arm64.not_modelled, BTreeMap::new());

    let x86 = replayed(&stored("x86-linux-6.18.44"), Mutations::default());
    assert_eq!(x86.divergences, []);
    assert_eq!((x86.calls, x86.compared), (753, 1239));
    assert_eq!(
        x86.not_modelled,
        BTreeMap::from([("mmap outside the ring", 2)])
    );
}

/// For each kind of call with a result: the first recorded one, with its result changed, diverges at exactly its line.
#[test]
fn one_changed_result_of_each_kind_of_call_diverges_at_its_line() {
    let changes = [
        (
            "arm64-linux-6.12.117",
            "KVM_ENABLE_CAP",
            r#""ret":-1,"errno":"EINVAL""#,
            r#""ret":-1,"errno":"EPERM""#,
        ),
        (
            "arm64-linux-6.12.117",
            "KVM_RUN",
            r#""stores_retired":191,"#,
            r#""stores_retired":192,"#,
        ),
        (
            "arm64-linux-6.12.117",
            "harvest",
            "[[1,1,1,10]]",
            "[[1,1,2,10]]",
        ),
        (
            "arm64-linux-6.12.117",
            "ring_peek",
            r#""stop_flags":0"#,
            r#""stop_flags":2"#,
        ),
        (
            "arm64-linux-6.12.117",
            "read_page",
            r#""value":"0x5a5a""#,
            r#""value":"0x0""#,
        ),
        (
            "arm64-linux-6.12.117",
            "KVM_RESET_DIRTY_RINGS",
            r#""ret":10"#,
            r#""ret":9"#,
        ),
        (
            "arm64-linux-6.12.117",
            "KVM_GET_DIRTY_LOG",
            r#""4":"0x13000100030000""#,
            r#""4":"0x13000100020000""#,
        ),
        (
            "arm64-linux-6.12.117",
            "its_reg_write",
            r#""creadr_after":"0xe0""#,
            r#""creadr_after":"0xc0""#,
        ),
        (
            "x86-linux-6.18.44",
            "KVM_SET_USER_MEMORY_REGION",
            r#""ret":-1,"errno":"EINVAL""#,
            r#""ret":0"#,
        ),
        (
            "x86-linux-6.18.44",
            "KVM_CLEAR_DIRTY_LOG",
            r#""ret":-1,"errno":"ENOENT""#,
            r#""ret":-1,"errno":"EINVAL""#,
        ),
        (
            "arm64-linux-6.12.117",
            "mmap_ring",
            r#""touch":"SIGBUS""#,
            r#""touch":"ok""#,
        ),
        (
            "x86-linux-6.18.44",
            "KVM_CHECK_EXTENSION",
            r#""ret":1048576"#,
            r#""ret":65536"#,
        ),
    ];
    for (recording, call, from, to) in changes {
        let text = stored(recording);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let name = format!(r#""call":"{call}""#);
        let at = lines
            .iter()
            .position(|line| line.contains(&name) && line.contains(from))
            .unwrap_or_else(|| panic!("{recording}: no {call} with {from}"));
        lines[at] = lines[at].replace(from, to);
        let replay = replayed(&(lines.join("\n") + "\n"), Mutations::default());
        assert!(!replay.divergences.is_empty(), "{call}: {from} -> {to}");
        for divergence in &replay.divergences {
            assert_eq!(
                (divergence.line, divergence.call),
                (at as u64 + 1, call),
                "{from} -> {to}"
            );
        }
    }
}

/// A model that is wrong disagrees with the kernel.
#[test]
fn mutations_that_a_recording_can_see_diverge_from_it() {
    let seen = [
        ("arm64-linux-6.12.117", Mutation::ClearNoRearm),
        ("arm64-linux-6.12.117", Mutation::NonVcpuDrop),
        ("arm64-linux-6.12.117", Mutation::NonVcpuVcpu0),
        ("arm64-linux-6.12.117", Mutation::FaultNoMark),
        ("arm64-linux-6.12.117", Mutation::RingNoRequest),
        ("x86-linux-6.18.44", Mutation::ResetBatchFirstOnly),
        ("x86-linux-6.18.44", Mutation::RingSoftFullLate),
        ("x86-linux-6.18.44", Mutation::ClearRoundFloor),
        ("x86-linux-6.18.44", Mutation::EnableNoProtect),
    ];
    for (recording, mutation) in seen {
        let mut mutations = Mutations::default();
        mutations.switch_on(mutation);
        let replay = replayed(&stored(recording), mutations);
        assert!(
            !replay.divergences.is_empty(),
            "{recording} does not see {}",
            mutation.name()
        );
    }
}

/// What a stranger's trace may claim, and what is said of it.
#[test]
fn calls_about_what_is_not_there_are_errors_with_their_line() {
    let header = r#"{"format":"dirtysim-trace","version":1,"kind":"call","machine":{"arch":"arm64","kernel":"6.12.117","page_size":4096,"ring_page_offset":64}}"#;
    let begin = r#"{"section":"A","title":"a"}
{"vm":1,"call":"KVM_CREATE_VM","result":{"ret":0}}"#;
    let region = |npages: u64, gpa: &str| {
        format!(
            r#"{{"vm":1,"call":"KVM_SET_USER_MEMORY_REGION","slot":0,"as_id":0,"flags":1,"gpa":"{gpa}","npages":{npages},"mem":"m","mem_offset":0,"populated":false,"huge":false,"result":{{"ret":0}}}}"#
        )
    };
    let wrong = [
        (r#"{"vm":2,"call":"KVM_RESET_DIRTY_RINGS","result":{"ret":0}}"#.to_owned(), "no VM 2"),
        (r#"{"vm":1,"call":"vcpu_init","vcpu":9,"mode":"x","result":{"ret":0}}"#.to_owned(), "no vCPU 9"),
        (r#"{"vm":1,"call":"ring_peek","vcpu":0,"fetch_index":0,"result":{"count":0,"entries":[],"stop_flags":0}}"#.to_owned(), "no vCPU 0"),
        (r#"{"vm":1,"call":"read_page","slot":7,"page":0,"result":{"value":"0x0"}}"#.to_owned(), "no memslot 7"),
        (region(1 << 60, "0x0"), ""),
    ];
    for (line, message) in wrong {
        let text = format!("{header}\n{begin}\n{line}\n");
        let read = TraceReader::new(Cursor::new(text.as_bytes()), "stranger.jsonl")
            .unwrap_or_else(|error| panic!("{error}"));
        let error = replay(read, "stranger.jsonl", Mutations::default())
            .expect_err(&line)
            .to_string();
        assert!(
            error.contains("stranger.jsonl:4:") && error.contains(message),
            "{error}"
        );
    }
    // A guest of 2^31 - 1 pages is legal and costs what is touched.
    let text = format!("{header}\n{begin}\n{}\n", region((1 << 31) - 1, "0x0"));
    assert_eq!(replayed(&text, Mutations::default()).divergences, []);
}
