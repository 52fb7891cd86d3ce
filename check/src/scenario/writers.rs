//! `[writers]`: who stores to guest memory, how often, and where it is logged.

use dirtysim_model::machine::WriterLog;
use dirtysim_model::machine::{Arch, DeviceConfig, Kernel, Mmu};
use dirtysim_model::state::vcpu::UNLIMITED;
use dirtysim_model::words::{Frame, HostPage};

use super::machine::Parts;
use super::node::{Kind, Node};
use super::reader::{self, Result, Source, Table};

/// The most stores that a scenario gives one writer.
const MOST_STORES: u64 = 31;

/// The most devices of a scenario.
const MOST_DEVICES: usize = 64;

/// Where a writer's stores are logged, in the words of scenarios.
pub(super) const LOGS: [(&str, WriterLog); 4] = [
    ("right", WriterLog::Right),
    ("none", WriterLog::None),
    ("early", WriterLog::Early),
    ("wrong-space", WriterLog::WrongSpace),
];

/// The pages that kernel writers without a vCPU write when a step does not say which.
#[derive(Debug, Default)]
pub(super) struct Writers {
    pub(super) its_save: Option<Vec<Frame>>,
    pub(super) pending_save: Option<Vec<Frame>>,
    pub(super) its_restore: Option<Vec<Frame>>,
    pub(super) kernel_write: Option<Vec<Frame>>,
    /// The devices' names, by index.
    pub(super) devices: Vec<String>,
}

pub(super) fn read(source: Source<'_>, top: &mut Table<'_>, parts: &mut Parts) -> Result<Writers> {
    let mut writers = Writers::default();
    let Some(node) = top.get("writers") else {
        return Ok(writers);
    };
    let mut table = Table::new(source, node, "[writers]")?;
    if let Some(node) = table.get("vcpu") {
        read_vcpu(source, node, parts)?;
    }
    if let Some(node) = table.get("kernel_record") {
        read_record(source, node, parts, false)?;
    }
    if let Some(node) = table.get("emulated_stores") {
        read_record(source, node, parts, true)?;
    }
    writers.its_save = read_tables(source, table.get("its_save"), "its_save", parts)?;
    writers.pending_save = read_tables(source, table.get("pending_save"), "pending_save", parts)?;
    writers.its_restore = read_tables(source, table.get("its_restore"), "its_restore", parts)?;
    writers.kernel_write = read_tables(source, table.get("kernel_write"), "kernel_write", parts)?;
    for node in table.list("devices")?.unwrap_or_default() {
        if writers.devices.len() == MOST_DEVICES {
            return source.error(
                &node.span,
                format!("more than {MOST_DEVICES} devices"),
                format!("a scenario has at most {MOST_DEVICES} devices"),
            );
        }
        let (name, config) = read_device(source, node, &writers.devices, parts)?;
        writers.devices.push(name);
        parts.machine.devices.push(config);
    }
    if let Some(failures) = read_budget(source, &mut table, "send_failures", 1)? {
        parts.machine.send_failures = failures;
    }
    if let Some(nodes) = table.list("always_dirty")? {
        let frames = parts.frames(source, nodes)?;
        let machine = &mut parts.machine;
        machine.always_dirty = match parts.any_pages {
            // What stands for pages is read as such later on.
            Some(_) => frames.iter().map(|frame| HostPage(frame.0)).collect(),
            None => frames
                .iter()
                .map(|&frame| machine.host_page(frame))
                .collect(),
        };
    }
    table.finish()?;
    Ok(writers)
}

/// The frames of every slot that is there from the start, or that may come.
fn all_frames(parts: &mut Parts) -> Vec<Frame> {
    if parts.any_pages.is_some() {
        return vec![parts.meant.all()];
    }
    parts
        .machine
        .slots
        .iter()
        .flat_map(|slot| slot.frames())
        .collect()
}

fn read_pages(source: Source<'_>, table: &mut Table<'_>, parts: &mut Parts) -> Result<Vec<Frame>> {
    match table.list("pages")? {
        Some(nodes) => parts.frames(source, nodes),
        None => Ok(all_frames(parts)),
    }
}

fn read_vcpu(source: Source<'_>, node: &Node, parts: &mut Parts) -> Result<()> {
    let mut table = Table::new(source, node, "`vcpu`")?;
    let stores = read_budget(source, &mut table, "stores", 1)?.unwrap_or(0);
    let loads = read_budget(source, &mut table, "loads", 1)?.unwrap_or(0);
    let frames = read_pages(source, &mut table, parts)?;
    for vcpu in &mut parts.machine.vcpus {
        vcpu.stores = stores;
        vcpu.loads = loads;
        vcpu.frames.clone_from(&frames);
    }
    for node in table.list("each")?.unwrap_or_default() {
        let mut each = Table::new(source, node, "an entry of `each`")?;
        let most = parts.machine.vcpus.len() as u64 - 1;
        let Some(id) = each.integer("vcpu", 0..=most)? else {
            return source.error(
                &node.span,
                "an entry of `each` without `vcpu`",
                "write { vcpu = 0, stores = 1 }",
            );
        };
        let stores = read_budget(source, &mut each, "stores", 0)?;
        let loads = read_budget(source, &mut each, "loads", 0)?;
        let frames = each
            .list("pages")?
            .map(|nodes| parts.frames(source, nodes))
            .transpose()?;
        each.finish()?;
        let vcpu = &mut parts.machine.vcpus[id as usize];
        vcpu.stores = stores.unwrap_or(vcpu.stores);
        vcpu.loads = loads.unwrap_or(vcpu.loads);
        vcpu.frames = frames.unwrap_or_else(|| vcpu.frames.clone());
    }
    table.finish()
}

/// A writer's budget: a number, or `"any"`, which some scenarios call `"unlimited"` where it is about a vCPU's stores.
fn read_budget(
    source: Source<'_>,
    table: &mut Table<'_>,
    key: &'static str,
    least: u64,
) -> Result<Option<u8>> {
    let Some(node) = table.get(key) else {
        return Ok(None);
    };
    if let Kind::Text(word) = &node.kind {
        return match word.as_str() {
            "any" => Ok(Some(UNLIMITED)),
            "unlimited" if key == "stores" => Ok(Some(UNLIMITED)),
            _ => source.error(
                &node.span,
                format!("`{key}` is `{word}`"),
                format!("write a number from {least} to {MOST_STORES}, or {key} = \"any\""),
            ),
        };
    }
    let budget = reader::integer(source, node, key, least..=MOST_STORES)?;
    Ok(Some(budget as u8))
}

/// A record that the kernel keeps in guest memory and updates in the context of a vCPU: steal time, a clock. Or stores of the guest that
/// it emulates: any number within KVM_RUN, with no look at the ring between them.
fn read_record(source: Source<'_>, node: &Node, parts: &mut Parts, emulated: bool) -> Result<()> {
    let (name, count) = if emulated {
        ("emulated_stores", "stores")
    } else {
        ("kernel_record", "updates")
    };
    let example = format!("write {{ {count} = 1, page = 3 }}");
    if emulated && parts.machine.arch != Arch::X86 {
        return source.error(
            &node.span,
            format!("`{name}` on {}", parts.machine.arch.name()),
            "leave it out, or write arch = \"x86\": KVM emulates string instructions there alone",
        );
    }
    let mut table = Table::new(source, node, format!("`{name}`"))?;
    let Some(updates) = read_budget(source, &mut table, count, 1)? else {
        return source.error(&node.span, format!("`{name}` without `{count}`"), example);
    };
    let Some(page) = table.get("page") else {
        return source.error(&node.span, format!("`{name}` without `page`"), example);
    };
    let frame = parts.frame(source, page)?;
    let log = if emulated {
        WriterLog::Right
    } else {
        table.get("log").map_or(Ok(WriterLog::Right), |node| {
            reader::pick(source, node, "log", &LOGS)
        })?
    };
    let preempted = if emulated {
        false
    } else {
        let node = table.get("preempted");
        node.map_or(Ok(false), |node| read_preempted(source, node, parts))?
    };
    let vcpus = parts.machine.vcpus.len() as u64;
    let only = table.integer("vcpu", 0..=vcpus - 1)?;
    table.finish()?;
    for (id, vcpu) in parts.machine.vcpus.iter_mut().enumerate() {
        if only.is_none_or(|only| only == id as u64) {
            if vcpu.steal > 0 {
                return source.error(
                    &node.span,
                    format!("`kernel_record` and `emulated_stores` of vCPU {id}"),
                    "write one of them, or give each a `vcpu` of its own",
                );
            }
            vcpu.steal = updates;
            vcpu.own_stores = emulated;
            vcpu.preempted = preempted;
            vcpu.steal_frame = frame;
            vcpu.steal_log = log;
        }
    }
    Ok(())
}

/// Whether a vCPU's thread may be preempted within a push, so that the record is pushed over it.
fn read_preempted(source: Source<'_>, node: &Node, parts: &Parts) -> Result<bool> {
    let Kind::Boolean(preempted) = node.kind else {
        return source.error(
            &node.span,
            format!("`preempted` is {}", node.kind.words()),
            "write true or false",
        );
    };
    let machine = &parts.machine;
    // A push under a lock is not preempted; LoongArch writes no such record before 7.2.
    let can = match machine.arch {
        Arch::X86 => machine.pml || machine.mmu == Mmu::TwoDimensional,
        Arch::Loongarch => machine.kernel >= Kernel::V7_2,
        Arch::Arm64 | Arch::Riscv | Arch::S390 => false,
    };
    if preempted && !can {
        return source.error(
            &node.span,
            "no push is preempted here",
            "leave `preempted` out: only x86 with PML or two-dimensional paging, and loongarch from 7.2 on, push where they hold no lock and \
             write the record when the thread leaves its processor",
        );
    }
    Ok(preempted)
}

fn read_tables(
    source: Source<'_>,
    node: Option<&Node>,
    name: &str,
    parts: &mut Parts,
) -> Result<Option<Vec<Frame>>> {
    let Some(node) = node else { return Ok(None) };
    let mut table = Table::new(source, node, format!("`{name}`"))?;
    if parts.any_pages.is_some()
        && matches!(&table.get("tables"), Some(node) if matches!(&node.kind, Kind::Text(word) if word == "any"))
    {
        table.finish()?;
        return Ok(Some(vec![parts.meant.any()]));
    }
    let Some(pages) = table.list("tables")? else {
        return source.error(
            &node.span,
            format!("`{name}` has no `tables`"),
            "write { tables = [3] }: the pages that one save writes, in order",
        );
    };
    if pages.is_empty() {
        return source.error(
            &node.span,
            format!("`{name}` writes no page"),
            "write at least one page",
        );
    }
    let frames = parts.frames(source, pages)?;
    table.finish()?;
    Ok(Some(frames))
}

fn read_device(
    source: Source<'_>,
    node: &Node,
    before: &[String],
    parts: &mut Parts,
) -> Result<(String, DeviceConfig)> {
    let mut table = Table::new(source, node, "a device")?;
    let taken = before.iter().map(String::as_str);
    let name = table.name("device", format!("device{}", before.len()), taken)?;
    let Some(transfers) = read_budget(source, &mut table, "transfers", 1)? else {
        return source.error(
            &node.span,
            "a device without `transfers`",
            "write transfers = 1",
        );
    };
    let frames = read_pages(source, &mut table, parts)?;
    let log = table.get("log").map_or(Ok(WriterLog::Right), |node| {
        reader::pick(source, node, "log", &LOGS)
    })?;
    let runs_at_start = table.boolean("runs_at_start")?.unwrap_or(true);
    let iova_shift = table.integer("iova_shift", 1..=64)?.unwrap_or(0) as u32;
    let queues = table.integer("queues", 1..=8)?.unwrap_or(1) as u8;
    let used_ring = table
        .get("used_ring")
        .map(|page| parts.frame(source, page))
        .transpose()?;
    let granule = table.integer("granule", 1..=64)?.unwrap_or(1) as u32;
    let logs = [("own", false), ("vmm", true)];
    let vmm_log = table.get("log_in").map_or(Ok(false), |node| {
        reader::pick(source, node, "log_in", &logs)
    })?;
    table.finish()?;
    Ok((
        name,
        DeviceConfig {
            transfers,
            frames,
            log,
            runs_at_start,
            iova_shift,
            queues,
            used_ring,
            granule,
            vmm_log,
        },
    ))
}
