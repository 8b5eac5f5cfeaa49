//! What a person asks for when submitting a task.

use crate::{id::CorrelationId, name::Name, text_enum};
use chrono::{DateTime, Utc};
use serde_json::Value;

text_enum! {
    /// When two submissions are the same task.
    IdentityStrategy {
        /// Never, unless a key is given with the task.
        AlwaysUnique = "always_unique",
        /// When template and key are the same; the key is required.
        CallerProvided = "caller_provided",
        /// When template and input are the same.
        Strict = "strict",
    }
}

/// A task as it is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// The template's namespace.
    pub namespace: Name,
    /// The template's name.
    pub name: Name,
    /// The template's version; the newest when not given.
    pub version: Option<String>,
    /// The task's input.
    pub input: Value,
    /// Makes a repeat answer with the task that exists.
    pub idempotency_key: Option<String>,
    /// Higher goes first, from -100 to 100.
    pub priority: i16,
    /// Free words to find the task by.
    pub tags: Vec<String>,
    /// Not before this time.
    pub run_at: Option<DateTime<Utc>>,
    /// Given by the caller, or made here.
    pub correlation_id: CorrelationId,
    /// The correlation id of the work that caused this task.
    pub parent_correlation_id: Option<CorrelationId>,
    /// W3C trace context of the caller.
    pub traceparent: Option<String>,
    /// Who asks.
    pub initiator: Option<String>,
    /// Which system asks.
    pub source_system: Option<String>,
    /// Why.
    pub reason: Option<String>,
}
