//! What a search may take: states, bytes, time, and the patience of whoever watches. Every pass over a scenario asks here.

use std::time::{Duration, Instant};

use super::{Limit, Options, Progress, Watch, memory};

/// The limits of a search, from its first pass to its last.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    max_states: Option<u64>,
    bytes: u64,
    deadline: Option<Instant>,
    watch: Watch<'a>,
}

impl<'a> Limits<'a> {
    /// Time counts from now on.
    #[must_use]
    pub fn new(options: &Options, watch: Watch<'a>) -> Self {
        Self {
            max_states: options.max_states,
            bytes: memory::for_a_search(options.max_memory_bytes),
            deadline: options
                .max_time
                .and_then(|time| Instant::now().checked_add(time)),
            watch,
        }
    }

    /// Those of a search that goes on after another that knows so many states, none of which it knows itself.
    #[must_use]
    pub fn after(self, states: u64) -> Self {
        Self {
            max_states: self.max_states.map(|most| most.saturating_sub(states)),
            ..self
        }
    }

    /// The bytes that there may be.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a search that knows so many states is at its limit once its level is done.
    #[must_use]
    pub fn are_enough(&self, states: u64) -> bool {
        self.max_states.is_some_and(|most| states >= most)
    }

    /// Whether so many states are more than there may be even within a level: a tenth more than the limit.
    #[must_use]
    pub fn are_too_many(&self, states: u64) -> bool {
        self.max_states
            .is_some_and(|most| states > most.saturating_add(most / 10))
    }

    /// The limit of memory, time or patience that was reached, after telling whoever watches.
    pub fn reached(&self, progress: &Progress) -> Option<Limit> {
        if progress.bytes > self.bytes {
            return Some(Limit::Memory);
        }
        self.is_over(Duration::ZERO, progress)
    }

    /// The same without memory, for what takes none of its own, and so much later.
    pub fn is_over(&self, later: Duration, progress: &Progress) -> Option<Limit> {
        let late = |deadline: Instant| Instant::now() >= deadline + later;
        if self.deadline.is_some_and(late) {
            return Some(Limit::Time);
        }
        (!(self.watch)(progress)).then_some(Limit::Interrupt)
    }
}
