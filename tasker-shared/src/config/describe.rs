//! What is in force, and where it came from.

use super::{Origin, keys};
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
        let text = written(value);
        let value = if key.is_url() { without_password(&text) } else { text };
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

/// Replaces the password of a URL, wherever it can stand: before the host, or as a parameter.
pub(crate) fn without_password(url: &str) -> String {
    let (before, rest) = url.split_once("://").unwrap_or(("", url));
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:***@{host}"),
            None => authority.to_owned(),
        },
        None => authority.to_owned(),
    };
    let hidden = |part: &str| match part.rsplit_once("password=") {
        Some((start, secret)) => format!("{start}password=***{}", if secret.ends_with('"') { "\"" } else { "" }),
        None => part.to_owned(),
    };
    let path = path.split('&').map(hidden).collect::<Vec<_>>().join("&");
    if before.is_empty() { format!("{authority}{path}") } else { format!("{before}://{authority}{path}") }
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn passwords_are_hidden_wherever_they_stand() {
        for (url, shown) in [
            ("\"postgres://me:secret@host:5432/app\"", "\"postgres://me:***@host:5432/app\""),
            ("\"postgres://me:se@cr:et@host/app\"", "\"postgres://me:***@host/app\""),
            ("\"postgres://me@host/app?password=secret\"", "\"postgres://me@host/app?password=***\""),
            (
                "\"postgres://host/app?password=secret&sslmode=require\"",
                "\"postgres://host/app?password=***&sslmode=require\"",
            ),
            ("\"postgres://me:secret@host\"", "\"postgres://me:***@host\""),
            ("\"postgres://me@host/app\"", "\"postgres://me@host/app\""),
            ("\"\"", "\"\""),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
