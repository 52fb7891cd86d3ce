//! What `dirtysim-kvm` offers, line by line, as it was when somebody last agreed to a change: `kvm/api.txt`.
//!
//! A line that is gone or is another one breaks whoever used it, and wants a new minor version (0.x) and a line in CHANGELOG.md; a line that is new does not. It is read
//! from the sources, as rustfmt leaves them, since no tool that reads more comes with the toolchain.

use std::path::Path;

/// The public items of a file, each on a line, under what it is in.
fn items(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // What is around a line, and how far it is indented; whether all that is in it is public by itself.
    let mut around: Vec<(usize, String, bool)> = Vec::new();
    let mut open: Option<String> = None;
    let mut is_test = false;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        if let Some(item) = &mut open {
            item.push(' ');
            item.push_str(line);
        } else if line.is_empty() || line.starts_with("//") || line.starts_with("#[") {
            is_test |= line == "#[cfg(test)]";
            continue;
        } else {
            while around.last().is_some_and(|(depth, ..)| indent <= *depth) {
                around.pop();
            }
            if std::mem::take(&mut is_test) && line.starts_with("mod ") {
                // Tests stand at the end.
                break;
            }
            let is_inside = around
                .last()
                .is_some_and(|(depth, _, all)| *all && indent == depth + 4);
            let is_item =
                line.starts_with("pub ") || line.starts_with("impl") || is_inside && line != "}";
            if !is_item {
                continue;
            }
            open = Some(line.to_owned());
        }
        let item = open.as_deref().unwrap_or_default();
        let balanced =
            |from: char, to: char| item.matches(from).count() == item.matches(to).count();
        let ends = item.ends_with('{')
            || balanced('(', ')') && balanced('{', '}') && item.ends_with([';', ',', '}']);
        if !ends {
            continue;
        }
        let item = open.take().unwrap_or_default();
        let is_block = item.ends_with('{');
        let head = item.trim_end_matches(['{', ';', ',']).trim_end();
        let head = head.split_whitespace().collect::<Vec<_>>().join(" ");
        let head = head
            .replace("( ", "(")
            .replace(", )", ")")
            .replace(" )", ")");
        let within = around
            .iter()
            .map(|(_, name, _)| format!("{name} :: "))
            .collect::<String>();
        let all = head.starts_with("pub trait") || head.starts_with("pub enum");
        if !head.starts_with("impl") || head.contains(" for ") {
            found.push(format!("{within}{head}"));
        }
        if is_block {
            let name = head.split(" -> ").next().unwrap_or_default().to_owned();
            around.push((indent, name, all));
        }
    }
    found
}

#[test]
fn what_is_offered_changes_only_where_somebody_agrees() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kvm");
    let mut files: Vec<_> = std::fs::read_dir(root.join("src"))
        .expect("it is there")
        .map(|file| file.expect("it can be read").path())
        // Folders offer nothing.
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    let mut listed = String::new();
    for file in files {
        let name = file
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let text = std::fs::read_to_string(&file).expect("it is text");
        let items: Vec<String> = items(&text)
            .into_iter()
            .filter(|item| item.contains("pub ") || item.contains(" for "))
            .collect();
        if name != "naive" && !items.is_empty() {
            listed.push_str(&format!("# {name}\n{}\n\n", items.join("\n")));
        }
    }
    dirtysim_expected::file(&root.join("api.txt"), &listed);
}
