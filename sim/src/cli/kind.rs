//! What a file is that was given to the wrong command, and which command takes it.

use std::path::Path;

use super::CliError;
use crate::import::detect::{Detected, detect_file};
use crate::scenario::looks_like_one;
use crate::trace::enclosed;

/// What a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Scenario,
    Trace,
    Log,
}

/// An error that names the right command, if the file is plainly of another kind. What cannot be read or told is left to whoever
/// reads it whole.
pub(super) fn check(path: &Path, wanted: Wanted) -> Result<(), CliError> {
    let name = path.display();
    if !path.is_file() {
        return Ok(());
    }
    let instead = match detect_file(path) {
        Ok(Detected::Trace) if wanted == Wanted::Scenario => format!(
            "a trace, not a scenario\nhelp: `dirtysim replay {name}` runs it again, `dirtysim explain {name}` tells its story"
        ),
        Ok(Detected::Trace) if wanted == Wanted::Log => {
            format!("a trace already\nhelp: `dirtysim replay {name}` says what it shows")
        }
        Ok(Detected::Log(kind)) if wanted != Wanted::Log => format!(
            "a log ({kind}), not a {}\nhelp: `dirtysim import {name} -o FILE.trace.jsonl`, then `dirtysim replay FILE.trace.jsonl`",
            word(wanted)
        ),
        Ok(Detected::KvmJsonl) if wanted != Wanted::Log => format!(
            "a raw recording of KVM's calls, not a {}\nhelp: `dirtysim import {name} -o FILE.trace.jsonl`, then `dirtysim replay FILE.trace.jsonl`",
            word(wanted)
        ),
        Ok(Detected::Unknown)
            if wanted != Wanted::Scenario && looks_like_one(path) && !carries_schedule(path) =>
        {
            format!(
                "a scenario, not a {}\nhelp: `dirtysim check {name}` tries every interleaving, `dirtysim run {name}` seeded schedules; both write traces",
                word(wanted)
            )
        }
        _ => return Ok(()),
    };
    Err(CliError(format!("{name}: {instead}")))
}

/// Whether a text that has a scenario in it has a schedule beside it.
fn carries_schedule(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| enclosed::trace(&text).is_some())
}

fn word(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Scenario => "scenario",
        Wanted::Trace => "trace",
        Wanted::Log => "log",
    }
}
