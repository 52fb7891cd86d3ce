//! Which pages the lists of a scenario of any number of pages mean.

use std::collections::BTreeMap;
use std::ops::Range;

use dirtysim_model::machine::SlotTemplate;
use dirtysim_model::words::Frame;

use super::reader::{Result, Source};

/// The most times that a page is, or is not, what a text says: each doubles the machines that are searched.
pub(crate) const MOST_CHOICES: usize = 5;

/// Which pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// All of them.
    All,
    /// Each, or not: of each step that says so, others.
    Any,
    /// Those of a kind: of each step and writer that names it, the same.
    Kind(u8),
}

/// Which pages, of one memslot or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) which: Which,
    pub(crate) slot: Option<usize>,
}

/// What the lists of a scenario of any number of pages mean.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Meant {
    /// The kinds' names.
    pub(crate) kinds: Vec<String>,
    /// What stands in lists. While the text is read a frame that no machine has stands for each.
    wanted: Vec<Wanted>,
    /// By the machine's lists; those that stay as they are mean nothing.
    pub(crate) lists: Vec<Vec<Wanted>>,
    /// By vCPU, and by device.
    pub(crate) vcpus: Vec<Vec<Wanted>>,
    pub(crate) devices: Vec<Vec<Wanted>>,
    /// Those that are always dirty.
    pub(crate) always_dirty: Vec<Wanted>,
    /// The one page that a vCPU's record is in, by vCPU, and that an operation is about, by thread and place.
    pub(crate) records: Vec<Option<Wanted>>,
    pub(crate) ops: BTreeMap<(usize, usize), Wanted>,
}

/// The first of the frames that stand for what is wanted.
const FIRST: Frame = Frame(1 << 16);

impl Meant {
    /// What stands where one page is named: a name of the page, or one of a memslot.
    pub(super) fn one(
        &mut self,
        source: Source<'_>,
        slots: &[SlotTemplate],
        span: &Range<usize>,
        word: &str,
    ) -> Result<Frame> {
        let frame = self.read(source, slots, span, word)?;
        let Wanted { which, slot } = self.wanted[(frame - FIRST) as usize];
        match (which, slot) {
            (Which::Kind(_), None) if slots.len() > 1 => source.error(
                span,
                format!("`{word}`, and there are several memslots"),
                "write \"slot:NAME\": one page is of one memslot",
            ),
            (Which::Kind(_), _) => Ok(frame),
            (Which::All | Which::Any, _) => source.error(
                span,
                format!("`{word}` where one page is named"),
                "write a name: of any number of pages, that one",
            ),
        }
    }

    /// All pages.
    pub(super) fn all(&mut self) -> Frame {
        self.note(Which::All, None)
    }

    /// Each page, or not.
    pub(super) fn any(&mut self) -> Frame {
        self.note(Which::Any, None)
    }

    /// What a word in a list means: `any`, a kind, either of a memslot.
    pub(super) fn read(
        &mut self,
        source: Source<'_>,
        slots: &[SlotTemplate],
        span: &Range<usize>,
        word: &str,
    ) -> Result<Frame> {
        let (slot, kind) = match word.split_once(':') {
            None => (None, word),
            Some((name, kind)) => match slots.iter().position(|slot| slot.name == name) {
                Some(slot) => (Some(slot), kind),
                None => {
                    let names: Vec<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
                    return source.error(
                        span,
                        format!("unknown slot `{name}`"),
                        format!("known: {}", names.join(", ")),
                    );
                }
            },
        };
        if kind == "any" {
            return Ok(self.note(Which::Any, slot));
        }
        let is_name = super::check_name(kind).is_ok();
        if !is_name || kind.chars().all(|digit| digit.is_ascii_digit()) {
            return source.error(
                span,
                format!("`{word}` with any number of pages"),
                "write \"any\", or a name for a kind of pages: each page is of it, or is not; \"slot:any\", \"slot:KIND\": of a memslot",
            );
        }
        let known = self.kinds.iter().position(|known| known == kind);
        let index = known.unwrap_or(self.kinds.len());
        if index >= MOST_CHOICES {
            return source.error(
                span,
                format!("more than {} kinds of pages", MOST_CHOICES),
                "write fewer: each is tried with the tracked page and without",
            );
        }
        if known.is_none() {
            self.kinds.push(kind.to_owned());
        }
        Ok(self.note(Which::Kind(index as u8), slot))
    }

    fn note(&mut self, which: Which, slot: Option<usize>) -> Frame {
        let wanted = Wanted { which, slot };
        let known = self.wanted.iter().position(|known| *known == wanted);
        let index = known.unwrap_or_else(|| {
            self.wanted.push(wanted);
            self.wanted.len() - 1
        });
        FIRST + index as u32
    }

    /// What is meant by frames of the text.
    pub(super) fn of(&self, frames: &[Frame]) -> Vec<Wanted> {
        let wanted = frames.iter().filter(|frame| **frame >= FIRST);
        wanted
            .map(|frame| self.wanted[(*frame - FIRST) as usize])
            .collect()
    }

    /// What is meant by a frame of the text; none, if it is of the machine itself.
    pub(super) fn of_one(&self, frame: Frame) -> Option<Wanted> {
        self.of(&[frame]).pop()
    }
}
