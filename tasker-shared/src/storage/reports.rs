//! Stations *report* and *process*: an outcome is stored, and then it is dealt with.

use super::{Error, Session};
use crate::{
    id::{CorrelationId, StepId, TaskId, TemplateId, WorkerId},
    name::Name,
    queue::{
        QueueName, STEP_RESULTS,
        traffic::{Door, Traffic},
    },
    step::{Edge, Failure, ResultType, StepEvent, StepState, Verdict},
    task::TaskState,
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;
use std::time::Duration;

const REPORT: Edge = Edge::of(StepState::InProgress, StepEvent::Report);
const COMPLETE: Edge = Edge::of(StepState::Reported, StepEvent::Complete);
const RETRY: Edge = Edge::of(StepState::Reported, StepEvent::Retry);
const FAIL: Edge = Edge::of(StepState::Reported, StepEvent::Fail);
const ENQUEUE: Edge = Edge::of(StepState::Pending, StepEvent::Enqueue);

/// The outcome of a run, ready to be stored.
#[derive(Debug, Clone)]
pub struct Report {
    /// The message that is the lease.
    pub msg_id: i64,
    /// The step.
    pub step_id: StepId,
    /// The fence.
    pub attempt: i32,
    /// The outcome as it is counted.
    pub outcome: ResultType,
    /// What the handler returned.
    pub result: Option<Value>,
    /// How it failed.
    pub error: Option<Failure>,
}

/// Stores outcomes, deletes the leases, and rings for *process*. Answers with the steps whose report was accepted:
/// one that is missing had lost its lease, or was stopped.
///
/// # Errors
/// [`Error::Statement`].
pub async fn store(
    session: &mut Session,
    queue: &QueueName,
    reports: &[Report],
    worker: WorkerId,
) -> Result<Vec<StepId>, Error> {
    let sql = format!(
        "-- report_steps
         with report as materialized (
             select * from unnest($1::bigint[], $2::uuid[], $3::integer[], $4::text[], $5::jsonb[], $6::jsonb[])
                           r (msg_id, step_id, attempt, outcome, result, error) order by step_id),
         -- messages before steps, each in the order of their ids: whoever meets here waits, and none waits for another in turn
         lease as materialized (
             select q.msg_id from {table} q where q.msg_id = any ($1) order by q.msg_id for update),
         reported as (
             update tasker.steps s
                set state = '{to}', outcome = r.outcome, result = r.result, error = r.error, reported_at = clock_timestamp()
               from (select count(*) from lease) locked, report r
              where s.id = r.step_id and s.state = '{from}' and s.attempt = r.attempt
             returning s.id as step_id, s.task_id, s.attempt, r.msg_id),
         history as (
             insert into tasker.step_transitions (task_id, step_id, from_state, to_state, attempt, actor)
             select task_id, step_id, '{from}', '{to}', attempt, 'worker:' || $7 from reported),
         -- nothing will ever claim the message of a step that an operator stopped meanwhile
         stopped as (
             select r.msg_id from report r join tasker.steps s on s.id = r.step_id
              where s.attempt = r.attempt and s.finished_at is not null),
         -- one table for the join: PostgreSQL looks again at a message that changed after the snapshot, as by a heartbeat, and
         -- would look in vain for it in a union
         over as materialized (select msg_id from reported union all select msg_id from stopped),
         gone as (delete from {table} q using over o where q.msg_id = o.msg_id),
         sent as (
             insert into pgmq.q_{STEP_RESULTS} (vt, message)
             select clock_timestamp(), jsonb_build_object('task_id', task_id, 'step_id', step_id, 'attempt', attempt)
               from reported)
         select step_id from reported",
        from = REPORT.from,
        to = REPORT.to,
        table = queue.table(),
    );
    let query = sqlx::query_as(&sql)
        .bind(reports.iter().map(|r| r.msg_id).collect::<Vec<_>>())
        .bind(reports.iter().map(|r| r.step_id).collect::<Vec<_>>())
        .bind(reports.iter().map(|r| r.attempt).collect::<Vec<_>>())
        .bind(reports.iter().map(|r| r.outcome.as_str()).collect::<Vec<_>>())
        .bind(reports.iter().map(|r| r.result.as_ref().map(Json)).collect::<Vec<_>>())
        .bind(reports.iter().map(|r| r.error.as_ref().map(Json)).collect::<Vec<_>>())
        .bind(worker);
    let door = Door::of(STEP_RESULTS);
    let rows: Result<Vec<(StepId,)>, Error> = session.fetch("report_steps", query).await;
    let began = door.began();
    let rows = door.close(session, rows, |rows| Traffic { sent: rows.len() as u64, ..Traffic::default() })?;
    session.passed(queue.into(), Traffic { deleted: rows.len() as u64, ..Traffic::default() }, began);
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Makes a transaction fit for statements of users: planned as PostgreSQL does by itself, and ended by the server when
/// they take longer than `limit` or the process stands still in between.
///
/// # Errors
/// [`Error::Statement`].
pub async fn open_to_writes(session: &mut Session, limit: Duration) -> Result<(), Error> {
    let query = sqlx::query(
        "-- open_to_writes
         select set_config('plan_cache_mode', 'auto', true), set_config('enable_seqscan', 'on', true),
                set_config('enable_hashjoin', 'on', true), set_config('enable_mergejoin', 'on', true),
                set_config('statement_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $1, true)",
    );
    let milliseconds = limit.as_millis().clamp(1, i32::MAX as u128).to_string();
    session.execute("open_to_writes", query.bind(milliseconds)).await.map(drop)
}

/// A reported step that was taken from the queue of results; its task's row is locked.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Reported {
    /// The step.
    pub step_id: StepId,
    /// Its name.
    pub step_name: Name,
    /// Its fence.
    pub attempt: i32,
    /// How often it failed before.
    pub failures: i32,
    /// Since when every worker that claimed it lacked its handler.
    pub missing_since: Option<DateTime<Utc>>,
    /// How the run ended.
    pub outcome: ResultType,
    /// How it failed.
    pub error: Option<Json<Failure>>,
    /// When the run began.
    pub started_at: DateTime<Utc>,
    /// When the report was stored.
    pub reported_at: DateTime<Utc>,
    /// The worker that reported.
    pub worker_id: Option<WorkerId>,
    /// The task.
    pub task_id: TaskId,
    /// Of the task.
    pub template_id: TemplateId,
    /// Whose overrides apply.
    pub environment: String,
    /// Of the task.
    pub namespace: Name,
    /// The task type.
    pub task_name: Name,
    /// Of the task.
    pub task_state: TaskState,
    /// Of the task.
    pub priority: i16,
    /// Of the task.
    pub correlation_id: CorrelationId,
    /// The caller's trace context.
    pub traceparent: Option<String>,
}

/// Locks the tasks of these (step, attempt) pairs in id order and reads the steps that are still reported with that attempt.
/// A pair that is missing from the answer was dealt with before, its step was stopped, or its task is [held] by
/// somebody else, for whom nobody waits here.
///
/// # Errors
/// [`Error::Statement`].
pub async fn lock(session: &mut Session, steps: &[(StepId, TaskId, i32)]) -> Result<Vec<Reported>, Error> {
    let sql = format!(
        "-- lock_reported
         with popped as (select distinct * from unnest($1::uuid[], $2::uuid[], $3::integer[]) p (step_id, task_id, attempt)),
         locked as materialized (
             select t.* from tasker.tasks t where t.id in (select task_id from popped) order by t.id for no key update skip locked)
         select s.id as step_id, s.name as step_name, s.attempt, s.failures, s.missing_since, s.outcome, s.error,
                s.started_at, s.reported_at,
                s.worker_id, t.id as task_id, t.template_id, t.environment, t.namespace, t.name as task_name,
                t.state as task_state, t.priority, t.correlation_id, t.traceparent
           from popped p join locked t on t.id = p.task_id
           join tasker.steps s
             on s.id = p.step_id and s.task_id = t.id and s.attempt = p.attempt and s.state = '{reported}'
          order by s.id
            -- one that an operator stopped meanwhile is left out
            for no key update of s",
        reported = COMPLETE.from,
    );
    let query = sqlx::query_as(&sql)
        .bind(steps.iter().map(|s| s.0).collect::<Vec<_>>())
        .bind(steps.iter().map(|s| s.1).collect::<Vec<_>>())
        .bind(steps.iter().map(|s| s.2).collect::<Vec<_>>());
    session.fetch("lock_reported", query).await
}

/// Those of these pairs that [`lock`] left out although their steps are still reported: somebody else holds their tasks.
///
/// # Errors
/// [`Error::Statement`].
pub async fn held(session: &mut Session, steps: &[(StepId, TaskId, i32)]) -> Result<Vec<StepId>, Error> {
    let sql = format!(
        "-- find_held_reports
         select s.id from unnest($1::uuid[], $2::uuid[], $3::integer[]) p (step_id, task_id, attempt)
           join tasker.steps s
             on s.id = p.step_id and s.task_id = p.task_id and s.attempt = p.attempt and s.state = '{reported}'",
        reported = COMPLETE.from,
    );
    let query = sqlx::query_as(&sql)
        .bind(steps.iter().map(|s| s.0).collect::<Vec<_>>())
        .bind(steps.iter().map(|s| s.1).collect::<Vec<_>>())
        .bind(steps.iter().map(|s| s.2).collect::<Vec<_>>());
    let rows: Vec<(StepId,)> = session.fetch("find_held_reports", query).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// What becomes of a reported step.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The step.
    pub step_id: StepId,
    /// The decision.
    pub verdict: Verdict,
    /// Why, where the outcome alone does not tell.
    pub reason: Option<String>,
}

/// What carrying out verdicts led to.
#[derive(Debug, Default)]
pub struct Advanced {
    /// Steps that were enqueued and need their doorbells.
    pub ready: Vec<Ready>,
    /// The tasks that were touched, with their counts.
    pub tasks: Vec<Counts>,
}

/// A step that nothing holds back any more.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Ready {
    /// The step.
    pub step_id: StepId,
    /// Its task.
    pub task_id: TaskId,
    /// Its name.
    pub name: Name,
    /// Its attempt so far.
    pub attempt: i32,
    /// The parent that it waited for last, where a parent was the cause.
    #[sqlx(default)]
    pub cause: Option<StepId>,
    /// The attempt at which that parent succeeded.
    #[sqlx(default)]
    pub cause_attempt: Option<i32>,
}

/// A task's step counts.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct Counts {
    /// The task.
    pub task_id: TaskId,
    /// Steps that are not complete, skipped or resolved by hand.
    pub remaining: i32,
    /// Of those, the ones that have not ended and wait for no parent.
    pub active: i32,
}

#[derive(sqlx::FromRow)]
struct AdvancedRow {
    step_id: Option<StepId>,
    task_id: TaskId,
    name: Option<Name>,
    remaining: i32,
    active: i32,
    attempt: i32,
    cause: Option<StepId>,
    cause_attempt: Option<i32>,
}

/// Carries out verdicts: steps to their states, timers for retries, dependents' counters, those that are ready enqueued,
/// and the tasks' counts. The tasks are locked.
///
/// # Errors
/// [`Error::Statement`].
pub async fn advance(session: &mut Session, verdicts: &[Judged]) -> Result<Advanced, Error> {
    let sql = format!(
        "-- advance_steps
         with verdict as (
             select * from unnest($1::uuid[], $2::text[], $3::double precision[], $4::boolean[], $5::text[])
                           v (step_id, to_state, delay, missing, reason)),
         applied as (
             update tasker.steps s
                set state = v.to_state,
                    failures = s.failures
                        + case when v.to_state = '{complete}' or v.missing or (s.error->>'not_tried')::boolean then 0 else 1 end,
                    missing_since = case when v.missing then coalesce(s.missing_since, s.reported_at) end,
                    retry_at = case when v.to_state = '{waiting}' then clock_timestamp() + make_interval(secs => v.delay) end,
                    finished_at = case when v.to_state <> '{waiting}' then clock_timestamp() end
               from verdict v where s.id = v.step_id and s.state = '{reported}'
             returning s.id as step_id, s.task_id, s.state, s.attempt, s.retry_at, v.reason),
         timer as (
             insert into tasker.timers (kind, subject, task_id, due_at)
             select 'retry', a.step_id, a.task_id, case when t.state = 'paused' then 'infinity' else a.retry_at end
               from applied a join tasker.tasks t on t.id = a.task_id where a.state = '{waiting}'),
         freed as (
             select e.child_id, count(*)::integer as parents, (array_agg(a.step_id))[1] as cause,
                    (array_agg(a.attempt))[1] as cause_attempt
               from applied a join tasker.step_edges e on e.parent_id = a.step_id
              where a.state = '{complete}' group by e.child_id),
         dependents as (
             update tasker.steps c
                set waiting_on = c.waiting_on - f.parents,
                    state = case when c.waiting_on = f.parents and t.state = 'in_progress' then '{enqueued}' else c.state end,
                    enqueued_at = case when c.waiting_on = f.parents and t.state = 'in_progress' then clock_timestamp() end
               from freed f, tasker.tasks t
              where c.id = f.child_id and t.id = c.task_id and c.state = '{pending}'
             returning c.id as step_id, c.task_id, c.name, c.state, c.waiting_on, c.attempt, f.cause, f.cause_attempt),
         change as (
             select task_id, sum(done)::integer as done, sum(active)::integer as active from (
                 select task_id, case when state = '{complete}' then 1 else 0 end as done,
                        case when state = '{waiting}' then 0 else -1 end as active from applied
                 union all
                 select task_id, 0, 1 from dependents where waiting_on = 0) d
              group by task_id),
         counted as (
             update tasker.tasks t
                set remaining_steps = t.remaining_steps - c.done, active_steps = t.active_steps + c.active
               from change c where t.id = c.task_id
             returning t.id as task_id, t.remaining_steps, t.active_steps),
         history as (
             insert into tasker.step_transitions (task_id, step_id, from_state, to_state, attempt, actor, reason)
             select task_id, step_id, '{reported}', state, attempt, 'orchestration', reason from applied
             union all
             select task_id, step_id, '{pending}', '{enqueued}', attempt, 'orchestration', null from dependents where state = '{enqueued}')
         select null::uuid as step_id, task_id, null as name, remaining_steps as remaining, active_steps as active,
                0 as attempt, null::uuid as cause, null::integer as cause_attempt from counted
         union all
         select step_id, task_id, name, 0, 0, attempt, cause, cause_attempt from dependents where state = '{enqueued}'",
        reported = COMPLETE.from,
        complete = COMPLETE.to,
        waiting = RETRY.to,
        pending = ENQUEUE.from,
        enqueued = ENQUEUE.to,
    );
    let to_state = |verdict: &Verdict| match verdict {
        Verdict::Complete => COMPLETE.to,
        Verdict::Retry(_) | Verdict::Miss(_) => RETRY.to,
        Verdict::Fail { .. } => FAIL.to,
    };
    let delay = |verdict: &Verdict| match verdict {
        Verdict::Retry(delay) | Verdict::Miss(delay) => delay.as_secs_f64(),
        _ => 0.0,
    };
    let query = sqlx::query_as(&sql)
        .bind(verdicts.iter().map(|v| v.step_id).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|v| to_state(&v.verdict).as_str()).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|v| delay(&v.verdict)).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|v| matches!(v.verdict, Verdict::Miss(_))).collect::<Vec<_>>())
        .bind(verdicts.iter().map(|v| v.reason.as_deref()).collect::<Vec<_>>());
    let mut advanced = Advanced::default();
    for row in session.fetch::<AdvancedRow>("advance_steps", query).await? {
        match (row.step_id, row.name) {
            (Some(step_id), Some(name)) => advanced.ready.push(Ready {
                step_id,
                task_id: row.task_id,
                name,
                attempt: row.attempt,
                cause: row.cause,
                cause_attempt: row.cause_attempt,
            }),
            _ => advanced.tasks.push(Counts { task_id: row.task_id, remaining: row.remaining, active: row.active }),
        }
    }
    Ok(advanced)
}
