//! Times the search of scenarios by name; all built-in ones without a name.
use dirtysim::{scenario, search};
fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let list = if names.is_empty() {
        scenario::builtins()
    } else {
        names
            .iter()
            .map(|n| scenario::Scenario::find(n).unwrap())
            .collect()
    };
    for s in list {
        let t = std::time::Instant::now();
        let o = search::Options {
            reductions: if std::env::var("NORED").is_ok() {
                search::Reductions::NONE
            } else {
                search::Reductions::ALL
            },
            max_time: Some(std::time::Duration::from_secs(60)),
            ..Default::default()
        };
        let r = search::check(&s, &o, &|_| true).unwrap();
        let e = t.elapsed().as_secs_f64();
        println!(
            "{:28} {:?} {:?} states {} trans {} depth {} bits {} peakB/st {:.1} {:.2}s {:.2} M/s viol {:?}",
            s.name,
            r.verdict,
            r.coverage,
            r.states,
            r.transitions,
            r.depth,
            r.state_bits,
            r.peak_bytes as f64 / r.states as f64,
            e,
            r.states as f64 / e / 1e6,
            r.violation.map(|v| (
                v.invariant.name(),
                v.depth,
                v.steps.as_ref().map(|s| s.len())
            ))
        );
    }
}
