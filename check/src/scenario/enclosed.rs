//! A scenario inside a text that people read: a mail carries it between two marks, and gives it back.
//!
//! The lines may be quoted (`> `), as long as all are quoted alike. A schedule may stand beside it; that is the traces' affair.

use serde_json::Value;

/// Columns of a mail.
pub const COLUMNS: usize = 72;
const CUT: &str = "---8<---";
/// The mark behind what a text carries.
pub const END: &str = "--->8---";
const SCENARIO: &str = "---8<--- dirtysim scenario ---8<---";

/// The lines of a text between a mark and the end mark, each with its number from 1 on and without the quotation; none
/// where the mark is not there.
#[must_use]
pub fn block<'a>(text: &'a str, mark: &str) -> Option<Vec<(usize, &'a str)>> {
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

/// The scenario in a text as the data that it is; none where there is none.
///
/// # Errors
/// The line at which it is no TOML, and why.
#[must_use]
pub fn value(text: &str) -> Option<Result<Value, (usize, String)>> {
    let toml = scenario(text)?;
    Some(toml::from_str(&toml).map_err(|error| {
        let before = error.span().map_or("", |span| &toml[..span.start]);
        let line = before.matches('\n').count() + 1;
        (line, error.message().to_owned())
    }))
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
}
