//! For how many: what a verdict is about, dimension by dimension, each a number or any.
//!
//! A search that ends has looked at every state. Where a scenario gives its writers budgets without end, and lets the schedule say how
//! often it goes round, what such a search says is said for any number of stores and rounds: whoever has `n` stores does what somebody
//! with a budget without end does who stops after `n`, step by step, since nothing but the choice to begin an access reads a budget
//! (`docs/proofs.md`). Nothing is proved by halves: where one budget has an end, the verdict is *exhausted*.

use dirtysim_model::machine::Machine;
use dirtysim_model::op::ahead::look_ahead;
use dirtysim_model::op::{self, Op, Until};
use dirtysim_model::state::vcpu::UNLIMITED;

use super::part::is_of_others;
use crate::scenario::Scenario;

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Many {
    /// Any number.
    Any,
    /// At most, or exactly, that number.
    Number(u64),
}

impl Many {
    /// The most of some budgets; none where nobody has one.
    fn most(budgets: impl Iterator<Item = u8>) -> Option<Self> {
        let some: Vec<u8> = budgets.filter(|budget| *budget > 0).collect();
        // One that has an end has it, whatever the others have.
        let ends = some.iter().copied().filter(|budget| *budget != UNLIMITED);
        let most = some.iter().max()?;
        Some(match ends.max() {
            Some(most) => Self::Number(u64::from(most)),
            None if *most == UNLIMITED => Self::Any,
            None => Self::Number(u64::from(*most)),
        })
    }
}

/// What a verdict is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Stores of a vCPU, where there are any. Where one vCPU has an end and another none, that one's: so for each of these.
    pub stores: Option<Many>,
    /// Loads of a vCPU.
    pub loads: Option<Many>,
    /// Updates of a record that the kernel keeps, or stores that it emulates.
    pub updates: Option<Many>,
    /// Transfers of a device.
    pub transfers: Option<Many>,
    /// Sends that fail.
    pub failures: Option<Many>,
    /// Rounds: how often a part of a program is done.
    pub rounds: Many,
    /// Pages.
    pub pages: Many,
    /// vCPUs.
    pub vcpus: u64,
    /// Entries of a ring, and how many of them are kept in reserve; none without rings.
    pub ring: Option<(u64, u64)>,
    /// What keeps a search that ends from being a proof for those that are any.
    stands_in_the_way: Option<String>,
}

impl Bounds {
    /// Those of a scenario.
    #[must_use]
    pub fn of(scenario: &Scenario) -> Self {
        let machine = &scenario.machine;
        let vcpus = || machine.vcpus.iter();
        let entries = u64::from(scenario.ring_entries());
        let pages: u64 = machine
            .slots
            .iter()
            .map(|slot| u64::from(slot.npages))
            .sum();
        let mut bounds = Self {
            stores: Many::most(vcpus().map(|vcpu| vcpu.stores)),
            loads: Many::most(vcpus().map(|vcpu| vcpu.loads)),
            updates: Many::most(vcpus().map(|vcpu| vcpu.steal)),
            transfers: Many::most(machine.devices.iter().map(|device| device.transfers)),
            failures: Many::most(std::iter::once(machine.send_failures)),
            rounds: match (scenario.rounds, goes_round(scenario)) {
                (1, true) => Many::Any,
                (rounds, _) => Many::Number(rounds),
            },
            pages: if scenario.any_pages {
                Many::Any
            } else {
                Many::Number(pages)
            },
            vcpus: machine.vcpus.len() as u64,
            ring: (entries > 0).then(|| (entries, u64::from(machine.constants.ring_reserved))),
            stands_in_the_way: None,
        };
        bounds.stands_in_the_way = bounds.in_the_way(scenario);
        bounds
    }

    /// The dimensions that a scenario may say to be any, by name: those that it has.
    pub fn dimensions(&self) -> impl Iterator<Item = (&'static str, Many)> {
        [
            ("stores", self.stores),
            ("loads", self.loads),
            ("updates", self.updates),
            ("transfers", self.transfers),
            ("failures", self.failures),
            ("rounds", Some(self.rounds)),
            ("pages", Some(self.pages)),
        ]
        .into_iter()
        .filter_map(|(name, many)| Some((name, many?)))
    }

    /// Whether a search that ends proves something for any number.
    #[must_use]
    pub fn prove(&self) -> bool {
        self.dimensions().any(|(_, many)| many == Many::Any) && self.stands_in_the_way.is_none()
    }

    /// What keeps it from that, where some dimension is any.
    #[must_use]
    pub fn stands_in_the_way(&self) -> Option<&str> {
        self.stands_in_the_way.as_deref()
    }

    fn in_the_way(&self, scenario: &Scenario) -> Option<String> {
        let machine = &scenario.machine;
        if self.dimensions().all(|(_, many)| many != Many::Any) {
            return None;
        }
        if !machine.mutations().is_empty() {
            return Some(
                "a mutation is switched on, and nothing is argued for a wrong kernel".into(),
            );
        }
        if machine.code.is_some() {
            return Some(
                "a VMM's own code is run, and what it does is known as far as it came".into(),
            );
        }
        for (name, many) in self.dimensions() {
            match (name, many) {
                ("pages", _) | (_, Many::Any) => {}
                ("rounds", Many::Number(1)) => {}
                ("rounds", Many::Number(rounds)) => {
                    return Some(format!(
                        "`repeat` has {rounds} rounds: write {{ any_number = [ … ] }} or {{ until_clean = [ … ] }}"
                    ));
                }
                (_, Many::Number(most)) => {
                    return Some(format!(
                        "{name} = {most} has an end: write {name} = \"any\""
                    ));
                }
            }
        }
        excuses(machine).then(|| {
            "what any_number comes to again accounts for pages on the way: a copy of all memory, pages that are declared dirty, a log that is turned on with INITIALLY_SET".into()
        })
    }

    /// The dimensions that are any, in words.
    #[must_use]
    pub fn any(&self) -> String {
        let any: Vec<&str> = self
            .dimensions()
            .filter(|(_, many)| *many == Many::Any)
            .map(|(name, _)| name)
            .collect();
        list(&any)
    }

    /// The sentence of a proof: for how many, and with what.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut with = vec![count(self.vcpus, "vCPU")];
        if let Some((entries, reserved)) = self.ring {
            with.push(format!("rings of {entries} with {reserved} in reserve"));
        }
        if let Many::Number(pages) = self.pages {
            with.push(count(pages, "page"));
        }
        if self.rounds != Many::Any {
            with.push("rounds as written".to_owned());
        }
        format!("for any number of {}; with {}", self.any(), with.join(", "))
    }
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `a`, `a and b`, `a, b and c`.
fn list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Whether a program goes back somewhere, but to the next part of a memslot.
fn goes_round(scenario: &Scenario) -> bool {
    scenario.machine.programs.iter().any(|program| {
        program.iter().enumerate().any(|(at, op)| match op {
            Op::Again(op::Again { to, .. }) if usize::from(*to) <= at => {
                let body = &program[usize::from(*to)..at];
                !scenario.any_pages || !is_of_others(&scenario.machine, body)
            }
            _ => false,
        })
    })
}

/// Whether a claim on the way would see less in a program that is written out round by round: what comes again accounts for pages, and
/// in the last of so many rounds it does not come again.
fn excuses(machine: &Machine) -> bool {
    let mut once = machine.clone();
    for program in &mut once.programs {
        for (at, op) in program.iter_mut().enumerate() {
            if let Op::Again(op::Again {
                to,
                until: Until::AnyTime,
            }) = op
            {
                *to = at as u16 + 1;
            }
        }
    }
    look_ahead(&mut once);
    let accounts = |machine: &Machine| -> Vec<_> {
        let ahead = machine.ahead.iter().flatten();
        ahead
            .map(|ahead| {
                (
                    ahead.full_copy,
                    ahead.declared.clone(),
                    ahead.log_on.clone(),
                )
            })
            .collect()
    };
    accounts(&once) != accounts(machine)
}

#[cfg(test)]
mod tests {
    use dirtysim_model::oracle::Invariant;
    use dirtysim_model::words::mutation::Mutation;

    use super::*;
    use crate::search::{self, Coverage, Options, Report, Verdict};

    /// The order of KVM's documentation with one page and one vCPU.
    fn docs(stores: &str, round: &str) -> Scenario {
        read(&format!(
            "arch = \"arm64\"\nring = {{ entries = 4, reserved = 2 }}\nring_with_bitmap = true\nvcpus = 1\npages = 1\n[writers]\nvcpu = {{ stores = {stores} }}\nits_save = {{ tables = [0] }}\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", {{ {round} }}, \"pause-vcpus\", \"its-save-tables\", \"harvest-rings\", \"get-dirty-log\", \"copy\", \"finish\"]"
        ))
    }

    const ROUND: &str = "[\"harvest-rings\", \"reset-rings\", \"copy\"]";

    fn read(text: &str) -> Scenario {
        let text = format!("name = \"any\"\n[machine]\n{text}\n");
        Scenario::from_toml("any", &text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn check(scenario: &Scenario) -> Report {
        search::check(scenario, &Options::default(), &|_| true).expect("it has room")
    }

    #[test]
    fn a_search_that_ends_is_a_proof_where_nothing_has_an_end() {
        for round in ["until_clean", "any_number"] {
            let scenario = docs("\"any\"", &format!("{round} = {ROUND}"));
            let report = check(&scenario);
            assert_eq!(
                (report.verdict, report.coverage),
                (Verdict::Holds, Coverage::Proved)
            );
            assert_eq!(
                report.bounds.sentence(),
                "for any number of stores and rounds; with 1 vCPU, rings of 4 with 2 in reserve, 1 page"
            );
            // What is proved for any number holds for each.
            for stores in 1..=4 {
                let few = docs(&stores.to_string(), &format!("repeat = 2, steps = {ROUND}"));
                let report = check(&few);
                assert_eq!(
                    (report.verdict, report.coverage),
                    (Verdict::Holds, Coverage::Exhausted)
                );
            }
        }
    }

    #[test]
    fn what_has_an_end_stands_in_the_way() {
        let said = |scenario: &Scenario| {
            let report = check(scenario);
            assert_eq!(report.coverage, Coverage::Exhausted);
            report
                .bounds
                .stands_in_the_way()
                .unwrap_or_default()
                .to_owned()
        };
        let repeated = docs("\"any\"", &format!("repeat = 2, steps = {ROUND}"));
        assert!(said(&repeated).starts_with("`repeat` has 2 rounds"));
        let stores = docs("2", &format!("any_number = {ROUND}"));
        assert!(said(&stores).starts_with("stores = 2 has an end"));
        let excused = docs(
            "\"any\"",
            "any_number = [\"harvest-rings\", \"reset-rings\", \"copy-all\"]",
        );
        assert!(said(&excused).starts_with("what any_number comes to again"));
        let numbers = docs("1", &format!("repeat = 2, steps = {ROUND}"));
        assert_eq!(said(&numbers), "");
    }

    #[test]
    fn mutations_break_what_is_proved_and_are_never_proved_themselves() {
        let scenario = docs("\"any\"", &format!("any_number = {ROUND}"));
        for name in [
            "kernel.reset.flush=none",
            "kernel.fault.mark=none",
            "kernel.nonvcpu.with_ring=drop",
        ] {
            let mutation = Mutation::ALL
                .iter()
                .find(|mutation| mutation.name() == name);
            let mutation = *mutation.expect("there is one of that name");
            let report = check(&scenario.clone().with_mutation(mutation));
            assert_eq!(report.verdict, Verdict::Violated, "{name}");
        }
        let mutation = Mutation::ALL
            .iter()
            .find(|mutation| mutation.name() == "kernel.get_log.flush=none");
        let harmless = scenario.with_mutation(*mutation.expect("there is one of that name"));
        let report = check(&harmless);
        assert_eq!(
            (report.verdict, report.coverage),
            (Verdict::Holds, Coverage::Exhausted)
        );
    }

    #[test]
    fn whoever_has_any_number_of_stores_may_have_stored_enough() {
        let waits = |stores: &str| {
            let scenario = read(&format!(
                "arch = \"x86\"\nring = {{ entries = 4, reserved = 2 }}\nvcpus = 1\npages = 1\n[writers]\nvcpu = {{ stores = {stores} }}\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", \"wait-ring-full\", \"pause-vcpus\", \"harvest-rings\", \"copy\", \"finish\"]"
            ));
            let report = check(&scenario);
            let violation = report.violation.expect("nobody comes");
            assert_eq!(violation.invariant, Invariant::MigrationMakesProgress);
            (violation.shortest, report.verdict)
        };
        assert_eq!(waits("1"), (true, Verdict::Violated));
        assert_eq!(waits("\"any\""), (true, Verdict::Violated));
    }
}
