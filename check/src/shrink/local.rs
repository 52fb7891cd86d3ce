//! Shrinking by trial: drop, merge, lower, until nothing helps. For schedules of any size.

use dirtysim_model::state::layout::Layout;
use dirtysim_model::transition::{Actor, Choice, Step};
use dirtysim_model::words::{Frame, HostPage};

use super::schedule::{Item, Matching, Replayer, length};
use super::{Budget, Progress, Watch};

/// A schedule that is being shrunk.
pub(super) struct Local<'a, 'b, 'w, L: Layout> {
    replayer: &'b mut Replayer<'a, L>,
    best: Vec<Step>,
    items: Vec<Item>,
    budget: Budget,
    watch: &'b mut Watch<'w>,
}

/// What is made smaller: blocks, steps, then the numbers of pages.
fn size(steps: &[Step]) -> (usize, usize, Vec<u32>) {
    let (blocks, count) = length(steps);
    let pages = steps.iter().filter_map(|step| page(step.choice)).collect();
    (blocks, count, pages)
}

fn page(choice: Choice) -> Option<u32> {
    match choice {
        Choice::Store(frame) | Choice::Load(frame) | Choice::Land(frame) => Some(frame.0),
        Choice::Page(host) | Choice::SendFails(host) => Some(host.0),
        _ => None,
    }
}

fn with_page(choice: Choice, from: u32, to: u32) -> Choice {
    let swap = |page| {
        if page == from {
            to
        } else if page == to {
            from
        } else {
            page
        }
    };
    match choice {
        Choice::Store(frame) => Choice::Store(Frame(swap(frame.0))),
        Choice::Load(frame) => Choice::Load(Frame(swap(frame.0))),
        Choice::Land(frame) => Choice::Land(Frame(swap(frame.0))),
        Choice::Page(host) => Choice::Page(HostPage(swap(host.0))),
        Choice::SendFails(host) => Choice::SendFails(HostPage(swap(host.0))),
        other => other,
    }
}

/// The blocks of a schedule, as ranges.
fn block_ranges(items: &[Item]) -> Vec<std::ops::Range<usize>> {
    let mut at = 0;
    items
        .chunk_by(|a, b| a.step.actor == b.step.actor)
        .map(|block| {
            let range = at..at + block.len();
            at = range.end;
            range
        })
        .collect()
}

impl<'a, 'b, 'w, L: Layout> Local<'a, 'b, 'w, L> {
    /// `steps` breaks the claim.
    pub(super) fn new(
        replayer: &'b mut Replayer<'a, L>,
        steps: Vec<Step>,
        budget: Budget,
        watch: &'b mut Watch<'w>,
    ) -> Self {
        let items = replayer.items(&steps);
        Self {
            replayer,
            best: steps,
            items,
            budget,
            watch,
        }
    }

    /// Shrinks to a fixed point; whether it was reached within the budget, and the schedule.
    pub(super) fn shrink(mut self) -> (bool, Vec<Step>) {
        loop {
            let before = self.best.len();
            let improved = self.drop_actors()
                | self.drop_blocks()
                | self.drop_steps()
                | self.merge_blocks()
                | self.lower_pages();
            if self.exhausted() {
                return (false, self.best);
            }
            debug_assert!(self.best.len() <= before || improved);
            if !improved {
                return (true, self.best);
            }
        }
    }

    fn exhausted(&self) -> bool {
        self.watch.stopped || self.watch.progress.attempts >= self.budget.attempts
    }

    /// Tries a changed schedule; true when it is better and was taken.
    fn attempt(&mut self, candidate: &[Item]) -> bool {
        for matching in [Matching::Choice, Matching::Name] {
            if self.exhausted() {
                return false;
            }
            self.watch.attempt();
            let Some(steps) = self.replayer.replay(candidate, matching) else {
                continue;
            };
            if size(&steps) < size(&self.best) {
                let (blocks, count) = length(&steps);
                self.watch.found(blocks, count);
                self.items = self.replayer.items(&steps);
                self.best = steps;
                return true;
            }
        }
        false
    }

    fn without(&self, range: std::ops::Range<usize>) -> Vec<Item> {
        let mut left = self.items[..range.start].to_vec();
        left.extend_from_slice(&self.items[range.end..]);
        left
    }

    fn actors(&self) -> Vec<Actor> {
        let mut actors: Vec<Actor> = self.best.iter().map(|step| step.actor).collect();
        actors.sort_unstable();
        actors.dedup();
        actors
    }

    fn drop_actors(&mut self) -> bool {
        let mut improved = false;
        for actor in self.actors().into_iter().rev() {
            let left: Vec<Item> = self
                .items
                .iter()
                .filter(|item| item.step.actor != actor)
                .copied()
                .collect();
            improved |= self.attempt(&left);
        }
        improved
    }

    /// Delta debugging over blocks: ranges of them, halved until single ones.
    fn drop_blocks(&mut self) -> bool {
        let mut improved = false;
        let mut span = block_ranges(&self.items).len().div_ceil(2);
        while span > 0 {
            let mut first = 0;
            loop {
                let ranges = block_ranges(&self.items);
                if first >= ranges.len() || self.exhausted() {
                    break;
                }
                let last = (first + span).min(ranges.len()) - 1;
                let left = self.without(ranges[first].start..ranges[last].end);
                if self.attempt(&left) {
                    improved = true;
                } else {
                    first += 1;
                }
            }
            span /= 2;
        }
        improved
    }

    /// Delta debugging over steps. Ends with single ones, so that no one step can be dropped.
    fn drop_steps(&mut self) -> bool {
        let mut improved = false;
        let mut span = (self.items.len() / 4).max(1);
        while span > 0 {
            let mut first = 0;
            while first < self.items.len() && !self.exhausted() {
                let end = (first + span).min(self.items.len());
                let left = self.without(first..end);
                if self.attempt(&left) {
                    improved = true;
                } else {
                    first += 1;
                }
            }
            span /= 2;
        }
        improved
    }

    /// Moves a block to its actor's block before or after it.
    fn merge_blocks(&mut self) -> bool {
        let mut improved = false;
        let mut at = 0;
        loop {
            let ranges = block_ranges(&self.items);
            if at >= ranges.len() || self.exhausted() {
                return improved;
            }
            let actor = |range: &std::ops::Range<usize>| self.items[range.start].step.actor;
            let own = actor(&ranges[at]);
            let before = ranges[..at].iter().rposition(|range| actor(range) == own);
            let after = ranges[at + 1..]
                .iter()
                .position(|range| actor(range) == own);
            let places = [
                before.map(|index| ranges[index].end),
                after.map(|index| ranges[at + 1 + index].start),
            ];
            let mut moved_any = false;
            for place in places.into_iter().flatten() {
                let moved = self.moved(ranges[at].clone(), place);
                if self.attempt(&moved) {
                    moved_any = true;
                    break;
                }
            }
            improved |= moved_any;
            at += usize::from(!moved_any);
        }
    }

    fn moved(&self, range: std::ops::Range<usize>, to: usize) -> Vec<Item> {
        let block = &self.items[range.clone()];
        let mut moved = Vec::with_capacity(self.items.len());
        for (index, item) in self.items.iter().enumerate() {
            if index == to {
                moved.extend_from_slice(block);
            }
            if !range.contains(&index) {
                moved.push(*item);
            }
        }
        if to >= self.items.len() {
            moved.extend_from_slice(block);
        }
        moved
    }

    /// Exchanges a page for a lower one, everywhere.
    fn lower_pages(&mut self) -> bool {
        let mut improved = false;
        let mut pages: Vec<u32> = self
            .best
            .iter()
            .filter_map(|step| page(step.choice))
            .collect();
        pages.sort_unstable();
        pages.dedup();
        for &from in &pages {
            let lower = (0..from.min(64)).filter(|page| *page < from);
            for to in lower {
                let swapped: Vec<Item> = self
                    .items
                    .iter()
                    .map(|item| Item {
                        step: Step {
                            actor: item.step.actor,
                            choice: with_page(item.step.choice, from, to),
                        },
                        ..*item
                    })
                    .collect();
                if self.attempt(&swapped) {
                    improved = true;
                    break;
                }
                if self.exhausted() {
                    return improved;
                }
            }
        }
        improved
    }
}

/// Kept in one place so that every part of the work reports alike.
impl Watch<'_> {
    pub(super) fn attempt(&mut self) {
        self.progress.attempts += 1;
        if self.progress.attempts.is_multiple_of(256) {
            self.tell();
        }
    }

    pub(super) fn found(&mut self, blocks: usize, steps: usize) {
        self.progress.blocks = blocks;
        self.progress.steps = steps;
    }

    pub(super) fn tell(&mut self) {
        let progress: Progress = self.progress;
        if !(self.callback)(progress) {
            self.stopped = true;
        }
    }
}
