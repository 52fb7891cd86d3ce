use dirtysim::debate::{claim, decide, expand};
fn main() {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let all = std::time::Instant::now();
    for claim in claim::claims() {
        if !only.is_empty() && !only.iter().any(|o| claim.id.starts_with(o.as_str())) { continue; }
        for case in &claim.cases {
            for on in expand::machines(&case.on).unwrap() {
                let t = std::time::Instant::now();
                match expand::scenario(&claim.id, case, &on) {
                    Err(e) => println!("{} {} {}: ERROR {e}", claim.id, case.name, on.slug()),
                    Ok((_, s)) => {
                        let d = decide::decide(&s, &case.along, &|| t.elapsed().as_secs() < 20).unwrap();
                        let (word, inv) = match &d.found { decide::Found::Holds => ("holds", "".into()), decide::Found::Violated{invariant, steps} => ("violated", format!("{} in {}", invariant.name(), steps.len())), decide::Found::Inconclusive{limit} => ("INCONCLUSIVE", limit.to_string()) };
                        let exp = case.expected();
                        let ok = match (&d.found, exp) { (decide::Found::Holds, claim::Outcome::Holds) => true, (decide::Found::Violated{invariant,..}, claim::Outcome::Breaks(i)) => *invariant == i, _ => false };
                        println!("{} {:4} {} {}: {word} {inv} states {} tr {} d {} {:.2}s", if ok {"ok "} else {"BAD"}, claim.id, case.name, on.slug(), d.states, d.transitions, d.depth, t.elapsed().as_secs_f64());
                    }
                }
            }
        }
    }
    println!("total {:.1}s", all.elapsed().as_secs_f64());
}
