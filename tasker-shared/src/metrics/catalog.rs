//! The catalogue: every metric, named exactly once.
//!
//! Doc comment: help text. Field: instrument. Type: kind and labels. Then the OpenTelemetry name, the UCUM unit, and
//! for a histogram the upper bounds of its buckets. A field is named as its metric, without `tasker.` and `.total`.

use super::{
    instrument::{Counter, FloatGauge, Gauge, Histogram, Target, UpDownCounter},
    journal::Journal,
    labels::{
        ActiveExecutions, ActiveRequests, Channel, Claim, Component, DeadLetter, Dependency, EndedTask, Endpoint,
        EnqueuedStep, Execution, ExecutionResult, ExportSignal, FinalState, HealthCheck, HeldBack, HttpRequest,
        InState, LabelSet, Limit, Loop, LoopRun, Namespace, NamespacePriority, NamespaceQueue, Notification, Operation,
        OperationOutcome, PrunedKind, Queue, RateLimited, Retry, Stall, StepFailure, StepResult, StepTransition, Table,
        Task, TaskTransition, TaskType, Transaction, TransactionEnd,
    },
    spec::Spec,
};
use opentelemetry::metrics::Meter;
use std::{ops::Deref, sync::Arc};

/// Milliseconds of work inside the line: a batch shares one transaction, so a step takes fractions of one.
const FAST: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1_000.0, 5_000.0];
/// Milliseconds of a user's handler, or of waiting for one: from well under one to an hour.
const WORK: &[f64] = &[
    0.1,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    1_800_000.0,
    3_600_000.0,
];
/// Milliseconds of a whole task: from a few to a week.
const LIFE: &[f64] = &[
    1.0,
    2.5,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    1_800_000.0,
    3_600_000.0,
    21_600_000.0,
    86_400_000.0,
    604_800_000.0,
];
/// Seconds of a request, as the conventions advise, with two finer ones.
const REQUEST: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Seconds of processor time of a program.
const PROCESSOR: &[f64] = &[0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0];
/// Bytes of memory of a program: 1 MiB to 64 GiB.
const MEMORY: &[f64] = &[
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
    17_179_869_184.0,
    68_719_476_736.0,
];

macro_rules! buckets {
    () => {
        &[]
    };
    ($buckets:ident) => {
        $buckets
    };
}

macro_rules! catalog {
    ($(#[doc = $help:literal] $field:ident: $ty:ident<$labels:ty> = $name:literal, $unit:literal $(, $buckets:ident)?;)*) => {
        /// Every instrument. Reached through [`Metrics`].
        #[derive(Debug)]
        pub struct Instruments { $(#[doc = $help] pub $field: $ty<$labels>,)* }

        /// The same list as data.
        pub const CATALOG: &[Spec] = &[$(Spec {
            field: stringify!($field),
            name: $name,
            kind: $ty::<$labels>::KIND,
            unit: $unit,
            labels: <$labels as LabelSet>::KEYS,
            help: $help.trim_ascii(),
            buckets: buckets!($($buckets)?),
        }),*];

        impl Instruments {
            fn register(target: Option<Target<'_>>) -> Self {
                let mut specs = (0..).zip(CATALOG);
                let mut next = || specs.next().expect("one spec per field");
                Self { $($field: { let (place, spec) = next(); $ty::register(target, spec, place) },)* }
            }
        }
    };
}

catalog! {
    /// Task creation requests received.
    tasks_requests: Counter<Task> = "tasker.tasks.requests.total", "{task}";
    /// Tasks that completed successfully.
    tasks_completions: Counter<Task> = "tasker.tasks.completions.total", "{task}";
    /// Tasks that failed.
    tasks_failures: Counter<Task> = "tasker.tasks.failures.total", "{task}";
    /// Steps put on the queue of their namespace.
    steps_enqueued: Counter<EnqueuedStep> = "tasker.steps.enqueued.total", "{step}";
    /// Step results from workers, evaluated.
    step_results_processed: Counter<StepResult> = "tasker.step_results.processed.total", "{result}";
    /// Time to make the steps of a task.
    task_initialization_duration: Histogram<TaskType> = "tasker.task.initialization.duration", "ms", FAST;
    /// Time to bring a task to its end, once its last step is evaluated.
    task_finalization_duration: Histogram<FinalState> = "tasker.task.finalization.duration", "ms", FAST;
    /// Time to evaluate a step result.
    step_result_processing_duration: Histogram<StepResult> = "tasker.step_result.processing.duration", "ms", FAST;
    /// Tasks in each state; final states are not counted.
    tasks_active: Gauge<InState> = "tasker.tasks.active", "{task}";
    /// Steps that wait for a worker: what can be read now from the queue of their namespace.
    steps_ready: Gauge<Namespace> = "tasker.steps.ready", "{step}";

    /// Step executions begun.
    steps_executions: Counter<Execution> = "tasker.steps.executions.total", "{execution}";
    /// Step executions that completed successfully.
    steps_successes: Counter<Execution> = "tasker.steps.successes.total", "{execution}";
    /// Step executions that failed.
    steps_failures: Counter<StepFailure> = "tasker.steps.failures.total", "{execution}";
    /// Steps claimed.
    steps_claimed: Counter<Claim> = "tasker.steps.claimed.total", "{step}";
    /// Step results submitted to the orchestration.
    steps_results_submitted: Counter<StepResult> = "tasker.steps.results_submitted.total", "{result}";
    /// Time inside the user's handler.
    step_execution_duration: Histogram<ExecutionResult> = "tasker.step.execution.duration", "ms", WORK;
    /// Time to claim a step.
    step_claim_duration: Histogram<Claim> = "tasker.step.claim.duration", "ms", FAST;
    /// Time to store a step result and hand it to the orchestration.
    step_result_submission_duration: Histogram<StepResult> = "tasker.step_result.submission.duration", "ms", FAST;
    /// Steps that are being executed.
    steps_active_executions: Gauge<ActiveExecutions> = "tasker.steps.active_executions", "{execution}";
    /// Messages in a queue that can be read now.
    queue_depth: Gauge<NamespaceQueue> = "tasker.queue.depth", "{message}";

    /// SQL statements run.
    sql_queries: Counter<OperationOutcome> = "tasker.sql.queries.total", "{query}";
    /// Time of an SQL statement.
    sql_query_duration: Histogram<Operation> = "tasker.sql.query.duration", "ms", FAST;
    /// Connections of the pool that are in use.
    db_pool_connections_active: Gauge<()> = "tasker.db.pool.connections_active", "{connection}";
    /// Connections of the pool that are free.
    db_pool_connections_idle: Gauge<()> = "tasker.db.pool.connections_idle", "{connection}";
    /// Time spent waiting for a connection of the pool.
    db_pool_wait_duration: Histogram<()> = "tasker.db.pool.wait_duration", "ms", FAST;
    /// Database transactions.
    db_transactions: Counter<TransactionEnd> = "tasker.db.transactions.total", "{transaction}";
    /// Time of a database transaction, its retries included.
    db_transaction_duration: Histogram<Transaction> = "tasker.db.transaction.duration", "ms", FAST;

    /// Messages sent.
    queue_messages_sent: Counter<Queue> = "tasker.queue.messages_sent.total", "{message}";
    /// Messages read.
    queue_messages_received: Counter<Queue> = "tasker.queue.messages_received.total", "{message}";
    /// Messages deleted because they were dealt with.
    queue_messages_deleted: Counter<Queue> = "tasker.queue.messages_deleted.total", "{message}";
    /// Messages archived because they could not be dealt with; each is a dead letter.
    queue_messages_archived: Counter<Queue> = "tasker.queue.messages_archived.total", "{message}";
    /// Time to send a batch of messages.
    queue_message_send_duration: Histogram<Queue> = "tasker.queue.message_send.duration", "ms", FAST;
    /// Time to read a batch of messages.
    queue_message_receive_duration: Histogram<Queue> = "tasker.queue.message_receive.duration", "ms", FAST;
    /// Age of the oldest message that can be read now, in seconds.
    queue_age_seconds: FloatGauge<Queue> = "tasker.queue.age_seconds", "";
    /// Messages that came back because their visibility timeout passed.
    queue_visibility_timeouts: Counter<Queue> = "tasker.queue.visibility_timeouts.total", "{message}";
    /// Queue operations that failed.
    queue_errors: Counter<Queue> = "tasker.queue.errors.total", "{error}";
    /// Messages read again after an earlier reader did not finish with them.
    queue_retry_attempts: Counter<Queue> = "tasker.queue.retry_attempts.total", "{attempt}";

    /// Time to answer a request.
    http_server_request_duration: Histogram<HttpRequest> = "http.server.request.duration", "s", REQUEST;
    /// Requests in progress.
    http_server_active_requests: UpDownCounter<ActiveRequests> = "http.server.active_requests", "{request}";

    /// State changes of tasks, once they are durable.
    tasks_transitions: Counter<TaskTransition> = "tasker.tasks.transitions.total", "{transition}";
    /// State changes of steps, once they are durable.
    steps_transitions: Counter<StepTransition> = "tasker.steps.transitions.total", "{transition}";
    /// Time from the acceptance of a task to its end.
    task_duration: Histogram<EndedTask> = "tasker.task.duration", "ms", LIFE;
    /// Time a step waited on its queue; the priority is `low` below zero, `normal` at zero, `high` above.
    step_queue_wait_duration: Histogram<NamespacePriority> = "tasker.step.queue_wait.duration", "ms", WORK;
    /// Failures that are tried again.
    steps_retries: Counter<Retry> = "tasker.steps.retries.total", "{retry}";
    /// Failures that might have been tried again, had there been an attempt left.
    steps_retries_exhausted: Counter<Retry> = "tasker.steps.retries_exhausted.total", "{step}";
    /// Turns of a loop in progress.
    runtime_loops_in_flight: Gauge<Loop> = "tasker.runtime.loops_in_flight", "{turn}";
    /// Turns of a loop.
    runtime_loop_runs: Counter<LoopRun> = "tasker.runtime.loop_runs.total", "{turn}";
    /// Tasks of the runtime that have not ended.
    runtime_tasks_alive: Gauge<()> = "tasker.runtime.tasks_alive", "{task}";
    /// Tasks of the runtime that wait for a thread, in the queue that all threads share.
    runtime_tasks_queued: Gauge<()> = "tasker.runtime.tasks_queued", "{task}";
    /// Threads of the runtime.
    runtime_threads: Gauge<()> = "tasker.runtime.threads", "{thread}";
    /// Workers whose heartbeat is fresh.
    workers_live: Gauge<Namespace> = "tasker.workers.live", "{worker}";
    /// Heartbeats that could not be stored.
    worker_heartbeat_failures: Counter<()> = "tasker.worker.heartbeat.failures.total", "{failure}";
    /// Messages parked.
    dlq_messages: Counter<DeadLetter> = "tasker.dlq.messages.total", "{message}";
    /// Parked messages that nobody has dealt with.
    dlq_size: Gauge<()> = "tasker.dlq.size", "{message}";
    /// Parked messages and steps that were put back.
    dlq_redrives: Counter<DeadLetter> = "tasker.dlq.redrives.total", "{message}";
    /// Steps that stood still and were enqueued again.
    steps_stalls: Counter<Stall> = "tasker.steps.stalls.total", "{step}";
    /// How many steps may run at once; for a limit by a value of the input, of each value.
    concurrency_permits: Gauge<Limit> = "tasker.concurrency.permits", "{permit}";
    /// Steps that run and count against a limit.
    concurrency_permits_used: Gauge<Limit> = "tasker.concurrency.permits_used", "{permit}";
    /// Steps that found no permit and were set aside.
    concurrency_rejections: Counter<Namespace> = "tasker.concurrency.rejections.total", "{step}";
    /// Largest resident memory of a program that ran as a handler.
    command_memory: Histogram<Namespace> = "tasker.command.memory", "By", MEMORY;
    /// Processor time of a program that ran as a handler.
    command_cpu_time: Histogram<Namespace> = "tasker.command.cpu_time", "s", PROCESSOR;
    /// Health checks answered.
    health_checks: Counter<HealthCheck> = "tasker.health.checks.total", "{check}";
    /// Time of a health check.
    health_check_duration: Histogram<Component> = "tasker.health.check.duration", "ms", FAST;
    /// 1 where the dependency answers, 0 where it does not.
    health_dependency_up: Gauge<Dependency> = "tasker.health.dependency_up", "";

    /// Notifications sent to other processes, which wake them.
    notifications_sent: Counter<Notification> = "tasker.notifications.sent.total", "{notification}";
    /// Notifications that could not be sent; others find the work when they poll.
    notifications_failed: Counter<Notification> = "tasker.notifications.failed.total", "{notification}";
    /// Time of a notification from a process through PostgreSQL and back to it.
    notifications_delivery_duration: Histogram<Notification> = "tasker.notifications.delivery.duration", "ms", FAST;

    /// State of the circuit breaker between the HTTP API and the database: 0 closed, 1 half-open, 2 open.
    api_circuit_breaker_state: Gauge<()> = "api_circuit_breaker_state", "";
    /// State of the circuit breaker of a component: 0 closed, 1 half-open, 2 open.
    tasker_circuit_breaker_state: Gauge<Component> = "tasker_circuit_breaker_state", "";
    /// API requests refused because the circuit breaker was open.
    api_requests_rejected: Counter<Endpoint> = "api_requests_rejected_total", "{request}";
    /// API requests refused because as many as may be served at once were being served.
    api_requests_shed: Counter<Endpoint> = "tasker.api.requests_shed.total", "{request}";
    /// Sends of outcomes of handlers that are not Rust which took longer than `breakers.ffi_completion.slow_send_ms`.
    ffi_completion_slow_sends: Counter<()> = "ffi_completion_slow_sends_total", "{send}";
    /// Handlers that are not Rust which were not started, and their steps given back, while outcomes were slow to hand over.
    ffi_completion_circuit_open_rejections: Counter<()> = "ffi_completion_circuit_open_rejections_total", "{execution}";
    /// Times that a worker stopped claiming because of its own load.
    worker_claims_held_back: Counter<HeldBack> = "tasker.worker.claims_held_back.total", "{pause}";
    /// Requests that a rate limit was asked about.
    rate_limit_requests: Counter<RateLimited> = "tasker.rate_limit.requests.total", "{request}";
    /// Time to decide about a request.
    rate_limit_check_duration: Histogram<()> = "tasker.rate_limit.check.duration", "ms", FAST;
    /// How full a bounded channel is, in percent.
    mpsc_channel_usage_percent: FloatGauge<Channel> = "mpsc_channel_usage_percent", "";
    /// How much a bounded channel holds.
    mpsc_channel_capacity: Gauge<Channel> = "mpsc_channel_capacity", "";
    /// Sends that found a bounded channel full.
    mpsc_channel_full_events: Counter<Channel> = "mpsc_channel_full_events_total", "{event}";

    /// Series held for export.
    telemetry_series: Gauge<()> = "tasker.telemetry.series", "{series}";
    /// Series counted under `correlation_id="overflow"` because the bound on ids was reached before they were exported.
    telemetry_overflow: Counter<()> = "tasker.telemetry.overflow.total", "{series}";
    /// Exports that failed.
    telemetry_export_failures: Counter<ExportSignal> = "tasker.telemetry.export.failures.total", "{failure}";

    /// Rows of a table that vacuum has yet to remove.
    db_dead_tuples: Gauge<Table> = "tasker.db.dead_tuples", "{row}";
    /// Size of a table without its indexes.
    db_table_size: Gauge<Table> = "tasker.db.table_size", "By";
    /// Size of a table's indexes.
    db_index_size: Gauge<Table> = "tasker.db.index_size", "By";
    /// Time since a table was vacuumed.
    db_last_vacuum_age: FloatGauge<Table> = "tasker.db.last_vacuum_age", "s";
    /// Time since a table was analyzed.
    db_last_analyze_age: FloatGauge<Table> = "tasker.db.last_analyze_age", "s";
    /// Age of the oldest snapshot, which holds vacuum back.
    db_oldest_snapshot_age: FloatGauge<()> = "tasker.db.oldest_snapshot_age", "s";
    /// How full the notification queue of PostgreSQL is, from 0 to 1.
    db_notification_queue_usage: FloatGauge<()> = "tasker.db.notification_queue_usage", "";
    /// What retention removed because of its age.
    retention_pruned: Counter<PrunedKind> = "tasker.retention.pruned.total", "{row}";
    /// Time of a turn of retention that removed something.
    retention_duration: Histogram<()> = "tasker.retention.duration", "ms", FAST;
    /// How far beyond its age the oldest thing was that the last turn of retention found; told by the process that sweeps.
    retention_overdue: FloatGauge<()> = "tasker.retention.overdue", "s";
    /// Bytes that PostgreSQL wrote ahead, for all databases of the server, seen by the process that samples.
    db_wal: Counter<()> = "tasker.db.wal.total", "By";
}

/// Every instrument of the catalogue; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Instruments>);

impl Metrics {
    /// Instruments that record into `meter`, and those of single tasks into `journal`.
    pub fn new(meter: &Meter, journal: &Arc<Journal>) -> Self {
        Self(Arc::new(Instruments::register(Some(Target { meter, journal }))))
    }

    /// Instruments that record nothing and cost nothing.
    pub fn disabled() -> Self {
        Self(Arc::new(Instruments::register(None)))
    }
}

impl Deref for Metrics {
    type Target = Instruments;
    fn deref(&self) -> &Instruments {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Kind, CATALOG};
    use std::collections::BTreeSet;

    #[test]
    fn a_field_is_named_as_its_metric() {
        for spec in CATALOG {
            let name = spec.name.strip_prefix("tasker.").unwrap_or(spec.name).replace('.', "_");
            assert_eq!(spec.field, name.strip_suffix("_total").unwrap_or(&name));
        }
    }

    #[test]
    fn names_are_unique_in_both_worlds() {
        let names: BTreeSet<_> = CATALOG.iter().map(|spec| spec.name).collect();
        let in_prometheus: BTreeSet<_> = CATALOG.iter().map(|spec| spec.prometheus_name()).collect();
        assert_eq!((names.len(), in_prometheus.len()), (CATALOG.len(), CATALOG.len()));
    }

    #[test]
    fn exactly_the_histograms_have_buckets_and_they_rise() {
        for spec in CATALOG {
            assert_eq!(spec.kind == Kind::Histogram, !spec.buckets.is_empty(), "{}", spec.name);
            assert!(spec.buckets.is_sorted(), "{}", spec.name);
        }
    }

    #[test]
    fn every_documented_metric_that_exists_has_its_documented_name() {
        let names: BTreeSet<_> = CATALOG.iter().map(|spec| spec.prometheus_name()).collect();
        for documented in DOCUMENTED.split_whitespace() {
            assert!(names.contains(documented), "{documented} is not in the catalogue");
        }
    }

    /// As dashboards and alerts name them; histograms without `_bucket`, `_sum` and `_count`.
    const DOCUMENTED: &str = "
        tasker_tasks_requests_total tasker_tasks_completions_total tasker_tasks_failures_total
        tasker_steps_enqueued_total tasker_step_results_processed_total
        tasker_task_initialization_duration_milliseconds tasker_task_finalization_duration_milliseconds
        tasker_step_result_processing_duration_milliseconds tasker_tasks_active tasker_steps_ready
        tasker_steps_executions_total tasker_steps_successes_total tasker_steps_failures_total
        tasker_steps_claimed_total tasker_steps_results_submitted_total
        tasker_step_execution_duration_milliseconds tasker_step_claim_duration_milliseconds
        tasker_step_result_submission_duration_milliseconds tasker_steps_active_executions tasker_queue_depth
        mpsc_channel_usage_percent mpsc_channel_capacity mpsc_channel_full_events_total
        api_circuit_breaker_state tasker_circuit_breaker_state api_requests_rejected_total
        ffi_completion_slow_sends_total ffi_completion_circuit_open_rejections_total
        tasker_rate_limit_requests_total tasker_rate_limit_check_duration_milliseconds
        tasker_sql_queries_total tasker_sql_query_duration_milliseconds tasker_db_pool_connections_active
        tasker_db_pool_connections_idle tasker_db_pool_wait_duration_milliseconds tasker_db_transactions_total
        tasker_db_transaction_duration_milliseconds tasker_queue_messages_sent_total
        tasker_queue_messages_received_total tasker_queue_messages_deleted_total
        tasker_queue_messages_archived_total tasker_queue_message_send_duration_milliseconds
        tasker_queue_message_receive_duration_milliseconds tasker_queue_age_seconds
        tasker_queue_visibility_timeouts_total tasker_queue_errors_total tasker_queue_retry_attempts_total
        http_server_request_duration_seconds http_server_active_requests";

    #[test]
    fn no_gauge_has_a_unit_that_would_change_its_documented_name() {
        assert!(CATALOG.iter().all(|spec| !matches!(spec.unit, "1" | "%")));
    }
}
