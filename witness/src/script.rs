//! Scripts: call traces without results, or whose results are not believed.
//!
//! The format is that of a trace of kind `call` (docs/trace-format.md); `result` and, in the header, `machine` may be absent.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use dirtysim::trace::call::{Call, Section};
use dirtysim::trace::{FORMAT, Header, JsonLines, Kind, VERSION};
use serde_json::{Map, Value, json};

use crate::refusal::Refused;
use crate::subject::VmCall;

/// A row of a script.
#[derive(Debug, PartialEq)]
enum ScriptRow {
    /// A section begins.
    Section(Section),
    /// A call.
    Call(VmCall),
}

/// Calls that belong together.
#[derive(Debug)]
pub struct ScriptSection {
    /// What they are called; calls before the first section are called nothing.
    pub section: Option<Section>,
    /// Each with the line on which it stands.
    pub calls: Vec<(u64, VmCall)>,
}

/// A script that was read.
#[derive(Debug)]
pub struct Script {
    /// What it does, in a few words.
    pub title: Option<String>,
    /// Its sections.
    pub sections: Vec<ScriptSection>,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// A sentence with file and line.
    pub fn open(path: &Path) -> Result<Self, Refused> {
        let name = path.display().to_string();
        let file = File::open(path)
            .map_err(|error| Refused(format!("{name}: {error}: give the path of a script")))?;
        let mut lines = JsonLines::new(BufReader::new(file), &name);
        let wrong = |error: &dyn std::fmt::Display| Refused(error.to_string());
        let Some(mut header) = lines.next_object().map_err(|error| wrong(&error))? else {
            return Err(Refused(format!(
                "{name}: empty: the first line is {{\"format\":\"{FORMAT}\",\"version\":{VERSION},\"kind\":\"call\"}}"
            )));
        };
        // A script belongs to no machine; the header's other fields are checked as a trace's are.
        header.entry("machine").or_insert_with(|| json!({"arch": "x86_64", "kernel": "none", "page_size": 4096, "ring_page_offset": 64}));
        let header =
            Header::from_object(header).map_err(|complaint| wrong(&complaint.at(&name, 1)))?;
        if header.kind != Kind::Call {
            return Err(Refused(format!(
                "{name}:1: kind `{}`: a script is of kind `call`",
                header.kind
            )));
        }
        let mut sections: Vec<ScriptSection> = Vec::new();
        while let Some(object) = lines.next_object().map_err(|error| wrong(&error))? {
            let line = lines.line();
            let row = row(object)
                .map_err(|Refused(problem)| Refused(format!("{name}:{line}: {problem}")))?;
            let begin = |section| ScriptSection {
                section,
                calls: Vec::new(),
            };
            match row {
                ScriptRow::Section(section) => sections.push(begin(Some(section))),
                ScriptRow::Call(call) => {
                    if sections.is_empty() {
                        sections.push(begin(None));
                    }
                    let last = sections.last_mut().expect("one was begun");
                    last.calls.push((line, call));
                }
            }
        }
        Ok(Self {
            title: header.title,
            sections,
        })
    }
}

fn row(mut object: Map<String, Value>) -> Result<ScriptRow, Refused> {
    object.remove("result");
    if object.contains_key("section") {
        return serde_json::from_value(Value::Object(object))
            .map(ScriptRow::Section)
            .map_err(|error| Refused(error.to_string()));
    }
    let vm = match object.remove("vm") {
        None => None,
        Some(value) => Some(
            value
                .as_u64()
                .and_then(|vm| u32::try_from(vm).ok())
                .ok_or_else(|| Refused(format!("`vm` is {value}, expected a number below 2^32")))?,
        ),
    };
    let call: Call = serde_json::from_value(Value::Object(object))
        .map_err(|error| Refused(error.to_string()))?;
    match (call.has_vm(), vm) {
        (true, None) => Err(Refused(format!("`{}` without a `vm`", call.name()))),
        (false, Some(_)) => Err(Refused(format!(
            "`{}` has a `vm`, but belongs to none",
            call.name()
        ))),
        _ => Ok(ScriptRow::Call(VmCall { vm, call })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).expect("an object")
    }

    #[test]
    fn a_row_with_a_result_and_one_without_are_the_same_call() {
        let bare = row(object(r#"{"vm":1,"call":"KVM_RESET_DIRTY_RINGS"}"#)).expect("a call");
        let full = row(object(
            r#"{"vm":1,"call":"KVM_RESET_DIRTY_RINGS","result":{"ret":3}}"#,
        ))
        .expect("a call");
        assert_eq!(bare, full);
    }

    #[test]
    fn a_call_without_its_vm_is_refused() {
        let refused = row(object(r#"{"call":"KVM_RESET_DIRTY_RINGS"}"#)).expect_err("no vm");
        assert_eq!(
            refused.to_string(),
            "`KVM_RESET_DIRTY_RINGS` without a `vm`"
        );
    }
}
