//! What the HTTP API sends and takes: plain data, the same in service, client and command line.

mod access;

pub use access::{AuditEntry, AuditFilter, AuditOutcome, AuditPage, CreateKey, CreatedKey, KeyList, KeySummary};

use crate::{
    id::{CorrelationId, DeadLetterId, StepId, TaskId, TemplateId, WorkerId},
    step::{DeadLetterReason, Failure, Resolution, StepState},
    task::{IdentityStrategy, TaskState},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Asks for a task. Unknown keys are refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitTask {
    /// The template's namespace.
    pub namespace: String,
    /// The template's name.
    pub name: String,
    /// The template's version; the newest registered one when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The input; must fulfil the template's `input_schema`. `{}` when not given, or null.
    #[serde(default)]
    pub input: Value,
    /// A repeat with the same key answers with the task of this template that exists, whatever its version and input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Higher goes first: -100 to 100.
    #[schema(minimum = -100, maximum = 100)]
    #[serde(default)]
    pub priority: i16,
    /// Free words to find the task by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<DateTime<Utc>>,
    /// Made by the server when neither this nor a `traceparent` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<CorrelationId>,
    /// The correlation id of the work that caused this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_correlation_id: Option<CorrelationId>,
    /// W3C trace context; the request header of that name counts too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator: Option<String>,
    /// Which system asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_system: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Asks for many tasks at once; each is answered by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitTasks {
    /// The tasks.
    pub tasks: Vec<SubmitTask>,
}

/// An accepted task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Submitted {
    /// The task.
    pub task_id: TaskId,
    /// Joins the task with its trace, logs and metrics.
    pub correlation_id: CorrelationId,
    /// False when the task existed already.
    pub created: bool,
    /// Where it stands.
    pub state: TaskState,
}

/// The answer for one of many tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum SubmitAnswer {
    /// It is accepted.
    Accepted(Submitted),
    /// It is refused.
    Refused(Problem),
}

/// The answers, in the order of the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubmitAnswers {
    /// One for each task.
    pub tasks: Vec<SubmitAnswer>,
}

/// An error, as RFC 9457 describes it (`application/problem+json`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A word that programs can match, such as `template_not_found`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened, in one line.
    pub title: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// This one occurrence, as `urn:uuid:ID`; the service's log has the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Single violations, such as those of a schema.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// A task in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskSummary {
    /// The task.
    pub task_id: TaskId,
    /// Its namespace.
    pub namespace: String,
    /// Its template's name.
    pub name: String,
    /// Its template's version.
    pub version: String,
    /// Where it stands.
    pub state: TaskState,
    /// Joins the task with its trace, logs and metrics.
    pub correlation_id: CorrelationId,
    /// Higher goes first.
    pub priority: i16,
    /// Free words.
    pub tags: Vec<String>,
    /// All its steps.
    pub steps_total: i64,
    /// Those that are complete, skipped or resolved by hand.
    pub steps_done: i64,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// Which tasks to list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TaskFilter {
    /// Only this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    /// Only this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only this template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only tasks with this tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Only tasks of this correlation id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<CorrelationId>,
    /// At most this many, from 1 to 1000; 50 when not given.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<TaskId>,
}

/// A page of tasks, the newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<TaskSummary>,
    /// Give this as `before` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<TaskId>,
}

/// A whole task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskDetail {
    /// What lists show.
    #[serde(flatten)]
    pub summary: TaskSummary,
    /// The template version it runs.
    pub template_id: TemplateId,
    /// Its input.
    pub input: Value,
    /// Not before this time.
    pub run_at: Option<DateTime<Utc>>,
    /// When its steps were made.
    pub started_at: Option<DateTime<Utc>>,
    /// Why it failed.
    pub error: Option<Value>,
    /// The key that it was submitted with.
    pub idempotency_key: Option<String>,
    /// The correlation id of the work that caused it.
    pub parent_correlation_id: Option<CorrelationId>,
    /// Who asked.
    pub initiator: Option<String>,
    /// Which system asked.
    pub source_system: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Its dashboard, where `telemetry.grafana_url` says where Grafana is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboard_url: Option<String>,
    /// Its steps, in the order of the template.
    pub steps: Vec<StepDetail>,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepDetail {
    /// The step.
    pub step_id: StepId,
    /// Its name, unique in the task.
    pub name: String,
    /// Where it stands.
    pub state: StepState,
    /// The steps it waits for, by name.
    pub dependencies: Vec<String>,
    /// Of those, how many are unfinished.
    pub waiting_on: i32,
    /// How often it was claimed.
    pub attempt: i32,
    /// How often it failed.
    pub failures: i32,
    /// How often it may fail before that is final.
    pub max_attempts: i32,
    /// What it returned.
    pub result: Option<Value>,
    /// How it failed last.
    pub error: Option<Failure>,
    /// What the handler said of its progress.
    pub progress: Option<Value>,
    /// The worker that ran it last.
    pub worker: Option<String>,
    /// When it runs again.
    pub retry_at: Option<DateTime<Utc>>,
    /// When it was put on its queue last.
    pub enqueued_at: Option<DateTime<Utc>>,
    /// When it was claimed last.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// One line of a task's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Transition {
    /// The order in the task.
    pub sequence: i64,
    /// The step; absent for the task's own transitions.
    pub step: Option<String>,
    /// The state before; absent at creation.
    pub from: Option<String>,
    /// The state after.
    pub to: String,
    /// The step's attempt.
    pub attempt: Option<i32>,
    /// Who did it, such as `worker:NAME`, `orchestration` or `operator:NAME`.
    pub actor: String,
    /// Why, where somebody said so.
    pub reason: Option<String>,
    /// When, by the database's clock.
    pub at: DateTime<Utc>,
}

/// A task's history, the oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// The transitions of the task and its steps.
    pub transitions: Vec<Transition>,
}

/// Why a task is where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The task.
    pub task_id: TaskId,
    /// Where it stands.
    pub state: TaskState,
    /// The answer in one sentence.
    pub summary: String,
    /// The answer for each step that is not done.
    pub steps: Vec<StepExplanation>,
}

/// Why a step is where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepExplanation {
    /// The step's name.
    pub step: String,
    /// Where it stands.
    pub state: StepState,
    /// The answer in one sentence.
    pub because: String,
}

/// What an operator says with an action.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Why; kept in the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who; kept in the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Gives a step its result by hand.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveStep {
    /// The result; must fulfil the step's `result_schema`.
    pub result: Value,
    /// Why; kept in the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who; kept in the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What an operator's action led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Acted {
    /// The task.
    pub task_id: TaskId,
    /// Where it stands now.
    pub state: TaskState,
}

/// Which dead letters to list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeadLetterFilter {
    /// Only this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DeadLetterReason>,
    /// Only this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// `true`: only those that nobody has dealt with; `false`: only the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<bool>,
    /// Only of this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<uuid::Uuid>)]
    pub task_id: Option<TaskId>,
    /// At most this many, from 1 to 1000; 50 when not given.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[param(value_type = Option<uuid::Uuid>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<DeadLetterId>,
}

/// A dead letter in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterSummary {
    /// The dead letter.
    pub dead_letter_id: DeadLetterId,
    /// Why it was parked.
    pub reason: DeadLetterReason,
    /// The queue that it was on.
    pub queue: String,
    /// The namespace, where it is known.
    pub namespace: Option<String>,
    /// What went wrong last.
    pub detail: String,
    /// The task, where it is known.
    pub task_id: Option<TaskId>,
    /// The step, where it is known.
    pub step_id: Option<StepId>,
    /// The step's name.
    pub step: Option<String>,
    /// Who parked it: `tasker` or `operator:NAME`.
    pub parked_by: String,
    /// When it was parked.
    pub created_at: DateTime<Utc>,
    /// How it was dealt with; absent while it is open.
    pub resolution: Option<Resolution>,
    /// Who dealt with it.
    pub resolved_by: Option<String>,
    /// When.
    pub resolved_at: Option<DateTime<Utc>>,
    /// What they said.
    pub note: Option<String>,
}

/// A dead letter, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// What lists show.
    #[serde(flatten)]
    pub summary: DeadLetterSummary,
    /// The message as it was.
    pub message: Value,
    /// Its headers.
    pub headers: Option<Value>,
    /// How often it was read.
    pub read_count: i32,
    /// Task and step as they were when it was parked.
    pub snapshot: Option<Value>,
}

/// A page of dead letters, the newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterPage {
    /// The dead letters.
    pub dead_letters: Vec<DeadLetterSummary>,
    /// Give this as `before` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<DeadLetterId>,
}

/// Sets how many steps may run at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetLimit {
    /// The limit, to 100000; 0 lets nothing begin.
    #[schema(minimum = 0, maximum = 100_000)]
    pub max: u32,
    /// Only the steps that this handler runs; all of the namespace when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// Why; kept with the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who; kept with the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Which limit of a namespace to remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WhichLimit {
    /// The one of this handler; that of the whole namespace when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
}

/// A limit on how many steps run at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitSummary {
    /// The namespace.
    pub namespace: String,
    /// `namespace`, `handler:NAME`, or of a template `step:TEMPLATE/STEP` or `key:KEY`.
    pub scope: String,
    /// How many may run at once.
    pub max: i32,
    /// How many run.
    pub used: i64,
    /// How many were set aside until one of them ends.
    pub waiting: i64,
    /// The operator who set it; absent for limits of templates.
    pub set_by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// When it was set.
    pub set_at: Option<DateTime<Utc>>,
}

/// All limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitList {
    /// By namespace and scope.
    pub limits: Vec<LimitSummary>,
}

/// A registered template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TemplateSummary {
    /// This version.
    pub template_id: TemplateId,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// For people.
    pub description: Option<String>,
    /// How many steps it has.
    pub steps: usize,
    /// When two submissions are the same task.
    pub identity_strategy: IdentityStrategy,
    /// SHA-256 of the normalized definition.
    pub checksum: String,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
}

/// A registered template, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TemplateDetail {
    /// What lists show.
    #[serde(flatten)]
    pub summary: TemplateSummary,
    /// The normalized definition.
    pub definition: Value,
    /// The text as it was registered.
    pub source: String,
}

/// All registered templates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TemplateList {
    /// By namespace, name and version.
    pub templates: Vec<TemplateSummary>,
}

/// Registers a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyTemplate {
    /// The YAML text.
    pub source: String,
    /// Where it came from, for messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// A template that is in order; it was not registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckedTemplate {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// How many steps it has.
    pub steps: usize,
    /// SHA-256 of the normalized definition.
    pub checksum: String,
}

/// What registering did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// The template.
    pub template: TemplateSummary,
    /// False when the same definition was registered already.
    pub changed: bool,
}

/// A worker process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerSummary {
    /// The process.
    pub worker_id: WorkerId,
    /// Its name.
    pub name: String,
    /// The namespaces it serves; `*` is every one.
    pub namespaces: Vec<String>,
    /// The handlers it has.
    pub handlers: Vec<String>,
    /// Its version.
    pub version: String,
    /// Whether its heartbeat is recent.
    pub live: bool,
    /// Steps it holds.
    pub running: i64,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it was heard of last.
    pub heartbeat_at: DateTime<Utc>,
}

/// All workers that are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerList {
    /// By name.
    pub workers: Vec<WorkerSummary>,
}

/// The health of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `healthy`, `draining` or `unhealthy`.
    pub status: String,
    /// `orchestration` or `worker`.
    pub service: String,
    /// The version of the program.
    pub version: String,
    /// Single checks; in the detailed answer only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<HealthCheck>,
    /// Circuit breakers; in the detailed answer only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breakers: Vec<Breaker>,
}

/// A circuit breaker of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Breaker {
    /// What it watches: `api_database`, `pgmq`, `task_readiness`, `ffi_completion` or `http_handler`.
    pub component: String,
    /// The host, where each has a breaker of its own; only those that fail are named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What it does.
    pub state: crate::breaker::State,
}

/// One part of a service's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthCheck {
    /// What was checked.
    pub component: String,
    /// Whether it is well.
    pub healthy: bool,
    /// What was found.
    pub message: String,
    /// How long the check took, in microseconds.
    pub duration_us: u64,
}
