//! What may be shown of a text that somebody else wrote.

use std::borrow::Cow;

/// `text` without what a terminal would obey: control characters but line feeds and tabs, and characters that turn the
/// direction of writing, are shown as `\u{1b}`.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
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
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_terminal_gets_nothing_to_obey() {
        assert_eq!(
            printable("a\u{1b}[31m\r\u{9b}0m\u{7f}\u{202e}b"),
            "a\\u{1b}[31m\\u{d}\\u{9b}0m\\u{7f}\\u{202e}b"
        );
        assert_eq!(printable("zwölf\tBoxkämpfer\n日本"), "zwölf\tBoxkämpfer\n日本");
    }
}
