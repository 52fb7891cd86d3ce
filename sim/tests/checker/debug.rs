use crate::naive::explore;
use dirtysim::scenario::Scenario;
use dirtysim_model::reduce::pack::Packing;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Medium;
use dirtysim_model::transition::{Step, apply, describe, for_each_step};
use std::collections::HashMap;

#[test]
fn debug() {
    let Ok(file) = std::env::var("DEBUG_SCENARIO") else {
        return;
    };
    let text = std::fs::read_to_string(file).unwrap();
    let scenario = Scenario::from_toml("x", &text).unwrap();
    let machine = &scenario.machine;
    println!("{:?}", machine.programs);
    let explored = explore::<Medium>(&scenario, 100_000).unwrap();
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
    let images: HashMap<Vec<u64>, _> = explored
        .states
        .iter()
        .map(|state| (pack(state), state.clone()))
        .collect();
    let first = pack(&start);
    let mut seen: HashMap<Vec<u64>, (Vec<u64>, Option<Step>)> =
        HashMap::from([(first.clone(), (vec![], None))]);
    let mut level = vec![first];
    let mut shown = 0;
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
                        "--- {step:?} {} leads to what nobody has:\nbefore {state:?}\nafter {after:?}\npacked {:?}",
                        describe(machine, &state, step),
                        unpack(&packed)
                    );
                    for raw in explored.states.iter().filter(|raw| pack(raw) == words) {
                        let mut a = State::clone(raw);
                        apply(machine, &mut a, step);
                        println!("raw {raw:?}\nraw after {:?}", unpack(&pack(&a)));
                    }
                }
                if !seen.contains_key(&packed) {
                    seen.insert(packed.clone(), (words.clone(), Some(step)));
                    next.push(packed);
                }
            });
        }
        level = next;
    }
    println!("{} images, {} by packed", images.len(), seen.len());
    let missing = images.keys().filter(|k| !seen.contains_key(*k)).count();
    println!("{missing} missing");
}
