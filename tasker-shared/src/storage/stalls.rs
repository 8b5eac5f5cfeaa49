//! Steps that stand still: what runs on past its time, what nobody took after its lease, what waits too long.

use super::{Error, Session};
use crate::{
    id::{StepId, TaskId},
    queue::{self, QueueName},
    step::{Edge, StepEvent, StepState},
};
use std::time::Duration;

const FAIL: Edge = Edge::of(StepState::Reported, StepEvent::Fail);
const RELEASE: Edge = Edge::of(StepState::InProgress, StepEvent::Release);

/// A step that was enqueued again because it stood still.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Requeued {
    /// The step.
    pub step_id: StepId,
    /// Its task.
    pub task_id: TaskId,
    /// Its name.
    pub name: String,
    /// The attempt that stood still.
    pub attempt: i32,
    /// How often it stood still so far.
    pub stalls: i32,
    /// Whether its lease was extended to the last, although its time was over.
    pub is_overrun: bool,
    /// Why, as it stands in the history.
    pub reason: String,
}

/// Enqueues claimed steps of a namespace again that stand still: their lease ran out `older` ago and nobody took them, or
/// they run on `older` past their own timeout while their worker extends the lease. The attempt that stood still can report
/// nothing any more.
///
/// # Errors
/// [`Error::Statement`].
pub async fn requeue(
    session: &mut Session,
    namespace: &str,
    older: Duration,
    limit: i64,
) -> Result<Vec<Requeued>, Error> {
    let table = QueueName::of_namespace(namespace).table();
    let sql = format!(
        "-- requeue_stalled_steps
         with suspect as materialized (
             select s.id, s.attempt, s.timeout_ms,
                    s.started_at + make_interval(secs => s.timeout_ms / 1000.0 + $2) < clock_timestamp() as is_overrun
               from tasker.tasks t join tasker.steps s on s.task_id = t.id
              where t.namespace = $1 and t.finished_at is null and s.state = '{from}'
                and s.started_at < clock_timestamp() - make_interval(secs => $2)),
         -- a claim locks the message before the step, and so does this
         message as materialized (
             select q.msg_id, q.vt, s.* from suspect s join {table} q on q.message->>'step_id' = s.id::text
              where q.read_ct > 0
                and (s.is_overrun and q.vt > clock_timestamp()
                     -- what was moved to the front ran out that much later
                     or q.vt <= clock_timestamp()
                        -- one that runs by another message is well
                        and not exists (select from {table} o where o.message->>'step_id' = s.id::text and o.vt > clock_timestamp())
                        and clock_timestamp() - make_interval(secs => $2)
                        >= case when q.vt < clock_timestamp() - interval '{half} seconds' then q.vt + interval '{first} seconds' else q.vt end)
              limit $3 for update of q skip locked),
         stalled as (
             update tasker.steps s set state = '{to}', enqueued_at = clock_timestamp(), stalls = s.stalls + 1
               from (select distinct on (id) * from message order by id, msg_id) m where s.id = m.id and s.state = '{from}' and s.attempt = m.attempt
             returning s.id as step_id, s.task_id, s.name, s.attempt, s.stalls, m.msg_id, m.vt > clock_timestamp() as is_overrun,
                       case when m.vt > clock_timestamp()
                            then 'stalled: it ran on past its timeout of ' || m.timeout_ms / 1000.0 || ' s'
                            else 'stalled: its lease ran out and nobody took it'
                       end as reason),
         -- before all others, as any step whose lease ran out
         freed as (
             update {table} q set vt = clock_timestamp() - interval '{first} seconds' from stalled s where q.msg_id = s.msg_id),
         permits as (delete from tasker.permits p using stalled s where p.step_id = s.step_id),
         history as (
             insert into tasker.step_transitions (task_id, step_id, from_state, to_state, attempt, actor, reason)
             select task_id, step_id, '{from}', '{to}', attempt, 'orchestration', reason from stalled)
         select step_id, task_id, name, attempt, stalls, is_overrun, reason from stalled",
        from = RELEASE.from,
        to = RELEASE.to,
        first = queue::LONGEST_HEAD_START_SECONDS,
        half = queue::LONGEST_HEAD_START_SECONDS / 2,
    );
    let query = sqlx::query_as(&sql).bind(namespace).bind(older.as_secs_f64()).bind(limit);
    session.fetch("requeue_stalled_steps", query).await
}

/// A step that is to be taken off the line.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Overdue {
    /// The step.
    pub step_id: StepId,
    /// Its task.
    pub task_id: TaskId,
    /// Its name.
    pub name: String,
    /// How often it stood still.
    pub stalls: i32,
    /// The limit on its time on the queue that it passed, in milliseconds; none for one that stood still too often.
    pub max_queued_ms: Option<i64>,
}

/// Steps of a namespace that stood still more than `max_stalls` times, or wait on their queue longer than their template
/// allows; those of a paused task may wait.
///
/// # Errors
/// [`Error::Statement`].
pub async fn overdue(
    session: &mut Session,
    namespace: &str,
    max_stalls: i32,
    limit: i64,
) -> Result<Vec<Overdue>, Error> {
    let query = sqlx::query_as(
        "-- find_overdue_steps
         select s.id as step_id, s.task_id, s.name, s.stalls, case when s.stalls <= $2 then p.max_queued_ms end as max_queued_ms
           from tasker.tasks t join tasker.steps s on s.task_id = t.id join tasker.templates p on p.id = t.template_id
          where t.namespace = $1 and t.finished_at is null
            and (s.state in ('enqueued', 'in_progress') and s.stalls > $2
                 or s.state = 'enqueued' and t.state <> 'paused' and s.enqueued_at < clock_timestamp() - make_interval(secs => p.max_queued_ms / 1000.0))
          order by s.task_id limit $3",
    );
    session.fetch("find_overdue_steps", query.bind(namespace).bind(max_stalls).bind(limit)).await
}

/// How many failures of a task's steps were tried again: the retries that it has used. The failure that was final is none.
///
/// # Errors
/// [`Error::Statement`].
pub async fn retries_used(session: &mut Session, tasks: &[TaskId]) -> Result<Vec<(TaskId, i64)>, Error> {
    let sql = format!(
        "-- count_retries
         with final as materialized (
             select task_id, step_id, attempt from tasker.step_transitions
              where task_id = any ($1) and from_state = '{from}' and to_state = '{to}' and actor = 'orchestration')
         select s.task_id, sum(case when s.failures > 0 and exists (
                    select from final f where f.step_id = s.id and f.attempt = s.attempt
                       and not coalesce((s.error->>'not_tried')::boolean, false)) then s.failures - 1 else s.failures end)::bigint
           from tasker.steps s where s.task_id = any ($1) group by s.task_id",
        from = FAIL.from,
        to = FAIL.to,
    );
    session.fetch("count_retries", sqlx::query_as(&sql).bind(tasks)).await
}
