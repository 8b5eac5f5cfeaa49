//! How one run of a handler ended.

use crate::text_enum;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

text_enum! {
    /// The outcome as it is counted.
    ResultType {
        /// The handler returned a result.
        Success = "success",
        /// The handler returned an error, or the result was refused.
        Error = "error",
        /// The handler was still running at its deadline.
        Timeout = "timeout",
        /// The run was stopped from outside.
        Cancelled = "cancelled",
        /// The step was not needed.
        Skipped = "skipped",
    }
}

text_enum! {
    /// What kind of failure.
    FailureKind {
        /// The handler says: this may work another time.
        HandlerError = "handler_error",
        /// The handler says: this will never work.
        Permanent = "permanent",
        /// The deadline passed.
        Timeout = "timeout",
        /// The handler panicked.
        Panic = "panic",
        /// The run was stopped from outside.
        Cancelled = "cancelled",
        /// No handler of that name is registered with the worker.
        HandlerNotFound = "handler_not_found",
        /// The result breaks the step's `result_schema`.
        ResultInvalid = "result_invalid",
        /// The result is larger than the limit.
        ResultTooLarge = "result_too_large",
        /// Too many leases were lost: the step takes its workers down.
        Poison = "poison",
        /// It stood still too often.
        Stalled = "stalled",
        /// It waited longer than its template's `lifecycle` allows.
        Overdue = "overdue",
        /// An operator parked it.
        Parked = "parked",
    }
}

impl FailureKind {
    /// Whether another attempt may help, unless the handler says otherwise.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::HandlerError | Self::Timeout | Self::Panic | Self::HandlerNotFound | Self::Cancelled)
    }
}

/// A failure, as it is stored with the step and shown to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// What happened, readable alone.
    pub message: String,
    /// Whether another attempt may help.
    pub retryable: bool,
    /// The delay that the handler asked for, in milliseconds, such as an HTTP `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The handler did not begin its work, because what it needs is known to be away: no attempt is used up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_tried: bool,
    /// What the handler wants to be kept: a status code, the end of its error output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub details: Option<Value>,
}

impl Failure {
    /// A failure of `kind`, retryable as its kind is.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let (message, retryable) = (message.into(), kind.is_retryable());
        Self { kind, message, retryable, retry_after_ms: None, not_tried: false, details: None }
    }
}

/// How one run of a handler ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It returned this result.
    Success(Value),
    /// It failed.
    Failure(Failure),
}

impl Outcome {
    /// The outcome as it is counted.
    pub fn result_type(&self) -> ResultType {
        match self {
            Self::Success(_) => ResultType::Success,
            Self::Failure(failure) => failure.result_type(),
        }
    }
}

impl Failure {
    /// The failure as it is counted.
    pub const fn result_type(&self) -> ResultType {
        match self.kind {
            FailureKind::Timeout => ResultType::Timeout,
            FailureKind::Cancelled => ResultType::Cancelled,
            _ => ResultType::Error,
        }
    }

    /// The delay that the handler asked for.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after_ms.map(Duration::from_millis)
    }
}
