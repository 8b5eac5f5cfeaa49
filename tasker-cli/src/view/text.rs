//! Texts that come from elsewhere, made fit for a line of a terminal.

use serde_json::Value;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// `text` without control characters: what a handler says must not move the cursor. Line breaks stay.
pub fn plain(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).collect()
}

/// `text` in one line, without control characters.
pub fn one_line(text: &str) -> String {
    let words = text.split_whitespace().map(plain).collect::<Vec<_>>();
    words.join(" ")
}

/// At most `width` columns of `text`; what is left out shows as `…`.
pub fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut fitted = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        fitted.push(c);
    }
    if width > 0 {
        fitted.push('…');
    }
    fitted
}

/// `text` filled with blanks to `width` columns.
pub(super) fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// A bar of `width` columns, filled as far as `done` of `total` goes.
pub fn bar(done: usize, total: usize, width: usize) -> String {
    let filled = (done * width).checked_div(total).unwrap_or(0).min(width);
    format!("{}{}", "█".repeat(filled), "░".repeat(width - filled))
}

/// Columns that `text` takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// What a handler said of its progress, in one line: a text, a number, or an object with some of `percent`,
/// `done` and `total`, `message`; anything else as JSON.
pub(super) fn progress(value: &Value) -> String {
    let Value::Object(object) = value else {
        return scalar(value);
    };
    let mut parts = Vec::new();
    if let (Some(done), Some(total)) = (object.get("done"), object.get("total")) {
        parts.push(format!("{}/{}", scalar(done), scalar(total)));
    }
    parts.extend(object.get("percent").map(|percent| format!("{}%", scalar(percent))));
    parts.extend(object.get("message").map(scalar));
    if parts.is_empty() { one_line(&value.to_string()) } else { parts.join(" ") }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => one_line(text),
        other => one_line(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::{bar, fit, one_line, plain, progress};
    use serde_json::json;

    #[test]
    fn what_a_handler_says_cannot_move_the_cursor() {
        assert_eq!(plain("a\x1b[2Jb\r\nc"), "a[2Jb\nc");
        assert_eq!(one_line("  a\n\tb\x07  c "), "a b c");
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdefg", 6), "abcde…");
        assert_eq!(fit("日本語です", 6), "日本…");
        assert_eq!(fit("abc", 0), "");
    }

    #[test]
    fn a_bar_is_full_only_at_the_end() {
        assert_eq!(bar(0, 4, 8), "░░░░░░░░");
        assert_eq!(bar(3, 4, 8), "██████░░");
        assert_eq!(bar(4, 4, 8), "████████");
        assert_eq!(bar(0, 0, 4), "░░░░");
    }

    #[test]
    fn progress_is_shown_by_its_usual_keys() {
        assert_eq!(progress(&json!("reading")), "reading");
        assert_eq!(progress(&json!(0.5)), "0.5");
        assert_eq!(progress(&json!({"done": 3, "total": 9, "message": "rows"})), "3/9 rows");
        assert_eq!(progress(&json!({"percent": 40})), "40%");
        assert_eq!(progress(&json!({"rows": 40})), "{\"rows\":40}");
    }
}
