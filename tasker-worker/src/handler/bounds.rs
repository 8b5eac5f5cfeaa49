//! What can be stored: JSON without the character U+0000, not too deep, not too large.

use serde_json::{Value, json};
use std::{fmt::Write as _, io};

/// Deeper JSON is refused: the parser that reads it back stops at 128 levels, and results are handed on inside others.
const MAX_DEPTH: usize = 100;

/// Checks that PostgreSQL takes `value` as `jsonb`, and that it can be read back.
///
/// # Errors
/// A sentence that names the place.
pub(super) fn storable(value: &Value) -> Result<(), String> {
    let mut path = String::from("$");
    walk(value, &mut path, 0)
}

fn walk(value: &Value, path: &mut String, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("the result is nested more than {MAX_DEPTH} levels deep, which cannot be stored"));
    }
    let end = path.len();
    match value {
        Value::String(text) => without_nul(text, path)?,
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate().filter(|(_, item)| may_hold_text(item)) {
                let _ = write!(path, "[{index}]");
                walk(item, path, depth + 1)?;
                path.truncate(end);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                path.push('.');
                path.push_str(key);
                without_nul(key, path)?;
                walk(item, path, depth + 1)?;
                path.truncate(end);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

const fn may_hold_text(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Array(_) | Value::Object(_))
}

fn without_nul(text: &str, path: &str) -> Result<(), String> {
    if text.contains('\0') {
        let path = path.replace('\0', "\\u0000");
        return Err(format!("the result has the character U+0000 at {path}, which PostgreSQL cannot store"));
    }
    Ok(())
}

/// The length of `value` as JSON, in bytes, without writing it anywhere.
pub(super) fn json_bytes(value: &Value) -> usize {
    let mut counted = Counter(0);
    serde_json::to_writer(&mut counted, value).map_or(usize::MAX, |()| counted.0)
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `text` without U+0000, and with a note where it was longer than `max` bytes.
pub(super) fn shortened(text: &str, max: usize) -> String {
    let kept = if text.len() > max {
        format!("{}… ({} bytes, shortened)", &text[..text.floor_char_boundary(max)], text.len())
    } else {
        text.to_owned()
    };
    kept.replace('\0', "\u{fffd}")
}

/// `details` without U+0000, and replaced by their beginning where they were longer than `max` bytes.
pub(super) fn shortened_details(details: Value, max: usize) -> Value {
    if storable(&details).is_ok() && json_bytes(&details) <= max {
        return details;
    }
    // What serde_json writes has no U+0000 itself: the character is escaped as `\u0000` in the text.
    let text = details.to_string().replace("\\u0000", "\u{fffd}");
    match serde_json::from_str(&text) {
        Ok(clean) if text.len() <= max => clean,
        _ => json!({"shortened": shortened(&text, max)}),
    }
}
