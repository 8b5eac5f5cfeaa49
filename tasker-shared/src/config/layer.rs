//! One source of values (a file, the environment variables), checked key by key, with each value's origin.

use super::{
    Origin, Problem,
    describe::without_password,
    keys::{self, Key, Value},
};
use std::collections::BTreeMap;

/// The values of one source, by full key.
pub(super) type Layer = BTreeMap<&'static str, (Value, Origin)>;

const PREFIX: &str = "TASKER__";

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
                insert(key, key.kind.take(value), &value.to_string(), origin.clone(), layer, problems)
            }
            (toml::Value::Table(below), None) if keys::is_section(&full) => {
                collect(below, &full, origin, layer, problems);
            }
            (_, None) if keys::is_section(&full) => problems.push(Problem::Value {
                value: value.to_string(),
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
            Some(key) => insert(key, key.kind.read(text), &format!("{text:?}"), origin, &mut layer, problems),
            None => problems.push(unknown(full, origin)),
        }
    }
    if let Some((url, key)) =
        variables.get("DATABASE_URL").filter(|url| !url.is_empty()).zip(keys::find("database.url"))
    {
        let origin = Origin("variable DATABASE_URL".to_owned());
        insert(key, key.kind.read(url), "", origin, &mut layer, problems);
    }
    layer
}

fn insert(
    key: &'static Key,
    value: Result<Value, String>,
    written: &str,
    origin: Origin,
    layer: &mut Layer,
    problems: &mut Vec<Problem>,
) {
    match value {
        Ok(value) => {
            layer.insert(key.name, (value, origin));
        }
        Err(expected) => {
            let value = match key.is_secret() {
                true => "<not shown>".to_owned(),
                false if key.is_url() => without_password(written),
                false => written.to_owned(),
            };
            problems.push(Problem::Value { key: key.name.to_owned(), value, origin, expected });
        }
    }
}

fn unknown(key: String, origin: Origin) -> Problem {
    let suggestion = keys::nearest_key(&key);
    Problem::UnknownKey { key, origin, suggestion }
}
