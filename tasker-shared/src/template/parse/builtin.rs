//! What can be told from a template about the `initialization` of the handlers `http` and `command`, before a worker reads it.

use crate::template::{
    headers, placeholders,
    problem::{Path, Problems},
    read::At,
};
use serde_json::Value;

/// Checks the `initialization` at `at` of a step whose handler is `callable`.
pub(super) fn check(callable: &str, at: &At<'_>, value: &serde_json::Map<String, Value>, problems: &mut Problems) {
    if !matches!(callable, "http" | "command") {
        return;
    }
    for (key, value) in value {
        texts(at, &Path::Key(&at.path, key), value, problems);
    }
    if let (true, Some(Value::Object(named))) = (callable == "http", value.get("headers")) {
        for name in named.keys().filter(|name| headers::belongs_to_connection(name)) {
            let headers = Path::Key(&at.path, "headers");
            problems.add(at.place(), &Path::Key(&headers, name), headers::REASON);
        }
    }
}

fn texts(at: &At<'_>, path: &Path<'_>, value: &Value, problems: &mut Problems) {
    match value {
        Value::String(text) => {
            if let Err(reason) = placeholders::check(text) {
                problems.add(at.place(), path, reason);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                texts(at, &Path::Index(path, index), item, problems);
            }
        }
        Value::Object(members) => {
            for (key, member) in members {
                texts(at, &Path::Key(path, key), member, problems);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
