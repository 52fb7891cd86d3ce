//! A schedule of the simulator as one C file: what a VMM can make happen, in the schedule's order.
//!
//! From outside, an ioctl and a guest's store happen whole. So the schedule is put in an order of whole operations and
//! accesses, and the *model* is asked whether the claim still breaks in that order: what lay within something else comes
//! before or behind it, and every such order is tried. Where none breaks the claim, as a schedule with the fewest blocks
//! likes to lie within a store, every order of whole operations and accesses of the same scenario is tried, the shortest
//! first. Only an order that breaks the claim is written down. Two things that lie within an ioctl can be made to happen
//! all the same: a signal, by a timer, and the elements of a string instruction that KVM emulates.
//!
//! The file has no expected results but one: pages that differ from the copy and that nobody will copy any more.

mod item;
mod order;
mod whole;
mod writer;

use std::fmt::Write;

use dirtysim_model::oracle::Invariant;
use dirtysim_model::words::Arch;
use serde_json::{Value, json};

use super::{MOST_VCPUS, RUNTIME, in_comment};
use crate::explain::{Story, for_a_mail};
use crate::plain::paragraph;
use crate::scenario::Scenario;
use dirtysim_model::transition::Step;
use item::{Item, What};
use order::{forced, items, searched, unforced, within};
use whole::breaks;
use writer::Writer;

const SCHEDULE: &str = include_str!("runtime.c");

/// Why a schedule cannot be written as C: what, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unforced {
    /// What.
    pub problem: String,
    /// What to do.
    pub help: String,
}

impl Unforced {
    fn new(problem: impl std::convert::Into<String>, help: &str) -> Self {
        Self {
            problem: problem.into(),
            help: help.to_owned(),
        }
    }
}

/// Where the guest's own memory stands, and that which the scenario is about.
const OWN_SLOT: u32 = 500;
const OWN_BYTES: u64 = 16 * 4096;
/// A ring of 4,096 entries, which no schedule's stores fill.
const RING_BYTES: u64 = 65_536;
/// Room for every page of a schedule in which a signal has to meet RESET, and the pages that one of its pages stands for then: enough that
/// RESET takes longer than a timer needs.
const RESET_RING_BYTES: u64 = 16_384 * 16;
const RESET_SCALE: u64 = 4_096;
/// The smallest ring that a kernel takes, and the pages that one stands for where it has to overflow.
const OVERFLOW_RING_BYTES: u64 = 4_096;
const OVERFLOW_SCALE: u64 = 256;

/// The schedule as a C file; `story` is its story, `file` what the trace is called.
///
/// # Errors
/// What of it no VMM can make happen, or has no C.
pub fn schedule_to_c(
    scenario: &Scenario,
    steps: &[Step],
    story: &Story,
    file: &str,
) -> Result<String, Unforced> {
    let target = refuse(scenario, story)?;
    let items = items(scenario, steps);
    let own = forced(scenario, &items, target);
    let is_own = own.is_some();
    let order = match own {
        Some(order) => order,
        None => {
            searched(scenario, target).map_err(|none| unforced(scenario, &items, target, none))?
        }
    };
    let is_cut = order.iter().any(Item::is_cut);
    let overflows = target == Invariant::RingNeverOverflows;
    if overflows
        && !order
            .iter()
            .any(|item| matches!(item.what, What::String(..)))
    {
        return Err(Unforced::new(
            "the ring overflows without a string instruction that KVM emulates",
            "a kernel's reserve is not scaled down as this one is: nothing overflows it in this way",
        ));
    }
    if scenario.ring_entries() > 0 && !overflows && !breaks(&roomy(scenario)?, &order, target) {
        return Err(Unforced::new(
            "what is shown hangs on a ring that is scaled down",
            "a kernel's smallest ring has 256 entries: write ring = { entries = 32, reserved = 4 } and check again",
        ));
    }
    let (scale, ring_bytes) = match (is_cut, overflows) {
        (true, _) => (RESET_SCALE, RESET_RING_BYTES),
        (_, true) => (OVERFLOW_SCALE, OVERFLOW_RING_BYTES),
        _ => (1, RING_BYTES),
    };
    let written = Writer {
        scenario,
        scale,
        ring_bytes,
        overflows,
    };
    let mut body = written.set_up()?;
    for item in &order {
        body.push_str(&written.item(item)?);
    }
    // A timer misses more often than it meets.
    let attempts = if is_cut {
        "\tfor (int attempt = 0; attempt < 64; attempt++)\n"
    } else {
        ""
    };
    let mut out = comment(&written, story, file, &order, is_own);
    out.push_str("#define RING_PAGE_OFFSET (unsigned long long)KVM_DIRTY_LOG_PAGE_OFFSET\n");
    out.push_str(RUNTIME);
    let _ = writeln!(out, "\n#define OWN_SLOT {OWN_SLOT}u");
    out.push_str(SCHEDULE);
    let seen = if overflows {
        "overwritten"
    } else {
        "lost_pages(0)"
    };
    let missed = if is_cut {
        "\tprintf(\"no signal cut RESET short and lost what it had counted (Linux 6.17 and later look for one)\\n\");\n"
    } else {
        ""
    };
    let _ = write!(
        out,
        "\n/* How many pages are lost, or entries written over. */\nstatic uint64_t schedule(void)\n{{\n\tuint64_t seen;\n\n{body}\tseen = {seen};\n\tclose_vm(0);\n\tforget_all();\n\treturn seen;\n}}\n\
         \nint main(void)\n{{\n\tstart(\"{}\");\n{attempts}\tif (schedule()) {{\n\t\tprintf(\"reproduced\\n\");\n\t\treturn REPRODUCED;\n\t}}\n{missed}\tprintf(\"NOT reproduced\\n\");\n\treturn DIFFERENT;\n}}\n",
        arch(scenario).unwrap_or_default(),
    );
    Ok(out)
}

/// The scenario with the largest ring that one has: what still breaks then does not hang on how far the ring was scaled down.
fn roomy(scenario: &Scenario) -> Result<Scenario, Unforced> {
    let mut source = scenario.source.clone();
    if let Some(machine) = source.get_mut("machine").and_then(Value::as_object_mut) {
        machine.insert("ring".into(), json!({ "entries": 32, "reserved": 4 }));
    }
    Scenario::from_json(&scenario.name, &source)
        .map_err(|error| Unforced::new(error.problem.clone(), &error.help))
}

fn arch(scenario: &Scenario) -> Option<&'static str> {
    match scenario.machine.arch {
        Arch::X86 => Some("x86_64"),
        Arch::Arm64 => Some("arm64"),
        _ => None,
    }
}

/// What has no C whatever its order is.
fn refuse(scenario: &Scenario, story: &Story) -> Result<Invariant, Unforced> {
    let machine = &scenario.machine;
    let on_its_own = "take what a VMM's own calls do to a kernel that is right";
    let Some(target) = story.invariant else {
        return Err(Unforced::new(
            "the schedule breaks no claim",
            "there is nothing to reproduce; `dirtysim replay` says what it does",
        ));
    };
    if !matches!(
        target,
        Invariant::NoDirtyPageLost | Invariant::RingNeverOverflows
    ) {
        return Err(Unforced::new(
            format!("no VMM sees that {} is broken", target.name()),
            "take a schedule that loses a page (no_dirty_page_lost) or overflows a ring (ring_never_overflows)",
        ));
    }
    if let Some(mutation) = machine.mutations().iter().next() {
        return Err(Unforced::new(
            format!("the wrong behaviour `{}` is switched on", mutation.name()),
            "no kernel is known to have it; take a schedule without mutations",
        ));
    }
    if arch(scenario).is_none() {
        return Err(Unforced::new(
            format!("no guest is written for {}", machine.arch.name()),
            "there are guests for x86 and arm64",
        ));
    }
    if !machine.devices.is_empty() || scenario.any_pages {
        return Err(Unforced::new(
            "devices, and any number of pages, have no C",
            on_its_own,
        ));
    }
    if machine.slots.iter().any(|slot| slot.huge) {
        return Err(Unforced::new(
            "huge pages have no C in a schedule",
            "a recording of them has: traces/kernel/arm64-linux-6.12.117.ring-huge-page.trace.jsonl",
        ));
    }
    if machine.vcpus.len() > MOST_VCPUS as usize {
        return Err(Unforced::new(
            format!("{} vCPUs", machine.vcpus.len()),
            "there are 8 places",
        ));
    }
    Ok(target)
}

/// What the file is about, for whoever opens it.
fn comment(
    written: &Writer<'_>,
    story: &Story,
    file: &str,
    order: &[Item],
    is_own: bool,
) -> String {
    let scenario = written.scenario;
    let is_cut = order.iter().any(Item::is_cut);
    let mut text = String::new();
    let mut add = |words: &str| {
        paragraph(&mut text, &in_comment(words), " * ", " * ", 80);
        text.push_str(" *\n");
    };
    add(&format!("{}: {}", scenario.name, scenario.sentence));
    add(&format!(
        "Made by dirtysim {} from {file}, a schedule of its model of KVM ({}). Every call and every access in the code is made whole, in this order; in the model {} breaks in this order.",
        env!("CARGO_PKG_VERSION"),
        story.machine,
        story.invariant.map_or("no claim", Invariant::name),
    ));
    for line in for_a_mail(story).lines() {
        let line = in_comment(line);
        let line = line.trim_end();
        text.push_str(if line.is_empty() { " *" } else { " * " });
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(" *\n");
    let mut add = |words: &str| {
        paragraph(&mut text, &in_comment(words), " * ", " * ", 80);
        text.push_str(" *\n");
    };
    if !is_own {
        add(
            "Not forced: the schedule above, in which some of these lie within others, step by step in the kernel. What is made happen here is another one of the same scenario, with every call and every access whole, one after the other, which breaks the same claim.",
        );
    } else if !within(order).is_empty() {
        add(
            "Not forced: in the schedule some of these overlap, step by step in the kernel. Here they come one after the other, and the claim breaks this way as well.",
        );
    }
    if is_cut {
        add(&format!(
            "Not forced: where in KVM_RESET_DIRTY_RINGS the signal is seen. A timer aims, and it is tried again until RESET is cut short; each page of the schedule is {} here, so that RESET takes long enough. What is lost must be among those that RESET counted as reset.",
            written.scale
        ));
    }
    if written.overflows {
        add(&format!(
            "The ring has {} entries here. Stores bring it to just below its soft limit, then the guest copies a page, 512 elements, by one string instruction.",
            written.ring_bytes / 16
        ));
    } else if scenario.ring_entries() > 0 {
        add(&format!(
            "The ring has {} entries here and {} in the schedule: what is shown does not hang on its size.",
            written.ring_bytes / 16,
            scenario.ring_entries()
        ));
    }
    add(
        "gcc -Wall -O1 -o reproducer FILE.c && ./reproducer, as somebody who may open /dev/kvm. Exit code: 0 reproduced, 1 not reproduced on this kernel, 4 skipped: no KVM here, another architecture, or a capability that it lacks.",
    );
    let text = text.trim_end().trim_end_matches('*').trim_end();
    format!("// SPDX-License-Identifier: MIT OR Apache-2.0\n/*\n{text}\n */\n")
}
