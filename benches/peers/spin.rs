//! SPIN: the Promela text translated, compiled and run, and what it printed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sizes::Sizes;

/// The Promela text.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dirty-logging.pml");

/// Whether SPIN reduces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Every state of the model, and no other: no partial-order reduction, no merging of statements, no clearing of dead
    /// variables.
    None,
    /// What SPIN does by default: all three.
    Own,
}

/// A compiled verifier.
pub struct Verifier {
    program: PathBuf,
    /// The base-2 logarithm of its hash table's slots.
    slots: u32,
}

/// What a verifier printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Printed {
    /// States stored.
    pub states: u64,
    /// Transitions, those to known states included.
    pub transitions: u64,
    /// Assertions that failed and other errors.
    pub errors: u64,
}

/// Why there is no SPIN here, if there is none.
pub fn missing() -> Option<String> {
    for (program, flag, package) in [("spin", "-V", "spin"), ("gcc", "--version", "gcc")] {
        let works = Command::new(program)
            .arg(flag)
            .output()
            .is_ok_and(|output| output.status.success());
        if !works {
            return Some(format!(
                "`{program}` does not run here (Debian's package `{package}` has it)"
            ));
        }
    }
    None
}

/// The version that `spin -V` prints.
pub fn version() -> String {
    let output = Command::new("spin").arg("-V").output();
    let text = output.map_or(Vec::new(), |output| output.stdout);
    String::from_utf8_lossy(&text).trim().to_owned()
}

pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(format!("{command:?}: {}\n{text}{errors}", output.status))
    }
}

impl Verifier {
    /// Translates and compiles the model at a size, in a folder of its own below `folder`; `optimise` is
    /// gcc's flag.
    ///
    /// # Errors
    /// The command that failed and what it printed.
    pub fn build(
        folder: &Path,
        sizes: &Sizes,
        reduction: Reduction,
        slots: u32,
        optimise: &str,
    ) -> Result<Self, String> {
        let definitions = sizes.definitions();
        let folder = sizes.folder(folder, &format!("{reduction:?}"))?;
        let mut translate = Command::new("spin");
        translate.current_dir(&folder).arg("-a");
        let mut compile = Command::new("gcc");
        compile.current_dir(&folder).args([
            "-w",
            optimise,
            "-DSAFETY",
            "-DNOBOUNDCHECK",
            "-DMEMLIM=16000",
        ]);
        if reduction == Reduction::None {
            translate.args(["-o2", "-o3"]);
            compile.arg("-DNOREDUCE");
        }
        run(translate.args(&definitions).arg(MODEL))?;
        run(compile.args(["-o", "pan", "pan.c"]))?;
        Ok(Self {
            program: folder.join("pan"),
            slots,
        })
    }

    /// The command that runs the verifier to the end, past any error: `-c0`; `-E`: where nobody can go on is the end.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["-E", "-c0", "-m200000"])
            .arg(format!("-w{}", self.slots));
        if let Some(folder) = self.program.parent() {
            command.current_dir(folder);
        }
        command
    }

    /// Runs it.
    ///
    /// # Errors
    /// What it printed, if that is no complete search.
    pub fn run(&self) -> Result<Printed, String> {
        parse(&run(&mut self.command())?)
    }
}

/// Reads what a verifier printed.
///
/// # Errors
/// What it printed, if that is no complete search.
pub fn parse(text: &str) -> Result<Printed, String> {
    let number_before = |mark: &str| {
        let line = text.lines().find(|line| line.contains(mark))?;
        line[..line.find(mark)?].trim().parse::<u64>().ok()
    };
    let errors = text.lines().find_map(|line| {
        let (_, count) = line.split_once("errors:")?;
        count.trim().parse().ok()
    });
    let complete = !text.contains("Search not completed") && !text.contains("max search depth");
    match (
        number_before("states, stored"),
        number_before("transitions"),
        errors,
    ) {
        (Some(states), Some(transitions), Some(errors)) if complete => Ok(Printed {
            states,
            // SPIN counts the first state among them.
            transitions: transitions - 1,
            errors,
        }),
        _ => Err(format!("no complete search:\n{text}")),
    }
}
