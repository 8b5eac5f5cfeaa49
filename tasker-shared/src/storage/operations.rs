//! What operators do to one task by hand. Every statement here works on a task whose row is locked by [`lock`].

use super::{Error, Session, reports::Counts};
use crate::{
    id::{CorrelationId, StepId, TaskId, TemplateId},
    name::Name,
    queue::{
        HEAD_START_SECONDS, LONGEST_HEAD_START_SECONDS, LOWEST_PRIORITY, QueueName,
        traffic::{Door, Traffic},
    },
    step::{Failure, StepState},
    task::TaskState,
};
use serde_json::Value;
use sqlx::types::Json;

/// A task whose row is locked.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Locked {
    /// The task.
    pub id: TaskId,
    /// Where it stands.
    pub state: TaskState,
    /// The definition it runs.
    pub template_id: TemplateId,
    /// Whose overrides apply.
    pub environment: String,
    /// Of the template.
    pub namespace: Name,
    /// The task type.
    pub name: Name,
    /// Higher goes first.
    pub priority: i16,
    /// Of the task.
    pub correlation_id: CorrelationId,
    /// The caller's trace context.
    pub traceparent: Option<String>,
}

/// Locks a task.
///
/// # Errors
/// [`Error::Statement`].
pub async fn lock(session: &mut Session, task: TaskId) -> Result<Option<Locked>, Error> {
    let query = sqlx::query_as(
        "-- lock_task
         select id, state, template_id, environment, namespace, name, priority, correlation_id, traceparent
           from tasker.tasks where id = $1 for update",
    );
    session.fetch_optional("lock_task", query.bind(task)).await
}

/// Moves a task between states that are not final, or out of `error`; answers whether it was where it was said to be.
///
/// # Errors
/// [`Error::Statement`].
pub async fn move_task(
    session: &mut Session,
    task: TaskId,
    from: TaskState,
    to: TaskState,
    actor: &str,
    reason: Option<&str>,
) -> Result<bool, Error> {
    let query = sqlx::query(
        "-- move_task
         with moved as (
             update tasker.tasks set state = $3, finished_at = null, error = null where id = $1 and state = $2 returning id)
         insert into tasker.task_transitions (task_id, from_state, to_state, actor, reason)
         select id, $2, $3, $4, $5 from moved",
    )
    .bind(task)
    .bind(from)
    .bind(to)
    .bind(actor)
    .bind(reason);
    session.execute("move_task", query).await.map(|rows| rows > 0)
}

/// A step that was moved.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Moved {
    /// The step.
    pub step_id: StepId,
    /// Its name.
    pub name: Name,
    /// Where it stood.
    pub from_state: StepState,
}

/// Moves those of a task's steps that are in one of the states `from` (and of this name, when one is given) to `to`.
///
/// # Errors
/// [`Error::Statement`].
#[expect(clippy::too_many_arguments, reason = "one statement, each argument one of its parameters")]
pub async fn move_steps(
    session: &mut Session,
    task: TaskId,
    name: Option<&str>,
    from: &[StepState],
    to: StepState,
    result: Option<&Value>,
    actor: &str,
    reason: Option<&str>,
) -> Result<Vec<Moved>, Error> {
    let query = sqlx::query_as(
        "-- move_steps
         with old as materialized (
             select id, state from tasker.steps
              where task_id = $1 and ($2::text is null or name = $2) and state = any ($3) order by id for update),
         moved as (
             update tasker.steps s
                set state = $4, retry_at = null, result = coalesce($5, s.result),
                    failures = case when $4 = 'enqueued' then 0 else s.failures end,
                    stalls = case when $4 = 'enqueued' then 0 else s.stalls end,
                    missing_since = case when $4 = 'enqueued' then null else s.missing_since end,
                    enqueued_at = case when $4 = 'enqueued' then clock_timestamp() else s.enqueued_at end,
                    finished_at = case when $6 then clock_timestamp() end
               from old where s.id = old.id
             returning s.id as step_id, s.task_id, s.name, s.attempt, old.state as from_state),
         timer as (delete from tasker.timers m using moved where m.kind = 'retry' and m.subject = moved.step_id),
         permits as (delete from tasker.permits p using moved where p.step_id = moved.step_id),
         history as (
             insert into tasker.step_transitions (task_id, step_id, from_state, to_state, attempt, actor, reason)
             select task_id, step_id, from_state, $4, attempt, $7, $8 from moved)
         select step_id, name, from_state from moved",
    )
    .bind(task)
    .bind(name)
    .bind(from)
    .bind(to)
    .bind(result)
    .bind(to.is_final())
    .bind(actor)
    .bind(reason);
    session.fetch("move_steps", query).await
}

/// Deletes the messages of steps that have ended and were enqueued, given back or mended, and not claimed since: it looks where these
/// stand in their queue. What it does not find stays until somebody claims it and finds that it asks for nothing any more.
///
/// # Errors
/// [`Error::Statement`].
pub async fn delete_messages(session: &mut Session, queue: &QueueName, steps: &[StepId]) -> Result<u64, Error> {
    let sql = format!(
        "-- delete_messages_of_steps
         -- steps that were enqueued within a second are looked for together
         with place as materialized (
             select distinct date_trunc('second', s.enqueued_at - v.head_start) as vt
               from tasker.steps s join tasker.tasks t on t.id = s.task_id
              cross join lateral (values ((t.priority - {LOWEST_PRIORITY}) * interval '{HEAD_START_SECONDS} seconds'),
                                         (interval '{LONGEST_HEAD_START_SECONDS} seconds'), (interval '0')) v (head_start)
              where s.id = any ($1) and s.enqueued_at is not null),
         found as materialized (
             select n.msg_id from place p cross join lateral (
                    select q.msg_id, q.message from {table} q
                     where q.vt >= p.vt and q.vt < p.vt + interval '2 seconds' and q.vt <= statement_timestamp() offset 0) n
              where n.message->>'step_id' = any ($1::uuid[]::text[])),
         -- who holds steps waits for no message
         free as materialized (
             select q.msg_id from {table} q
              where q.msg_id in (select msg_id from found) and q.vt <= statement_timestamp() for update skip locked)
         delete from {table} q using free where q.msg_id = free.msg_id",
        table = queue.table(),
    );
    let door = Door::of(queue);
    let deleted = session.execute("delete_messages_of_steps", sqlx::query(&sql).bind(steps)).await;
    door.close(session, deleted, |deleted| Traffic { deleted: *deleted, ..Traffic::default() })
}

/// Stores why a step fails.
///
/// # Errors
/// [`Error::Statement`].
pub async fn set_error(session: &mut Session, step: StepId, failure: &Failure) -> Result<(), Error> {
    let query = sqlx::query("-- set_error\nupdate tasker.steps set error = $2, outcome = 'error' where id = $1");
    session.execute("set_error", query.bind(step).bind(Json(failure))).await.map(drop)
}

/// Tells the dependents of a step that still wait that they need not wait for it any more.
///
/// # Errors
/// [`Error::Statement`].
pub async fn free_dependents(session: &mut Session, step: StepId) -> Result<u64, Error> {
    let query = sqlx::query(
        "-- free_dependents
         update tasker.steps c set waiting_on = c.waiting_on - 1
           from tasker.step_edges e where e.parent_id = $1 and c.id = e.child_id and c.state = 'pending'",
    );
    session.execute("free_dependents", query.bind(step)).await
}

/// Counts a task's steps anew.
///
/// # Errors
/// [`Error::Statement`].
pub async fn recount(session: &mut Session, task: TaskId) -> Result<Option<Counts>, Error> {
    let query = sqlx::query_as(
        "-- recount_steps
         update tasker.tasks t set remaining_steps = n.remaining, active_steps = n.active
           from (select count(*) filter (where state not in ('complete', 'skipped', 'resolved_manually'))::integer as remaining,
                        count(*) filter (where state in ('enqueued', 'in_progress', 'reported', 'waiting_for_retry')
                                            or state = 'pending' and waiting_on = 0)::integer as active
                   from tasker.steps where task_id = $1) n
          where t.id = $1
         returning t.id as task_id, t.remaining_steps as remaining, t.active_steps as active",
    );
    session.fetch_optional("recount_steps", query.bind(task)).await
}

/// Whether a pending task waits for its start. One that does not was submitted by SQL, and its message is still to be
/// taken: nobody has heard of it.
///
/// # Errors
/// [`Error::Statement`].
pub async fn is_known(session: &mut Session, task: TaskId) -> Result<bool, Error> {
    let query = sqlx::query_as(
        "-- is_task_known
         select exists (select from tasker.timers where kind = 'start' and subject = $1)",
    );
    let found: Option<(bool,)> = session.fetch_optional("is_task_known", query.bind(task)).await?;
    Ok(found.is_some_and(|(known,)| known))
}

/// Holds the retry timers of a task that is paused.
///
/// # Errors
/// [`Error::Statement`].
pub async fn hold_timers(session: &mut Session, task: TaskId) -> Result<(), Error> {
    let query = sqlx::query(
        "-- hold_timers\nupdate tasker.timers set due_at = 'infinity' where task_id = $1 and kind = 'retry'",
    );
    session.execute("hold_timers", query.bind(task)).await.map(drop)
}

/// Lets the retry timers of a task go on: each is due when its step's back-off is over.
///
/// # Errors
/// [`Error::Statement`].
pub async fn resume_timers(session: &mut Session, task: TaskId) -> Result<(), Error> {
    let query = sqlx::query(
        "-- resume_timers
         update tasker.timers m set due_at = s.retry_at from tasker.steps s
          where m.task_id = $1 and m.kind = 'retry' and s.id = m.subject and s.retry_at is not null",
    );
    session.execute("resume_timers", query.bind(task)).await.map(drop)
}

/// Lets the steps of a task that goes on wait on their queue from now on: the time of the pause does not count.
///
/// # Errors
/// [`Error::Statement`].
pub async fn resume_waits(session: &mut Session, task: TaskId) -> Result<(), Error> {
    let query = sqlx::query(
        "-- resume_waits
         with waiting as materialized (
             select id from tasker.steps where task_id = $1 and state = 'enqueued' order by id for no key update)
         update tasker.steps s set enqueued_at = clock_timestamp() from waiting w where s.id = w.id",
    );
    session.execute("resume_waits", query.bind(task)).await.map(drop)
}

/// A step as it stands.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Standing {
    /// The step.
    pub id: StepId,
    /// Its name.
    pub name: Name,
    /// Where it stands.
    pub state: StepState,
    /// How often it was claimed.
    pub attempt: i32,
}

/// The state of a step, which nobody else moves until the end of the transaction.
///
/// # Errors
/// [`Error::Statement`].
pub async fn hold_step(session: &mut Session, step: StepId) -> Result<Option<StepState>, Error> {
    let query = sqlx::query_as("-- hold_step\nselect state from tasker.steps where id = $1 for update").bind(step);
    session.fetch_optional("hold_step", query).await.map(|row: Option<(StepState,)>| row.map(|(state,)| state))
}

/// Holds those steps of several tasks that are in one of these states, in the order of their ids as whoever claims and reports
/// does.
///
/// # Errors
/// [`Error::Statement`].
pub async fn hold_steps(session: &mut Session, tasks: &[TaskId], states: &[StepState]) -> Result<u64, Error> {
    let query = sqlx::query(
        "-- hold_steps\nselect from tasker.steps where task_id = any ($1) and state = any ($2) order by id for update",
    );
    session.execute("hold_steps", query.bind(tasks).bind(states)).await
}

/// The steps of a task, in the order of the template.
///
/// # Errors
/// [`Error::Statement`].
pub async fn steps(session: &mut Session, task: TaskId) -> Result<Vec<Standing>, Error> {
    let query = sqlx::query_as(
        "-- list_steps\nselect id, name, state, attempt from tasker.steps where task_id = $1 order by position",
    );
    session.fetch("list_steps", query.bind(task)).await
}
