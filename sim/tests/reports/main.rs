//! Inputs from the field, each an example of a kind: their right verdict, or their right error.

use std::process::Command;

use dirtysim::run::{self, Scheduler};
use dirtysim::scenario::{Scenario, builtin_text, builtins};
use dirtysim::search::{self, Options, Reductions, Verdict, liveness};
use dirtysim_model::op::Op;
use dirtysim_model::oracle::Invariant;
use serde_json::Value;

fn read(name: &str, text: &str) -> Result<Scenario, String> {
    Scenario::from_toml(name, text).map_err(|error| error.to_string())
}

fn check(scenario: &Scenario) -> search::Report {
    check_with(scenario, Reductions::ALL)
}

fn check_with(scenario: &Scenario, reductions: Reductions) -> search::Report {
    let options = Options {
        max_states: Some(200_000),
        reductions,
        ..Options::default()
    };
    search::check(scenario, &options, &|_| true).expect("it is small enough")
}

/// That `text` breaks what it says, or holds, by the search with and without reductions; and that schedules say the same, as far as
/// they can.
fn all_say(name: &str, text: &str, broken: Option<Invariant>) {
    let scenario = read(name, text).expect("it is a scenario");
    let verdict = broken.map_or(Verdict::Holds, |_| Verdict::Violated);
    for reductions in [Reductions::ALL, Reductions::NONE] {
        let report = check_with(&scenario, reductions);
        assert_eq!(report.verdict, verdict, "{name}, {reductions:?}");
        assert!(
            broken.is_none_or(|broken| report.broken.has(broken)),
            "{name}"
        );
    }
    let options = run::Options {
        seeds: 0..2_000,
        scheduler: Scheduler::Mix,
        keep_going: false,
    };
    let failure = run::run(&scenario, &options, &|_| true).failure;
    assert_eq!(
        failure.map(|failure| failure.invariant),
        broken,
        "{name}, by schedules"
    );
}

#[test]
fn what_loses_a_page_does_not_hold() {
    for (name, text) in [
        (
            "one-too-many",
            include_str!("false-holds/one-too-many.toml"),
        ),
        (
            "block-beyond-the-frames",
            include_str!("false-holds/block-beyond-the-frames.toml"),
        ),
        (
            "second-thread-get",
            include_str!("false-holds/second-thread-get.toml"),
        ),
        (
            "second-thread-clear",
            include_str!("false-holds/second-thread-clear.toml"),
        ),
        (
            "second-thread-each-chunk",
            include_str!("false-holds/second-thread-each-chunk.toml"),
        ),
        (
            "second-thread-log-off",
            include_str!("false-holds/second-thread-log-off.toml"),
        ),
    ] {
        all_say(name, text, Some(Invariant::NoDirtyPageLost));
    }
}

#[test]
fn the_kernels_record_is_written_once_a_run() {
    let overflows = Some(Invariant::RingNeverOverflows);
    for (name, text, broken) in [
        (
            "ring-full-again-and-again",
            include_str!("steal-time/ring-full-again-and-again.toml"),
            overflows,
        ),
        (
            "waits-after-exit-31",
            include_str!("steal-time/waits-after-exit-31.toml"),
            None,
        ),
        ("x86", include_str!("steal-time/x86.toml"), None),
    ] {
        all_say(name, text, broken);
    }
}

#[test]
fn an_ioctl_that_was_refused_is_told_and_can_be_caught() {
    let text = include_str!("refused/get-without-a-log.toml");
    all_say("get-without-a-log", text, None);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("get-without-a-log.toml");
    std::fs::write(&file, text).expect("written");
    let said = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dirtysim"));
        let output = command
            .args(args)
            .arg(&file)
            .output()
            .expect("the binary runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    for command in ["check", "run"] {
        let words = said(&[command]);
        let wanted = "refused in some schedule: KVM_GET_DIRTY_LOG, ram: ENOENT (thread0, step 4 of";
        assert!(words.contains(wanted), "{words}");
        let document: Value = serde_json::from_str(&said(&["--json", command])).expect("JSON");
        let refused = serde_json::json!([{
            "ioctl": "KVM_GET_DIRTY_LOG, ram", "errno": "ENOENT", "thread": 0, "operation": 3,
        }]);
        assert_eq!(document["refused"], refused);
    }
}

#[test]
fn which_slots_log_is_asked_when_the_step_runs_only_where_the_text_does_not_tell() {
    let looks = |text: &str| {
        let scenario = read("slots.toml", text).expect("it is a scenario");
        let ops = scenario.machine.programs.iter().flatten();
        ops.filter(|op| matches!(op, Op::PassUnless(_))).count()
    };
    let text = include_str!("false-holds/second-thread-get.toml");
    assert_eq!(looks(text), 1, "another thread switches the log on");
    let from_the_start = text
        .replace("pages = 1\n", "")
        .replace(
            "[writers]",
            "[[slots]]\nname = \"ram\"\npages = 1\nlogging = true\n[writers]",
        )
        .replace("\"enable-logging\", ", "");
    assert_eq!(looks(&from_the_start), 0, "nobody changes it");
    let again = text.replace(
        "\"pause-vcpus\"",
        "{ until_clean = [\"get-dirty-log\", \"copy\", \"disable-logging\"] }, \"pause-vcpus\"",
    );
    assert_eq!(looks(&again), 2, "a round changes it for the next");
    let tried = text.replace(
        "\"pause-vcpus\"",
        "{ try = [\"disable-logging\", \"copy\"], on_error = [\"get-dirty-log\", \"end\"] }, \"pause-vcpus\"",
    );
    assert_eq!(looks(&tried), 2, "an attempt may have changed it");
}

#[test]
fn a_push_that_has_begun_ends_whatever_becomes_of_the_log() {
    let text = include_str!("contradict/record-beside-log-off.toml");
    all_say("record-beside-log-off", text, None);
    // As it was reported it claims nothing else, so that nothing is known where that does not break.
    let alone = text
        .replace(", \"pause-vcpus\", \"copy-all\", \"finish\"", "")
        .replace(
            "\"holds\"",
            "{ violated = \"dirty_gfn_follows_lifecycle\" }",
        );
    let alone = read("alone", &alone).expect("it is a scenario");
    assert_eq!(check(&alone).verdict, Verdict::Inconclusive);
}

#[test]
fn a_sum_that_wraps_is_no_small_number() {
    let text = include_str!("bad-input/shares-wraps.toml");
    let error = read("shares-wraps.toml", text).unwrap_err();
    assert!(error.contains("slot `a` has 2 pages"), "{error}");
    assert!(error.contains("shares-wraps.toml:"), "{error}");
}

#[test]
fn blocks_that_lie_over_each_other_are_refused() {
    let text = include_str!("false-holds/block-beyond-the-frames.toml");
    let over = text.replace("[writers]", "[[slots]]\nname = \"b\"\npages = 1\n[writers]");
    let error = read("blocks.toml", &over).unwrap_err();
    assert!(error.contains("are those of slot `a`"), "{error}");
}

#[test]
fn more_devices_than_a_scenario_has_are_refused() {
    let mut text = include_str!("false-holds/one-too-many.toml").to_owned();
    text.push_str(&"[[writers.devices]]\ntransfers = 1\n".repeat(257));
    let error = read("devices.toml", &text).unwrap_err();
    assert!(error.contains("more than 64 devices"), "{error}");
}

#[test]
fn a_program_without_a_claim_is_refused_at_its_steps() {
    let text = include_str!("no-claim/no-finish.toml");
    let error = read("no-finish.toml", text).unwrap_err();
    assert!(
        error.contains("the protocol ends without a claim"),
        "{error}"
    );
    assert!(error.contains("no-finish.toml:"), "{error}");
}

/// The words by which a protocol claims something.
const CLAIMING: [&str; 3] = ["\"finish\"", "\"switch-over\"", "\"checkpoint\""];

#[test]
fn no_built_in_scenario_says_anything_without_the_words_that_claim() {
    let mut still_claim = Vec::new();
    for scenario in builtins() {
        let name = scenario.name;
        let text = builtin_text(&name).expect("it is built in");
        let none = CLAIMING.iter().fold(text.to_owned(), |text, word| {
            text.replace(&format!("{word},"), "").replace(word, "")
        });
        let error = match read(&name, &none) {
            Err(error) => error,
            // It is about a claim on the way, which is judged without an end; what holds, it cannot say.
            Ok(scenario) => {
                let report = search::check(&scenario, &Options::default(), &|_| true);
                let report = report.expect("it can be searched");
                assert_eq!(report.verdict, Verdict::Violated, "{name}");
                continue;
            }
        };
        assert!(
            error.contains("without a claim") || error.contains("no steps"),
            "{name}: {error}"
        );
        // Without the last of several it is judged by what it still claims.
        let last = CLAIMING
            .iter()
            .filter_map(|word| Some((text.rfind(word)?, word)));
        let (at, word) = last.max().expect("it claims something");
        let rest = &text[at + word.len()..];
        let fewer = format!("{}{}", &text[..at], rest.strip_prefix(',').unwrap_or(rest));
        if read(&name, &fewer).is_ok() {
            still_claim.push(name);
        }
    }
    assert!(
        still_claim.iter().all(|name| {
            let text = builtin_text(name).expect("it is built in");
            CLAIMING
                .iter()
                .map(|word| text.matches(word).count())
                .sum::<usize>()
                > 1
        }),
        "{still_claim:?}"
    );
}

#[test]
fn an_end_that_is_never_reached_is_no_verdict() {
    for (name, text) in [
        (
            "finish-behind-forever",
            include_str!("no-claim/finish-behind-forever.toml"),
        ),
        (
            "join-of-forever",
            include_str!("no-claim/join-of-forever.toml"),
        ),
        (
            "endless-sync-in-thread",
            include_str!("no-claim/endless-sync-in-thread.toml"),
        ),
    ] {
        let scenario = read(name, text).expect("it says itself that it never ends");
        assert_eq!(check(&scenario).verdict, Verdict::Inconclusive, "{name}");
        let options = Options::default();
        let report = liveness::liveness(&scenario, &options, &|_| true).expect("it is small");
        assert!(report.broken.has(Invariant::ProtocolEnds), "{name}");
        let lasso = report.lasso.expect("a schedule shows it");
        assert!(lasso.cycle > 0, "{name}");
    }
}

#[test]
fn what_is_broken_before_anything_happens_is_violated() {
    let text = include_str!("contradict/broken-in-the-first-state.toml");
    let scenario = read("broken-in-the-first-state.toml", text).expect("it is a scenario");
    let report = check(&scenario);
    assert_eq!(report.verdict, Verdict::Violated);
    assert!(report.broken.has(Invariant::NoDirtyPageLost));
}

#[test]
fn an_order_that_loses_nothing_is_not_called_violated_on_the_way() {
    for (name, text) in [
        (
            "declared-dirty-late",
            include_str!("false-violated/declared-dirty-late.toml"),
        ),
        (
            "marked-one-step-late",
            include_str!("false-violated/marked-one-step-late.toml"),
        ),
        (
            "first-get-is-the-full-copy",
            include_str!("false-violated/first-get-is-the-full-copy.toml"),
        ),
        (
            "hotplug-by-another-thread",
            include_str!("false-violated/hotplug-by-another-thread.toml"),
        ),
    ] {
        let report = check(&read(name, text).expect("it is a scenario"));
        assert_eq!(
            report.verdict,
            Verdict::Holds,
            "{name}: {:?}",
            report.broken
        );
    }
}

#[test]
fn what_is_still_to_be_declared_dirty_accounts_for_nothing_else() {
    // What was declared is copied before the device has stopped, or the declaration names another page, or no bit is set when
    // the log is turned on, or the memory that is plugged is not to be sent.
    for (text, right, wrong) in [
        (
            include_str!("false-violated/declared-dirty-late.toml"),
            "\"drain-devices\", { step = \"mark-queues\", pages = [1, 2] }",
            "{ step = \"mark-queues\", pages = [1, 2] }, \"vmm-log-sync\", \"copy\", \"drain-devices\"",
        ),
        (
            include_str!("false-violated/marked-one-step-late.toml"),
            "\"mark-queues\", pages = [1]",
            "\"mark-queues\", pages = [0]",
        ),
        (
            include_str!("false-violated/first-get-is-the-full-copy.toml"),
            "\"initially-set\"",
            "true",
        ),
        (
            include_str!("false-violated/hotplug-by-another-thread.toml"),
            ", \"take-all\"]",
            "]",
        ),
    ] {
        assert!(text.contains(right));
        let scenario = read("wrong", &text.replace(right, wrong)).expect("it is a scenario");
        let report = check(&scenario);
        assert!(report.broken.has(Invariant::StalePageIsAccountedFor));
    }
}

#[test]
fn a_log_that_is_turned_off_and_on_again_declares_all_of_it_dirty() {
    // The second attempt begins with nothing but the bits that turning the log on sets.
    let text = include_str!("false-violated/first-get-is-the-full-copy.toml");
    let again = "\"new-destination\", \"disable-logging\", \"enable-logging\", \"get-dirty-log\",";
    let text = text.replacen(
        "\"enable-logging\", \"get-dirty-log\",",
        &format!("\"enable-logging\", \"get-dirty-log\", \"clear-dirty-log\", \"copy\", {again}"),
        1,
    );
    let report = check(&read("again", &text).expect("it is a scenario"));
    assert_eq!(report.verdict, Verdict::Holds, "{:?}", report.broken);
    // Turned on twice, it is not.
    let twice =
        read("twice", &text.replace("\"disable-logging\", ", "")).expect("it is a scenario");
    assert!(check(&twice).broken.has(Invariant::StalePageIsAccountedFor));
}
