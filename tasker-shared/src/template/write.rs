//! A template as a file for people, such that reading it gives the same template.

use super::{Keep, Lifecycle, Retention, StepOverride, StepTemplate, Template};
use crate::step::RetryPolicy;
use serde_json::{Map, Value, json};
use std::{fmt::Write, time::Duration};

/// The template as YAML; [`super::parse`] reads it back equal. Keys that have their default are left out.
pub fn to_yaml(template: &Template) -> String {
    let mut entries = vec![
        ("name", json!(template.name)),
        ("namespace_name", json!(template.namespace)),
        ("version", json!(template.version)),
    ];
    entries.extend(template.description.as_ref().map(|text| ("description", json!(text))));
    if !template.metadata.is_empty() {
        entries.push(("metadata", Value::Object(template.metadata.clone())));
    }
    entries.push(("identity_strategy", json!(template.identity_strategy)));
    let lifecycle = lifecycle(&template.lifecycle);
    if !lifecycle.is_empty() {
        entries.push(("lifecycle", Value::Object(lifecycle)));
    }
    if !template.retention.is_empty() {
        entries.push(("retention", Value::Object(retention(&template.retention))));
    }
    entries.extend(template.input_schema.as_ref().map(|schema| ("input_schema", schema.clone())));
    let mut yaml = String::new();
    mapping(&mut yaml, 0, &entries);
    yaml.push_str("steps:\n");
    for item in &template.steps {
        list_item(&mut yaml, 2, &step(item));
    }
    if !template.environments.is_empty() {
        yaml.push_str("environments:\n");
    }
    for (environment, overrides) in &template.environments {
        let _ = writeln!(yaml, "  {}:{}", word(environment), if overrides.is_empty() { " {}" } else { "\n    steps:" });
        for (name, changed) in overrides {
            list_item(&mut yaml, 6, &step_override(name, changed));
        }
    }
    yaml
}

type Entries = Vec<(&'static str, Value)>;

fn lifecycle(limits: &Lifecycle) -> Map<String, Value> {
    let durations = [
        ("max_duration_seconds", limits.max_duration),
        ("max_queued_seconds", limits.max_queued),
        ("max_retry_wait_seconds", limits.max_retry_wait),
    ];
    let durations = durations.into_iter().filter_map(|(key, limit)| Some((key.to_owned(), seconds(limit?))));
    let retries = limits.max_retries.map(|limit| ("max_retries".to_owned(), json!(limit)));
    durations.chain(retries).collect()
}

fn retention(ages: &Retention) -> Map<String, Value> {
    let text = |keep: Keep| match keep {
        Keep::For(age) => json!(humantime::format_duration(age).to_string()),
        Keep::Forever => json!("never"),
    };
    let ages = [("complete_after", ages.complete_after), ("failed_after", ages.failed_after)];
    ages.into_iter().filter_map(|(key, keep)| Some((key.to_owned(), text(keep?)))).collect()
}

fn step(step: &StepTemplate) -> Entries {
    let mut entries = vec![("name", json!(step.name))];
    entries.extend(step.description.as_ref().map(|text| ("description", json!(text))));
    if !step.dependencies.is_empty() {
        entries.push(("dependencies", json!(step.dependencies)));
    }
    let mut handler = Map::from_iter([("callable".to_owned(), json!(step.handler.callable))]);
    handler.extend(step.handler.method.as_ref().map(|method| ("method".to_owned(), json!(method))));
    if !step.handler.initialization.is_empty() {
        handler.insert("initialization".to_owned(), Value::Object(step.handler.initialization.clone()));
    }
    entries.push(("handler", Value::Object(handler)));
    if step.retry != RetryPolicy::default() {
        entries.push(("retry", json!(step.retry)));
    }
    entries.push(("timeout_seconds", seconds(step.timeout)));
    entries.extend(step.result_schema.as_ref().map(|schema| ("result_schema", schema.clone())));
    entries.extend(step.concurrency.as_ref().map(|limit| ("concurrency", json!(limit))));
    entries
}

fn step_override(name: &str, changed: &StepOverride) -> Entries {
    let mut entries = vec![("name", json!(name))];
    if !changed.initialization.is_empty() {
        entries.push(("handler", json!({ "initialization": changed.initialization })));
    }
    let retry = json!(changed.retry);
    let given: Map<String, Value> = retry
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !given.is_empty() {
        entries.push(("retry", Value::Object(given)));
    }
    entries.extend(changed.timeout.map(|limit| ("timeout_seconds", seconds(limit))));
    entries
}

/// Whole seconds as an integer, else with its thousandths.
fn seconds(duration: Duration) -> Value {
    if duration.subsec_millis() == 0 { json!(duration.as_secs()) } else { json!(duration.as_millis() as f64 / 1_000.0) }
}

fn list_item(yaml: &mut String, indent: usize, entries: &Entries) {
    let start = yaml.len();
    mapping(yaml, indent + 2, entries);
    yaml.replace_range(start + indent..start + indent + 1, "-");
}

fn mapping(yaml: &mut String, indent: usize, entries: &Entries) {
    for (key, item) in entries {
        entry(yaml, indent, key, item);
    }
}

fn entry(yaml: &mut String, indent: usize, key: &str, item: &Value) {
    let _ = write!(yaml, "{:indent$}{}:", "", word(key));
    value(yaml, indent + 2, item);
}

/// Writes what follows `key:` or `-`, with the line break at its end.
fn value(yaml: &mut String, indent: usize, value_: &Value) {
    match value_ {
        Value::Object(entries) if !entries.is_empty() => {
            yaml.push('\n');
            for (key, item) in entries {
                entry(yaml, indent, key, item);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            yaml.push('\n');
            for item in items {
                let _ = write!(yaml, "{:indent$}-", "");
                value(yaml, indent + 2, item);
            }
        }
        Value::Array(items) => {
            let words: Vec<String> = items.iter().map(scalar).collect();
            let _ = writeln!(yaml, " [{}]", words.join(", "));
        }
        Value::Object(_) => yaml.push_str(" {}\n"),
        _ => {
            let _ = writeln!(yaml, " {}", scalar(value_));
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => word(text),
        other => other.to_string(),
    }
}

/// Text without quotes where it cannot be taken for anything else, else in double quotes.
fn word(text: &str) -> String {
    const RESERVED: &[&str] = &["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let first_is_letter = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let plain = first_is_letter && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if plain && !RESERVED.contains(&text.to_ascii_lowercase().as_str()) { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
