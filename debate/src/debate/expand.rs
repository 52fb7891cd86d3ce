//! From a case to its scenarios: one for each machine on which it is checked.
//!
//! A machine is written `[ARCH:]MODE[/PROTECT]`. ARCH: arm64, x86 (write protection), x86-pml, riscv, loongarch; none
//! is every one that has the mode. MODE: `bitmap`, `ring`, `ring+bitmap`. PROTECT: `legacy` (GET clears; the default),
//! `manual` (CLEAR clears), `initially-set` (the same, and a log begins with every bit set), or `*` for each of them.
//!
//! In a case's steps, words in capitals stand for what a VMM does on that machine:
//!
//! | word | ring | ring+bitmap | bitmap |
//! |---|---|---|---|
//! | START | enable-logging, copy-all | the same | the same |
//! | ROUND | harvest-rings, reset-rings, copy | the same | GET, CLEAR, copy |
//! | RINGS | harvest-rings, reset-rings | the same | nothing |
//! | HARVEST | harvest-rings | the same | nothing |
//! | GET | nothing | get-dirty-log | get-dirty-log |
//! | CLEAR | nothing | clear-dirty-log where protection is manual | the same |
//! | STOP | pause-vcpus | the same | the same |

use serde_json::Value as Json;
use toml::{Table, Value};

use super::claim::{Case, Outcome};
use crate::scenario::{Scenario, ScenarioError};

/// What records dirty pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The slots' bitmaps.
    Bitmap,
    /// The vCPUs' rings.
    Ring,
    /// Rings, and bitmaps for writers without a vCPU.
    RingWithBitmap,
}

impl Mode {
    /// The name in claims and scenarios.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bitmap => "bitmap",
            Self::Ring => "ring",
            Self::RingWithBitmap => "ring+bitmap",
        }
    }
}

/// A machine of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct On {
    /// arm64, x86, x86-pml, riscv or loongarch.
    pub arch: &'static str,
    /// What records.
    pub mode: Mode,
    /// legacy, manual or initially-set.
    pub protect: &'static str,
}

impl On {
    /// As in a scenario's name.
    #[must_use]
    pub fn slug(&self) -> String {
        let mode = self.mode.name().replace('+', "-");
        let protect = match self.protect {
            "legacy" => String::new(),
            other => format!("-{other}"),
        };
        format!("{}-{mode}{protect}", self.arch)
    }
}

const ARCHS: [&str; 5] = ["arm64", "x86", "x86-pml", "riscv", "loongarch"];
const PROTECTS: [&str; 3] = ["legacy", "manual", "initially-set"];

/// The machines that `words` name.
///
/// # Errors
/// A word that names none.
pub fn machines(words: &[String]) -> Result<Vec<On>, String> {
    let mut all = Vec::new();
    for word in words {
        let (arch, rest) = match word.split_once(':') {
            Some((arch, rest)) => (Some(arch), rest),
            None => (None, word.as_str()),
        };
        let (mode, protect) = rest.split_once('/').unwrap_or((rest, "legacy"));
        let mode = match mode {
            "bitmap" => Mode::Bitmap,
            "ring" => Mode::Ring,
            "ring+bitmap" => Mode::RingWithBitmap,
            _ => return Err(format!("no machine `{word}`: unknown mode `{mode}`")),
        };
        let protects: Vec<&'static str> = PROTECTS
            .into_iter()
            .filter(|known| protect == "*" || protect == *known)
            .collect();
        let archs: Vec<&'static str> = ARCHS
            .into_iter()
            .filter(|known| arch.is_none_or(|arch| arch == *known))
            .filter(|known| mode != Mode::RingWithBitmap || *known == "arm64")
            .collect();
        if protects.is_empty() || archs.is_empty() {
            return Err(format!("no machine `{word}`"));
        }
        for arch in archs {
            all.extend(protects.iter().map(|protect| On {
                arch,
                mode,
                protect,
            }));
        }
    }
    Ok(all)
}

/// The steps behind a word in capitals.
fn word(word: &str, on: &On) -> Option<Vec<&'static str>> {
    let ring = on.mode != Mode::Bitmap;
    let bitmap = on.mode != Mode::Ring;
    let manual = bitmap && on.protect != "legacy";
    let clear = if manual {
        vec!["clear-dirty-log"]
    } else {
        vec![]
    };
    Some(match word {
        "START" => vec!["enable-logging", "copy-all"],
        "STOP" => vec!["pause-vcpus"],
        "RINGS" if ring => vec!["harvest-rings", "reset-rings"],
        "HARVEST" if ring => vec!["harvest-rings"],
        "GET" if bitmap => vec!["get-dirty-log"],
        "CLEAR" => clear,
        "RINGS" | "HARVEST" | "GET" => vec![],
        "ROUND" if ring => vec!["harvest-rings", "reset-rings", "copy"],
        "ROUND" => [vec!["get-dirty-log"], clear, vec!["copy"]].concat(),
        _ => return None,
    })
}

/// The steps of a template; `apart`: each ROUND is a part that is repeated, once.
fn steps(template: &[Value], on: &On, apart: bool) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    for step in template {
        match step {
            Value::String(text) if apart && text == "ROUND" => {
                let words = word(text, on).ok_or_else(|| format!("no step `{text}`"))?;
                let words: Vec<Value> = words.into_iter().map(Value::from).collect();
                let mut round = Table::new();
                round.insert("repeat".into(), 1.into());
                round.insert("steps".into(), Value::Array(words));
                all.push(Value::Table(round));
            }
            Value::String(text) if text.chars().all(|c| c.is_ascii_uppercase()) => {
                let words = word(text, on).ok_or_else(|| format!("no step `{text}`"))?;
                all.extend(words.into_iter().map(Value::from));
            }
            Value::Table(table) if table.contains_key("steps") => {
                let mut table = table.clone();
                if let Some(Value::Array(inner)) = table.get("steps") {
                    let inner = steps(inner, on, apart)?;
                    table.insert("steps".into(), Value::Array(inner));
                }
                all.push(Value::Table(table));
            }
            other => all.push(other.clone()),
        }
    }
    Ok(all)
}

/// The text of a case's scenario on one machine.
///
/// # Errors
/// A step that stands for nothing.
pub fn text(claim: &str, case: &Case, on: &On) -> Result<String, String> {
    text_of(claim, case, on, false)
}

/// As [`text`]; `apart`: the rounds of it are parts that are repeated, once each.
fn text_of(claim: &str, case: &Case, on: &On, apart: bool) -> Result<String, String> {
    let mut machine = Table::new();
    machine.insert("arch".into(), on.arch.trim_end_matches("-pml").into());
    machine.insert("vcpus".into(), (case.vcpus as i64).into());
    let pml = on.arch == "x86-pml";
    if case.slots.is_empty() {
        machine.insert("pages".into(), (case.pages as i64).into());
    }
    if pml {
        machine.insert("pml".into(), true.into());
        machine.insert("pml_entries".into(), 2.into());
    }
    if on.mode != Mode::Bitmap {
        // With PML the reserve has room for a flushed buffer.
        let (entries, reserved) = if pml { (8, 4) } else { (4, 2) };
        let mut ring = Table::new();
        ring.insert("entries".into(), entries.into());
        ring.insert("reserved".into(), reserved.into());
        machine.insert("ring".into(), Value::Table(ring));
    }
    if on.mode == Mode::RingWithBitmap {
        machine.insert("ring_with_bitmap".into(), true.into());
    }
    match on.protect {
        "manual" => machine.insert("manual_protect".into(), true.into()),
        "initially-set" => machine.insert("manual_protect".into(), on.protect.into()),
        _ => None,
    };
    machine.extend(case.machine.clone());
    let mut vcpu = Table::new();
    vcpu.insert("stores".into(), (case.stores as i64).into());
    if let Some(pages) = &case.store_pages {
        let pages = pages.iter().map(|page| Value::from(*page as i64)).collect();
        vcpu.insert("pages".into(), Value::Array(pages));
    }
    let mut writers = Table::new();
    // Without a store there is nothing to say of the vCPUs: they run, and write nothing.
    if case.stores > 0 {
        writers.insert("vcpu".into(), Value::Table(vcpu));
    }
    for (key, value) in &case.writers {
        match (writers.get_mut(key), value) {
            (Some(Value::Table(there)), Value::Table(more)) => there.extend(more.clone()),
            _ => {
                writers.insert(key.clone(), value.clone());
            }
        }
    }
    let name = format!("{}-{}-{}", claim.to_ascii_lowercase(), case.name, on.slug());
    let mut out = String::new();
    out.push_str(&format!("name = {}\n", inline(&name.into())));
    out.push_str(&format!(
        "sentence = {}\n",
        inline(&case.sentence.clone().into())
    ));
    match case.expected() {
        Outcome::Holds => out.push_str("expect = \"holds\"\n"),
        Outcome::Breaks(invariant) => {
            out.push_str(&format!(
                "expect = {{ violated = \"{}\" }}\n",
                invariant.name()
            ));
        }
    }
    if case.check_spurious {
        out.push_str("check_spurious = true\n");
    }
    if !case.mutations.is_empty() {
        let names = case.mutations.iter().cloned().map(Value::from).collect();
        out.push_str(&format!("mutations = {}\n", inline(&Value::Array(names))));
    }
    out.push_str("\n[machine]\n");
    keys(&mut out, &machine);
    for slot in &case.slots {
        out.push_str("\n[[slots]]\n");
        if let Value::Table(slot) = slot {
            keys(&mut out, slot);
        }
    }
    if !writers.is_empty() {
        out.push_str("\n[writers]\n");
        keys(&mut out, &writers);
    }
    out.push_str("\n[protocol]\n");
    if let Some(policy) = &case.on_ring_full {
        out.push_str(&format!("on_ring_full = \"{policy}\"\n"));
    }
    out.push_str(&format!(
        "steps = {}\n",
        list(&steps(&case.steps, on, apart)?)
    ));
    if !case.beside.is_empty() {
        out.push_str("threads = [\n");
        for thread in &case.beside {
            out.push_str(&format!(
                "  {{ steps = {} }},\n",
                inline(&Value::Array(steps(thread, on, apart)?))
            ));
        }
        out.push_str("]\n");
    }
    Ok(out)
}

fn keys(out: &mut String, table: &Table) {
    for (key, value) in table {
        out.push_str(&format!("{key} = {}\n", inline(value)));
    }
}

/// A value on one line.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => Json::from(text.as_str()).to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) => {
            let items: Vec<String> = table
                .iter()
                .map(|(key, value)| format!("{key} = {}", inline(value)))
                .collect();
            format!("{{ {} }}", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// Steps, as many to a line as fit 100 columns.
fn list(items: &[Value]) -> String {
    let mut out = String::from("[\n ");
    let mut column = 1;
    for item in items {
        let word = format!(" {},", inline(item));
        if column + word.len() > 100 {
            out.push_str("\n ");
            column = 1;
        }
        column += word.len();
        out.push_str(&word);
    }
    out.push_str("\n]");
    out
}

/// A case on one machine, ready to decide.
///
/// # Errors
/// What is wrong with the case.
pub fn scenario(claim: &str, case: &Case, on: &On) -> Result<(String, Scenario), String> {
    let text = text(claim, case, on)?;
    let scenario = read(claim, case, &text).map_err(|error| format!("{error}\n{text}"))?;
    Ok((text, scenario))
}

/// The same with its rounds as parts that are repeated, so that there can be any number of them.
///
/// # Errors
/// As for that.
pub fn in_rounds(claim: &str, case: &Case, on: &On) -> Result<Scenario, String> {
    let text = text_of(claim, case, on, true)?;
    read(claim, case, &text).map_err(|error| format!("{error}\n{text}"))
}

/// The scenario of a case's text.
pub(super) fn read(claim: &str, case: &Case, text: &str) -> Result<Scenario, Box<ScenarioError>> {
    Scenario::from_expansion(&format!("{claim}/{}", case.name), text)
}
