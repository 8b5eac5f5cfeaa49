//! What identifies a definition: the same for the same meaning, whatever the order and style of its file.

use super::Template;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// SHA-256 of the template's normalized form, as 64 lower-case hexadecimal digits.
pub fn checksum(template: &Template) -> String {
    let normalized = serde_json::to_value(template).unwrap_or_default();
    let digest = Sha256::digest(canonical_json(&normalized).as_bytes());
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `value` as JSON without spaces, keys sorted by their bytes, and one spelling for each number, so that a value that
/// went through a `jsonb` column gives the same text.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                write_canonical(item, text);
            }
            text.push(']');
        }
        Value::Object(entries) => {
            let mut keys: Vec<_> = entries.iter().collect();
            keys.sort_unstable_by_key(|(key, _)| key.as_str());
            text.push('{');
            for (index, (key, item)) in keys.into_iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                let _ = write!(text, "{}:", Value::from(key.as_str()));
                write_canonical(item, text);
            }
            text.push('}');
        }
        Value::Number(number) => write_number(number, text),
        Value::Null | Value::Bool(_) | Value::String(_) => {
            let _ = write!(text, "{value}");
        }
    }
}

/// Whole numbers as integers: `jsonb` turns `1e3` into `1000` and `-0.0` into `0.0`.
fn write_number(number: &serde_json::Number, text: &mut String) {
    let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0);
    let _ = match float {
        Some(float) if float.abs() < 1e19 => write!(text, "{}", float as i128),
        _ => write!(text, "{number}"),
    };
}

#[cfg(test)]
mod tests {
    use super::{canonical_json, checksum};
    use crate::template::parse;
    use serde_json::json;

    #[test]
    fn canonical_json_does_not_depend_on_the_order_of_keys_or_the_spelling_of_numbers() {
        assert_eq!(
            canonical_json(&json!({"b": [1, 2.5, null], "a": {"z": "ü\n", "y": true}})),
            r#"{"a":{"y":true,"z":"ü\n"},"b":[1,2.5,null]}"#
        );
        let numbers: serde_json::Value =
            serde_json::from_str("[1.0, 1e3, -0.0, 1e-7, 18446744073709551615, -5, 1e30]").unwrap();
        assert_eq!(canonical_json(&numbers), "[1,1000,0,1e-7,18446744073709551615,-5,1e+30]");
    }

    #[test]
    fn the_checksum_changes_with_the_meaning_and_not_with_the_style() {
        let block = "name: a\nnamespace_name: n\nsteps:\n  - name: s\n    handler: {callable: c, initialization: {x: 1, y: 2}}\n";
        let flow = r#"{"steps": [{"handler": {"initialization": {"y": 2, "x": 1}, "callable": "c"}, "name": "s", "timeout_seconds": 300}], "namespace_name": "n", "version": "1.0.0", "name": "a"}"#;
        let sum = |source: &str| checksum(&parse(source, None).unwrap());
        assert_eq!(sum(block), sum(flow));
        assert_eq!(sum(block).len(), 64);
        assert_ne!(sum(block), sum(&block.replace("x: 1", "x: 2")));
        assert_ne!(sum(block), sum(&format!("{block}    timeout_seconds: 299\n")));
    }
}
