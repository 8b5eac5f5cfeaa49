//! A template file, read and checked whole: every problem is collected, nothing is ignored.

mod builtin;
mod environment;
mod graph;
mod retention;
mod retry;
mod schema;
mod step;

use super::{
    Lifecycle, Limits, Retention, Template,
    problem::{Invalid, Path, Problems},
    read::At,
    source,
};
use crate::task::IdentityStrategy;
use std::{collections::BTreeMap, time::Duration};

/// The version of a template that names none.
pub const DEFAULT_VERSION: &str = "1.0.0";

/// The longest version, in characters.
const MAX_VERSION: usize = 64;

/// The longest time that a template may ask for: a year.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const KEYS: &[&str] = &[
    "name",
    "namespace_name",
    "version",
    "description",
    "metadata",
    "identity_strategy",
    "input_schema",
    "lifecycle",
    "retention",
    "environments",
    "steps",
];

/// Reads the template in `source`, YAML or JSON. `file` is how messages name it.
///
/// # Errors
/// [`Invalid`] lists everything that is wrong, each with its place.
pub fn parse(source: &str, file: Option<&str>) -> Result<Template, Invalid> {
    parse_with(source, file, &Limits::default())
}

/// Like [`parse`], with other limits.
///
/// # Errors
/// [`Invalid`] lists everything that is wrong, each with its place.
pub fn parse_with(source: &str, file: Option<&str>, limits: &Limits) -> Result<Template, Invalid> {
    let mut problems = Problems::new(file);
    let template = source::read(source, limits, &mut problems)
        .and_then(|root| template(&At { node: &root, path: Path::Root }, limits, &mut problems));
    problems.finish(template)
}

fn template(root: &At<'_>, limits: &Limits, problems: &mut Problems) -> Option<Template> {
    let fields = root.fields(KEYS, problems)?;
    let name = fields.required("name", problems).and_then(|at| at.name(problems));
    let namespace = fields.required("namespace_name", problems).and_then(|at| at.name(problems));
    let version = match fields.get("version") {
        Some(at) => version(&at, problems),
        None => Some(DEFAULT_VERSION.to_owned()),
    };
    let description = fields.get("description").and_then(|at| at.text(problems).map(str::to_owned));
    let metadata = fields.get("metadata").and_then(|at| at.object(problems)).unwrap_or_default();
    let input_schema = fields.get("input_schema").and_then(|at| schema::read(&at, problems));
    let identity_strategy = match fields.get("identity_strategy") {
        Some(at) => at.one_of(&IdentityStrategy::ALL.iter().map(|s| (s.as_str(), *s)).collect::<Vec<_>>(), problems),
        None => Some(IdentityStrategy::AlwaysUnique),
    };
    let lifecycle = fields.get("lifecycle").map_or_else(Lifecycle::default, |at| lifecycle(&at, problems));
    let retention = fields.get("retention").map_or_else(Retention::default, |at| retention::read(&at, problems));
    let steps = fields.required("steps", problems).and_then(|at| step::read_all(&at, limits, problems));
    let environments = match (fields.get("environments"), &steps) {
        (Some(at), Some(steps)) => environment::read_all(&at, steps, problems),
        _ => BTreeMap::new(),
    };
    let steps = steps?.into_iter().map(|read| read.step).collect::<Option<Vec<_>>>()?;
    Some(Template {
        namespace: namespace?,
        name: name?,
        version: version?,
        description,
        metadata,
        input_schema,
        identity_strategy: identity_strategy?,
        lifecycle,
        retention,
        steps,
        environments,
    })
}

fn version(at: &At<'_>, problems: &mut Problems) -> Option<String> {
    let text = at.word(problems)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    if text.is_empty() || text.len() > MAX_VERSION || !text.chars().all(allowed) {
        let reason = format!("a version has 1 to {MAX_VERSION} letters, digits, `.`, `-`, `_` and `+`, such as 1.0.0");
        at.problem(problems, reason);
        return None;
    }
    Some(text.to_owned())
}

fn lifecycle(at: &At<'_>, problems: &mut Problems) -> Lifecycle {
    const KEYS: &[&str] = &[
        "max_duration_seconds",
        "max_duration_minutes",
        "max_queued_seconds",
        "max_queued_minutes",
        "max_retry_wait_seconds",
        "max_retry_wait_minutes",
        "max_retries",
    ];
    let Some(fields) = at.fields_except(KEYS, refused_lifecycle, problems) else { return Lifecycle::default() };
    let mut duration = |seconds: &'static str, minutes: &'static str| {
        let given = fields.either(seconds, minutes, problems);
        let (unit, unit_ms) = if fields.get(minutes).is_some() { ("minutes", 60_000) } else { ("seconds", 1_000) };
        given.and_then(|at| at.duration(unit, unit_ms, LONGEST, problems))
    };
    Lifecycle {
        max_duration: duration("max_duration_seconds", "max_duration_minutes"),
        max_queued: duration("max_queued_seconds", "max_queued_minutes"),
        max_retry_wait: duration("max_retry_wait_seconds", "max_retry_wait_minutes"),
        max_retries: fields
            .get("max_retries")
            .and_then(|at| at.integer(&(0..=1_000_000), problems))
            .and_then(|n| n.try_into().ok()),
    }
}

fn refused_lifecycle(key: &str) -> Option<&'static str> {
    let near = ["max_dur", "max-dur", "max_que", "max_retr"].iter().any(|start| key.starts_with(start));
    (!near).then_some(
        "this limit is not supported; a task is limited by `max_duration_minutes` (or `_seconds`), `max_queued_…`, \
         `max_retry_wait_…` and `max_retries`",
    )
}

#[cfg(test)]
mod tests;
