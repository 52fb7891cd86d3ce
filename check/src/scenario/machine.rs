//! `[machine]` and `[[slots]]`: architecture, sizes, capabilities, memslots.

use std::ops::Range;

use dirtysim_model::machine::{
    Arch, CAP_DIRTY_LOG_RING, CAP_DIRTY_LOG_RING_ACQ_REL, CAP_DIRTY_LOG_RING_WITH_BITMAP,
    CAP_MANUAL_DIRTY_LOG_PROTECT2, Constants, DIRTY_GFN_BYTES, INITIALLY_SET, Kernel,
    MANUAL_PROTECT_ENABLE, MEM_LOG_DIRTY_PAGES, MEM_READONLY, Machine, Mmu, SlotTemplate,
    VcpuConfig,
};
use dirtysim_model::op::{self, Op};
use dirtysim_model::words::{Frame, HostPage};

use super::Names;
use super::meant::Meant;
use super::node::{Kind, Node};
use super::reader::{self, Result, Source, Table};
use crate::search::tracked;

/// The most pages of a scenario that is searched or scheduled.
const MOST_PAGES: u64 = 64;
/// The most lists of pages that its steps name.
const MOST_LISTS: usize = 1000;

/// A machine in the making.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) machine: Machine,
    pub(super) setup: Vec<Op>,
    /// For each operation of the set-up: where it was asked for, and the rule that the kernel applies.
    pub(super) setup_spans: Vec<(Range<usize>, &'static str)>,
    pub(super) scaled: Vec<String>,
    pub(super) slots: Vec<SlotState>,
    pub(super) machine_span: Range<usize>,
    /// For each operation of each program, where the text asks for it.
    pub(super) origins: Vec<Vec<Option<Range<usize>>>>,
    /// The last step of the first program.
    pub(super) last_step: Option<Range<usize>>,
    /// What the protocol calls its threads, locks and signals.
    pub(super) names: Names,
    /// The most times that `repeat` has a step written out.
    pub(super) rounds: u64,
    /// Where the text says that there are any number of pages, if it does.
    pub(super) any_pages: Option<Range<usize>>,
    /// Which of them the lists mean then.
    pub(super) meant: Meant,
}

/// A memslot as the protocol's text goes through its life.
#[derive(Debug, Clone)]
pub(super) struct SlotState {
    pub(super) present: bool,
    pub(super) logging: bool,
    pub(super) readonly: bool,
    pub(super) place: usize,
    /// Whether the text does not tell if it is there, or where; and whether it logs.
    pub(super) life_open: bool,
    pub(super) log_open: bool,
}

impl Parts {
    /// The operation that sets a slot up as `state` says.
    pub(super) fn region(&self, slot: usize, state: &SlotState) -> Op {
        let template = &self.machine.slots[slot];
        let page = self.machine.constants.page_bytes;
        let logging = if state.logging {
            MEM_LOG_DIRTY_PAGES
        } else {
            0
        };
        let readonly = if state.readonly { MEM_READONLY } else { 0 };
        Op::SetMemoryRegion(op::SetMemoryRegion {
            slot: template.number(),
            flags: logging | readonly,
            gpa: template.places[state.place] * page,
            bytes: if state.present {
                u64::from(template.npages) * page
            } else {
                0
            },
            hva: template.hva,
            template: slot as u16,
        })
    }

    /// The frame of a page that the text names: its number over all slots, or `slot:offset`; of any number of pages what stands for its name.
    pub(super) fn frame(&mut self, source: Source<'_>, node: &Node) -> Result<Frame> {
        if self.any_pages.is_some() {
            let Kind::Text(word) = &node.kind else {
                return source.error(
                    &node.span,
                    "a page's number, with any number of pages",
                    "leave it away, or write a name, as in page = \"record\": of any number of pages, that one; where there is a list, pages = [\"KIND\"] means those of a kind",
                );
            };
            return self
                .meant
                .one(source, &self.machine.slots, &node.span, word);
        }
        let pages: u32 = self.machine.slots.iter().map(|slot| slot.npages).sum();
        match &node.kind {
            Kind::Integer(_) => {
                let page =
                    reader::integer(source, node, "page", 0..=u64::from(pages.max(1) - 1))? as u32;
                let mut left = page;
                for slot in &self.machine.slots {
                    if left < slot.npages {
                        return Ok(slot.frame + left);
                    }
                    left -= slot.npages;
                }
                source.error(
                    &node.span,
                    format!("page {page}"),
                    format!("the slots have {pages} pages"),
                )
            }
            Kind::Text(word) => {
                let names: Vec<&str> = self
                    .machine
                    .slots
                    .iter()
                    .map(|slot| slot.name.as_str())
                    .collect();
                let found = word.split_once(':').and_then(|(name, offset)| {
                    let slot = self.machine.slots.iter().find(|slot| slot.name == name)?;
                    let offset: u32 = offset.parse().ok().filter(|offset| *offset < slot.npages)?;
                    Some(slot.frame + offset)
                });
                match found {
                    Some(frame) => Ok(frame),
                    None => source.error(
                        &node.span,
                        format!("no page `{word}`: outside every slot"),
                        format!(
                            "write a page's number below {pages}, or \"slot:offset\"; slots: {}",
                            names.join(", ")
                        ),
                    ),
                }
            }
            other => source.error(
                &node.span,
                format!("a page is {}", other.words()),
                "write a page's number, or \"slot:offset\"",
            ),
        }
    }

    /// The frames of a list of pages.
    pub(super) fn frames(&mut self, source: Source<'_>, nodes: &[Node]) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        for node in nodes {
            frames.push(match &node.kind {
                Kind::Text(word) if self.any_pages.is_some() => {
                    let slots = &self.machine.slots;
                    self.meant.read(source, slots, &node.span, word)?
                }
                _ => self.frame(source, node)?,
            });
        }
        Ok(frames)
    }

    /// Keeps a list of frames, asked for at `span`; operations name it by the index that is returned.
    pub(super) fn keep_list(
        &mut self,
        source: Source<'_>,
        span: &Range<usize>,
        frames: Vec<Frame>,
    ) -> Result<u16> {
        let lists = &mut self.machine.frame_lists;
        let known = lists.iter().position(|list| *list == frames);
        let index = known.unwrap_or(lists.len());
        if index >= MOST_LISTS {
            return source.error(
                span,
                "too many lists of pages",
                format!("a scenario has at most {MOST_LISTS} different ones"),
            );
        }
        if known.is_none() {
            lists.push(frames);
        }
        Ok(index as u16)
    }

    fn set_up(&mut self, op: Op, span: Range<usize>, rule: &'static str) {
        self.setup.push(op);
        self.setup_spans.push((span, rule));
    }
}

pub(super) fn read(source: Source<'_>, top: &mut Table<'_>) -> Result<Parts> {
    let Some(node) = top.get("machine") else {
        return source.error(
            &(0..0),
            "no [machine]",
            "write [machine] with at least arch, vcpus and pages",
        );
    };
    let mut table = Table::new(source, node, "[machine]")?;
    let archs: Vec<(&'static str, Arch)> =
        Arch::ALL.iter().map(|arch| (arch.name(), *arch)).collect();
    let arch = match table.get("arch") {
        Some(node) => reader::pick(source, node, "architecture", &archs)?,
        None => {
            return source.error(
                &node.span,
                "no `arch` in [machine]",
                "write arch = \"arm64\" or arch = \"x86\"",
            );
        }
    };
    let kernels: Vec<(&'static str, Kernel)> = Kernel::ALL
        .iter()
        .map(|kernel| (kernel.name(), *kernel))
        .collect();
    let kernel = table.get("kernel").map_or(Ok(Kernel::V7_2), |node| {
        reader::pick(source, node, "kernel", &kernels)
    })?;
    let pml_node = table.get("pml");
    let pml = match pml_node.map(|node| &node.kind) {
        None => false,
        Some(Kind::Boolean(pml)) => *pml,
        Some(other) => {
            return source.error(
                &pml_node.map_or(0..0, |node| node.span.clone()),
                format!("`pml` is {}", other.words()),
                "write true or false",
            );
        }
    };
    if pml && arch != Arch::X86 {
        return source.error(
            &pml_node.map_or(0..0, |node| node.span.clone()),
            format!("PML on {}", arch.name()),
            "only x86 has PML",
        );
    }
    let mut machine = Machine::new(arch, kernel, pml);
    let mmus = [
        ("two-dimensional", Mmu::TwoDimensional),
        ("shadow", Mmu::Shadow),
    ];
    if let Some(node) = table.get("mmu") {
        machine.mmu = reader::pick(source, node, "mmu", &mmus)?;
        if machine.mmu == Mmu::Shadow && arch != Arch::X86 {
            return source.error(
                &node.span,
                format!("shadow paging on {}", arch.name()),
                "only x86 has shadow paging here",
            );
        }
    }
    if let Some(node) = table.get("accessed_bits") {
        let Kind::Boolean(bits) = node.kind else {
            return source.error(
                &node.span,
                format!("`accessed_bits` is {}", node.kind.words()),
                "write true or false",
            );
        };
        machine.accessed_bits = bits;
        if !bits && (arch != Arch::X86 || pml || machine.mmu == Mmu::Shadow) {
            return source.error(
                &node.span,
                "leaves without accessed bits here",
                "only x86's EPT may lack them, and then has no PML",
            );
        }
    }
    let vcpus = table.integer("vcpus", 1..=4)?.unwrap_or(1);
    machine.vcpus = vec![VcpuConfig::default(); vcpus as usize];
    let pages_node = table.get("pages");
    let pages = pages_node.map(|node| read_number_of_pages(source, node));
    let pages = pages.transpose()?;
    let mut of_slots = Vec::new();
    for slot in top.list("slots")?.unwrap_or_default() {
        if let Kind::Table(rows) = &slot.kind {
            let is_pages = |key: &Node| matches!(&key.kind, Kind::Text(word) if word == "pages");
            of_slots.extend(rows.iter().filter(|(key, _)| is_pages(key)));
        }
    }
    let mut nodes = pages_node
        .into_iter()
        .chain(of_slots.iter().map(|(_, pages)| pages));
    let any_pages = nodes
        .find(|node| is_any(node))
        .map(|node| node.span.clone());
    let mut parts = Parts {
        machine,
        setup: Vec::new(),
        setup_spans: Vec::new(),
        scaled: Vec::new(),
        slots: Vec::new(),
        machine_span: node.span.clone(),
        origins: Vec::new(),
        last_step: None,
        names: Names::default(),
        rounds: 1,
        any_pages,
        meant: Meant::default(),
    };
    let caps = read_caps(source, &mut table, &mut parts)?;
    read_constants(source, &mut table, &mut parts)?;
    table.finish()?;
    read_slots(source, top, pages, &mut parts)?;
    name_scaled(&mut parts, &caps);
    set_up(&mut parts, caps);
    Ok(parts)
}

/// Whether it is the word for any number.
pub(super) fn is_any(node: &Node) -> bool {
    matches!(&node.kind, Kind::Text(word) if word == "any")
}

/// A number of pages; with any number, that of the machine by which it is searched.
fn read_number_of_pages(source: Source<'_>, node: &Node) -> Result<u64> {
    if is_any(node) {
        return Ok(u64::from(tracked::PAGES));
    }
    reader::integer(source, node, "pages", 1..=MOST_PAGES)
}

/// What the set-up enables, and where it was asked for.
#[derive(Debug)]
struct Caps {
    ring: Option<(u32, Range<usize>)>,
    ring_with_bitmap: Option<Range<usize>>,
    manual: Option<(u64, Range<usize>)>,
}

fn read_caps(source: Source<'_>, table: &mut Table<'_>, parts: &mut Parts) -> Result<Caps> {
    let arch = parts.machine.arch;
    let kernel = parts.machine.kernel;
    let mut caps = Caps {
        ring: None,
        ring_with_bitmap: None,
        manual: None,
    };
    if let Some(node) = table.get("ring") {
        let mut entries = None;
        if let Kind::Integer(_) = node.kind {
            entries = Some(reader::integer(source, node, "ring", 1..=65536)?);
        } else {
            let mut ring = Table::new(source, node, "`ring`")?;
            if let Some(value) = ring.integer("entries", 1..=65536)? {
                entries = Some(value);
            }
            if let Some(reserved) = ring.integer("reserved", 0..=65536)? {
                parts.machine.constants.ring_reserved = reserved as u32;
                // A scaled reserve goes with a scaled minimum.
                parts.machine.constants.ring_min_entries =
                    (reserved as u32).max(1).next_power_of_two();
            }
            ring.finish()?;
        }
        let Some(entries) = entries else {
            return source.error(
                &node.span,
                "`ring` has no `entries`",
                "write ring = { entries = 4, reserved = 2 }",
            );
        };
        if !arch.has_ring(kernel) {
            return source.error(
                &node.span,
                format!("a dirty ring on {} with Linux {}", arch.name(), kernel.name()),
                "rings: x86; arm64 from 6.6 on here (since 6.2); loongarch from 6.12 on here; riscv from 6.18 on here (since 6.17); never s390",
            );
        }
        if !entries.is_power_of_two() {
            return source.error(
                &node.span,
                format!("a ring of {entries} entries"),
                "write a power of two",
            );
        }
        if entries > 32 {
            return source.error(
                &node.span,
                format!("a ring of {entries} entries"),
                "a scenario's ring has at most 32 entries; scale the reserve down with it",
            );
        }
        if entries as u32 <= parts.machine.constants.ring_reserved {
            return source.error(
                &node.span,
                format!(
                    "a ring of {entries} entries with {} reserved",
                    parts.machine.constants.ring_reserved
                ),
                "write more entries than are reserved: ring = { entries = 4, reserved = 2 }",
            );
        }
        caps.ring = Some((entries as u32, node.span.clone()));
    }
    if let Some(node) = table.get("ring_with_bitmap") {
        match node.kind {
            Kind::Boolean(false) => {}
            Kind::Boolean(true) if !arch.has_ring_with_bitmap(kernel) => {
                return source.error(
                    &node.span,
                    format!("ring with bitmap on {}", arch.name()),
                    "only arm64 has KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, since 6.2",
                );
            }
            Kind::Boolean(true) if caps.ring.is_none() => {
                return source.error(
                    &node.span,
                    "ring with bitmap without a ring",
                    "write ring = { entries = 4, reserved = 2 } too",
                );
            }
            Kind::Boolean(true) => caps.ring_with_bitmap = Some(node.span.clone()),
            _ => {
                return source.error(
                    &node.span,
                    format!("`ring_with_bitmap` is {}", node.kind.words()),
                    "write true or false",
                );
            }
        }
    }
    if let Some(node) = table.get("manual_protect") {
        let bits = match &node.kind {
            Kind::Boolean(false) => 0,
            Kind::Boolean(true) => MANUAL_PROTECT_ENABLE,
            Kind::Text(word) if word == "initially-set" => MANUAL_PROTECT_ENABLE | INITIALLY_SET,
            _ => {
                return source.error(
                    &node.span,
                    "`manual_protect`",
                    "write false, true or \"initially-set\"",
                );
            }
        };
        if bits != 0 {
            let offered = arch.manual_protect_mask(kernel);
            if offered == 0 {
                return source.error(
                    &node.span,
                    format!("manual protect on {}", arch.name()),
                    "s390 has no KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2",
                );
            }
            if bits & !offered != 0 {
                return source.error(
                    &node.span,
                    format!(
                        "INITIALLY_SET on {} with Linux {}",
                        arch.name(),
                        kernel.name()
                    ),
                    "write manual_protect = true, or kernel = \"7.2\"",
                );
            }
            caps.manual = Some((bits, node.span.clone()));
        }
    }
    Ok(caps)
}

fn read_constants(source: Source<'_>, table: &mut Table<'_>, parts: &mut Parts) -> Result<()> {
    if parts.any_pages.is_some() {
        parts.machine.constants.word_bits = tracked::WORD_BITS;
        parts.machine.constants.reset_batch_pages = tracked::BATCH_PAGES;
        for key in ["word_bits", "reset_batch_pages", "huge_pages"] {
            if let Some(node) = table.get(key) {
                return source.error(
                    &node.span,
                    format!("`{key}` with any number of pages"),
                    "leave it away: the architecture's own stands, since there may be more pages than any word or batch has",
                );
            }
        }
    }
    let constants = &mut parts.machine.constants;
    let any = parts.any_pages.is_some();
    if let Some(bits) = table.integer("word_bits", 1..=64)? {
        constants.word_bits = bits as u32;
    } else if !any {
        constants.word_bits = 0;
    }
    if let Some(pages) = table.integer("reset_batch_pages", 1..=64)? {
        constants.reset_batch_pages = pages as u32;
    } else if !any {
        constants.reset_batch_pages = 0;
    }
    if let Some(entries) = table.integer("pml_entries", 1..=16)? {
        constants.pml_entries = entries as u32;
    } else if parts.machine.pml {
        constants.pml_entries = 2;
    }
    if let Some(pages) = table.integer("huge_pages", 1..=64)? {
        constants.huge_pages = pages as u32;
    }
    if let Some(spaces) = table.integer("address_spaces", 1..=2)? {
        constants.address_spaces = spaces as u32;
    }
    Ok(())
}

fn read_slots(
    source: Source<'_>,
    top: &mut Table<'_>,
    pages: Option<u64>,
    parts: &mut Parts,
) -> Result<()> {
    let nodes = top.list("slots")?;
    let mut rows = Vec::new();
    match (nodes, pages) {
        (Some([]), _) => {
            return source.error(
                &parts.machine_span,
                "`slots` is empty",
                "write at least one slot, or machine.pages",
            );
        }
        (Some(nodes), None) => {
            for node in nodes {
                // Each has a page at least.
                if rows.len() as u64 == MOST_PAGES {
                    return source.error(
                        &node.span,
                        format!("{} slots", nodes.len()),
                        format!(
                            "a scenario has at most {MOST_PAGES} pages, and a slot one at least"
                        ),
                    );
                }
                rows.push(read_slot(source, node, &rows)?);
            }
        }
        (None, Some(pages)) => rows.push(SlotRow {
            name: "ram".to_owned(),
            pages: pages as u32,
            id: 0,
            as_id: 0,
            gfns: vec![Some(0)],
            huge: false,
            shares: None,
            host: None,
            is_any: pages == u64::from(tracked::PAGES) && parts.any_pages.is_some(),
            state: SlotState {
                present: true,
                logging: false,
                readonly: false,
                place: 0,
                life_open: false,
                log_open: false,
            },
            span: parts.machine_span.clone(),
        }),
        (Some(_), Some(_)) => {
            return source.error(
                &parts.machine_span,
                "both machine.pages and [[slots]]",
                "write one of them: pages makes one slot named `ram`",
            );
        }
        (None, None) => {
            return source.error(
                &parts.machine_span,
                "no pages",
                "write pages = 4 in [machine], or [[slots]]",
            );
        }
    }
    if parts.any_pages.is_some()
        && let Some(row) = rows.iter().find(|row| !row.is_any)
    {
        return source.error(
            &row.span,
            "a memslot with a number of pages beside one of any number",
            "write pages = \"any\" in every slot, or a number in each",
        );
    }
    let most = rows.iter().map(|row| row.pages).max().unwrap_or(1);
    let constants = &mut parts.machine.constants;
    // A word that holds the largest slot behaves as one of 64 bits does; the same goes for a RESET batch.
    if constants.word_bits == 0 {
        constants.word_bits = most.next_power_of_two().min(64);
    }
    if constants.reset_batch_pages == 0 {
        constants.reset_batch_pages = most.next_power_of_two().min(64);
    }
    if rows.iter().all(|row| !row.huge) {
        constants.huge_pages = 1;
    } else if constants.huge_pages > 64 {
        constants.huge_pages = most.next_power_of_two().min(64);
    }
    let mut frame = Frame(0);
    for row in rows {
        if row.as_id >= parts.machine.constants.address_spaces {
            let spaces = parts.machine.constants.address_spaces;
            return source.error(
                &row.span,
                format!("address space {}", row.as_id),
                format!("this machine has {spaces}: as_id is below that"),
            );
        }
        let host = match &row.shares {
            None => HostPage(frame.0),
            Some((name, offset, span)) => {
                let Some(other) = parts.machine.slots.iter().find(|slot| slot.name == *name) else {
                    return source.error(
                        span,
                        format!("no slot `{name}` above this one"),
                        "`shares` names a slot that comes earlier",
                    );
                };
                if u64::from(*offset) + u64::from(row.pages) > u64::from(other.npages) {
                    return source.error(
                        span,
                        format!("slot `{name}` has {} pages", other.npages),
                        "share pages that the other slot has",
                    );
                }
                other.host + *offset
            }
        };
        let host = row.host.unwrap_or(host);
        let mut own = parts.machine.slots.iter();
        let same = own.find(|slot| slot.host < host + row.pages && host < slot.host + slot.npages);
        if let Some(other) = same.filter(|_| row.shares.is_none()) {
            return source.error(
                &row.span,
                format!(
                    "its pages in the VMM's bitmap are those of slot `{}`",
                    other.name
                ),
                "write another `block`, or `shares` if both have the same memory",
            );
        }
        let page_bytes = parts.machine.constants.page_bytes;
        let template = SlotTemplate {
            as_id: row.as_id,
            id: row.id,
            npages: row.pages,
            frame,
            host,
            hva: (1 << 32) + u64::from(host.0) * page_bytes,
            places: row
                .gfns
                .iter()
                .map(|gfn| gfn.unwrap_or(u64::from(frame.0)))
                .collect(),
            huge: row.huge,
            name: row.name,
        };
        frame = frame + parts.machine.padded(row.pages);
        parts.machine.slots.push(template);
        parts.slots.push(row.state);
        parts.setup_spans.push((
            row.span,
            "slots of an address space must not overlap, and a number is used once at a time",
        ));
    }
    if u64::from(frame.0) > MOST_PAGES {
        return source.error(
            &parts.machine_span,
            format!("{} pages with each slot rounded up to words", frame.0),
            format!("a scenario has at most {MOST_PAGES}"),
        );
    }
    Ok(())
}

struct SlotRow {
    name: String,
    pages: u32,
    id: u32,
    as_id: u32,
    /// The gfns at which it can stand; none: its first frame's number.
    gfns: Vec<Option<u64>>,
    huge: bool,
    shares: Option<(String, u32, Range<usize>)>,
    /// The number of its first page in the VMM's own bitmap; none: as its first frame.
    host: Option<HostPage>,
    is_any: bool,
    state: SlotState,
    span: Range<usize>,
}

/// The slot that a table describes; `before` are those above it.
fn read_slot(source: Source<'_>, node: &Node, before: &[SlotRow]) -> Result<SlotRow> {
    let mut table = Table::new(source, node, "a slot")?;
    let taken = before.iter().map(|row| row.name.as_str());
    let name = table.name("slot", format!("slot{}", before.len()), taken)?;
    let Some(pages) = table.get("pages") else {
        return source.error(&node.span, "a slot without `pages`", "write pages = 4");
    };
    let is_any = is_any(pages);
    let pages = read_number_of_pages(source, pages)?;
    let id = table.integer("id", 0..=14)?.unwrap_or(before.len() as u64) as u32;
    let as_id = table.integer("as_id", 0..=1)?.unwrap_or(0) as u32;
    let gfn = table.integer("gfn", 0..=1 << 36)?;
    let mut gfns = vec![gfn];
    for place in table.list("moves_to")?.unwrap_or_default() {
        gfns.push(Some(reader::integer(source, place, "gfn", 0..=1 << 36)?));
    }
    let huge = table.boolean("huge")?.unwrap_or(false);
    let shares = match table.get("shares") {
        None => None,
        Some(node) => {
            let word = reader::text(source, node, "shares")?;
            let (slot, offset) = word.split_once(':').unwrap_or((word, "0"));
            let Ok(offset) = offset.parse::<u32>() else {
                return source.error(
                    &node.span,
                    format!("`shares` is `{word}`"),
                    "write shares = \"slot:offset\"",
                );
            };
            Some((slot.to_owned(), offset, node.span.clone()))
        }
    };
    let host_node = table.get("block");
    let host = match host_node {
        None => None,
        Some(node) if shares.is_some() => {
            return source.error(
                &node.span,
                "`block` beside `shares`",
                "a slot that shares memory has the other slot's block: write one of them",
            );
        }
        Some(node) => {
            let first = reader::integer(source, node, "block", 0..=MOST_PAGES - pages)?;
            Some(HostPage(first as u32))
        }
    };
    let state = SlotState {
        present: table.boolean("present")?.unwrap_or(true),
        logging: table.boolean("logging")?.unwrap_or(false),
        readonly: table.boolean("readonly")?.unwrap_or(false),
        place: 0,
        life_open: false,
        log_open: false,
    };
    table.finish()?;
    Ok(SlotRow {
        name,
        pages: pages as u32,
        id,
        as_id,
        gfns,
        huge,
        shares,
        host,
        is_any,
        state,
        span: node.span.clone(),
    })
}

/// Says which constants are not the architecture's own.
fn name_scaled(parts: &mut Parts, caps: &Caps) {
    let machine = &parts.machine;
    let own = Constants::of(machine.arch, machine.pml);
    let most = machine
        .slots
        .iter()
        .map(|slot| slot.npages)
        .max()
        .unwrap_or(1);
    let now = machine.constants;
    let mut scaled = Vec::new();
    let mut note = |name: &str, value: u32, own: u32| {
        if value != own {
            scaled.push(format!("{name} = {value} (the architecture's: {own})"));
        }
    };
    if let Some((entries, _)) = caps.ring {
        if entries < own.ring_min_entries {
            note("ring entries", entries, own.ring_min_entries);
        }
        note(
            "ring entries reserved",
            now.ring_reserved,
            own.ring_reserved,
        );
    }
    // Words and batches that hold the largest slot behave as the architecture's do, and those by which any number of pages is searched
    // behave as all do.
    let any = parts.any_pages.is_some();
    if !any && now.word_bits < most {
        note("bits per bitmap word", now.word_bits, own.word_bits);
    }
    if !any && now.reset_batch_pages < most && caps.ring.is_some() {
        note(
            "pages per RESET batch",
            now.reset_batch_pages,
            own.reset_batch_pages,
        );
    }
    if machine.pml {
        note("PML entries", now.pml_entries, own.pml_entries);
    }
    if machine.slots.iter().any(|slot| slot.huge) {
        note("pages per huge mapping", now.huge_pages, own.huge_pages);
    }
    parts.scaled = scaled;
}

/// The calls that the VMM makes before anything runs.
fn set_up(parts: &mut Parts, caps: Caps) {
    let slot_spans = std::mem::take(&mut parts.setup_spans);
    let enable = |cap, args0| {
        Op::EnableCap(op::EnableCap {
            cap,
            flags: 0,
            args0,
        })
    };
    if let Some((bits, span)) = caps.manual {
        parts.set_up(
            enable(CAP_MANUAL_DIRTY_LOG_PROTECT2, bits),
            span,
            "manual protect takes bit 0, and bit 1 only with it",
        );
    }
    if let Some((entries, span)) = caps.ring {
        let bytes = u64::from(entries * DIRTY_GFN_BYTES);
        let cap = if parts.machine.kernel.has_ring_acq_rel() {
            CAP_DIRTY_LOG_RING_ACQ_REL
        } else {
            CAP_DIRTY_LOG_RING
        };
        parts.set_up(
            enable(cap, bytes),
            span,
            "a ring has a power of two of entries, at least as many as are reserved and at most 65536",
        );
    }
    if let Some(span) = caps.ring_with_bitmap {
        parts.set_up(
            enable(CAP_DIRTY_LOG_RING_WITH_BITMAP, 0),
            span,
            "the bitmap comes after the ring and before the first memslot",
        );
    }
    for (slot, (span, rule)) in slot_spans.into_iter().enumerate() {
        let state = parts.slots[slot].clone();
        if state.present {
            let op = parts.region(slot, &state);
            parts.set_up(op, span, rule);
        }
    }
    for _ in 0..parts.machine.vcpus.len() {
        let span = parts.machine_span.clone();
        parts.set_up(
            Op::CreateVcpu,
            span,
            "vCPUs are created after the ring is enabled",
        );
    }
}
