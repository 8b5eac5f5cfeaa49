//! One source of values (a file, the environment variables), checked key by key, with each value's origin.

use super::{
    Origin, Problem,
    keys::{self, Key, Value},
};
use crate::url::without_secrets;
use std::collections::BTreeMap;

/// The values of one source, by full key.
pub(super) type Layer = BTreeMap<&'static str, (Value, Origin)>;

const PREFIX: &str = "TASKER__";

/// Stands for a value that may hold a secret.
const NOT_SHOWN: &str = "<not shown>";

/// Reads a TOML text.
pub(super) fn from_toml(text: &str, file: &str, problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::new();
    match toml::from_str::<toml::Table>(text) {
        Ok(table) => collect(&table, "", &Origin(file.to_owned()), &mut layer, problems),
        Err(error) => {
            let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or(text));
            let line = 1 + before.matches('\n').count();
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            problems.push(Problem::Syntax { file: file.to_owned(), line, message });
        }
    }
    layer
}

fn collect(table: &toml::Table, above: &str, origin: &Origin, layer: &mut Layer, problems: &mut Vec<Problem>) {
    for (name, value) in table {
        let full = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match (value, keys::find(&full)) {
            (value, Some(key)) => {
                insert(key, key.kind.take(value), &shown(key, value), origin.clone(), layer, problems)
            }
            (toml::Value::Table(below), None) if keys::is_section(&full) => {
                collect(below, &full, origin, layer, problems);
            }
            (_, None) if keys::is_section(&full) => problems.push(Problem::Value {
                value: if is_text(value) { NOT_SHOWN.to_owned() } else { value.to_string() },
                expected: format!("a section [{full}]"),
                key: full,
                origin: origin.clone(),
            }),
            (toml::Value::Table(_), None) => {
                let suggestion = keys::nearest_section(&full);
                problems.push(Problem::UnknownKey { key: full, origin: origin.clone(), suggestion });
            }
            (_, None) => problems.push(unknown(full, origin.clone())),
        }
    }
}

/// Reads the variables `TASKER__SECTION__KEY`, and `DATABASE_URL`, which wins.
pub(super) fn from_variables(variables: &BTreeMap<String, String>, problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::new();
    for (variable, text) in variables {
        let Some(path) = variable.strip_prefix(PREFIX) else { continue };
        let full = path.to_lowercase().replace("__", ".");
        let origin = Origin(format!("variable {variable}"));
        match keys::find(&full) {
            Some(key) => {
                insert(key, key.kind.read(text), &shown(key, &text.as_str().into()), origin, &mut layer, problems)
            }
            None => problems.push(unknown(full, origin)),
        }
    }
    if let Some((url, key)) =
        variables.get("DATABASE_URL").filter(|url| !url.is_empty()).zip(keys::find("database.url"))
    {
        let origin = Origin("variable DATABASE_URL".to_owned());
        insert(key, key.kind.read(url), NOT_SHOWN, origin, &mut layer, problems);
    }
    layer
}

fn insert(
    key: &'static Key,
    value: Result<Value, String>,
    shown: &str,
    origin: Origin,
    layer: &mut Layer,
    problems: &mut Vec<Problem>,
) {
    match value {
        Ok(value) => {
            layer.insert(key.name, (value, origin));
        }
        Err(expected) => {
            problems.push(Problem::Value { key: key.name.to_owned(), value: shown.to_owned(), origin, expected });
        }
    }
}

/// A value for the one who reads that it is wrong.
fn shown(key: &Key, value: &toml::Value) -> String {
    match value {
        _ if key.is_secret() => NOT_SHOWN.to_owned(),
        toml::Value::String(url) if key.is_url() => format!("{:?}", without_secrets(url)),
        value if key.is_url() && is_text(value) => NOT_SHOWN.to_owned(),
        value => value.to_string(),
    }
}

/// Whether there are texts in it, which may be secrets where something else belongs.
fn is_text(value: &toml::Value) -> bool {
    matches!(value, toml::Value::String(_) | toml::Value::Array(_) | toml::Value::Table(_))
}

fn unknown(key: String, origin: Origin) -> Problem {
    let suggestion = keys::nearest_key(&key);
    Problem::UnknownKey { key, origin, suggestion }
}
