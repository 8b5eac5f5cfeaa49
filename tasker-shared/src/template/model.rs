//! A template that was checked: what the rest of the system works with.

use super::Retention;
use crate::{
    name::Name,
    step::{Backoff, RetryPolicy},
    task::IdentityStrategy,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, time::Duration};

/// The longest run of a handler whose step does not say.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// A workflow: a directed acyclic graph of steps.
///
/// A value of this type has passed every check: names are unique, dependencies exist, there is no cycle,
/// schemas compile. `serde` gives the normalized form that is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// The namespace: which workers run it.
    pub namespace: Name,
    /// The name, unique in the namespace.
    pub name: Name,
    /// The version; one definition each.
    pub version: String,
    /// For people.
    pub description: Option<String>,
    /// Free keys, kept as they are.
    pub metadata: Map<String, Value>,
    /// JSON Schema that a task's input must fulfil.
    pub input_schema: Option<Value>,
    /// When two submissions are the same task.
    pub identity_strategy: IdentityStrategy,
    /// Limits on the whole task.
    pub lifecycle: Lifecycle,
    /// How long tasks are kept after their end.
    #[serde(default, skip_serializing_if = "Retention::is_empty")]
    pub retention: Retention,
    /// The steps, in the order of the file.
    pub steps: Vec<StepTemplate>,
    /// By environment, then by step name: what differs there.
    pub environments: BTreeMap<String, BTreeMap<Name, StepOverride>>,
}

impl Template {
    /// The template as it is in `environment`: the overrides applied, and none left. An environment that the
    /// template does not mention changes nothing.
    #[must_use]
    pub fn for_environment(&self, environment: &str) -> Self {
        let mut resolved = Self { environments: BTreeMap::new(), ..self.clone() };
        for (name, changed) in self.environments.get(environment).into_iter().flatten() {
            for step in resolved.steps.iter_mut().filter(|step| step.name == *name) {
                changed.apply_to(step);
            }
        }
        resolved
    }
}

/// Limits on the whole task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// The longest time from submission to the end; the task fails when it is over. Stored as `max_duration_ms`.
    #[serde(rename = "max_duration_ms", default, with = "optional_milliseconds")]
    pub max_duration: Option<Duration>,
    /// The longest time that a step may wait on its queue; it fails for good when it is over. Stored as `max_queued_ms`.
    #[serde(
        rename = "max_queued_ms",
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_milliseconds"
    )]
    pub max_queued: Option<Duration>,
    /// The longest time that a step may wait for a retry; one that would wait longer fails for good. Stored as
    /// `max_retry_wait_ms`.
    #[serde(
        rename = "max_retry_wait_ms",
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_milliseconds"
    )]
    pub max_retry_wait: Option<Duration>,
    /// How many retries all steps of a task may have together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
}

/// How many steps may run at once, across all workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// The limit, from 1.
    pub limit: u32,
    /// What shares it: a word, or `input.` and a path into the task's input, where each value has the limit for itself.
    /// Without one, it is the step's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// One step of a template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTemplate {
    /// Unique in the template.
    pub name: Name,
    /// For people.
    pub description: Option<String>,
    /// The steps that must be done before.
    pub dependencies: Vec<Name>,
    /// What runs.
    pub handler: Handler,
    /// What happens on failure.
    pub retry: RetryPolicy,
    /// The longest run of the handler. Stored as `timeout_ms`.
    #[serde(rename = "timeout_ms", with = "milliseconds")]
    pub timeout: Duration,
    /// JSON Schema that the result must fulfil.
    pub result_schema: Option<Value>,
    /// How many may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
}

/// What runs a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Handler {
    /// The name under which the worker registered it, such as `http` or `orders.charge`.
    pub callable: String,
    /// A method of the handler, handed to it in its context.
    pub method: Option<String>,
    /// Settings for the handler.
    pub initialization: Map<String, Value>,
}

/// What differs in one environment about one step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepOverride {
    /// Keys of [`Handler::initialization`] that are added or replaced, each as a whole.
    pub initialization: Map<String, Value>,
    /// Parts of [`StepTemplate::retry`].
    pub retry: RetryOverride,
    /// Another [`StepTemplate::timeout`]. Stored as `timeout_ms`.
    #[serde(rename = "timeout_ms", default, with = "optional_milliseconds")]
    pub timeout: Option<Duration>,
}

impl StepOverride {
    fn apply_to(&self, step: &mut StepTemplate) {
        step.handler.initialization.extend(self.initialization.clone());
        step.retry = self.retry.applied_to(&step.retry);
        step.timeout = self.timeout.unwrap_or(step.timeout);
    }
}

/// The parts of a [`RetryPolicy`] that are given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field is the one of RetryPolicy")]
pub struct RetryOverride {
    pub retryable: Option<bool>,
    pub max_attempts: Option<u32>,
    pub backoff: Option<Backoff>,
    pub backoff_base_ms: Option<u64>,
    pub max_backoff_ms: Option<u64>,
    pub jitter: Option<bool>,
}

impl RetryOverride {
    /// `policy` with the given parts replaced.
    #[must_use]
    pub fn applied_to(&self, policy: &RetryPolicy) -> RetryPolicy {
        RetryPolicy {
            retryable: self.retryable.unwrap_or(policy.retryable),
            max_attempts: self.max_attempts.unwrap_or(policy.max_attempts),
            backoff: self.backoff.unwrap_or(policy.backoff),
            backoff_base_ms: self.backoff_base_ms.unwrap_or(policy.backoff_base_ms),
            max_backoff_ms: self.max_backoff_ms.unwrap_or(policy.max_backoff_ms),
            jitter: self.jitter.unwrap_or(policy.jitter),
        }
    }
}

/// Durations as whole milliseconds: what a template can say, and readable where it is stored.
mod milliseconds {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

mod optional_milliseconds {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(|value| u64::try_from(value.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}
