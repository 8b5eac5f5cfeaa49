//! The label sets: which labels a metric has, and of which types.

use super::values::{
    ClaimMethod, ErrorType, HandlerType, HealthStatus, Label, LabelValue, LoopOutcome, Priority, Pruned, Signal,
    Success, TransactionOutcome,
};
use crate::{
    id::CorrelationId,
    name::Name,
    step::{DeadLetterReason, FailureKind, ResultType, StallKind, StepState},
    task::state::TaskState,
};
use opentelemetry::KeyValue;

/// A closed set of labels.
pub trait LabelSet {
    /// The keys, sorted: the SDK looks sorted sets up twice as fast.
    const KEYS: &'static [&'static str];
    /// The keys with their values, without the correlation id.
    fn attributes(&self) -> impl AsRef<[KeyValue]>;
    /// The task that was measured, where the set has one.
    fn correlation_id(&self) -> Option<CorrelationId> {
        None
    }
}

/// No labels.
impl LabelSet for () {
    const KEYS: &'static [&'static str] = &[];
    fn attributes(&self) -> impl AsRef<[KeyValue]> {
        [] as [KeyValue; 0]
    }
}

macro_rules! key {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}

macro_rules! labels {
    ($($(#[$doc:meta])* $set:ident $(of $id:ident)? {
        $($(#[$field_doc:meta])* $field:ident $(as $key:literal)?: $ty:ty,)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone)]
            pub struct $set {
                $(/// Of the task.
                pub $id: CorrelationId,)?
                $($(#[$field_doc])* pub $field: $ty,)*
            }

            impl LabelSet for $set {
                const KEYS: &'static [&'static str] = &[$(stringify!($id),)? $(key!($field $($key)?)),*];
                fn attributes(&self) -> impl AsRef<[KeyValue]> {
                    [$(KeyValue::new(key!($field $($key)?), LabelValue::value(&self.$field))),*]
                }
                $(fn correlation_id(&self) -> Option<CorrelationId> {
                    Some(self.$id)
                })?
            }
        )*

        #[cfg(test)]
        const SETS: &[&[&str]] = &[$($set::KEYS),*];
    };
}

labels! {
    /// Of one kind of notification.
    Notification {
        /// What it is about: a topic of work, `finished` tasks or `kept` traces.
        channel: &'static str,
    }
    /// One task, by kind.
    Task of correlation_id {
        /// Of the template.
        namespace: Name,
        /// The template's name.
        task_type: Name,
    }
    /// One step of one task.
    EnqueuedStep of correlation_id {
        /// Of the template.
        namespace: Name,
        /// In the template.
        step_name: Name,
    }
    /// How a step of one task ended.
    StepResult of correlation_id {
        /// The outcome.
        result_type: ResultType,
    }
    /// One task, by template.
    TaskType of correlation_id {
        /// The template's name.
        task_type: Name,
    }
    /// How one task ended.
    FinalState of correlation_id {
        /// What became of it.
        final_state: TaskState,
    }
    /// How a task of some kind ended.
    EndedTask {
        /// What became of it.
        final_state: TaskState,
        /// Of the template.
        namespace: Name,
        /// The template's name.
        task_type: Name,
    }
    /// Tasks in one state.
    InState {
        /// The state.
        state: TaskState,
    }
    /// One namespace.
    Namespace {
        /// Its name.
        namespace: Name,
    }
    /// Executions for one task.
    Execution of correlation_id {
        /// Of the template.
        namespace: Name,
    }
    /// A failed execution.
    StepFailure of correlation_id {
        /// Why.
        error_type: ErrorType,
        /// Of the template; `unknown` where the step was never read.
        namespace: Name,
    }
    /// An execution that ended.
    ExecutionResult of correlation_id {
        /// Of the template.
        namespace: Name,
        /// Whether the handler returned a result.
        result: Success,
    }
    /// One namespace, and how urgent its tasks are.
    NamespacePriority {
        /// Its name.
        namespace: Name,
        /// Of the tasks, by sign.
        priority: Priority,
    }
    /// How work was taken.
    Claim {
        /// What woke the worker.
        claim_method: ClaimMethod,
        /// Of the queue.
        namespace: Name,
    }
    /// Running handlers of one type.
    ActiveExecutions {
        /// What runs them.
        handler_type: HandlerType,
        /// Of the steps.
        namespace: Name,
    }
    /// One queue, with the namespace whose steps it carries.
    NamespaceQueue {
        /// `none` for the queues that all namespaces share.
        namespace: Option<Name>,
        /// Its name in PGMQ.
        queue: Label,
    }
    /// One queue.
    Queue {
        /// Its name in PGMQ.
        queue: Label,
    }
    /// One kind of SQL statement.
    Operation {
        /// The statement's name.
        operation: &'static str,
    }
    /// One kind of SQL statement, by outcome.
    OperationOutcome {
        /// The statement's name.
        operation: &'static str,
        /// Whether it worked.
        outcome: Success,
    }
    /// One kind of transaction.
    Transaction {
        /// Its name.
        transaction: &'static str,
    }
    /// One kind of transaction, by outcome.
    TransactionEnd {
        /// How it ended.
        outcome: TransactionOutcome,
        /// Its name.
        transaction: &'static str,
    }
    /// An answered request, by the conventions of OpenTelemetry.
    HttpRequest {
        /// `GET` and the like; `_OTHER` for unknown methods.
        method as "http.request.method": &'static str,
        /// Of the answer.
        status as "http.response.status_code": u16,
        /// The pattern that matched, never the path.
        route as "http.route": Label,
        /// `http` or `https`.
        scheme as "url.scheme": &'static str,
    }
    /// Requests in progress, by the conventions of OpenTelemetry.
    ActiveRequests {
        /// `GET` and the like; `_OTHER` for unknown methods.
        method as "http.request.method": &'static str,
        /// `http` or `https`.
        scheme as "url.scheme": &'static str,
    }
    /// One edge of the task's life.
    TaskTransition {
        /// `none` when it is created.
        from: Option<TaskState>,
        /// Where it is now.
        to: TaskState,
    }
    /// One edge of the step's life.
    StepTransition {
        /// `none` when it is created.
        from: Option<StepState>,
        /// Where it is now.
        to: StepState,
    }
    /// A failure and what it led to.
    Retry {
        /// What kind of failure.
        error_type: FailureKind,
        /// Of the step.
        namespace: Name,
    }
    /// One loop of a service.
    Loop {
        /// Its name.
        name as "loop": &'static str,
    }
    /// One loop of a service, by outcome.
    LoopRun {
        /// Its name.
        name as "loop": &'static str,
        /// What the turn did.
        outcome: LoopOutcome,
    }
    /// Why a message was parked.
    DeadLetter {
        /// The reason.
        reason: DeadLetterReason,
    }
    /// A limit on how many steps run at once.
    Limit {
        /// Its namespace.
        namespace: Name,
        /// What is limited, as it is declared.
        scope: Label,
    }
    /// A step that stood still.
    Stall {
        /// How.
        kind: StallKind,
        /// Of the step.
        namespace: Name,
    }
    /// What a health check looked at.
    Component {
        /// Its name.
        component: &'static str,
    }
    /// What a health check found.
    HealthCheck {
        /// What it looked at.
        component: &'static str,
        /// What it found.
        status: HealthStatus,
    }
    /// What a service cannot work without.
    Dependency {
        /// Its name.
        dependency: &'static str,
    }
    /// One route of the API.
    Endpoint {
        /// The pattern that matched, never the path.
        endpoint: Label,
    }
    /// A request to one route, by what a rate limit said.
    RateLimited {
        /// The pattern that matched, never the path.
        endpoint: Label,
        /// `allowed` or `rejected`.
        outcome: &'static str,
    }
    /// Why a worker claims nothing for a while.
    HeldBack {
        /// `outcomes` or `memory`.
        reason: &'static str,
    }
    /// One bounded channel inside a service.
    Channel {
        /// Its name.
        channel: &'static str,
        /// Who reads it.
        component: &'static str,
    }
    /// What is exported.
    ExportSignal {
        /// Metrics, traces or logs.
        signal: Signal,
    }
    /// What retention removes.
    PrunedKind {
        /// The kind of thing.
        kind: Pruned,
    }
    /// One table.
    Table {
        /// Its name with the schema.
        table: Label,
    }
}

#[cfg(test)]
mod tests {
    use super::SETS;

    #[test]
    fn keys_are_sorted() {
        for keys in SETS {
            assert!(keys.is_sorted(), "{keys:?}");
        }
    }
}
