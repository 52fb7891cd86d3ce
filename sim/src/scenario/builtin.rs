//! The scenarios that come with the program, a file each.

use super::Scenario;

macro_rules! scenarios {
    ($($name:literal),+ $(,)?) => {
        /// Names and texts, in the order in which they are shown.
        const FILES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../scenarios/", $name, ".toml")))),+];
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
);

/// The names of the built-in scenarios.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

fn parse(name: &str, text: &str) -> Scenario {
    match Scenario::from_toml(name, text) {
        Ok(scenario) => scenario,
        Err(error) => panic!("a built-in scenario is right, or its test fails: {error}"),
    }
}

/// The built-in scenario of that name.
#[must_use]
pub fn builtin(name: &str) -> Option<Scenario> {
    FILES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(name, text)| parse(name, text))
}

/// Every built-in scenario, in the order in which they are shown.
#[must_use]
pub fn builtins() -> Vec<Scenario> {
    FILES.iter().map(|(name, text)| parse(name, text)).collect()
}
