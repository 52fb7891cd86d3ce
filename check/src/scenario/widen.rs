//! A scenario with any number in place of each number that it may have any of.

use serde_json::{Map, Value, json};

use super::Scenario;

/// The keys of `[writers]`' tables that are budgets.
const BUDGETS: [&str; 5] = ["stores", "loads", "updates", "transfers", "send_failures"];

/// The keys of `[writers]` whose tables may be any.
const TABLES: [&str; 4] = ["its_save", "pending_save", "its_restore", "kernel_write"];

/// A scenario with any number in place of each number.
#[derive(Debug, Clone)]
pub struct Widened {
    /// The scenario.
    pub scenario: Scenario,
    /// Why it is not about any number of pages, where it is not.
    pub pages_stay: Option<String>,
}

impl Scenario {
    /// The same with any number of stores, loads, updates, transfers, failures and rounds, and of pages where that is argued; a round that
    /// is written out becomes one that is gone round any number of times. None where nothing of it has a number: the number of pages that
    /// stays as it is is one.
    #[must_use]
    pub fn widened(&self) -> Option<Widened> {
        let mut source = self.source.clone();
        if let Some(writers) = source.get_mut("writers") {
            budgets(writers);
        }
        if let Some(protocol) = source.get_mut("protocol") {
            rounds(protocol);
        }
        let mut paged = source.clone();
        pages(&mut paged);
        let (wide, pages_stay) = match Self::from_json(&self.file, &paged) {
            Ok(wide) => (wide, None),
            Err(error) => {
                let why = error.problem.trim_start_matches("any number of pages: ");
                let wide = Self::from_json(&self.file, &source).ok()?;
                (wide, Some(why.to_owned()))
            }
        };
        (wide.source != self.source || pages_stay.is_some()).then_some(Widened {
            scenario: wide,
            pages_stay,
        })
    }
}

/// Every budget is any.
fn budgets(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let has_some = value.as_u64().is_some_and(|number| number > 0);
                if BUDGETS.contains(&key.as_str()) && has_some {
                    *value = "any".into();
                } else {
                    budgets(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(budgets),
        _ => {}
    }
}

/// Every `repeat` is any number of rounds.
fn rounds(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.contains_key("repeat")
                && let Some(steps) = map.remove("steps")
            {
                map.clear();
                map.insert("any_number".to_owned(), steps);
            }
            map.values_mut().for_each(rounds);
        }
        Value::Array(items) => items.iter_mut().for_each(rounds),
        _ => {}
    }
}

/// Any number of pages, which no writer and no step names.
fn pages(source: &mut Value) {
    let Some(machine) = source.get_mut("machine").and_then(Value::as_object_mut) else {
        return;
    };
    for key in ["word_bits", "reset_batch_pages"] {
        machine.shift_remove(key);
    }
    if machine.contains_key("pages") {
        machine.insert("pages".to_owned(), "any".into());
    }
    let slots = source.get_mut("slots").and_then(Value::as_array_mut);
    for slot in slots.into_iter().flatten() {
        if let Some(slot) = slot.as_object_mut() {
            slot.insert("pages".to_owned(), "any".into());
        }
    }
    let mut tables = Map::new();
    if let Some(protocol) = source.get_mut("protocol") {
        unnamed(protocol, &mut tables);
    }
    let Some(top) = source.as_object_mut() else {
        return;
    };
    let writers = top.entry("writers").or_insert_with(|| json!({}));
    let Some(writers) = writers.as_object_mut() else {
        return;
    };
    if let Some(vcpu) = writers.get_mut("vcpu").and_then(Value::as_object_mut) {
        vcpu.shift_remove("pages");
    }
    for (key, value) in writers.iter_mut() {
        if TABLES.contains(&key.as_str()) {
            *value = json!({ "tables": "any" });
        }
    }
    writers.extend(tables);
    if writers.is_empty() {
        top.shift_remove("writers");
    }
}

/// Saves of tables, and other kernel writers, that name their pages come to write any; one that writes a page twice in a call does it again
/// and again, each page once.
fn unnamed(value: &mut Value, tables: &mut Map<String, Value>) {
    match value {
        Value::Object(map) => {
            let writer = match map.get("step").and_then(Value::as_str) {
                Some("its-save-tables") => Some("its_save"),
                Some("save-pending-tables") => Some("pending_save"),
                Some("its-restore-tables") => Some("its_restore"),
                Some("kernel-write") => Some("kernel_write"),
                _ => None,
            };
            if let Some(writer) = writer
                && let Some(pages) = map.shift_remove("pages")
            {
                tables.insert(writer.to_owned(), json!({ "tables": "any" }));
                if has_twice(&pages) {
                    let step = Value::Object(std::mem::take(map));
                    map.insert("any_number".to_owned(), json!([step]));
                    return;
                }
            }
            map.values_mut().for_each(|value| unnamed(value, tables));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| unnamed(item, tables)),
        _ => {}
    }
}

/// Whether a list names something twice.
fn has_twice(pages: &Value) -> bool {
    let pages = pages.as_array().map_or(&[][..], Vec::as_slice);
    let named = |at: usize| pages[..at].contains(&pages[at]);
    (0..pages.len()).any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(name: &str) -> Scenario {
        let scenario = Scenario::find(name).expect("it comes with the program");
        scenario.widened().expect("it has numbers").scenario
    }

    #[test]
    fn what_has_a_number_has_any() {
        let docs = wide("kernel-docs");
        assert!(docs.any_pages);
        assert_eq!(docs.source["writers"]["vcpu"]["stores"], "any");
        assert_eq!(docs.source["writers"]["its_save"]["tables"], "any");
        assert_eq!(
            docs.source["protocol"]["steps"][2]["any_number"][0],
            "harvest-rings"
        );
        // It is read again as it is, and has no numbers left.
        let again = Scenario::from_json("again", &docs.source).expect("it is right");
        assert_eq!(again.machine, docs.machine);
        assert!(docs.widened().is_none());
    }

    #[test]
    fn a_writer_that_names_its_pages_writes_any() {
        let text = "name = \"writer\"\n[machine]\narch = \"x86\"\nvcpus = 1\npages = 2\n[protocol]\nsteps = [\"enable-logging\", \"copy-all\", { step = \"kernel-write\", pages = [0, 1, 0] }, { step = \"kernel-write\", pages = [1] }, \"get-dirty-log\", \"copy\", \"finish\"]\n";
        let scenario = Scenario::from_toml("writer", text).expect("it is right");
        let wide = scenario.widened().expect("it has numbers").scenario;
        let steps = &wide.source["protocol"]["steps"];
        assert!(wide.any_pages);
        assert_eq!(
            steps[2],
            json!({ "any_number": [{ "step": "kernel-write" }] })
        );
        assert_eq!(steps[3], json!({ "step": "kernel-write" }));
        assert_eq!(wide.source["writers"]["kernel_write"]["tables"], "any");
    }

    #[test]
    fn pages_that_are_named_keep_their_number() {
        let net = wide("cloud-hypervisor-net");
        assert!(!net.any_pages);
        assert_eq!(net.source["writers"]["devices"][0]["transfers"], "any");
    }
}
