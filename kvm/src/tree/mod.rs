//! What is known of the code under test: its histories of calls and answers, as a tree.
//!
//! The code is deterministic and learns of the world by answers alone, so that a history of answers says where it stands. A node is a
//! call with all that led to it; its number is where the code's thread is in its program. The code is run again from its begin only for
//! a history that is new; one run is kept waiting at its last call, and goes on where the next new history is behind that.
//!
//! With one thread the answers to its own calls are the history. With several, which may share memory, it is the order of all
//! threads' answers.

pub(crate) mod alike;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dirtysim_check::code::{Grow, Unknown};
use dirtysim_check::scenario::Scenario;
use dirtysim_model::machine::{Ahead, Code as Program, Machine as Model, Op, Outlook, Way};
use dirtysim_model::op;
use dirtysim_model::words::{Frame, HostPage};
use serde_json::{Value, json};

use crate::machine::{Machine, MachineError};
use crate::session::call::{Asked, Call, Reply, Site};
use crate::session::{Apart, Code, End, Event, Session, Threads};
use crate::taken::Taken;
use crate::workers::Workers;
use crate::world::World;
use alike::{Alike, At, Known};

/// Operations that a program has at most: their numbers have 16 bits, and the last is [`Way::END`].
pub(crate) const MOST_OPS: u16 = u16::MAX - 1;

/// How long code may go on without a call, unless it is said.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

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
    /// Two histories were taken for one, and were not alike: all that is known has to be learned again.
    Unlike,
    /// The code said that it depends on the same alone as before, there, and then did the second in place of the first.
    DependsOnMore {
        place: String,
        first: String,
        again: String,
    },
}

/// A history, and what the code does after it.
pub(crate) struct Node {
    /// The history before its last answer.
    pub(crate) parent: u16,
    /// The thread that was answered, and with what.
    pub(crate) seat: u8,
    pub(crate) reply: Reply,
    /// What that thread does then.
    pub(crate) next: Next,
    /// The first operation of what it does.
    op: u16,
    /// Calls of the history.
    calls: u32,
    /// A claim behind which nothing comes.
    is_last: bool,
    /// Where its thread stands, as [`Taken`] has it; an end is nowhere.
    pub(crate) place: Option<u16>,
    /// Calls of its thread that make a phase, its own included.
    phase: u32,
    /// What the code holds by then.
    pub(crate) holds: Holds,
}

/// What the code was given, and has not sent; and what it has never sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Holds {
    pub(crate) hand: Vec<HostPage>,
    /// Where claims on the way are judged: pages that were never sent.
    pub(crate) unsent: Vec<HostPage>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    Asks(Asked),
    Ends(End),
}

/// The operations of a call, with the lists of frames that they name.
#[derive(Clone)]
struct Ops {
    ops: Vec<Op>,
    lists: Vec<Vec<Frame>>,
}

/// The histories that are known.
pub(crate) struct Tree {
    machine: Machine,
    pub(crate) world: Arc<World>,
    code: Code,
    threads: Threads,
    /// By seat, the threads that share no memory.
    apart: Vec<Option<Apart>>,
    pub(crate) most_calls: u32,
    pub(crate) most_histories: u16,
    /// How long the code may go on without a call.
    pub(crate) patience: Duration,
    pub(crate) taken: Taken,
    /// Whether what is new to [`Taken`] is trouble, since it is counted on.
    pub(crate) counts_on_it: bool,
    /// Whether histories are taken for one that look alike.
    pub(crate) guesses: bool,
    /// Whether the claims on the way are judged.
    pub(crate) on_the_way: bool,
    pub(crate) nodes: Vec<Node>,
    /// By thread and operation, the node of which it is the call.
    pub(crate) node_at: Vec<HashMap<u16, u16>>,
    ops: HashMap<Call, Ops>,
    pub(crate) alike: Alike,
    /// A run that waits, where it does, and how many answers it has had.
    live: Option<(Arc<Session>, At, usize)>,
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
        threads: Threads,
        most_calls: u32,
        on_the_way: bool,
    ) -> Result<(Self, Scenario), MachineError> {
        machine.try_build()?;
        let mut scenario = machine.scenario(name, claims, &[vec!["finish".into()]])?;
        let world = Arc::new(World::of(machine, &scenario));
        let mut tree = Self {
            machine: machine.clone(),
            world,
            code,
            threads,
            apart: vec![None; usize::from(threads.count)],
            most_calls,
            most_histories: MOST_OPS,
            patience: PATIENCE,
            taken: Taken::default(),
            counts_on_it: false,
            guesses: false,
            on_the_way,
            nodes: Vec::new(),
            node_at: vec![HashMap::new(); usize::from(threads.count)],
            ops: HashMap::new(),
            alike: Alike::default(),
            live: None,
            workers: Arc::default(),
            runs: 0,
            trouble: None,
        };
        let model = &mut scenario.machine;
        // The longest list decides how far an index goes.
        let longest = model.slots.iter().max_by_key(|slot| slot.npages);
        let longest = longest.map(|slot| slot.frames().collect());
        model.frame_lists = longest.into_iter().collect();
        model.programs.clear();
        model.ahead.clear();
        let mut outlook = Vec::new();
        let slots = model.slots.iter();
        let mut all: Vec<HostPage> = slots.flat_map(|slot| slot.hosts()).collect();
        all.sort_unstable();
        // Slots may share memory.
        all.dedup();
        let holds = Holds {
            hand: Vec::new(),
            unsent: if on_the_way { all } else { Vec::new() },
        };
        for seat in 0..threads.count {
            let begin = Call::Begin(seat);
            let location = Site::caller();
            let place = tree.taken.place(seat, &begin, location, 0);
            tree.nodes.push(Node {
                parent: 0,
                seat,
                reply: Reply::PLAIN,
                next: Next::Asks(Asked {
                    call: begin,
                    place: location,
                }),
                op: 0,
                calls: 0,
                is_last: false,
                place,
                phase: 0,
                holds: holds.clone(),
            });
            let wait = (seat > 0).then(|| Op::WaitSignal(seat - 1));
            let proceed = Op::Proceed(op::Proceed {
                ways: u16::from(seat),
            });
            let program: Vec<Op> = wait.into_iter().chain([proceed]).collect();
            // Behind the last operation too: another one may come to stand there.
            model
                .ahead
                .push(vec![tree.ahead(&holds); program.len() + 1]);
            outlook.push(vec![Taken::ANYTHING; program.len()]);
            model.programs.push(program);
        }
        if tree.is_ordered() {
            // A thread that stands for the order of the others.
            model.programs.push(Vec::new());
            model.ahead.push(Vec::new());
            outlook.push(Vec::new());
        }
        let proceed = Op::Proceed(op::Proceed { ways: 0 });
        let finish = Op::Finish(op::Finish { postcopy: false });
        tree.taken.asks = vec![proceed, finish, Op::Checkpoint, Op::Panic, Op::Leave];
        model.code = Some(Program {
            may: tree.taken.asks.clone(),
            most: u16::MAX,
            outlooks: vec![Outlook::default()],
            outlook,
            ways: vec![Vec::new(); usize::from(threads.count)],
            order: tree.is_ordered().then_some(threads.count),
        });
        Ok((tree, scenario))
    }

    /// What is ahead of code that may do anything that it is not taken not to do: a copy of all memory, unless the claims on the
    /// way are judged; then every page that was never sent is still to be.
    fn ahead(&self, holds: &Holds) -> Ahead {
        Ahead {
            full_copy: !self.on_the_way,
            declared: self.world.frames(&holds.unsent),
            resume: self.taken.resumes,
            ..Ahead::default()
        }
    }

    /// Takes nothing for granted of what the code does.
    #[cfg(test)]
    pub(crate) fn expect_everything(&mut self) {
        self.taken.resumes = true;
    }

    /// Takes in what the code does at a node that is new: whether it is more than was counted on.
    fn learn(&mut self, node: u16, ops: &[Op]) -> bool {
        let known = &self.nodes[usize::from(node)];
        let is_end = matches!(known.next, Next::Ends(_));
        let (parent, seat, place) = (known.parent, known.seat, known.place);
        // The wait holds back what comes behind it.
        let waits = ops.iter().position(|op| *op == Op::WaitStopped);
        let before = &ops[..waits.unwrap_or(ops.len())];
        let (mut bits, mut is_new) = self.taken.bits(before);
        is_new |= self.taken.bits(ops).1;
        if before.contains(&Op::Checkpoint) {
            // It may turn out to be the last.
            bits |= self
                .taken
                .bits(&[Op::Finish(op::Finish { postcopy: false })])
                .0;
        }
        if let Some(place) = place {
            is_new |= self.taken.see(place, bits, true);
        }
        is_new | self.spread(parent, seat, bits, !is_end)
    }

    /// The same, of all places from which a thread comes to a node without a wait until the vCPUs have stopped.
    pub(crate) fn spread(&mut self, from: u16, seat: u8, bits: u128, stops: bool) -> bool {
        let mut is_new = false;
        let mut todo = vec![from];
        let mut seen = HashSet::new();
        while let Some(at) = todo.pop() {
            if !seen.insert(at) {
                continue;
            }
            let is_root = self.is_root(at);
            // Where the order of all begins, each begins.
            let at = if is_root { u16::from(seat) } else { at };
            let node = &self.nodes[usize::from(at)];
            if node.seat == seat {
                if matches!(&node.next, Next::Asks(asked) if asked.call == Call::PauseVcpus) {
                    continue;
                }
                if let Some(place) = node.place {
                    is_new |= self.taken.see(place, bits, stops);
                }
            }
            if !is_root {
                todo.push(node.parent);
                todo.extend(self.alike.ways_to(at));
            }
        }
        is_new
    }

    /// Tells the machine what the code is now known to do.
    pub(crate) fn tell(&mut self, model: &mut Model) {
        for ahead in model.ahead.iter_mut().flatten() {
            ahead.resume = self.taken.resumes;
        }
        let Some(code) = &mut model.code else { return };
        code.may.clone_from(&self.taken.asks);
        code.outlooks = self.taken.outlooks();
        for (seat, at) in self.node_at.iter().enumerate() {
            let mut node = seat as u16;
            for (op, outlook) in code.outlook[seat].iter_mut().enumerate() {
                node = at.get(&(op as u16)).copied().unwrap_or(node);
                *outlook = self.outlook(node, &model.programs[seat][op]);
            }
        }
    }

    fn outlook(&self, node: u16, op: &Op) -> u16 {
        let place = self.nodes[usize::from(node)].place;
        place.map_or(Taken::ANYTHING, |place| self.taken.outlook(place, op))
    }

    pub(crate) fn is_ordered(&self) -> bool {
        self.threads.count > 1 && !self.threads.apart
    }

    /// Whether a node is where a thread begins.
    pub(crate) fn is_root(&self, node: u16) -> bool {
        node < u16::from(self.threads.count)
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
        let first_channel = self.threads.count - 1;
        match *call {
            // These are by number here, and by name in a text.
            Call::Begin(seat) => plain(Op::WaitSignal(seat - 1)),
            Call::Spawn(seat) | Call::SpawnApart(seat, _) => plain(Op::Signal(seat - 1)),
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
    pub(crate) fn leave(&mut self) {
        if let Some((session, ..)) = self.live.take() {
            session.end();
        }
    }

    /// The answers that lead somewhere, in order: of which thread, which, and the node that stands for it there.
    fn history(&self, mut at: At) -> Vec<(u8, Reply, u16)> {
        let mut answers = Vec::new();
        loop {
            let (before, reply, node) = match at {
                At::Node(node) if self.is_root(node) => break,
                At::Node(node) => {
                    let known = &self.nodes[usize::from(node)];
                    (At::Node(known.parent), &known.reply, node)
                }
                At::Member(member) => {
                    let member = self.alike.member(member);
                    (member.before, &member.reply, member.node)
                }
            };
            answers.push((self.nodes[usize::from(node)].seat, reply.clone(), node));
            at = before;
        }
        answers.reverse();
        answers
    }

    /// The node at which somebody is.
    fn node(&self, at: At) -> u16 {
        match at {
            At::Node(node) => node,
            At::Member(member) => self.alike.member(member).node,
        }
    }

    /// What a thread does after an answer, by the code itself.
    pub(crate) fn event(&mut self, parent: At, seat: u8, reply: &Reply) -> Result<Event, Trouble> {
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
            let script = history
                .iter()
                .map(|(seat, reply, _)| (*seat, reply.clone()));
            let apart = self.apart[usize::from(seat)].as_ref();
            let code = apart.map_or_else(|| self.code.clone(), Apart::code);
            let first = if apart.is_some() { seat } else { 0 };
            let world = self.world.clone();
            let workers = self.workers.clone();
            (
                Session::begin(
                    world,
                    code,
                    first,
                    script.collect(),
                    self.threads,
                    self.patience,
                    workers,
                ),
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
        for ((.., at), event) in history.iter().zip(events) {
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
            let node = self.node(parent);
            return Err(Trouble::Silent(words(&self.nodes[usize::from(node)].next)));
        };
        self.live = Some((session, parent, answers));
        Ok(event)
    }

    /// The run that waits stands there now.
    pub(crate) fn is_live_at(&mut self, now: At) {
        if let Some((_, at, _)) = &mut self.live {
            *at = now;
        }
    }

    pub(crate) fn next(event: Event) -> Result<Next, Trouble> {
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
            let event = self.event(At::Node(parent), seat, &reply)?;
            let next = Self::next(event)?;
            let holds = self.holds(parent, &reply);
            let phase = self.phase(parent, seat, &next);
            let known = Known::of(self, seat, &next, phase, &holds);
            let same = known.as_ref().and_then(|known| self.alike.node(known));
            if let Some(same) = same.filter(|same| !self.leads(*same, parent)) {
                // The run stands at another node of which the same is to be said; its history is another.
                self.leave();
                let to = self.nodes[usize::from(same)].op;
                add_way(model, ways, [0, 0], &reply, to);
                return self.take_for(parent, &reply, same);
            }
            let node = self.nodes.len();
            let calls = self.nodes[usize::from(parent)].calls + 1;
            let program = &model.programs[usize::from(seat)];
            let to = program.len();
            let most = usize::from(self.most_histories) + usize::from(self.threads.count);
            if node >= most.min(usize::from(MOST_OPS)) || to + 3 > usize::from(MOST_OPS) {
                return Err(Trouble::TooMany);
            }
            if calls > self.most_calls {
                return Err(self.endless(parent, seat));
            }
            let mut ops = Vec::new();
            let mut place = None;
            if let Next::Asks(asked) = &next {
                ops = self
                    .ops(model, &asked.call)
                    .map_err(|error| Trouble::Mistake(error.to_string(), asked.at()))?;
                place = self.taken.place(seat, &asked.call, asked.place, phase);
                if let Call::SpawnApart(seat, apart) = &asked.call {
                    let known = self.apart[usize::from(*seat)].get_or_insert(apart.clone());
                    if known != apart {
                        let what = format!(
                            "thread {seat} is another function here than on another way: start the same in the same order, or by `spawn`"
                        );
                        return Err(Trouble::Mistake(what, asked.at()));
                    }
                }
                // These two count in schedules too: what is ahead of a stop, and what the claims on the way say.
                let resumes = asked.call == Call::ResumeVcpus;
                let stores = self.on_the_way && matches!(asked.call, Call::StorePage(_));
                let is_news = resumes && !self.taken.resumes || stores && !self.taken.stores;
                self.taken.resumes |= resumes;
                self.taken.stores |= stores;
                if is_news {
                    return Err(Trouble::News);
                }
            }
            let node = node as u16;
            self.is_live_at(At::Node(node));
            self.nodes.push(Node {
                parent,
                seat,
                reply: reply.clone(),
                next: next.clone(),
                op: to as u16,
                calls,
                is_last: false,
                place,
                phase,
                holds,
            });
            // What is known has to be whole before anybody hears of it.
            let is_news = self.learn(node, &ops) && self.counts_on_it;
            if let Some(known) = known {
                self.alike.keep(known, node);
            }
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
            claim = (is_claim && seat == 0 && !self.is_ordered()).then_some((to, node));
            if !ops.is_empty() {
                self.node_at[usize::from(seat)].insert(to, node);
            }
            let ahead = self.ahead(&self.nodes[usize::from(node)].holds);
            let places = &mut model.ahead[usize::from(seat)];
            // That behind the last operation was there already.
            places.pop();
            places.extend(std::iter::repeat_n(ahead, ops.len() + 1));
            if let Some(code) = &mut model.code {
                let outlooks = ops.iter().map(|op| self.outlook(node, op));
                code.outlook[usize::from(seat)].extend(outlooks);
            }
            model.programs[usize::from(seat)].extend(ops);
            if let Some(code) = &mut model.code {
                code.ways.resize(self.nodes.len(), Vec::new());
            }
            let orders = if self.is_ordered() {
                [order, node]
            } else {
                [0, 0]
            };
            add_way(model, ways, orders, &reply, to);
            self.alike.has_way(parent, &reply, node);
            if is_news {
                return Err(Trouble::News);
            }
            if !goes_on {
                return Ok(());
            }
            (ways, order, reply) = (node, 0, Reply::PLAIN);
        }
    }

    /// What the code holds after one more answer.
    fn holds(&self, parent: u16, reply: &Reply) -> Holds {
        let before = &self.nodes[usize::from(parent)];
        let mut holds = before.holds.clone();
        if let Next::Asks(Asked {
            call: Call::SendPage(page),
            ..
        }) = &before.next
            && let Some(host) = self.world.host(*page)
        {
            if let Some(at) = holds.hand.iter().position(|held| *held == host) {
                holds.hand.remove(at);
            }
            holds.unsent.retain(|unsent| *unsent != host);
        }
        holds.hand.extend(&reply.pages);
        holds
    }

    /// Calls of a thread that make a phase, with the one that comes next.
    fn phase(&self, parent: u16, seat: u8, next: &Next) -> u32 {
        let mut at = parent;
        while self.nodes[usize::from(at)].seat != seat && !self.is_root(at) {
            at = self.nodes[usize::from(at)].parent;
        }
        let before = &self.nodes[usize::from(at)];
        let before = if before.seat == seat { before.phase } else { 0 };
        before + u32::from(matches!(next, Next::Asks(asked) if asked.call.makes_a_phase()))
    }

    /// What a thread goes round in that has made too many calls.
    fn endless(&self, node: u16, seat: u8) -> Trouble {
        let all: Vec<String> = self
            .history(At::Node(node))
            .into_iter()
            .map(|(.., at)| &self.nodes[usize::from(at)])
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
        for (seat, ops) in way.iter().enumerate().take(usize::from(self.threads.count)) {
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
        let (counts, guesses) = (self.counts_on_it, self.guesses);
        *self = other;
        (self.runs, self.taken) = (runs, taken);
        (self.counts_on_it, self.guesses) = (counts, guesses);
    }

    /// Histories that are known.
    pub(crate) fn histories(&self) -> usize {
        self.nodes.len() - usize::from(self.threads.count)
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
        if let Err(trouble) = self.check_alike() {
            self.leave();
            self.trouble = Some(trouble);
            return false;
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

pub(crate) fn words(next: &Next) -> String {
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
