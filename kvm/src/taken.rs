//! What code is taken not to do until it does.
//!
//! A search looks at less where it need not expect everything, and of code nobody knows what is still to come. So it counts on what was seen: code
//! asks for no other operation, and from a place on it does what it did from there before. What was walked before the code does
//! something else was walked as it is, so that the search comes to where it does, hears of it, and begins anew with what it knows now.

use std::collections::{HashMap, HashSet};
use std::mem::{Discriminant, discriminant};

use dirtysim_model::machine::{Op, Outlook};

use crate::session::call::{Call, Site};

/// Places that are told apart.
const MOST_PLACES: u16 = 60_000;

/// Where a thread stands, as far as what it may do next goes: a call, where it is made, and after how many others that make a phase.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) seat: u8,
    pub(crate) call: Discriminant<Call>,
    pub(crate) location: Site,
    pub(crate) phase: u32,
}

/// What was seen from a place on, before the wait until the vCPUs have stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// Bits of [`Taken::asks`].
    ops: u128,
    /// Whether every way led to such a wait.
    stops: bool,
}

/// What is counted on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Operations that it has asked for, one of each kind: it asks for no other.
    pub(crate) asks: Vec<Op>,
    /// It has let the guest run again: else it never does.
    pub(crate) resumes: bool,
    /// It has stored to guest memory by itself, and holds that in its variables.
    pub(crate) stores: bool,
    places: HashMap<Place, u16>,
    seen: Vec<Seen>,
    /// As many of the places are counted on.
    told: usize,
    /// Where two histories alike to look at were not alike: they are told apart.
    pub(crate) unlike: HashSet<(Discriminant<Call>, Site)>,
    /// No two are taken for one.
    pub(crate) merges_nothing: bool,
}

impl Taken {
    /// What is ahead where nobody knows: anything.
    pub(crate) const ANYTHING: u16 = 0;
    /// What is ahead of the wait until the vCPUs have stopped: it holds everything else back.
    const NOTHING: u16 = 1;

    /// The number of a place; none where there are too many.
    pub(crate) fn place(
        &mut self,
        seat: u8,
        call: &Call,
        location: Site,
        phase: u32,
    ) -> Option<u16> {
        let place = Place {
            seat,
            call: discriminant(call),
            location,
            phase,
        };
        if let Some(number) = self.places.get(&place) {
            return Some(*number);
        }
        let number = u16::try_from(self.seen.len())
            .ok()
            .filter(|number| *number < MOST_PLACES)?;
        self.places.insert(place, number);
        self.seen.push(Seen {
            ops: 0,
            stops: true,
        });
        Some(number)
    }

    /// Operations as bits; and whether one of them is new.
    pub(crate) fn bits(&mut self, ops: &[Op]) -> (u128, bool) {
        let mut is_new = false;
        let mut bits = 0;
        for op in ops {
            let known = self.asks.iter().position(|known| are_alike(known, op));
            let at = known.unwrap_or_else(|| {
                is_new = true;
                self.asks.push(*op);
                self.asks.len() - 1
            });
            // There are fewer kinds of operations than bits.
            bits |= 1_u128.checked_shl(at as u32).unwrap_or(u128::MAX);
        }
        (bits, is_new)
    }

    /// Takes in what was seen from a place on; whether that is more than was counted on.
    pub(crate) fn see(&mut self, place: u16, ops: u128, stops: bool) -> bool {
        let seen = &mut self.seen[usize::from(place)];
        let before = seen.clone();
        seen.ops |= ops;
        seen.stops &= stops;
        *seen != before && usize::from(place) < self.told
    }

    /// What was seen from a place on.
    pub(crate) fn from(&self, place: u16) -> (u128, bool) {
        let seen = &self.seen[usize::from(place)];
        (seen.ops, seen.stops)
    }

    /// Counts on what was seen so far: the outlooks, by number.
    pub(crate) fn outlooks(&mut self) -> Vec<Outlook> {
        self.told = self.seen.len();
        let anything = Outlook {
            ops: self.asks.clone(),
            stops: false,
        };
        let of_places = self.seen.iter().map(|seen| {
            let is_seen = |at: &usize| seen.ops >> at & 1 != 0;
            let ops = (0..self.asks.len().min(128))
                .filter(is_seen)
                .map(|at| self.asks[at]);
            Outlook {
                ops: ops.collect(),
                stops: seen.stops,
            }
        });
        [anything, Outlook::default()]
            .into_iter()
            .chain(of_places)
            .collect()
    }

    /// The outlook at an operation of a call that is made at a place.
    pub(crate) fn outlook(&self, place: u16, op: &Op) -> u16 {
        match op {
            Op::WaitStopped => Self::NOTHING,
            _ if usize::from(place) < self.told => 2 + place,
            _ => Self::ANYTHING,
        }
    }
}

/// Whether there is the same to say of two operations beforehand.
fn are_alike(one: &Op, other: &Op) -> bool {
    let writer = |op: &Op| match op {
        Op::KernelWrite(op) => Some(op.writer),
        _ => None,
    };
    discriminant(one) == discriminant(other) && writer(one) == writer(other)
}
