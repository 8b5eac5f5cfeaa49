//! A template that was checked: what the rest of the system works with.

use crate::{name::Name, step::RetryPolicy, task::IdentityStrategy};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, time::Duration};

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
    /// The steps, in the order of the file.
    pub steps: Vec<StepTemplate>,
    /// By environment, then by step name: the keys that differ there, as they were written.
    pub environments: BTreeMap<String, BTreeMap<Name, Value>>,
}

/// Limits on the whole task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// The longest time from submission to the end; the task fails when it is over.
    pub max_duration: Option<Duration>,
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
    /// The longest run of the handler.
    pub timeout: Duration,
    /// JSON Schema that the result must fulfil.
    pub result_schema: Option<Value>,
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
