//! The page in a real browser: headless Chromium, where it is installed (Debian's package `chromium`).
//!
//! A script is added to a copy of the page that does what a reader's hands do and leaves what it sees in the document,
//! which the browser then prints.

use std::path::{Path, PathBuf};
use std::process::Command;

use dirtysim::explain::what_if::Question;
use dirtysim::explain::{Aboard, Format, Story, page};
use serde_json::json;

use super::what_if::ask;
use super::{builtin, failure, hostile, shrunk_story};

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

/// The model for a page, where it is built (`.ci/stages/20-chromium` builds it).
fn module() -> Option<Vec<u8>> {
    let target = std::env::var("CARGO_TARGET_DIR").map_or_else(
        |_| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
        PathBuf::from,
    );
    let file = target.join("wasm32-unknown-unknown/what-if/dirtysim_what_if.wasm");
    let module = std::fs::read(&file).ok();
    if module.is_none() {
        eprintln!("skipped: {} is not built", file.display());
    }
    module
}

/// Goes to a step, takes the first that the schedule does not take there, and leaves what the page says then.
const ARGUING_HANDS: &str = r##"
const body = document.body;
const wait = setInterval(() => {
  if (!body.dataset.model) return;
  clearInterval(wait);
  const leave = (name) => {
    body.dataset[`${name}Claim`] = document.getElementById("claim").textContent;
    body.dataset[`${name}What`] = document.getElementById("what").textContent;
    body.dataset[`${name}Steps`] = document.getElementById("slider").max;
    body.dataset[`${name}Mail`] = document.getElementById("mail").textContent.length;
  };
  leave("own");
  if (location.hash.includes("take")) return;
  const slider = document.getElementById("slider");
  slider.value = "20"; slider.dispatchEvent(new Event("input"));
  const other = [...document.querySelectorAll("#ifsteps button")].find((button) => !button.classList.contains("told"));
  body.dataset.offered = document.querySelectorAll("#ifsteps button").length;
  body.dataset.taken = other.textContent;
  other.click(); leave("taken");
  body.dataset.link = location.hash;
  document.getElementById("ifend").click(); leave("ended");
  document.getElementById("ifundo").click(); leave("undone");
  location.hash = body.dataset.link;
  setTimeout(() => {
    leave("pasted");
    document.getElementById("ifundo").click(); leave("again");
  }, 20);
}, 5);
"##;

#[test]
fn a_reader_takes_another_step_in_a_browser_and_reads_what_the_program_says() {
    let (Some(browser), Some(wasm)) = (skipped(), module()) else {
        return;
    };
    let scenario = builtin("reset-signal");
    let failure = failure(&scenario);
    let target = Some(failure.invariant);
    let story = Story::new(&scenario, &failure.steps, target, String::new());
    let story = story.expect("the schedule is possible");
    let question = Question::new(&scenario, &failure.steps, target);
    let aboard = Aboard {
        wasm: &wasm,
        question: question.clone(),
    };
    let html = page(&story, Some(&aboard));
    assert!(html.len() < 2_000_000, "{} bytes", html.len());
    let seen = dom(browser, &html, "", ARGUING_HANDS, false);
    assert_eq!(
        left(&seen, "model"),
        "ready",
        "an old module? build it again"
    );
    let here = ask(&question, json!({ "at": 20 }));
    let possible = here["possible"].as_array().expect("a list");
    assert_eq!(left(&seen, "offered"), possible.len().to_string());
    let taken = possible
        .iter()
        .find(|step| left(&seen, "taken").starts_with(&*words(step)))
        .expect("it was offered");
    let take = json!({ "at": 20, "step": taken["step"] });
    let same = |dom: &str, name: &str, told: &serde_json::Value| {
        let story = &told["story"];
        let conclusion = story["conclusion"].as_array().expect("a list");
        let conclusion: String = conclusion.iter().filter_map(|line| line.as_str()).collect();
        let steps = story["steps"].as_array().map_or(0, Vec::len);
        assert_eq!(left(dom, &format!("{name}-claim")), story["claim"]);
        assert_eq!(
            left(dom, &format!("{name}-what")).replace("&amp;", "&"),
            conclusion.replace("->", "\u{2192}")
        );
        assert_eq!(left(dom, &format!("{name}-steps")), steps.to_string());
        let mail = told["mail"].as_str().map_or(0, str::len);
        assert_eq!(left(dom, &format!("{name}-mail")), mail.to_string());
    };
    let told = ask(&question, json!({ "takes": [take] }));
    same(&seen, "taken", &told);
    let ended = ask(
        &question,
        json!({ "takes": [take, { "at": 21, "step": null }] }),
    );
    same(&seen, "ended", &ended);
    same(&seen, "undone", &told);
    same(&seen, "pasted", &told);
    assert_eq!(left(&seen, "own-claim"), left(&seen, "again-claim"));
    // The link carries the schedule.
    let link = left(&seen, "link").replace("&amp;", "&");
    let linked = dom(browser, &html, &link, ARGUING_HANDS, false);
    same(&linked, "own", &told);
    assert_eq!(left(&linked, "step"), "21");
    // A page with a model of another version offers nothing.
    let other = html.replace("\"words\":\"faults on ", "\"words\":\"stumbles over ");
    let other = dom(browser, &other, "", ARGUING_HANDS, false);
    assert_eq!(left(&other, "model"), "none");
}

/// How the page begins a possible step's words.
fn words(possible: &serde_json::Value) -> String {
    let text = |key: &str| possible[key].as_str().unwrap_or_default().to_owned();
    format!("{} {}", text("lane"), text("words")).replace("->", "\u{2192}")
}
