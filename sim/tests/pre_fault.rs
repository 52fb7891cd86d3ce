//! KVM_PRE_FAULT_MEMORY: pages that it maps are recorded in the vCPU's ring, with no look at the soft-full request between them.

use dirtysim::scenario::Scenario;
use dirtysim::search::{Options, Verdict, check};
use dirtysim_model::oracle::Invariant;

fn scenario(machine: &str, steps: &str) -> Result<Scenario, String> {
    let text = format!(
        "name = \"pre-fault\"\n[machine]\n{machine}\n[writers]\nvcpu = {{ stores = 1 }}\n[protocol]\nsteps = [{steps}]\n"
    );
    Scenario::from_toml("pre-fault.toml", &text).map_err(|error| error.to_string())
}

const X86: &str = "arch = \"x86\"\nvcpus = 1\npages = 4\nring = { entries = 4, reserved = 2 }";

const ROUND: &str = "\"pause-vcpus\", \"harvest-rings\", \"reset-rings\", \"copy\", \"finish\"";

#[test]
fn what_it_maps_is_recorded_and_nothing_is_lost() {
    let steps = format!(
        "\"enable-logging\", \"copy-all\", \"pause-vcpus\", {{ step = \"pre-fault\", pages = [0] }}, \"resume-vcpus\", {ROUND}"
    );
    let scenario = scenario(X86, &steps).unwrap();
    let report = check(&scenario, &Options::default(), &|_| true).unwrap();
    assert_eq!(report.verdict, Verdict::Holds, "{:?}", report.broken);
}

#[test]
fn more_pages_than_a_ring_has_entries_overflow_it() {
    let steps = format!(
        "\"enable-logging\", \"copy-all\", \"pause-vcpus\", {{ step = \"pre-fault\", pages = [0, 1, 2, 3] }}, \"resume-vcpus\", {ROUND}"
    );
    let scenario = scenario(
        &X86.replace("entries = 4, reserved = 2", "entries = 2, reserved = 1"),
        &steps,
    )
    .unwrap();
    let report = check(&scenario, &Options::default(), &|_| true).unwrap();
    assert_eq!(report.verdict, Verdict::Violated);
    assert!(report.broken.has(Invariant::RingNeverOverflows));
}

#[test]
fn a_machine_without_it_is_refused_with_what_it_needs() {
    let steps = format!("{{ step = \"pre-fault\", pages = [0] }}, {ROUND}");
    for machine in [
        X86.replace("x86", "arm64"),
        format!("{X86}\nkernel = \"6.1\""),
        format!("{X86}\nmmu = \"shadow\""),
    ] {
        let error = scenario(&machine, &steps).unwrap_err();
        assert!(error.contains("KVM_PRE_FAULT_MEMORY"), "{error}");
        assert!(error.contains("two-dimensional"), "{error}");
    }
}
