//! What is wrong with a step is said with the word that the language has for it.

use dirtysim::scenario::Scenario;

#[test]
fn a_kernel_writer_without_pages_is_named_by_its_own_word() {
    for word in [
        "its-save-tables",
        "save-pending-tables",
        "its-restore-tables",
        "kernel-write",
    ] {
        let text = format!(
            r#"
name = "no-pages"
[machine]
arch = "arm64"
vcpus = 1
pages = 2
[protocol]
steps = ["enable-logging", "pause-vcpus", "{word}", "finish"]
"#
        );
        let error = Scenario::from_toml("no-pages.toml", &text).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains(&format!("`{word}` does not say which pages it writes")),
            "{error}"
        );
    }
}
