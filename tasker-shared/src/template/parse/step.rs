//! The list of steps.

use super::{LONGEST, builtin, graph, retry, schema};
use crate::{
    name::Name,
    step::RetryPolicy,
    template::{
        Concurrency, Handler, Limits, StepTemplate,
        model::DEFAULT_TIMEOUT,
        problem::{Path, Place, Problems, nearest, shown},
        read::At,
    },
};

const KEYS: &[&str] = &[
    "name",
    "description",
    "type",
    "dependencies",
    "handler",
    "retry",
    "timeout_seconds",
    "result_schema",
    "concurrency",
];

/// The types of steps that other versions know.
const UNSUPPORTED_TYPES: &[&str] = &["decision", "deferred", "deferred_convergence", "batchable", "batch_worker"];

/// The longest name of a callable or method, in characters.
const MAX_CALLABLE: usize = 255;

/// The largest limit of steps that run at once.
const MOST_AT_ONCE: u64 = 100_000;

/// The longest key of such a limit, in characters.
const MAX_KEY: usize = 100;

/// A step as far as it could be read, for the checks between steps.
pub(super) struct Read {
    pub(super) place: Place,
    pub(super) name: Option<(Name, Place)>,
    /// In the order of the file; what is no name was reported and is left out.
    pub(super) dependencies: Vec<Dependency>,
    /// All of it, when there was no problem inside.
    pub(super) step: Option<StepTemplate>,
}

/// One entry of a step's `dependencies`.
pub(super) struct Dependency {
    pub(super) name: Name,
    pub(super) place: Place,
    pub(super) index: usize,
}

/// Reads the steps and checks the graph they make.
pub(super) fn read_all(at: &At<'_>, limits: &Limits, problems: &mut Problems) -> Option<Vec<Read>> {
    let items = at.list(problems)?;
    let count = items.len();
    if count == 0 {
        at.problem(problems, "a template needs at least one step");
        return None;
    }
    if count > limits.steps {
        at.problem(problems, format!("{count} steps are more than the {} that a template may have", limits.steps));
        return None;
    }
    let steps: Vec<Read> = items.iter().map(|item| read(item, problems)).collect();
    graph::check(&steps, &at.path, problems);
    Some(steps)
}

fn read(at: &At<'_>, problems: &mut Problems) -> Read {
    let mut read = Read { place: at.place(), name: None, dependencies: Vec::new(), step: None };
    let Some(fields) = at.fields(KEYS, problems) else { return read };
    let before = problems.count();
    let name = fields.required("name", problems);
    read.name = name.and_then(|at| at.name(problems).map(|name| (name, at.place())));
    let description = fields.get("description").and_then(|at| at.text(problems).map(str::to_owned));
    if let Some(at) = fields.get("type") {
        step_type(&at, problems);
    }
    if let Some(at) = fields.get("dependencies") {
        read.dependencies = dependencies(&at, problems);
    }
    let handler = fields.required("handler", problems).and_then(|at| handler(&at, problems));
    let retry = fields.get("retry").map_or_else(|| Some(RetryPolicy::default()), |at| retry_policy(&at, problems));
    let timeout = match fields.get("timeout_seconds") {
        Some(at) => timeout(&at, problems),
        None => Some(DEFAULT_TIMEOUT),
    };
    let result_schema = fields.get("result_schema").and_then(|at| schema::read(&at, problems));
    let concurrency = fields.get("concurrency").and_then(|at| concurrency(&at, problems));
    if problems.count() > before {
        return read;
    }
    if let (Some((name, _)), Some(handler), Some(retry), Some(timeout)) = (&read.name, handler, retry, timeout) {
        let dependencies = read.dependencies.iter().map(|dependency| dependency.name.clone()).collect();
        let name = name.clone();
        let step =
            StepTemplate { name, description, dependencies, handler, retry, timeout, result_schema, concurrency };
        read.step = Some(step);
    }
    read
}

fn step_type(at: &At<'_>, problems: &mut Problems) {
    let Some(word) = at.text(problems) else { return };
    if word == "standard" {
        return;
    }
    if UNSUPPORTED_TYPES.contains(&word) {
        at.problem(problems, format!("steps of type `{word}` are not supported by this version; only `standard` is"));
        return;
    }
    let known = UNSUPPORTED_TYPES.iter().copied().chain(["standard"]);
    let reason = format!("`{}` is not a type of step; only `standard` is supported", shown(word));
    problems.add_with(at.place(), &at.path, reason, || nearest(word, known));
}

fn dependencies(at: &At<'_>, problems: &mut Problems) -> Vec<Dependency> {
    let Some(items) = at.list(problems) else { return Vec::new() };
    let mut seen = std::collections::HashSet::new();
    let mut read = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Some(name) = item.name(problems) else { continue };
        if seen.insert(name.clone()) {
            read.push(Dependency { name, place: item.place(), index });
        } else {
            item.problem(problems, format!("`{name}` is listed twice"));
        }
    }
    read
}

fn handler(at: &At<'_>, problems: &mut Problems) -> Option<Handler> {
    const KEYS: &[&str] = &["callable", "method", "initialization"];
    let fields = at.fields(KEYS, problems)?;
    let callable = fields.required("callable", problems).and_then(|at| callable_name(&at, problems));
    let method = fields.get("method").and_then(|at| callable_name(&at, problems));
    let initialization_at = fields.get("initialization");
    let initialization = initialization_at.as_ref().and_then(|at| at.object(problems)).unwrap_or_default();
    if let (Some(callable), Some(at)) = (&callable, &initialization_at) {
        builtin::check(callable, at, &initialization, problems);
    }
    Some(Handler { callable: callable?, method, initialization })
}

fn concurrency(at: &At<'_>, problems: &mut Problems) -> Option<Concurrency> {
    let fields = at.fields(&["limit", "key"], problems)?;
    let limit = fields.required("limit", problems).and_then(|at| at.integer(&(1..=MOST_AT_ONCE), problems))?;
    let before = problems.count();
    let key = fields.get("key").and_then(|at| concurrency_key(&at, problems));
    (problems.count() == before).then_some(Concurrency { limit: u32::try_from(limit).ok()?, key })
}

fn concurrency_key(at: &At<'_>, problems: &mut Problems) -> Option<String> {
    let text = at.text(problems)?;
    let part = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':'))
    };
    if text.len() > MAX_KEY || !text.split('.').all(part) || text == "input" {
        let reason = format!(
            "expected a word of at most {MAX_KEY} letters, digits, `_`, `-`, `:` and `.`, or a path into the input such as \
             `input.customer_id`"
        );
        at.problem(problems, reason);
        return None;
    }
    Some(text.to_owned())
}

fn callable_name(at: &At<'_>, problems: &mut Problems) -> Option<String> {
    let text = at.text(problems)?;
    let length = text.chars().count();
    if length == 0 || length > MAX_CALLABLE || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        at.problem(problems, format!("expected 1 to {MAX_CALLABLE} characters without spaces"));
        return None;
    }
    Some(text.to_owned())
}

fn retry_policy(at: &At<'_>, problems: &mut Problems) -> Option<RetryPolicy> {
    let policy = retry::read(at, problems)?.applied_to(&RetryPolicy::default());
    retry::check(at, &policy, problems);
    Some(policy)
}

/// A step's `timeout_seconds`.
pub(super) fn timeout(at: &At<'_>, problems: &mut Problems) -> Option<std::time::Duration> {
    at.duration("seconds", 1_000, LONGEST, problems)
}

/// The path of the key `key` of step number `index`, handed to `then`.
pub(super) fn with_path<T>(steps: &Path<'_>, index: usize, key: &str, then: impl FnOnce(&Path<'_>) -> T) -> T {
    let step = Path::Index(steps, index);
    then(&Path::Key(&step, key))
}
