//! What is known of the code under test: its histories of calls and answers, as a tree.
//!
//! The code is deterministic and learns of the world by answers alone, so that a history of answers says where it stands. A node is a
//! call with all that led to it; its number is where the code's thread is in its program. The code is run again from its begin only for
//! a history that is new; one run is kept waiting at its last call, and goes on where the next new history is behind that.
//!
//! With one thread the answers to its own calls are the history. With several, which may share memory, it is the order of all
//! threads' answers.

use std::collections::HashMap;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use dirtysim_check::code::{Grow, Unknown};
use dirtysim_check::scenario::Scenario;
use dirtysim_model::machine::{Ahead, Code as Known, Machine as Model, Op, Way};
use dirtysim_model::op;
use serde_json::{Value, json};

use crate::call::{Asked, Call, Reply, World};
use crate::machine::{Machine, MachineError};
use crate::session::{Code, End, Event, Session};
use crate::workers::Workers;

/// Operations that a program has at most: their numbers have 16 bits, and the last is [`Way::END`].
pub(crate) const MOST_OPS: u16 = u16::MAX - 1;

/// Where a thread stands when all is over, so that no other operation comes to stand there.
const AFTER_THE_END: Op = Op::Leave;

/// Why nothing more could be told of the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The same answers led to another call: what it was, and what it is now.
    NotDeterministic(String, String),
    /// It used something as it cannot be used: what, and where.
    Mistake(String, String),
    /// It has made no call for long, after this one.
    Silent(String),
    /// A thread has made more calls than it may: those that it goes round, and how many calls it made.
    Endless(Vec<String>, u32),
    /// There are more histories than there are numbers for.
    TooMany,
    /// It did what it was taken not to do: see [`Taken`].
    News,
}

/// What code is taken not to do until it does: a search looks at less where it need not expect everything. What was walked before the
/// code does it was walked as it is, so that whoever hears of it begins anew with what he knows now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Operations that it has asked for, one of each kind: it asks for no other.
    asks: Vec<Op>,
    /// It has let the guest run again: else it never does.
    resumes: bool,
    /// It has changed a memslot after it had collected: else it never does.
    changes_slots_late: bool,
}

/// A history, and what the code does after it.
struct Node {
    /// The history before its last answer.
    parent: u16,
    /// The thread that was answered, and with what.
    seat: u8,
    reply: Reply,
    /// What that thread does then.
    next: Next,
    /// Calls of the history.
    calls: u32,
    /// A claim behind which nothing comes.
    is_last: bool,
    /// Whether something was collected in the history, or is by its call.
    collects: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    Asks(Asked),
    Ends(End),
}

/// The operations of a call, with the lists of frames that they name.
#[derive(Clone)]
struct Ops {
    ops: Vec<Op>,
    lists: Vec<Vec<u32>>,
}

/// The histories that are known.
pub(crate) struct Tree {
    machine: Machine,
    pub(crate) world: Arc<World>,
    code: Code,
    threads: u8,
    pub(crate) most_calls: u32,
    pub(crate) most_histories: u16,
    patience: Duration,
    taken: Taken,
    /// Whether what is new to [`Taken`] is trouble, since it is counted on.
    pub(crate) counts_on_it: bool,
    nodes: Vec<Node>,
    /// By thread and operation, the node of which it is the call.
    node_at: Vec<HashMap<u16, u16>>,
    ops: HashMap<Call, Ops>,
    /// By what the code says that it depends on alone, and where it says so, the operation at which it does.
    /// Whether something was collected by then is told apart, since it decides what is expected.
    same: HashMap<(u64, &'static Location<'static>, bool), u16>,
    /// A run that waits, the node at which it does, and how many answers it has had.
    live: Option<(Arc<Session>, u16, usize)>,
    workers: Arc<Workers>,
    /// Runs of the code so far.
    pub(crate) runs: u64,
    pub(crate) trouble: Option<Trouble>,
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Tree {
    /// The tree of code of which nothing is known, and a scenario whose programs it is.
    pub(crate) fn new(
        machine: &Machine,
        name: &str,
        claims: &[&str],
        code: Code,
        threads: u8,
        most_calls: u32,
        patience: Duration,
    ) -> Result<(Self, Scenario), MachineError> {
        machine.try_build()?;
        let mut scenario = machine.scenario(name, claims, &[vec!["finish".into()]])?;
        let world = Arc::new(World::of(&scenario));
        let mut tree = Self {
            machine: machine.clone(),
            world,
            code,
            threads,
            most_calls,
            most_histories: MOST_OPS,
            patience,
            taken: Taken::default(),
            counts_on_it: false,
            nodes: Vec::new(),
            node_at: vec![HashMap::new(); usize::from(threads)],
            ops: HashMap::new(),
            same: HashMap::new(),
            live: None,
            workers: Arc::default(),
            runs: 0,
            trouble: None,
        };
        let model = &mut scenario.machine;
        // The longest list decides how far an index goes.
        let longest = model.slots.iter().max_by_key(|slot| slot.npages);
        let longest = longest.map(|slot| (slot.frame..slot.frame + slot.npages).collect());
        model.frame_lists = longest.into_iter().collect();
        model.programs.clear();
        model.ahead.clear();
        let mut settled = Vec::new();
        for seat in 0..threads {
            tree.nodes.push(Node {
                parent: 0,
                seat,
                reply: Reply::PLAIN,
                next: Next::Asks(Asked {
                    call: Call::Begin(seat),
                    place: Location::caller(),
                }),
                calls: 0,
                is_last: false,
                collects: false,
            });
            let wait = (seat > 0).then(|| Op::WaitSignal(seat - 1));
            let proceed = Op::Proceed(op::Proceed {
                ways: u16::from(seat),
            });
            let program: Vec<Op> = wait.into_iter().chain([proceed]).collect();
            // Behind the last operation too: another one may come to stand there.
            model.ahead.push(vec![tree.ahead(); program.len() + 1]);
            settled.push(vec![false; program.len()]);
            model.programs.push(program);
        }
        if tree.is_ordered() {
            // A thread that stands for the order of the others.
            model.programs.push(Vec::new());
            model.ahead.push(Vec::new());
            settled.push(Vec::new());
        }
        let proceed = Op::Proceed(op::Proceed { ways: 0 });
        let finish = Op::Finish(op::Finish { postcopy: false });
        tree.taken.asks = vec![proceed, finish, Op::Checkpoint, Op::Panic, Op::Leave];
        model.code = Some(Known {
            may: tree.taken.asks.clone(),
            most: u16::MAX,
            settled,
            ways: vec![Vec::new(); usize::from(threads)],
            order: tree.is_ordered().then_some(threads),
        });
        Ok((tree, scenario))
    }

    /// What is ahead of code that may do anything that it is not taken not to do.
    fn ahead(&self) -> Ahead {
        Ahead {
            full_copy: true,
            resume: self.taken.resumes,
            ..Ahead::default()
        }
    }

    /// Takes nothing for granted of what the code does.
    #[cfg(test)]
    pub(crate) fn expect_everything(&mut self) {
        self.taken.resumes = true;
        self.taken.changes_slots_late = true;
    }

    /// Takes in what the code is now known to do; whether it is new. `collected`: something was collected before.
    fn learn(&mut self, call: &Call, ops: &[Op], collected: bool) -> bool {
        let mut is_new = false;
        let resumes = *call == Call::ResumeVcpus;
        let late = collected && matches!(call, Call::SetUserMemoryRegion(_));
        for (known, now) in [
            (&mut self.taken.resumes, resumes),
            (&mut self.taken.changes_slots_late, late),
        ] {
            is_new |= now && !*known;
            *known |= now;
        }
        for &op in ops {
            if !self.taken.asks.iter().any(|known| are_alike(known, &op)) {
                self.taken.asks.push(op);
                is_new = true;
            }
        }
        is_new
    }

    /// Tells the machine what the code is now known to do.
    pub(crate) fn tell(&self, model: &mut Model) {
        for ahead in model.ahead.iter_mut().flatten() {
            ahead.resume = self.taken.resumes;
        }
        let Some(code) = &mut model.code else { return };
        code.may.clone_from(&self.taken.asks);
        for (seat, settled) in code.settled.iter_mut().enumerate() {
            let at = self.node_at.get(seat);
            let mut is_settled = false;
            for (op, settled) in settled.iter_mut().enumerate() {
                if let Some(node) = at.and_then(|at| at.get(&(op as u16))) {
                    is_settled = self.is_settled(*node);
                }
                *settled = is_settled;
            }
        }
    }

    /// Whether no memslot is changed from a node on.
    fn is_settled(&self, node: u16) -> bool {
        self.nodes[usize::from(node)].collects && !self.taken.changes_slots_late
    }

    fn is_ordered(&self) -> bool {
        self.threads > 1
    }

    /// The operations of a call: what the language of scenarios makes of it.
    fn ops(&mut self, model: &mut Model, call: &Call) -> Result<Vec<Op>, MachineError> {
        let known = match self.ops.get(call) {
            Some(known) => known.clone(),
            None => {
                let made = self.make(call)?;
                self.ops.insert(call.clone(), made.clone());
                made
            }
        };
        // Lists have other numbers in the machine that grows.
        let lists: Vec<u16> = known
            .lists
            .into_iter()
            .map(|list| {
                let at = model.frame_lists.iter().position(|known| *known == list);
                at.unwrap_or_else(|| {
                    model.frame_lists.push(list);
                    model.frame_lists.len() - 1
                }) as u16
            })
            .collect();
        Ok(known.ops.into_iter().map(|op| relist(op, &lists)).collect())
    }

    fn make(&self, call: &Call) -> Result<Ops, MachineError> {
        let plain = |op| {
            Ok(Ops {
                ops: vec![op],
                lists: Vec::new(),
            })
        };
        let first_channel = self.threads - 1;
        match *call {
            // These are by number here, and by name in a text.
            Call::Begin(seat) => plain(Op::WaitSignal(seat - 1)),
            Call::Spawn(seat) => plain(Op::Signal(seat - 1)),
            Call::Join(seat) => plain(Op::JoinThread(seat)),
            Call::Yield | Call::DependsOnlyOn(_) => plain(Op::Yield),
            Call::Lock(lock) => plain(Op::Lock(lock)),
            Call::Unlock(lock) => plain(Op::Unlock(lock)),
            Call::Signal(signal) => plain(Op::Signal((first_channel + signal).min(7))),
            Call::WaitSignal(signal) => plain(Op::WaitSignal((first_channel + signal).min(7))),
            _ => {
                let steps = vec![call.step(&self.world, true)];
                let scenario = self.machine.scenario("call", &[], &[steps])?;
                Ok(Ops {
                    ops: scenario.machine.programs[0].clone(),
                    lists: scenario.machine.frame_lists,
                })
            }
        }
    }

    /// Ends the run that waits.
    fn leave(&mut self) {
        if let Some((session, ..)) = self.live.take() {
            session.end();
        }
    }

    /// The answers that lead to a node, in order.
    fn history(&self, node: u16) -> Vec<u16> {
        let mut nodes = Vec::new();
        let mut at = node;
        while usize::from(at) >= usize::from(self.threads) {
            nodes.push(at);
            at = self.nodes[usize::from(at)].parent;
        }
        nodes.reverse();
        nodes
    }

    /// What a thread does after an answer, by the code itself.
    fn event(&mut self, parent: u16, seat: u8, reply: &Reply) -> Result<Event, Trouble> {
        let live = match self.live.take() {
            Some((session, at, answers)) if at == parent => Some((session, answers)),
            other => {
                self.live = other;
                self.leave();
                None
            }
        };
        let history = match &live {
            Some(_) => Vec::new(),
            None => self.history(parent),
        };
        let (session, from) = live.unwrap_or_else(|| {
            self.runs += 1;
            let nodes = history.iter().map(|at| &self.nodes[usize::from(*at)]);
            let script = nodes.map(|node| (node.seat, node.reply.clone())).collect();
            let (world, code) = (self.world.clone(), self.code.clone());
            let workers = self.workers.clone();
            (
                Session::begin(world, code, script, self.threads, self.patience, workers),
                0,
            )
        });
        session.answer(seat, reply.clone());
        let answers = from + history.len() + 1;
        let mut events = session.events(from, answers);
        let last = (events.len() == answers - from)
            .then(|| events.pop())
            .flatten();
        // It goes the way that is known first.
        for (at, event) in history.iter().zip(events) {
            let known = &self.nodes[usize::from(*at)];
            let next = Self::next(event);
            if next.as_ref() != Ok(&known.next) {
                session.end();
                return Err(match next {
                    Ok(next) => Trouble::NotDeterministic(words(&known.next), words(&next)),
                    Err(trouble) => trouble,
                });
            }
        }
        let Some(event) = last else {
            session.end();
            return Err(Trouble::Silent(words(
                &self.nodes[usize::from(parent)].next,
            )));
        };
        self.live = Some((session, parent, answers));
        Ok(event)
    }

    fn next(event: Event) -> Result<Next, Trouble> {
        match event {
            Event::Asked(asked) => Ok(Next::Asks(asked)),
            Event::Ended(end) => Ok(Next::Ends(end)),
            Event::Mistake(what, place) => Err(Trouble::Mistake(what, place)),
        }
    }

    /// Adds what the code does after an answer of which that is not known, and after those that can be only one.
    fn extend(&mut self, model: &mut Model, unknown: &Unknown) -> Result<(), Trouble> {
        let seat = unknown.thread;
        let (mut ways, mut order) = (unknown.ways, unknown.order);
        let mut reply = Reply {
            answer: unknown.answer,
            pages: unknown.pages.clone(),
        };
        // Where the call before was a claim: its operation, its node.
        let mut claim: Option<(u16, u16)> = None;
        loop {
            let parent = if self.is_ordered() { order } else { ways };
            let event = self.event(parent, seat, &reply)?;
            let next = Self::next(event)?;
            if let Some(to) = self.known_state(&next, parent) {
                // The run stands at another node of which the same is to be said; its history is another.
                self.leave();
                add_way(model, ways, [0, 0], &reply, to);
                return Ok(());
            }
            let node = self.nodes.len();
            let calls = self.nodes[usize::from(parent)].calls + 1;
            let program = &model.programs[usize::from(seat)];
            let to = program.len();
            let most = usize::from(self.most_histories) + usize::from(self.threads);
            if node >= most.min(usize::from(MOST_OPS)) || to + 3 > usize::from(MOST_OPS) {
                return Err(Trouble::TooMany);
            }
            if calls > self.most_calls {
                return Err(self.endless(parent, seat));
            }
            let mut collects = self.nodes[usize::from(parent)].collects;
            let mut ops = Vec::new();
            if let Next::Asks(asked) = &next {
                ops = self
                    .ops(model, &asked.call)
                    .map_err(|error| Trouble::Mistake(error.to_string(), asked.at()))?;
                let resumed = self.taken.resumes;
                let is_new = self.learn(&asked.call, &ops, collects);
                // What is ahead of a stop counts in schedules too.
                if is_new && self.counts_on_it || resumed != self.taken.resumes {
                    return Err(Trouble::News);
                }
                collects |= asked.call.collects();
            }
            let node = node as u16;
            if let Some((_, at, _)) = &mut self.live {
                *at = node;
            }
            self.nodes.push(Node {
                parent,
                seat,
                reply: reply.clone(),
                next: next.clone(),
                calls,
                is_last: false,
                collects,
            });
            let (ops, to, goes_on) = match &next {
                Next::Asks(asked) => {
                    ops.push(Op::Proceed(op::Proceed { ways: node }));
                    (ops, to as u16, !self.is_ordered() && asked.call.is_plain())
                }
                Next::Ends(End::Done) if seat > 0 => (Vec::new(), Way::END, false),
                Next::Ends(End::Done) => {
                    // A claim behind which nothing comes is the end.
                    if let Some((at, claim)) = claim {
                        let finish = Op::Finish(op::Finish { postcopy: false });
                        model.programs[0][usize::from(at)] = finish;
                        self.nodes[usize::from(claim)].is_last = true;
                    }
                    (vec![Op::Leave, AFTER_THE_END], to as u16, false)
                }
                Next::Ends(_) => (vec![Op::Panic, AFTER_THE_END], to as u16, false),
            };
            let is_claim =
                matches!(&next, Next::Asks(asked) if asked.call == Call::AssertCopyIsWhole);
            claim = (is_claim && !self.is_ordered()).then_some((to, node));
            if !ops.is_empty() {
                self.node_at[usize::from(seat)].insert(to, node);
            }
            model.ahead[usize::from(seat)].extend(ops.iter().map(|_| self.ahead()));
            let settled = self.is_settled(node);
            if let Some(code) = &mut model.code {
                code.settled[usize::from(seat)].extend(ops.iter().map(|_| settled));
            }
            model.programs[usize::from(seat)].extend(ops);
            if let Some(code) = &mut model.code {
                code.ways.resize(self.nodes.len(), Vec::new());
            }
            let orders = if self.threads > 1 {
                [order, node]
            } else {
                [0, 0]
            };
            add_way(model, ways, orders, &reply, to);
            if let Next::Asks(Asked {
                call: Call::DependsOnlyOn(state),
                place,
            }) = &next
            {
                self.same.insert((*state, place, collects), to);
            }
            if !goes_on {
                return Ok(());
            }
            (ways, order, reply) = (node, 0, Reply::PLAIN);
        }
    }

    /// The operation at which code stood before that depends on the same alone. Of several threads each depends on the others too.
    fn known_state(&self, next: &Next, parent: u16) -> Option<u16> {
        let collects = self.nodes[usize::from(parent)].collects;
        match next {
            Next::Asks(Asked {
                call: Call::DependsOnlyOn(state),
                place,
            }) if !self.is_ordered() => self.same.get(&(*state, *place, collects)).copied(),
            _ => None,
        }
    }

    /// What a thread goes round in that has made too many calls.
    fn endless(&self, node: u16, seat: u8) -> Trouble {
        let all: Vec<String> = self
            .history(node)
            .into_iter()
            .map(|at| &self.nodes[usize::from(at)])
            .filter(|known| known.seat == seat)
            .map(|known| words(&known.next))
            .collect();
        let count = all.len() as u32;
        // The shortest end that comes three times in a row; else the last calls.
        let round = (1..=all.len() / 3)
            .find(|len| {
                let tail = &all[all.len() - 3 * len..];
                (0..2 * len).all(|at| tail[at] == tail[at + len])
            })
            .unwrap_or(all.len().min(8));
        Trouble::Endless(all[all.len() - round..].to_vec(), count)
    }

    /// The steps of each thread on a way through the program, as a scenario has them.
    pub(crate) fn steps(&self, way: &[Vec<u16>]) -> Vec<Vec<Value>> {
        let mut threads = Vec::new();
        for (seat, ops) in way.iter().enumerate().take(usize::from(self.threads)) {
            if seat > 0 && ops.is_empty() {
                break;
            }
            let mut steps = Vec::new();
            if seat > 0 {
                steps.push(Call::Begin(seat as u8).step(&self.world, false));
            }
            for to in ops {
                let Some(&node) = self.node_at[seat].get(to) else {
                    continue;
                };
                steps.push(self.step(node));
            }
            threads.push(steps);
        }
        threads
    }

    fn step(&self, node: u16) -> Value {
        let asked = match &self.nodes[usize::from(node)].next {
            Next::Asks(asked) => asked,
            Next::Ends(End::Done) => return json!({ "step": "leave" }),
            Next::Ends(End::Failed(_)) => return json!({ "step": "panic" }),
            Next::Ends(End::Panicked(_, place)) => {
                return json!({ "step": "panic", "at": place });
            }
        };
        let mut step = match self.nodes[usize::from(node)].is_last {
            true => json!({ "step": "finish" }),
            false => asked.call.step(&self.world, false),
        };
        step["at"] = asked.at().into();
        step
    }

    /// How the code ended on a way through the program, where it did not end well: by thread, what it said, and where.
    pub(crate) fn bad_end(&self, way: &[Vec<u16>]) -> Option<End> {
        way.iter().enumerate().find_map(|(seat, ops)| {
            let node = self.node_at.get(seat)?.get(ops.last()?)?;
            match &self.nodes[usize::from(*node)].next {
                Next::Ends(end) if *end != End::Done => Some(end.clone()),
                _ => None,
            }
        })
    }

    /// A tree of which nothing is known but what the code is taken not to do, in this one's place.
    pub(crate) fn begin_anew(&mut self, other: Self) {
        let (runs, taken) = (self.runs, std::mem::take(&mut self.taken));
        let counts = self.counts_on_it;
        *self = other;
        (self.runs, self.taken, self.counts_on_it) = (runs, taken, counts);
    }

    /// Histories that are known.
    pub(crate) fn histories(&self) -> usize {
        self.nodes.len() - usize::from(self.threads)
    }
}

impl Grow for Tree {
    fn grow(&mut self, model: &mut Model, unknown: &[Unknown]) -> bool {
        for unknown in unknown {
            if let Err(trouble) = self.extend(model, unknown) {
                self.leave();
                self.trouble = Some(trouble);
                return false;
            }
        }
        true
    }
}

fn add_way(model: &mut Model, ways: u16, order: [u16; 2], reply: &Reply, to: u16) {
    if let Some(code) = &mut model.code {
        code.ways[usize::from(ways)].push(Way {
            answer: reply.answer,
            pages: reply.pages.clone(),
            order,
            to,
        });
    }
}

/// Whether there is the same to say of two operations beforehand.
fn are_alike(one: &Op, other: &Op) -> bool {
    let writer = |op: &Op| match op {
        Op::KernelWrite(op) => Some(op.writer),
        _ => None,
    };
    std::mem::discriminant(one) == std::mem::discriminant(other) && writer(one) == writer(other)
}

fn words(next: &Next) -> String {
    match next {
        Next::Asks(asked) => asked.to_string(),
        Next::Ends(End::Done) => "its end".to_owned(),
        Next::Ends(End::Failed(error)) => format!("its end with an error: {error}"),
        Next::Ends(End::Panicked(said, place)) => format!("a panic at {place}: {said}"),
    }
}

/// The operation with the lists of frames that it names by other numbers.
fn relist(mut op: Op, lists: &[u16]) -> Op {
    let list = |at: &mut u16| *at = lists[usize::from(*at)];
    match &mut op {
        Op::ClearDirtyLog(op) => {
            if let op::ClearMask::List(at) = &mut op.mask {
                list(at);
            }
        }
        Op::KernelWrite(op) => list(&mut op.frames),
        _ => {}
    }
    op
}
