//! Schemas inside a template file: their faults get the place of the node that is at fault.

use crate::template::{
    problem::{Path, Problems},
    read::At,
    schema::{self, Segment},
    source::Content,
};
use serde_json::Value;

/// The JSON Schema at `at`, if it compiles.
pub(super) fn read(at: &At<'_>, problems: &mut Problems) -> Option<Value> {
    let before = problems.count();
    let schema = at.value(problems);
    if problems.count() > before {
        return None;
    }
    if !schema.is_object() && !schema.is_boolean() {
        let _ = at.entries(problems);
        return None;
    }
    match schema::compile(&schema) {
        Ok(_) => Some(schema),
        Err(faults) => {
            for fault in faults {
                report(at, &fault.location, &fault.message, problems);
            }
            None
        }
    }
}

fn report(at: &At<'_>, location: &[Segment], message: &str, problems: &mut Problems) {
    let inner = match (location.first(), &at.node.content) {
        (Some(Segment::Key(key)), Content::Map(entries)) => entries
            .iter()
            .find(|(entry, _)| entry.text == *key)
            .map(|(entry, node)| At { node, path: Path::Key(&at.path, &entry.text) }),
        (Some(Segment::Index(index)), Content::List(items)) => {
            items.get(*index).map(|node| At { node, path: Path::Index(&at.path, *index) })
        }
        _ => None,
    };
    match inner {
        Some(inner) => report(&inner, &location[1..], message, problems),
        None => at.problem(problems, format!("not a JSON Schema: {message}")),
    }
}
