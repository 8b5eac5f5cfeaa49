//! The `environments` mapping: what differs where. Every environment is applied here once, so that using one cannot fail.

use super::{builtin, retry, step};
use crate::{
    name::Name,
    template::{
        StepOverride,
        problem::{Path, Problems, nearest},
        read::At,
    },
};
use std::collections::{BTreeMap, HashMap};

const KEYS: &[&str] = &["name", "handler", "retry", "timeout_seconds"];

/// By environment, then by step.
type Environments = BTreeMap<String, BTreeMap<Name, StepOverride>>;

/// Reads all environments of a template with `steps`.
pub(super) fn read_all(at: &At<'_>, steps: &[step::Read], problems: &mut Problems) -> Environments {
    let by_name =
        steps.iter().rev().filter_map(|step| step.name.as_ref().map(|(name, _)| (name.as_str(), step))).collect();
    let mut environments = BTreeMap::new();
    for (key, node) in at.entries(problems).unwrap_or_default() {
        let path = Path::Key(&at.path, &key.text);
        if let Err(invalid) = Name::new(&key.text) {
            problems.add(key.place, &path, invalid.to_string());
        }
        environments.insert(key.text.clone(), environment(&At { node, path }, &by_name, problems));
    }
    environments
}

fn environment(
    at: &At<'_>,
    steps: &HashMap<&str, &step::Read>,
    problems: &mut Problems,
) -> BTreeMap<Name, StepOverride> {
    let mut overrides = BTreeMap::new();
    let Some(fields) = at.fields(&["steps"], problems) else { return overrides };
    let Some(list) = fields.get("steps") else { return overrides };
    let Some(items) = list.list(problems) else { return overrides };
    for item in items {
        let Some((name, changed)) = step_override(&item, steps, problems) else { continue };
        if overrides.contains_key(&name) {
            item.problem(problems, format!("step `{name}` is overridden twice in this environment"));
        }
        overrides.insert(name, changed);
    }
    overrides
}

fn step_override(
    at: &At<'_>,
    steps: &HashMap<&str, &step::Read>,
    problems: &mut Problems,
) -> Option<(Name, StepOverride)> {
    let fields = at.fields_except(KEYS, refused_step_key, problems)?;
    let name_at = fields.required("name", problems);
    let name = name_at.and_then(|at| at.name(problems));
    let step = name.as_ref().and_then(|name| steps.get(name.as_str()));
    let callable = step.and_then(|step| step.step.as_ref()).map_or("", |step| step.handler.callable.as_str());
    let changed = StepOverride {
        initialization: fields
            .get("handler")
            .and_then(|at| initialization(callable, &at, problems))
            .unwrap_or_default(),
        retry: fields.get("retry").and_then(|at| retry::read(&at, problems)).unwrap_or_default(),
        timeout: fields.get("timeout_seconds").and_then(|at| step::timeout(&at, problems)),
    };
    let (name, name_at) = (name?, name_at?);
    let Some(step) = step else {
        problems.add_with(name_at.place(), &name_at.path, format!("there is no step `{name}`"), || {
            let mut names: Vec<&str> = steps.keys().copied().collect();
            names.sort_unstable();
            nearest(&name, names)
        });
        return None;
    };
    if let (Some(step), Some(at)) = (&step.step, fields.get("retry")) {
        retry::check(&at, &changed.retry.applied_to(&step.retry), problems);
    }
    Some((name, changed))
}

fn initialization(
    callable: &str,
    at: &At<'_>,
    problems: &mut Problems,
) -> Option<serde_json::Map<String, serde_json::Value>> {
    let fields = at.fields_except(&["initialization"], refused_handler_key, problems)?;
    let at = fields.get("initialization")?;
    let initialization = at.object(problems)?;
    builtin::check(callable, &at, &initialization, problems);
    Some(initialization)
}

fn refused_step_key(key: &str) -> Option<&'static str> {
    matches!(key, "description" | "type" | "dependencies" | "result_schema")
        .then_some("this key cannot differ by environment; `handler.initialization`, `retry` and `timeout_seconds` can")
}

fn refused_handler_key(key: &str) -> Option<&'static str> {
    matches!(key, "callable" | "method").then_some("this key cannot differ by environment; `initialization` can")
}
