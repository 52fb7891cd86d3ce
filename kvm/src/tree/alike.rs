//! Histories of answers after which the code does the same.
//!
//! Each history would be searched by itself, though the code may long have forgotten what it was answered. So two of them are taken for one where they
//! look alike: the same call comes next, from the same line, in the same phase, with the same pages in hand, in the order in which they came. That is a guess, and is checked:
//! for each history that was taken for another, the code is run along every way that is known from there, and has to make the same
//! calls. Where it does not, the two are told apart, and what was built on them is thrown away. So a search is of the code, and of nothing
//! else: whatever way leads through the program was gone by the code itself.
//!
//! What the code says by `depends_only_on` is checked likewise, from each place where it says so to the next; what is found wrong there is told.

use std::collections::{HashMap, HashSet};
use std::mem::discriminant;

use super::{Holds, Next, Tree, Trouble, words};
use crate::session::call::{Asked, Call, Reply, Site};

/// So many calls along known ways are worth it in a search; then nothing is guessed any more, and what the code says is believed.
const MOST_MEMBERS: usize = 20_000;
/// The same for schedules of seeds, of which each is quick.
const MOST_MEMBERS_OF_SEEDS: usize = 500;

/// Somewhere in what is known: at a node by its own history, or by another one that was taken for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Node(u16),
    Member(u32),
}

/// What two histories have in common that are taken for one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Known {
    seat: u8,
    call: Call,
    place: Site,
    phase: u32,
    holds: Holds,
}

/// A history that was taken for a node's, or goes on from such a one.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) before: At,
    pub(crate) reply: Reply,
    pub(crate) node: u16,
    /// The node that its begin was taken for.
    root: u16,
}

/// Which histories were taken for which, and what is still to be checked of them.
#[derive(Default)]
pub(crate) struct Alike {
    nodes: HashMap<Known, u16>,
    /// By node, the nodes from which a way leads to it beside its own.
    parents: HashMap<u16, Vec<u16>>,
    members: Vec<Member>,
    /// By node, those that are there.
    at: HashMap<u16, Vec<u32>>,
    /// By node, the ways that lead on from it.
    ways: HashMap<u16, Vec<(Reply, u16)>>,
    /// Members, and the ways that each has still to go.
    todo: Vec<(u32, Reply, u16)>,
}

impl Known {
    /// What a history is to be known by, if it may be taken for another one.
    pub(crate) fn of(
        tree: &Tree,
        seat: u8,
        next: &Next,
        phase: u32,
        holds: &Holds,
    ) -> Option<Self> {
        // Of threads that share memory each depends on the others too.
        let Next::Asks(Asked { call, place }) = next else {
            return None;
        };
        if tree.is_ordered() {
            return None;
        }
        let mut holds = holds.clone();
        let said = matches!(call, Call::DependsOnlyOn(_));
        if said {
            holds.hand.clear();
        } else {
            let is_unlike = tree.taken.unlike.contains(&(discriminant(call), *place));
            if !tree.guesses || tree.taken.merges_nothing || is_unlike {
                return None;
            }
        }
        Some(Self {
            seat,
            call: call.clone(),
            place: *place,
            phase: if said { 0 } else { phase },
            holds,
        })
    }
}

impl Alike {
    pub(crate) fn node(&self, known: &Known) -> Option<u16> {
        self.nodes.get(known).copied()
    }

    pub(crate) fn keep(&mut self, known: Known, node: u16) {
        self.nodes.insert(known, node);
    }

    pub(crate) fn member(&self, member: u32) -> &Member {
        &self.members[member as usize]
    }

    pub(crate) fn ways_to(&self, node: u16) -> impl Iterator<Item = u16> {
        self.parents.get(&node).into_iter().flatten().copied()
    }

    /// A way leads from a node to another: whoever is there has to go it too.
    pub(crate) fn has_way(&mut self, from: u16, reply: &Reply, to: u16) {
        let ways = self.ways.entry(from).or_default();
        ways.push((reply.clone(), to));
        let here = self.at.get(&from).into_iter().flatten();
        let todo = here.map(|member| (*member, reply.clone(), to));
        self.todo.extend(todo);
    }

    /// Somebody is at a node, and has to go every way from there.
    fn arrive(&mut self, member: Member) -> At {
        let (number, node) = (self.members.len() as u32, member.node);
        self.members.push(member);
        self.at.entry(node).or_default().push(number);
        let ways = self.ways.get(&node).into_iter().flatten();
        let todo = ways.map(|(reply, to)| (number, reply.clone(), *to));
        self.todo.extend(todo);
        At::Member(number)
    }
}

impl Tree {
    /// Whether a way leads from a node to another, or they are one: what goes round is walked, and not checked for ever.
    pub(crate) fn leads(&self, from: u16, to: u16) -> bool {
        let mut todo = vec![to];
        let mut seen = HashSet::new();
        while let Some(at) = todo.pop() {
            if at == from {
                return true;
            }
            if !self.is_root(at) && seen.insert(at) {
                todo.push(self.nodes[usize::from(at)].parent);
                todo.extend(self.alike.ways_to(at));
            }
        }
        false
    }

    /// A history is taken for that of a node.
    pub(crate) fn take_for(
        &mut self,
        parent: u16,
        reply: &Reply,
        node: u16,
    ) -> Result<(), Trouble> {
        self.alike.parents.entry(node).or_default().push(parent);
        let known = &self.nodes[usize::from(node)];
        let (seat, place) = (known.seat, known.place);
        let mut is_news = false;
        if let Some(place) = place {
            let (ops, stops) = self.taken.from(place);
            is_news = self.spread(parent, seat, ops, stops) && self.counts_on_it;
        }
        self.alike.has_way(parent, reply, node);
        if self.alike.members.len() >= self.most_members() {
            self.too_many(node)?;
        } else {
            self.alike.arrive(Member {
                before: At::Node(parent),
                reply: reply.clone(),
                node,
                root: node,
            });
        }
        // What is known has to be whole before anybody hears of it.
        if is_news { Err(Trouble::News) } else { Ok(()) }
    }

    fn most_members(&self) -> usize {
        match self.guesses {
            true => MOST_MEMBERS,
            false => MOST_MEMBERS_OF_SEEDS,
        }
    }

    /// Nothing is guessed any more; what the code says is believed.
    fn too_many(&mut self, root: u16) -> Result<(), Trouble> {
        if self.said(root).is_some() {
            return Ok(());
        }
        self.taken.merges_nothing = true;
        Err(Trouble::Unlike)
    }

    /// Where the code says at a node what it depends on.
    fn said(&self, node: u16) -> Option<Site> {
        match &self.nodes[usize::from(node)].next {
            Next::Asks(Asked {
                call: Call::DependsOnlyOn(_),
                place,
            }) => Some(*place),
            _ => None,
        }
    }

    /// Has the code go the ways that it was taken to go.
    pub(crate) fn check_alike(&mut self) -> Result<(), Trouble> {
        while let Some((member, reply, to)) = self.alike.todo.pop() {
            let known = self.nodes[usize::from(to)].next.clone();
            let (root, seat) = (
                self.alike.member(member).root,
                self.nodes[usize::from(to)].seat,
            );
            let next = match self.event(At::Member(member), seat, &reply) {
                Ok(event) => Self::next(event),
                Err(trouble @ Trouble::NotDeterministic(..)) => return Err(trouble),
                Err(trouble) => Err(trouble),
            };
            if next.as_ref() != Ok(&known) {
                return Err(self.not_alike(root, &known, next));
            }
            // From there on it is what the code says there that is checked.
            if self.said(to).is_some() {
                self.leave();
                continue;
            }
            if self.alike.members.len() >= self.most_members() {
                self.too_many(root)?;
                continue;
            }
            let now = self.alike.arrive(Member {
                before: At::Member(member),
                reply,
                node: to,
                root,
            });
            self.is_live_at(now);
        }
        Ok(())
    }

    /// Two histories were taken for one, and are not.
    fn not_alike(&mut self, root: u16, known: &Next, next: Result<Next, Trouble>) -> Trouble {
        let again = match next {
            Ok(next) => words(&next),
            Err(Trouble::Mistake(what, place)) => format!("{what}, at {place}"),
            Err(_) => "no call any more".to_owned(),
        };
        if let Some(place) = self.said(root) {
            return Trouble::DependsOnMore {
                place: place.to_string(),
                first: words(known),
                again,
            };
        }
        if let Next::Asks(asked) = &self.nodes[usize::from(root)].next {
            let unlike = (discriminant(&asked.call), asked.place);
            self.taken.unlike.insert(unlike);
        }
        Trouble::Unlike
    }
}
