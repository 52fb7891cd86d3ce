//! A scenario for each mutation that no bug of the corpus stands for.

macro_rules! scenarios {
    ($($name:literal),+ $(,)?) => {
        /// Names and texts.
        pub const MUTATION_SCENARIOS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../scenarios/mutations/", $name, ".toml")))),+];
    };
}

scenarios!(
    "clear-no-rearm",
    "enable-no-protect",
    "enable-protect-first",
    "fault-no-mark",
    "fault-unlock-between",
    "get-clear-after-copy",
    "get-no-flush",
    "get-tail",
    "initially-set-whole-words",
    "nonvcpu-drop",
    "nonvcpu-vcpu0",
    "pml-no-flush",
    "pml-not-waited",
    "push-relaxed",
    "reset-batch-first-only",
    "reset-clears-request",
    "reset-count",
    "reset-no-flush",
    "ring-no-request",
    "ring-soft-full-late",
    "sync-overwrite",
    "writer-mark-first",
);
