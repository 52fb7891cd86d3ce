//! The story as one HTML file that needs no network: lanes, and a slider through the states.
//!
//! What a trace says is data on the page: texts are escaped, the rest is JSON in a script element that no name can end,
//! and the page's own script puts words on it as text only. The page forbids itself every connection.
//!
//! The template is filled by hand: askama and maud are macros over a second `syn`, minijinja finds a wrong template when a page is made.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::drawn::{claim, data};
use super::story::Story;
use super::text;
use super::what_if::Question;
use crate::plain::html as escape;

const TEMPLATE: &str = include_str!("page.html");
const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");

/// The model compiled for a browser, and what a page asks it.
#[derive(Debug, Clone)]
pub struct Aboard<'a> {
    /// The module, as `what-if/` makes it.
    pub wasm: &'a [u8],
    /// The page's own schedule.
    pub question: Question,
}

/// The story as a page; with a model aboard its reader can take another step.
#[must_use]
pub fn page(story: &Story, aboard: Option<&Aboard<'_>>) -> String {
    let items = |lines: &[String]| -> String {
        lines
            .iter()
            .map(|line| format!("<li>{}</li>\n", escape(line)))
            .collect()
    };
    let carried = aboard.map(|aboard| {
        let question = serde_json::to_string(&aboard.question).unwrap_or_default();
        format!(
            "<script type=\"application/json\" id=\"question\">{}</script>\n<script type=\"text/plain\" id=\"model\">{}</script>\n",
            script_safe(&question),
            STANDARD.encode(aboard.wasm)
        )
    });
    // A page may compile what it carries only if it says so.
    let wasm_source = match aboard {
        Some(_) => " 'wasm-unsafe-eval'",
        None => "",
    };
    let fields = [
        ("title", escape(&text::headline(story))),
        ("css", CSS.to_owned()),
        ("scenario", escape(&story.scenario)),
        ("claim", escape(&claim(story))),
        ("wasm_source", wasm_source.to_owned()),
        ("model", carried.unwrap_or_default()),
        ("head", items(&text::head(story))),
        ("what", items(&story.conclusion)),
        ("size", escape(&text::size(story))),
        (
            "page",
            escape(story.pages.first().map_or("", String::as_str)),
        ),
        ("text", escape(&text::tell(story))),
        ("reproduce", escape(&story.reproduce)),
        ("data", script_safe(&data(story).to_string())),
        ("js", JS.to_owned()),
    ];
    fill(TEMPLATE, &fields)
}

/// The template with its fields filled in, in one pass: what a field brings is not looked at again.
fn fill(template: &str, fields: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(template.len() + CSS.len() + JS.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            out.push_str("{{");
            rest = after;
            continue;
        };
        let field = fields.iter().find(|(known, _)| *known == name);
        debug_assert!(field.is_some(), "the template names the field {name}");
        if let Some((_, value)) = field {
            out.push_str(value);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// JSON that can stand in a script element: nothing in it ends the element or begins a comment.
fn script_safe(json: &str) -> String {
    json.replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}
