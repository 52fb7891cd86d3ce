//! Boards that are to be visited, which all threads take from.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::board::{BoardAt, Rank};

/// A queue in the order of ranks. Which thread takes what, and when, changes how often boards are visited, and not what
/// becomes of them.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// Somebody may take something, or need wait no longer.
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    boards: BTreeMap<Rank, Vec<BoardAt>>,
    /// Visits that may still begin.
    left: usize,
    /// Bytes by which they may grow what is known before no more begin.
    room: i64,
    /// Visits that go on, which may queue more boards.
    going_on: usize,
    /// Threads that wait for one of them.
    waiting: usize,
}

impl Inner {
    fn push(&mut self, rank: Rank, at: BoardAt) {
        self.boards.entry(rank).or_default().push(at);
    }

    fn pop(&mut self) -> Option<(Rank, BoardAt)> {
        let mut first = self.boards.first_entry()?;
        let rank = *first.key();
        let at = first.get_mut().pop()?;
        if first.get().is_empty() {
            first.remove();
        }
        Some((rank, at))
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A poisoned lock means that another worker has panicked, which ends the search anyway.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, rank: Rank, at: BoardAt) {
        self.lock().push(rank, at);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().boards.is_empty()
    }

    /// Lets so many visits begin; but none once they have taken more than `room` bytes.
    pub(super) fn begin(&self, visits: usize, room: u64) {
        let mut inner = self.lock();
        inner.left = visits;
        inner.room = i64::try_from(room).unwrap_or(i64::MAX);
    }

    /// A board to visit; none when no more visits may begin, or none will.
    pub(super) fn take(&self) -> Option<(Rank, BoardAt)> {
        self.take_from(self.lock())
    }

    /// The same, after a visit that took so many bytes and queues some boards.
    pub(super) fn take_after(
        &self,
        bytes: i64,
        queued: &mut Vec<(Rank, BoardAt)>,
    ) -> Option<(Rank, BoardAt)> {
        let mut inner = self.lock();
        inner.going_on -= 1;
        inner.room = inner.room.saturating_sub(bytes);
        for (rank, at) in queued.drain(..) {
            inner.push(rank, at);
        }
        if inner.waiting > 0 {
            self.changed.notify_all();
        }
        self.take_from(inner)
    }

    fn take_from(&self, mut inner: MutexGuard<'_, Inner>) -> Option<(Rank, BoardAt)> {
        loop {
            if inner.left == 0 || inner.room < 0 {
                return None;
            }
            if let Some(next) = inner.pop() {
                inner.left -= 1;
                inner.going_on += 1;
                return Some(next);
            }
            if inner.going_on == 0 {
                return None;
            }
            inner.waiting += 1;
            let waits = self.changed.wait(inner);
            inner = waits.unwrap_or_else(PoisonError::into_inner);
            inner.waiting -= 1;
        }
    }

    /// Whoever waits while the guard's thread panics waits no longer.
    pub(super) fn guard(&self) -> Guard<'_> {
        Guard(self)
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> u64 {
        let inner = self.lock();
        let boards: usize = inner.boards.values().map(Vec::capacity).sum();
        let ranks = inner.boards.len() * (size_of::<Rank>() + size_of::<Vec<BoardAt>>());
        (ranks + boards * size_of::<BoardAt>()) as u64
    }
}

/// See [`Queue::guard`].
pub(super) struct Guard<'q>(&'q Queue);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.begin(0, 0);
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_come_in_the_order_of_their_ranks_and_no_more_than_may() {
        let first = Rank::default();
        let mut later = first;
        later.come_from(first, true);
        let queue = Queue::default();
        queue.push(later, 1);
        queue.begin(2, 0);
        assert_eq!(queue.take(), Some((later, 1)));
        let mut queued = vec![(later, 2), (first, 3), (first, 4)];
        assert_eq!(queue.take_after(0, &mut queued), Some((first, 4)));
        assert_eq!(
            queue.take_after(0, &mut queued),
            None,
            "two visits were to begin"
        );
        assert!(!queue.is_empty());
        queue.begin(9, 100);
        assert_eq!(queue.take(), Some((first, 3)));
        assert_eq!(queue.take_after(0, &mut queued), Some((later, 2)));
        assert_eq!(
            queue.take_after(0, &mut queued),
            None,
            "nothing is left, and nobody adds to it"
        );
        assert!(queue.is_empty());
    }

    #[test]
    fn no_visit_begins_when_there_is_no_room_left() {
        let rank = Rank::default();
        let queue = Queue::default();
        for at in 0..3 {
            queue.push(rank, at);
        }
        queue.begin(9, 100);
        assert_eq!(queue.take(), Some((rank, 2)));
        assert_eq!(queue.take_after(100, &mut Vec::new()), Some((rank, 1)));
        assert_eq!(queue.take_after(1, &mut vec![(rank, 7)]), None);
        assert!(!queue.is_empty(), "what it queues is kept");
    }

    #[test]
    fn whoever_waits_is_let_go_when_another_panics() {
        let queue = Queue::default();
        queue.push(Rank::default(), 0);
        queue.begin(9, 100);
        std::thread::scope(|scope| {
            assert!(queue.take().is_some());
            let waits = scope.spawn(|| queue.take());
            let panics = scope.spawn(|| {
                let _guard = queue.guard();
                panic!("a visit goes wrong");
            });
            assert!(panics.join().is_err());
            assert_eq!(waits.join().ok(), Some(None));
        });
    }
}
