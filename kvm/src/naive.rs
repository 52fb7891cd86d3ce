//! The search of code against a plain explorer of the same code, and against the same order in the language of scenarios.

use std::collections::HashSet;
use std::sync::Arc;

use dirtysim_check::code::{Grow, go_on};
use dirtysim_check::scenario::Scenario;
use dirtysim_check::search::{self, Options, Reductions, Verdict};
use dirtysim_model::oracle::{self, Invariant};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Small;
use dirtysim_model::transition::{apply, for_each_step};

use crate::session::{Code, Threads};
use crate::tree::{Tree, Trouble};
use crate::vm::Vm;
use crate::{Errno, Machine};

/// What a way of looking came to: the claim that breaks, and the fewest steps with which one does.
type Found = Option<(Invariant, usize)>;

const ONE: Threads = Threads {
    count: 1,
    apart: false,
};
const TWO: Threads = Threads {
    count: 2,
    apart: false,
};
const TWO_APART: Threads = Threads {
    count: 2,
    apart: true,
};

const CLAIMS: [&str; 2] = ["no_dirty_page_lost", "nothing_crashes"];

fn tree(machine: &Machine, threads: Threads, code: &Code) -> (Tree, Scenario) {
    Tree::new(machine, "naive", &CLAIMS, code.clone(), threads, 500, false).expect("it can be")
}

/// Every state by itself, as the model has it: no packing, no memo, no reduction.
fn plainly(machine: &Machine, threads: Threads, code: &Code) -> (Found, usize) {
    let (mut tree, scenario) = tree(machine, threads, code);
    // A plain explorer takes nothing for granted.
    tree.expect_everything();
    let mut model = scenario.machine.clone();
    tree.tell(&mut model);
    let mut settle = |model: &mut _, state: &mut State<Small>| {
        while let Err(unknown) = go_on(model, state) {
            assert!(tree.grow(model, &[unknown]), "{:?}", tree.trouble);
        }
    };
    let mut start = scenario.start::<Small>().expect("it is small");
    settle(&mut model, &mut start);
    let mut seen = HashSet::from([start.clone()]);
    let mut level = vec![start];
    let mut depth = 0;
    while !level.is_empty() {
        depth += 1;
        let mut next = Vec::new();
        for state in &level {
            let mut steps = Vec::new();
            for_each_step(&model, state, |step| steps.push(step));
            for step in steps {
                let mut after = state.clone();
                let effect = apply(&model, &mut after, step);
                if let Some(broken) = oracle::check(&model, &after, effect).iter().next() {
                    return (Some((broken, depth)), seen.len());
                }
                settle(&mut model, &mut after);
                if seen.insert(after.clone()) {
                    next.push(after);
                }
            }
        }
        level = next;
    }
    (None, seen.len())
}

/// By the search.
fn by_search(
    machine: &Machine,
    threads: Threads,
    code: &Code,
    reductions: Reductions,
) -> (Found, u64) {
    let (mut tree, mut scenario) = tree(machine, threads, code);
    let options = Options {
        reductions,
        ..Options::default()
    };
    (tree.counts_on_it, tree.guesses) = (true, true);
    let report = loop {
        tree.tell(&mut scenario.machine);
        let searched = search::check_code(&scenario, &options, &|_| true, &mut tree);
        let (report, grown) = searched.expect("it is small");
        scenario.machine = grown;
        match tree.trouble.take() {
            None => break report,
            Some(trouble) => {
                assert!(
                    matches!(trouble, Trouble::News | Trouble::Unlike),
                    "{trouble:?}"
                );
                let (fresh, anew) = self::tree(machine, threads, code);
                tree.begin_anew(fresh);
                scenario = anew;
            }
        }
    };
    let found = report.violation.map(|violation| {
        let steps = violation.steps.expect("no limit came first");
        (violation.invariant, steps.len())
    });
    assert_eq!(found.is_none(), report.verdict == Verdict::Holds);
    (found, report.states)
}

fn code(run: impl Fn(Vm) -> Result<(), Errno> + Send + Sync + 'static) -> Code {
    Arc::new(move |session| run(Vm::new(session)).map_err(|error| error.to_string()))
}

/// The same by all ways; what the search with all that is sound came to.
fn compare(machine: &Machine, threads: Threads, code: &Code) -> Found {
    let (found, states) = plainly(machine, threads, code);
    let (unreduced, packed) = by_search(machine, threads, code, Reductions::NONE);
    assert_eq!(found, unreduced);
    let (reduced, fewer) = by_search(machine, threads, code, Reductions::ALL);
    assert_eq!(found, reduced);
    if found.is_none() {
        assert!(
            packed <= states as u64 && fewer <= packed,
            "{states} {packed} {fewer}"
        );
    }
    found
}

const SMALL: &str = r#"
name = "small"
[machine]
"#;

/// An order in the language of scenarios, and as code.
struct Order {
    machine: &'static str,
    steps: &'static str,
    code: fn(&Vm) -> Result<(), Errno>,
    holds: bool,
}

fn log(vm: &Vm) -> Result<(), Errno> {
    vm.set_user_memory_region(vm.memory_region(0).log_dirty_pages())?;
    vm.send_all_pages();
    Ok(())
}

fn get(vm: &Vm) -> Result<Vec<u64>, Errno> {
    let bitmap = vm.get_dirty_log(0, vm.memory_region(0).memory_size as usize)?;
    Ok((0..2).filter(|page| bitmap[0] >> page & 1 != 0).collect())
}

fn send(vm: &Vm, pages: Vec<u64>) {
    pages.into_iter().for_each(|page| vm.send_page(0, page));
}

fn harvest(vm: &Vm) -> Vec<u64> {
    let ring = vm.vcpu(0).dirty_log_ring_iter().expect("it has one");
    ring.map(|(_, page)| page).collect()
}

const RING: &str = "arch = \"x86\"\npages = 2\nring = { entries = 2, reserved = 1 }\n[writers]\nvcpu = { stores = 2 }\n";
const BITMAP: &str = "arch = \"arm64\"\npages = 2\n[writers]\nvcpu = { stores = 2 }\n";
const MANUAL: &str =
    "arch = \"x86\"\npages = 2\nmanual_protect = true\n[writers]\nvcpu = { stores = 2 }\n";
const PML: &str =
    "arch = \"x86\"\npml = true\npml_entries = 1\npages = 2\n[writers]\nvcpu = { stores = 2 }\n";
const ITS: &str = "arch = \"arm64\"\npages = 2\nring = { entries = 2, reserved = 1 }\nring_with_bitmap = true\n[writers]\nvcpu = { stores = 1 }\nits_save = { tables = [1] }\n";

const ORDERS: [Order; 9] = [
    Order {
        machine: RING,
        steps: r#""harvest-rings", "reset-rings", "copy", "pause-vcpus", "harvest-rings", "copy""#,
        code: |vm| {
            let pages = harvest(vm);
            vm.reset_dirty_rings()?;
            send(vm, pages);
            vm.pause_vcpus();
            send(vm, harvest(vm));
            Ok(())
        },
        holds: true,
    },
    Order {
        machine: RING,
        steps: r#""harvest-rings", "copy", "reset-rings", "pause-vcpus", "harvest-rings", "copy""#,
        code: |vm| {
            send(vm, harvest(vm));
            vm.reset_dirty_rings()?;
            vm.pause_vcpus();
            send(vm, harvest(vm));
            Ok(())
        },
        holds: false,
    },
    Order {
        machine: BITMAP,
        steps: r#""get-dirty-log", "copy", "pause-vcpus", "get-dirty-log", "copy""#,
        code: |vm| {
            send(vm, get(vm)?);
            vm.pause_vcpus();
            send(vm, get(vm)?);
            Ok(())
        },
        holds: true,
    },
    Order {
        machine: BITMAP,
        steps: r#""get-dirty-log", "copy", "get-dirty-log", "pause-vcpus", "copy""#,
        code: |vm| {
            send(vm, get(vm)?);
            let last = get(vm)?;
            vm.pause_vcpus();
            send(vm, last);
            Ok(())
        },
        holds: false,
    },
    Order {
        machine: MANUAL,
        steps: r#""get-dirty-log", "clear-dirty-log", "copy", "pause-vcpus", "get-dirty-log", "copy""#,
        code: |vm| {
            let pages = get(vm)?;
            let bits = pages.iter().fold(0, |bits, page| bits | 1 << page);
            vm.clear_dirty_log(0, 0, 2, &[bits])?;
            send(vm, pages);
            vm.pause_vcpus();
            send(vm, get(vm)?);
            Ok(())
        },
        holds: true,
    },
    Order {
        machine: MANUAL,
        steps: r#""get-dirty-log", "copy", "clear-dirty-log", "pause-vcpus", "get-dirty-log", "copy""#,
        code: |vm| {
            let pages = get(vm)?;
            let bits = pages.iter().fold(0, |bits, page| bits | 1 << page);
            send(vm, pages);
            vm.clear_dirty_log(0, 0, 2, &[bits])?;
            vm.pause_vcpus();
            send(vm, get(vm)?);
            Ok(())
        },
        holds: false,
    },
    Order {
        machine: PML,
        steps: r#""get-dirty-log", "copy", "pause-vcpus", "get-dirty-log", "copy""#,
        code: |vm| {
            send(vm, get(vm)?);
            vm.pause_vcpus();
            send(vm, get(vm)?);
            Ok(())
        },
        holds: true,
    },
    Order {
        machine: ITS,
        steps: r#""pause-vcpus", "its-save-tables", "harvest-rings", "get-dirty-log", "copy""#,
        code: |vm| {
            vm.pause_vcpus();
            vm.its_save_tables()?;
            let mut pages = harvest(vm);
            pages.extend(get(vm)?);
            send(vm, pages);
            Ok(())
        },
        holds: true,
    },
    Order {
        machine: ITS,
        steps: r#""pause-vcpus", "harvest-rings", "get-dirty-log", "its-save-tables", "copy""#,
        code: |vm| {
            vm.pause_vcpus();
            let mut pages = harvest(vm);
            pages.extend(get(vm)?);
            vm.its_save_tables()?;
            send(vm, pages);
            Ok(())
        },
        holds: false,
    },
];

#[test]
fn a_plain_explorer_the_search_and_the_same_order_as_a_scenario_agree() {
    for order in ORDERS {
        let text = format!(
            "{SMALL}{}[protocol]\nsteps = [\"enable-logging\", \"copy-all\", {}, \"finish\"]\n",
            order.machine, order.steps
        );
        let machine = Machine::from_toml(&text).expect("it can be");
        let run = order.code;
        let found = compare(
            &machine,
            ONE,
            &code(move |vm| {
                log(&vm)?;
                run(&vm)?;
                vm.assert_copy_is_whole();
                Ok(())
            }),
        );
        let told = Scenario::from_toml("order", &text).expect("it can be");
        // Claims on the way break earlier.
        let options = Options {
            keep_going: true,
            ..Options::default()
        };
        let report = search::check(&told, &options, &|_| true).expect("it is small");
        let lost = Invariant::NoDirtyPageLost;
        let (of_code, of_text) = (
            found.map(|(invariant, _)| invariant),
            report.broken.has(lost).then_some(lost),
        );
        assert_eq!(of_code, of_text, "{}", order.steps);
        assert_eq!(of_code.is_none(), order.holds, "{}", order.steps);
    }
}

#[test]
fn code_that_goes_by_its_answers_is_explored_on_every_way() {
    // As many rounds as there is something to send, which no scenario says; then a panic that one answer alone leads to.
    let by_answers = |panics: bool| {
        code(move |vm| {
            log(&vm)?;
            for _ in 0..2 {
                let pages = get(&vm)?;
                assert!(!panics || pages.len() < 2, "both at once");
                if pages.is_empty() {
                    break;
                }
                send(&vm, pages);
            }
            vm.pause_vcpus();
            send(&vm, get(&vm)?);
            vm.resume_vcpus();
            vm.pause_vcpus();
            send(&vm, get(&vm)?);
            vm.assert_copy_is_whole();
            Ok(())
        })
    };
    let machine = Machine::from_toml(&format!("{SMALL}{BITMAP}")).expect("it can be");
    assert_eq!(compare(&machine, ONE, &by_answers(false)), None);
    // Long after it was answered, it goes by that: histories that look alike are not.
    let remembers = |wrongly: bool| {
        code(move |vm| {
            log(&vm)?;
            let first = get(&vm)?;
            send(&vm, first.clone());
            vm.pause_vcpus();
            let last = get(&vm)?;
            let forgets = wrongly && first == [0, 1];
            send(
                &vm,
                last.into_iter()
                    .filter(|page| !(forgets && *page == 1))
                    .collect(),
            );
            if first.is_empty() {
                vm.send_page(0, 0);
            }
            vm.assert_copy_is_whole();
            Ok(())
        })
    };
    assert_eq!(compare(&machine, ONE, &remembers(false)), None);
    let machine = Machine::from_toml(&format!(
        "{SMALL}{}",
        BITMAP.replace("stores = 2", "stores = 3")
    ));
    let found = compare(&machine.expect("it can be"), ONE, &remembers(true));
    assert_eq!(
        found.map(|(broken, _)| broken),
        Some(Invariant::NoDirtyPageLost)
    );
    let machine = Machine::from_toml(&format!("{SMALL}{BITMAP}")).expect("it can be");
    let found = compare(&machine, ONE, &by_answers(true));
    assert_eq!(
        found.map(|(broken, _)| broken),
        Some(Invariant::NothingCrashes)
    );
}

#[test]
fn several_threads_are_explored_in_every_order() {
    // One thread reaps, the other one migrates; a bug: what the reaper holds when it is asked to stop is not sent.
    let reaped = |forgets: bool| {
        code(move |vm| {
            log(&vm)?;
            let bag = Arc::new(vm.mutex(Vec::new()));
            let (reaper, theirs) = (vm.clone(), bag.clone());
            let thread = vm.spawn(move || {
                let pages = harvest(&reaper);
                reaper.reset_dirty_rings()?;
                theirs.lock().extend(pages);
                Ok::<(), Errno>(())
            });
            vm.pause_vcpus();
            if !forgets {
                thread.join();
            }
            let pages = std::mem::take(&mut *bag.lock());
            send(&vm, pages);
            send(&vm, harvest(&vm));
            vm.assert_copy_is_whole();
            Ok(())
        })
    };
    let one = "arch = \"x86\"\npages = 1\nring = { entries = 2, reserved = 1 }\n[writers]\nvcpu = { stores = 1 }\n";
    let machine = Machine::from_toml(&format!("{SMALL}{one}")).expect("it can be");
    assert_eq!(compare(&machine, TWO, &reaped(false)), None);
    let found = compare(&machine, TWO, &reaped(true));
    assert_eq!(
        found.map(|(broken, _)| broken),
        Some(Invariant::NoDirtyPageLost)
    );
}

#[test]
fn threads_that_share_no_memory_are_the_same_by_themselves_and_in_every_order() {
    let device = |joins: bool| {
        code(move |vm| {
            log(&vm)?;
            let device = vm.spawn_apart(|vm: Vm| {
                vm.store_page(0, 0);
                vm.store_page(0, 1);
            });
            let first = get(&vm)?;
            vm.pause_vcpus();
            if joins {
                device.join();
            }
            send(&vm, get(&vm)?);
            send(&vm, first);
            send(&vm, vec![0, 1]);
            vm.assert_copy_is_whole();
            Ok(())
        })
    };
    let one = "arch = \"x86\"\npages = 2\n[writers]\nvcpu = { stores = 1 }\n";
    let machine = Machine::from_toml(&format!("{SMALL}{one}")).expect("it can be");
    let states = |threads| by_search(&machine, threads, &device(true), Reductions::ALL).1;
    assert!(
        states(TWO_APART) < states(TWO),
        "{} {}",
        states(TWO_APART),
        states(TWO)
    );
    for threads in [TWO, TWO_APART] {
        assert_eq!(compare(&machine, threads, &device(true)), None);
        let found = compare(&machine, threads, &device(false));
        let lost = Invariant::NoDirtyPageLost;
        assert_eq!(found.map(|(broken, _)| broken), Some(lost));
    }
}
