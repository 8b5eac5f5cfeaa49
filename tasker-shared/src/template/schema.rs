//! JSON Schemas of inputs and results: compiled without reaching for other documents, and what breaks them.

use super::work::Meter;
use jsonschema::{PatternOptions, Retrieve, Uri, ValidationError, Validator, paths::LocationSegment};
use serde_json::Value;
use std::fmt;

/// The most violations of one value that are listed.
pub(super) const MAX_VIOLATIONS: usize = 20;

/// The longest message of one violation, in characters: it may repeat the value.
const MAX_MESSAGE: usize = 300;

/// The most work for which every violation is listed: the validator makes them all before the first is seen.
const MOST_LISTED: u64 = 200_000;

/// How often a pattern may backtrack on one value before it counts as broken.
const BACKTRACK_LIMIT: usize = 100_000;

/// A value that does not fulfil its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaViolation {
    /// What is wrong, at most 20.
    pub violations: Vec<Violation>,
    /// Whether there are more, or may be.
    pub more: bool,
}

/// One thing about a value that its schema does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer to the part of the value; empty for the whole.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for SchemaViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.violations.iter().enumerate() {
            write!(f, "{}{violation}", if index == 0 { "" } else { "; " })?;
        }
        f.write_str(if self.more { "; and more" } else { "" })
    }
}

impl std::error::Error for SchemaViolation {}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pointer.as_str() {
            "" => f.write_str(&self.message),
            pointer => write!(f, "{pointer}: {}", self.message),
        }
    }
}

/// What is wrong in a schema, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Fault {
    /// Keys and indices from the schema's root.
    pub(super) location: Vec<Segment>,
    pub(super) message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

/// A schema, ready to check values.
#[derive(Debug)]
pub(super) struct Schema {
    validator: Validator,
    meter: Meter,
}

/// Compiles `schema`. Formats are checked, unknown formats refused.
pub(super) fn compile(schema: &Value) -> Result<Schema, Vec<Fault>> {
    let options = jsonschema::options()
        .with_retriever(NothingIsFetched)
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACK_LIMIT));
    // first the meter: the compiler takes for ever over some schemas that it refuses
    let meter = Meter::of(schema).map_err(|fault| vec![fault])?;
    let validator = options.build(schema).map_err(|first| faults(schema, &first))?;
    let unread = || vec![Fault { location: Vec::new(), message: "its references cannot be followed".to_owned() }];
    Ok(Schema { validator, meter: meter.ok_or_else(unread)? })
}

/// All that the schema's own schema says is wrong, or else what stopped the compiler.
fn faults(schema: &Value, first: &ValidationError<'_>) -> Vec<Fault> {
    let meta = jsonschema::meta::validator_for(schema).ok();
    let mut faults: Vec<Fault> =
        meta.iter().flat_map(|meta| meta.iter_errors(schema).take(MAX_VIOLATIONS).map(|error| fault(&error))).collect();
    if faults.is_empty() {
        faults.push(fault(first));
    }
    faults
}

fn fault(error: &ValidationError<'_>) -> Fault {
    let segment = |segment: LocationSegment<'_>| match segment {
        LocationSegment::Property(key) => Segment::Key(key.into_owned()),
        LocationSegment::Index(index) => Segment::Index(index),
    };
    Fault { location: error.instance_path().iter().map(segment).collect(), message: message(error) }
}

impl Schema {
    /// Checks `value`, listing up to [`MAX_VIOLATIONS`]. One that takes too much work to check is refused like one that
    /// breaks the schema.
    pub(super) fn check(&self, value: &Value) -> Result<(), SchemaViolation> {
        let whole = |message: String| Violation { pointer: String::new(), message };
        let work = match self.meter.work(value) {
            Ok(work) => work,
            Err(excess) => return Err(SchemaViolation { violations: vec![whole(excess.to_string())], more: false }),
        };
        if self.validator.is_valid(value) {
            return Ok(());
        }
        let mut violations: Vec<Violation> = Vec::new();
        let mut more = true;
        if work.all <= MOST_LISTED {
            let mut errors = self.validator.iter_errors(value);
            violations.extend(errors.by_ref().take(MAX_VIOLATIONS).map(|error| violation(&error)));
            more = errors.next().is_some();
        } else if work.first <= MOST_LISTED {
            violations.extend(self.validator.validate(value).err().map(|error| violation(&error)));
        }
        if violations.is_empty() {
            violations.push(whole("the value breaks the schema, in so many ways that they are not listed".to_owned()));
        }
        Err(SchemaViolation { violations, more })
    }
}

fn violation(error: &ValidationError<'_>) -> Violation {
    Violation { pointer: error.instance_path().as_str().to_owned(), message: message(error) }
}

fn message(error: &ValidationError<'_>) -> String {
    let text = error.to_string();
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Schemas are whole in themselves: a template must mean the same wherever and whenever it is read.
pub(super) struct NothingIsFetched;

impl Retrieve for NothingIsFetched {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("`{uri}` is not fetched; put the schema under `$defs` and refer to it as `#/$defs/…`").into())
    }
}
