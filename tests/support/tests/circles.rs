//! Arrows point one way: in no crate do files import each other in a circle. A folder's own file and the files in it may.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// By module, as `search::memo`, the modules that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The sources of a crate, by module.
fn sources(folder: &Path, module: &str, into: &mut BTreeMap<String, String>) {
    let below = |name: &str| match module {
        "" => name.to_owned(),
        _ => format!("{module}::{name}"),
    };
    for entry in fs::read_dir(folder).expect("it is a folder") {
        let path = entry.expect("it can be listed").path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.expect("its name is text");
        if path.is_dir() {
            sources(&path, &below(name), into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("it can be read");
            let module = match name {
                "mod" => module.to_owned(),
                "lib" | "main" => "crate".to_owned(),
                name => below(name),
            };
            into.insert(module, code(&text));
        }
    }
}

/// Without comments, and without the file's own tests, which come last.
fn code(text: &str) -> String {
    let (before, _) = text.split_once("#[cfg(test)]\nmod ").unwrap_or((text, ""));
    let lines = before.lines();
    lines
        .map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n")
        .collect()
}

/// The paths that begin with `crate::` or `super::`, those in braces each by itself.
fn paths(code: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for begin in ["crate::", "super::"] {
        for (at, _) in code.match_indices(begin) {
            let before = code[..at].chars().next_back();
            // Of another crate's macro, or the middle of a path that was found already.
            if before.is_some_and(|c| is_word(c) || c == '$' || c == ':') {
                continue;
            }
            let rest = &code[at..];
            let end = rest.find(|c: char| !is_word(c) && c != ':');
            let path = &rest[..end.unwrap_or(rest.len())];
            match rest[path.len()..].strip_prefix('{') {
                Some(list) if path.ends_with("::") => {
                    let list = list.split(';').next().unwrap_or_default();
                    let words = list.split(|c: char| !is_word(c) && c != ':');
                    found.extend(words.map(|word| format!("{path}{word}")));
                }
                _ => found.push(path.to_owned()),
            }
        }
    }
    found
}

/// The module that a path in `module` leads to, if it is one of the crate's.
fn leads_to(path: &str, module: &str, known: &BTreeMap<String, String>) -> Option<String> {
    let mut at: Vec<&str> = match module {
        "crate" => Vec::new(),
        module => module.split("::").collect(),
    };
    let mut words = path.split("::").peekable();
    if words.next_if_eq(&"crate").is_some() {
        at.clear();
    } else {
        while words.next_if_eq(&"super").is_some() {
            at.pop();
        }
    }
    at.extend(words.filter(|word| !word.is_empty()));
    while !at.is_empty() && !known.contains_key(&at.join("::")) {
        at.pop();
    }
    (!at.is_empty()).then(|| at.join("::"))
}

fn imports(krate: &Path) -> Imports {
    let mut known = BTreeMap::new();
    sources(&krate.join("src"), "", &mut known);
    let of = |module: &String, code: &str| {
        let paths = paths(code).into_iter();
        let modules = paths.filter_map(|path| leads_to(&path, module, &known));
        let is_other =
            |other: &String| other != module && !module.starts_with(&format!("{other}::"));
        modules.filter(is_other).collect()
    };
    known
        .iter()
        .map(|(module, code)| (module.clone(), of(module, code)))
        .collect()
}

/// A circle, if there is one: what is left when whoever imports nobody that is left is taken away, again and again, and whoever nobody imports.
fn circle(mut imports: Imports) -> Vec<String> {
    loop {
        let left: BTreeSet<String> = imports.keys().cloned().collect();
        let imported: BTreeSet<String> = imports.values().flatten().cloned().collect();
        imports.retain(|module, others| {
            others.retain(|other| left.contains(other));
            !others.is_empty() && imported.contains(module)
        });
        if imports.len() == left.len() {
            return left.into_iter().collect();
        }
    }
}

#[test]
fn no_crate_has_a_circle_of_imports() {
    let crates = [
        "model", "check", "evidence", "logs", "debate", "kvm", "sim", "witness", "what-if",
    ];
    for krate in crates {
        let imports = imports(&root().join(krate));
        assert!(!imports.is_empty(), "{krate} has sources");
        assert_eq!(circle(imports), Vec::<String>::new(), "{krate}");
    }
}

#[test]
fn a_circle_is_seen_however_it_is_written() {
    let source = "//! super::not_this\nuse super::{memo::Memo, table};\nfn f() { crate::run::g() } // crate::nor_this\n";
    let expected = ["crate::run::g", "super::memo::Memo", "super::table"];
    let mut found = paths(&code(source));
    found.retain(|path| !path.ends_with("::"));
    assert_eq!(found, expected);
    let known = ["run", "search", "search::memo", "search::table"];
    let known = known.map(|module| (module.to_owned(), String::new()));
    let known = BTreeMap::from(known);
    let leads = |path, module| leads_to(path, module, &known);
    assert_eq!(
        leads("super::table", "search::memo"),
        Some("search::table".to_owned())
    );
    assert_eq!(
        leads("crate::run::g", "search::memo"),
        Some("run".to_owned())
    );
    assert_eq!(leads("crate::gone", "search::memo"), None);
    let arrow = |from: &str, to: &[&str]| {
        let to = to.iter().map(|to| (*to).to_owned()).collect();
        (from.to_owned(), to)
    };
    let open = [arrow("a", &["b", "c"]), arrow("b", &["c"]), arrow("c", &[])];
    assert!(circle(Imports::from(open)).is_empty());
    let closed = [arrow("a", &["b"]), arrow("b", &["c"]), arrow("c", &["b"])];
    assert_eq!(circle(Imports::from(closed)), ["b", "c"]);
}
