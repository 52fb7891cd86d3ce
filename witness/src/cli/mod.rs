//! The command line. Results go to standard output, messages to standard error; exit codes are those of `dirtysim`.

mod args;
mod force;
mod guest_init;
mod live;
mod lockstep;

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Map, Value};

use dirtysim::trace::PendingFile;
use dirtysim::trace::call::Section;

use crate::generate::Generator;
use crate::kernel::{Kernel, with_own_layout};
use crate::record::{self, Recorder};
use crate::refusal::Refused;
use crate::script::Script;
use args::Args;

/// Calls drawn for a random sequence, after its set-up.
const CALLS: u64 = 50;

const USAGE: &str = "\
Performs calls of KVM's dirty logging on this machine's /dev/kvm.

Usage:
  dirtysim-witness record SCRIPT -o TRACE [--json]
      performs a script (a trace of kind `call`; results in it are ignored) and writes a trace with this kernel's results
  dirtysim-witness record --seeds A..B [--calls N] -o TRACE [--json]
      the same for random sequences of N calls (default 50), one section a seed
  dirtysim-witness lockstep [--seeds A..B] [--calls N] [--against model|self] [--keep-going] [--no-shrink] [--trace-dir DIR] [--json]
      performs random sequences on the kernel and beside it, compares every result, shrinks the first divergence and writes its trace;
      --no-shrink writes it as it was drawn, for machines where shrinking takes long; `self` is the kernel once more, which shows that what is compared does not depend on chance
  dirtysim-witness force TRACE --gdb SOCKET --port FILE [--json]
      forces a schedule of the simulator (a trace of kind `step`) on an emulated machine's kernel: `witness/machines/run` starts it so, and
      its first process is the actors; every page that the model loses must be lost there, and no other
  dirtysim-witness live [--seconds S] [--seed N] [--json]
      collects dirty pages of a guest while it runs, S seconds (default 5) for each of ring and bitmap, in the right order and in a wrong
      one: the right one must lose nothing, the wrong one must be caught
  dirtysim-witness program FILE
      runs a program as it is and ends as it does: on an emulated machine, a reproducer that `dirtysim export` wrote
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
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
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
    let (command, rest) = arguments
        .split_first()
        .ok_or_else(|| Refused(format!("no command\n\n{USAGE}")))?;
    match command.as_str() {
        "force" => force::command(rest),
        "record" => record_command(rest),
        "live" => live::command(rest),
        "lockstep" => lockstep::command(rest),
        "program" => program(rest),
        other => Err(Refused(format!("no command `{other}`\n\n{USAGE}"))),
    }
}

/// Runs a program, whose output is its own.
fn program(arguments: &[String]) -> Result<Outcome, Refused> {
    let args = Args::parse(arguments, &["--json"], &[], 1)?;
    let file = args.positional("a program, as in `program FILE`")?;
    let status = std::process::Command::new(file)
        .status()
        .map_err(|error| Refused(format!("{file}: cannot be run: {error}")))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let code = code.ok_or_else(|| Refused(format!("{file}: {status}")))?;
    let mut document = Map::new();
    document.insert("command".into(), "program".into());
    document.insert("code".into(), code.into());
    Ok(Outcome {
        document,
        text: format!("{file}: exit code {code}"),
        code,
    })
}

fn record_command(arguments: &[String]) -> Result<Outcome, Refused> {
    let args = Args::parse(arguments, &["--json"], &["-o", "--seeds", "--calls"], 1)?;
    if args.value("--seeds").is_some() {
        return record_random(&args);
    }
    let script_name = args.positional("a script, as in `record SCRIPT -o TRACE`")?;
    let output = args
        .value("-o")
        .ok_or_else(|| Refused::new("no output: give `-o TRACE`"))?;
    let script = Script::open(Path::new(script_name))?;
    let mut kernel = Kernel::open()?;
    let machine = kernel.describe();
    let calls = record::record(
        &script,
        script_name,
        machine,
        with_own_layout,
        &mut kernel,
        Path::new(output),
    )?;
    let mut document = Map::new();
    document.insert("command".into(), "record".into());
    document.insert("calls".into(), calls.into());
    document.insert("trace".into(), output.into());
    Ok(Outcome {
        document,
        text: format!("{calls} calls recorded in {output}"),
        code: 0,
    })
}

/// Random sequences, recorded: what the model has to agree with.
fn record_random(args: &Args) -> Result<Outcome, Refused> {
    let output = args
        .value("-o")
        .ok_or_else(|| Refused::new("no output: give `-o TRACE`"))?;
    let seeds = args.seeds("--seeds", 0..1)?;
    let count = args.number("--calls", CALLS)?;
    let cannot = |error: std::io::Error| Refused(format!("{output}: {error}"));
    let mut kernel = Kernel::open()?;
    let target = kernel.target();
    let machine = kernel.describe();
    let title = format!(
        "random calls, seeds {}..{}, {count} calls after the set-up of each",
        seeds.start, seeds.end
    );
    let out = PendingFile::create(Path::new(output)).map_err(cannot)?;
    let mut recorder = Recorder::new(out, machine, Some(title), &mut kernel)?;
    let mut sequences = 0_u64;
    for seed in seeds {
        let section = Section {
            section: format!("seed-{seed}"),
            title: format!("random calls of seed {seed}"),
        };
        recorder.section(Some(section), |performing| {
            let mut generator = Generator::new(seed, target, count);
            while let Some(call) = generator.next_call() {
                let result = performing.call(call.clone()).map_err(|Refused(problem)| {
                    Refused(format!("seed {seed}: {call}: {problem}"))
                })?;
                generator.observe(&call, &result);
            }
            Ok(())
        })?;
        sequences += 1;
    }
    let calls = recorder.calls();
    recorder.into_inner().keep().map_err(cannot)?;
    let mut document = Map::new();
    document.insert("command".into(), "record".into());
    document.insert("sequences".into(), sequences.into());
    document.insert("calls".into(), calls.into());
    document.insert("trace".into(), output.into());
    Ok(Outcome {
        document,
        text: format!("{calls} calls of {sequences} sequences recorded in {output}"),
        code: 0,
    })
}
