//! What is in force, and where it came from.

use super::{Origin, keys};
use crate::url::without_secrets;
use ::config::{ConfigError, ValueKind};

/// One key, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The full name, such as `worker.http.enabled`.
    pub key: &'static str,
    /// The value in force, as it would be written in a file; secrets are not shown.
    pub value: String,
    /// Where it is written.
    pub origin: Origin,
}

/// Every key, in the order of the default file.
pub(super) fn settings(merged: &::config::Config) -> Result<Vec<Setting>, ConfigError> {
    let setting = |key: &keys::Key| {
        let value = value(&merged.cache, key.name).ok_or_else(|| ConfigError::NotFound(key.name.to_owned()))?;
        let origin = Origin(value.origin().unwrap_or("defaults").to_owned());
        let value = match &value.kind {
            ValueKind::String(url) if key.is_url() => format!("{:?}", without_secrets(url)),
            _ => written(value),
        };
        Ok(Setting { key: key.name, value, origin })
    };
    keys::KEYS.iter().map(setting).collect()
}

/// The value with its origin, which [`::config::Config::get`] does not give.
fn value<'a>(root: &'a ::config::Value, key: &str) -> Option<&'a ::config::Value> {
    key.split('.').try_fold(root, |section, name| match &section.kind {
        ValueKind::Table(table) => table.get(name),
        _ => None,
    })
}

fn written(value: &::config::Value) -> String {
    match &value.kind {
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Array(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", ")),
        ValueKind::Table(pairs) => {
            let mut names: Vec<_> = pairs.keys().map(|name| format!("{name:?} = \"***\"")).collect();
            names.sort();
            if names.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", names.join(", ")) }
        }
        ValueKind::Float(number) => format!("{number:?}"),
        other => other.to_string(),
    }
}
