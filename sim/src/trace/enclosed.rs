//! A scenario and a schedule of it inside a text that people read: a mail carries both, and gives them back.
//!
//! ```text
//! ---8<--- dirtysim scenario ---8<---
//! name = "mine"
//! ...
//! --->8---
//! ---8<--- dirtysim schedule ---8<---
//! expect: no_dirty_page_lost
//! vcpu0: run
//! thread0: slot-enter slot-publish copy=ram:0 !no_dirty_page_lost @ram:1
//! --->8---
//! ```
//!
//! The lines may be quoted (`> `), as long as all are quoted alike. The scenario is TOML; of a schedule, each line is an actor and
//! what it does next, step by step, with the page that a step is about behind `=`. Behind a step stand the claims that it breaks
//! (`!`) and their pages (`@`).

use serde_json::Value;

use super::TraceRow;
use super::header::{Expect, Header, Kind};
use super::step::StepRow;

/// Columns of a mail.
const COLUMNS: usize = 72;
const CUT: &str = "---8<---";
const END: &str = "--->8---";
const SCENARIO: &str = "---8<--- dirtysim scenario ---8<---";
const SCHEDULE: &str = "---8<--- dirtysim schedule ---8<---";

/// The lines of a text between a mark and the end mark, each with its number from 1 on and without the quotation; none
/// where the mark is not there.
fn block<'a>(text: &'a str, mark: &str) -> Option<Vec<(usize, &'a str)>> {
    let mut lines = text.lines().enumerate();
    let quote = lines.find_map(|(_, line)| {
        let (before, after) = line.split_once(CUT)?;
        let quoted = before.chars().all(|c| matches!(c, '>' | '|' | ' '));
        (quoted && after.trim_end() == &mark[CUT.len()..]).then_some(before)
    })?;
    let mut found = Vec::new();
    for (index, line) in lines {
        let line = line
            .strip_prefix(quote)
            .unwrap_or_else(|| line.strip_prefix(quote.trim_end()).unwrap_or(line));
        if line.trim_end() == END {
            return Some(found);
        }
        found.push((index + 1, line));
    }
    // What is cut off is told by whoever reads it.
    Some(found)
}

/// The scenario in a text, with every line at its place in it, so that a complaint names the text's line; none where there is none.
#[must_use]
pub fn scenario(text: &str) -> Option<String> {
    let mut masked = String::new();
    let mut at = 1;
    for (line, text) in block(text, SCENARIO)? {
        while at < line {
            masked.push('\n');
            at += 1;
        }
        masked.push_str(text);
        masked.push('\n');
        at += 1;
    }
    Some(masked)
}

/// The schedule in a text, as a trace of kind `step`; none where there is none.
///
/// # Errors
/// A line that is none of a schedule, with its number and what to write; a schedule without its scenario.
pub fn trace(text: &str) -> Option<Result<String, (usize, String)>> {
    let lines = block(text, SCHEDULE)?;
    Some(read(text, &lines))
}

fn read(text: &str, lines: &[(usize, &str)]) -> Result<String, (usize, String)> {
    let first = lines.first().map_or(0, |(line, _)| *line);
    let Some(toml) = scenario(text) else {
        return Err((
            first,
            "a schedule without its scenario: copy the whole mail".to_owned(),
        ));
    };
    let value: Value = toml::from_str(&toml).map_err(|error| {
        let before = error.span().map_or("", |span| &toml[..span.start]);
        let line = before.lines().count().max(1);
        (
            line,
            format!("the scenario is not TOML: {}", error.message()),
        )
    })?;
    let mut header = Header::new(Kind::Step);
    header.title = value.get("name").and_then(Value::as_str).map(str::to_owned);
    header.scenario = Some(value);
    let mut rows: Vec<StepRow> = Vec::new();
    for &(line, text) in lines {
        if text.trim().is_empty() {
            continue;
        }
        let Some((who, rest)) = text.split_once(':') else {
            let shown: String = text.chars().take(40).collect();
            return Err((
                line,
                format!("`{shown}`: a line of a schedule is an actor, a colon and its steps"),
            ));
        };
        let rest = rest.trim();
        match who {
            "expect" if rest == "holds" => header.expect = Some(Expect::Holds),
            "expect" => header.expect = Some(Expect::Violated(rest.to_owned())),
            "found by" => header.found_by = Some(rest.to_owned()),
            "switched on" => header.mutations.extend(rest.split(' ').map(str::to_owned)),
            "cycle" => match rest.parse() {
                Ok(steps) => header.cycle = Some(steps),
                Err(_) => return Err((line, "`cycle` is a number of steps".to_owned())),
            },
            who => {
                for word in rest.split_whitespace() {
                    let about = match word.split_at_checked(1) {
                        Some(("!", claim)) => Some((claim, true)),
                        Some(("@", page)) => Some((page, false)),
                        _ => None,
                    };
                    let Some((about, is_claim)) = about else {
                        let (what, page) = match word.split_once('=') {
                            Some((what, page)) => (what, Some(page.to_owned())),
                            None => (word, None),
                        };
                        rows.push(StepRow {
                            who: who.to_owned(),
                            what: what.to_owned(),
                            page,
                            breaks: Vec::new(),
                            pages: Vec::new(),
                        });
                        continue;
                    };
                    let Some(row) = rows.last_mut() else {
                        return Err((line, format!("`{word}` stands behind no step")));
                    };
                    let list = if is_claim {
                        &mut row.breaks
                    } else {
                        &mut row.pages
                    };
                    list.push(about.to_owned());
                }
            }
        }
    }
    let mut out = format!("{}\n", header.to_line());
    for row in rows {
        // A step has texts only, which can always be written.
        out.push_str(&row.to_line().unwrap_or_default());
        out.push('\n');
    }
    Ok(out)
}

/// A scenario as a text carries it: `toml` itself where each of its lines fits into a mail, else the same in lines that do.
#[must_use]
pub fn write_scenario(source: &Value, toml: Option<&str>) -> String {
    let fits = |text: &&str| {
        text.lines()
            .all(|line| line.len() <= COLUMNS && line.is_ascii() && !line.starts_with(END))
    };
    let text = match toml.filter(fits) {
        Some(text) => text.trim_end().to_owned(),
        None => lines_of(source),
    };
    format!("{SCENARIO}\n{text}\n{END}\n")
}

/// A schedule as a text carries it.
#[must_use]
pub fn write_schedule(header: &Header, steps: &[StepRow]) -> String {
    let mut out = format!("{SCHEDULE}\n");
    match &header.expect {
        Some(Expect::Violated(name)) => out.push_str(&format!("expect: {name}\n")),
        Some(Expect::Holds) => out.push_str("expect: holds\n"),
        None => {}
    }
    if let Some(found_by) = &header.found_by {
        out.push_str(&format!("found by: {found_by}\n"));
    }
    if !header.mutations.is_empty() {
        out.push_str(&format!("switched on: {}\n", header.mutations.join(" ")));
    }
    if let Some(cycle) = header.cycle {
        out.push_str(&format!("cycle: {cycle}\n"));
    }
    let mut line = String::new();
    let mut last = "";
    for step in steps {
        let word = match &step.page {
            Some(page) => format!("{}={page}", step.what),
            None => step.what.clone(),
        };
        let claims = step.breaks.iter().map(|claim| format!("!{claim}"));
        let pages = step.pages.iter().map(|page| format!("@{page}"));
        for word in std::iter::once(word).chain(claims).chain(pages) {
            let goes_on = last == step.who && line.len() + 1 + word.len() <= COLUMNS;
            if !goes_on {
                if !line.is_empty() {
                    out.push_str(&line);
                    out.push('\n');
                }
                line = format!("{}:", step.who);
                last = &step.who;
            }
            line.push(' ');
            line.push_str(&word);
        }
    }
    if !line.is_empty() {
        out.push_str(&line);
        out.push('\n');
    }
    out.push_str(END);
    out.push('\n');
    out
}

/// A scenario as TOML in lines of a mail: arrays are broken, long texts are carried over with a backslash.
fn lines_of(source: &Value) -> String {
    let mut out = String::new();
    let Value::Object(top) = source else {
        return out;
    };
    let is_table = |value: &Value| value.is_object();
    // Keys of a table would take what comes after it for their own.
    for (key, value) in top
        .iter()
        .filter(|(key, value)| !is_table(value) || *key == "expect")
    {
        assign(&mut out, key, value);
    }
    for (key, value) in top
        .iter()
        .filter(|(key, value)| is_table(value) && *key != "expect")
    {
        out.push_str(&format!("\n[{}]\n", key_of(key)));
        for (key, value) in value.as_object().into_iter().flatten() {
            assign(&mut out, key, value);
        }
    }
    out.trim_end().to_owned()
}

fn assign(out: &mut String, key: &str, value: &Value) {
    let first = format!("{} = ", key_of(key));
    out.push_str(&first);
    put(out, value, 0, first.len());
    out.push('\n');
}

fn key_of(key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if bare { key.to_owned() } else { quoted(key) }
}

/// Adds a value; `column` is where it begins, `indent` where the line does.
fn put(out: &mut String, value: &Value, indent: usize, column: usize) {
    let flat = inline(value);
    // Brackets and commas of what it stands in may follow.
    if column + flat.len() + 8 <= COLUMNS {
        return out.push_str(&flat);
    }
    let deeper = indent + 2;
    match value {
        Value::Array(list) => {
            out.push_str("[\n");
            let mut line = " ".repeat(deeper);
            for value in list {
                let flat = inline(value);
                if line.len() > deeper && line.len() + 1 + flat.len() < COLUMNS {
                    line.push_str(&format!(" {flat},"));
                    continue;
                }
                if line.len() > deeper {
                    out.push_str(&line);
                    out.push('\n');
                }
                line = " ".repeat(deeper);
                if deeper + flat.len() < COLUMNS {
                    line.push_str(&format!("{flat},"));
                } else {
                    out.push_str(&line);
                    put(out, value, deeper, deeper);
                    out.push_str(",\n");
                }
            }
            if line.len() > deeper {
                out.push_str(&line);
                out.push('\n');
            }
            out.push_str(&" ".repeat(indent));
            out.push(']');
        }
        // A table in a line may be broken only within its values.
        Value::Object(map) => {
            out.push_str("{ ");
            for (n, (key, value)) in map.iter().enumerate() {
                let first = format!("{}{} = ", if n > 0 { ", " } else { "" }, key_of(key));
                out.push_str(&first);
                let line = out.rsplit('\n').next().map_or(0, str::len);
                put(out, value, indent, line);
            }
            out.push_str(" }");
        }
        Value::String(text) => out.push_str(&carried_over(text)),
        _ => out.push_str(&flat),
    }
}

/// A value in one line.
fn inline(value: &Value) -> String {
    match value {
        Value::Array(list) => {
            let values: Vec<String> = list.iter().map(inline).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Object(map) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{} = {}", key_of(key), inline(value)))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::String(text) => quoted(text),
        // TOML has no null, and a scenario that was read has none.
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// A text in the characters of a mail, escaped as TOML does.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(c),
            c => out.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    out
}

/// A long text over several lines: a backslash at a line's end takes the line's end and the blanks behind it away.
fn carried_over(text: &str) -> String {
    let mut out = "\"\"\"\\\n".to_owned();
    let mut line = String::new();
    let words: Vec<&str> = text.split(' ').collect();
    for (n, plain) in words.iter().enumerate() {
        let mut word = escaped(plain);
        if n + 1 < words.len() {
            // A blank at the beginning of a line would be taken away with the end of the one before.
            word.push_str(if plain.is_empty() { "\\u0020" } else { " " });
        }
        if !line.is_empty() && line.len() + word.len() > COLUMNS - 4 {
            out.push_str(&line);
            out.push_str("\\\n");
            line.clear();
        }
        line.push_str(&word);
    }
    out.push_str(&line);
    out.push_str("\"\"\"");
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_mail_carries_is_what_was_written() {
        let source = json!({
            "name": "long",
            "sentence": "A sentence that is so long that no line of a mail has room for it, with \"quotes\", a back\\slash,  two blanks, and ä.",
            "expect": { "violated": "no_dirty_page_lost" },
            "machine": { "arch": "arm64", "ring": { "entries": 4, "reserved": 2 }, "slots": [
                { "name": "low", "pages": 2, "a-long-key-so-that-it-does-not-fit": [1, 2, 3, 4, 5, 6] },
                { "name": "high", "pages": 2 },
            ] },
            "protocol": { "steps": ["enable-logging", { "repeat": 2, "steps": ["harvest-rings", "reset-rings", "copy", "a", "b", "harvest-rings"] }, "finish"] },
        });
        let text = write_scenario(&source, None);
        assert!(text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        let mail = format!("Hello,\n\n{text}\nbye\n");
        for mail in [
            mail.clone(),
            mail.lines().map(|l| format!("> {l}\r\n")).collect(),
        ] {
            let found = scenario(&mail).expect("it is there");
            let back: Value =
                toml::from_str(&found).unwrap_or_else(|error| panic!("{error}\n{found}"));
            assert_eq!(back, source, "{mail}");
            // Every line has its place.
            assert!(found.starts_with("\n\n\nname = "), "{found}");
        }
        assert_eq!(scenario("no mark\n"), None);
    }

    #[test]
    fn a_schedule_comes_back_as_a_trace() {
        let step = |who: &str, what: &str, page: Option<&str>| StepRow {
            who: who.to_owned(),
            what: what.to_owned(),
            page: page.map(str::to_owned),
            breaks: Vec::new(),
            pages: Vec::new(),
        };
        let mut header = Header::new(Kind::Step);
        header.expect = Some(Expect::Violated("no_dirty_page_lost".to_owned()));
        let mut steps = vec![step("vcpu0", "run", None)];
        steps[0].breaks = vec!["no_dirty_page_lost".to_owned()];
        steps[0].pages = vec!["ram:1".to_owned(), "ram:2".to_owned()];
        steps.extend((0..30).map(|n| step("thread0", "copy", Some(&format!("ram:{n}")))));
        let schedule = write_schedule(&header, &steps);
        assert!(
            schedule.lines().all(|line| line.len() <= COLUMNS),
            "{schedule}"
        );
        let mail = format!(
            "{}\n{schedule}",
            write_scenario(&json!({ "name": "a" }), None)
        );
        let text = trace(&mail).expect("it is there").expect("it is right");
        assert_eq!(text.lines().count(), 32);
        let rows: Vec<StepRow> = text
            .lines()
            .skip(1)
            .map(|line| StepRow::from_text(line).expect("a row"))
            .collect();
        assert_eq!(rows, steps);
        assert_eq!(
            trace(&schedule)
                .expect("it is there")
                .expect_err("no scenario")
                .1,
            "a schedule without its scenario: copy the whole mail"
        );
        let wrong = mail.replace("vcpu0: ", "vcpu0 ");
        let (line, error) = trace(&wrong).expect("it is there").expect_err("no colon");
        assert_eq!(
            wrong.lines().nth(line - 1),
            Some("vcpu0 run !no_dirty_page_lost @ram:1 @ram:2"),
            "{error}"
        );
    }
}
