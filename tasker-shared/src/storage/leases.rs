//! Stations *claim* and the lease: one statement each for a whole batch.

use super::{
    Error, Session,
    concurrency::{self, Scope},
};
use crate::{
    id::{CorrelationId, StepId, TaskId, TemplateId, WorkerId},
    name::Name,
    queue::{
        self, QueueName,
        traffic::{Door, Traffic},
    },
    step::{Edge, StepEvent, StepState},
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, Row as _, postgres::PgRow};
use std::time::Duration;

const CLAIM: Edge = Edge::of(StepState::Enqueued, StepEvent::Claim);
const RECLAIM: Edge = Edge::of(StepState::InProgress, StepEvent::Reclaim);
const RELEASE: Edge = Edge::of(StepState::InProgress, StepEvent::Release);
const WITHDRAW: Edge = Edge::of(StepState::Enqueued, StepEvent::Withdraw);

/// What a lease adds to the step's own timeout, so that a step which ends in time never loses its lease on the way to its report.
const REPORT_MARGIN: Duration = Duration::from_secs(5);

/// The most bytes of parents' results that fit into one value of PostgreSQL, with room for the parents' names.
pub const LARGEST_FAMILY: i64 = 256_000_000;

/// A claimed step, with what its handler needs.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Claimed {
    /// The message that is the lease.
    pub msg_id: i64,
    /// How often this message was read before.
    pub read_ct: i32,
    /// Where the step stood.
    pub from_state: StepState,
    /// The step.
    pub step_id: StepId,
    /// Its name.
    pub step_name: Name,
    /// Its fence.
    pub attempt: i32,
    /// How often it failed before.
    pub failures: i32,
    /// How often it may fail.
    pub max_attempts: i32,
    /// The longest run of its handler, in milliseconds.
    pub timeout_ms: i64,
    /// When it was enqueued.
    pub enqueued_at: DateTime<Utc>,
    /// When it was claimed.
    pub started_at: DateTime<Utc>,
    /// The task.
    pub task_id: TaskId,
    /// The task's template.
    pub template_id: TemplateId,
    /// Whose overrides apply.
    pub environment: String,
    /// The task type.
    pub task_name: Name,
    /// Of the task.
    pub priority: i16,
    /// Of the task.
    pub correlation_id: CorrelationId,
    /// The caller's trace context.
    pub traceparent: Option<String>,
    /// Of the task.
    pub input: Value,
    /// The parents' results by step name.
    pub parents: Option<Value>,
    /// The parents' ids.
    pub parent_ids: Vec<StepId>,
    /// The parents' attempts, in the same order.
    pub parent_attempts: Vec<i32>,
    /// Whether it counts against a limit.
    pub has_permit: bool,
    /// The size of the parents' results in bytes where they are too large to be handed on together.
    pub oversized: Option<i64>,
}

impl Claimed {
    /// Whether the lease was taken from a worker that lost it.
    pub fn is_reclaimed(&self) -> bool {
        self.from_state == RECLAIM.from
    }
}

/// What a claim found.
#[derive(Debug, Default)]
pub struct Claim {
    /// The steps that are now ours.
    pub steps: Vec<Claimed>,
    /// How many messages were read, whatever became of them.
    pub read: usize,
    /// How many of them were parked because they could not be understood.
    pub parked: u64,
    /// How many steps of paused tasks were withdrawn.
    pub withdrawn: u64,
    /// Whether the namespace has limits. A claim that was not made for limits takes nothing then.
    pub is_limited: bool,
    /// How many steps found no permit and were set aside.
    pub blocked: u64,
    /// The limits that these wait for.
    pub scopes: Vec<Scope>,
    /// Steps that lost a permit to another claim; they come again with the next turn.
    pub contended: Vec<StepId>,
}

struct Row {
    read: i64,
    again: i64,
    gone: i64,
    parked: i64,
    withdrawn: i64,
    limited: bool,
    blocked: i64,
    contended: Vec<StepId>,
    scopes: Vec<String>,
    scope_values: Vec<String>,
    claimed: Option<Claimed>,
}

/// Columns that are the same in every row of a claim's answer.
const COUNTS: [&str; 5] = ["read", "again", "gone", "parked", "withdrawn"];

impl<'r> FromRow<'r, PgRow> for Row {
    fn from_row(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        let claimed = row.try_get::<Option<StepId>, _>("step_id")?.map(|_| Claimed::from_row(row)).transpose()?;
        let [read, again, gone, parked, withdrawn] = COUNTS.map(|count| row.try_get(count));
        Ok(Self {
            read: read?,
            again: again?,
            gone: gone?,
            parked: parked?,
            withdrawn: withdrawn?,
            limited: row.try_get("limited")?,
            blocked: row.try_get("blocked")?,
            contended: row.try_get("contended")?,
            scopes: row.try_get("scopes")?,
            scope_values: row.try_get("scope_values")?,
            claimed,
        })
    }
}

/// Takes up to `limit` steps of a namespace for `lease`, or for a step's own timeout where that is shorter.
///
/// In the same statement, messages that ask for nothing any more are deleted, those of paused tasks are withdrawn, and
/// those that cannot be understood are parked as dead letters.
///
/// In a namespace that has limits it takes nothing and says so: [`claim_within_limits`] does. All it costs elsewhere is to
/// ask that.
///
/// # Errors
/// [`Error::Statement`].
pub async fn claim(
    session: &mut Session,
    queue: &QueueName,
    limit: i64,
    worker: WorkerId,
    lease: Duration,
) -> Result<Claim, Error> {
    claim_by(session, queue, limit, worker, lease, false).await
}

/// Like [`claim`], in a namespace that has limits: steps that find no permit are set aside.
///
/// # Errors
/// [`Error::Statement`].
pub async fn claim_within_limits(
    session: &mut Session,
    queue: &QueueName,
    limit: i64,
    worker: WorkerId,
    lease: Duration,
) -> Result<Claim, Error> {
    claim_by(session, queue, limit, worker, lease, true).await
}

async fn claim_by(
    session: &mut Session,
    queue: &QueueName,
    limit: i64,
    worker: WorkerId,
    lease: Duration,
    limited: bool,
) -> Result<Claim, Error> {
    let mut weighed = false;
    let rows = loop {
        let sql = claim_sql(queue, limited, weighed);
        let query = sqlx::query_as(&sql)
            .bind(limit)
            .bind(worker)
            .bind(lease.as_secs_f64())
            .bind(REPORT_MARGIN.as_secs_f64())
            .bind(queue.as_str());
        let door = Door::of(queue);
        let rows: Result<Vec<Row>, Error> = session.fetch("claim_steps", query).await;
        match door.close(session, rows, |rows| traffic(rows)) {
            // the results of some step's parents are too large together: now they are looked at first
            Err(error) if !weighed && error.is_too_large() => weighed = true,
            rows => break rows?,
        }
    };
    let mut rows = rows.into_iter();
    let Some(first) = rows.next() else { return Ok(Claim::default()) };
    Ok(Claim {
        read: usize::try_from(first.read).unwrap_or(0),
        parked: count(first.parked),
        withdrawn: count(first.withdrawn),
        is_limited: first.limited,
        blocked: count(first.blocked),
        scopes: first.scopes.into_iter().zip(first.scope_values).collect(),
        contended: first.contended,
        steps: first.claimed.into_iter().chain(rows.filter_map(|row| row.claimed)).collect(),
    })
}

fn traffic(rows: &[Row]) -> Traffic {
    let Some(first) = rows.first() else { return Traffic::default() };
    Traffic {
        received: count(first.read),
        again: count(first.again),
        lapsed: rows.iter().filter(|row| row.claimed.as_ref().is_some_and(Claimed::is_reclaimed)).count() as u64,
        deleted: count(first.gone - first.parked),
        archived: count(first.parked),
        sent: 0,
    }
}

fn count(rows: i64) -> u64 {
    u64::try_from(rows).unwrap_or(0)
}

fn claim_sql(queue: &QueueName, limited: bool, weighed: bool) -> String {
    // what is stored may be compressed; one made anew is not
    let weight = "left join lateral (
                select sum(pg_column_size(jsonb_build_array(p.result))) as bytes
                  from tasker.step_edges e join tasker.steps p on p.id = e.parent_id
                 where e.child_id = c.step_id) weight on c.step_id is not null";
    let (weight, fits, oversized) = if weighed {
        let fits = format!("filter (where weight.bytes <= {LARGEST_FAMILY})");
        (weight, fits, format!("case when weight.bytes > {LARGEST_FAMILY} then weight.bytes end"))
    } else {
        ("", String::new(), "null::bigint".to_owned())
    };
    let parts = if limited { concurrency::limited(&queue.table()) } else { concurrency::unlimited() };
    let concurrency::Parts { readable, copies, before, allowed, after, counts, of_step } = parts;
    let (table, archive, uuid) = (queue.table(), queue.archive(), "'^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'");
    let (enqueued, in_progress, pending) = (CLAIM.from, CLAIM.to, WITHDRAW.to);
    debug_assert!(RECLAIM.from == in_progress && WITHDRAW.from == enqueued);
    format!(
        "-- claim_steps
         with visible as materialized (
             select msg_id, read_ct, vt, case when message->>'step_id' ~ {uuid} then (message->>'step_id')::uuid end as step_id
               from {table} where vt <= statement_timestamp() {readable} order by vt limit $1 for update skip locked),
         seen as materialized (
             select v.msg_id, v.read_ct, v.vt, v.step_id, s.state as step_state, s.attempt as step_attempt, s.task_id, t.state as task_state,
                    -- a second message of a step, or one that never was the lease of a step that runs, asks for nothing
                    row_number() over (partition by v.step_id order by v.read_ct desc, v.msg_id) > 1
                    or s.state = '{in_progress}' and v.read_ct = 0 {copies} as is_copy
               from visible v left join tasker.steps s on s.id = v.step_id left join tasker.tasks t on t.id = s.task_id),
         {before}
         claimed as (
             update tasker.steps s
                set state = '{in_progress}', attempt = s.attempt + 1, worker_id = $2, progress = null,
                    started_at = clock_timestamp(), reported_at = null
               from (select * from seen order by step_id) seen join tasker.tasks t on t.id = seen.task_id
              where s.id = seen.step_id and s.state = seen.step_state and s.attempt = seen.step_attempt and not seen.is_copy
                and (s.state = '{enqueued}' and seen.task_state = 'in_progress' or s.state = '{in_progress}') {allowed}
             returning seen.msg_id, seen.read_ct, seen.step_state as from_state, s.id as step_id, s.name as step_name,
                       s.attempt, s.failures, s.max_attempts, s.timeout_ms, s.enqueued_at, s.started_at,
                       t.id as task_id, t.template_id, t.environment, t.name as task_name, t.priority,
                       t.correlation_id, t.traceparent, t.input),
         {after}
         leased as (
             update {table} q
                set vt = clock_timestamp() + make_interval(secs => least($3, c.timeout_ms / 1000.0 + $4)),
                    read_ct = q.read_ct + 1, last_read_at = clock_timestamp()
               from claimed c where q.msg_id = c.msg_id),
         -- steps are held here, so this must not wait for a task; what another holds is withdrawn the next time
         paused as materialized (
             select t.id from tasker.tasks t
              where t.id in (select task_id from seen where step_state = '{enqueued}' and task_state = 'paused')
                and t.state = 'paused' order by t.id for update skip locked),
         withdrawn as (
             update tasker.steps s set state = '{pending}', enqueued_at = null
               from seen join paused on paused.id = seen.task_id
              where s.id = seen.step_id and s.state = '{enqueued}' and not seen.is_copy
             returning s.id as step_id, s.task_id, s.attempt, seen.msg_id),
         unreadable as (
             insert into tasker.dead_letters (id, reason, queue, namespace, message, headers, detail, read_count)
             select tasker.uuid_v7(), 'unreadable', $5, (select name from tasker.namespaces where queue = $5),
                    coalesce(q.message, 'null'), q.headers, 'the message has no step_id', q.read_ct
               from {table} q join seen on seen.msg_id = q.msg_id where seen.step_id is null),
         archived as (
             insert into {archive} (msg_id, read_ct, enqueued_at, vt, message, headers)
             select q.msg_id, q.read_ct, q.enqueued_at, q.vt, q.message, q.headers
               from {table} q join seen on seen.msg_id = q.msg_id where seen.step_id is null
             returning msg_id),
         over as materialized (
             select msg_id from seen
              where step_state is null or is_copy or step_state not in ('{enqueued}', '{in_progress}')
                 or step_state = '{enqueued}' and task_state not in ('in_progress', 'paused')
             union all select msg_id from withdrawn),
         gone as (delete from {table} q using over o where q.msg_id = o.msg_id returning o.msg_id),
         history as (
             insert into tasker.step_transitions (task_id, step_id, from_state, to_state, attempt, actor, reason)
             select task_id, step_id, from_state, '{in_progress}', attempt, 'worker:' || $2,
                    case when from_state = '{in_progress}' then 'the lease ran out' end from claimed
             union all
             select task_id, step_id, '{enqueued}', '{pending}', attempt, 'worker:' || $2, 'the task is paused' from withdrawn)
         select (select count(*) from visible) as read, (select count(*) from visible where read_ct > 0) as again,
                (select count(*) from gone) as gone, (select count(*) from archived) as parked,
                (select count(*) from withdrawn) as withdrawn, {counts}, c.*, {of_step}, {oversized} as oversized, family.parents, coalesce(family.parent_ids, '{{}}') as parent_ids,
                coalesce(family.parent_attempts, '{{}}') as parent_attempts
           from (select) one left join claimed c on true {weight}
           left join lateral (
                select jsonb_object_agg(p.name, p.result) {fits} as parents, array_agg(p.id order by p.id) as parent_ids,
                       array_agg(p.attempt order by p.id) as parent_attempts
                  from tasker.step_edges e join tasker.steps p on p.id = e.parent_id
                 where e.child_id = c.step_id) family on c.step_id is not null"
    )
}

/// A lease that a worker holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// The message that is the lease.
    pub msg_id: i64,
    /// The step.
    pub step_id: StepId,
    /// Its fence.
    pub attempt: i32,
    /// What the handler said of its progress, when that is new.
    pub progress: Option<Value>,
}

/// Extends leases to `lease` from now and stores progress; answers with the steps that are still ours.
///
/// # Errors
/// [`Error::Statement`].
pub async fn extend(
    session: &mut Session,
    queue: &QueueName,
    held: &[Held],
    lease: Duration,
) -> Result<Vec<StepId>, Error> {
    let sql = format!(
        "-- extend_leases
         with held as (select * from unnest($1::bigint[], $2::uuid[], $3::integer[], $4::jsonb[]) h (msg_id, step_id, attempt, progress)),
         -- messages before steps, each in the order of their ids, as everywhere; and looked at when they are locked: whoever
         -- put a step back on its queue meanwhile wants its message seen
         message as materialized (
             select q.msg_id from {table} q where q.msg_id = any ($1) order by q.msg_id for update),
         ours as materialized (
             select h.* from held h join message m on m.msg_id = h.msg_id join tasker.steps s
                 on s.id = h.step_id and s.state = '{in_progress}' and s.attempt = h.attempt
              order by s.id for no key update of s),
         told as (
             update tasker.steps s set progress = o.progress from ours o where s.id = o.step_id and o.progress is not null)
         update {table} q set vt = greatest(q.vt, clock_timestamp() + make_interval(secs => $5))
           from ours o where q.msg_id = o.msg_id
         returning o.step_id",
        in_progress = StepState::InProgress,
        table = queue.table(),
    );
    let query = sqlx::query_as(&sql)
        .bind(held.iter().map(|h| h.msg_id).collect::<Vec<_>>())
        .bind(held.iter().map(|h| h.step_id).collect::<Vec<_>>())
        .bind(held.iter().map(|h| h.attempt).collect::<Vec<_>>())
        .bind(held.iter().map(|h| h.progress.clone()).collect::<Vec<_>>())
        .bind(lease.as_secs_f64());
    let rows: Vec<(StepId,)> = session.fetch("extend_leases", query).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Moves the messages of leases that ran out to the front of their queue, in their order: they were read once, and must
/// not wait behind what was enqueued since.
///
/// # Errors
/// [`Error::Statement`].
pub async fn hasten_expired(session: &mut Session, queue: &QueueName) -> Result<u64, Error> {
    let sql = format!(
        "-- hasten_expired_leases
         update {table} q set vt = vt - interval '{first} seconds'
          where q.msg_id = any (array (
                select msg_id from {table}
                 where vt <= statement_timestamp() and vt > statement_timestamp() - interval '{fresh} seconds' and read_ct > 0
                 limit 1000 for update skip locked))",
        table = queue.table(),
        first = queue::LONGEST_HEAD_START_SECONDS,
        // a message that was never read lies further back, unless its priority is below the usual
        fresh = queue::HEAD_START_SECONDS * -queue::LOWEST_PRIORITY,
    );
    session.execute("hasten_expired_leases", sqlx::query(&sql)).await
}

/// Gives leases back, for a `reason`: the steps are enqueued again, before all others. Of all the claims of a step that were given
/// back, one counts as a delivery.
///
/// # Errors
/// [`Error::Statement`].
pub async fn release(
    session: &mut Session,
    queue: &QueueName,
    held: &[Held],
    worker: WorkerId,
    reason: &str,
) -> Result<Vec<StepId>, Error> {
    let sql = format!(
        "-- release_leases
         with held as materialized (
             select * from unnest($1::bigint[], $2::uuid[], $3::integer[]) h (msg_id, step_id, attempt) order by step_id),
         -- messages before steps, as everywhere
         lease as materialized (
             select q.msg_id from {table} q where q.msg_id = any ($1) order by q.msg_id for update),
         released as (
             update tasker.steps s set state = '{to}', enqueued_at = clock_timestamp()
               from (select count(*) from lease) locked, held h
              where s.id = h.step_id and s.state = '{from}' and s.attempt = h.attempt
             returning s.id as step_id, s.task_id, s.attempt, h.msg_id),
         freed as (
             -- one that was never read is not the lease of a step that runs: a claim that began before this would drop it
             update {table} q set vt = clock_timestamp() - interval '{first} seconds', read_ct = greatest(q.read_ct - 1, 1)
               from released r where q.msg_id = r.msg_id),
         permits as (delete from tasker.permits p using released r where p.step_id = r.step_id),
         history as (
             insert into tasker.step_transitions (task_id, step_id, from_state, to_state, attempt, actor, reason)
             select task_id, step_id, '{from}', '{to}', attempt, 'worker:' || $4, $5 from released)
         select step_id from released",
        first = queue::LONGEST_HEAD_START_SECONDS,
        from = RELEASE.from,
        to = RELEASE.to,
        table = queue.table(),
    );
    let query = sqlx::query_as(&sql)
        .bind(held.iter().map(|h| h.msg_id).collect::<Vec<_>>())
        .bind(held.iter().map(|h| h.step_id).collect::<Vec<_>>())
        .bind(held.iter().map(|h| h.attempt).collect::<Vec<_>>())
        .bind(worker)
        .bind(reason);
    let rows: Vec<(StepId,)> = session.fetch("release_leases", query).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}
