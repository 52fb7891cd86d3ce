//! Machines on which a scenario is tried: each value of one axis with each of the others.

use serde_json::{Map, Value, json};

use super::CliError;
use crate::scenario::Scenario;

/// Machines, at most.
const MOST_MACHINES: usize = 200;

/// One of them: what is varied, and to which value.
pub(super) type Machine = [(&'static str, String)];

/// What is varied, and through which values.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub(super) key: &'static str,
    pub(super) values: Vec<String>,
}

/// The keys of `--over`, and where each stands in a scenario.
const KEYS: [(&str, &str, &str); 6] = [
    ("arch", "machine", "arch"),
    ("kernel", "machine", "kernel"),
    ("protect", "machine", "manual_protect"),
    ("vcpus", "machine", "vcpus"),
    ("pages", "machine", "pages"),
    ("stores", "writers", "vcpu"),
];

pub(super) fn parse_axis(text: &str) -> Result<Axis, String> {
    let known = || {
        let keys: Vec<&str> = KEYS.iter().map(|(key, ..)| *key).collect();
        format!("write KEY=VALUES with one of {}", keys.join(", "))
    };
    let (key, values) = text.split_once('=').ok_or_else(known)?;
    let (key, ..) = KEYS
        .iter()
        .find(|(name, ..)| *name == key)
        .ok_or_else(known)?;
    let values = match values.split_once("..") {
        Some((first, last)) => {
            let number = |text: &str| {
                text.parse::<u32>()
                    .map_err(|_| format!("`{text}` is no number"))
            };
            let (first, last) = (number(first)?, number(last)?);
            if first > last || last - first > 100 {
                return Err(format!(
                    "`{values}`: write a first and a last number, both meant: 1..3"
                ));
            }
            (first..=last).map(|n| n.to_string()).collect()
        }
        None => values.split('+').map(str::to_owned).collect::<Vec<_>>(),
    };
    if values.iter().any(String::is_empty) {
        return Err(format!(
            "{key} has an empty value; several stand as {key}=a+b"
        ));
    }
    Ok(Axis { key, values })
}

/// A value as a scenario has it.
fn value_of(key: &str, text: &str) -> Value {
    match (key, text) {
        ("protect", "on") => true.into(),
        ("protect", "off") => false.into(),
        ("vcpus" | "pages" | "stores", text) => text
            .parse::<u64>()
            .map_or_else(|_| text.into(), Value::from),
        (_, text) => text.into(),
    }
}

/// The scenario on another machine.
pub(super) fn on(scenario: &Scenario, machine: &Machine) -> Result<Scenario, String> {
    let mut source = scenario.source.clone();
    for (key, text) in machine {
        let (_, table, name) = KEYS
            .iter()
            .find(|(known, ..)| known == key)
            .expect("a key of the table");
        let value = value_of(key, text);
        let table = source.as_object_mut().and_then(|top| {
            top.entry(*table)
                .or_insert_with(|| json!({}))
                .as_object_mut()
        });
        let Some(table) = table else { continue };
        if *key == "stores" {
            if let Some(vcpu) = table
                .entry(*name)
                .or_insert_with(|| json!({}))
                .as_object_mut()
            {
                vcpu.insert("stores".into(), value);
            }
        } else if value == Value::Bool(false) {
            table.remove(*name);
        } else {
            table.insert((*name).into(), value);
        }
    }
    // What is expected on one machine need not be on another.
    if let Some(top) = source.as_object_mut() {
        top.remove("expect");
    }
    Scenario::from_json(&scenario.name, &source).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().to_owned()
    })
}

/// Every machine of `--over`; one where nothing is varied.
///
/// # Errors
/// More than [`MOST_MACHINES`].
pub(super) fn machines(axes: &[Axis]) -> Result<Vec<Vec<(&'static str, String)>>, CliError> {
    let mut found: Vec<Vec<(&'static str, String)>> = vec![Vec::new()];
    for axis in axes {
        found = found
            .iter()
            .flat_map(|machine| {
                axis.values.iter().map(move |value| {
                    let mut machine = machine.clone();
                    machine.push((axis.key, value.clone()));
                    machine
                })
            })
            .collect();
    }
    if found.len() > MOST_MACHINES {
        return Err(CliError(format!(
            "--over: {} machines; at most {MOST_MACHINES}\nhelp: leave values out",
            found.len()
        )));
    }
    Ok(found)
}

/// A machine in words.
pub(super) fn words(machine: &Machine) -> String {
    let words: Vec<String> = machine
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    match words.as_slice() {
        [] => "as written".to_owned(),
        words => words.join(" "),
    }
}

/// A machine for a document.
pub(super) fn keys(machine: &Machine) -> Value {
    let mut keys = Map::new();
    for (key, value) in machine {
        keys.insert((*key).to_owned(), value.clone().into());
    }
    keys.into()
}
