//! `pages = "any"`: which of them a list means; what is refused with it, and why.

use std::ops::Range;

use dirtysim_model::machine::SlotTemplate;
use dirtysim_model::words::Frame;

use super::machine::Parts;
use super::reader::{Result, Source};
use crate::search::tracked;

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
}

/// The first of the frames that stand for what is wanted.
const FIRST: Frame = Frame(1 << 16);

impl Meant {
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
        if index >= tracked::MOST_CHOICES {
            return source.error(
                span,
                format!("more than {} kinds of pages", tracked::MOST_CHOICES),
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
    fn of(&self, frames: &[Frame]) -> Vec<Wanted> {
        let wanted = frames.iter().filter(|frame| **frame >= FIRST);
        wanted
            .map(|frame| self.wanted[(*frame - FIRST) as usize])
            .collect()
    }
}

/// Refuses a scenario that cannot be about any number of pages; puts pages of the machine by which it is searched in place of what is
/// wanted.
pub(super) fn check(source: Source<'_>, parts: &mut Parts) -> Result<()> {
    let Some(span) = parts.any_pages.clone() else {
        return Ok(());
    };
    const HELP: &str = "write a number in pages; docs/proofs.md says what is argued for any number";
    let (machine, meant) = (&mut parts.machine, &mut parts.meant);
    let meanings = |frames: &mut Vec<Frame>| {
        let of = meant.of(frames);
        if !of.is_empty() {
            *frames = vec![tracked::TRACKED, tracked::FAR];
        }
        of
    };
    let lists = machine.frame_lists.iter_mut().map(meanings).collect();
    let vcpus = machine.vcpus.iter_mut();
    let vcpus = vcpus.map(|vcpu| meanings(&mut vcpu.frames)).collect();
    let devices = machine.devices.iter_mut();
    let devices = devices.map(|device| meanings(&mut device.frames)).collect();
    (meant.lists, meant.vcpus, meant.devices) = (lists, vcpus, devices);
    let comes = parts.slots.len() > 1 && parts.slots.iter().any(|slot| !slot.present);
    let why = comes.then_some("a memslot that comes, beside others, is not argued");
    let why = why.or_else(|| tracked::stands_in_the_way(&parts.machine, &parts.meant));
    if let Some(why) = why {
        return source.error(&span, format!("any number of pages: {why}"), HELP);
    }
    for (program, origins) in parts.machine.programs.iter().zip(&parts.origins) {
        for (op, origin) in program.iter().zip(origins) {
            if let Some(why) = tracked::not_argued(&parts.machine, op) {
                let span = origin.as_ref().unwrap_or(&span);
                return source.error(span, format!("any number of pages: {why}"), HELP);
            }
        }
    }
    Ok(())
}
