//! What the binary carries of the documentation, and what it makes of its own command line.

use std::path::Path;

use dirtysim::cli::help::PAGES;

#[test]
fn the_pages_in_the_binary_are_those_of_the_documentation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, file, text) in PAGES {
        let page = std::fs::read_to_string(root.join("../docs").join(file)).expect(name);
        // A crate carries its own files only, so that the binary's are copies.
        dirtysim_expected::file(&root.join("help").join(file), &page);
        assert!(!text.is_empty(), "{name}");
    }
}
