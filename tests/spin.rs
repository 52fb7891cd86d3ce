//! The scenario that is also written in Promela and in Murphi, by hand: SPIN, Rumur and the project's search agree on every state.

use std::path::Path;

use dirtysim::search::{self, Options, Reductions, Report, Verdict};

use dirtysim_peers::rumur::{self, Symmetry};
use dirtysim_peers::sizes::Sizes;
use dirtysim_peers::spin::{self, Reduction, Verifier};

/// Sizes at which the two are compared; between them every line of the Promela text is reached.
const SIZES: [Sizes; 8] = {
    const SMALLEST: Sizes = Sizes {
        x86: false,
        pages: 2,
        vcpus: 1,
        stores: 1,
        rounds: 1,
        bitmap_first: false,
    };
    [
        SMALLEST,
        Sizes {
            stores: 2,
            rounds: 2,
            ..SMALLEST
        },
        Sizes {
            vcpus: 2,
            ..SMALLEST
        },
        Sizes {
            pages: 3,
            vcpus: 2,
            ..SMALLEST
        },
        Sizes {
            pages: 3,
            bitmap_first: true,
            vcpus: 2,
            ..SMALLEST
        },
        Sizes {
            x86: true,
            ..SMALLEST
        },
        Sizes {
            x86: true,
            stores: 3,
            rounds: 2,
            ..SMALLEST
        },
        Sizes {
            x86: true,
            pages: 3,
            vcpus: 2,
            ..SMALLEST
        },
    ]
};

fn search(sizes: &Sizes, reductions: Reductions) -> Report {
    let options = Options {
        keep_going: true,
        counterexample: false,
        reductions,
        ..Options::default()
    };
    search::check(&sizes.scenario(), &options, &|_| true)
        .unwrap_or_else(|error| panic!("{sizes}: {error}"))
}

#[test]
fn spin_stores_exactly_the_states_that_the_search_finds() {
    if let Some(reason) = spin::missing() {
        println!("skipped: {reason}");
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("spin");
    for sizes in SIZES {
        let verifier = Verifier::build(&folder, &sizes, Reduction::None, 20, "-O0")
            .unwrap_or_else(|error| panic!("{sizes}: {error}"));
        let printed = verifier
            .run()
            .unwrap_or_else(|error| panic!("{sizes}: {error}"));
        let report = search(&sizes, Reductions::NONE);
        println!(
            "{sizes}: {} states, {} transitions",
            printed.states, printed.transitions
        );
        assert_eq!(report.states, printed.states, "{sizes}: distinct states");
        assert_eq!(
            report.transitions, printed.transitions,
            "{sizes}: transitions"
        );
        assert_eq!(
            report.verdict == Verdict::Violated,
            printed.errors > 0,
            "{sizes}: SPIN's assertion fails exactly where the search finds a lost page"
        );
        assert_eq!(
            printed.errors > 0,
            sizes.bitmap_first,
            "{sizes}: only the bitmap fetched too early loses a page"
        );
    }
}

#[test]
fn rumur_finds_the_same_states_and_with_its_symmetry_those_that_no_exchange_of_pages_makes_equal() {
    if let Some(reason) = rumur::missing() {
        println!("skipped: {reason}");
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("spin");
    let run = |sizes: &Sizes, symmetry| {
        let verifier = rumur::Verifier::build(&folder, sizes, symmetry, 1, 1 << 18, "-O0");
        let verifier = verifier.unwrap_or_else(|error| panic!("{sizes}: {error}"));
        let output = verifier.command().output().expect("it was built");
        let printed = rumur::parse(&String::from_utf8_lossy(&output.stdout));
        printed.unwrap_or_else(|error| panic!("{sizes}: {error}"))
    };
    for sizes in [SIZES[2], SIZES[4], SIZES[7]] {
        let printed = run(&sizes, Symmetry::Off);
        assert_eq!(
            printed.errors > 0,
            sizes.bitmap_first,
            "{sizes}: a page is lost"
        );
        // It stops where it has found an error.
        if !sizes.bitmap_first {
            let report = search(&sizes, Reductions::NONE);
            let counts = (printed.states, printed.transitions);
            assert_eq!(counts, (report.states, report.transitions), "{sizes}");
        }
    }
    let sizes = SIZES[7];
    let pages = Reductions {
        pages: true,
        ..Reductions::NONE
    };
    let printed = run(&sizes, Symmetry::Exhaustive);
    let report = search(&sizes, pages);
    assert_eq!(printed.states, report.states, "{sizes}: pages exchanged");
}
