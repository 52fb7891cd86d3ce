//! The scenarios that come with the program, a file each.

use super::Scenario;
use crate::bugs::{Bug, MUTATION_SCENARIOS, Reproduction, scenario_files};

macro_rules! scenarios {
    ($($name:literal),+ $(,)?) => {
        /// Names and texts, in the order in which they are shown.
        const FILES: &[(&str, &str)] = &[$((base_name($name), include_str!(concat!("../../scenarios/", $name, ".toml")))),+];
    };
}

scenarios!(
    "kernel-docs",
    "bitmap-last-clear",
    "bitmap-last-manual-clear",
    "bitmap-last-two-words",
    "two-its-snapshots",
    "two-its-snapshots-clear",
    "cancel-retry",
    "x86-ring-pml",
    "x86-bitmap-fast-path",
    "ring-only-its-save",
    "bitmap-before-its-save",
    "copy-before-reset",
    "clear-after-copy",
    "two-slots-one-get-missed",
    "reset-signal",
    "x86-pml-enabled-late",
    "two-resets",
    "s390-mark-during-get",
    "s390-unmapped-page",
    "x86-emulated-string",
    "x86-preempted-push",
    "vmm/qemu-bitmap",
    "vmm/qemu-bitmap-vhost",
    "vmm/qemu-ring",
    "vmm/qemu-ring-full",
    "vmm/qemu-ring-bitmap-arm64",
    "vmm/qemu-ring-bitmap-arm64-postcopy",
    "vmm/cloud-hypervisor",
    "vmm/cloud-hypervisor-blk",
    "vmm/cloud-hypervisor-net",
    "vmm/firecracker-full",
    "vmm/firecracker-diff",
    "vmm/firecracker-diff-write-fails",
    "vmm/firecracker-diff-sync-fails",
    "vmm/selftest-dirty-log",
    "vmm/selftest-clear-log",
    "vmm/selftest-dirty-ring",
);

/// Scenarios whose bounds are larger than the built-in set's; they are found by name only.
const LARGE: &[(&str, &str)] = &[
    (
        "kernel-docs-large",
        include_str!("../../scenarios/kernel-docs-large.toml"),
    ),
    (
        "bitmap-last-clear-large",
        include_str!("../../scenarios/bitmap-last-clear-large.toml"),
    ),
];

/// Scenarios about what goes on for ever; they are found by name, and by a search for cycles.
const LIVENESS: &[(&str, &str)] = &[
    (
        "ring-full-polled",
        include_str!("../../scenarios/liveness/ring-full-polled.toml"),
    ),
    (
        "ring-full-polled-two",
        include_str!("../../scenarios/liveness/ring-full-polled-two.toml"),
    ),
    (
        "ring-full-waits",
        include_str!("../../scenarios/liveness/ring-full-waits.toml"),
    ),
    (
        "ring-full-no-ack",
        include_str!("../../scenarios/liveness/ring-full-no-ack.toml"),
    ),
    (
        "ring-full-pause",
        include_str!("../../scenarios/liveness/ring-full-pause.toml"),
    ),
    (
        "sync-for-ever",
        include_str!("../../scenarios/liveness/sync-for-ever.toml"),
    ),
    (
        "reply-under-lock",
        include_str!("../../scenarios/liveness/reply-under-lock.toml"),
    ),
    (
        "until-clean",
        include_str!("../../scenarios/liveness/until-clean.toml"),
    ),
    (
        "until-clean-clear-floor",
        include_str!("../../scenarios/liveness/until-clean-clear-floor.toml"),
    ),
];

/// What follows the last `/` of a path.
const fn base_name(path: &str) -> &str {
    let bytes = path.as_bytes();
    let mut at = bytes.len();
    while at > 0 && bytes[at - 1] != b'/' {
        at -= 1;
    }
    path.split_at(at).1
}

/// The names of the built-in scenarios.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FILES
        .iter()
        .chain(LARGE)
        .chain(LIVENESS)
        .chain(scenario_files())
        .map(|(name, _)| *name)
}

fn parse(name: &str, text: &str) -> Scenario {
    match Scenario::from_toml(name, text) {
        Ok(scenario) => scenario,
        Err(error) => panic!("a built-in scenario is right, or its test fails: {error}"),
    }
}

/// The text of the built-in scenario of that name, those of historical bugs and of mutations included.
#[must_use]
pub fn builtin_text(name: &str) -> Option<&'static str> {
    FILES
        .iter()
        .chain(LARGE)
        .chain(LIVENESS)
        .chain(scenario_files())
        .find(|(known, _)| *known == name)
        .map(|(_, text)| without_schema(text))
}

/// A text without the line by which an editor finds the schema beside it: elsewhere there is none.
fn without_schema(text: &'static str) -> &'static str {
    match text.split_once('\n') {
        Some((first, rest)) if first.starts_with("#:schema ") => rest,
        _ => text,
    }
}

/// The built-in scenario of that name, parsed.
#[must_use]
pub fn builtin(name: &str) -> Option<Scenario> {
    builtin_text(name).map(|text| parse(name, text))
}

/// Every built-in scenario, in the order in which they are shown.
#[must_use]
pub fn builtins() -> Vec<Scenario> {
    FILES.iter().map(|(name, text)| parse(name, text)).collect()
}

/// The scenarios that are about what goes on for ever.
#[must_use]
pub fn about_liveness() -> Vec<Scenario> {
    LIVENESS
        .iter()
        .map(|(name, text)| parse(name, text))
        .collect()
}

/// The scenarios of mutations that no bug of the corpus stands for.
#[must_use]
pub fn mutation_scenarios() -> Vec<Scenario> {
    MUTATION_SCENARIOS
        .iter()
        .map(|(name, text)| parse(name, text))
        .collect()
}

impl Bug {
    /// Its scenarios, parsed; none if it cannot be expressed.
    #[must_use]
    pub fn scenarios(&self) -> Vec<Scenario> {
        match self.how {
            Reproduction::NotExpressible(_) => Vec::new(),
            Reproduction::Scenarios(files) => {
                files.iter().map(|(name, text)| parse(name, text)).collect()
            }
        }
    }
}
