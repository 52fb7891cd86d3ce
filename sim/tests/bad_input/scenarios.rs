//! Scenarios that are refused, at the place that is meant.

use dirtysim::scenario::Scenario;

/// What is said of a text.
fn error(text: &str) -> String {
    match Scenario::from_toml("it.toml", text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error.to_string(),
    }
}

/// A scenario with those steps, and what else stands in it.
fn with(steps: &str, more: &str) -> String {
    format!(
        "name = \"it\"\n[machine]\narch = \"arm64\"\n{more}\n[writers]\nvcpu = {{ stores = 1 }}\n[protocol]\nsteps = [{steps}]\n"
    )
}

#[test]
fn an_error_shows_its_place() {
    assert_eq!(
        error(&with("\"enable-logging\", \"copy-al\", \"finish\"", "pages = 2")),
        "unknown step `copy-al`\n --> it.toml:8:28\n  |\n8 | steps = [\"enable-logging\", \"copy-al\", \"finish\"]\n  |                            ^^^^^^^^^\n  |\nhelp: did you mean `copy-all`? known, by kind:\n"
            .to_owned()
            + error(&with("\"\"", "pages = 2")).split("known, by kind:\n").nth(1).expect("words")
    );
}

#[test]
fn a_string_left_open_before_a_carriage_return() {
    let error = error(include_str!("crlf-unclosed.toml"));
    assert!(error.contains("--> it.toml:1:"), "{error}");
    assert!(error.contains("1 | a = \""), "{error}");
}

#[test]
fn any_place_in_any_text_can_be_shown() {
    // A key that nobody knows, in lines of every kind; and the end of a text in the middle of something.
    for line in [
        "é = 1",
        "\tx = 1",
        "日本 = 1",
        "x = \"\u{1b}[31m",
        "x = \"\r",
        "x = [",
        "x",
        "\u{feff}x",
        "x = \"\\u{d800}\"",
    ] {
        for end in ["", "\n", "\r\n", "\r", "\r\r\n"] {
            let text = format!("name = \"it\"{end}{line}{end}");
            let error = error(&text);
            assert!(error.contains("help: "), "{text:?}: {error}");
        }
    }
    let long = format!("x = \"{}\"", "y".repeat(1 << 20));
    assert!(error(&long).len() < 2000);
    let deep = format!("{} = 1", vec!["a"; 20_000].join("."));
    error(&deep);
    error(&format!("x = {}", "[".repeat(100_000)));
}

#[test]
fn a_program_that_grows_without_bound_ends_at_its_limit() {
    let error_of_chunks = error(include_str!("clear-in-2-to-the-32-chunks.toml"));
    assert!(
        error_of_chunks.contains("more than 250 operations"),
        "{error_of_chunks}"
    );
    assert!(error_of_chunks.contains("it.toml:8:"), "{error_of_chunks}");
    // 250 times 250 times … nothing.
    let mut steps = String::new();
    for inner in ["", "{ step = \"enable-logging\" }", "{ forever = [] }"] {
        steps = inner.to_owned();
        for _ in 0..30 {
            steps = format!("{{ repeat = 250, steps = [{steps}] }}");
        }
        error(&with(&steps, "pages = 2"));
    }
    let error = error(&with(&steps, "pages = 2"));
    assert!(error.contains("operations"), "{error}");
}

#[test]
fn sizes_are_refused_before_anything_is_made_of_them() {
    let devices = "{ transfers = 1 },".repeat(20_000);
    let text = format!(
        "name = \"it\"\n[machine]\narch = \"x86\"\npages = 2\n[writers]\nvcpu = {{ stores = 1 }}\ndevices = [{devices}]\n[protocol]\nsteps = [\"finish\"]\n"
    );
    let said = error(&text);
    assert!(said.contains("more than 64 devices"), "{said}");
    let slots = "[[slots]]\npages = 1\n".repeat(20_000);
    let said = error(&with("\"finish\"", &slots));
    assert!(said.contains("20000 slots"), "{said}");
    let said = error(include_str!("shares-wraps.toml"));
    assert!(said.contains("slot `a` has 2 pages"), "{said}");
}

#[test]
fn names_are_letters_digits_and_two_signs_and_nothing_has_a_second_one() {
    let slot = |name: &str| format!("[[slots]]\nname = \"{name}\"\npages = 1\n");
    let device = |name: &str| {
        with("\"finish\"", "pages = 2").replace(
            "vcpu = { stores = 1 }",
            &format!("vcpu = {{ stores = 1 }}\ndevices = [{{ name = \"nic\", transfers = 1 }}, {{ name = \"{name}\", transfers = 1 }}]"),
        )
    };
    let thread = |name: &str| {
        let threads = format!(
            "threads = [{{ name = \"reaper\", steps = [\"copy\"] }}, {{ name = \"{name}\", steps = [\"copy\"] }}]"
        );
        with("\"finish\"", "pages = 2") + &threads
    };
    for bad in ["", "a:0", "a b", "\\u001b[31m", "ä", &"x".repeat(101)] {
        for text in [
            with("\"finish\"", &slot(bad)),
            device(bad),
            thread(bad),
            with("\"finish\"", "pages = 2").replace("\"it\"", &format!("\"{bad}\"")),
        ] {
            let said = error(&text);
            assert!(said.contains("a name has 1 to 100 letters"), "{said}");
            assert!(said.contains("--> it.toml:"), "{said}");
            assert!(!said.contains('\u{1b}'), "{said}");
        }
    }
    for (text, what) in [
        (
            with("\"finish\"", &(slot("ram") + &slot("ram"))),
            "slot `ram`",
        ),
        (
            with("\"finish\"", &(slot("slot1") + "[[slots]]\npages = 1\n")),
            "slot `slot1`",
        ),
        (device("nic"), "device `nic`"),
        (thread("reaper"), "thread `reaper`"),
    ] {
        let said = error(&text);
        assert!(said.contains(&format!("a second {what}")), "{said}");
    }
}

#[test]
fn a_sentence_is_a_line() {
    let text = with("\"enable-logging\", \"copy-all\", \"finish\"", "pages = 2");
    let text = format!("sentence = \"one\\n  two\"\n{text}");
    let scenario = Scenario::from_toml("it.toml", &text).expect("it is a scenario");
    assert_eq!(scenario.sentence, "one two");
}
