//! `docs/trace-format.schema.json` and `docs/trace-format.md` say what the code does.
//!
//! A validator of JSON Schema would be the largest dependency of all; the schema keeps to a few keywords, which are
//! checked here. A keyword or a pattern that is not known here fails the test.

use std::path::PathBuf;
use std::sync::LazyLock;

use dirtysim::trace::call::{Call, CallRow};
use dirtysim::trace::call_result::CallResult;
use dirtysim::trace::{Cap, Errno, Exit, TraceRow};
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::strategies;

fn document(name: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join("docs").join(name)).unwrap()
}

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&document("trace-format.schema.json")).unwrap());

/// Whether `value` is what `schema` describes.
fn valid(schema: &Value, value: &Value) -> bool {
    let schema = schema.as_object().unwrap();
    schema.iter().all(|(keyword, rule)| match keyword.as_str() {
        "$schema" | "$defs" | "title" | "description" => true,
        "$ref" => valid(
            SCHEMA
                .pointer(rule.as_str().unwrap().strip_prefix('#').unwrap())
                .unwrap(),
            value,
        ),
        "anyOf" => rule
            .as_array()
            .unwrap()
            .iter()
            .any(|schema| valid(schema, value)),
        "const" => rule == value,
        "enum" => rule.as_array().unwrap().contains(value),
        "type" => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64() || value.is_i64(),
            other => panic!("unknown type {other}"),
        },
        "minimum" => compare(value, rule) != Some(std::cmp::Ordering::Less),
        "maximum" => compare(value, rule) != Some(std::cmp::Ordering::Greater),
        "pattern" => value
            .as_str()
            .is_none_or(|text| matches(rule.as_str().unwrap(), text)),
        "items" => value
            .as_array()
            .is_none_or(|items| items.iter().all(|item| valid(rule, item))),
        "prefixItems" => value.as_array().is_none_or(|items| {
            items
                .iter()
                .zip(rule.as_array().unwrap())
                .all(|(item, rule)| valid(rule, item))
        }),
        "minItems" => value
            .as_array()
            .is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
        "maxItems" => value
            .as_array()
            .is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap()),
        "required" => value.as_object().is_none_or(|object| {
            rule.as_array()
                .unwrap()
                .iter()
                .all(|key| object.contains_key(key.as_str().unwrap()))
        }),
        "properties" => value.as_object().is_none_or(|object| {
            object
                .iter()
                .all(|(key, value)| rule.get(key).is_none_or(|schema| valid(schema, value)))
        }),
        "patternProperties" => value.as_object().is_none_or(|object| {
            rule.as_object().unwrap().iter().all(|(pattern, schema)| {
                object
                    .iter()
                    .all(|(key, value)| !matches(pattern, key) || valid(schema, value))
            })
        }),
        "additionalProperties" => {
            assert_eq!(rule, &Value::Bool(false));
            value
                .as_object()
                .is_none_or(|object| object.keys().all(|key| is_listed(schema, key)))
        }
        other => panic!("unknown keyword {other}"),
    })
}

fn is_listed(schema: &Map<String, Value>, key: &str) -> bool {
    schema
        .get("properties")
        .is_some_and(|properties| properties.get(key).is_some())
        || schema.get("patternProperties").is_some_and(|patterns| {
            patterns
                .as_object()
                .unwrap()
                .keys()
                .any(|pattern| matches(pattern, key))
        })
}

fn compare(value: &Value, limit: &Value) -> Option<std::cmp::Ordering> {
    let wide = |number: &Value| {
        number
            .as_u64()
            .map(i128::from)
            .or_else(|| number.as_i64().map(i128::from))
    };
    Some(wide(value)?.cmp(&wide(limit)?))
}

fn matches(pattern: &str, text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match pattern {
        "^0x[0-9a-fA-F]{1,16}$" => text.strip_prefix("0x").is_some_and(|hex| {
            (1..=16).contains(&hex.len()) && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        }),
        "^[0-9]+(-[0-9]+)?$" => match text.split_once('-') {
            Some((first, last)) => digits(first) && digits(last),
            None => digits(text),
        },
        "^[^\\s]+$" => !text.is_empty() && !text.contains(char::is_whitespace),
        other => panic!("unknown pattern {other}"),
    }
}

/// Which definition of a line `value` fits.
fn fits(value: &Value) -> Vec<&'static str> {
    let lines = SCHEMA["anyOf"].as_array().unwrap();
    let name = |line: &'static Value| line["$ref"].as_str().unwrap().rsplit_once('/').unwrap().1;
    lines
        .iter()
        .filter(|line| valid(line, value))
        .map(name)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn every_row_that_is_written_fits_its_definition_and_no_other(row in strategies::call_row()) {
        let value: Value = serde_json::from_str(&row.to_line().unwrap()).unwrap();
        let expected = match &row {
            CallRow::Section(_) => "section",
            CallRow::Unknown(_) => "unknown",
            CallRow::Call(row) => row.call.name(),
        };
        prop_assert_eq!(fits(&value), [expected], "{}", value);
    }

    #[test]
    fn every_header_that_is_written_fits(header in strategies::header()) {
        let value: Value = serde_json::from_str(&header.to_line()).unwrap();
        prop_assert_eq!(fits(&value), ["header"], "{}", value);
    }

    /// A row with one key taken away: the schema and the reader agree whether it still is one.
    #[test]
    fn the_schema_requires_what_the_reader_requires(row in strategies::recorded_call(), pick in any::<usize>()) {
        let mut value: Value = serde_json::from_str(&CallRow::Call(row).to_line().unwrap()).unwrap();
        let object = value.as_object_mut().unwrap();
        let inside = object.get("result").map_or(0, |result| result.as_object().unwrap().len());
        let pick = pick % (object.len() + inside);
        let drop_nth = |object: &mut Map<String, Value>, nth: usize| {
            let key = object.keys().nth(nth).unwrap().clone();
            object.shift_remove(&key);
        };
        match pick.checked_sub(object.len()) {
            None => drop_nth(object, pick),
            Some(pick) => drop_nth(object["result"].as_object_mut().unwrap(), pick),
        }
        let read = CallRow::from_object(object.clone());
        // That an errno goes with -1 is beyond the schema.
        let about_errno = matches!(&read, Err(complaint) if complaint.problem.to_string().contains("errno"));
        prop_assert!(about_errno || fits(&value).is_empty() == read.is_err(), "{} {:?}", value, read);
    }

    /// A row with a key too many is one for neither.
    #[test]
    fn the_schema_refuses_what_the_reader_refuses(row in strategies::recorded_call(), in_result in any::<bool>()) {
        let mut value: Value = serde_json::from_str(&CallRow::Call(row).to_line().unwrap()).unwrap();
        match value.get_mut("result") {
            Some(result) if in_result => { result["surplus"] = 1.into(); }
            _ => { value["surplus"] = 1.into(); }
        }
        prop_assert!(fits(&value).is_empty());
        prop_assert!(CallRow::from_object(value.as_object().unwrap().clone()).is_err());
    }
}

#[test]
fn the_schema_lists_the_names_that_the_code_knows() {
    let listed = |pointer: &str| -> Vec<String> {
        let names = SCHEMA.pointer(pointer).unwrap().as_array().unwrap();
        names
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    };
    let known = |names: Vec<Option<&str>>| {
        names
            .into_iter()
            .map(|name| name.unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        listed("/$defs/cap/anyOf/0/enum"),
        known(Cap::NAMED.iter().map(|cap| cap.name()).collect())
    );
    assert_eq!(
        listed("/$defs/exit/anyOf/0/enum"),
        known(Exit::NAMED.iter().map(|exit| exit.name()).collect())
    );
    assert_eq!(
        listed("/$defs/errno/enum"),
        known(Errno::ALL.iter().map(|errno| Some(errno.name())).collect())
    );
}

#[test]
fn the_documentation_lists_every_call_with_its_result() {
    let page = document("trace-format.md");
    let mut rows: Vec<&str> = page.lines().collect();
    rows.retain(|line| line.starts_with("| `"));
    for name in Call::NAMES {
        let row = rows
            .iter()
            .find(|line| line.starts_with(&format!("| `{name}` |")));
        assert!(
            row.is_some(),
            "docs/trace-format.md has no row for `{name}`"
        );
    }
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..2048 {
        let call = proptest::strategy::ValueTree::current(
            &strategies::call().new_tree(&mut runner).unwrap(),
        );
        let row = rows
            .iter()
            .find(|line| line.starts_with(&format!("| `{}` |", call.name())))
            .unwrap();
        let cell = row.trim_end_matches(" |").rsplit_once(" | ").unwrap().1;
        let shape = call.shape();
        let required = shape.required.iter().map(|field| format!("`{field}`"));
        let optional = shape.optional.iter().map(|field| format!("[`{field}`]"));
        let fields: Vec<String> = required.chain(optional).collect();
        let expected = if fields.is_empty() {
            "none".to_owned()
        } else {
            fields.join(", ")
        };
        assert_eq!(cell, expected, "the result of `{}`", call.name());
    }
}

#[test]
fn the_documentation_describes_every_field_of_a_result() {
    let page = document("trace-format.md");
    let section = page
        .split_once("### Results")
        .unwrap()
        .1
        .split_once("\n## ")
        .unwrap()
        .0;
    for field in CallResult::FIELDS {
        assert!(
            section.contains(&format!("`{field}`")),
            "docs/trace-format.md does not describe `{field}`"
        );
    }
}

#[test]
fn every_observed_trace_in_the_examples_is_what_the_schema_describes() {
    let expected = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../traces/import/expected");
    let mut lines = 0;
    for entry in std::fs::read_dir(expected).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_none_or(|extension| extension != "jsonl")
        {
            continue;
        }
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            assert!(valid(&SCHEMA, &value), "{}: {line}", path.display());
            lines += 1;
        }
    }
    assert!(lines > 300, "only {lines} lines");
}
