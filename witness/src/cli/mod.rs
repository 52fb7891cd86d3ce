//! The command line. Results go to standard output, messages to standard error; exit codes are those of `dirtysim`.

mod args;
mod guest_init;

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Map, Value};

use crate::kernel::{Kernel, with_own_layout};
use crate::record;
use crate::refusal::Refused;
use crate::script::Script;
use args::Args;

const USAGE: &str = "\
Performs calls of KVM's dirty logging on this machine's /dev/kvm.

Usage:
  dirtysim-witness record SCRIPT -o TRACE [--json]
      performs a script (a trace of kind `call`; results in it are ignored) and writes a trace with this kernel's results
";

/// How a command ended.
pub(crate) struct Outcome {
    /// What it found, for `--json`.
    pub(crate) document: Map<String, Value>,
    /// The same for people.
    pub(crate) text: String,
    /// 0 as expected, 1 not as expected, 3 inconclusive.
    pub(crate) code: u8,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if std::process::id() == 1 {
        guest_init::main(&arguments)
    }
    ExitCode::from(run(&arguments))
}

/// Runs a command; says what it found. Returns the exit code.
pub(crate) fn run(arguments: &[String]) -> u8 {
    let json = arguments.iter().any(|argument| argument == "--json");
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        print!("{USAGE}");
        return 0;
    }
    match command(arguments) {
        Ok(outcome) => {
            if json {
                println!("{}", Value::Object(outcome.document));
            } else {
                println!("{}", outcome.text);
            }
            outcome.code
        }
        Err(Refused(problem)) => {
            eprintln!("error: {problem}");
            2
        }
    }
}

fn command(arguments: &[String]) -> Result<Outcome, Refused> {
    let (command, rest) = arguments.split_first().ok_or_else(|| Refused(format!("no command\n\n{USAGE}")))?;
    match command.as_str() {
        "record" => record_command(rest),
        other => Err(Refused(format!("no command `{other}`\n\n{USAGE}"))),
    }
}

fn record_command(arguments: &[String]) -> Result<Outcome, Refused> {
    let args = Args::parse(arguments, &["--json"], &["-o"], 1)?;
    let script_name = args.positional("a script, as in `record SCRIPT -o TRACE`")?;
    let output = args.value("-o").ok_or_else(|| Refused::new("no output: give `-o TRACE`"))?;
    let script = Script::open(Path::new(script_name))?;
    let mut kernel = Kernel::open()?;
    let machine = kernel.describe();
    let calls = record::record(&script, script_name, machine, with_own_layout, &mut kernel, Path::new(output))?;
    let mut document = Map::new();
    document.insert("command".into(), "record".into());
    document.insert("calls".into(), calls.into());
    document.insert("trace".into(), output.into());
    Ok(Outcome { document, text: format!("{calls} calls recorded in {output}"), code: 0 })
}
