//! What people see of tasks and steps: lists, one task whole, and the facts behind `explain`.

use super::{Error, Session, Stored};
use crate::{
    api::{StepDetail, TaskDetail, TaskFilter, TaskSummary},
    id::{CorrelationId, StepId, TaskId, TemplateId},
    queue::QueueName,
    step::{Failure, FailureKind, StepState},
    task::TaskState,
};
use chrono::{DateTime, Utc};
use serde::Deserialize as _;
use serde_json::Value;
use sqlx::QueryBuilder;

#[derive(sqlx::FromRow)]
struct SummaryRow {
    id: TaskId,
    namespace: String,
    name: String,
    version: String,
    state: TaskState,
    correlation_id: CorrelationId,
    priority: i16,
    tags: Vec<String>,
    steps_total: i64,
    steps_done: i64,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

impl From<SummaryRow> for TaskSummary {
    fn from(row: SummaryRow) -> Self {
        Self {
            task_id: row.id,
            namespace: row.namespace,
            name: row.name,
            version: row.version,
            state: row.state,
            correlation_id: row.correlation_id,
            priority: row.priority,
            tags: row.tags,
            steps_total: row.steps_total,
            steps_done: row.steps_done,
            created_at: row.created_at,
            finished_at: row.finished_at,
        }
    }
}

const SUMMARY: &str =
    "t.id, t.namespace, t.name, t.version, t.state, t.correlation_id, t.priority, t.tags, t.created_at,
    t.finished_at, n.total as steps_total, n.total - t.remaining_steps as steps_done";

/// Tasks that fit `filter`, the newest first, at most `limit`; of these namespaces alone, where some are given. Only what is
/// asked stands in the statement: a plan that is made for every question would use no index.
///
/// # Errors
/// [`Error::Statement`].
pub async fn list(
    session: &mut Session,
    filter: &TaskFilter,
    within: Option<&[String]>,
    limit: i64,
) -> Result<Vec<TaskSummary>, Error> {
    let mut sql =
        QueryBuilder::new(format!("-- list_tasks\nselect {SUMMARY} from (select * from tasker.tasks where true"));
    if let Some(state) = filter.state {
        sql.push(" and state = ").push_bind(state);
        if !state.is_final() {
            sql.push(" and finished_at is null");
        }
    }
    if let Some(namespace) = &filter.namespace {
        sql.push(" and namespace = ").push_bind(namespace);
    }
    if let Some(name) = &filter.name {
        sql.push(" and name = ").push_bind(name);
    }
    if let Some(tag) = &filter.tag {
        sql.push(" and tags @> array[").push_bind(tag).push("]");
    }
    if let Some(correlation_id) = filter.correlation_id {
        sql.push(" and correlation_id = ").push_bind(correlation_id);
    }
    if let Some(before) = filter.before {
        sql.push(" and id < ").push_bind(before);
    }
    if let Some(within) = within {
        sql.push(" and namespace = any (").push_bind(within).push(")");
    }
    sql.push(" order by id desc limit ").push_bind(limit);
    sql.push(
        ") t cross join lateral (select count(*) as total from tasker.steps where task_id = t.id) n
          order by t.id desc",
    );
    let rows: Vec<SummaryRow> = session.fetch("list_tasks", sql.build_query_as()).await?;
    Ok(rows.into_iter().map(TaskSummary::from).collect())
}

#[derive(sqlx::FromRow)]
struct DetailRow {
    #[sqlx(flatten)]
    summary: SummaryRow,
    template_id: TemplateId,
    #[sqlx(try_from = "Stored")]
    input: Value,
    run_at: Option<DateTime<Utc>>,
    started_at: Option<DateTime<Utc>>,
    error: Option<Stored>,
    idempotency_key: Option<String>,
    parent_correlation_id: Option<CorrelationId>,
    initiator: Option<String>,
    source_system: Option<String>,
    reason: Option<String>,
}

#[derive(sqlx::FromRow)]
struct StepRow {
    id: StepId,
    name: String,
    state: StepState,
    dependencies: Vec<String>,
    waiting_on: i32,
    attempt: i32,
    failures: i32,
    max_attempts: i32,
    result: Option<Stored>,
    error: Option<Stored>,
    progress: Option<Stored>,
    worker: Option<String>,
    retry_at: Option<DateTime<Utc>>,
    enqueued_at: Option<DateTime<Utc>>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

/// One task whole.
///
/// # Errors
/// [`Error::Statement`].
pub async fn detail(session: &mut Session, task: TaskId) -> Result<Option<TaskDetail>, Error> {
    let sql = format!(
        "-- read_task
         select {SUMMARY}, t.template_id, t.input, t.run_at, t.started_at, t.error, t.idempotency_key,
                t.parent_correlation_id, t.initiator, t.source_system, t.reason
           from tasker.tasks t
          cross join lateral (select count(*) as total from tasker.steps where task_id = t.id) n
          where t.id = $1"
    );
    let Some(row) = session.fetch_optional::<DetailRow>("read_task", sqlx::query_as(&sql).bind(task)).await? else {
        return Ok(None);
    };
    let query = sqlx::query_as(
        "-- read_steps
         select s.id, s.name, s.state, s.waiting_on, s.attempt, s.failures, s.max_attempts, s.result, s.error, s.progress,
                coalesce(w.name, s.worker_id::text) as worker, s.retry_at, s.enqueued_at, s.started_at, s.finished_at,
                array(select p.name from tasker.step_edges e join tasker.steps p on p.id = e.parent_id
                       where e.child_id = s.id order by p.position) as dependencies
           from tasker.steps s left join tasker.workers w on w.id = s.worker_id
          where s.task_id = $1 order by s.position",
    );
    let steps: Vec<StepRow> = session.fetch("read_steps", query.bind(task)).await?;
    Ok(Some(TaskDetail {
        summary: row.summary.into(),
        template_id: row.template_id,
        input: row.input,
        run_at: row.run_at,
        started_at: row.started_at,
        error: row.error.map(Value::from),
        idempotency_key: row.idempotency_key,
        parent_correlation_id: row.parent_correlation_id,
        initiator: row.initiator,
        source_system: row.source_system,
        reason: row.reason,
        dashboard_url: None,
        steps: steps.into_iter().map(step).collect(),
    }))
}

fn step(row: StepRow) -> StepDetail {
    StepDetail {
        step_id: row.id,
        name: row.name,
        state: row.state,
        dependencies: row.dependencies,
        waiting_on: row.waiting_on,
        attempt: row.attempt,
        failures: row.failures,
        max_attempts: row.max_attempts,
        result: row.result.map(Value::from),
        error: row.error.map(failure),
        progress: row.progress.map(Value::from),
        worker: row.worker,
        retry_at: row.retry_at,
        enqueued_at: row.enqueued_at,
        started_at: row.started_at,
        finished_at: row.finished_at,
    }
}

/// A failure as it is shown; one that cannot be read stands in the details.
fn failure(stored: Stored) -> Failure {
    let shown = Value::from(stored);
    Failure::deserialize(&shown).unwrap_or_else(|why| Failure {
        details: Some(shown),
        ..Failure::new(FailureKind::HandlerError, format!("its failure cannot be read: {why}"))
    })
}

/// A step's message on its queue.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Doorbell {
    /// The step.
    pub step_id: StepId,
    /// How many messages are read before it.
    pub ahead: i64,
    /// When it can be read (again); for a claimed step, when its lease ends.
    pub visible_at: DateTime<Utc>,
}

/// The messages of a task's steps, with their places in the queue.
///
/// # Errors
/// [`Error::Statement`].
pub async fn doorbells(session: &mut Session, namespace: &str, steps: &[StepId]) -> Result<Vec<Doorbell>, Error> {
    let table = QueueName::of_namespace(namespace).table();
    let sql = format!(
        "-- find_doorbells
         select (q.message->>'step_id')::uuid as step_id, q.vt as visible_at,
                (select count(*) from {table} o where o.vt < q.vt and o.vt <= clock_timestamp()) as ahead
           from {table} q where q.message->>'step_id' = any ($1)"
    );
    let ids: Vec<String> = steps.iter().map(ToString::to_string).collect();
    session.fetch("find_doorbells", sqlx::query_as(&sql).bind(ids)).await
}
