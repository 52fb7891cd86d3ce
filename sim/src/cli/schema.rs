//! `dirtysim schema`: JSON Schemas of what the program reads, for editors.
//!
//! By hand: schemars' derive is a macro over a second `syn`, and a scenario's keys are the reader's calls, not a type's fields.

use clap::{Args, ValueEnum};
use dirtysim_model::machine::{Arch, Kernel};
use dirtysim_model::oracle::Invariant;
use dirtysim_model::words::mutation::Mutation;
use serde_json::{Map, Value, json};

use super::{CliResult, Report};
use crate::scenario::keys::tables;
use crate::scenario::vocabulary::VOCABULARY;

/// The schema of traces; a test holds it to what the program writes.
pub const TRACE: &str = include_str!("../../help/trace-format.schema.json");

/// Arguments of `dirtysim schema`.
#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// Of what
    #[arg(value_enum)]
    of: Of,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Of {
    /// Scenarios: every key that the reader knows, and the words of steps
    Scenario,
    /// Traces
    Trace,
}

pub(super) fn run(args: &SchemaArgs) -> CliResult {
    let text = match args.of {
        Of::Scenario => format!("{:#}\n", scenario()),
        Of::Trace => TRACE.to_owned(),
    };
    let mut extra = Map::new();
    extra.insert("schema".into(), serde_json::from_str(&text)?);
    Ok(Report {
        command: "schema",
        extra,
        file: text,
        ..Report::default()
    })
}

/// The schema of scenarios, of the keys that the reader asks for: what a value must be, the reader says best itself.
fn scenario() -> Value {
    let tables = tables();
    let mut definitions = Map::new();
    let step = step(tables.get("a step").map_or(&[][..], Vec::as_slice));
    definitions.insert("step".into(), step);
    for (name, keys) in &tables {
        if !["the scenario", "a step", "the step"].contains(&name.as_str()) {
            definitions.insert(plain(name), table(name, keys, &tables));
        }
    }
    let top = tables.get("the scenario").map_or(&[][..], Vec::as_slice);
    let mut schema = Map::new();
    schema.insert(
        "$schema".into(),
        "https://json-schema.org/draft/2020-12/schema".into(),
    );
    schema.insert("title".into(), "a scenario of dirtysim".into());
    if let Value::Object(body) = table("the scenario", top, &tables) {
        schema.extend(body);
    }
    schema.insert("$defs".into(), definitions.into());
    Value::Object(schema)
}

/// A table's name as a definition's.
fn plain(name: &str) -> String {
    let words = name.rsplit(' ').next().unwrap_or(name);
    words.trim_matches(['`', '[', ']']).to_owned()
}

fn names<T>(all: impl IntoIterator<Item = T>, name: impl Fn(T) -> &'static str) -> Value {
    let names: Vec<Value> = all.into_iter().map(|one| name(one).into()).collect();
    json!({ "enum": names })
}

type Tables = std::collections::BTreeMap<String, Vec<&'static str>>;

fn table(name: &str, keys: &[&'static str], tables: &Tables) -> Value {
    let refer = |to: &str| json!({ "$ref": format!("#/$defs/{to}") });
    let list = |to: &str| json!({ "type": "array", "items": refer(to) });
    let mut properties = Map::new();
    for &key in keys {
        let known = tables.keys().find(|table| plain(table) == key);
        let value = match (name, key) {
            ("[machine]", "arch") => names(Arch::ALL, |arch| arch.name()),
            ("[machine]", "kernel") => names(Kernel::ALL, |kernel| kernel.name()),
            ("the scenario", "mutations") => {
                json!({ "type": "array", "items": names(Mutation::ALL, |mutation| mutation.name()) })
            }
            ("the scenario", "claims") => {
                json!({ "type": "array", "items": names(Invariant::ALL, |claim| claim.name()) })
            }
            ("`expect`", "violated") => names(Invariant::ALL, |claim| claim.name()),
            ("the scenario", "expect") => {
                json!({ "anyOf": [{ "const": "holds" }, refer("expect")] })
            }
            (_, "steps") => list("step"),
            (_, "slots") => list("slot"),
            (_, "threads") => list("thread"),
            (_, "devices") => list("device"),
            ("the scenario" | "[machine]" | "[writers]", _) => match known {
                Some(table) => refer(&plain(table)),
                None => json!({}),
            },
            _ => json!({}),
        };
        properties.insert(key.to_owned(), value);
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// A step: a word, a word with its keys, or one of the forms that have steps in them.
fn step(keys: &[&'static str]) -> Value {
    let mut forms = vec![names(VOCABULARY, |(word, _, _)| word)];
    for (word, keys, what) in VOCABULARY {
        let mut properties = Map::new();
        properties.insert("step".into(), json!({ "const": word }));
        for key in *keys {
            properties.insert((*key).to_owned(), json!({}));
        }
        forms.push(json!({
            "type": "object", "description": what, "properties": properties, "required": ["step"],
            "additionalProperties": false,
        }));
    }
    let properties: Map<String, Value> = keys
        .iter()
        .filter(|key| **key != "step")
        .map(|key| match *key {
            "steps" | "else" => {
                let steps = json!({ "type": "array", "items": { "$ref": "#/$defs/step" } });
                ((*key).to_owned(), steps)
            }
            key => (key.to_owned(), json!({})),
        })
        .collect();
    forms.push(json!({ "type": "object", "properties": properties, "not": { "required": ["step"] }, "additionalProperties": false }));
    json!({ "anyOf": forms })
}
