//! Scenarios: a machine, its writers, the VMM's protocol as a list of steps, and the verdict that is expected.
//!
//! The protocol is data. `docs/scenarios.md` describes the language for those who write it; this module turns the
//! text into the model's [`Machine`], whose programs are lists of operations, and refuses what contradicts itself.
//!
//! ```
//! use dirtysim_check::scenario::Scenario;
//! # let text = r#"
//! # name = "early"
//! # [machine]
//! # arch = "x86"
//! # pages = 1
//! # [writers]
//! # vcpu = { stores = 1 }
//! # [protocol]
//! # steps = ["enable-logging", "copy-all", "get-dirty-log", "pause-vcpus", "copy", "finish"]
//! # "#;
//! let scenario = Scenario::from_toml("early.toml", text).unwrap();
//! assert_eq!(scenario.machine.vcpus.len(), 1);
//! let error = Scenario::from_toml("wrong.toml", "name = \"wrong\"").unwrap_err();
//! assert!(error.to_string().contains("no [machine]"));
//! ```

mod any_pages;
mod builtin;
pub mod enclosed;
mod error;
pub mod keys;
pub(crate) mod lacks;
mod machine;
pub(crate) mod meant;
mod node;
mod reach;
mod reader;
mod settings;
mod slots;
mod steps;
pub mod vocabulary;
mod widen;
mod writers;

use std::io::Read;
use std::path::Path;

use dirtysim_model::machine::Machine;
use dirtysim_model::op::Op;
use dirtysim_model::oracle::{Invariant, Invariants};
use dirtysim_model::state::layout::{Array, Large, Layout};
use dirtysim_model::state::thread::{Answer, Thread};
use dirtysim_model::state::{Part, State};
use dirtysim_model::words::mutation::{Mutation, Mutations};
use dirtysim_model::words::{Frame, HostPage};
use serde_json::Value;

use crate::alone::finish_op;
pub use builtin::{about_liveness, builtin, builtin_text, builtins, mutation_scenarios};
pub use dirtysim_model::state::NoRoom;
pub use error::ScenarioError;
pub use error::nearest;
use reach::Stated;
use reader::{Result, Source, Table};
pub use widen::Widened;

/// Who wrote a scenario: in a file of somebody's, nothing stands that can do nothing; what the program keeps in a trace is
/// run again as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    ByHand,
    ByTheProgram,
}

/// The verdict that a scenario states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Every claim holds.
    Holds,
    /// That claim is broken.
    Violated(Invariant),
}

/// What a protocol calls what the machine has numbers for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The threads; the first has no name, and others need none.
    pub threads: Vec<Option<String>>,
    /// The locks of user space.
    pub locks: Vec<String>,
    /// The signals between its threads.
    pub signals: Vec<String>,
    /// By thread and operation, where the VMM's source has it: `file:line`, as the steps say (`at`).
    pub places: Vec<Vec<Option<String>>>,
}

/// A scenario, checked and ready to run.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// The file, or the name under which it was given.
    pub file: String,
    /// The line at which it states what is expected, or at which it begins; from 1, and 0 where there is no text.
    pub line: usize,
    /// What it is about, in a sentence.
    pub sentence: String,
    /// Where the order comes from: repository, file, function, version; empty where it is the project's own.
    pub origin: String,
    /// The verdict that it states; none is `holds`, but the document says which.
    pub expect: Option<Expect>,
    /// What a search for what goes on for ever should find, where it states that: `migration_makes_progress` stands for
    /// whatever that search looks for.
    pub liveness: Option<Expect>,
    /// Whether `no_spurious_dirty_page` is checked.
    pub checks_spurious: bool,
    /// Constants that differ from the architecture's, each as `name = value (the architecture's: value)`.
    pub scaled: Vec<String>,
    /// The machine, with the protocol as its programs.
    pub machine: Machine,
    /// What is done before the schedules begin: capabilities, memslots, vCPUs.
    pub setup: Vec<Op>,
    /// What it calls its threads, locks and signals.
    pub names: Names,
    /// The most times that `repeat` has one of its steps written out.
    pub rounds: u64,
    /// Whether it is about any number of pages: its machine is the one by which they are searched, and one of few pages.
    pub any_pages: bool,
    /// Which of them its lists mean then.
    pub(crate) meant: meant::Meant,
    /// The scenario as it was written, for the header of a trace.
    pub source: Value,
}

impl Scenario {
    /// Reads a scenario from TOML; `file` names it in complaints.
    ///
    /// # Errors
    /// What is wrong, where, and what to write instead.
    pub fn from_toml(file: &str, text: &str) -> Result<Self> {
        Self::from_text(file, text, Written::ByHand)
    }

    /// As [`Scenario::from_toml`], of a text that the program made, over machines on some of which a mutation can do nothing.
    ///
    /// # Errors
    /// As for that.
    pub fn from_expansion(file: &str, text: &str) -> Result<Self> {
        Self::from_text(file, text, Written::ByTheProgram)
    }

    fn from_text(file: &str, text: &str, written: Written) -> Result<Self> {
        let tree = match node::from_toml(text) {
            Ok(tree) => tree,
            Err((problem, span)) => {
                let help = "a scenario is TOML 1.0; docs/scenarios.md has examples".to_owned();
                return Err(ScenarioError::at(
                    file,
                    text,
                    span.unwrap_or(0..0),
                    problem,
                    help,
                ));
            }
        };
        Self::from_tree(Source { file, text }, &tree, written)
    }

    /// Reads a scenario from the JSON that a trace's header carries. What was run once is run again: steps that nothing
    /// reaches and mutations that can do nothing are refused in files only.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn from_json(file: &str, value: &Value) -> Result<Self> {
        let source = Source { file, text: "" };
        Self::from_tree(source, &node::from_json(value), Written::ByTheProgram)
    }

    /// Reads a file, of at most 1 MiB; of a text that carries a scenario, that.
    ///
    /// # Errors
    /// What is wrong, where, and what to write instead.
    pub fn load(path: &Path) -> Result<Self> {
        const MOST_BYTES: u64 = 1 << 20;
        let file = path.display().to_string();
        let whole =
            |problem: String, help: &str| ScenarioError::whole(&file, problem, help.to_owned());
        let unreadable = |error: std::io::Error| {
            whole(
                format!("cannot read: {error}"),
                "give a readable file, or a name that `dirtysim list scenarios` shows",
            )
        };
        // What is no regular file has no size that could be asked for.
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|input| input.take(MOST_BYTES + 1).read_to_end(&mut bytes))
            .map_err(unreadable)?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(whole(
                format!("more than {MOST_BYTES} bytes"),
                "a scenario has at most 1 MiB",
            ));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            whole(
                format!("invalid UTF-8 at byte {}", error.utf8_error().valid_up_to()),
                "a scenario is UTF-8 text",
            )
        })?;
        if text.trim().is_empty() {
            return Err(whole(
                "the file is empty".to_owned(),
                "docs/scenarios.md has examples",
            ));
        }
        // A mail that carries one.
        let text = enclosed::scenario(&text).unwrap_or(text);
        Self::from_toml(&file, &text)
    }

    /// A built-in scenario by name, or a file.
    ///
    /// # Errors
    /// As [`Scenario::load`]; and for a name that is neither, the names that are near.
    pub fn find(name: &str) -> Result<Self> {
        if let Some(scenario) = builtin(name) {
            return Ok(scenario);
        }
        if name.contains(['/', '\\', '.']) || Path::new(name).exists() {
            return Self::load(Path::new(name));
        }
        let names: Vec<&str> = builtin::names().collect();
        let near =
            nearest(name, &names).map_or(String::new(), |near| format!("did you mean `{near}`? "));
        let help = format!(
            "{near}`dirtysim list scenarios` shows the built-in ones; a file has a `.` or a `/` in its name"
        );
        Err(ScenarioError::whole(
            name,
            "no such scenario".to_owned(),
            help,
        ))
    }

    fn from_tree(source: Source<'_>, tree: &node::Node, written: Written) -> Result<Self> {
        let mut top = Table::new(source, tree, "the scenario")?;
        let name = top
            .get("name")
            .map(|node| reader::name(source, node, "scenario"))
            .transpose()?
            .map(str::to_owned);
        let sentence = one_line(top.text("sentence")?.unwrap_or_default());
        let origin = one_line(top.text("origin")?.unwrap_or_default());
        let expect = top.get("expect");
        let place = expect.map_or(0, |node| node.span.start);
        let expect = expect.map(|node| read_expect(source, node)).transpose()?;
        let liveness = top
            .get("liveness")
            .map(|node| {
                let broken = Expect::Violated(Invariant::MigrationMakesProgress);
                let known = [("holds", Expect::Holds), ("violated", broken)];
                reader::pick(source, node, "verdict", &known)
            })
            .transpose()?;
        let checks_spurious = top.boolean("check_spurious")?.unwrap_or(false);
        let stated = Stated { expect, liveness };
        let claims = read_claims(source, &mut top, stated, checks_spurious)?;
        let (mutations, mutation_spans) = read_mutations(source, &mut top)?;
        let mut parts = machine::read(source, &mut top)?;
        parts.machine.claims = claims;
        dirtysim_model::mutated::set(&mut parts.machine, mutations);
        parts.machine.track_spurious = checks_spurious;
        let writers = writers::read(source, &mut top, &mut parts)?;
        steps::read(source, &mut top, &mut parts, &writers)?;
        any_pages::check(source, &mut parts)?;
        if written == Written::ByHand {
            reach::check(source, &parts, stated)?;
            settings::check(source, tree, &parts)?;
        }
        let span = top.span.clone();
        top.finish()?;
        let Some(name) = name else {
            return source.error(
                &(span.start..span.start),
                "no `name`",
                "write name = \"what-it-shows\"",
            );
        };
        dirtysim_model::op::ahead::look_ahead(&mut parts.machine);
        let scenario = Self {
            name,
            file: source.file.to_owned(),
            line: match source.text.get(..place) {
                Some(before) if !source.text.is_empty() => before.matches('\n').count() + 1,
                _ => 0,
            },
            sentence,
            origin,
            expect,
            liveness,
            checks_spurious,
            scaled: parts.scaled,
            machine: parts.machine,
            setup: parts.setup,
            names: parts.names,
            rounds: parts.rounds,
            any_pages: parts.any_pages.is_some(),
            meant: parts.meant,
            source: node::to_json(tree),
        };
        scenario.check_setup(source, &parts.setup_spans)?;
        if written == Written::ByHand {
            for (mutation, span) in mutation_spans {
                if let Some(lacks) = lacks::lacks(&scenario, mutation) {
                    return source.error(
                        &span,
                        format!("`{}` can do nothing here: {lacks}", mutation.name()),
                        "leave it away, or write what it needs",
                    );
                }
            }
        }
        Ok(scenario)
    }

    /// Runs the set-up once, so that what the kernel would refuse is refused here.
    fn check_setup(
        &self,
        source: Source<'_>,
        spans: &[(std::ops::Range<usize>, &'static str)],
    ) -> Result<()> {
        let mut machine = self.machine.clone();
        machine.programs = vec![self.setup.clone()];
        let mut state = State::<Large>::new(&machine);
        while usize::from(state.threads[0].op) < self.setup.len() {
            let at = usize::from(state.threads[0].op);
            if let Err(errno) = run_op(&machine, &mut state) {
                let (span, rule) = spans
                    .get(at)
                    .cloned()
                    .unwrap_or((0..0, "the kernel refuses this set-up"));
                return source.error(
                    &span,
                    format!("the kernel answers {} here", errno.name()),
                    rule,
                );
            }
        }
        Ok(())
    }

    /// The state in which schedules begin: the set-up done, every thread before its first step.
    ///
    /// # Errors
    /// What does not fit the layout, and how many of it would.
    pub fn start<L: Layout>(&self) -> std::result::Result<State<L>, NoRoom> {
        State::<L>::fits(&self.machine)?;
        let most = L::Entries::CAPACITY as u64;
        if u64::from(self.ring_entries()) > most {
            return Err(NoRoom {
                part: Part::RingEntries,
                most,
            });
        }
        let mut machine = self.machine.clone();
        machine.programs = vec![self.setup.clone()];
        let mut state = State::<L>::new(&machine);
        while usize::from(state.threads[0].op) < self.setup.len() {
            // What the kernel refuses, reading the scenario has refused already.
            let _ = run_op(&machine, &mut state);
        }
        state.threads = L::Threads::default();
        for _ in &self.machine.programs {
            state.threads.push(Thread::default());
        }
        Ok(state)
    }

    /// The entries that the set-up gives each ring; 0: no ring.
    #[must_use]
    pub fn ring_entries(&self) -> u32 {
        use dirtysim_model::machine::DIRTY_GFN_BYTES;
        self.setup
            .iter()
            .find_map(|op| match op {
                Op::EnableCap(op) if is_ring(op.cap) => Some(op.args0 as u32 / DIRTY_GFN_BYTES),
                _ => None,
            })
            .unwrap_or(0)
    }

    /// The names of the claims by which it is judged, where it chooses them; else it is judged by all.
    #[must_use]
    pub fn chosen_claims(&self) -> Option<Vec<&'static str>> {
        let claims = self.machine.claims;
        (claims != Invariants::ALL).then(|| claims.iter().map(Invariant::name).collect())
    }

    /// The verdict that counts: the one stated, or `holds`.
    #[must_use]
    pub fn expected(&self) -> Expect {
        self.expect.unwrap_or(Expect::Holds)
    }

    /// The verdict that counts for a search for what goes on for ever: the one stated; else that something does, where
    /// `expect` says that `migration_makes_progress` is broken; else that nothing does.
    #[must_use]
    pub fn expected_liveness(&self) -> Expect {
        self.liveness.unwrap_or(match self.expected() {
            broken @ Expect::Violated(Invariant::MigrationMakesProgress) => broken,
            Expect::Violated(_) | Expect::Holds => Expect::Holds,
        })
    }

    /// The scenario with one more mutation switched on, as if its file had listed it.
    #[must_use]
    pub fn with_mutation(mut self, mutation: Mutation) -> Self {
        dirtysim_model::mutated::switch_on(&mut self.machine, mutation);
        if let Value::Object(map) = &mut self.source {
            let list = map
                .entry("mutations")
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(Value::from(mutation.name()));
            }
        }
        self
    }

    /// The scenario with no mutation, and expected to hold.
    #[must_use]
    pub fn without_mutations(mut self) -> Self {
        dirtysim_model::mutated::set(&mut self.machine, Mutations::default());
        self.expect = Some(Expect::Holds);
        if let Value::Object(map) = &mut self.source {
            map.shift_remove("mutations");
            map.insert("expect".to_owned(), Value::from("holds"));
        }
        self
    }

    /// The name of a host page: `slot:offset`, or its number where no slot has it.
    #[must_use]
    pub fn page_name(&self, host: HostPage) -> String {
        let slot = self.machine.slots.iter().find(|slot| slot.has_host(host));
        slot.map_or_else(
            || host.0.to_string(),
            |slot| format!("{}:{}", slot.name, host - slot.host),
        )
    }

    /// The name of a frame: `slot:offset`.
    #[must_use]
    pub fn frame_name(&self, frame: Frame) -> String {
        match self.machine.slot_of_frame(frame) {
            Some(slot) => {
                let slot = &self.machine.slots[slot];
                format!("{}:{}", slot.name, frame - slot.frame)
            }
            None => frame.0.to_string(),
        }
    }
}

/// A text in one line, as a verdict has it.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs thread 0 through the operation of the set-up that it is at.
fn run_op<L: Layout>(machine: &Machine, state: &mut State<L>) -> Answer {
    finish_op(machine, state, 0, |_| ()).expect("in set-up nobody holds what a step could wait for")
}

/// What a scenario's name is made of.
///
/// # Errors
/// The rule, where it is not kept.
pub fn check_name(name: &str) -> std::result::Result<(), &'static str> {
    let right = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !(1..=MOST_NAME).contains(&name.len()) || !name.chars().all(right) {
        return Err(
            "a name has 1 to 100 letters, digits, - and _ only: files, steps and pages are named by it",
        );
    }
    Ok(())
}

/// The longest name, in characters.
const MOST_NAME: usize = 100;

/// Whether a file reads like a scenario, right or wrong, or carries one: a line of its beginning opens a table that each has.
#[must_use]
pub fn looks_like_one(path: &Path) -> bool {
    use std::io::Read;
    const HEAD_BYTES: u64 = 16 << 10;
    let mut head = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
    let text = String::from_utf8_lossy(&head);
    let begins = |word: &str| text.lines().any(|line| line.trim_start().starts_with(word));
    // A page of documentation that shows one begins with prose.
    let said = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let first = text.lines().map(str::trim).find(said);
    let is_toml = first.is_some_and(|line| {
        let key = line.split('=').next().unwrap_or_default().trim();
        line.starts_with('[') || line.contains('=') && !key.contains(char::is_whitespace)
    });
    let is_one = is_toml && (begins("[machine]") || begins("[protocol]"));
    read.is_ok() && (is_one || enclosed::scenario(&text).is_some())
}

/// Whether that capability enables rings.
fn is_ring(cap: u32) -> bool {
    use dirtysim_model::machine::{CAP_DIRTY_LOG_RING, CAP_DIRTY_LOG_RING_ACQ_REL};
    matches!(cap, CAP_DIRTY_LOG_RING | CAP_DIRTY_LOG_RING_ACQ_REL)
}

/// Mutations, each with the place that names it.
type Named = Vec<(Mutation, std::ops::Range<usize>)>;

fn read_expect(source: Source<'_>, node: &node::Node) -> Result<Expect> {
    const HELP: &str = "write expect = \"holds\" or expect = { violated = \"no_dirty_page_lost\" }";
    if let node::Kind::Text(word) = &node.kind {
        return if word == "holds" {
            Ok(Expect::Holds)
        } else {
            source.error(&node.span, format!("unknown verdict `{word}`"), HELP)
        };
    }
    let mut table = Table::new(source, node, "`expect`")?;
    let known: Vec<(&'static str, Invariant)> =
        Invariant::ALL.iter().map(|i| (i.name(), *i)).collect();
    let Some(violated) = table.get("violated") else {
        return source.error(&node.span, "`expect` has no `violated`", HELP);
    };
    let invariant = reader::pick(source, violated, "invariant", &known)?;
    if invariant == Invariant::ProtocolEnds {
        return source.error(
            &violated.span,
            "no single schedule breaks `protocol_ends`",
            "write liveness = \"violated\" in place of expect: `check --liveness` looks for it",
        );
    }
    table.finish()?;
    Ok(Expect::Violated(invariant))
}

/// The claims by which the scenario is judged: those that it names, and always that of the end.
fn read_claims(
    source: Source<'_>,
    top: &mut Table<'_>,
    stated: Stated,
    checks_spurious: bool,
) -> Result<Invariants> {
    let Some(node) = top.get("claims") else {
        return Ok(Invariants::ALL);
    };
    let known: Vec<(&'static str, Invariant)> =
        Invariant::ALL.iter().map(|i| (i.name(), *i)).collect();
    let mut claims = Invariants::NONE;
    claims.insert(Invariant::NoDirtyPageLost);
    for named in reader::list(source, node, "claims")? {
        claims.insert(reader::pick(source, named, "claim", &known)?);
    }
    // What the scenario says elsewhere that it is about, it is judged by.
    let spurious = Invariant::NoSpuriousDirtyPage;
    let mut needs = Vec::new();
    if let Some(Expect::Violated(invariant)) = stated.expect {
        needs.push(("expect", invariant));
    }
    if stated.liveness.is_some() {
        needs.push(("liveness", Invariant::MigrationMakesProgress));
        needs.push(("liveness", Invariant::ProtocolEnds));
    }
    if checks_spurious {
        needs.push(("check_spurious", spurious));
    }
    if let Some((key, claim)) = needs.into_iter().find(|(_, claim)| !claims.has(*claim)) {
        return source.error(
            &node.span,
            format!(
                "`{key}` is about `{}`, which `claims` leaves out",
                claim.name()
            ),
            format!("add it to `claims`, or leave `{key}` away"),
        );
    }
    if claims.has(spurious) && !checks_spurious {
        return source.error(
            &node.span,
            format!("`claims` names `{}`, which is not checked", spurious.name()),
            "write check_spurious = true too",
        );
    }
    Ok(claims)
}

/// The mutations, and where each is named.
fn read_mutations(source: Source<'_>, top: &mut Table<'_>) -> Result<(Mutations, Named)> {
    let known: Vec<(&'static str, Mutation)> =
        Mutation::ALL.iter().map(|m| (m.name(), *m)).collect();
    let mut mutations = Mutations::default();
    let mut spans = Vec::new();
    for node in top.list("mutations")?.unwrap_or_default() {
        let mutation = reader::pick(source, node, "mutation", &known)?;
        mutations.switch_on(mutation);
        spans.push((mutation, node.span.clone()));
    }
    Ok((mutations, spans))
}
