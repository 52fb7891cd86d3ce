//! The scenario that is also written in Promela, by hand: SPIN and the project's search agree on every state.

use std::path::Path;

use dirtysim::search::{self, Options, Reductions, Verdict};

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
        let options = Options {
            keep_going: true,
            counterexample: false,
            reductions: Reductions::NONE,
            ..Options::default()
        };
        let report = search::check(&sizes.scenario(), &options, &|_| true)
            .unwrap_or_else(|error| panic!("{sizes}: {error}"));
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
