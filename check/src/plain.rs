//! Plain text: what may be shown of what somebody else wrote, and paragraphs of a width.
//!
//! ```
//! use dirtysim_check::plain::{html, printable};
//!
//! assert_eq!(printable("\u{1b}[31m"), "\\u{1b}[31m");
//! assert_eq!(html("a < b"), "a &lt; b");
//! ```

use std::borrow::Cow;

use textwrap::{Options, WordSeparator, WordSplitter};

/// Columns that a paragraph has at least, whatever its margins.
const LEAST_COLUMNS: usize = 8;

/// `text` without what a terminal would obey: control characters but line feeds and tabs, and characters that turn the
/// direction of writing, are shown as `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    shown(text, |c| c.escape_unicode().to_string())
}

/// The same for JSON, whose strings may hold such characters as they are: there they are shown as `\u001b`, and mean the same.
pub fn printable_json(text: &str) -> Cow<'_, str> {
    shown(text, |c| format!("\\u{:04x}", u32::from(c)))
}

/// The same for an element or an attribute of HTML.
#[must_use]
pub fn html(text: &str) -> String {
    let text = printable(text);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

fn shown(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    let obeyed = |c: char| {
        c.is_control() && !matches!(c, '\n' | '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if obeyed(c) {
            shown.push_str(&escape(c));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// How a paragraph of so many columns is wrapped, its margins included: between words, which are not taken apart.
pub fn wrapping<'a>(columns: usize, first: &'a str, rest: &'a str) -> Options<'a> {
    Options::new(columns)
        .initial_indent(first)
        .subsequent_indent(rest)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
}

/// Adds `text` as a paragraph of so many columns; its first line begins with `first`, the others with `rest`. A word that
/// is longer than a line is broken.
pub fn paragraph(out: &mut String, text: &str, first: &str, rest: &str, columns: usize) {
    let words: Vec<&str> = text.split_whitespace().collect();
    let margin = textwrap::core::display_width(first).max(textwrap::core::display_width(rest));
    let options = wrapping(columns.max(margin + LEAST_COLUMNS), first, rest);
    for line in textwrap::wrap(&words.join(" "), options) {
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::{html, printable, printable_json};

    #[test]
    fn a_terminal_gets_nothing_to_obey() {
        assert_eq!(
            printable("a\u{1b}[31m\r\u{9b}0m\u{7f}\u{202e}b"),
            "a\\u{1b}[31m\\u{d}\\u{9b}0m\\u{7f}\\u{202e}b"
        );
        assert_eq!(
            printable("zwölf\tBoxkämpfer\n日本"),
            "zwölf\tBoxkämpfer\n日本"
        );
        assert_eq!(
            html("<a b='c'>&\u{7f}"),
            "&lt;a b=&#39;c&#39;&gt;&amp;\\u{7f}"
        );
        assert_eq!(printable_json("\"a\u{7f}\u{9b}ä\""), "\"a\\u007f\\u009bä\"");
    }
}
