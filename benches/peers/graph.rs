//! The model's graph as peers see it: states are the packed words, edges are the steps of the one transition function.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use dirtysim::scenario::Scenario;
use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::{self, Invariants};
use dirtysim_model::reduce::pack::Packing;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Small;
use dirtysim_model::transition::{apply, for_each_step};

/// A packed state of `N` words.
pub type Packed<const N: usize> = [u64; N];

/// A scenario's graph.
#[derive(Clone)]
pub struct Graph {
    /// The machine.
    pub machine: Machine,
    /// The state in which it begins, which is also the template of every unpacked one.
    pub start: State<Small>,
    packing: Packing,
}

impl Graph {
    /// The graph of a scenario that fits the small layout.
    pub fn new(scenario: &Scenario) -> Self {
        let start = scenario
            .start::<Small>()
            .expect("the scenarios here fit the small layout");
        Self {
            machine: scenario.machine.clone(),
            packing: Packing::new(&scenario.machine, &start),
            start,
        }
    }

    /// Words of a packed state.
    pub fn words(&self) -> usize {
        self.packing.words()
    }

    /// Bits of a packed state.
    pub fn bits(&self) -> u32 {
        self.packing.bits()
    }

    /// The first state.
    pub fn first<const N: usize>(&self) -> Packed<N> {
        self.pack(&mut self.start.clone())
    }

    /// Packs.
    #[inline]
    pub fn pack<const N: usize>(&self, state: &mut State<Small>) -> Packed<N> {
        let mut words = [0; N];
        self.packing.pack(&self.machine, state, &mut words);
        words
    }

    /// Unpacks into `state`, which came from [`Graph::start`].
    #[inline]
    pub fn unpack<const N: usize>(&self, words: &Packed<N>, state: &mut State<Small>) {
        self.packing.unpack(&self.machine, words, state);
    }
}

/// What a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Distinct states.
    pub states: u64,
    /// Steps taken, those to known states included.
    pub transitions: u64,
    /// Steps to the state that is farthest from the start.
    pub depth: u64,
    /// Claims broken by some step.
    pub broken: Invariants,
    /// Steps to the nearest state in which a claim is broken; 0 where none is.
    pub nearest: u64,
}

/// Mixes words; as good as the fast hashes that searches use.
#[derive(Default)]
pub struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The plainest search there is: breadth first, level by level, every state in a hash set.
pub fn breadth_first<const N: usize>(graph: &Graph) -> Counts {
    let mut seen: HashSet<Packed<N>, BuildHasherDefault<Mixer>> = HashSet::default();
    let first = graph.first::<N>();
    seen.insert(first);
    let mut level = vec![first];
    let mut counts = Counts {
        states: 1,
        transitions: 0,
        depth: 0,
        broken: Invariants::NONE,
        nearest: 0,
    };
    let mut depth = 0;
    let mut state = graph.start.clone();
    while !level.is_empty() {
        counts.depth = depth;
        let mut next_level = Vec::new();
        for words in &level {
            graph.unpack(words, &mut state);
            for_each_step(&graph.machine, &state, |step| {
                let mut after = state.clone();
                let effect = apply(&graph.machine, &mut after, step);
                counts.transitions += 1;
                let broken = oracle::check(&graph.machine, &after, effect);
                let packed = graph.pack(&mut after);
                counts.broken.union(broken);
                if counts.nearest == 0 && !broken.is_empty() {
                    counts.nearest = depth + 1;
                }
                if seen.insert(packed) {
                    next_level.push(packed);
                }
            });
        }
        level = next_level;
        depth += 1;
    }
    counts.states = seen.len() as u64;
    counts
}

/// Calls a function that is generic in the words of a state.
#[macro_export]
macro_rules! by_words {
    ($graph:expr, $function:ident($($argument:expr),*)) => {
        match $graph.words() {
            1 => $function::<1>($($argument),*),
            2 => $function::<2>($($argument),*),
            3 => $function::<3>($($argument),*),
            4 => $function::<4>($($argument),*),
            5 => $function::<5>($($argument),*),
            6 => $function::<6>($($argument),*),
            7 => $function::<7>($($argument),*),
            8 => $function::<8>($($argument),*),
            words => panic!("a state of {words} words: too large for a comparison"),
        }
    };
}
