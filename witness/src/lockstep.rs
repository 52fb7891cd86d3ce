//! Lockstep: the same calls on two subjects, every result compared; the first divergence shrunk until no call can be dropped.

use std::collections::BTreeMap;

use dirtysim::trace::call_result::{CallResult, Difference};
use serde_json::Value;

use crate::allowed::allowed;
use crate::generate::{Generator, Target};
use crate::refusal::Refused;
use crate::subject::{Answer, Subject, VmCall};

/// A call that the two sides answered differently.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// Its place in the sequence, from 0.
    pub index: usize,
    /// The call.
    pub call: VmCall,
    /// What the first subject, the kernel, answered.
    pub left: CallResult,
    /// What the second, the model, answered.
    pub right: CallResult,
    /// The fields that differ and are not allowed to.
    pub differences: Vec<Difference>,
}

/// How a sequence ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Every result was the same.
    Agreed,
    /// This one was not.
    Diverged(Box<Divergence>),
    /// The second subject cannot perform the call at this place: what comes after is not compared.
    Refused {
        /// The call's place in the sequence.
        index: usize,
        /// What it said.
        reason: String,
    },
}

/// A sequence that was performed.
#[derive(Clone, Debug, PartialEq)]
pub struct Performed {
    /// Its calls, up to the one at which it ended.
    pub calls: Vec<VmCall>,
    /// What the first subject answered to each.
    pub results: Vec<CallResult>,
    /// How it ended.
    pub end: End,
    /// Allowed differences that were met, by name.
    pub allowed: BTreeMap<&'static str, u64>,
    /// Calls whose result the second subject does not know, by what they are about.
    pub not_modelled: BTreeMap<String, u64>,
    /// How often the first subject was disturbed: see [`Subject::disturbed`].
    pub disturbed: u64,
}

/// Performs a sequence anew, at most `tries` times in all, as long as it diverges and something disturbed it; `again` is told of each such time.
/// What agrees is decided, whatever disturbed it. What diverged and was disturbed each time is not: it is not compared to the end.
///
/// # Errors
/// Those of `perform`.
pub fn decide(
    tries: u32,
    mut perform: impl FnMut() -> Result<Performed, Refused>,
    mut again: impl FnMut(u64, &Divergence),
) -> Result<Performed, Refused> {
    let mut left = tries;
    loop {
        let mut performed = perform()?;
        let End::Diverged(divergence) = &performed.end else {
            return Ok(performed);
        };
        if performed.disturbed == 0 {
            return Ok(performed);
        }
        again(performed.disturbed, divergence);
        left = left.saturating_sub(1);
        if left == 0 {
            performed.end = End::Refused {
                index: divergence.index,
                reason: format!("it differs, and the host disturbed it {tries} times of {tries}"),
            };
            return Ok(performed);
        }
    }
}

/// Compares one call's results.
fn compare(
    call: &VmCall,
    left: &CallResult,
    right: &CallResult,
    met: &mut BTreeMap<&'static str, u64>,
) -> Vec<Difference> {
    let mut differences = left.differences(right);
    differences.retain(|difference| match allowed(&call.call, difference) {
        Some(allowed) => {
            *met.entry(allowed.name).or_default() += 1;
            false
        }
        None => true,
    });
    differences
}

/// Performs calls on both subjects until they end or differ. `next` is given the first subject's last result and gives the next call.
///
/// # Errors
/// The first subject refuses a call.
pub fn perform(
    left: &mut dyn Subject,
    right: &mut dyn Subject,
    mut next: impl FnMut(Option<(&VmCall, &CallResult)>) -> Option<VmCall>,
) -> Result<Performed, Refused> {
    left.begin_section();
    right.begin_section();
    let disturbed = left.disturbed();
    let mut performed = Performed {
        calls: Vec::new(),
        results: Vec::new(),
        end: End::Agreed,
        allowed: BTreeMap::new(),
        not_modelled: BTreeMap::new(),
        disturbed: 0,
    };
    loop {
        let last = performed.calls.last().zip(performed.results.last());
        let Some(call) = next(last) else { break };
        let index = performed.calls.len();
        let here = left.perform(call.vm, &call.call)?.result()?;
        let there = match right.perform(call.vm, &call.call) {
            Ok(Answer::Result(there)) => there,
            Ok(Answer::NotModelled(what)) => {
                *performed.not_modelled.entry(what).or_default() += 1;
                performed.calls.push(call);
                performed.results.push(here);
                continue;
            }
            Err(Refused(reason)) => {
                performed.calls.push(call);
                performed.results.push(here);
                performed.end = End::Refused { index, reason };
                break;
            }
        };
        let differences = compare(&call, &here, &there, &mut performed.allowed);
        performed.calls.push(call.clone());
        performed.results.push(here.clone());
        if !differences.is_empty() {
            performed.end = End::Diverged(Box::new(Divergence {
                index,
                call,
                left: here,
                right: there,
                differences,
            }));
            break;
        }
    }
    performed.disturbed = left.disturbed() - disturbed;
    // Guests of a sequence that is over hold memory and file descriptors until their section ends.
    left.begin_section();
    right.begin_section();
    Ok(performed)
}

/// Draws one random sequence and performs it on both.
///
/// # Errors
/// The first subject refuses a call: the generator drew something that cannot be asked, which is a defect of it.
pub fn random_sequence(
    left: &mut dyn Subject,
    right: &mut dyn Subject,
    target: Target,
    seed: u64,
    calls: u64,
) -> Result<Performed, Refused> {
    let mut generator = Generator::new(seed, target, calls);
    perform(left, right, |last| {
        if let Some((call, result)) = last {
            generator.observe(call, result);
        }
        generator.next_call()
    })
}

/// What a divergence is about.
#[derive(PartialEq)]
struct Kind {
    call: &'static str,
    fields: Vec<Field>,
}

/// A field that differs; both sides where they are short.
#[derive(PartialEq)]
struct Field {
    name: &'static str,
    sides: Option<[Option<Value>; 2]>,
}

impl Kind {
    fn of(performed: &Performed) -> Option<Self> {
        let End::Diverged(divergence) = &performed.end else {
            return None;
        };
        let field = |difference: &Difference| {
            let short = matches!(difference.field, "ret" | "exit" | "touch");
            Field {
                name: difference.field,
                sides: short.then(|| [difference.left.clone(), difference.right.clone()]),
            }
        };
        Some(Self {
            call: divergence.call.call.name(),
            fields: divergence.differences.iter().map(field).collect(),
        })
    }
}

/// The same calls again; `None` if they do not diverge, cannot be performed, or were disturbed.
fn diverges(
    left: &mut dyn Subject,
    right: &mut dyn Subject,
    calls: &[VmCall],
) -> Option<Performed> {
    let mut rest = calls.iter();
    let performed = perform(left, right, |_| rest.next().cloned()).ok()?;
    Kind::of(&performed)
        .filter(|_| performed.disturbed == 0)
        .map(|_| performed)
}

/// Drops calls from a diverging sequence until each that is left is needed: in halves first, then ever smaller pieces, then one by one.
///
/// What is left diverges at the same call in the same fields, after nothing that the second subject does not know: dropping a call of a
/// set-up may make another divergence, which is another story.
pub fn shrink(left: &mut dyn Subject, right: &mut dyn Subject, diverged: Performed) -> Performed {
    let about = Kind::of(&diverged);
    let unknown: Vec<String> = diverged.not_modelled.keys().cloned().collect();
    let mut best = diverged;
    let mut piece = best.calls.len().div_ceil(2);
    loop {
        let mut start = 0;
        let mut dropped = false;
        while start < best.calls.len() {
            let end = (start + piece).min(best.calls.len());
            let mut candidate = best.calls.clone();
            candidate.drain(start..end);
            match diverges(left, right, &candidate) {
                Some(performed)
                    if Kind::of(&performed) == about
                        && performed
                            .not_modelled
                            .keys()
                            .all(|what| unknown.contains(what)) =>
                {
                    best = performed;
                    dropped = true;
                }
                _ => start = end,
            }
        }
        if piece > 1 {
            piece = piece.div_ceil(2);
        } else if !dropped {
            return best;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirtysim::trace::call::Call;

    /// Counts resets; wrong from the third on, if it is.
    struct Counter {
        wrong: bool,
        resets: u32,
    }

    impl Subject for Counter {
        fn name(&self) -> String {
            "counter".to_owned()
        }

        fn begin_section(&mut self) {
            self.resets = 0;
        }

        fn disturbed(&self) -> u64 {
            0
        }

        fn perform(&mut self, _vm: Option<u32>, call: &Call) -> Result<Answer, Refused> {
            match call {
                Call::ResetDirtyRings {} => {
                    self.resets += 1;
                    Ok(Answer::Result(CallResult::returned(
                        if self.wrong && self.resets >= 3 {
                            7
                        } else {
                            self.resets
                        },
                    )))
                }
                Call::End {} => Err(Refused::new("nothing ends here")),
                _ => Ok(Answer::Result(CallResult::returned(0))),
            }
        }
    }

    fn counters() -> (Counter, Counter) {
        (
            Counter {
                wrong: false,
                resets: 0,
            },
            Counter {
                wrong: true,
                resets: 0,
            },
        )
    }

    fn calls(calls: &[Call]) -> Vec<VmCall> {
        calls
            .iter()
            .map(|call| VmCall {
                vm: call.has_vm().then_some(1),
                call: call.clone(),
            })
            .collect()
    }

    #[test]
    fn a_divergence_shrinks_to_the_calls_that_make_it() {
        let (mut left, mut right) = counters();
        let mut sequence = Vec::new();
        for _ in 0..20 {
            sequence.extend(calls(&[
                Call::CreateVm {},
                Call::ResetDirtyRings {},
                Call::CloseVm {},
            ]));
        }
        let found = diverges(&mut left, &mut right, &sequence).expect("the third reset differs");
        assert_eq!(found.calls.len(), 8);
        let shrunk = shrink(&mut left, &mut right, found);
        assert_eq!(
            shrunk.calls,
            calls(&[
                Call::ResetDirtyRings {},
                Call::ResetDirtyRings {},
                Call::ResetDirtyRings {}
            ])
        );
        let End::Diverged(divergence) = shrunk.end else {
            panic!("it still diverges")
        };
        assert_eq!(
            (divergence.index, divergence.differences[0].field),
            (2, "ret")
        );
    }

    #[test]
    fn a_call_that_only_the_first_can_perform_ends_the_comparison() {
        struct All;
        impl Subject for All {
            fn name(&self) -> String {
                "all".to_owned()
            }
            fn begin_section(&mut self) {}
            fn disturbed(&self) -> u64 {
                0
            }
            fn perform(&mut self, _vm: Option<u32>, _call: &Call) -> Result<Answer, Refused> {
                Ok(Answer::Result(CallResult::returned(0)))
            }
        }
        let (mut right, _) = counters();
        let mut rest = calls(&[Call::CreateVm {}, Call::End {}, Call::CreateVm {}]).into_iter();
        let performed = perform(&mut All, &mut right, |_| rest.next()).expect("performed");
        assert_eq!(
            performed.end,
            End::Refused {
                index: 1,
                reason: "nothing ends here".to_owned()
            }
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_calls() {
        let target = Target::for_tests(&["m"]);
        let (mut left, mut right) = counters();
        right.wrong = false;
        let mut run = |seed| {
            random_sequence(&mut left, &mut right, target, seed, 50)
                .expect("performed")
                .calls
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    #[test]
    fn what_diverges_counts_where_nothing_disturbed_it() {
        let call = VmCall {
            vm: None,
            call: Call::CreateVm {},
        };
        let ended = |diverges: bool, disturbed| Performed {
            calls: vec![call.clone()],
            results: Vec::new(),
            end: if diverges {
                End::Diverged(Box::new(Divergence {
                    index: 0,
                    call: call.clone(),
                    left: CallResult::returned(0),
                    right: CallResult::returned(1),
                    differences: Vec::new(),
                }))
            } else {
                End::Agreed
            },
            allowed: BTreeMap::new(),
            not_modelled: BTreeMap::new(),
            disturbed,
        };
        let decided = |ends: &[(bool, u64)]| {
            let mut rest = ends.iter();
            let mut again = 0;
            let perform = || {
                let &(diverges, disturbed) = rest.next().expect("no more tries than there are");
                Ok(ended(diverges, disturbed))
            };
            let end = decide(3, perform, |_, _| again += 1)
                .expect("performed")
                .end;
            (end, again)
        };
        assert_eq!(decided(&[(false, 5)]), (End::Agreed, 0));
        assert!(matches!(decided(&[(true, 0)]), (End::Diverged(_), 0)));
        assert!(matches!(
            decided(&[(true, 2), (true, 0)]),
            (End::Diverged(_), 1)
        ));
        assert_eq!(
            decided(&[(true, 2), (true, 1), (false, 1)]),
            (End::Agreed, 2)
        );
        assert!(matches!(
            decided(&[(true, 2), (true, 1), (true, 1)]),
            (End::Refused { index: 0, .. }, 3)
        ));
    }
}
