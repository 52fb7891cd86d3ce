//! What `shrink`, `explain` and `blame` have in common: a step trace in, a file or standard output out.

use std::io::Write;
use std::path::Path;

use dirtysim_model::oracle::Invariant;
use dirtysim_model::transition::Step;
use serde_json::Map;

use super::input::Input;
use super::kind::{self, Wanted};
use super::{CliError, Global, Report};
use crate::replay::steps::{self, StepReplay};
use crate::search::Limit;
use crate::trace::enclosed;
use crate::trace::{Expect, Header, Kind, PendingFile, TraceReader, check_apart};

/// What a mail is called whose reader is told what to type.
pub(super) const MAIL: &str = "mail.txt";

/// A step trace, replayed.
pub(super) struct Schedule {
    pub(super) header: Header,
    pub(super) replay: StepReplay,
    pub(super) steps: Vec<Step>,
}

impl Schedule {
    /// Reads and replays a trace, of which `output` is to be made; a complaint names `command` where the trace is of
    /// another kind.
    pub(super) fn load(
        path: &Path,
        output: Option<&Path>,
        command: &str,
    ) -> Result<Self, CliError> {
        let name = path.display().to_string();
        check_output(output, &[path])?;
        kind::check(path, Wanted::Trace)?;
        let reader = TraceReader::open_through(path, Input)?;
        let header = reader.header().clone();
        if header.kind != Kind::Step {
            let instead = match header.kind {
                Kind::Observed => {
                    ". What a log says is told by `dirtysim replay`, and the way from there to a schedule by docs/bug-reports.md"
                }
                _ => "",
            };
            return Err(CliError(format!(
                "{name}: a trace of kind `{}`\nhelp: `dirtysim {command}` takes a schedule of the simulator (kind `step`); `dirtysim run` and `dirtysim check` write them{instead}",
                header.kind
            )));
        }
        let scenario = steps::scenario_of(&header, &name)?;
        let mut taken = Vec::new();
        let replay = steps::replay(reader, &name, scenario, |step| taken.push(step))?;
        Ok(Self {
            header,
            replay,
            steps: taken,
        })
    }

    /// Scenario and schedule as a mail carries them; `toml` is the scenario as its author wrote it.
    pub(super) fn enclosed(&self, toml: Option<&str>) -> Result<String, CliError> {
        let scenario = &self.replay.scenario;
        let rows = steps::rows(scenario, &self.steps)?;
        let source = crate::scenario::enclosed::write_scenario(&scenario.source, toml);
        let schedule = enclosed::write_schedule(&self.header, &rows);
        Ok(format!("{source}\n{schedule}"))
    }

    /// The claim that the trace is about: the one that its header names, or the first that breaks last.
    pub(super) fn target(&self) -> Option<Invariant> {
        let broken = &self.replay.broken;
        let wanted = match &self.header.expect {
            Some(Expect::Violated(name)) => Invariant::by_name(name),
            _ => None,
        };
        wanted
            .filter(|invariant| broken.has(*invariant))
            .or_else(|| {
                let last = self.replay.last.as_ref();
                last.map(|(invariant, _)| *invariant)
            })
            .or_else(|| broken.iter().next())
    }
}

/// What is said where an interrupt came before the trace was read.
pub(super) fn unread(command: &'static str, path: &Path) -> Report {
    let mut extra = Map::new();
    extra.insert("trace".into(), path.display().to_string().into());
    extra.insert("limit".into(), Limit::Interrupt.name().into());
    Report {
        command,
        extra,
        tail: format!("{}: interrupted before it was read\n", path.display()),
        cut: true,
        ..Report::default()
    }
}

/// Whether a command's output may be written: what it reads must not be in that place.
pub(super) fn check_output(
    output: Option<&Path>,
    inputs: &[impl AsRef<Path>],
) -> Result<(), CliError> {
    let Some(path) = output else { return Ok(()) };
    check_apart(path, inputs)
        .map_err(|error| CliError(format!("{}: cannot be written: {error}", path.display())))
}

/// Writes `text` to `path` as a whole, or gives it back for standard output; `--json` needs a path.
pub(super) fn deliver(
    text: &[u8],
    path: Option<&Path>,
    global: &Global,
    what: &str,
) -> Result<String, CliError> {
    match path {
        Some(path) => {
            let cannot = |error: std::io::Error| {
                CliError(format!("{}: cannot be written: {error}", path.display()))
            };
            let mut out = PendingFile::create(path).map_err(cannot)?;
            out.write_all(text).map_err(cannot)?;
            out.keep().map_err(cannot)?;
            Ok(String::new())
        }
        None if global.json => Err(CliError(format!(
            "--json needs -o: {what} itself goes to standard output"
        ))),
        None => Ok(String::from_utf8_lossy(text).into_owned()),
    }
}
