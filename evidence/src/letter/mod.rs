//! A text of several parts, written for a mail, for Markdown and as a page.
//!
//! ```
//! use dirtysim_evidence::letter::{Letter, Part};
//!
//! let mut letter = Letter::default();
//! letter.title("A page is lost");
//! letter.parts.push(Part::Text("By a store before RESET.".to_owned()));
//! assert!(letter.text().starts_with("A page is lost\n=============="));
//! assert!(letter.markdown().contains("By a store before RESET."));
//! ```

use crate::explain::ascii;
use crate::plain::{html as escape, paragraph, printable};

/// Columns of a mail.
const COLUMNS: usize = 72;

const STYLE: &str = include_str!("letter.css");

/// A part of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The title of what follows, up to the next.
    Title(String),
    /// A heading.
    Head(String),
    /// A paragraph.
    Text(String),
    /// Lines of which each stands for itself.
    List(Vec<String>),
    /// Names and what they are.
    Fields(Vec<(String, String)>),
    /// Lines that stay as they are.
    Verbatim(String),
}

/// A text of several parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Letter {
    /// The parts, in order.
    pub parts: Vec<Part>,
}

impl Letter {
    /// Begins with something else.
    pub fn title(&mut self, text: &str) {
        self.parts.push(Part::Title(text.trim().to_owned()));
    }

    /// For a mail: printable ASCII, lines of at most 72 columns but those that stay as they are.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Title(text) => {
                    if !out.is_empty() {
                        out.push('\n');
                    }
                    paragraph(&mut out, text, "", "", COLUMNS);
                    out.push_str(&"=".repeat(text.chars().count().min(COLUMNS)));
                    out.push_str("\n\n");
                }
                Part::Head(text) => {
                    out.push_str(text);
                    out.push('\n');
                    out.push_str(&"-".repeat(text.chars().count()));
                    out.push_str("\n\n");
                }
                Part::Text(text) => {
                    paragraph(&mut out, text, "", "", COLUMNS);
                    out.push('\n');
                }
                Part::List(items) => {
                    for item in items {
                        paragraph(&mut out, item, "- ", "  ", COLUMNS);
                    }
                    out.push('\n');
                }
                Part::Fields(fields) => {
                    for (name, text) in fields {
                        let first = format!("  {:<13}", format!("{name}:"));
                        paragraph(&mut out, text, &first, &" ".repeat(15), COLUMNS);
                    }
                    out.push('\n');
                }
                Part::Verbatim(text) => {
                    out.push_str(text.trim_end());
                    out.push_str("\n\n");
                }
            }
        }
        let text = ascii(out.trim_end());
        format!("{text}\n")
    }

    /// As Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Title(text) => out.push_str(&format!("# {}\n\n", md(text))),
                Part::Head(text) => out.push_str(&format!("## {}\n\n", md(text))),
                Part::Text(text) => out.push_str(&format!("{}\n\n", md(text))),
                Part::List(items) => {
                    for item in items {
                        out.push_str(&format!("- {}\n", md(item)));
                    }
                    out.push('\n');
                }
                Part::Fields(fields) => {
                    for (name, text) in fields {
                        out.push_str(&format!("- **{}**: {}\n", md(name), md(text)));
                    }
                    out.push('\n');
                }
                Part::Verbatim(text) => {
                    // A fence is longer than any that the text has.
                    let mut fence = "```".to_owned();
                    while text.contains(&fence) {
                        fence.push('`');
                    }
                    out.push_str(&format!("{fence}\n{}\n{fence}\n\n", text.trim_end()));
                }
            }
        }
        let text = printable(out.trim_end()).into_owned();
        format!("{text}\n")
    }

    /// As one page that needs nothing else.
    #[must_use]
    pub fn html(&self) -> String {
        let title = self.parts.iter().find_map(|part| match part {
            Part::Title(text) => Some(text.as_str()),
            _ => None,
        });
        let mut out = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n<main>\n",
            escape(title.unwrap_or("dirtysim"))
        );
        for part in &self.parts {
            match part {
                Part::Title(text) => out.push_str(&format!("<h1>{}</h1>\n", escape(text))),
                Part::Head(text) => out.push_str(&format!("<h2>{}</h2>\n", escape(text))),
                Part::Text(text) => out.push_str(&format!("<p>{}</p>\n", escape(text))),
                Part::List(items) => {
                    let items: String = items
                        .iter()
                        .map(|item| format!("<li>{}</li>\n", escape(item)))
                        .collect();
                    out.push_str(&format!("<ul>\n{items}</ul>\n"));
                }
                Part::Fields(fields) => {
                    let fields: String = fields
                        .iter()
                        .map(|(name, text)| {
                            format!("<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(text))
                        })
                        .collect();
                    out.push_str(&format!("<dl>\n{fields}</dl>\n"));
                }
                Part::Verbatim(text) => {
                    out.push_str(&format!("<pre>{}</pre>\n", escape(text.trim_end())));
                }
            }
        }
        out.push_str("</main>\n</html>\n");
        out
    }
}

/// What Markdown would take for its own, by hand: no library here writes Markdown.
fn md(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if matches!(c, '\\' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_part_says_is_text_in_every_form() {
        let letter = Letter {
            parts: vec![
                Part::Title("a <b> & *c*: holds".to_owned()),
                Part::Fields(vec![("machine".to_owned(), "arm64 \u{1b}[31m".to_owned())]),
                Part::List(vec!["one".to_owned(), "x ".repeat(60)]),
                Part::Verbatim("```\n--->8---".to_owned()),
            ],
        };
        let text = letter.text();
        assert!(
            text.is_ascii() && text.lines().all(|line| line.len() <= COLUMNS),
            "{text}"
        );
        let html = letter.html();
        assert!(
            html.contains("<h1>a &lt;b&gt; &amp; *c*: holds</h1>"),
            "{html}"
        );
        assert!(html.contains("--->8---".replace('>', "&gt;").as_str()));
        let markdown = letter.markdown();
        assert!(
            markdown.starts_with("# a \\<b\\> & \\*c\\*: holds\n"),
            "{markdown}"
        );
        assert!(markdown.contains("````\n```\n"), "{markdown}");
        assert!(!markdown.contains('\u{1b}') && !html.contains('\u{1b}'));
    }
}
