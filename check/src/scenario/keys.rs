//! The keys that the reader knows, by table, as it asks for them itself.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::{Scenario, builtin, builtin_text};

thread_local! {
    /// What [`note`] is told while somebody wants to know.
    static NOTED: RefCell<Option<BTreeMap<String, Vec<&'static str>>>> = const { RefCell::new(None) };
}

/// Takes note of the keys that a table was asked for.
pub(super) fn note(table: &str, keys: &[&'static str]) {
    NOTED.with_borrow_mut(|noted| {
        let Some(noted) = noted else { return };
        let known = noted.entry(table.to_owned()).or_default();
        for key in keys {
            if !known.contains(key) {
                known.push(key);
            }
        }
    });
}

/// Every table of the language that a scenario of the program has, by its name in messages, with every key that the reader
/// asked it for.
#[must_use]
pub fn tables() -> BTreeMap<String, Vec<&'static str>> {
    NOTED.set(Some(BTreeMap::new()));
    for name in builtin::names() {
        if let Some(text) = builtin_text(name) {
            // They are right: a test reads each of them.
            let _ = Scenario::from_toml(name, text);
        }
    }
    NOTED.take().unwrap_or_default()
}
