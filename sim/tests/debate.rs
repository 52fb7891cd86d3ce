//! The debate: every verdict as stated, every verdict hanging on what it says, and a report that is the same bytes
//! every time.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use dirtysim::debate::claim::{Claim, Outcome, Verdict, claims};
use dirtysim::debate::judge::{flipped, judge, judge_and_prove, verdicts};
use dirtysim::debate::report::{Debate, directory, mail, markdown, page, proofs, terminal};
use dirtysim::replay::steps;
use dirtysim::trace::TraceReader;
use dirtysim_model::oracle::Invariant;

/// The whole debate, decided once for all tests.
fn debate() -> &'static Debate {
    static DEBATE: OnceLock<Debate> = OnceLock::new();
    DEBATE.get_or_init(|| Debate {
        judgements: judge(&claims(), &|_, _| true).expect("the claims are right"),
        own: false,
        plots: Vec::new(),
        bounds: Vec::new(),
    })
}

fn some(ids: &[&str]) -> Vec<Claim> {
    claims()
        .into_iter()
        .filter(|claim| ids.contains(&claim.id.as_str()))
        .collect()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_claim_comes_out_as_its_file_states() {
    for judgement in &debate().judgements {
        let claim = &judgement.claim;
        for evidence in &judgement.evidence {
            assert_eq!(
                evidence.outcome(),
                Some(claim.cases[evidence.case].expected()),
                "{}",
                evidence.scenario.name
            );
        }
        assert_eq!(judgement.verdict, claim.expect, "{}", claim.id);
    }
}

#[test]
fn nothing_holds_without_every_interleaving_and_nothing_breaks_without_a_trace() {
    use dirtysim::debate::decide::Found;
    for evidence in debate().judgements.iter().flat_map(|j| &j.evidence) {
        match &evidence.decision.found {
            Found::Holds => assert!(evidence.decision.states > 1, "{}", evidence.scenario.name),
            Found::Violated { .. } => assert!(!evidence.steps.is_empty()),
            Found::Inconclusive { limit } => panic!("{}: {limit}", evidence.scenario.name),
        }
    }
}

#[test]
fn the_terminals_table_is_the_expected_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expected/debate.txt");
    dirtysim_expected::file(&path, terminal(debate()));
}

#[test]
fn the_documentation_is_the_reports_own_output() {
    let root = repository();
    dirtysim_expected::section(&root.join("docs/debate.md"), "debate", &markdown(debate()));
}

#[test]
fn a_claim_whose_scenario_is_changed_flips_its_verdict() {
    let mut without = Vec::new();
    let mut unmoved = Vec::new();
    for claim in claims() {
        let Some((changed, verdict)) = flipped(&claim).expect("the flip names a case") else {
            without.push(claim.id);
            continue;
        };
        assert_ne!(verdict, claim.expect, "{}: that is no flip", claim.id);
        let found = verdicts(&[changed], &|_, _| true).expect("it is right")[0];
        if found != verdict {
            unmoved.push((claim.id, found));
        }
    }
    assert_eq!(unmoved, [], "these did not flip");
    // Claims about answers, about a price, or undecidable: there is no scenario to change.
    assert_eq!(without, ["P4", "P5", "P9", "P10", "P16b", "P21a", "P21b"]);
}

/// x86's request to turn PML on is waited for: on a kernel that does not wait, the same schedule space loses a page.
#[test]
fn pml_is_switched_on_while_vcpus_run_and_what_holds_there_hangs_on_its_being_waited_for() {
    let lost = Outcome::Breaks(Invariant::NoDirtyPageLost);
    let found = |mutations: &[&str], looked_for: Outcome| {
        let mut claim = some(&["P6c"]).remove(0);
        claim.calls.clear();
        claim.cases.retain(|case| case.name == "vcpu-stopped");
        let case = &mut claim.cases[0];
        case.on = vec!["x86-pml:bitmap".to_owned()];
        (case.pages, case.stores) = (1, 3);
        case.mutations = mutations.iter().map(ToString::to_string).collect();
        // Among several claims of the oracle that break, this one.
        case.finds = Some(looked_for);
        let evidence = &judge(&[claim], &|_, _| true).expect("it is right")[0].evidence;
        assert_eq!(evidence.len(), 1);
        assert!(evidence[0].text.contains("\"enable-logging\""));
        evidence[0].outcome().expect("it is decided")
    };
    assert_eq!(found(&[], Outcome::Holds), Outcome::Holds);
    assert_eq!(found(&["kernel.enable_log.pml=not_waited"], lost), lost);
}

#[test]
fn the_directory_is_the_same_bytes_on_any_number_of_threads() {
    let claims = some(&["P3", "P10", "P12", "P13", "C4", "C5"]);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("threads");
        pool.install(|| {
            let bounds = Vec::new();
            let debate = Debate {
                judgements: judge(&claims, &|_, _| true).expect("they are right"),
                own: false,
                plots: dirtysim::debate::figures::plots(&bounds).unwrap_or_default(),
                bounds,
            };
            directory::files(&debate).expect("traces can be written")
        })
    };
    let (one, three) = (on(1), on(3));
    assert_eq!(one, three);
    assert!(one.contains_key("index.html") && one.contains_key("debate.txt"));
    assert!(one.keys().any(|name| name.starts_with("traces/")));
}

#[test]
fn the_directory_replaces_a_report_and_nothing_else() {
    let debate = Debate {
        judgements: judge(&some(&["C5"]), &|_, _| true).expect("it is right"),
        own: false,
        plots: Vec::new(),
        bounds: Vec::new(),
    };
    let temporary = tempfile::tempdir().expect("a directory");
    let place = temporary.path().join("report");
    directory::write(&debate, &place).expect("a new one");
    std::fs::write(place.join("left-over"), "from before").expect("it can be written");
    directory::write(&debate, &place).expect("over the old one");
    assert!(!place.join("left-over").exists());
    let other = temporary.path().join("other");
    std::fs::create_dir(&other).expect("a directory");
    std::fs::write(other.join("letter"), "precious").expect("it can be written");
    let error = directory::write(&debate, &other).expect_err("that is somebody else's");
    assert!(error.contains("something else"), "{error}");
    assert!(other.join("letter").exists());
    let names: Vec<_> = std::fs::read_dir(temporary.path())
        .expect("it is there")
        .map(|entry| entry.expect("it is there").file_name())
        .collect();
    assert_eq!(names.len(), 2, "nothing is left beside: {names:?}");
}

#[test]
fn the_mail_is_plain_and_at_most_72_columns_wide() {
    let text = mail(debate());
    for line in text.lines() {
        assert!(line.chars().count() <= 72, "{line}");
        assert!(line.is_ascii(), "{line}");
        assert_eq!(line, line.trim_end(), "no blanks at the end");
    }
    for claim in claims() {
        assert!(text.contains(&format!("{}: ", claim.id)), "{}", claim.id);
    }
}

#[test]
fn the_page_is_self_contained() {
    let html = page(debate());
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("<script"));
    for judgement in &debate().judgements {
        assert!(html.contains(&format!("id=\"{}\"", judgement.claim.id)));
    }
}

#[test]
fn every_trace_replays_to_the_violation_that_it_shows() {
    use dirtysim::debate::claim::Outcome;
    let mut traces = 0;
    for evidence in debate().judgements.iter().flat_map(|j| &j.evidence) {
        let Some(Outcome::Breaks(invariant)) = evidence.outcome() else {
            continue;
        };
        let mut text = Vec::new();
        let scenario = &evidence.scenario;
        steps::write(
            &mut text,
            scenario,
            &evidence.steps,
            Some(invariant),
            "debate",
        )
        .expect("memory can be written to");
        let reader = TraceReader::new(text.as_slice(), &scenario.name).expect("a trace");
        let read = steps::scenario_of(reader.header(), &scenario.name).expect("its scenario");
        let replayed = steps::replay(reader, &scenario.name, read, |_| {}).expect("it is possible");
        assert!(replayed.broken.has(invariant), "{}", scenario.name);
        assert!(replayed.differences.is_empty(), "{}", scenario.name);
        traces += 1;
    }
    assert!(traces > 100, "{traces}");
}

#[test]
fn each_kind_of_verdict_means_something() {
    let seen = |verdict| debate().judgements.iter().any(|j| j.verdict == verdict);
    for verdict in Verdict::ALL {
        assert!(seen(verdict), "{}", verdict.name());
        assert!(!verdict.meaning().is_empty());
    }
}

#[test]
fn a_case_that_holds_is_proved_for_any_number_where_that_is_asked_for() {
    let mut claim = some(&["C1"]).remove(0);
    let mut case = claim.cases[0].clone();
    case.on = vec!["x86:bitmap".to_owned()];
    (case.vcpus, case.pages, case.stores) = (1, 2, 1);
    case.slots.clear();
    case.writers.clear();
    let steps = ["START", "ROUND", "STOP", "GET", "copy", "finish"];
    case.steps = steps.map(toml::Value::from).to_vec();
    claim.cases = vec![case];
    claim.calls.clear();
    let judged = judge_and_prove(&[claim], &|_, _| true).expect("it is right");
    let proof = judged[0].evidence[0]
        .proof
        .as_ref()
        .expect("it was asked for");
    let bounds = proof.proved.as_ref().expect("its search ends");
    assert_eq!(bounds.any(), "stores, rounds and pages");
    let debate = Debate {
        judgements: judged,
        own: false,
        plots: Vec::new(),
        bounds: Vec::new(),
    };
    let text = terminal(&debate);
    assert!(
        text.contains("1 proved for any number of stores, rounds and pages"),
        "{text}"
    );
    let table = proofs(&debate);
    assert!(
        table.contains("| 1 | 1: stores, rounds and pages |  |  |"),
        "{table}"
    );
}

/// A case with several memslots is proved for any number of pages, and says why its pages stay where there are too many saves for that.
#[test]
fn a_case_says_why_its_pages_stay() {
    let mut claim = some(&["C1"]).remove(0);
    claim.cases.retain(|case| !case.slots.is_empty());
    let case = &mut claim.cases[0];
    case.vcpus = 1;
    case.on = vec!["ring+bitmap/legacy".to_owned()];
    let mut many = case.clone();
    many.name = "many-saves".to_owned();
    let save = many.steps[2].clone();
    many.steps.splice(2..2, std::iter::repeat_n(save, 4));
    claim.cases.push(many);
    let judged = judge_and_prove(&[claim], &|_, _| true).expect("it is right");
    let proof = |case: usize| {
        let proof = judged[0].evidence[case].proof.as_ref();
        let proof = proof.expect("it was asked for");
        let bounds = proof.proved.as_ref().expect("its search ends");
        (bounds.any(), proof.pages_stay.clone().unwrap_or_default())
    };
    assert_eq!(proof(0), ("stores and pages".to_owned(), String::new()));
    let (any, why) = proof(1);
    assert_eq!(any, "stores");
    assert!(why.contains("are too many to try"), "{why}");
}

/// A claim of somebody's own: what `docs/debate.md` shows.
const OWN: &str = include_str!("../../docs/own-claim.toml");

#[test]
fn a_claim_of_somebody_s_own_is_decided_and_reported_as_a_built_in_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("mine.toml");
    let debate = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).expect("written");
        let mut dirtysim = std::process::Command::new(env!("CARGO_BIN_EXE_dirtysim"));
        dirtysim
            .current_dir(dir.path())
            .args(["debate", "--claims", "mine.toml"])
            .args(more);
        dirtysim_expected::said(&mut dirtysim)
    };
    let (code, text, _) = debate(OWN, &["-o", "report"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("LAST-CLEAR, flipped: refuted, as expected"),
        "{text}"
    );
    let page = std::fs::read_to_string(dir.path().join("report/index.html")).expect("a page");
    assert!(page.contains("dirty logging, decided</h1>"), "{page}");
    let trace = "report/traces/last-clear-before-x86-bitmap-manual.trace.jsonl";
    assert!(dir.path().join(trace).is_file());
    // Beside a built-in one.
    let (code, text, _) = debate(OWN, &["LAST-CLEAR", "P4"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("2 claims, each as expected"), "{text}");
    // What is found otherwise than its author thinks.
    let (code, text, _) = debate(&OWN.replace("finds = \"lost\"\n", ""), &[]);
    assert_eq!(code, Some(1), "{text}");
    let other = OWN.replace("verdict = \"refuted\"", "verdict = \"confirmed\"");
    let (code, text, _) = debate(&other, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("flipped: refuted, NOT as expected"), "{text}");
    // Wrong ones, with the place.
    for (right, wrong, says) in [
        (
            "\"get-dirty-log\"",
            "\"get-dirty-lgo\"",
            "on x86-bitmap-manual: unknown step",
        ),
        (
            "\"x86:bitmap/manual\"",
            "\"x86:bitmpa/manual\"",
            "unknown mode `bitmpa`",
        ),
        (
            "id = \"LAST-CLEAR\"",
            "id = \"C4\"",
            "is a built-in claim's",
        ),
        ("expect = ", "expects = ", "unknown field `expects`"),
        (
            "case = \"after\"",
            "case = \"beforehand\"",
            "which there is not",
        ),
        (
            "within = false",
            "along = [\"clear-rearmed\"]\nwithin = false",
            "did you mean `clear-rearm`",
        ),
        ("condition = ", "open = ", "outside a condition"),
        (
            "name = \"before\"",
            "name = \"after\"",
            "a second case `after`",
        ),
        ("says = ", "says ", "mine.toml:"),
    ] {
        assert!(OWN.contains(right), "{right}");
        let (code, out, complaint) = debate(&OWN.replacen(right, wrong, 1), &["-o", "none"]);
        assert_eq!(code, Some(2), "{wrong}: {out}{complaint}");
        assert!(complaint.contains(says), "{wrong}: {complaint}");
        assert!(complaint.contains("mine.toml:"), "{wrong}: {complaint}");
        assert!(out.is_empty() && !dir.path().join("none").exists(), "{out}");
    }
}
