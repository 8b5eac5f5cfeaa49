//! What the repair sweep looks for: steps and tasks that stand still with nothing that would wake them.
//!
//! State and doorbell commit together, so this finds something only after a hand has deleted messages or timers.
//! Every statement is an enumeration of one state without its wake-up. What is parked as a dead letter stays parked.

use super::{Error, Session};
use crate::{
    id::TaskId,
    metrics::Label,
    queue::{QueueName, STEP_RESULTS, TASK_REQUESTS, traffic::Traffic},
};
use std::time::Duration;

/// Lets the statements below read whole tables, for the rest of the transaction: they look at everything that is open.
///
/// # Errors
/// [`Error::Statement`].
pub async fn prepare(session: &mut Session) -> Result<(), Error> {
    let query = sqlx::query(
        "-- plan_for_many_rows
         select set_config(s, 'on', true) from unnest(array['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin']) s",
    );
    session.execute("plan_for_many_rows", query).await.map(drop)
}

/// Tasks of a namespace with steps that are enqueued, or claimed with a lease, and have no message.
///
/// # Errors
/// [`Error::Statement`].
pub async fn without_message(
    session: &mut Session,
    namespace: &str,
    older: Duration,
    limit: i64,
) -> Result<Vec<TaskId>, Error> {
    let table = QueueName::of_namespace(namespace).table();
    let sql = format!(
        "-- find_steps_without_message
         with old as materialized (
             select s.id, s.task_id from tasker.tasks t join tasker.steps s on s.task_id = t.id
              where t.namespace = $1 and t.finished_at is null and s.state in ('enqueued', 'in_progress')
                and coalesce(greatest(s.enqueued_at, s.started_at), 'epoch') < clock_timestamp() - make_interval(secs => $2))
         select distinct old.task_id from old
          where not exists (select from {table} q where q.message->>'step_id' = old.id::text) limit $3"
    );
    let query = sqlx::query_as(&sql).bind(namespace).bind(older.as_secs_f64()).bind(limit);
    ids(session.fetch("find_steps_without_message", query).await?)
}

/// Open tasks that have begun, are limited in time and lack the timer for it. One that was reopened after its end has none.
const WITHOUT_DEADLINE: &str = "
    from tasker.tasks t join tasker.templates p on p.id = t.template_id
   where t.finished_at is null and t.state in ('in_progress', 'paused') and p.definition #>> '{lifecycle,max_duration_ms}' is not null
     and not exists (select from tasker.timers m where m.kind = 'deadline' and m.subject = t.id)
     and not exists (select from tasker.task_transitions h where h.task_id = t.id and h.from_state = 'error')";

/// Tasks with anything else that stands still: outcomes without their message, retries without a timer, steps that
/// wait for nothing, tasks without steps and without a request, running tasks in which nothing is active, and tasks that lack
/// their deadline.
///
/// # Errors
/// [`Error::Statement`].
pub async fn standing_still(session: &mut Session, older: Duration, limit: i64) -> Result<Vec<TaskId>, Error> {
    let sql = format!(
        "-- find_tasks_standing_still
         with limits as (select clock_timestamp() - make_interval(secs => $1) as before),
         suspect as (
             select s.task_id from limits, tasker.tasks t join tasker.steps s on s.task_id = t.id
              where t.finished_at is null and s.state = 'reported' and s.reported_at < limits.before
                and not exists (select from pgmq.q_{STEP_RESULTS} q where q.message->>'step_id' = s.id::text)
                and not exists (select from tasker.dead_letters d
                                 where d.step_id = s.id and d.queue = '{STEP_RESULTS}' and d.resolved_at is null)
             union
             select s.task_id from tasker.tasks t join tasker.steps s on s.task_id = t.id
              where t.finished_at is null and s.state = 'waiting_for_retry'
                and not exists (select from tasker.timers m where m.kind = 'retry' and m.subject = s.id)
             union
             select s.task_id from limits, tasker.tasks t join tasker.steps s on s.task_id = t.id
              where t.state = 'in_progress' and s.state = 'pending' and s.waiting_on = 0 and t.started_at < limits.before
             union
             select t.id from limits, tasker.tasks t
              where t.state = 'in_progress' and t.finished_at is null and t.started_at < limits.before
                and (t.remaining_steps = 0 or t.active_steps = 0)
             union
             select t.id from limits, tasker.tasks t
              where t.state = 'pending' and t.finished_at is null and t.created_at < limits.before
                and not exists (select from tasker.timers m where m.kind = 'start' and m.subject = t.id)
                and not exists (select from pgmq.q_{TASK_REQUESTS} q where q.message->>'task_id' = t.id::text)
                and not exists (select from tasker.dead_letters d
                                 where d.task_id = t.id and d.queue = '{TASK_REQUESTS}' and d.resolved_at is null))
         select task_id from suspect union select t.id {WITHOUT_DEADLINE} limit $2"
    );
    let query = sqlx::query_as(&sql).bind(older.as_secs_f64()).bind(limit);
    ids(session.fetch("find_tasks_standing_still", query).await?)
}

/// What was mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mended {
    /// Messages that were sent and timers that were made.
    pub all: u64,
    /// Of them, the messages of steps that were enqueued or claimed.
    pub steps: u64,
}

/// Sends the messages that the steps of a locked task lack, and makes the timers that they lack. A claimed step without
/// a message is enqueued again.
///
/// # Errors
/// [`Error::Statement`].
pub async fn mend(session: &mut Session, task: TaskId, namespace: &str, older: Duration) -> Result<Mended, Error> {
    let queue = QueueName::of_namespace(namespace);
    let table = queue.table();
    let reports = format!(
        "-- mend_reports
         insert into pgmq.q_{STEP_RESULTS} (vt, message)
         select clock_timestamp(), jsonb_build_object('task_id', s.task_id, 'step_id', s.id, 'attempt', s.attempt)
           from tasker.steps s
          where s.task_id = $1 and s.state = 'reported' and s.reported_at < clock_timestamp() - make_interval(secs => $2)
            and not exists (select from pgmq.q_{STEP_RESULTS} q where q.message->>'step_id' = s.id::text)
                and not exists (select from tasker.dead_letters d
                                 where d.step_id = s.id and d.queue = '{STEP_RESULTS}' and d.resolved_at is null)"
    );
    let timers = format!(
        "-- mend_timers
         insert into tasker.timers (kind, subject, task_id, due_at)
         select 'retry', s.id, s.task_id, case when t.state = 'paused' then 'infinity' else s.retry_at end
           from tasker.steps s join tasker.tasks t on t.id = s.task_id
          where s.task_id = $1 and s.state = 'waiting_for_retry'
         union all
         select 'start', t.id, t.id, t.run_at from tasker.tasks t
          where t.id = $1 and t.state = 'pending' and t.run_at > clock_timestamp()
            and not exists (select from pgmq.q_{TASK_REQUESTS} q where q.message->>'task_id' = t.id::text)
         union all
         select 'deadline', t.id, t.id,
                greatest(t.created_at, t.run_at) + make_interval(secs => (p.definition #>> '{{lifecycle,max_duration_ms}}')::bigint / 1000.0)
         {WITHOUT_DEADLINE} and t.id = $1
         on conflict do nothing"
    );
    let steps = format!(
        "-- mend_doorbells
         with lost as materialized (
             select s.id, s.task_id, s.state, s.attempt from tasker.steps s
              where s.task_id = $1 and s.state in ('enqueued', 'in_progress')
                and coalesce(greatest(s.enqueued_at, s.started_at), 'epoch') < clock_timestamp() - make_interval(secs => $2)
                and not exists (select from {table} q where q.message->>'step_id' = s.id::text)
              order by s.id for update),
         requeued as (
             update tasker.steps s set state = 'enqueued', enqueued_at = clock_timestamp(), stalls = s.stalls + 1 from lost where s.id = lost.id),
         permits as (delete from tasker.permits p using lost where p.step_id = lost.id),
         waits as (delete from tasker.permit_waits w using lost where w.step_id = lost.id),
         history as (
             insert into tasker.step_transitions (task_id, step_id, from_state, to_state, attempt, actor, reason)
             select task_id, id, state, 'enqueued', attempt, 'orchestration', 'its message was lost'
               from lost where state = 'in_progress')
         insert into {table} (vt, message)
         select clock_timestamp(), jsonb_build_object('task_id', task_id, 'step_id', id) from lost"
    );
    let requests = format!(
        "-- mend_request
         insert into pgmq.q_{TASK_REQUESTS} (vt, message)
         select clock_timestamp(), jsonb_build_object('task_id', t.id) from tasker.tasks t
          where t.id = $1 and t.state = 'pending'
            and not exists (select from tasker.timers m where m.kind = 'start' and m.subject = t.id)
            and not exists (select from pgmq.q_{TASK_REQUESTS} q where q.message->>'task_id' = t.id::text)
                and not exists (select from tasker.dead_letters d
                                 where d.task_id = t.id and d.queue = '{TASK_REQUESTS}' and d.resolved_at is null)"
    );
    let seconds = older.as_secs_f64();
    let began = std::time::SystemTime::now();
    let reports = session.execute("mend_reports", sqlx::query(&reports).bind(task).bind(seconds)).await?;
    let timers = session.execute("mend_timers", sqlx::query(&timers).bind(task)).await?;
    let steps = session.execute("mend_doorbells", sqlx::query(&steps).bind(task).bind(seconds)).await?;
    let requests = session.execute("mend_request", sqlx::query(&requests).bind(task)).await?;
    let queues: [(Label, u64); 3] =
        [(STEP_RESULTS.into(), reports), ((&queue).into(), steps), (TASK_REQUESTS.into(), requests)];
    for (queue, sent) in queues {
        session.passed(queue, Traffic { sent, ..Traffic::default() }, began);
    }
    Ok(Mended { all: reports + timers + steps + requests, steps })
}

fn ids(rows: Vec<(TaskId,)>) -> Result<Vec<TaskId>, Error> {
    Ok(rows.into_iter().map(|(id,)| id).collect())
}
