//! Why the orchestration service refuses a request or fails at one.

use tasker_shared::{
    id::{DeadLetterId, TaskId},
    storage,
};

/// A refusal (the caller can mend it) or a failure (the caller may try again).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such template.
    #[error("template `{template}` is not registered{}", hint(.nearest))]
    TemplateNotFound {
        /// As it was asked for: `namespace/name` or `namespace/name@version`.
        template: String,
        /// The nearest registered one.
        nearest: Option<String>,
    },
    /// The template text is refused.
    #[error("the template is invalid: {}", .0.join("; "))]
    TemplateInvalid(Vec<String>),
    /// The version exists with another definition, and tasks use it.
    #[error("template `{template}` is used by tasks and has another definition; give the changed one a new version")]
    TemplateConflict {
        /// `namespace/name@version`.
        template: String,
    },
    /// The input breaks the template's `input_schema`.
    #[error("the input breaks the input_schema of `{template}`: {}", .violations.join("; "))]
    InputInvalid {
        /// `namespace/name@version`.
        template: String,
        /// Each violation with its place.
        violations: Vec<String>,
    },
    /// A result given by hand breaks the step's `result_schema`.
    #[error("the result breaks the result_schema of step `{step}`: {}", .violations.join("; "))]
    ResultInvalid {
        /// The step.
        step: String,
        /// Each violation with its place.
        violations: Vec<String>,
    },
    /// A field of the request has a value that is not allowed.
    #[error("`{field}`: {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// Larger than the limit.
    #[error("`{field}` has {size} bytes; at most {limit} are allowed (orchestration.max_input_bytes)")]
    TooLarge {
        /// The field.
        field: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// No such task.
    #[error("task {0} does not exist")]
    TaskNotFound(TaskId),
    /// No such step.
    #[error("task {task} has no step `{step}`{}", hint(.nearest))]
    StepNotFound {
        /// The task.
        task: TaskId,
        /// As it was asked for.
        step: String,
        /// The nearest name.
        nearest: Option<String>,
    },
    /// No such dead letter.
    #[error("dead letter {0} does not exist")]
    DeadLetterNotFound(DeadLetterId),
    /// No such namespace.
    #[error("namespace `{namespace}` does not exist{}; a template that is registered opens its namespace", hint(.nearest))]
    NamespaceNotFound {
        /// As it was asked for.
        namespace: String,
        /// The nearest name.
        nearest: Option<String>,
    },
    /// No such limit.
    #[error("there is no limit `{0}` of an operator; limits of templates are changed in the template")]
    LimitNotFound(String),
    /// The state does not allow the action.
    #[error("{0}")]
    Illegal(String),
    /// The database failed or refused.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}
