//! The page in a real browser: headless Chromium, where it is installed (Debian's package `chromium`).
//!
//! A script is added to a copy of the page that does what a reader's hands do and leaves what it sees in the document,
//! which the browser then prints.

use std::path::Path;
use std::process::Command;

use dirtysim::explain::{Format, Story};

use super::{builtin, hostile, shrunk_story};

/// The browser, if there is one.
fn chromium() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| {
            Command::new(name)
                .arg("--version")
                .output()
                .is_ok_and(|output| output.status.success())
        })
}

/// The document after the page's script and `hands` have run; `dark` asks for the dark scheme.
fn dom(browser: &str, page: &str, fragment: &str, hands: &str, dark: bool) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("story.html");
    let script = format!("<script>{hands}</script></body>");
    let page = page.replace("</body>", &script);
    std::fs::write(&file, page).expect("it can be written");
    let output = browse(
        browser,
        dir.path(),
        &["--dump-dom"],
        &format!("file://{}{fragment}", file.display()),
        dark,
    );
    String::from_utf8(output).expect("a document in UTF-8")
}

fn browse(browser: &str, profile: &Path, what: &[&str], url: &str, dark: bool) -> Vec<u8> {
    let mut command = Command::new(browser);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--no-first-run", "--virtual-time-budget=3000"])
        .arg("--window-size=1280,1000")
        .arg(format!(
            "--user-data-dir={}",
            profile.join("profile").display()
        ))
        .args(what);
    if dark {
        command.arg("--blink-settings=preferredColorScheme=0");
    }
    let output = command.arg(url).output().expect("the browser runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// The attribute `data-NAME` that the hands have left on the body.
fn left<'a>(dom: &'a str, name: &str) -> &'a str {
    let key = format!("data-{name}=\"");
    let at = dom
        .find(&key)
        .unwrap_or_else(|| panic!("no {key} in the document"))
        + key.len();
    &dom[at..at + dom[at..].find('"').expect("the attribute ends")]
}

fn skipped() -> Option<&'static str> {
    let browser = chromium();
    if browser.is_none() {
        eprintln!("skipped: no chromium here (Debian's package `chromium`)");
    }
    browser
}

const HANDS: &str = r#"
const body = document.body, slider = document.getElementById("slider");
const key = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
body.dataset.opened = body.dataset.step;
key("Home"); body.dataset.home = body.dataset.step;
key("ArrowRight"); key("ArrowRight"); body.dataset.right = body.dataset.step;
key("ArrowLeft"); body.dataset.left = body.dataset.step;
key("PageDown"); body.dataset.nextblock = body.dataset.step;
key("PageUp"); body.dataset.backblock = body.dataset.step;
key("End"); body.dataset.end = body.dataset.step;
key("w"); body.dataset.write = body.dataset.step;
key("l"); body.dataset.loss = body.dataset.step;
slider.value = "5"; slider.dispatchEvent(new Event("input")); body.dataset.slid = body.dataset.step;
body.dataset.spoken = slider.getAttribute("aria-valuetext");
document.getElementById("forth").click(); body.dataset.clicked = body.dataset.step;
body.dataset.unlabelled = [...document.querySelectorAll("button, input")].filter((e) => !e.textContent.trim() && !e.getAttribute("aria-label")).length;
body.dataset.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
body.dataset.ground = getComputedStyle(body).backgroundColor;
"#;

fn check_hands(story: &Story, dom: &str) {
    let last = story.notes.len().to_string();
    let written = story.written.expect("a page was written").to_string();
    let dropped = story.dropped.expect("a record was dropped").to_string();
    let second_block = story
        .notes
        .iter()
        .position(|note| note.block == 2)
        .expect("there is a second block")
        + 1;
    let seen = |name: &str| left(dom, name);
    assert_eq!(seen("opened"), dropped);
    assert_eq!(seen("home"), "0");
    assert_eq!(seen("right"), "2");
    assert_eq!(seen("left"), "1");
    assert_eq!(seen("nextblock"), second_block.to_string());
    assert_eq!(seen("backblock"), "1");
    assert_eq!(seen("end"), last);
    assert_eq!(seen("write"), written);
    assert_eq!(seen("loss"), dropped);
    assert_eq!(seen("slid"), "5");
    assert!(seen("spoken").starts_with(&format!("step 5 of {last}: ")));
    assert_eq!(seen("clicked"), "6");
    assert_eq!(seen("unlabelled"), "0");
    assert_eq!(seen("wide"), "false");
}

#[test]
fn the_page_obeys_slider_keys_and_buttons_in_a_browser() {
    let Some(browser) = skipped() else { return };
    let story = shrunk_story(&builtin("reset-signal"));
    let page = Format::Html.tell(&story);
    let light = dom(browser, &page, "", HANDS, false);
    check_hands(&story, &light);
    let dark = dom(browser, &page, "", HANDS, true);
    check_hands(&story, &dark);
    assert_ne!(left(&light, "ground"), left(&dark, "ground"));
    // A link can name a step; what it shows is that step's state.
    let written = story.written.expect("a page was written");
    let linked = dom(browser, &page, &format!("#step={written}"), "", false);
    assert_eq!(left(&linked, "step"), written.to_string());
    assert!(linked.contains("differ from the copy"));
}

#[test]
fn a_hostile_name_runs_nothing_in_a_browser() {
    let Some(browser) = skipped() else { return };
    let page = Format::Html.tell(&shrunk_story(&hostile()));
    let hands = "document.body.dataset.title = document.title; document.body.dataset.images = document.images.length;";
    let dom = dom(browser, &page, "", hands, false);
    assert!(left(&dom, "title").starts_with("hostile: "));
    assert_eq!(left(&dom, "images"), "0");
    assert!(!left(&dom, "step").is_empty());
}
