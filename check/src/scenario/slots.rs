//! What a text's steps do to memslots. Where a thread's own text does not tell what one is when a step runs, because another thread
//! changes it, a repetition does or an attempt that failed may have, the program looks when it is there.

use super::machine::Parts;
use super::node::{Kind, Node};
use super::vocabulary::Word;

/// Memslots, one bit each, by template; a scenario has no more of them than pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Slots(u64);

impl Slots {
    pub(super) fn has(self, slot: usize) -> bool {
        self.0 >> slot & 1 != 0
    }
}

/// The memslots of which something may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Changed {
    /// Whether they are there, or where.
    pub(super) life: Slots,
    /// Whether they log.
    pub(super) log: Slots,
}

impl Changed {
    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            life: Slots(self.life.0 | other.life.0),
            log: Slots(self.log.0 | other.log.0),
        }
    }
}

/// The memslots' names, and what all threads together may do to them.
#[derive(Debug)]
pub(super) struct Lives {
    names: Vec<String>,
    /// Those that may be there at some time, and those that may be absent.
    there: u64,
    absent: u64,
}

impl Lives {
    pub(super) fn new(parts: &Parts, threads: &[&[Node]]) -> Self {
        let names = parts.machine.slots.iter().map(|slot| slot.name.clone());
        let bits = |wanted: bool| {
            let slots = parts.slots.iter().enumerate();
            slots.fold(0, |bits, (slot, state)| {
                bits | u64::from(state.present == wanted) << slot
            })
        };
        let mut lives = Self {
            names: names.collect(),
            there: bits(true),
            absent: bits(false),
        };
        let (mut added, mut removed) = (0, 0);
        for steps in threads {
            visit(steps, &mut |word, name| match word {
                Word::AddSlot => added |= lives.named(name).unwrap_or(u64::MAX),
                Word::RemoveSlot => removed |= lives.named(name).unwrap_or(0),
                Word::Region => {
                    added |= lives.named(name).unwrap_or(0);
                    removed |= lives.named(name).unwrap_or(0);
                }
                _ => {}
            });
        }
        lives.there |= added;
        lives.absent |= removed;
        lives
    }

    /// The memslot of a name, if one is named.
    fn named(&self, name: Option<&str>) -> Option<u64> {
        let name = name?;
        let at = self.names.iter().position(|known| known == name);
        Some(at.map_or(0, |slot| 1 << slot))
    }

    /// What steps may change.
    pub(super) fn changed(&self, steps: &[Node]) -> Changed {
        let mut changed = Changed::default();
        visit(steps, &mut |word, name| {
            let named = self.named(name);
            let (life, log) = match word {
                Word::EnableLogging | Word::DisableLogging => (0, named.unwrap_or(self.there)),
                Word::AddSlot => {
                    let slots = named.unwrap_or(self.absent);
                    (slots, slots)
                }
                Word::RemoveSlot => (named.unwrap_or(0), named.unwrap_or(0)),
                Word::MoveSlot => (named.unwrap_or(0), 0),
                Word::Region => (named.unwrap_or(0), named.unwrap_or(0)),
                _ => return,
            };
            changed = changed.and(Changed {
                life: Slots(life),
                log: Slots(log),
            });
        });
        changed
    }
}

/// Calls `found` with each word of some steps and of the steps in them, and with the memslot that is named beside it.
fn visit(steps: &[Node], found: &mut dyn FnMut(Word, Option<&str>)) {
    let known = |text: &str| {
        let mut words = Word::ALL.iter();
        words.find(|(word, _)| *word == text).map(|(_, word)| *word)
    };
    for step in steps {
        match &step.kind {
            Kind::Text(text) => {
                if let Some(word) = known(text) {
                    found(word, None);
                }
            }
            Kind::Table(rows) => {
                let text = |wanted: &str| {
                    rows.iter()
                        .find_map(|(key, value)| match (&key.kind, &value.kind) {
                            (Kind::Text(key), Kind::Text(text)) if key == wanted => {
                                Some(text.as_str())
                            }
                            _ => None,
                        })
                };
                if let Some(word) = text("step").and_then(known) {
                    found(word, text("slot"));
                }
                for (_, value) in rows {
                    if let Kind::List(steps) = &value.kind {
                        visit(steps, found);
                    }
                }
            }
            _ => {}
        }
    }
}
