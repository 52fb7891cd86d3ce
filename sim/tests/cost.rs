//! Properties of the cost model over inputs that nobody chose, and its output to the last byte.

use dirtysim::cost::units::{GIB, MIB, MS, PAGE_BYTES, SECOND};
use dirtysim::cost::{
    CostError, Inputs, Pattern, Rearm, StopReason, Sweep, Tracking, WIRE_PAGE_BYTES, WorkingSet,
    Writer, crossover, downtime_with, report, simulate, stop_and_copy,
};
use proptest::prelude::*;

fn tracking() -> impl Strategy<Value = Tracking> {
    prop_oneof![
        Just(Tracking::Bitmap(Rearm::Get)),
        Just(Tracking::Bitmap(Rearm::Clear)),
        Just(Tracking::Bitmap(Rearm::ClearInitiallySet)),
        (10u32..=16).prop_map(|power| Tracking::RingWithBitmap {
            entries: 1 << power
        }),
    ]
}

fn working_set(writer: Writer) -> impl Strategy<Value = WorkingSet> {
    let pattern = prop_oneof![Just(Pattern::Random), Just(Pattern::Sweep)];
    (0u64..4096, 0u64..2_000_000_000, pattern).prop_map(move |(mib, bytes_per_s, pattern)| {
        WorkingSet {
            bytes: mib * MIB,
            bytes_per_s,
            pattern,
            writer,
        }
    })
}

/// Guests of 9 to 64 GiB, links of 100 Mbit/s to 100 Gbit/s, all writers and ways of tracking.
fn inputs() -> impl Strategy<Value = Inputs> {
    let sets = (working_set(Writer::Vcpu), working_set(Writer::NonVcpu));
    (
        9u64..64,
        100u64..100_000,
        1u64..128,
        sets,
        0u64..10_000,
        tracking(),
        1u64..2000,
        1u32..40,
    )
        .prop_map(
            |(
                gib,
                mbit,
                vcpus,
                (vcpu, other),
                device_save_pages,
                tracking,
                limit_ms,
                rounds_max,
            )| {
                let mut inputs = Inputs {
                    memory_bytes: gib * GIB,
                    link_bits_per_s: mbit * 1_000_000,
                    vcpus,
                    working_sets: vec![vcpu, other],
                    device_save_pages,
                    tracking,
                    ..Inputs::default()
                };
                inputs.stop.downtime_limit_ns = Some(limit_ms * MS);
                inputs.stop.rounds_max = rounds_max;
                inputs
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16_384, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_parts_add_up_and_everything_is_sent_at_least_once(inputs in inputs()) {
        let outcome = simulate(&inputs).unwrap();
        let parts: u64 = outcome.downtime.parts().iter().map(|part| part.1).sum();
        prop_assert_eq!(parts, outcome.downtime_ns);
        let rounds: u64 = outcome.rounds.iter().map(|round| round.ns()).sum();
        prop_assert_eq!(rounds + outcome.downtime_ns, outcome.total_ns);
        prop_assert!(outcome.bytes_sent >= inputs.memory_bytes);
        let pages: u64 = outcome.rounds.iter().map(|round| round.pages).sum();
        let left = outcome.vcpu_pages_left + outcome.bitmap_pages_left;
        prop_assert_eq!(outcome.bytes_sent, (pages + left) * WIRE_PAGE_BYTES);
    }

    #[test]
    fn no_round_sends_more_than_is_written(inputs in inputs()) {
        let outcome = simulate(&inputs).unwrap();
        let written: u64 = inputs.working_sets.iter().map(WorkingSet::pages).sum();
        prop_assert!(outcome.rounds.iter().all(|round| round.dirtied <= written));
        prop_assert!(outcome.rounds.len() <= inputs.stop.rounds_max as usize);
        if outcome.stop == StopReason::DowntimeLimit {
            prop_assert!(outcome.downtime.copy_ns <= inputs.stop.downtime_limit_ns.unwrap());
        }
    }

    #[test]
    fn more_bandwidth_never_lengthens_a_migration(inputs in inputs(), more_mbit in 0u64..50_000) {
        let mut faster = inputs.clone();
        faster.link_bits_per_s += more_mbit * 1_000_000;
        let (slow, fast) = (simulate(&inputs).unwrap(), simulate(&faster).unwrap());
        prop_assert!(fast.rounds.len() <= slow.rounds.len());
        // A set's pages are counted to the nearest page in two halves, and its expectation is no whole number: one
        // page's time for each round and set is all that rounding can add.
        let page_ns = WIRE_PAGE_BYTES * SECOND / faster.full_rate() + 1000;
        let rounding = (slow.rounds.len() as u64 + 1) * 2 * page_ns;
        prop_assert!(fast.total_ns <= slow.total_ns + rounding, "{} then {}", slow.total_ns, fast.total_ns);
    }

    #[test]
    fn a_guest_that_writes_more_never_leaves_fewer_pages_behind_a_round(inputs in inputs(), more in 0u64..1_000_000_000) {
        let mut busier = inputs.clone();
        busier.working_sets[0].bytes_per_s += more;
        let (calm, busy) = (simulate(&inputs).unwrap(), simulate(&busier).unwrap());
        for (calm, busy) in calm.rounds.iter().zip(&busy.rounds) {
            prop_assert!(busy.dirtied + 2 >= calm.dirtied);
        }
    }

    #[test]
    fn a_crossing_is_where_the_lines_cross(inputs in inputs()) {
        let outcome = simulate(&inputs).unwrap();
        let found = crossover(&inputs, &outcome).unwrap();
        let limit = inputs.stop.downtime_limit_ns.unwrap() + 1;
        let everything = inputs.memory_pages();
        for (pages, line) in [
            (found.beyond_limit, limit),
            (found.bitmap_alone, found.bitmap_alone_ns),
            (found.stop_and_copy, stop_and_copy(&inputs).unwrap().total_ns().unwrap()),
        ] {
            match pages {
                None => prop_assert!(downtime_with(&inputs, &outcome, everything).unwrap() < line),
                Some(pages) => {
                    prop_assert!(downtime_with(&inputs, &outcome, pages).unwrap() >= line);
                    prop_assert!(pages == 0 || downtime_with(&inputs, &outcome, pages - 1).unwrap() < line);
                }
            }
        }
    }

    #[test]
    fn rearming_later_never_sends_more(mut inputs in inputs()) {
        // With re-arming free, so that CLEAR's own time is not what is compared.
        inputs.costs.rearm_ps_per_page = 0;
        inputs.costs.ioctl_ns = 0;
        let mut sent = |rearm| {
            inputs.tracking = Tracking::Bitmap(rearm);
            let outcome = simulate(&inputs).unwrap();
            outcome.rounds[0].dirtied
        };
        let (get, clear, initially_set) = (sent(Rearm::Get), sent(Rearm::Clear), sent(Rearm::ClearInitiallySet));
        prop_assert_eq!(get, clear);
        prop_assert!(initially_set <= clear + 2);
    }

    #[test]
    fn nothing_panics_whatever_is_asked(
        memory in any::<u64>(), link in any::<u64>(), vcpus in any::<u64>(), set in any::<u64>(), rate in any::<u64>(),
        save in any::<u64>(), entries in any::<u64>(), limit in any::<u64>(), rounds in any::<u32>(),
        shift in 0u32..64,
    ) {
        let mut inputs = Inputs {
            memory_bytes: (memory >> shift) / PAGE_BYTES * PAGE_BYTES,
            link_bits_per_s: link >> shift,
            vcpus: vcpus >> shift,
            device_save_pages: save >> shift,
            tracking: Tracking::RingWithBitmap { entries: entries >> shift },
            ..Inputs::default()
        };
        inputs.working_sets[0].bytes = (set >> shift) / PAGE_BYTES * PAGE_BYTES;
        inputs.working_sets[0].bytes_per_s = rate >> shift;
        inputs.stop.downtime_limit_ns = Some(limit);
        inputs.stop.rounds_max = rounds;
        if let Err(error) = simulate(&inputs) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

#[test]
fn the_largest_inputs_are_simulated_or_refused_but_never_wrapped() {
    let mut inputs = Inputs {
        memory_bytes: dirtysim::cost::MEMORY_MAX_BYTES,
        link_bits_per_s: dirtysim::cost::RATE_MAX,
        ..Inputs::default()
    };
    inputs.working_sets[0].bytes = dirtysim::cost::MEMORY_MAX_BYTES / 2;
    inputs.working_sets[0].bytes_per_s = dirtysim::cost::RATE_MAX;
    inputs.stop.rounds_max = dirtysim::cost::ROUNDS_MAX;
    match simulate(&inputs) {
        Ok(outcome) => assert!(outcome.bytes_sent >= inputs.memory_bytes),
        Err(error) => assert_eq!(error, CostError::TimeOverflow),
    }
}

/// The whole of what the default migration, a sweep and the calibration give, compared byte by byte: a machine on
/// which one integer comes out differently fails here. `DIRTYSIM_BLESS=1 cargo test -p dirtysim --test cost` rewrites it.
#[test]
fn results_are_the_same_bytes_on_every_machine() {
    let inputs = Inputs::default();
    let outcome = simulate(&inputs).unwrap();
    let crossings = crossover(&inputs, &outcome).unwrap();
    let sweep = Sweep::parse("bandwidth=1G..40G:10").unwrap();
    let sweeps = [sweep];
    let rows = dirtysim::cost::sweep(&sweeps, &inputs).unwrap();
    let calibration = dirtysim::cost::calibration::calibrate().unwrap();
    let documents = [
        report::outcome_json(&inputs, &outcome, &crossings),
        report::sweep_json(&inputs, &sweeps, &rows),
        report::calibration_json(&calibration),
    ];
    let got: String = documents
        .iter()
        .map(|document| format!("{document:#}\n"))
        .collect();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expected/cost.json");
    dirtysim_expected::file(&path, got);
}

#[test]
fn two_parameters_are_swept_to_csv_and_to_plots() {
    let dir = tempfile::tempdir().expect("a directory");
    let cost = |arguments: &[&str]| {
        let mut dirtysim = std::process::Command::new(env!("CARGO_BIN_EXE_dirtysim"));
        dirtysim.current_dir(dir.path()).arg("cost").args(arguments);
        dirtysim_expected::said(&mut dirtysim)
    };
    let two = ["--sweep", "bandwidth=10G..40G:4", "--sweep", "vcpus=4..8:2"];
    let (code, text, said) = cost(&[&two[..], &["--csv", "it.csv", "--plot", "plots"]].concat());
    assert_eq!(code, Some(0), "{text}{said}");
    let csv = std::fs::read_to_string(dir.path().join("it.csv")).expect("a table");
    assert_eq!(csv.lines().count(), 9, "{csv}");
    assert!(
        csv.starts_with("bandwidth (bits/s),vcpus (vCPUs),stop,rounds,total_ns,"),
        "{csv}"
    );
    assert!(
        csv.lines()
            .nth(2)
            .is_some_and(|line| line.starts_with("10000000000,8,")),
        "{csv}"
    );
    for name in ["sweep-downtime.svg", "sweep-total-time.svg"] {
        let svg = std::fs::read_to_string(dir.path().join("plots").join(name)).expect("a drawing");
        assert!(svg.contains("vcpus 4") && svg.contains("vcpus 8"), "{name}");
        assert!(svg.contains("bandwidth, Gbit/s"), "{name}");
    }
    let wide = [
        "--sweep",
        "bandwidth=10G..40G:4",
        "--sweep",
        "vcpus=1..9:9",
        "--plot",
        "none",
    ];
    for (arguments, says) in [
        (&wide[..], "at most 6"),
        (
            &["--sweep", "vcpus=1..4", "--sweep", "vcpus=1..4"],
            "varied already",
        ),
        (&["--csv", "it.csv"], "--sweep"),
    ] {
        let (code, _, said) = cost(arguments);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(says), "{said}");
        assert!(!dir.path().join("none").exists());
    }
}
