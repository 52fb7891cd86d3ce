//! Scenarios that contradict themselves are refused, at the place and with the rule that they break.

use dirtysim::scenario::Scenario;

const MACHINE: &str = "[machine]\narch = \"arm64\"\nvcpus = 1\npages = 2\n";
const END: &str = "[protocol]\nsteps = [\"enable-logging\", \"copy-all\", \"finish\"]\n";

/// What reading `text` complains about: line, column, problem, help.
fn complaint(text: &str) -> (usize, usize, String, String) {
    let text = format!("name = \"x\"\n{text}");
    let error = Scenario::from_toml("x.toml", &text).expect_err("the text contradicts itself");
    let shown = error.to_string();
    assert!(shown.contains("^") && shown.contains("x.toml:"), "{shown}");
    (
        error.line,
        error.column,
        error.problem.clone(),
        error.help.clone(),
    )
}

#[track_caller]
fn refuses(text: &str, line: usize, problem: &str, help: &str) {
    let (at, _, said, advice) = complaint(text);
    assert!(said.contains(problem), "said `{said}`");
    assert!(advice.contains(help), "advised `{advice}`");
    assert_eq!(at, line, "`{said}` at line {at}");
}

#[test]
fn a_ring_on_s390() {
    let text = format!("[machine]\narch = \"s390\"\nvcpus = 1\npages = 2\nring = 4\n{END}");
    refuses(&text, 6, "a dirty ring on s390", "never s390");
}

#[test]
fn ring_with_bitmap_on_x86() {
    let text = format!(
        "[machine]\narch = \"x86\"\nvcpus = 1\npages = 2\nring = {{ entries = 4, reserved = 2 }}\nring_with_bitmap = true\n{END}"
    );
    refuses(&text, 7, "ring with bitmap on x86", "only arm64");
}

#[test]
fn a_writer_outside_every_slot() {
    let text = format!("{MACHINE}[writers]\nvcpu = {{ stores = 1, pages = [2] }}\n{END}");
    refuses(&text, 7, "`page` is 2", "from 0 to 1");
    let text = format!("{MACHINE}[writers]\nits_save = {{ tables = [\"rom:0\"] }}\n{END}");
    refuses(&text, 7, "outside every slot", "slots: ram");
}

#[test]
fn a_budget_of_zero() {
    for writer in [
        "vcpu = { stores = 0 }",
        "devices = [{ name = \"d\", transfers = 0 }]",
        "kernel_record = { updates = 0, page = 0 }",
        "send_failures = 0",
    ] {
        let text = format!("{MACHINE}[writers]\n{writer}\n{END}");
        refuses(&text, 7, "is 0", "from 1 to 31");
    }
}

#[test]
fn a_step_that_is_nearly_a_word() {
    let text = format!("{MACHINE}[protocol]\nsteps = [\"enable-loging\"]\n");
    refuses(
        &text,
        7,
        "unknown step `enable-loging`",
        "did you mean `enable-logging`?",
    );
}

#[test]
fn a_chunk_that_is_no_whole_word() {
    let text = format!(
        "{}word_bits = 2\nmanual_protect = true\n[protocol]\nsteps = [\"enable-logging\", {{ each_chunk = [\"copy\"], pages = 3 }}, \"finish\"]\n",
        MACHINE
    );
    refuses(&text, 9, "chunks of 3 pages", "CLEAR takes whole words");
}

#[test]
fn an_attempt_that_cannot_fail() {
    let text = format!(
        "{MACHINE}[protocol]\nsteps = [{{ try = [\"publish\"], on_error = [\"cancel\"] }}, \"finish\"]\n"
    );
    refuses(&text, 7, "nothing in `try` can fail", "sync-file");
    let text = format!("{MACHINE}[protocol]\nsteps = [\"sync-file\", \"finish\"]\n");
    refuses(&text, 7, "cannot fail", "send_failures = 1");
}

#[test]
fn pages_that_are_always_dirty_and_are_none() {
    let text = format!("{MACHINE}[protocol]\nsteps = [\"take-always-dirty\", \"finish\"]\n");
    refuses(&text, 7, "no page is", "always_dirty");
}
