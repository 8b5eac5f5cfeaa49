//! What may stand behind a label: names that were checked, closed sets of words, fixed texts and ids.

use crate::{
    name::Name,
    step::{DeadLetterReason, FailureKind, ResultType, StallKind, StepState},
    task::state::TaskState,
    text_enum,
};
use opentelemetry::{StringValue, Value};
use std::sync::Arc;

text_enum! {
    /// What made a worker look for work.
    ClaimMethod {
        /// A notification woke it.
        Event = "event",
        /// Its timer did.
        Poll = "poll",
    }
}

text_enum! {
    /// What runs a step's handler.
    HandlerType {
        /// Code linked into the worker.
        Rust = "rust",
        /// A request to a web service.
        Http = "http",
        /// A program.
        Command = "command",
    }
}

text_enum! {
    /// Why an execution failed.
    ErrorType {
        /// The step could not be claimed.
        ClaimFailed = "claim_failed",
        /// PostgreSQL refused or could not be reached.
        DatabaseError = "database_error",
        /// The message names a step that does not exist.
        StepNotFound = "step_not_found",
        /// The step's message could not be deleted.
        MessageDeletionFailed = "message_deletion_failed",
        /// The handler returned an error.
        HandlerError = "handler_error",
        /// The handler returned an error that no retry mends.
        Permanent = "permanent",
        /// The deadline passed.
        Timeout = "timeout",
        /// The handler panicked.
        Panic = "panic",
        /// The run was stopped from outside.
        Cancelled = "cancelled",
        /// No handler of that name is registered.
        HandlerNotFound = "handler_not_found",
        /// The result breaks its schema.
        ResultInvalid = "result_invalid",
        /// The result is larger than the limit.
        ResultTooLarge = "result_too_large",
        /// Too many leases were lost.
        Poison = "poison",
        /// It stood still too often.
        Stalled = "stalled",
        /// It waited longer than its template allows.
        Overdue = "overdue",
        /// An operator parked it.
        Parked = "parked",
    }
}

impl From<FailureKind> for ErrorType {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::HandlerError => Self::HandlerError,
            FailureKind::Permanent => Self::Permanent,
            FailureKind::Timeout => Self::Timeout,
            FailureKind::Panic => Self::Panic,
            FailureKind::Cancelled => Self::Cancelled,
            FailureKind::HandlerNotFound => Self::HandlerNotFound,
            FailureKind::ResultInvalid => Self::ResultInvalid,
            FailureKind::ResultTooLarge => Self::ResultTooLarge,
            FailureKind::Poison => Self::Poison,
            FailureKind::Stalled => Self::Stalled,
            FailureKind::Overdue => Self::Overdue,
            FailureKind::Parked => Self::Parked,
        }
    }
}

text_enum! {
    /// What retention removes.
    Pruned {
        /// Finished tasks.
        Task = "task",
        /// Their steps.
        Step = "step",
        /// Archived tasks.
        ArchivedTask = "archived_task",
        /// Dead letters that were resolved.
        DeadLetter = "dead_letter",
        /// Messages in the archives of queues.
        QueueArchive = "queue_archive",
        /// Workers that are gone.
        Worker = "worker",
        /// The record of what operators did.
        Audit = "audit",
    }
}

text_enum! {
    /// The priority of a task, by its sign: a hundred numbers would be a hundred series.
    Priority {
        /// Below zero.
        Low = "low",
        /// Zero.
        Normal = "normal",
        /// Above zero.
        High = "high",
    }
}

impl From<i16> for Priority {
    fn from(priority: i16) -> Self {
        match priority {
            ..0 => Self::Low,
            0 => Self::Normal,
            1.. => Self::High,
        }
    }
}

text_enum! {
    /// Whether something worked.
    Success {
        /// It did.
        Success = "success",
        /// It did not.
        Error = "error",
    }
}

impl Success {
    /// `Ok` is a success.
    pub const fn of<T, E>(result: &Result<T, E>) -> Self {
        match result {
            Ok(_) => Self::Success,
            Err(_) => Self::Error,
        }
    }
}

impl From<ResultType> for Success {
    fn from(result: ResultType) -> Self {
        match result {
            ResultType::Success | ResultType::Skipped => Self::Success,
            ResultType::Error | ResultType::Timeout | ResultType::Cancelled => Self::Error,
        }
    }
}

text_enum! {
    /// How a transaction ended.
    TransactionOutcome {
        /// Its changes are durable.
        Committed = "committed",
        /// Its changes are gone.
        RolledBack = "rolled_back",
        /// PostgreSQL asked to run it again.
        Retried = "retried",
    }
}

text_enum! {
    /// What one turn of a loop did.
    LoopOutcome {
        /// It found work.
        Worked = "worked",
        /// There was nothing to do.
        Idle = "idle",
        /// It failed.
        Error = "error",
    }
}

text_enum! {
    /// What a health check found.
    HealthStatus {
        /// All is well.
        Healthy = "healthy",
        /// It works, with limits.
        Degraded = "degraded",
        /// It does not work.
        Unhealthy = "unhealthy",
    }
}

text_enum! {
    /// What is exported.
    Signal {
        /// Numbers.
        Metrics = "metrics",
        /// Spans.
        Traces = "traces",
        /// Log records.
        Logs = "logs",
    }
}

/// A label value that is known only when the program runs and comes from a small set: a queue, a table, a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Label(StringValue);

impl Label {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl From<&'static str> for Label {
    fn from(text: &'static str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Label {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Arc<str>> for Label {
    fn from(text: Arc<str>) -> Self {
        Self(text.into())
    }
}

impl From<&Name> for Label {
    fn from(name: &Name) -> Self {
        Self(name.shared().into())
    }
}

/// Something that can stand behind a label.
pub trait LabelValue {
    /// The value as it is recorded.
    fn value(&self) -> Value;
}

impl LabelValue for Label {
    fn value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

impl LabelValue for Name {
    fn value(&self) -> Value {
        Value::from(self.shared())
    }
}

impl LabelValue for &'static str {
    fn value(&self) -> Value {
        Value::from(*self)
    }
}

impl LabelValue for u16 {
    fn value(&self) -> Value {
        Value::I64(i64::from(*self))
    }
}

/// What is not there is `none`: the state before the first one, the namespace of a queue that all share.
impl<V: LabelValue> LabelValue for Option<V> {
    fn value(&self) -> Value {
        self.as_ref().map_or(Value::from("none"), V::value)
    }
}

macro_rules! words {
    ($($word:ty)*) => {$(
        impl LabelValue for $word {
            fn value(&self) -> Value { Value::from(self.as_str()) }
        }
    )*};
}

words! { ClaimMethod HandlerType Priority Pruned ErrorType Success TransactionOutcome LoopOutcome HealthStatus Signal
FailureKind ResultType StepState TaskState DeadLetterReason StallKind }
