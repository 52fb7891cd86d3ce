//! Rumur: the Murphi text preprocessed, translated, compiled and run, and what it printed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sizes::Sizes;
use crate::spin::{Printed, run};

/// The Murphi text.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dirty-logging.m");

/// What Rumur does about pages that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symmetry {
    /// Nothing: every state.
    Off,
    /// One state for those that it can cheaply tell to be exchanges of each other.
    Heuristic,
    /// One state for all exchanges of pages.
    Exhaustive,
}

/// A compiled verifier.
pub struct Verifier {
    program: PathBuf,
}

/// Why there is no Rumur here, if there is none.
pub fn missing() -> Option<String> {
    let output = Command::new("rumur").arg("--version").output();
    if output.is_ok_and(|output| output.status.success()) {
        return None;
    }
    Some("`rumur` does not run here (Debian's package `rumur` has it)".to_owned())
}

impl Verifier {
    /// Builds the verifier of a size, in a folder of its own below `folder`, for so many threads; its table has room for so many states from
    /// the start, as SPIN's has. `optimise` is gcc's flag.
    ///
    /// # Errors
    /// The command that failed and what it printed.
    pub fn build(
        folder: &Path,
        sizes: &Sizes,
        symmetry: Symmetry,
        threads: usize,
        states: u64,
        optimise: &str,
    ) -> Result<Self, String> {
        let definitions = sizes.definitions();
        let folder = sizes.folder(folder, &format!("rumur-{symmetry:?}-{threads}"))?;
        let text = run(Command::new("gcc")
            .args(["-E", "-P", "-w", "-x", "c"])
            .args(&definitions)
            .arg(MODEL))?;
        let model = folder.join("model.m");
        std::fs::write(&model, text).map_err(|error| format!("{model:?}: {error}"))?;
        let symmetry = match symmetry {
            Symmetry::Off => "off",
            Symmetry::Heuristic => "heuristic",
            Symmetry::Exhaustive => "exhaustive",
        };
        // Given in bytes; a slot takes 8, and the table is kept at most so full that this leaves room.
        let capacity = states.next_power_of_two() * 256;
        run(Command::new("rumur")
            .current_dir(&folder)
            .args(["--quiet", "--deadlock-detection", "off"])
            .args(["--counterexample-trace", "off"])
            .args(["--scalarset-schedules", "off"])
            .args(["--symmetry-reduction", symmetry])
            .args(["--threads", &threads.to_string()])
            .args(["--set-capacity", &capacity.to_string()])
            .args(["--output", "verifier.c", "model.m"]))?;
        // What was found to be its fastest: the whole step inlined.
        run(Command::new("gcc")
            .current_dir(&folder)
            .args(["-w", "-std=c11", optimise, "-march=native", "-mcx16"])
            .args(["--param", "max-inline-insns-auto=300"])
            .args(["--param", "inline-unit-growth=400"])
            .args(["--param", "large-function-growth=1000"])
            .args(["-o", "verifier", "verifier.c", "-lpthread"]))?;
        Ok(Self {
            program: folder.join("verifier"),
        })
    }

    /// The command that runs the verifier to its end.
    pub fn command(&self) -> Command {
        Command::new(&self.program)
    }
}

/// Reads what a verifier printed.
///
/// # Errors
/// What it printed, if that is no complete search.
pub fn parse(text: &str) -> Result<Printed, String> {
    let counts = text.lines().find_map(|line| {
        let (states, rest) = line.split_once(" states, ")?;
        let (fired, _) = rest.split_once(" rules fired")?;
        let number = |word: &str| word.trim().parse().ok();
        Some((number(states)?, number(fired)?))
    });
    let no_error = text.contains("No error found");
    match counts {
        Some((states, transitions)) => Ok(Printed {
            states,
            transitions,
            errors: u64::from(!no_error),
        }),
        None => Err(format!("no complete search:\n{text}")),
    }
}
