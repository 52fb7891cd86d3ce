//! `dirtysim-witness lockstep`.

use std::collections::BTreeMap;
use std::path::Path;

use dirtysim::trace::call::Section;
use dirtysim::trace::{Machine, PendingFile};
use serde_json::{Value, json};

use super::args::Args;
use super::{CALLS, Outcome};
use crate::kernel::Kernel;
use crate::lockstep::{Divergence, End, Performed, decide, random_sequence, shrink};
use crate::model::Model;
use crate::record::Recorder;
use crate::refusal::Refused;
use crate::subject::{Subject, VmCall};

/// Where traces of divergences go unless told otherwise.
const TRACE_DIR: &str = "target/dirtysim";

/// Divergences that are shrunk and written; more are only counted.
const SHOWN_MAX: u64 = 10;

/// How often a sequence that diverges is performed, as long as something disturbs it.
const TRIES: u32 = 12;

/// What the sequences so far gave.
#[derive(Default)]
struct Tally {
    sequences: u64,
    calls: u64,
    divergences: u64,
    again: u64,
    not_modelled: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
    allowed: BTreeMap<&'static str, u64>,
    list: Vec<Value>,
    lines: Vec<String>,
}

pub(super) fn command(arguments: &[String]) -> Result<Outcome, Refused> {
    let args = Args::parse(
        arguments,
        &["--json", "--keep-going", "--no-shrink"],
        &["--seeds", "--calls", "--trace-dir", "--against"],
        0,
    )?;
    let seeds = args.seeds("--seeds", 0..1000)?;
    let calls = args.number("--calls", CALLS)?;
    let mut kernel = Kernel::open()?;
    kernel.require_dirty_logging()?;
    let target = kernel.target();
    let machine = kernel.describe();
    let mut other = opponent(args.value("--against").unwrap_or("model"), &machine)?;
    let mut tally = Tally::default();
    for seed in seeds.clone() {
        let perform = || {
            random_sequence(&mut kernel, &mut *other, target, seed, calls)
                .map_err(|Refused(problem)| Refused(format!("seed {seed}: {problem}")))
        };
        let performed = decide(TRIES, perform, |disturbed, divergence| {
            tally.again(seed, disturbed, divergence);
        })?;
        tally.sequences += 1;
        tally.calls += performed.calls.len() as u64;
        for (name, count) in &performed.allowed {
            *tally.allowed.entry(name).or_default() += count;
        }
        for (what, count) in &performed.not_modelled {
            *tally.not_modelled.entry(what.clone()).or_default() += count;
        }
        match &performed.end {
            End::Agreed => {}
            End::Refused { reason, .. } => *tally.refused.entry(reason.clone()).or_default() += 1,
            End::Diverged(_) => {
                tally.divergences += 1;
                if tally.divergences <= SHOWN_MAX {
                    let directory = args.value("--trace-dir").unwrap_or(TRACE_DIR);
                    tally.show(
                        &mut kernel,
                        &mut *other,
                        &machine,
                        seed,
                        performed,
                        directory,
                        !args.flag("--no-shrink"),
                    )?;
                }
                if !args.flag("--keep-going") {
                    break;
                }
            }
        }
    }
    Ok(tally.outcome(&kernel.name(), &other.name(), seeds.start, seeds.end))
}

/// The other side.
fn opponent(name: &str, machine: &Machine) -> Result<Box<dyn Subject>, Refused> {
    match name {
        "self" => Ok(Box::new(Kernel::open()?)),
        "model" => Ok(Box::new(Model::new(machine)?)),
        other => Err(Refused(format!(
            "no `--against {other}` on {}: there are `model` and `self`",
            machine.arch
        ))),
    }
}

impl Tally {
    /// Shrinks a divergence, or does not, and writes it as a trace.
    #[expect(
        clippy::too_many_arguments,
        reason = "both sides, the sequence, and what is done with it"
    )]
    fn show(
        &mut self,
        kernel: &mut Kernel,
        other: &mut dyn Subject,
        machine: &Machine,
        seed: u64,
        performed: Performed,
        directory: &str,
        shrinks: bool,
    ) -> Result<(), Refused> {
        let drawn = performed.calls.len();
        let shrunk = if shrinks {
            shrink(kernel, other, performed)
        } else {
            performed
        };
        let End::Diverged(divergence) = &shrunk.end else {
            unreachable!("a shrunk divergence diverges")
        };
        let path = format!("{directory}/lockstep-seed-{seed}.jsonl");
        write_trace(
            kernel,
            machine,
            &format!(
                "lockstep, seed {seed}: {} answers `{}` differently",
                other.name(),
                divergence.call.call.name()
            ),
            &shrunk.calls,
            Path::new(&path),
        )?;
        let fields: Vec<Value> = divergence
            .differences
            .iter()
            .map(|difference| json!({"field": difference.field, "kernel": difference.left, "model": difference.right}))
            .collect();
        self.lines.push(format!(
            "seed {seed}: {} calls shrunk to {}; the last, {}:",
            drawn,
            shrunk.calls.len(),
            divergence.call
        ));
        for difference in &divergence.differences {
            let side = |value: &Option<Value>| {
                value
                    .as_ref()
                    .map_or_else(|| "nothing".to_owned(), Value::to_string)
            };
            self.lines.push(format!(
                "  {}: {} gives {}, {} gives {}",
                difference.field,
                kernel.name(),
                side(&difference.left),
                other.name(),
                side(&difference.right)
            ));
        }
        self.lines.push(format!("  {path}"));
        self.list.push(json!({"seed": seed, "calls": shrunk.calls.len(), "call": divergence.call.call.name(), "differences": fields, "trace": path}));
        Ok(())
    }

    /// A sequence that diverges is performed once more: what disturbed it may be why.
    fn again(&mut self, seed: u64, disturbed: u64, divergence: &Divergence) {
        self.again += 1;
        let fields: Vec<&str> = divergence.differences.iter().map(|d| d.field).collect();
        self.lines.push(format!(
            "seed {seed}: performed again, disturbed {disturbed} times by the host: call {}, {}, differed in {}",
            divergence.index,
            divergence.call.call.name(),
            fields.join(", ")
        ));
    }

    fn outcome(self, kernel: &str, other: &str, first: u64, end: u64) -> Outcome {
        let violated = self.divergences > 0;
        let not_modelled: u64 = self.not_modelled.values().sum();
        let refused: u64 = self.refused.values().sum();
        // Of what was hardly compared nothing is said.
        let inconclusive = !violated && 2 * refused >= self.sequences;
        let mut lines = self.lines;
        for (what, count) in &self.not_modelled {
            lines.push(format!("not modelled, {count} calls: {what}"));
        }
        for (reason, count) in &self.refused {
            lines.push(format!(
                "not compared to the end, {count} sequences: {reason}"
            ));
        }
        for (name, count) in &self.allowed {
            lines.push(format!("allowed difference {name}: {count} times"));
        }
        if self.again > 0 {
            lines.push(format!(
                "performed again, since interrupts of the host's flushed PML early, or a thread that lost its processor had its record of stolen time written once more: {} times",
                self.again
            ));
        }
        lines.push(format!(
            "{} sequences of seeds {first}..{end}, {} calls, {kernel} beside {other}: {} divergences, {refused} sequences not compared to the end",
            self.sequences, self.calls, self.divergences
        ));
        if inconclusive {
            lines.push(
                "inconclusive: half of the sequences or more were not compared to the end"
                    .to_owned(),
            );
        }
        let verdict = match (violated, inconclusive) {
            (true, _) => "violated",
            (false, true) => "inconclusive",
            (false, false) => "holds",
        };
        let document = json!({
            "command": "lockstep",
            "verdict": verdict,
            "expected": "holds",
            "as_expected": verdict == "holds",
            "invariant": "agrees_with_recording",
            "coverage": "sampled",
            "sequences": self.sequences,
            "calls": self.calls,
            "divergences": self.divergences,
            "performed_again": self.again,
            "divergence_list": self.list,
            "not_modelled": not_modelled,
            "not_compared_to_the_end": refused,
            "allowed": self.allowed,
        });
        let Value::Object(document) = document else {
            unreachable!("an object was written")
        };
        Outcome {
            document,
            text: lines.join("\n"),
            code: match verdict {
                "violated" => 1,
                "inconclusive" => 3,
                _ => 0,
            },
        }
    }
}

/// The calls, recorded anew on the kernel: a trace that anybody can replay.
fn write_trace(
    kernel: &mut Kernel,
    machine: &Machine,
    title: &str,
    calls: &[VmCall],
    path: &Path,
) -> Result<(), Refused> {
    let cannot = |error: std::io::Error| Refused(format!("{}: {error}", path.display()));
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(cannot)?;
    }
    let out = PendingFile::create(path).map_err(cannot)?;
    let mut recorder = Recorder::new(out, machine.clone(), Some(title.to_owned()), kernel)?;
    let section = Section {
        section: "divergence".to_owned(),
        title: title.to_owned(),
    };
    recorder.section(Some(section), |performing| {
        let each = |call: &VmCall| performing.call(call.clone()).map(|_| ());
        calls.iter().try_for_each(each)
    })?;
    recorder.into_inner().keep().map_err(cannot)?;
    kernel.begin_section();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_hardly_compared_is_inconclusive() {
        let code = |sequences, refused, divergences| {
            let tally = Tally {
                sequences,
                divergences,
                refused: BTreeMap::from([("disturbed".to_owned(), refused)]),
                ..Tally::default()
            };
            tally.outcome("kernel", "model", 0, sequences).code
        };
        assert_eq!(code(4, 1, 0), 0);
        assert_eq!(code(4, 2, 0), 3);
        assert_eq!(code(0, 0, 0), 3);
        assert_eq!(code(4, 2, 1), 1);
    }
}
