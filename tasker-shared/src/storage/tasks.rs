//! Table `tasks`: accepting, finding and ending tasks.

use super::{Error, Session, Stored};
use crate::{
    id::{CorrelationId, TaskId, TemplateId},
    name::Name,
    task::{Submission, TaskState},
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;

/// A task to be stored.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// Its id.
    pub id: TaskId,
    /// The definition it runs.
    pub template_id: TemplateId,
    /// The definition's version.
    pub version: String,
    /// What was asked for.
    pub submission: Submission,
}

/// Stores accepted tasks as `pending`; answers with those that are new. The others have the identity of a task that exists.
///
/// # Errors
/// [`Error::Statement`].
pub async fn insert(session: &mut Session, tasks: &[NewTask]) -> Result<Vec<TaskId>, Error> {
    let query = sqlx::query_as(
        "-- insert_tasks
         with asked as materialized (
             select a.*, t.namespace, t.name, t.version, tasker.identity_hash(t, a.idempotency_key, a.input) as identity
               from unnest($1::uuid[], $2::uuid[], $3::jsonb[], $4::smallint[], $5::jsonb[], $6::uuid[], $7::uuid[],
                                  $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::timestamptz[])
                    a (id, template_id, input, priority, tags, correlation_id, parent_correlation_id,
                       traceparent, idempotency_key, initiator, source_system, reason, run_at)
               join tasker.templates t on t.id = a.template_id),
         accepted as (
             insert into tasker.tasks (id, template_id, namespace, name, version, state, input, priority, tags, correlation_id,
                                       parent_correlation_id, traceparent, identity_hash, idempotency_key, initiator,
                                       source_system, reason, run_at)
             select a.id, a.template_id, a.namespace, a.name, a.version, 'pending', a.input, a.priority,
                    array(select jsonb_array_elements_text(a.tags)), a.correlation_id, a.parent_correlation_id,
                    a.traceparent, a.identity, a.idempotency_key, a.initiator, a.source_system, a.reason, a.run_at
               from asked a
              -- two submissions with the same identities wait for each other in one order only
              order by a.identity, a.id
             on conflict (identity_hash) where identity_hash is not null do nothing
             returning id, initiator, reason, run_at),
         history as (
             insert into tasker.task_transitions (task_id, to_state, actor, reason)
             select id, 'pending', coalesce('submitter:' || initiator, 'orchestration'), reason from accepted),
         timer as (
             insert into tasker.timers (kind, subject, task_id, due_at)
             select 'start', id, id, run_at from accepted where run_at is not null)
         select id from accepted",
    )
    .bind(tasks.iter().map(|t| t.id).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| t.template_id).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| &t.submission.input).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| t.submission.priority).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| Json(&t.submission.tags)).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| t.submission.correlation_id).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| t.submission.parent_correlation_id).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| t.submission.traceparent.as_deref()).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| t.submission.idempotency_key.as_deref()).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| t.submission.initiator.as_deref()).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| t.submission.source_system.as_deref()).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| t.submission.reason.as_deref()).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| t.submission.run_at).collect::<Vec<_>>());
    let rows: Vec<(TaskId,)> = session.fetch("insert_tasks", query).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// A task that a submission turned out to be.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Existing {
    /// The place in the question, from 1.
    pub question: i64,
    /// The task.
    pub id: TaskId,
    /// Of the task.
    pub correlation_id: CorrelationId,
    /// Where it stands.
    pub state: TaskState,
    /// Whether it has the input of the question.
    pub same_input: bool,
}

/// The tasks with the identities of these submissions.
///
/// # Errors
/// [`Error::Statement`].
pub async fn existing(session: &mut Session, tasks: &[&NewTask]) -> Result<Vec<Existing>, Error> {
    let query = sqlx::query_as(
        "-- find_existing_tasks
         select a.question, t.id, t.correlation_id, t.state, t.input = a.input as same_input
           from unnest($1::uuid[], $2::text[], $3::jsonb[]) with ordinality a (template_id, idempotency_key, input, question)
           join tasker.templates p on p.id = a.template_id
           join tasker.tasks t on t.identity_hash = tasker.identity_hash(p, a.idempotency_key, a.input)",
    )
    .bind(tasks.iter().map(|t| t.template_id).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| t.submission.idempotency_key.as_deref()).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| &t.submission.input).collect::<Vec<_>>());
    session.fetch("find_existing_tasks", query).await
}

/// A task whose steps are to be made; its row is locked.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Pending {
    /// The task.
    pub id: TaskId,
    /// The definition it runs.
    pub template_id: TemplateId,
    /// Of the template.
    pub namespace: Name,
    /// The task type.
    pub name: Name,
    /// What it was submitted with.
    pub input: Stored,
    /// Higher goes first.
    pub priority: i16,
    /// Of the task.
    pub correlation_id: CorrelationId,
    /// The caller's trace context.
    pub traceparent: Option<String>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it is to start, where that is still to come.
    pub starts_at: Option<DateTime<Utc>>,
}

/// Locks those of these tasks that are pending, in id order.
///
/// # Errors
/// [`Error::Statement`].
pub async fn lock_pending(session: &mut Session, ids: &[TaskId]) -> Result<Vec<Pending>, Error> {
    let query = sqlx::query_as(
        "-- lock_pending_tasks
         select id, template_id, namespace, name, input, priority, correlation_id, traceparent, created_at,
                case when run_at > clock_timestamp() then run_at end as starts_at
           from tasker.tasks where id = any ($1) and state = 'pending' order by id for no key update",
    );
    session.fetch("lock_pending_tasks", query.bind(ids)).await
}

/// A task that ends.
#[derive(Debug, Clone)]
pub struct Ending {
    /// The task.
    pub id: TaskId,
    /// Where it stands.
    pub from: TaskState,
    /// Its final state.
    pub to: TaskState,
    /// Why it failed.
    pub error: Option<Value>,
}

/// A task that ended.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Ended {
    /// The task.
    pub id: TaskId,
    /// Its final state.
    pub state: TaskState,
    /// Of the template.
    pub namespace: Name,
    /// The task type.
    pub name: Name,
    /// Of the task.
    pub correlation_id: CorrelationId,
    /// The caller's trace context.
    pub traceparent: Option<String>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
}

/// Brings tasks to their final state; their timers are deleted. Answers with those that were where they were said to be.
///
/// # Errors
/// [`Error::Statement`].
pub async fn finalize(session: &mut Session, endings: &[Ending], actor: &str) -> Result<Vec<Ended>, Error> {
    let query = sqlx::query_as(
        "-- finalize_tasks
         with ending as (select * from unnest($1::uuid[], $2::text[], $3::text[], $4::jsonb[]) e (id, from_state, to_state, error)),
         ended as (
             update tasker.tasks t set state = e.to_state, error = e.error, finished_at = clock_timestamp()
               from ending e where t.id = e.id and t.state = e.from_state
             returning t.id, t.state, t.namespace, t.name, t.correlation_id, t.traceparent, t.created_at, t.finished_at,
                       e.from_state, e.error),
         timer as (delete from tasker.timers m using ended e where m.task_id = e.id),
         history as (
             insert into tasker.task_transitions (task_id, from_state, to_state, actor, reason)
             select id, from_state, state, $5, error->>'message' from ended)
         select id, state, namespace, name, correlation_id, traceparent, created_at, finished_at from ended",
    )
    .bind(endings.iter().map(|e| e.id).collect::<Vec<_>>())
    .bind(endings.iter().map(|e| e.from).collect::<Vec<_>>())
    .bind(endings.iter().map(|e| e.to).collect::<Vec<_>>())
    .bind(endings.iter().map(|e| e.error.as_ref().map(Json)).collect::<Vec<_>>())
    .bind(actor);
    session.fetch("finalize_tasks", query).await
}

/// Of these tasks, those that have ended.
///
/// # Errors
/// [`Error::Statement`].
pub async fn ended(session: &mut Session, ids: &[TaskId]) -> Result<Vec<TaskId>, Error> {
    let query = sqlx::query_as(
        "-- find_ended_tasks\nselect id from tasker.tasks where id = any ($1) and finished_at is not null",
    );
    let rows: Vec<(TaskId,)> = session.fetch("find_ended_tasks", query.bind(ids)).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// The steps of a task that failed or were stopped, as a task's error tells of them.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct FailedStep {
    /// The task.
    pub task_id: TaskId,
    /// The step.
    pub name: Name,
    /// What it said.
    pub message: Option<String>,
}

/// What stands behind the failures of these tasks.
///
/// # Errors
/// [`Error::Statement`].
pub async fn failed_steps(session: &mut Session, ids: &[TaskId]) -> Result<Vec<FailedStep>, Error> {
    let query = sqlx::query_as(
        "-- list_failed_steps
         select task_id, name, error->>'message' as message from tasker.steps
          where task_id = any ($1) and state in ('error', 'cancelled') order by task_id, position",
    );
    session.fetch("list_failed_steps", query.bind(ids)).await
}

/// The namespace of a task, if there is one.
///
/// # Errors
/// [`Error::Statement`].
pub async fn namespace(session: &mut Session, task: TaskId) -> Result<Option<String>, Error> {
    let query = sqlx::query_as("-- find_namespace\nselect namespace from tasker.tasks where id = $1");
    let row: Option<(String,)> = session.fetch_optional("find_namespace", query.bind(task)).await?;
    Ok(row.map(|(namespace,)| namespace))
}

/// The database's clock.
///
/// # Errors
/// [`Error::Statement`].
pub async fn now(session: &mut Session) -> Result<DateTime<Utc>, Error> {
    let row: Option<(DateTime<Utc>,)> =
        session.fetch_optional("read_clock", sqlx::query_as("-- read_clock\nselect clock_timestamp()")).await?;
    row.map(|(now,)| now).ok_or_else(|| Error::Inconsistent {
        table: "pg_catalog",
        column: "clock_timestamp",
        row: "1".to_owned(),
        reason: "no answer".to_owned(),
    })
}
