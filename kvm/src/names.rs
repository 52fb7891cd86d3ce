//! The name of the test that runs.

/// The path of the test that runs, as `cargo test` takes it.
pub(crate) fn test_path() -> Option<String> {
    let name = std::thread::current().name()?.to_owned();
    (name != "main").then_some(name)
}

/// The same as a name of files.
pub(crate) fn test_name() -> Option<String> {
    Some(plain_name(&test_path()?))
}

/// Letters, digits, - and _ alone, 100 at most.
pub(crate) fn plain_name(name: &str) -> String {
    let plain = name.replace("::", "-");
    let right = |c: char| {
        if c.is_ascii_alphanumeric() || "-_".contains(c) {
            c
        } else {
            '-'
        }
    };
    let plain: String = plain.chars().map(right).take(100).collect();
    if plain.is_empty() {
        "code-under-test".to_owned()
    } else {
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_of_a_scenario() {
        assert_eq!(plain_name("module::my test"), "module-my-test");
        assert_eq!(plain_name(""), "code-under-test");
        assert_eq!(plain_name(&"x".repeat(200)).len(), 100);
    }
}
