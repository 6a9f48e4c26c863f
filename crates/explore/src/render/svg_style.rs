//! What all parts of a picture have in common: measures, colours, and text that XML has a place
//! for.

/// The width of a character of the monospaced text, in pixels; fonts differ little in this.
pub(super) const CHAR: f64 = 7.25;
/// What each further line of a row adds.
pub(super) const LINE: f64 = 16.0;
pub(super) const MARGIN: f64 = 28.0;
pub(super) const RED: &str = "#c62828";
pub(super) const GREY: &str = "#6b7280";

/// For text and attributes of XML; characters that XML has no place for become `?`.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => out.push('?'),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}
