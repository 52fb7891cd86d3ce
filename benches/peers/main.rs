//! The search beside SPIN, Rumur and stateright: one scenario, one graph, one run.
//!
//! `cargo bench --bench peers` compares, in turns and in processes of their own, on a graph that all of them agree
//! about: every distinct state and every transition is counted and compared before any time is quoted. Times are whole
//! processes, set-up included; memory is the peak of resident pages. Absolute figures drift with the machine: quote the
//! ratios of one run.
//!
//! What the tools do is not the same in every respect, and the differences are in the peers' favour: SPIN checks one
//! assertion, at the end, and so does Rumur; stateright checks what a state alone can tell; the search checks every claim in every state,
//! and notes what was seen.
//!
//! `-- --rounds N` for other than 3 turns, of which this project's own search gets 5 each; `-- --only spin` for the tools whose names have that
//! word, beside the project's own: Rumur takes most of the hour that all of them take.
//! Without `--bench` (`cargo test --benches`) a small size is compared, once.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use dirtysim::search::{self, Coverage, Options, Reductions, Report, Verdict};
use dirtysim_model::oracle;
use dirtysim_model::transition::{Effect, apply, for_each_step};

use dirtysim_peers::arguments::{value, word};
use dirtysim_peers::by_words;
use dirtysim_peers::graph::{Graph, Packed};
use dirtysim_peers::in_stateright::{Way, run};
use dirtysim_peers::measure::{Measured, measure};
use dirtysim_peers::rumur::{self, Symmetry};
use dirtysim_peers::sizes::Sizes;
use dirtysim_peers::spin::{self, Reduction, Verifier};

/// Turns that this project's own search gets for each of another tool: a run of half a second is more at the mercy of the
/// machine than one of ten.
const OWN_TURNS: usize = 5;

/// The word that tells a process that it is a child.
const CHILD: &str = "child";

/// arm64 with rings, bitmap and ITS: more than 5 million states.
const ARM64: Sizes = Sizes {
    x86: false,
    pages: 3,
    vcpus: 2,
    stores: 2,
    rounds: 1,
    bitmap_first: false,
};
/// x86 with rings: nothing orders the pages, they are interchangeable.
const X86: Sizes = Sizes { x86: true, ..ARM64 };
/// One page more: what a page costs without the symmetry, and with it.
const X86_WITH_4: Sizes = Sizes { pages: 4, ..X86 };

/// Who runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Spin(Reduction),
    Rumur(Symmetry, usize),
    Stateright(Way, usize),
    Own { reduced: bool, threads: usize },
}

/// What a tool found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    states: u64,
    transitions: u64,
    holds: bool,
}

impl Tool {
    fn name(self) -> String {
        match self {
            Self::Spin(Reduction::None) => "SPIN, no reduction".to_owned(),
            Self::Spin(Reduction::Own) => "SPIN, its own reductions".to_owned(),
            Self::Rumur(Symmetry::Off, threads) => format!("Rumur, no symmetry, {threads} thr."),
            Self::Rumur(Symmetry::Heuristic, threads) => {
                format!("Rumur, heuristic symmetry, {threads} thr.")
            }
            Self::Rumur(Symmetry::Exhaustive, threads) => {
                format!("Rumur, exhaustive symmetry, {threads} thr.")
            }
            Self::Stateright(Way::DepthFirst, threads) => format!("stateright DFS, {threads} thr."),
            Self::Stateright(_, threads) => format!("stateright BFS, {threads} thr."),
            Self::Own { reduced, threads } => {
                let how = if reduced { "reduced" } else { "unreduced" };
                format!("dirtysim, {how}, {threads} thr.")
            }
        }
    }

    /// Whether it visits every state of the graph.
    fn is_unreduced(self) -> bool {
        !matches!(
            self,
            Self::Spin(Reduction::Own)
                | Self::Rumur(Symmetry::Heuristic | Symmetry::Exhaustive, _)
                | Self::Own { reduced: true, .. }
        )
    }

    fn command(self, sizes: &Sizes, verifiers: &Verifiers) -> Result<Command, String> {
        let (way, threads) = match self {
            Self::Spin(Reduction::None) => return Ok(verifiers.unreduced.command()),
            Self::Spin(Reduction::Own) => return Ok(verifiers.reduced.command()),
            Self::Rumur(..) => {
                let of = |(tool, _): &&(Self, _)| *tool == self;
                let built = verifiers.rumur.iter().find(of);
                let (_, verifier) = built.ok_or_else(|| format!("{}: not built", self.name()))?;
                return Ok(verifier.command());
            }
            Self::Stateright(Way::DepthFirst, threads) => ("stateright-dfs", threads),
            Self::Stateright(_, threads) => ("stateright-bfs", threads),
            Self::Own {
                reduced: true,
                threads,
            } => ("own-reduced", threads),
            Self::Own {
                reduced: false,
                threads,
            } => ("own", threads),
        };
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command
            .args([CHILD, way, &threads.to_string()])
            .args(sizes.words())
            .env("RAYON_NUM_THREADS", threads.to_string());
        Ok(command)
    }

    fn answer(self, measured: &Measured) -> Result<Answer, String> {
        let printed = match self {
            Self::Spin(_) => Some(spin::parse(&measured.printed)?),
            Self::Rumur(..) => Some(rumur::parse(&measured.printed)?),
            Self::Stateright(..) | Self::Own { .. } => None,
        };
        if let Some(printed) = printed {
            return Ok(Answer {
                states: printed.states,
                transitions: printed.transitions,
                holds: printed.errors == 0,
            });
        }
        let words: Vec<u64> = measured
            .printed
            .split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        match words[..] {
            [states, transitions, holds] => Ok(Answer {
                states,
                transitions,
                holds: holds != 0,
            }),
            _ => Err(format!("{}: printed {:?}", self.name(), measured.printed)),
        }
    }
}

/// SPIN's and Rumur's compiled programs for one size.
struct Verifiers {
    unreduced: Verifier,
    reduced: Verifier,
    rumur: Vec<(Tool, rumur::Verifier)>,
}

impl Verifiers {
    fn build(sizes: &Sizes, tools: &[Tool], states: u64) -> Result<Self, String> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
        let slots = states.next_power_of_two().ilog2().max(18);
        let build = |reduction| Verifier::build(&folder, sizes, reduction, slots, "-O3");
        let mut of_rumur = Vec::new();
        for &tool in tools {
            if let Tool::Rumur(symmetry, threads) = tool {
                let built =
                    rumur::Verifier::build(&folder, sizes, symmetry, threads, states, "-O3")?;
                of_rumur.push((tool, built));
            }
        }
        Ok(Self {
            unreduced: build(Reduction::None)?,
            reduced: build(Reduction::Own)?,
            rumur: of_rumur,
        })
    }
}

/// The options of the project's own search.
fn options(reductions: Reductions) -> Options {
    Options {
        keep_going: true,
        counterexample: false,
        reductions,
        ..Options::default()
    }
}

/// What a child does: searches, prints its counts.
fn child(arguments: &[String]) -> Result<(), String> {
    let usage = || format!("a child of this benchmark cannot run {arguments:?}");
    let (way, rest) = arguments.split_first().ok_or_else(usage)?;
    let (threads, words) = rest.split_first().ok_or_else(usage)?;
    let threads: usize = threads.parse().map_err(|_| usage())?;
    let scenario = Sizes::from_words(words).ok_or_else(usage)?.scenario();
    let answer = match way.as_str() {
        "own" | "own-reduced" => {
            let reductions = if way == "own" {
                Reductions::NONE
            } else {
                Reductions::ALL
            };
            let report = search::check(&scenario, &options(reductions), &|_| true)
                .map_err(|error| error.to_string())?;
            if report.coverage != Coverage::Exhausted {
                return Err(format!("the search ended early: {:?}", report.coverage));
            }
            Answer {
                states: report.states,
                transitions: report.transitions,
                holds: report.verdict == Verdict::Holds,
            }
        }
        "stateright-bfs" | "stateright-dfs" => {
            let way = if way == "stateright-bfs" {
                Way::BreadthFirst
            } else {
                Way::DepthFirst
            };
            let graph = Graph::new(&scenario);
            let found = by_words!(graph, run(&graph, None, way, threads));
            Answer {
                states: found.states,
                transitions: found.transitions,
                holds: !found.broken,
            }
        }
        _ => return Err(usage()),
    };
    println!(
        "{} {} {}",
        answer.states,
        answer.transitions,
        u8::from(answer.holds)
    );
    Ok(())
}

fn median<T: Copy + PartialOrd>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("durations and sizes have an order"));
    sorted[sorted.len() / 2]
}

/// A tool's results over all turns.
struct Row {
    tool: Tool,
    answer: Answer,
    walls: Vec<f64>,
    cpus: Vec<f64>,
    peaks: Vec<u64>,
}

impl Row {
    fn wall(&self) -> f64 {
        median(&self.walls)
    }

    fn rate(&self) -> f64 {
        self.answer.states as f64 / self.wall()
    }
}

/// What a run answered, if it is what the graph is.
fn checked(tool: Tool, measured: &Measured, report: &Report) -> Result<Answer, String> {
    let answer = tool.answer(measured)?;
    if tool.is_unreduced()
        && (answer.states, answer.transitions) != (report.states, report.transitions)
    {
        return Err(format!(
            "{}: {answer:?}, but the graph has {} states and {} transitions",
            tool.name(),
            report.states,
            report.transitions
        ));
    }
    if !answer.holds {
        return Err(format!("{}: another verdict", tool.name()));
    }
    Ok(answer)
}

/// Runs the tools in turns.
fn turns(sizes: &Sizes, tools: &[Tool], rounds: usize) -> Result<Vec<Row>, String> {
    let report = search::check(&sizes.scenario(), &options(Reductions::NONE), &|_| true)
        .map_err(|error| error.to_string())?;
    let verifiers = Verifiers::build(sizes, tools, report.states)?;
    let mut rows: Vec<Row> = Vec::new();
    for round in 0..rounds {
        for turn in 0..OWN_TURNS {
            for (index, &tool) in tools.iter().enumerate() {
                if turn > 0 && !matches!(tool, Tool::Own { .. }) {
                    continue;
                }
                eprintln!("{sizes}: round {} of {rounds}: {}", round + 1, tool.name());
                let measured = measure(&mut tool.command(sizes, &verifiers)?)?;
                let answer = checked(tool, &measured, &report)?;
                if rows.len() == index {
                    rows.push(Row {
                        tool,
                        answer,
                        walls: Vec::new(),
                        cpus: Vec::new(),
                        peaks: Vec::new(),
                    });
                }
                rows[index].walls.push(measured.wall.as_secs_f64());
                rows[index].cpus.push(measured.cpu);
                rows[index].peaks.push(measured.peak_bytes);
            }
        }
    }
    Ok(rows)
}

/// Prints the rows beside the reference: this project's search, unreduced, on one thread.
fn print(sizes: &Sizes, rows: &[Row], rounds: usize) {
    let reference = rows.iter().find(|row| {
        row.tool
            == Tool::Own {
                reduced: false,
                threads: 1,
            }
    });
    println!(
        "\n{sizes}; medians of {rounds}, dirtysim's of {}\n",
        rounds * OWN_TURNS
    );
    println!(
        "| tool | states | wall, s | CPU, s | M states/s | bytes/state | dirtysim's rate is |"
    );
    println!("|---|---|---|---|---|---|---|");
    for row in rows {
        let ratio = match reference {
            Some(reference) if row.tool.is_unreduced() => {
                format!("{:.1} times", reference.rate() / row.rate())
            }
            _ => String::new(),
        };
        println!(
            "| {} | {} | {:.3} | {:.2} | {:.2} | {:.1} | {ratio} |",
            row.tool.name(),
            row.answer.states,
            row.wall(),
            median(&row.cpus),
            row.rate() / 1e6,
            median(&row.peaks) as f64 / row.answer.states as f64,
        );
    }
    let wall = |wanted: Tool| rows.iter().find(|row| row.tool == wanted).map(Row::wall);
    let own = |reduced, threads| wall(Tool::Own { reduced, threads });
    if let (Some(one), Some(two)) = (own(false, 1), own(false, 2)) {
        println!("\ntwo threads of dirtysim: {:.2} times one", one / two);
    }
    let with_symmetry = |threads| wall(Tool::Rumur(Symmetry::Heuristic, threads));
    let peers = [
        ("SPIN with its own", wall(Tool::Spin(Reduction::Own)), None),
        (
            "Rumur with its symmetry",
            with_symmetry(1),
            with_symmetry(2),
        ),
    ];
    for (peer, on_one, on_two) in peers {
        if let (Some(theirs), Some(one), Some(two)) = (on_one, own(true, 1), own(true, 2)) {
            println!(
                "the same verdict with reductions: {:.1} times less time than {peer} on one thread, {:.1} on two",
                theirs / one,
                on_two.unwrap_or(theirs) / two
            );
        }
    }
}

/// Successors per second without a visited set: what no search over this transition function can exceed.
fn ceiling(sizes: &Sizes, time: Duration) {
    fn sample<const N: usize>(graph: &Graph, most: usize) -> Vec<Packed<N>> {
        let mut seen = std::collections::HashSet::new();
        let mut sample = vec![graph.first::<N>()];
        let mut state = graph.start.clone();
        let mut at = 0;
        while at < sample.len() && sample.len() < most {
            graph.unpack(&sample[at], &mut state);
            for_each_step(&graph.machine, &state, |step| {
                let mut after = state.clone();
                apply(&graph.machine, &mut after, step);
                let packed = graph.pack(&mut after);
                if seen.insert(packed) {
                    sample.push(packed);
                }
            });
            at += 1;
        }
        sample
    }
    /// Rates of: steps alone; with packing; with packing and every claim checked once a state.
    fn rates<const N: usize>(graph: &Graph, time: Duration) -> [f64; 3] {
        let sample = sample::<N>(graph, 300_000);
        let mut sum = 0;
        let rates = [0, 1, 2].map(|level| {
            let begin = Instant::now();
            let mut successors = 0_u64;
            let mut state = graph.start.clone();
            'all: loop {
                for chunk in sample.chunks(1024) {
                    for words in chunk {
                        graph.unpack(words, &mut state);
                        if level == 2 {
                            let broken = oracle::check(&graph.machine, &state, Effect::None);
                            sum ^= u64::from(broken.is_empty());
                        }
                        for_each_step(&graph.machine, &state, |step| {
                            let mut after = state.clone();
                            apply(&graph.machine, &mut after, step);
                            successors += 1;
                            if level == 0 {
                                sum ^= u64::from(after.slots_lock) ^ successors;
                            } else {
                                sum ^= graph.pack::<N>(&mut after)[0];
                            }
                        });
                    }
                    if begin.elapsed() >= time {
                        break 'all;
                    }
                }
            }
            successors as f64 / begin.elapsed().as_secs_f64()
        });
        std::hint::black_box(sum);
        rates
    }
    let graph = Graph::new(&sizes.scenario());
    let rates = by_words!(graph, rates(&graph, time));
    println!(
        "\n{sizes}: successors per second on one core without a visited set, in millions: {:.1}; packed {:.1}; packed \
         and every claim checked {:.1} (a packed state has {} bits)",
        rates[0] / 1e6,
        rates[1] / 1e6,
        rates[2] / 1e6,
        graph.bits()
    );
}

fn compare(arguments: &[String]) -> Result<(), String> {
    if let Some(reason) = spin::missing() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let benches = arguments.iter().any(|argument| argument == "--bench");
    let rounds = match value(arguments, "--rounds", if benches { 3 } else { 1 })? {
        0 => return Err("write --rounds N with N from 1 on".to_owned()),
        rounds => rounds as usize,
    };
    let smaller = |sizes| Sizes { stores: 1, ..sizes };
    let sizes = [ARM64, X86, X86_WITH_4];
    let [arm64, x86, x86_with_4] = sizes.map(|sizes| if benches { sizes } else { smaller(sizes) });
    println!("{}; {} CPUs", spin::version(), num_cpus());
    let unreduced = |threads| Tool::Own {
        reduced: false,
        threads,
    };
    let reduced = |threads| Tool::Own {
        reduced: true,
        threads,
    };
    let with_rumur = |mut tools: Vec<Tool>, of_rumur: &[Symmetry]| {
        if rumur::missing().is_none() {
            for symmetry in of_rumur {
                tools.extend([1, 2].map(|threads| Tool::Rumur(*symmetry, threads)));
            }
        }
        tools
    };
    if let Some(reason) = rumur::missing() {
        println!("Rumur is skipped: {reason}");
    }
    let only = word(arguments, "--only")?.map(str::to_lowercase);
    let wanted = |tools: Vec<Tool>| -> Vec<Tool> {
        let is_wanted = |tool: &Tool| {
            let has = |word: &String| tool.name().to_lowercase().contains(word);
            matches!(tool, Tool::Own { .. }) || only.as_ref().is_none_or(has)
        };
        tools.into_iter().filter(is_wanted).collect()
    };
    let all = [
        unreduced(1),
        Tool::Spin(Reduction::None),
        Tool::Stateright(Way::BreadthFirst, 1),
        Tool::Stateright(Way::DepthFirst, 1),
        unreduced(2),
        Tool::Stateright(Way::BreadthFirst, 2),
        Tool::Stateright(Way::DepthFirst, 2),
        Tool::Spin(Reduction::Own),
        reduced(1),
        reduced(2),
    ];
    let all = wanted(with_rumur(all.to_vec(), &[Symmetry::Off]));
    print(&arm64, &turns(&arm64, &all, rounds)?, rounds);
    let few = [
        unreduced(1),
        unreduced(2),
        Tool::Spin(Reduction::None),
        Tool::Spin(Reduction::Own),
        reduced(1),
        reduced(2),
    ];
    let few = wanted(with_rumur(
        few.to_vec(),
        &[Symmetry::Off, Symmetry::Heuristic, Symmetry::Exhaustive],
    ));
    for sizes in [&x86, &x86_with_4] {
        print(sizes, &turns(sizes, &few, rounds)?, rounds);
    }
    let time = Duration::from_millis(if benches { 2000 } else { 20 });
    ceiling(&arm64, time);
    ceiling(&x86, time);
    Ok(())
}

fn num_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((first, rest)) if first == CHILD => child(rest),
        _ => compare(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}
