use crate::naive::explore;
use dirtysim::scenario::Scenario;
use dirtysim_model::reduce::pack::Packing;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Medium;
use dirtysim_model::transition::{apply, describe, for_each_step};
use std::collections::HashMap;

fn diff(a: &State<Medium>, b: &State<Medium>) -> String {
    let (a, b) = (format!("{a:?}"), format!("{b:?}"));
    a.split(", ")
        .zip(b.split(", "))
        .filter(|(a, b)| a != b)
        .map(|(a, b)| format!("{a} / {b}"))
        .collect::<Vec<_>>()
        .join("; ")
}

#[test]
fn debug() {
    let Ok(file) = std::env::var("DEBUG_SCENARIO") else {
        return;
    };
    let text = std::fs::read_to_string(file).unwrap();
    let scenario = Scenario::from_toml("x", &text).unwrap();
    let machine = &scenario.machine;
    for (i, p) in machine.programs.iter().enumerate() {
        println!("{i} {p:?}");
    }
    let explored = explore::<Medium>(&scenario, 100_000).unwrap();
    println!("{:?}", explored.broken);
    let report = dirtysim::search::check(&scenario, &Default::default(), &|_| true).unwrap();
    use dirtysim::search::{Options, Reductions, Rule};
    let mut all = vec![
        ("none".to_owned(), Reductions::NONE),
        (
            "vcpus".to_owned(),
            Reductions {
                vcpus: true,
                ..Reductions::NONE
            },
        ),
        (
            "pages".to_owned(),
            Reductions {
                pages: true,
                ..Reductions::NONE
            },
        ),
    ];
    for &rule in Rule::ALL {
        all.push((
            format!("{rule:?}"),
            Reductions {
                rules: 1 << rule as u8,
                ..Reductions::NONE
            },
        ));
        all.push((
            format!("vcpus and {rule:?}"),
            Reductions {
                vcpus: true,
                rules: 1 << rule as u8,
                ..Reductions::NONE
            },
        ));
    }
    for (name, reductions) in all {
        let report = dirtysim::search::check(
            &scenario,
            &Options {
                reductions,
                counterexample: false,
                ..Default::default()
            },
            &|_| true,
        )
        .unwrap();
        println!(
            "{name}: {:?}",
            report.violation.map(|v| (v.depth, v.invariant))
        );
    }
    println!(
        "{:?} {:?} {:?}",
        report.violation, report.reduced, report.broken
    );
    let start = scenario.start::<Medium>().unwrap();
    let packing = Packing::new(machine, &start);
    let pack = |state: &State<Medium>| {
        let mut words = vec![0; packing.words()];
        packing.pack(machine, &mut state.clone(), &mut words);
        words
    };
    let unpack = |words: &[u64]| {
        let mut state = start.clone();
        packing.unpack(machine, words, &mut state);
        state
    };
    let mut images: HashMap<Vec<u64>, Vec<_>> = HashMap::new();
    for state in &explored.states {
        images.entry(pack(state)).or_default().push(state.clone());
    }
    println!("{} raw, {} images", explored.states.len(), images.len());
    // What packing and unpacking changes before a step, changes nothing after it.
    let mut shown = 0;
    for state in &explored.states {
        let back = unpack(&pack(state));
        let mut steps = vec![];
        for_each_step(machine, state, |s| steps.push(s));
        let mut others = vec![];
        for_each_step(machine, &back, |s| others.push(s));
        if steps != others && shown < 3 {
            shown += 1;
            println!(
                "steps differ: {steps:?} / {others:?}: {}",
                diff(state, &back)
            );
        }
        for step in steps {
            let (mut a, mut b) = (State::clone(state), back.clone());
            apply(machine, &mut a, step);
            apply(machine, &mut b, step);
            if pack(&a) != pack(&b) && shown < 3 {
                shown += 1;
                println!(
                    "{step:?} {}: before {} ==> after {}",
                    describe(machine, state, step),
                    diff(state, &back),
                    diff(&unpack(&pack(&a)), &unpack(&pack(&b)))
                );
            }
        }
    }
    // Back from the packed words.
    let mut shown = 0;
    let first = pack(&start);
    let mut seen: HashMap<Vec<u64>, ()> = HashMap::from([(first.clone(), ())]);
    let mut level = vec![first];
    while !level.is_empty() {
        let mut next = Vec::new();
        for words in level {
            let state = unpack(&words);
            for_each_step(machine, &state, |step| {
                let mut after = state.clone();
                apply(machine, &mut after, step);
                let packed = pack(&after);
                if !images.contains_key(&packed) && shown < 3 && images.contains_key(&words) {
                    shown += 1;
                    println!(
                        "--- {step:?} {} leads to what nobody has",
                        describe(machine, &state, step)
                    );
                }
                if seen.insert(packed.clone(), ()).is_none() {
                    next.push(packed);
                }
            });
        }
        level = next;
    }
    println!("{} by packed", seen.len());
    let missing: Vec<_> = images.keys().filter(|k| !seen.contains_key(*k)).collect();
    println!("{} missing", missing.len());
}

#[test]
fn sizes() {
    use proptest::strategy::{Strategy, ValueTree};
    let Ok(n) = std::env::var("DEBUG_SIZES") else {
        return;
    };
    let (mut runner, strategy) = crate::numbers();
    let mut sizes = vec![];
    let mut texts = vec![];
    for _ in 0..n.parse().unwrap() {
        let text = crate::generate::scenario(&strategy.new_tree(&mut runner).unwrap().current());
        let Ok(scenario) = Scenario::from_toml("x", &text) else {
            continue;
        };
        let most = 30_000;
        let (size, broken) = explore::<Medium>(&scenario, most).map_or((usize::MAX, true), |e| {
            (e.states.len(), !e.broken.is_empty())
        });
        sizes.push((size, broken));
        texts.push((size, text));
    }
    sizes.sort();
    for q in [10, 20, 30, 40, 50, 60, 70, 80, 90] {
        println!("{q}%: {}", sizes[sizes.len() * q / 100].0);
    }
    println!(
        "{} read, broken {}",
        sizes.len(),
        sizes.iter().filter(|s| s.1 && s.0 < usize::MAX).count()
    );
    texts.sort();
    println!("{}", texts[texts.len() * 95 / 100].1);
    println!("{}", texts[texts.len() * 85 / 100].1);
}
