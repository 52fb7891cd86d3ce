//! Settings that can do nothing on the machine that is written: they are refused, as whoever wrote one meant something.

use dirtysim_model::op::{self, Op};

use super::machine::Parts;
use super::node::{Kind, Node};
use super::reader::{Result, Source};
use crate::fidelity::unknown_kernel;

/// Refuses each setting whose effect is none.
pub(super) fn check(source: Source<'_>, tree: &Node, parts: &Parts) -> Result<()> {
    let machine = &parts.machine;
    let ring = parts
        .setup
        .iter()
        .any(|op| matches!(op, Op::EnableCap(op::EnableCap { cap, .. }) if super::is_ring(*cap)));
    if let Some(node) = find(tree, "machine", "kernel")
        && let Some((problem, help)) = unknown_kernel(machine.arch, machine.kernel)
    {
        return source.error(&node.span, problem, help);
    }
    let huge = machine.slots.iter().any(|slot| slot.huge);
    let ages = |op: &Op| matches!(op, Op::HostAge(age) if !age.unmap);
    let rules: [(&str, &str, bool, &str); 5] = [
        (
            "machine",
            "accessed_bits",
            machine.programs.iter().flatten().any(ages),
            "no host-age, which alone tells such leaves from others: add one",
        ),
        (
            "machine",
            "pml_entries",
            machine.pml,
            "no PML: write pml = true too",
        ),
        (
            "machine",
            "huge_pages",
            huge,
            "no slot is in huge pages: write huge = true in a slot of [[slots]]",
        ),
        (
            "machine",
            "reset_batch_pages",
            ring,
            "no ring: write ring = { entries = 4, reserved = 2 } too",
        ),
        (
            "protocol",
            "on_ring_full",
            ring,
            "no ring: write ring = { entries = 4, reserved = 2 } in [machine] too",
        ),
    ];
    for (table, key, acts, lacks) in rules {
        if !acts && let Some(node) = find(tree, table, key) {
            return source.error(
                &node.span,
                format!("`{key}` can do nothing here"),
                format!("there is {lacks}; or leave `{key}` away"),
            );
        }
    }
    let fails = |op: &Op| matches!(op, Op::Copy | Op::CopyAll | Op::CopyList(_) | Op::MayFail);
    if machine.send_failures > 0
        && !machine.programs.iter().flatten().any(fails)
        && let Some(node) = find(tree, "writers", "send_failures")
    {
        return source.error(
            &node.span,
            "`send_failures` can do nothing here",
            "there is no step that can fail so: write \"copy\" or \"sync-file\", or leave `send_failures` away",
        );
    }
    Ok(())
}

/// The value of a key in a table at the top.
fn find<'a>(tree: &'a Node, table: &str, key: &str) -> Option<&'a Node> {
    value(value(tree, table)?, key)
}

fn value<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    let Kind::Table(rows) = &node.kind else {
        return None;
    };
    rows.iter()
        .find(|(name, _)| matches!(&name.kind, Kind::Text(text) if text == key))
        .map(|(_, value)| value)
}
