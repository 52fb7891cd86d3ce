//! `[protocol]`: what each thread of the VMM does, step by step.

use std::ops::Range;

use dirtysim_model::machine::{Arch, Mmu, OnRingFull, WriterLog};
use dirtysim_model::op::{self, ClearMask, HarvestWay, Into, KernelWriter, Op, SlotIs, Until};
use dirtysim_model::words::Frame;

use super::error::nearest;
use super::machine::{Parts, SlotState, is_any};
use super::node::{Kind, Node};
use super::reader::{self, Result, Source, Table};
use super::slots::{Changed, Lives};
use super::vocabulary::{Word, by_kind};
use super::writers::{LOGS, Writers};
use crate::search::tracked::{self, Part};

/// The most operations that a program has once its repetitions are written out.
const MOST_OPS: usize = 250;

/// How a harvest can go wrong, in the words of scenarios.
const WAYS: [(&str, HarvestWay); 5] = [
    ("right", HarvestWay::Right),
    ("skip-first", HarvestWay::SkipFirst),
    ("write-zero", HarvestWay::WriteZero),
    ("unread", HarvestWay::Unread),
    ("one-too-many", HarvestWay::OneTooMany),
];

/// The memslots that a step is about where it names none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    There,
    Absent,
    Logging,
}

/// The writer of one program.
struct Writer<'a> {
    source: Source<'a>,
    parts: &'a mut Parts,
    writers: &'a Writers,
    slots: Vec<SlotState>,
    signals: &'a mut Vec<Signal>,
    lives: &'a Lives,
    /// What other threads may change of memslots.
    others: Changed,
    program: Vec<Op>,
    /// Where the text asks for each operation; none for what the repetition around it adds.
    origins: Vec<Option<Range<usize>>>,
    /// Where the VMM's source has each, as far as the text says so; and what it says of the step in work.
    places: Vec<Option<String>>,
    place: Option<String>,
    /// The slot and the part of it that `each_chunk` is at.
    chunk: Option<(usize, Part)>,
    /// Inside a `try`: the operations at which an error leads to its `on_error`.
    tried: Option<Vec<usize>>,
    /// How many threads the protocol has.
    threads: u64,
    /// How often what is written now is written out.
    rounds: u64,
}

/// How a memslot is taken in parts.
#[derive(Clone, Copy)]
enum Chunk {
    /// So many pages each.
    Pages(u32),
    /// Any number of parts, of any number of whole words each.
    Any,
}

/// A signal between threads, and the places that name it first.
#[derive(Default)]
struct Signal {
    name: String,
    signalled: Option<Range<usize>>,
    waited_for: Option<Range<usize>>,
}

pub(super) fn read(
    source: Source<'_>,
    top: &mut Table<'_>,
    parts: &mut Parts,
    writers: &Writers,
) -> Result<()> {
    let Some(node) = top.get("protocol") else {
        let span = top.span.clone();
        return source.error(
            &(span.start..span.start),
            "no [protocol]",
            "write [protocol] with steps = [ \"enable-logging\", … , \"finish\" ]",
        );
    };
    let mut table = Table::new(source, node, "[protocol]")?;
    let policies = [("reenter", OnRingFull::Reenter), ("wait", OnRingFull::Wait)];
    if let Some(node) = table.get("on_ring_full") {
        parts.machine.on_ring_full = reader::pick(source, node, "on_ring_full", &policies)?;
    }
    let mut signals = Vec::new();
    let mut lists = vec![(node.span.clone(), table.list("steps")?)];
    parts.names.threads.push(None);
    for thread in table.list("threads")?.unwrap_or_default() {
        let mut thread_table = Table::new(source, thread, "a thread")?;
        let taken = parts.names.threads.iter().flatten().map(String::as_str);
        let name = thread_table.name("thread", String::new(), taken)?;
        parts.names.threads.push((!name.is_empty()).then_some(name));
        lists.push((thread.span.clone(), thread_table.list("steps")?));
        thread_table.finish()?;
    }
    table.finish()?;
    if lists.len() > 4 {
        return source.error(
            &lists[4].0,
            format!("{} threads", lists.len()),
            "a scenario has at most 4 threads of the VMM",
        );
    }
    let texts: Vec<&[Node]> = lists.iter().filter_map(|(_, steps)| *steps).collect();
    let lives = Lives::new(parts, &texts);
    let slots = parts.slots.clone();
    let threads = lists.len() as u64;
    for (thread, (span, steps)) in lists.iter().enumerate() {
        let others = lists.iter().enumerate();
        let others = others.filter(|(other, _)| *other != thread);
        let others = others.fold(Changed::default(), |all, (_, (_, steps))| {
            all.and(lives.changed(steps.unwrap_or_default()))
        });
        let Some(steps) = steps else {
            return source.error(
                span,
                "no `steps`",
                "write steps = [ \"enable-logging\", … , \"finish\" ]",
            );
        };
        let mut writer = Writer {
            source,
            parts,
            writers,
            slots: slots.clone(),
            signals: &mut signals,
            lives: &lives,
            others,
            program: Vec::new(),
            origins: Vec::new(),
            places: Vec::new(),
            place: None,
            chunk: None,
            tried: None,
            threads,
            rounds: 1,
        };
        writer.open(others);
        writer.steps(steps)?;
        writer.check_size(span)?;
        writer.note_origin(None);
        let (mut program, origins) = (writer.program, writer.origins);
        let places = writer.places;
        let end = program.len() as u16;
        for op in &mut program {
            if let Op::Again(op::Again { to, .. }) = op {
                *to = (*to).min(end);
            }
        }
        parts.machine.programs.push(program);
        parts.origins.push(origins);
        parts.names.places.push(places);
        if let Some(last) = steps.last() {
            parts.last_step.get_or_insert_with(|| last.span.clone());
        }
    }
    check_signals(source, &signals)?;
    parts.names.signals = signals.into_iter().map(|signal| signal.name).collect();
    parts.machine.track_sent = parts
        .machine
        .programs
        .iter()
        .flatten()
        .any(|op| matches!(op, Op::Cancel | Op::PutBack | Op::Discard));
    Ok(())
}

/// The word for a step.
fn step_word(source: Source<'_>, node: &Node) -> Result<Word> {
    let known = || format!("known, by kind:\n{}", by_kind());
    reader::pick_of_many(source, node, "step", Word::ALL, known)
}

/// Refuses a name that is only signalled, or only waited for.
fn check_signals(source: Source<'_>, signals: &[Signal]) -> Result<()> {
    // What a VMM's own code did in one schedule is as it was.
    let signals = if source.text.is_empty() { &[] } else { signals };
    for signal in signals {
        let (span, what, instead) = match (&signal.signalled, &signal.waited_for) {
            (Some(span), None) => (span, "signalled, and nobody waits for it", "wait"),
            (None, Some(span)) => (span, "waited for, and nobody signals it", "signal"),
            (Some(_), Some(_)) | (None, None) => continue,
        };
        let others: Vec<&str> = signals
            .iter()
            .map(|other| other.name.as_str())
            .filter(|other| *other != signal.name)
            .collect();
        let near = nearest(&signal.name, &others)
            .map_or(String::new(), |near| format!("did you mean `{near}`? "));
        return source.error(
            span,
            format!("`{}` is {what}", signal.name),
            format!(
                "{near}write {{ {instead} = \"{}\" }} in another thread, or leave it away",
                signal.name
            ),
        );
    }
    Ok(())
}

impl Writer<'_> {
    fn steps(&mut self, nodes: &[Node]) -> Result<()> {
        for node in nodes {
            self.step(node)?;
            self.check_size(&node.span)?;
        }
        Ok(())
    }

    /// Refuses a program that has become too long by what stands there.
    fn check_size(&self, span: &Range<usize>) -> Result<()> {
        // What a VMM's own code did in one schedule is as long as it was.
        let most = if self.source.text.is_empty() {
            usize::from(u16::MAX) - 1
        } else {
            MOST_OPS
        };
        if self.program.len() <= most {
            return Ok(());
        }
        self.source.error(
            span,
            format!("more than {most} operations with repetitions written out"),
            format!("a program has at most {most}"),
        )
    }

    fn step(&mut self, node: &Node) -> Result<()> {
        let source = self.source;
        if matches!(node.kind, Kind::Text(_)) {
            let word = step_word(source, node)?;
            let empty = Node {
                span: node.span.clone(),
                kind: Kind::Table(Vec::new()),
            };
            let table = Table::new(source, &empty, "the step")?;
            self.word(word, table)?;
            self.note_origin(Some(&node.span));
            return Ok(());
        }
        let mut table = Table::new(source, node, "a step")?;
        if table.get("forever").is_some()
            || table.get("until_clean").is_some()
            || table.get("any_number").is_some()
            || table.get("each_chunk").is_some()
            || table.get("try").is_some()
        {
            return self.block(node, table);
        }
        if let Some(count) = table.integer("repeat", 1..=MOST_OPS as u64)? {
            let steps = table.list("steps")?;
            table.finish()?;
            let Some(steps) = steps else {
                return source.error(
                    &node.span,
                    "`repeat` without `steps`",
                    "write { repeat = 2, steps = [ … ] }",
                );
            };
            let around = self.rounds;
            self.rounds = self.rounds.saturating_mul(count);
            self.parts.rounds = self.parts.rounds.max(self.rounds);
            for _ in 0..count {
                let begin = self.program.len();
                self.steps(steps)?;
                if self.program.len() == begin {
                    return source.error(
                        &node.span,
                        "`repeat` of steps that do nothing",
                        "write steps that do something, or leave it away",
                    );
                }
            }
            self.rounds = around;
            return Ok(());
        }
        if let Some(name) = table.text("lock")? {
            let steps = table.list("steps")?;
            table.finish()?;
            let Some(steps) = steps else {
                return source.error(
                    &node.span,
                    "`lock` without `steps`",
                    "write { lock = \"slots\", steps = [ … ] }",
                );
            };
            let lock = self.lock(node, name)?;
            self.program.push(Op::Lock(lock));
            self.note_origin(None);
            self.steps(steps)?;
            self.program.push(Op::Unlock(lock));
            self.note_origin(None);
            return Ok(());
        }
        let Some(word_node) = table.get("step") else {
            for word in [Word::SignalName, Word::WaitName] {
                if let Some(name) = table.get(word.text()) {
                    table.finish()?;
                    self.signal(word, name)?;
                    self.note_origin(Some(&node.span));
                    return Ok(());
                }
            }
            return source.error(&node.span, "a step without `step`", "write \"copy\", { step = \"copy\", … }, { repeat = 2, steps = [ … ] } or { lock = \"slots\", steps = [ … ] }");
        };
        let word = step_word(source, word_node)?;
        self.word(word, table)?;
        self.note_origin(Some(&node.span));
        Ok(())
    }

    /// Notes where the operations that were added since the last time were asked for.
    fn note_origin(&mut self, span: Option<&Range<usize>>) {
        self.origins.resize(self.program.len(), span.cloned());
        self.places.resize(self.program.len(), self.place.take());
    }

    /// A part of a program that is repeated, done for each chunk, or tried.
    fn block(&mut self, node: &Node, mut table: Table<'_>) -> Result<()> {
        let source = self.source;
        let begin = self.program.len();
        if let Some(steps) = table.list("forever")? {
            table.finish()?;
            self.open(self.lives.changed(steps));
            self.steps(steps)?;
            return self.again(node, begin, Until::Never);
        }
        if let Some(steps) = table.list("until_clean")? {
            table.finish()?;
            self.open(self.lives.changed(steps));
            self.steps(steps)?;
            return self.again(node, begin, Until::NothingPending);
        }
        if let Some(steps) = table.list("any_number")? {
            table.finish()?;
            self.open(self.lives.changed(steps));
            self.steps(steps)?;
            return self.again(node, begin, Until::AnyTime);
        }
        if let Some(steps) = table.list("each_chunk")? {
            let chunk = self.chunk(&mut table, "pages")?;
            let slot = self.named_slot(&mut table)?;
            table.finish()?;
            let Some(chunk) = chunk else {
                return source.error(
                    &node.span,
                    "`each_chunk` without `pages`",
                    "write { each_chunk = [ \"clear-dirty-log\", \"copy\" ], pages = 2 }",
                );
            };
            let word = self.parts.machine.constants.word_bits;
            match chunk {
                Chunk::Pages(pages) if !pages.is_multiple_of(word) => {
                    return source.error(
                        &node.span,
                        format!("chunks of {pages} pages with words of {word} bits"),
                        "CLEAR takes whole words: write a multiple, or scale word_bits down",
                    );
                }
                Chunk::Pages(_) => {}
                // What comes before it may have been done any number of times.
                Chunk::Any => self.open(self.lives.changed(steps)),
            }
            self.each_slot(slot, Wanted::Logging, &node.span, &mut |writer, slot| {
                writer.each_part(slot, chunk, &node.span, &mut |writer, part| {
                    writer.chunk = Some((slot, part));
                    writer.steps(steps)
                })
            })?;
            self.chunk = None;
            return Ok(());
        }
        let steps = table.list("try")?;
        let on_error = table.list("on_error")?;
        table.finish()?;
        let (Some(steps), Some(on_error)) = (steps, on_error) else {
            return source.error(
                &node.span,
                "`try` without `on_error`",
                "write { try = [ \"copy\" ], on_error = [ \"cancel\", … ] }",
            );
        };
        let outer = self.tried.replace(Vec::new());
        let slots = self.slots.clone();
        self.steps(steps)?;
        let tried = std::mem::replace(&mut self.tried, outer).unwrap_or_default();
        if tried.is_empty() {
            return source.error(
                &node.span,
                "nothing in `try` can fail",
                "copy (with writers.send_failures), sync-file, and the ioctls can",
            );
        }
        let jump = self.program.len();
        self.again(node, jump, Until::Never)?;
        let errors = self.program.len();
        // What is done on an error finds the slots as they were when the attempt began, or as it has changed them.
        let after = std::mem::replace(&mut self.slots, slots);
        let changed = self.lives.changed(steps);
        self.open(changed);
        self.steps(on_error)?;
        self.slots = after;
        if !matches!(self.program.last(), Some(Op::Again(op)) if op.to == u16::MAX) {
            self.open(changed.and(self.lives.changed(on_error)));
        }
        let to = self.target(&node.span)?;
        self.program[jump] = Op::Again(op::Again {
            to,
            until: Until::Never,
        });
        let errors = u16::try_from(errors).unwrap_or(u16::MAX);
        for at in tried {
            self.program[at] = Op::OnError(op::OnError { to: errors });
        }
        Ok(())
    }

    /// How large the parts are that a step takes a memslot in, if it says so.
    fn chunk(&self, table: &mut Table<'_>, key: &'static str) -> Result<Option<Chunk>> {
        let source = self.source;
        let Some(node) = table.get(key) else {
            return Ok(None);
        };
        match (self.parts.any_pages.is_some(), is_any(node)) {
            (true, true) => Ok(Some(Chunk::Any)),
            (true, false) => source.error(
                &node.span,
                "a part of a memslot in numbers, with any number of pages",
                format!("write {key} = \"any\": any number of parts, each of whole words"),
            ),
            (false, _) => {
                let pages = reader::integer(source, node, key, 1..=64)?;
                Ok(Some(Chunk::Pages(pages as u32)))
            }
        }
    }

    /// Writes what is done to each part of a memslot, one after the other. Of any number of parts one has the tracked page; those before it
    /// and those behind it are gone through any number of times.
    fn each_part(
        &mut self,
        slot: usize,
        chunk: Chunk,
        span: &Range<usize>,
        write: &mut dyn FnMut(&mut Self, Part) -> Result<()>,
    ) -> Result<()> {
        match chunk {
            Chunk::Pages(pages) => {
                let npages = self.parts.machine.slots[slot].npages;
                for first in (0..npages).step_by(pages as usize) {
                    let pages = pages.min(npages - first);
                    write(self, Part { first, pages })?;
                }
            }
            Chunk::Any => {
                self.others_parts(span, write)?;
                write(self, tracked::OWN_PART)?;
                self.others_parts(span, write)?;
            }
        }
        Ok(())
    }

    /// Writes what is done to a part without the tracked page, any number of times.
    fn others_parts(
        &mut self,
        span: &Range<usize>,
        write: &mut dyn FnMut(&mut Self, Part) -> Result<()>,
    ) -> Result<()> {
        let until = Until::AnyTime;
        self.note_origin(Some(span));
        let pass = usize::from(self.target(span)?);
        self.program.push(Op::Again(op::Again { to: 0, until }));
        self.note_origin(None);
        write(self, tracked::OTHER_PART)?;
        self.note_origin(Some(span));
        let to = pass as u16 + 1;
        self.program.push(Op::Again(op::Again { to, until }));
        self.note_origin(None);
        let to = self.target(span)?;
        self.program[pass] = Op::Again(op::Again { to, until });
        Ok(())
    }

    fn again(&mut self, node: &Node, to: usize, until: Until) -> Result<()> {
        self.target(&node.span)?;
        let to = to as u16;
        self.program.push(Op::Again(op::Again { to, until }));
        self.note_origin(None);
        Ok(())
    }

    /// The next operation's number, which is small enough for a jump.
    fn target(&self, span: &Range<usize>) -> Result<u16> {
        self.check_size(span)?;
        Ok(self.program.len() as u16)
    }

    /// An operation that can fail; inside a `try` its error leads elsewhere.
    fn push_fallible(&mut self, op: Op) {
        self.program.push(op);
        if let Some(tried) = &mut self.tried {
            tried.push(self.program.len());
            self.program.push(Op::OnError(op::OnError { to: 0 }));
        }
    }

    fn lock(&mut self, node: &Node, name: &str) -> Result<u8> {
        if let Err(rule) = super::check_name(name) {
            let problem = format!("the lock `{name}`");
            return self.source.error(&node.span, problem, rule);
        }
        let locks = &mut self.parts.names.locks;
        if let Some(index) = locks.iter().position(|lock| lock == name) {
            return Ok(index as u8);
        }
        if locks.len() == 8 {
            return self.source.error(
                &node.span,
                "more than 8 locks",
                "a scenario has at most 8 locks of the VMM",
            );
        }
        locks.push(name.to_owned());
        Ok((locks.len() - 1) as u8)
    }

    /// A signal, or a wait for one.
    fn signal(&mut self, word: Word, node: &Node) -> Result<()> {
        let name = reader::name(self.source, node, "signal")?;
        let known = self.signals.iter().position(|signal| signal.name == name);
        let index = known.unwrap_or(self.signals.len());
        if index == 8 {
            return self.source.error(
                &node.span,
                "more than 8 signals",
                "a scenario has at most 8 signals between the VMM's threads",
            );
        }
        if known.is_none() {
            self.signals.push(Signal {
                name: name.to_owned(),
                ..Signal::default()
            });
        }
        let signal = &mut self.signals[index];
        let (first, op) = match word {
            Word::WaitName => (&mut signal.waited_for, Op::WaitSignal(index as u8)),
            _ => (&mut signal.signalled, Op::Signal(index as u8)),
        };
        first.get_or_insert_with(|| node.span.clone());
        self.program.push(op);
        Ok(())
    }

    /// The slot that a step names, if it names one.
    fn named_slot(&self, table: &mut Table<'_>) -> Result<Option<usize>> {
        let Some(node) = table.get("slot") else {
            return Ok(None);
        };
        let names: Vec<&str> = self
            .parts
            .machine
            .slots
            .iter()
            .map(|slot| slot.name.as_str())
            .collect();
        let word = reader::text(self.source, node, "slot")?;
        match names.iter().position(|name| *name == word) {
            Some(slot) => Ok(Some(slot)),
            None => self.source.error(
                &node.span,
                format!("unknown slot `{word}`"),
                format!("known: {}", names.join(", ")),
            ),
        }
    }

    /// The slot that a step must name.
    fn the_slot(&self, word: Word, table: &mut Table<'_>) -> Result<usize> {
        match self.named_slot(table)? {
            Some(slot) => Ok(slot),
            None => self.source.error(
                &table.span,
                format!("`{}` without `slot`", word.text()),
                format!("write {{ step = \"{}\", slot = \"ram\" }}", word.text()),
            ),
        }
    }

    /// The text no longer tells what these slots are.
    fn open(&mut self, changed: Changed) {
        for (slot, state) in self.slots.iter_mut().enumerate() {
            state.life_open |= changed.life.has(slot);
            state.log_open |= changed.log.has(slot);
        }
    }

    /// Writes what a step does to each slot that it is about: the one that it names, or all that are `wanted`. Where only the time at
    /// which it runs tells whether one is, the program looks then.
    fn each_slot(
        &mut self,
        named: Option<usize>,
        wanted: Wanted,
        span: &Range<usize>,
        write: &mut dyn FnMut(&mut Self, usize) -> Result<()>,
    ) -> Result<()> {
        let slots = named.map_or(0..self.slots.len(), |slot| slot..slot + 1);
        for slot in slots {
            let state = &self.slots[slot];
            let (there, life_open) = (state.present || state.life_open, state.life_open);
            let (is, open) = match wanted {
                Wanted::There => (state.present, life_open),
                Wanted::Absent => (!state.present, life_open),
                Wanted::Logging => (
                    state.present && state.logging,
                    there && (life_open || state.log_open),
                ),
            };
            match (wanted, named) {
                // Whoever asks the kernel of a slot by its number is answered, whatever the slot is.
                (Wanted::Absent | Wanted::Logging, Some(_)) => write(self, slot)?,
                (Wanted::There, Some(_)) if !open => write(self, slot)?,
                (Wanted::There, _) if open => {
                    for place in 0..self.parts.machine.slots[slot].places.len() {
                        self.slots[slot].present = true;
                        self.slots[slot].place = place;
                        self.if_so(slot, SlotIs::At(place as u8), span, write)?;
                    }
                }
                (Wanted::Absent, None) if open => self.if_so(slot, SlotIs::Absent, span, write)?,
                (Wanted::Logging, None) if open => {
                    self.if_so(slot, SlotIs::Logging, span, write)?
                }
                _ if is => write(self, slot)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes what is done to a slot if it is of a kind when the program comes there.
    fn if_so(
        &mut self,
        slot: usize,
        is: SlotIs,
        span: &Range<usize>,
        write: &mut dyn FnMut(&mut Self, usize) -> Result<()>,
    ) -> Result<()> {
        let SlotState {
            life_open,
            log_open,
            ..
        } = self.slots[slot];
        let at = self.program.len();
        let mut look = op::PassUnless {
            template: slot as u16,
            is,
            to: 0,
        };
        self.program.push(Op::PassUnless(look));
        self.note_origin(None);
        write(self, slot)?;
        look.to = self.target(span)?;
        self.program[at] = Op::PassUnless(look);
        let state = &mut self.slots[slot];
        state.life_open |= life_open;
        state.log_open |= log_open;
        Ok(())
    }

    /// Changes what the text has led a memslot to, and has the program make the same change by its ioctl.
    fn change_slot(&mut self, slot: usize, change: impl Fn(&mut SlotState)) {
        let mut state = self.slots[slot].clone();
        change(&mut state);
        let op = self.parts.region(slot, &state);
        state.life_open = self.others.life.has(slot);
        state.log_open = self.others.log.has(slot);
        self.slots[slot] = state;
        self.push_fallible(op);
    }

    fn into(&mut self, table: &mut Table<'_>) -> Result<Into> {
        let known = [
            ("pending", Into::Pending),
            ("hand", Into::Hand),
            ("vmm-log", Into::OwnLog),
            ("nowhere", Into::Nowhere),
        ];
        match table.get("into") {
            Some(node) => reader::pick(self.source, node, "into", &known),
            None => Ok(Into::Pending),
        }
    }

    fn device(&mut self, table: &mut Table<'_>) -> Result<Vec<u8>> {
        let Some(node) = table.get("device") else {
            return Ok((0..self.writers.devices.len() as u8).collect());
        };
        let word = reader::text(self.source, node, "device")?;
        match self.writers.devices.iter().position(|name| name == word) {
            Some(device) => Ok(vec![device as u8]),
            None => {
                let known = self.writers.devices.join(", ");
                self.source.error(
                    &node.span,
                    format!("unknown device `{word}`"),
                    format!("known: {known}"),
                )
            }
        }
    }

    /// A kernel writer without a vCPU; `usual`: the pages that `[writers]` has for it.
    fn kernel_write(
        &mut self,
        word: Word,
        table: &mut Table<'_>,
        writer: KernelWriter,
        usual: Option<&Vec<Frame>>,
    ) -> Result<()> {
        let frames = match table.list("pages")? {
            Some(nodes) => Some(self.parts.frames(self.source, nodes)?),
            None => usual.cloned(),
        };
        let fails_after = table
            .integer("fails_after", 0..=254)?
            .map_or(u8::MAX, |after| after as u8);
        let Some(frames) = frames else {
            return self.source.error(
                &table.span,
                format!("`{}` does not say which pages it writes", Word::text(word)),
                "write pages = [3] in the step, or the writer's tables in [writers]",
            );
        };
        let frames = self.parts.keep_list(self.source, &table.span, frames)?;
        self.push_fallible(Op::KernelWrite(op::KernelWrite {
            writer,
            frames,
            fails_after,
        }));
        Ok(())
    }

    fn word(&mut self, word: Word, mut table: Table<'_>) -> Result<()> {
        let source = self.source;
        let writers = self.writers;
        self.place = table.text("at")?.map(str::to_owned);
        match word {
            Word::EnableLogging => {
                let slot = self.named_slot(&mut table)?;
                self.each_slot(slot, Wanted::There, &table.span, &mut |writer, slot| {
                    writer.change_slot(slot, |slot| slot.logging = true);
                    Ok(())
                })?;
            }
            Word::DisableLogging => {
                let slot = self.named_slot(&mut table)?;
                self.each_slot(slot, Wanted::There, &table.span, &mut |writer, slot| {
                    writer.change_slot(slot, |slot| slot.logging = false);
                    Ok(())
                })?;
            }
            Word::AddSlot => {
                let logging = table.boolean("logging")?.unwrap_or(false);
                let slot = self.named_slot(&mut table)?;
                self.each_slot(slot, Wanted::Absent, &table.span, &mut |writer, slot| {
                    writer.change_slot(slot, |slot| {
                        slot.present = true;
                        slot.logging = logging;
                    });
                    Ok(())
                })?;
            }
            Word::RemoveSlot => {
                let slot = self.the_slot(word, &mut table)?;
                self.change_slot(slot, |slot| {
                    slot.present = false;
                    slot.logging = false;
                });
            }
            Word::MoveSlot => {
                let slot = self.the_slot(word, &mut table)?;
                let places = self.parts.machine.slots[slot].places.len();
                self.change_slot(slot, |slot| slot.place = (slot.place + 1) % places);
            }
            Word::CopyAll => self.push_fallible(Op::CopyAll),
            Word::Copy => {
                let nodes = table.list("pages")?;
                let frames = match (nodes, self.chunk) {
                    (Some(nodes), _) if self.parts.any_pages.is_some() => {
                        return source.error(
                            nodes.first().map_or(&table.span, |node| &node.span),
                            "a page that is named, with any number of pages",
                            "write \"copy\" alone: of those pages that are to be copied, all",
                        );
                    }
                    (Some(nodes), _) => Some(self.parts.frames(source, nodes)?),
                    (None, Some((slot, part))) => {
                        let first = self.parts.machine.slots[slot].frame + part.first;
                        Some(first.and_on(part.pages).collect())
                    }
                    (None, None) => None,
                };
                match frames {
                    Some(frames) => {
                        let frames = self.parts.keep_list(source, &table.span, frames)?;
                        self.push_fallible(Op::CopyList(op::CopyList { frames }));
                    }
                    None => self.push_fallible(Op::Copy),
                }
            }
            Word::TakeAll => self.program.push(Op::TakeAll),
            Word::TakeAlways => {
                if self.parts.machine.always_dirty.is_empty() {
                    return source.error(
                        &table.span,
                        "`take-always-dirty` and no page is",
                        "write always_dirty = [3] in [writers]",
                    );
                }
                self.program.push(Op::TakeAlways);
            }
            Word::MarkQueues => {
                let frames = self.page_list(&mut table, "mark-queues")?;
                self.program.push(Op::MarkOwn(op::MarkOwn { frames }));
            }
            Word::EndFree => {
                let frames = self.page_list(&mut table, "end-free")?;
                self.program.push(Op::EndFree(op::EndFree { frames }));
            }
            Word::PutBack => self.program.push(Op::PutBack),
            Word::Discard => self.program.push(Op::Discard),
            Word::SyncFile => {
                if self.parts.machine.send_failures == 0 {
                    return source.error(
                        &table.span,
                        "`sync-file` cannot fail: the budget of failures is 0",
                        "write send_failures = 1 in [writers]",
                    );
                }
                self.push_fallible(Op::MayFail);
            }
            Word::WaitRunning => self.program.push(Op::WaitRunning),
            Word::End => self.program.push(Op::Again(op::Again {
                to: u16::MAX,
                until: Until::Never,
            })),
            Word::Harvest => {
                let most = self.parts.machine.vcpus.len() as u64 - 1;
                let vcpu = table.integer("vcpu", 0..=most + 1)?.map(|vcpu| vcpu as u8);
                let max = table
                    .integer("max", 0..=u64::from(u32::MAX))?
                    .map_or(u32::MAX, |max| max as u32);
                let way = table.get("way").map_or(Ok(HarvestWay::Right), |node| {
                    reader::pick(source, node, "way", &WAYS)
                })?;
                let into = self.into(&mut table)?;
                self.program.push(Op::Harvest(op::Harvest {
                    vcpu,
                    max,
                    way,
                    into,
                }));
            }
            Word::Reset => {
                let signal = table.boolean("signal")?.unwrap_or(false);
                self.push_fallible(Op::ResetRings(op::ResetRings { signal }));
            }
            Word::Get => {
                let into = self.into(&mut table)?;
                let bad_pointer = table.boolean("efault")?.unwrap_or(false);
                let slot = self.named_slot(&mut table)?;
                self.each_slot(slot, Wanted::Logging, &table.span, &mut |writer, slot| {
                    let slot = writer.parts.machine.slots[slot].number();
                    writer.push_fallible(Op::GetDirtyLog(op::GetDirtyLog {
                        slot,
                        into,
                        bad_pointer,
                    }));
                    Ok(())
                })?;
            }
            Word::Clear => self.clear(&mut table)?,
            Word::Publish => self.program.push(match self.named_slot(&mut table)? {
                None => Op::Publish,
                Some(slot) => Op::PublishSlot(op::PublishSlot {
                    template: slot as u16,
                }),
            }),
            Word::Kick => self
                .program
                .extend([Op::Kick(op::Kick { stop: false }), Op::WaitKicked]),
            Word::Pause => self
                .program
                .extend([Op::Kick(op::Kick { stop: true }), Op::WaitStopped]),
            Word::Signal => {
                let stop = table.boolean("stop")?.unwrap_or(false);
                self.program.push(Op::Kick(op::Kick { stop }));
            }
            Word::WaitStopped => self.program.push(Op::WaitStopped),
            Word::Resume => self.program.push(Op::Resume),
            Word::WaitRingFull => self.program.push(Op::WaitRingFull),
            Word::AckRingFull => self.program.push(Op::AckRingFull),
            Word::ItsSave => {
                let usual = writers.its_save.as_ref();
                self.kernel_write(word, &mut table, KernelWriter::ItsSave, usual)?
            }
            Word::PendingSave => self.kernel_write(
                word,
                &mut table,
                KernelWriter::PendingSave,
                writers.pending_save.as_ref(),
            )?,
            Word::ItsRestore => self.kernel_write(
                word,
                &mut table,
                KernelWriter::ItsRestore,
                writers.its_restore.as_ref(),
            )?,
            Word::KernelWrite => self.kernel_write(
                word,
                &mut table,
                KernelWriter::Other,
                writers.kernel_write.as_ref(),
            )?,
            Word::VmmWrite => {
                let Some(node) = table.get("page") else {
                    return source.error(
                        &table.span,
                        "`vmm-write` without `page`",
                        "write { step = \"vmm-write\", page = 0 }",
                    );
                };
                let frame = self.parts.frame(source, node)?;
                let log = table.get("log").map_or(Ok(WriterLog::Right), |node| {
                    reader::pick(source, node, "log", &LOGS)
                })?;
                self.program
                    .push(Op::UserWrite(op::UserWrite { frame, log }));
            }
            Word::VmmLogReset => self.program.push(Op::ResetOwnLog),
            Word::VmmLogSync => self.program.push(Op::CollectOwnLog),
            Word::DeviceStart => self.devices(&mut table, Op::DeviceStart)?,
            Word::DeviceStop => self.devices(&mut table, Op::DeviceStop)?,
            Word::DeviceDrain => {
                let devices = self.device(&mut table)?;
                self.program
                    .extend(devices.iter().map(|device| Op::DeviceStop(*device)));
                self.program
                    .extend(devices.iter().map(|device| Op::DeviceDrain(*device)));
            }
            Word::DeviceSync => {
                let into = self.into(&mut table)?;
                self.devices(&mut table, |device| {
                    Op::DeviceSync(op::DeviceSync { device, into })
                })?;
            }
            Word::SignalName | Word::WaitName => {
                let Some(name) = table.get("name") else {
                    return source.error(
                        &table.span,
                        format!("`{}` without `name`", word.text()),
                        format!("write {{ {} = \"asked\" }}", word.text()),
                    );
                };
                self.signal(word, name)?;
            }
            Word::Forget => self.program.push(Op::Forget),
            Word::JoinThread => {
                // Thread 0 is the protocol's own; those of `threads` follow.
                let Some(thread) = table.integer("thread", 0..=3)? else {
                    return source.error(
                        &table.span,
                        "`join-thread` without `thread`",
                        "write { step = \"join-thread\", thread = 1 }",
                    );
                };
                if thread >= self.threads || thread == self.parts.machine.programs.len() as u64 {
                    return source.error(
                        &table.span,
                        format!("`join-thread` names thread {thread}"),
                        "name another thread: 0 is the one of `steps`, those of `threads` follow",
                    );
                }
                self.program.push(Op::JoinThread(thread as u8));
            }
            Word::HostAge | Word::HostUnmap => {
                let unmap = word == Word::HostUnmap;
                let name = if unmap { "host-unmap" } else { "host-age" };
                let Some(node) = table.get("page") else {
                    return source.error(
                        &table.span,
                        format!("`{name}` without `page`"),
                        format!("write {{ step = \"{name}\", page = 0 }}"),
                    );
                };
                let frame = self.parts.frame(source, node)?;
                self.program.push(Op::HostAge(op::HostAge { frame, unmap }));
            }
            Word::PreFault => self.pre_fault(&mut table)?,
            Word::DropFree => {
                let frames = self.page_list(&mut table, "drop-free")?;
                self.program.push(Op::DropFree(op::DropFree { frames }));
            }
            Word::Cancel => self.program.push(Op::Cancel),
            Word::NewDestination => self.program.push(Op::NewDestination),
            Word::Checkpoint => self.program.push(Op::Checkpoint),
            Word::Region => self.region(&mut table)?,
            Word::Send => {
                let Some(node) = table.get("page") else {
                    return source.error(
                        &table.span,
                        "`send` without `page`",
                        "write { step = \"send\", page = 0 }",
                    );
                };
                let frame = self.parts.frame(source, node)?;
                self.program.push(Op::SendPage(op::SendPage { frame }));
            }
            Word::TakeLock | Word::DropLock => {
                let Some(node) = table.get("name") else {
                    return source.error(
                        &table.span,
                        format!("`{}` without `name`", word.text()),
                        format!("write {{ step = \"{}\", name = \"slots\" }}", word.text()),
                    );
                };
                let lock = self.lock(node, reader::text(source, node, "name")?)?;
                self.program.push(match word {
                    Word::TakeLock => Op::Lock(lock),
                    _ => Op::Unlock(lock),
                });
            }
            Word::Yield => self.program.push(Op::Yield),
            Word::Panic => self.program.push(Op::Panic),
            Word::Leave => self.program.push(Op::Leave),
            Word::Finish => self
                .program
                .push(Op::Finish(op::Finish { postcopy: false })),
            Word::SwitchOver => self.program.push(Op::Finish(op::Finish { postcopy: true })),
        }
        table.finish()
    }

    /// KVM_SET_USER_MEMORY_REGION with the numbers that stand there.
    fn region(&mut self, table: &mut Table<'_>) -> Result<()> {
        let slot = self.the_slot(Word::Region, table)?;
        let mut number =
            |key, most| -> Result<u64> { Ok(table.integer(key, 0..=most)?.unwrap_or(0)) };
        let template = &self.parts.machine.slots[slot];
        let op = Op::SetMemoryRegion(op::SetMemoryRegion {
            slot: template.number(),
            flags: number("flags", u64::from(u32::MAX))? as u32,
            gpa: number("guest_phys_addr", u64::MAX)?,
            bytes: number("memory_size", u64::MAX)?,
            hva: number("userspace_addr", u64::MAX)?,
            template: slot as u16,
        });
        self.push_fallible(op);
        let state = &mut self.slots[slot];
        (state.life_open, state.log_open) = (true, true);
        Ok(())
    }

    /// KVM_PRE_FAULT_MEMORY: only x86's two-dimensional MMU has it.
    fn pre_fault(&mut self, table: &mut Table<'_>) -> Result<()> {
        let machine = &self.parts.machine;
        let has = machine.arch == Arch::X86
            && machine.mmu == Mmu::TwoDimensional
            && machine.kernel.has_pre_fault();
        let most = machine.vcpus.len() as u64 - 1;
        if !has {
            return self.source.error(
                &table.span,
                "`pre-fault` on a machine without KVM_PRE_FAULT_MEMORY",
                "it needs arch = \"x86\", mmu = \"two-dimensional\" and a kernel from 6.12 on",
            );
        }
        let vcpu = table.integer("vcpu", 0..=most)?.unwrap_or(0) as u8;
        let frames = self.page_list(table, "pre-fault")?;
        self.push_fallible(Op::PreFault(op::PreFault { vcpu, frames }));
        Ok(())
    }

    /// The pages that a step names.
    fn page_list(&mut self, table: &mut Table<'_>, step: &str) -> Result<u16> {
        let Some(nodes) = table.list("pages")? else {
            return self.source.error(
                &table.span,
                format!("`{step}` without `pages`"),
                format!("write {{ step = \"{step}\", pages = [0] }}"),
            );
        };
        let frames = self.parts.frames(self.source, nodes)?;
        self.parts.keep_list(self.source, &table.span, frames)
    }

    fn devices(&mut self, table: &mut Table<'_>, op: impl Fn(u8) -> Op) -> Result<()> {
        let devices = self.device(table)?;
        self.program.extend(devices.into_iter().map(op));
        Ok(())
    }

    /// CLEAR of a slot, of a range of it, or of each slot by chunks.
    fn clear(&mut self, table: &mut Table<'_>) -> Result<()> {
        let source = self.source;
        let mask = match table.get("mask").map(|node| (&node.kind, node)) {
            None => ClearMask::Seen,
            Some((Kind::List(nodes), _)) => {
                let mut frames = self.parts.frames(self.source, nodes)?;
                frames.sort_unstable();
                ClearMask::List(self.parts.keep_list(self.source, &table.span, frames)?)
            }
            Some((_, node)) => reader::pick(
                self.source,
                node,
                "mask",
                &[("seen", ClearMask::Seen), ("all", ClearMask::All)],
            )?,
        };
        let bad_pointer = table.boolean("efault")?.unwrap_or(false);
        let first = table.integer("first", 0..=u64::from(u32::MAX))?;
        let chunk = self.chunk(table, "chunk")?;
        let any = self.parts.any_pages.is_some();
        let pages = match table.get("pages") {
            Some(node) if any => {
                self.chunk(table, "pages")?;
                if let (Some(_), _) | (_, Some(_)) = (chunk, first) {
                    return source.error(
                        &node.span,
                        "a part of a memslot, and where it begins or in what parts",
                        "write pages = \"any\" alone (some whole words), or chunk = \"any\" alone (all of them, part by part)",
                    );
                }
                Some(u64::from(tracked::ANY_PART.pages))
            }
            Some(node) => Some(reader::integer(
                source,
                node,
                "pages",
                0..=u64::from(u32::MAX),
            )?),
            None => None,
        };
        if any && first.is_some() {
            return source.error(
                &table.span,
                "a part of a memslot in numbers, with any number of pages",
                "write pages = \"any\" alone: some whole words, wherever",
            );
        }
        let clear = move |writer: &mut Self, number: u32, first_page: u64, num_pages: u64| {
            writer.push_fallible(Op::ClearDirtyLog(op::ClearDirtyLog {
                slot: number,
                first_page,
                num_pages: num_pages as u32,
                mask,
                bad_pointer,
            }));
        };
        if let (Some((slot, part)), None, None) = (self.chunk, first, pages) {
            let slot = self.parts.machine.slots[slot].number();
            clear(self, slot, u64::from(part.first), u64::from(part.pages));
            return Ok(());
        }
        let slot = self.named_slot(table)?;
        let span = table.span.clone();
        self.each_slot(slot, Wanted::Logging, &span, &mut |writer, slot| {
            let template = &writer.parts.machine.slots[slot];
            let (number, npages) = (template.number(), u64::from(template.npages));
            let chunk = match chunk {
                None => None,
                Some(Chunk::Pages(pages)) => Some(u64::from(pages)),
                Some(chunk @ Chunk::Any) => {
                    return writer.each_part(slot, chunk, &span, &mut |writer, part| {
                        clear(writer, number, u64::from(part.first), u64::from(part.pages));
                        Ok(())
                    });
                }
            };
            let mut at = first.unwrap_or(0);
            let end = pages.map_or(npages.max(at), |pages| at + pages);
            loop {
                let step = chunk.unwrap_or(end - at).min(end - at);
                clear(writer, number, at, step);
                at += step;
                if at >= end {
                    return Ok(());
                }
                writer.check_size(&span)?;
            }
        })
    }
}
