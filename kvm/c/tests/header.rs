//! The header declares what the library has, with as many arguments; a C compiler looks at the rest (.ci/stages/16-kvm-c).

use std::collections::BTreeMap;

/// By name, how many arguments a function has, of those whose declaration begins with `begin`.
fn arguments(text: &str, begin: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for (at, _) in text.match_indices("dirtysim_") {
        let line = text[..at].rsplit('\n').next().unwrap_or_default();
        let rest = &text[at..];
        let Some(open) = rest.find('(') else { continue };
        let name = &rest[..open];
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name
            || !line.starts_with(begin)
            || line.starts_with(char::is_whitespace)
            || line.contains(['#', '(', '='])
            || line.contains("static")
        {
            continue;
        }
        let inside = &rest[open + 1..open + rest[open..].find(')').expect("it ends")];
        found.insert(
            name.to_owned(),
            inside
                .split(',')
                .filter(|one| !one.trim().is_empty())
                .count(),
        );
    }
    found
}

#[test]
fn the_header_declares_what_the_library_has() {
    let header = include_str!("../include/dirtysim.h");
    let library = include_str!("../src/lib.rs");
    let declared = arguments(header, "");
    let declared: BTreeMap<_, _> = declared
        .into_iter()
        .filter(|(name, _)| !name.ends_with("_fn"))
        .collect();
    let mut defined = arguments(library, "pub unsafe extern \"C\" fn");
    // Made by macros, with a VM, perhaps a number, a file and a line.
    for (makes, arguments) in [("plain! {", 3), ("numbered! {", 4)] {
        let rows = library.split(makes).nth(1).expect("it is there");
        let rows = rows.split('}').next().unwrap_or_default();
        for row in rows.lines().filter_map(|row| row.trim().split(':').next()) {
            if row.starts_with("dirtysim_") {
                defined.insert(row.to_owned(), arguments);
            }
        }
    }
    assert!(defined.len() > 25, "{defined:?}");
    assert_eq!(declared, defined);
}
