//! Stories: what they say of each built-in violation, in every form; and that strangers' names stay names.

mod browser;
mod what_if;

use std::path::PathBuf;

use dirtysim::explain::{Format, Story, reproduce};
use dirtysim::run::{self, Options, Scheduler};
use dirtysim::scenario::{self, Expect, Scenario, about_liveness};
use dirtysim::search::{self, liveness::liveness};
use dirtysim::shrink::{self, Budget};
use dirtysim_model::oracle::Invariant;
use serde_json::Value;

/// The scenarios whose stories are kept word for word.
const TOLD: [&str; 7] = [
    "ring-only-its-save",
    "bitmap-before-its-save",
    "copy-before-reset",
    "clear-after-copy",
    "two-slots-one-get-missed",
    "reset-signal",
    "pml-not-waited",
];

fn failure(scenario: &Scenario) -> run::Failure {
    let options = Options {
        seeds: 0..200_000,
        scheduler: Scheduler::Random,
        keep_going: false,
    };
    run::run(scenario, &options, &|_| true)
        .failure
        .unwrap_or_else(|| panic!("{} fails within 200000 schedules", scenario.name))
}

fn builtin(name: &str) -> Scenario {
    scenario::builtin(name).unwrap_or_else(|| panic!("{name} is built in"))
}

/// The story of a scenario's first failure, shrunk.
pub(crate) fn shrunk_story(scenario: &Scenario) -> Story {
    let failure = failure(scenario);
    let shrunk = shrink::shrink(
        scenario,
        &failure.steps,
        failure.invariant,
        Budget::default(),
        &mut |_| true,
    )
    .expect("the schedule breaks the claim");
    let found_by = format!("random, seed {}; shrunk", failure.seed);
    Story::new(
        scenario,
        &shrunk.steps,
        Some(failure.invariant),
        reproduce(scenario, Some(&found_by), "lost.trace.jsonl"),
    )
    .expect("the schedule is possible")
}

/// Compares with the file of that name.
fn expect_file(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/expected/explain")
        .join(name);
    dirtysim_expected::file(&path, text);
}

#[test]
fn stories_of_the_built_in_violations_are_told_word_for_word() {
    for name in TOLD {
        let story = shrunk_story(&builtin(name));
        expect_file(&format!("{name}.text.txt"), &Format::Text.tell(&story));
        expect_file(&format!("{name}.lkml.txt"), &Format::Lkml.tell(&story));
    }
}

#[test]
fn the_story_names_the_lost_page_its_writer_and_the_step_that_dropped_its_record() {
    let story = shrunk_story(&builtin("clear-after-copy"));
    assert_eq!(story.pages, ["ram:0"]);
    let step = |number: Option<usize>| {
        let note = &story.notes[number.expect("there is such a step") - 1];
        (story.who(note).to_owned(), note.name)
    };
    assert_eq!(step(story.dropped), ("VMM".to_owned(), "clear-take-bits"));
    assert_eq!(step(story.written), ("vcpu0".to_owned(), "retry-store"));
    let story = shrunk_story(&builtin("ring-only-its-save"));
    assert_eq!(story.pages, ["ram:3"]);
    let note = &story.notes[story.dropped.expect("there is such a step") - 1];
    assert_eq!((story.who(note), note.name), ("kernel", "its-save-mark"));
    // Fetched too early, the record is not dropped: it is still there when everything is over.
    let story = shrunk_story(&builtin("bitmap-before-its-save"));
    assert_eq!(story.dropped, None);
    let last = story.notes.last().expect("there are steps");
    assert_eq!(last.facts.records(), "the slot's bitmap");
}

#[test]
fn a_mail_is_ascii_of_at_most_72_columns_and_a_terminal_gets_at_most_100() {
    for scenario in scenario::builtins() {
        if scenario.expected() == Expect::Holds {
            continue;
        }
        let failure = failure(&scenario);
        let long = format!("/a/path/{}/of/a/trace.jsonl", "long-".repeat(30));
        let story = Story::new(
            &scenario,
            &failure.steps,
            Some(failure.invariant),
            reproduce(&scenario, None, &long),
        )
        .expect("the schedule is possible");
        for line in Format::Lkml.tell(&story).lines() {
            assert!(line.len() <= 72, "{}: {line}", scenario.name);
            assert!(
                line.chars().all(|c| (' '..='~').contains(&c)),
                "{}: {line}",
                scenario.name
            );
            assert_eq!(line, line.trim_end(), "{}", scenario.name);
        }
        for line in Format::Text.tell(&story).lines() {
            let is_command = line.starts_with("To see it again");
            assert!(is_command || line.chars().count() <= 100, "{line}");
        }
    }
}

#[test]
fn every_step_of_every_built_in_scenario_has_words() {
    for scenario in scenario::builtins() {
        for seed in 0..40 {
            let mut choices = dirtysim::random::Choices::new(seed, 9);
            let steps = random_schedule(&scenario, &mut choices);
            let story = Story::new(&scenario, &steps, None, String::new())
                .expect("the schedule is possible");
            for note in &story.notes {
                assert_ne!(note.words, note.name, "{}", scenario.name);
                assert!(!note.words.ends_with(&format!(": {}", note.name)));
                assert!(!note.words.contains("{page}"));
            }
        }
    }
}

/// Some schedule, to its end or for 500 steps.
fn random_schedule(
    scenario: &Scenario,
    choices: &mut dirtysim::random::Choices,
) -> Vec<dirtysim_model::transition::Step> {
    use dirtysim_model::state::layout::Large;
    use dirtysim_model::transition::{apply, for_each_step};
    let mut state = scenario.start::<Large>().expect("it fits");
    let mut steps = Vec::new();
    while steps.len() < 500 {
        let mut possible = Vec::new();
        for_each_step(&scenario.machine, &state, |step| possible.push(step));
        if possible.is_empty() {
            break;
        }
        let step = possible[choices.below(possible.len() as u32) as usize];
        apply(&scenario.machine, &mut state, step);
        steps.push(step);
    }
    steps
}

#[test]
fn rows_cover_every_step_once_and_in_order() {
    for name in TOLD {
        let scenario = builtin(name);
        let failure = failure(&scenario);
        let story = Story::new(
            &scenario,
            &failure.steps,
            Some(failure.invariant),
            String::new(),
        )
        .expect("the schedule is possible");
        let mut next = 1;
        for row in &story.rows {
            assert_eq!(row.first, next, "{name}");
            assert!(row.last >= row.first, "{name}");
            assert!(
                !row.phrases.is_empty(),
                "{name}: steps {}-{}",
                row.first,
                row.last
            );
            next = row.last + 1;
        }
        assert_eq!(next, story.notes.len() + 1, "{name}");
        assert_eq!(
            story.rows.last().map(|row| row.block),
            Some(story.blocks),
            "{name}"
        );
    }
}

#[test]
fn a_chrome_trace_has_every_step_on_the_track_of_its_lane() {
    let story = shrunk_story(&builtin("reset-signal"));
    let document: Value = serde_json::from_str(&Format::Perfetto.tell(&story)).expect("it is JSON");
    let events = document["traceEvents"].as_array().expect("an array");
    let steps: Vec<&Value> = events
        .iter()
        .filter(|event| event["cat"] == "step")
        .collect();
    assert_eq!(steps.len(), story.notes.len());
    for (index, (event, note)) in steps.iter().zip(&story.notes).enumerate() {
        assert_eq!(event["ts"], index);
        assert_eq!(event["tid"], note.lane + 1);
        assert_eq!(event["name"], note.name);
    }
    let names = events.iter().filter(|event| event["name"] == "thread_name");
    assert_eq!(names.count(), story.lanes.len());
}

/// A scenario whose words try to be something else.
pub(crate) fn hostile() -> Scenario {
    let text = r#"
name = "hostile"
sentence = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> {{data}} <!--"
expect = { violated = "no_dirty_page_lost" }
[machine]
arch = "arm64"
vcpus = 1
[[slots]]
name = "ram"
pages = 1
[writers]
vcpu = { stores = 1 }
[protocol]
steps = ["enable-logging", "copy-all", "pause-vcpus", "finish"]
"#;
    let mut scenario = Scenario::from_toml("hostile.toml", text).expect("it is a scenario");
    // No file can give such a name; a page does not rely on that.
    scenario.machine.slots[0].name = "a</script><b onclick='x'>&amp;".to_owned();
    scenario
}

#[test]
fn names_that_look_like_markup_stay_names() {
    let story = shrunk_story(&hostile());
    let page = Format::Html.tell(&story);
    assert!(!page.contains("</script><script>document"));
    assert!(!page.contains("<img src=x"));
    assert!(!page.contains("<b onclick"));
    assert!(!page.contains("<!--"));
    // The page's own two scripts and no more.
    assert_eq!(page.matches("</script>").count(), 2);
    assert!(page.contains("&lt;/script&gt;"));
    // What a name says about the template is not filled in.
    assert!(page.contains("{{data}}"));
}

#[test]
fn the_page_needs_no_network() {
    let page = Format::Html.tell(&shrunk_story(&builtin("reset-signal")));
    for word in [
        "http://", "https://", "@import", "url(", "fetch(", "import(",
    ] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn a_story_of_a_schedule_that_breaks_nothing_says_so() {
    let scenario = builtin("kernel-docs");
    let steps = random_schedule(&scenario, &mut dirtysim::random::Choices::new(1, 9));
    let target = Some(Invariant::NoDirtyPageLost);
    let story = Story::new(&scenario, &steps, target, String::new()).expect("it is possible");
    assert_eq!(story.invariant, None);
    assert_eq!(story.conclusion, ["No claim is broken."]);
    for format in [Format::Text, Format::Lkml, Format::Html, Format::Perfetto] {
        assert!(!format.tell(&story).is_empty());
    }
}

/// On s390 the leaf itself is the record: as long as nothing was stored through it, a store to it would be seen.
#[test]
fn a_leaf_of_s390_is_open_when_it_is_dirty_as_the_oracle_has_it() {
    let text = r#"
name = "one-store"
[machine]
arch = "s390"
vcpus = 1
pages = 1
[writers]
vcpu = { stores = 1 }
[protocol]
steps = ["enable-logging", "copy-all", "pause-vcpus", "finish"]
"#;
    let scenario = Scenario::from_toml("one-store.toml", text).expect("it is a scenario");
    let options = search::Options::default();
    let report = search::check(&scenario, &options, &|_| true).expect("it is small");
    let violation = report
        .violation
        .expect("nobody fetches what the store left in its leaf");
    let steps = violation.steps.expect("they were asked for");
    let target = Some(Invariant::NoDirtyPageLost);
    let story = Story::new(&scenario, &steps, target, String::new()).expect("they are possible");
    // It is mapped writable before, and that opens nothing.
    let mapped = story.notes.iter().position(|note| note.name == "fault-map");
    let open = story.notes.iter().position(|note| note.facts.leaf_open);
    let (mapped, open) = (
        mapped.expect("it is mapped"),
        open.expect("it is open then"),
    );
    assert!(mapped < open, "open at step {open}, mapped at {mapped}");
    assert_eq!(story.notes[open].name, "retry-store");
}

/// A scenario about what goes on for ever, and a story of its deadlock.
fn deadlock_story(scenario: &Scenario) -> Story {
    let report = liveness(scenario, &search::Options::default(), &|_| true).expect("it is small");
    let lasso = report.lasso.expect("something goes on for ever");
    assert_eq!(lasso.cycle, 0, "{}", scenario.name);
    let target = Some(Invariant::MigrationMakesProgress);
    Story::new(scenario, &lasso.steps, target, String::new()).expect("they are possible")
}

#[test]
fn a_deadlock_says_who_waits_for_what() {
    let builtin = |name: &str| {
        let mut all = about_liveness().into_iter();
        all.find(|scenario| scenario.name == name)
            .unwrap_or_else(|| panic!("{name} is built in"))
    };
    let story = deadlock_story(&builtin("reply-under-lock"));
    assert_eq!(
        story.conclusion[1..],
        [
            "Nobody can act any more.",
            "vcpu0 is in the guest and has nothing left to do.",
            "VMM0 waits for the signal `done`, which VMM1 (migration) has still to give.",
            "VMM1 (migration) waits for the lock `bql`, which VMM0 holds.",
        ]
        .map(str::to_owned)
    );
    for format in [Format::Text, Format::Lkml, Format::Html] {
        let told = format.tell(&story);
        let told: Vec<&str> = told.split_whitespace().collect();
        let told = told.join(" ");
        assert!(told.contains("which VMM0 holds."), "{told}");
    }
    let story = deadlock_story(&builtin("ring-full-no-ack"));
    assert_eq!(
        story.conclusion[1..],
        [
            "Nobody can act any more.",
            "vcpu0 has left for its full ring (exit 31) and waits for the VMM's `ack-ring-full`.",
            "The VMM waits until a vCPU is in KVM_RUN.",
        ]
        .map(str::to_owned)
    );
}

/// What the last of the VMM's threads waits for in each kind of waiting that a protocol can have.
#[test]
fn each_kind_of_waiting_has_its_words() {
    let lock = r#"{ lock = "a", steps = [{ lock = "a", steps = ["copy"] }] }"#;
    for (first, second, says) in [
        (
            lock,
            "\"copy\"",
            "VMM0 waits for the lock `a`, which it holds itself.",
        ),
        (
            r#"{ step = "join-thread", thread = 1 }"#,
            r#"{ step = "join-thread", thread = 0 }"#,
            "VMM0 waits for the end of VMM1 (second).",
        ),
        (
            r#"{ wait = "a" }"#,
            r#"{ wait = "a" }, { signal = "a" }"#,
            "VMM1 (second) waits for the signal `a`, which VMM1 (second) has still to give.",
        ),
        (
            r#"{ signal = "a" }, { wait = "a" }"#,
            r#"{ wait = "a" }"#,
            "waits for the signal `a`, which nobody gives any more.",
        ),
        (
            r#""wait-ring-full""#,
            "\"copy\"",
            "VMM0 waits until a vCPU leaves for a full ring (exit 31).",
        ),
        (
            r#"{ step = "signal-vcpus", stop = true }, "wait-vcpus-stopped", "wait-guest-runs""#,
            "\"copy\"",
            "vcpu0 is outside KVM_RUN and waits until the VMM lets it run.",
        ),
    ] {
        let text = format!(
            r#"
name = "waits"
expect = {{ violated = "migration_makes_progress" }}
[machine]
arch = "x86"
vcpus = 1
pages = 1
ring = {{ entries = 4, reserved = 1 }}
[protocol]
steps = ["enable-logging", "copy-all", {first}, "finish"]
[[protocol.threads]]
name = "second"
steps = [{second}]
"#
        );
        let scenario = Scenario::from_toml("waits.toml", &text)
            .unwrap_or_else(|error| panic!("{first} / {second}: {error}"));
        let story = deadlock_story(&scenario);
        let told = story.conclusion.join("\n");
        assert!(told.contains(says), "{first} / {second}: {told}");
    }
}

#[test]
fn a_cycle_says_who_waits_throughout() {
    let place = tempfile::tempdir().expect("a directory");
    let dirtysim = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_dirtysim"))
            .args(args)
            .current_dir(place.path())
            .output()
            .expect("the binary runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let checked = dirtysim(&["check", "--liveness", "sync-for-ever", "--trace-dir", "t"]);
    assert!(
        checked.contains("  thread0 waits for the end of thread1 (migration).\n"),
        "{checked}"
    );
    let trace = "t/sync-for-ever.liveness.trace.jsonl";
    let told = dirtysim(&["explain", trace]);
    let words: Vec<&str> = told.split_whitespace().collect();
    let told = words.join(" ");
    for says in [
        "bring nobody to the end that is waited for",
        "VMM0 waits for the end of VMM1 (migration).",
    ] {
        assert!(told.contains(says), "{told}");
    }
    assert!(!told.contains("Nobody can act"), "{told}");
    let replayed = dirtysim(&["replay", trace]);
    assert!(replayed.contains("violated (protocol_ends)"), "{replayed}");
}

#[test]
fn an_overflow_says_which_entry_was_written_over_and_whose_page_it_named() {
    let story = shrunk_story(&builtin("x86-emulated-string"));
    let over = story
        .overwritten
        .as_ref()
        .expect("an entry is written over");
    let step = &story.notes[over.step - 1];
    assert!(step.name.starts_with("push-"), "{}", step.name);
    let said = story.conclusion.join(" ");
    assert!(
        said.contains(&format!(
            "the record of ram:2 is written over entry {}, the record of {}, which nobody has harvested",
            over.entry, over.page
        )),
        "{said}"
    );
    // And the page of the story shows that entry.
    assert!(
        Format::Html
            .tell(&story)
            .contains("\"overwritten\":{\"step\":")
    );
}

#[test]
fn any_number_of_rounds_says_whether_it_goes_round_or_is_done() {
    let text = r#"
name = "rounds"
sentence = "The last bitmap comes before the stop."
expect = { violated = "no_dirty_page_lost" }
[machine]
arch = "x86"
vcpus = 1
pages = 1
[writers]
vcpu = { stores = 1 }
[protocol]
steps = ["enable-logging", "copy-all", { any_number = ["get-dirty-log", "copy"] }, "pause-vcpus", "finish"]
"#;
    let scenario = Scenario::from_toml("rounds.toml", text).expect("it is right");
    let mut told = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let mut choices = dirtysim::random::Choices::new(seed, 9);
        let steps = random_schedule(&scenario, &mut choices);
        let story = Story::new(&scenario, &steps, None, String::new()).expect("it is possible");
        let phrases = story.rows.iter().flat_map(|row| &row.phrases);
        told.extend(phrases.map(|phrase| phrase.text.clone()));
    }
    assert!(told.contains("goes round once more"), "{told:?}");
    assert!(told.contains("is done with the rounds"), "{told:?}");
    assert!(
        !told.iter().any(|text| text.contains("elsewhere")),
        "{told:?}"
    );
}
