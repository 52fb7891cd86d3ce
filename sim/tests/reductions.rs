//! Reduced and unreduced searches say the same.

use dirtysim::bugs::BUGS;
use dirtysim::scenario::{Scenario, builtin, builtins, mutation_scenarios};
use dirtysim::search::{Coverage, Options, Reductions, Report, Rule, Verdict, check};
use dirtysim_model::words::mutation::Mutation;

fn search(scenario: &Scenario, reductions: Reductions) -> Report {
    let options = Options {
        keep_going: true,
        counterexample: false,
        max_states: Some(3_000_000),
        reductions,
        ..Options::default()
    };
    check(scenario, &options, &|_| true).expect("a scenario that can be searched")
}

/// Small scenarios of many kinds: both ways of logging on both architectures, right orders and wrong ones.
fn small() -> Vec<Scenario> {
    let machines = [
        (
            "arm-ring",
            "arch = \"arm64\"\nring = { entries = 4, reserved = 2 }\nring_with_bitmap = true\nvcpus = 2\npages = 2",
            true,
        ),
        (
            "arm-one-vcpu",
            "arch = \"arm64\"\nring = { entries = 4, reserved = 2 }\nring_with_bitmap = true\nvcpus = 1\npages = 3",
            true,
        ),
        (
            "arm-small-ring",
            "arch = \"arm64\"\nring = { entries = 4, reserved = 3 }\nring_with_bitmap = true\nvcpus = 1\npages = 2",
            true,
        ),
        (
            "x86-ring",
            "arch = \"x86\"\nring = { entries = 4, reserved = 2 }\nvcpus = 2\npages = 2",
            true,
        ),
        (
            "x86-small-ring",
            "arch = \"x86\"\nring = { entries = 4, reserved = 3 }\nvcpus = 1\npages = 3",
            true,
        ),
        (
            "arm-bitmap",
            "arch = \"arm64\"\nvcpus = 2\npages = 2",
            false,
        ),
        ("x86-bitmap", "arch = \"x86\"\nvcpus = 2\npages = 2", false),
        (
            "x86-manual",
            "arch = \"x86\"\nmanual_protect = true\nvcpus = 1\npages = 3",
            false,
        ),
    ];
    let ring = [
        (
            "right",
            "\"harvest-rings\", \"reset-rings\", \"copy\", \"pause-vcpus\", \"harvest-rings\", \"copy\"",
        ),
        (
            "copy-early",
            "\"harvest-rings\", \"copy\", \"reset-rings\", \"pause-vcpus\", \"harvest-rings\", \"copy\"",
        ),
        ("no-last-harvest", "\"pause-vcpus\", \"copy\""),
        (
            "harvest-running",
            "\"harvest-rings\", \"pause-vcpus\", \"copy\"",
        ),
        (
            "resumed",
            "\"pause-vcpus\", \"resume-vcpus\", \"harvest-rings\", \"reset-rings\", \"copy\", \"pause-vcpus\", \"harvest-rings\", \"copy\"",
        ),
    ];
    let both = [(
        "get-running",
        "\"harvest-rings\", \"reset-rings\", \"get-dirty-log\", \"copy\", \"pause-vcpus\", \"harvest-rings\", \"copy\"",
    )];
    let bitmap = [
        (
            "right",
            "\"get-dirty-log\", \"copy\", \"pause-vcpus\", \"get-dirty-log\", \"copy\"",
        ),
        (
            "no-last-get",
            "\"get-dirty-log\", \"copy\", \"pause-vcpus\", \"copy\"",
        ),
        (
            "clear-late",
            "\"get-dirty-log\", \"copy\", \"clear-dirty-log\", \"pause-vcpus\", \"get-dirty-log\", \"copy\"",
        ),
    ];
    let mut scenarios = Vec::new();
    for (machine, text, has_ring) in machines {
        let protocols: &[(&str, &str)] = match (has_ring, machine) {
            (true, "arm-small-ring") => &both,
            (true, _) => &ring,
            (false, _) => &bitmap,
        };
        for (protocol, steps) in protocols {
            let toml = format!(
                "name = \"{machine}-{protocol}\"\n[machine]\n{text}\n[writers]\nvcpu = {{ stores = 1 }}\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", {steps}, \"finish\"]\n"
            );
            match Scenario::from_toml("generated", &toml) {
                Ok(scenario) => scenarios.push(scenario),
                Err(error) => panic!("{toml}\n{error}"),
            }
        }
    }
    scenarios
}

fn compare(scenario: &Scenario, full: &Report, reductions: Reductions, what: &str) {
    let reduced = search(scenario, reductions);
    assert_eq!(
        (reduced.verdict, reduced.broken, reduced.coverage),
        (full.verdict, full.broken, full.coverage),
        "{}, {what}: {} states instead of {}",
        scenario.name,
        reduced.states,
        full.states
    );
    assert!(
        reduced.states <= full.states,
        "{}, {what}: a reduction adds no states",
        scenario.name
    );
}

#[test]
fn reduced_and_unreduced_searches_break_the_same_claims() {
    let scenarios = small();
    assert!(scenarios.len() >= 20);
    let mut violated = 0;
    for scenario in &scenarios {
        let full = search(scenario, Reductions::NONE);
        violated += usize::from(!full.broken.is_empty());
        compare(scenario, &full, Reductions::ALL, "all reductions");
        let pages = Reductions {
            pages: true,
            ..Reductions::NONE
        };
        compare(scenario, &full, pages, "pages only");
        let vcpus = Reductions {
            vcpus: true,
            ..Reductions::NONE
        };
        compare(scenario, &full, vcpus, "vCPUs only");
    }
    assert!(
        violated >= 8 && violated + 8 <= scenarios.len(),
        "{violated} of {} violated",
        scenarios.len()
    );
}

#[test]
fn what_the_program_comes_with_breaks_the_same_claims_reduced_and_unreduced() {
    // The larger ones take longer than a test should; `check --keep-going --no-reduction` compares them.
    let at_most = Options {
        keep_going: true,
        counterexample: false,
        max_states: Some(100_000),
        reductions: Reductions::NONE,
        ..Options::default()
    };
    let (mut compared, mut violated) = (0, 0);
    for scenario in builtins() {
        let full = check(&scenario, &at_most, &|_| true).expect("it can be searched");
        if full.coverage == Coverage::Exhausted {
            compare(&scenario, &full, Reductions::ALL, "all reductions");
            compared += 1;
            violated += u32::from(full.verdict == Verdict::Violated);
        }
    }
    assert!(
        compared >= 15 && violated >= 6,
        "{compared} compared, {violated} of them violated"
    );
}

/// States from which on a search 21 times over takes too long for a test.
const LARGE_STATES: u64 = 50_000;

#[test]
fn each_rule_alone_breaks_the_same_claims() {
    let wanted = [
        "arm-ring-right",
        "arm-ring-copy-early",
        "x86-ring-right",
        "arm-small-ring-get-running",
        "x86-small-ring-right",
        "x86-bitmap-right",
        "arm-bitmap-clear-late",
        "arm-one-vcpu-resumed",
    ];
    let (mut used, mut alone) = (0_u32, 0);
    for scenario in small().iter().filter(|s| wanted.contains(&s.name.as_str())) {
        let full = search(scenario, Reductions::NONE);
        let all = search(scenario, Reductions::ALL);
        for &rule in Rule::ALL {
            // One rule leaves a search nearly as large as none does. The checker compares each alone on random scenarios.
            if full.states < LARGE_STATES {
                let only = Reductions {
                    rules: 1 << rule as u8,
                    ..Reductions::NONE
                };
                compare(scenario, &full, only, &format!("only {}", rule.name()));
                alone += 1;
            }
            let without = search(scenario, Reductions::ALL.without(rule));
            assert_eq!(
                without.broken,
                full.broken,
                "{} without {}",
                scenario.name,
                rule.name()
            );
            if without.states != all.states {
                used |= 1 << rule as u8;
            }
        }
    }
    assert!(alone >= 3 * Rule::ALL.len(), "{alone}");
    let idle: Vec<&str> = Rule::ALL
        .iter()
        .filter(|r| used >> **r as u8 & 1 == 0)
        .map(|r| r.name())
        .collect();
    assert!(
        idle.is_empty(),
        "rules that change nothing anywhere here: {idle:?}"
    );
}

/// Compares a search with all reductions, and with each kind alone, with one without, where that ends soon.
fn compare_all(scenario: &Scenario, most_states: u64) -> Option<Report> {
    let options = Options {
        keep_going: true,
        counterexample: false,
        max_states: Some(most_states),
        reductions: Reductions::NONE,
        ..Options::default()
    };
    let full = check(scenario, &options, &|_| true).expect("it can be searched");
    if full.coverage != Coverage::Exhausted {
        return None;
    }
    compare(scenario, &full, Reductions::ALL, "all reductions");
    let rules = Reductions {
        pages: false,
        vcpus: false,
        ..Reductions::ALL
    };
    compare(scenario, &full, rules, "rules only");
    Some(full)
}

#[test]
fn what_shows_a_mutation_breaks_the_same_claims_reduced_and_unreduced() {
    let bugs = BUGS.iter().flat_map(|bug| bug.scenarios());
    let (mut compared, mut reduced) = (0, 0);
    for scenario in bugs.chain(mutation_scenarios()) {
        if let Some(full) = compare_all(&scenario, 30_000) {
            compared += 1;
            let all = search(&scenario, Reductions::ALL);
            reduced += u32::from(5 * all.states < 4 * full.states);
        }
    }
    assert!(compared >= 55, "{compared} compared");
    assert!(reduced >= 20, "{reduced} of them smaller by a fifth");
}

#[test]
fn each_mutation_breaks_the_same_claims_reduced_and_unreduced() {
    let most = 4_000;
    let mut small = small();
    small.retain(|scenario| scenario.machine.vcpus.len() == 1);
    for arch in ["arm64", "s390"] {
        small.push(with_writers(arch));
    }
    let mut compared = 0;
    for &mutation in Mutation::ALL {
        for scenario in &small {
            let mutated = scenario.clone().with_mutation(mutation);
            compared += u32::from(compare_all(&mutated, most).is_some());
        }
    }
    assert!(compared > 400, "{compared}");
}

/// Writers without a vCPU, two threads, pages that are like each other.
fn with_writers(arch: &str) -> Scenario {
    let toml = format!(
        "name = \"{arch}-writers\"\n[machine]\narch = \"{arch}\"\nvcpus = 1\npages = 3\n[writers]\nvcpu = {{ stores = 1, pages = [0, 1] }}\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", \"pause-vcpus\", \"get-dirty-log\", \"copy\", \"finish\"]\n[[protocol.threads]]\nname = \"another\"\nsteps = [{{ step = \"kernel-write\", pages = [2] }}]\n"
    );
    Scenario::from_toml("generated", &toml).expect("it is a scenario")
}

#[test]
fn a_mutation_withdraws_what_is_not_argued_with_it() {
    let made = |scenario: &Scenario| {
        let options = Options {
            max_states: Some(1_000),
            counterexample: false,
            ..Options::default()
        };
        let report = check(scenario, &options, &|_| true).expect("it can be searched");
        report.reduced
    };
    let docs = builtin("kernel-docs").expect("it is built in");
    let right = made(&docs);
    // A record that is lost takes no ground from a rule.
    assert_eq!(
        made(&docs.clone().with_mutation(Mutation::FaultNoMark)).rules,
        right.rules
    );
    let relaxed = made(&docs.clone().with_mutation(Mutation::ResetOrderRelaxed));
    assert!(!relaxed.rules.contains(&Rule::PushPayload) && relaxed.classes.is_empty());
    assert!(relaxed.rules.contains(&Rule::FaultLock));
    let unknown = made(&docs.clone().with_mutation(Mutation::EnablePmlNotWaited));
    assert_eq!(unknown, Default::default());
}
