//! Table `timers`: what is due later, and what happens when it is.

use super::{Error, Session};
use crate::{
    id::{CorrelationId, StepId, TaskId},
    name::Name,
    step::{Edge, StepEvent, StepState},
    task::TaskState,
};
use chrono::{DateTime, Utc};
use sqlx::types::Uuid;
use std::time::Duration;

const DUE: Edge = Edge::of(StepState::WaitingForRetry, StepEvent::Due);

/// A timer that is due; its task's row is locked and the timer is deleted.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Due {
    /// `start`, `retry` or `deadline`.
    pub kind: String,
    /// The task, or for a retry the step.
    pub subject: Uuid,
    /// The task.
    pub task_id: TaskId,
    /// Of the task.
    pub namespace: Name,
    /// Where the task stands.
    pub task_state: TaskState,
}

/// Takes up to `limit` timers that are due, and what else is due of their tasks, and locks these tasks. Tasks that somebody else
/// holds are left for the next turn.
///
/// # Errors
/// [`Error::Statement`].
pub async fn take_due(session: &mut Session, limit: i64) -> Result<Vec<Due>, Error> {
    let query = sqlx::query_as(
        "-- take_due_timers
         with free as materialized (
             select t.id, t.state, t.namespace from tasker.timers m join tasker.tasks t on t.id = m.task_id
              where m.due_at <= statement_timestamp()
              order by m.due_at limit $1 for no key update of t skip locked),
         locked as materialized (select distinct id, state, namespace from free),
         due as (
             delete from tasker.timers m using locked l
              where m.task_id = l.id and m.due_at <= statement_timestamp()
             returning m.kind, m.subject, m.task_id, l.namespace, l.state as task_state)
         select * from due",
    );
    session.fetch("take_due_timers", query.bind(limit)).await
}

/// How long it is until the next timer is due; nothing when none is set.
///
/// # Errors
/// [`Error::Statement`].
pub async fn next_due(session: &mut Session) -> Result<Option<Duration>, Error> {
    let query = sqlx::query_as(
        "-- next_timer
         select extract(epoch from due_at - clock_timestamp())::double precision from tasker.timers
          where due_at < 'infinity' order by due_at limit 1",
    );
    let row: Option<(f64,)> = session.fetch_optional("next_timer", query).await?;
    Ok(row.map(|(seconds,)| Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))))
}

/// Sets the timers of delayed tasks, and answers with these tasks; a timer that is set stays.
///
/// # Errors
/// [`Error::Statement`].
pub async fn set_starts(session: &mut Session, tasks: &[(TaskId, DateTime<Utc>)]) -> Result<Vec<TaskId>, Error> {
    let query = sqlx::query_as(
        "-- set_start_timers
         insert into tasker.timers (kind, subject, task_id, due_at)
         select 'start', t.id, t.id, t.due_at from unnest($1::uuid[], $2::timestamptz[]) t (id, due_at)
         on conflict do nothing
         returning task_id",
    )
    .bind(tasks.iter().map(|t| t.0).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| t.1).collect::<Vec<_>>());
    let set: Vec<(TaskId,)> = session.fetch("set_start_timers", query).await?;
    Ok(set.into_iter().map(|(task,)| task).collect())
}

/// A step that is enqueued anew, with what its doorbell says.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Retried {
    /// The step.
    pub step_id: StepId,
    /// Its name.
    pub name: Name,
    /// Its attempt so far.
    pub attempt: i32,
    /// The task.
    pub task_id: TaskId,
    /// Of the task.
    pub namespace: Name,
    /// The task type.
    pub task_name: Name,
    /// Of the task.
    pub priority: i16,
    /// Of the task.
    pub correlation_id: CorrelationId,
    /// The caller's trace context.
    pub traceparent: Option<String>,
}

/// Enqueues steps whose back-off is over. Their tasks are locked.
///
/// # Errors
/// [`Error::Statement`].
pub async fn enqueue_retries(session: &mut Session, steps: &[StepId]) -> Result<Vec<Retried>, Error> {
    let sql = format!(
        "-- enqueue_retries
         with retried as (
             update tasker.steps s set state = '{to}', retry_at = null, enqueued_at = clock_timestamp()
               from tasker.tasks t
              where s.id = any ($1) and s.state = '{from}' and t.id = s.task_id and t.state = 'in_progress'
             returning s.id as step_id, s.name, s.attempt, s.task_id, t.namespace, t.name as task_name, t.priority, t.correlation_id, t.traceparent),
         history as (
             insert into tasker.step_transitions (task_id, step_id, from_state, to_state, attempt, actor)
             select task_id, step_id, '{from}', '{to}', attempt, 'orchestration' from retried)
         select * from retried",
        from = DUE.from,
        to = DUE.to,
    );
    session.fetch("enqueue_retries", sqlx::query_as(&sql).bind(steps)).await
}
