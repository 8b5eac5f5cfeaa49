//! Table `dead_letters`: what was parked because it could not be dealt with, and what became of it.

use super::{Error, Session, Stored};
use crate::{
    api::{DeadLetter, DeadLetterFilter, DeadLetterSummary},
    id::{DeadLetterId, StepId, TaskId},
    name::Name,
    queue::{Message, QueueName, traffic::Traffic},
    step::{DeadLetterReason, Edge, Failure, Resolution, StepEvent, StepState},
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{QueryBuilder, types::Json};
use std::time::SystemTime;

/// Where a step can be parked.
pub const PARK: [Edge; 3] = [
    Edge::of(StepState::Enqueued, StepEvent::Park),
    Edge::of(StepState::InProgress, StepEvent::Park),
    Edge::of(StepState::WaitingForRetry, StepEvent::Park),
];

/// Task and step as they are now, for SQL: `{task}` and `{step}` are their ids.
fn snapshot(task: &str, step: &str) -> String {
    format!(
        "jsonb_strip_nulls(jsonb_build_object(
            'task', (select to_jsonb(t) - 'identity_hash' from tasker.tasks t where t.id = {task}),
            'step', (select to_jsonb(s) from tasker.steps s where s.id = {step})))"
    )
}

/// A message, or a step without one, to be parked.
#[derive(Debug)]
pub struct Parked<'a> {
    /// Where it was.
    pub queue: &'a str,
    /// The namespace, where it is known.
    pub namespace: Option<&'a Name>,
    /// The message as it was.
    pub message: &'a Message,
    /// Why.
    pub reason: DeadLetterReason,
    /// What went wrong last.
    pub detail: &'a str,
    /// The task, where it is known.
    pub task: Option<TaskId>,
    /// The step, where it is known.
    pub step: Option<StepId>,
}

/// Parks a message with the reason, once; the caller deletes it from its queue in the same transaction.
///
/// # Errors
/// [`Error::Statement`].
pub async fn park(session: &mut Session, parked: &Parked<'_>) -> Result<(), Error> {
    let sql = format!(
        "-- park_message
         insert into tasker.dead_letters (id, reason, queue, message, headers, detail, task_id, step_id, read_count, namespace, snapshot)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9,
                 coalesce($10, (select namespace from tasker.tasks where id = $7)), {})",
        snapshot("$7", "$8")
    );
    let query = sqlx::query(&sql)
        .bind(DeadLetterId::generate())
        .bind(parked.reason)
        .bind(parked.queue)
        .bind(&parked.message.message)
        .bind(&parked.message.headers)
        .bind(parked.detail)
        .bind(parked.task)
        .bind(parked.step)
        .bind(parked.message.read_ct)
        .bind(parked.namespace);
    session.execute("park_message", query).await.map(drop)
}

/// A step that was taken off the line.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct TakenOff {
    /// The step.
    pub step_id: StepId,
    /// Where it stood.
    pub from_state: StepState,
}

/// Takes steps of a locked task that still stand where `from` says off the line: to `error`, with their failure; their
/// messages go to the archive, and with a `reason` each becomes a dead letter.
///
/// # Errors
/// [`Error::Statement`].
pub async fn take_off(
    session: &mut Session,
    queue: &QueueName,
    steps: &[StepId],
    from: &[StepState],
    reason: Option<DeadLetterReason>,
    failure: &Failure,
    actor: &str,
) -> Result<Vec<TakenOff>, Error> {
    let sql = format!(
        "-- take_off_steps
         -- a claim locks the message before the step, and so does this
         with locked as materialized (
             select q.msg_id, (q.message->>'step_id')::uuid as step_id from {table} q
              where q.message->>'step_id' = any ($1::uuid[]::text[]) order by q.msg_id for update),
         old as materialized (
             select s.id, s.state, to_jsonb(s) as step, (select to_jsonb(t) - 'identity_hash' from tasker.tasks t where t.id = s.task_id) as task
               from tasker.steps s where s.id = any ($1) and s.state = any ($2) and (select count(*) from locked) >= 0
              order by s.id for update of s),
         moved as (
             update tasker.steps s
                set state = '{error}', error = $3, outcome = 'error', retry_at = null, finished_at = clock_timestamp()
               from old where s.id = old.id
             returning s.id as step_id, s.task_id, s.attempt, s.failures, old.state as from_state, old.step, old.task),
         message as (
             delete from {table} q using locked l join moved m on m.step_id = l.step_id where q.msg_id = l.msg_id
             returning q.*, m.step_id as of_step),
         archived as (
             insert into {archive} (msg_id, read_ct, enqueued_at, vt, message, headers)
             select msg_id, read_ct, enqueued_at, vt, message, headers from message returning msg_id),
         letters as (
             insert into tasker.dead_letters (id, reason, queue, namespace, message, headers, detail, task_id, step_id,
                                              read_count, snapshot, parked_by)
             select tasker.uuid_v7(), $4, $5, m.task->>'namespace',
                    coalesce(q.message, jsonb_build_object('task_id', m.task_id, 'step_id', m.step_id)), q.headers,
                    $6, m.task_id, m.step_id, coalesce(q.read_ct, m.attempt), jsonb_build_object('task', m.task, 'step', m.step), $7
               from moved m left join lateral (
                    select * from message where of_step = m.step_id order by read_ct desc limit 1) q on true
              where $4::text is not null),
         timer as (delete from tasker.timers m using moved where m.kind = 'retry' and m.subject = moved.step_id),
         permits as (delete from tasker.permits p using moved where p.step_id = moved.step_id),
         waits as (delete from tasker.permit_waits w using moved where w.step_id = moved.step_id),
         history as (
             insert into tasker.step_transitions (task_id, step_id, from_state, to_state, attempt, actor, reason)
             select task_id, step_id, from_state, '{error}', attempt, $7, $6 from moved)
         select step_id, from_state, (select count(*) from archived) as archived from moved",
        error = PARK[0].to,
        table = queue.table(),
        archive = queue.archive(),
    );
    let query = sqlx::query_as(&sql)
        .bind(steps)
        .bind(from)
        .bind(Json(failure))
        .bind(reason)
        .bind(queue.as_str())
        .bind(&failure.message)
        .bind(actor);
    let began = SystemTime::now();
    let rows: Vec<TakenOffRow> = session.fetch("take_off_steps", query).await?;
    let archived = rows.first().map_or(0, |row| u64::try_from(row.archived).unwrap_or(0));
    session.passed(queue.into(), Traffic { archived, ..Traffic::default() }, began);
    Ok(rows.into_iter().map(|row| row.step).collect())
}

#[derive(sqlx::FromRow)]
struct TakenOffRow {
    #[sqlx(flatten)]
    step: TakenOff,
    archived: i64,
}

#[derive(sqlx::FromRow)]
struct SummaryRow {
    id: DeadLetterId,
    reason: DeadLetterReason,
    queue: String,
    namespace: Option<String>,
    detail: String,
    task_id: Option<TaskId>,
    step_id: Option<StepId>,
    step: Option<String>,
    parked_by: String,
    created_at: DateTime<Utc>,
    resolution: Option<Resolution>,
    resolved_by: Option<String>,
    resolved_at: Option<DateTime<Utc>>,
    note: Option<String>,
}

impl From<SummaryRow> for DeadLetterSummary {
    fn from(row: SummaryRow) -> Self {
        Self {
            dead_letter_id: row.id,
            reason: row.reason,
            queue: row.queue,
            namespace: row.namespace,
            detail: row.detail,
            task_id: row.task_id,
            step_id: row.step_id,
            step: row.step,
            parked_by: row.parked_by,
            created_at: row.created_at,
            resolution: row.resolution,
            resolved_by: row.resolved_by,
            resolved_at: row.resolved_at,
            note: row.note,
        }
    }
}

const SUMMARY: &str = "d.id, d.reason, d.queue, d.namespace, d.detail, d.task_id, d.step_id,
    coalesce((select s.name from tasker.steps s where s.id = d.step_id), d.snapshot #>> '{step,name}') as step,
    d.parked_by, d.created_at, d.resolution, d.resolved_by, d.resolved_at, d.note";

/// Dead letters that fit `filter`, the newest first, at most `limit`.
///
/// # Errors
/// [`Error::Statement`].
pub async fn list(
    session: &mut Session,
    filter: &DeadLetterFilter,
    within: Option<&[String]>,
    limit: i64,
) -> Result<Vec<DeadLetterSummary>, Error> {
    let mut sql =
        QueryBuilder::new(format!("-- list_dead_letters\nselect {SUMMARY} from tasker.dead_letters d where true"));
    if let Some(reason) = filter.reason {
        sql.push(" and d.reason = ").push_bind(reason);
    }
    if let Some(namespace) = &filter.namespace {
        sql.push(" and d.namespace = ").push_bind(namespace);
    }
    match filter.open {
        Some(true) => drop(sql.push(" and d.resolved_at is null")),
        Some(false) => drop(sql.push(" and d.resolved_at is not null")),
        None => {}
    }
    if let Some(task) = filter.task_id {
        sql.push(" and d.task_id = ").push_bind(task);
    }
    if let Some(before) = filter.before {
        sql.push(" and d.id < ").push_bind(before);
    }
    if let Some(within) = within {
        sql.push(" and d.namespace = any (").push_bind(within).push(")");
    }
    sql.push(" order by d.id desc limit ").push_bind(limit);
    let rows: Vec<SummaryRow> = session.fetch("list_dead_letters", sql.build_query_as()).await?;
    Ok(rows.into_iter().map(DeadLetterSummary::from).collect())
}

#[derive(sqlx::FromRow)]
struct WholeRow {
    #[sqlx(flatten)]
    summary: SummaryRow,
    #[sqlx(try_from = "Stored")]
    message: Value,
    headers: Option<Stored>,
    read_count: i32,
    snapshot: Option<Stored>,
}

/// One dead letter whole.
///
/// # Errors
/// [`Error::Statement`].
pub async fn find(session: &mut Session, id: DeadLetterId) -> Result<Option<DeadLetter>, Error> {
    let sql = format!(
        "-- read_dead_letter
         select {SUMMARY}, d.message, d.headers, d.read_count, d.snapshot from tasker.dead_letters d where d.id = $1"
    );
    let row: Option<WholeRow> = session.fetch_optional("read_dead_letter", sqlx::query_as(&sql).bind(id)).await?;
    Ok(row.map(|row| DeadLetter {
        summary: row.summary.into(),
        message: row.message,
        headers: row.headers.map(Value::from),
        read_count: row.read_count,
        snapshot: row.snapshot.map(Value::from),
    }))
}

/// What has to be known of a dead letter to deal with it, whether or not its message can be read.
#[derive(Debug)]
pub struct Letter {
    /// What lists show.
    pub summary: DeadLetterSummary,
    /// The attempt that its message names.
    pub attempt: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct LetterRow {
    #[sqlx(flatten)]
    summary: SummaryRow,
    attempt: Option<String>,
}

/// One dead letter as it stands.
///
/// # Errors
/// [`Error::Statement`].
pub async fn look(session: &mut Session, id: DeadLetterId) -> Result<Option<Letter>, Error> {
    let sql = format!(
        "-- look_at_dead_letter
         select {SUMMARY}, d.message->>'attempt' as attempt from tasker.dead_letters d where d.id = $1"
    );
    let row: Option<LetterRow> = session.fetch_optional("look_at_dead_letter", sqlx::query_as(&sql).bind(id)).await?;
    let attempt = |row: &LetterRow| row.attempt.as_ref().and_then(|attempt| attempt.parse().ok());
    Ok(row.map(|row| Letter { attempt: attempt(&row), summary: row.summary.into() }))
}

/// Says how an open dead letter was dealt with; answers whether it was open.
///
/// # Errors
/// [`Error::Statement`].
pub async fn close(
    session: &mut Session,
    id: DeadLetterId,
    resolution: Resolution,
    actor: &str,
    note: Option<&str>,
) -> Result<bool, Error> {
    let query = sqlx::query(
        "-- close_dead_letter
         update tasker.dead_letters set resolution = $2, resolved_by = $3, note = $4, resolved_at = clock_timestamp()
          where id = $1 and resolved_at is null",
    )
    .bind(id)
    .bind(resolution)
    .bind(actor)
    .bind(note);
    session.execute("close_dead_letter", query).await.map(|rows| rows > 0)
}

/// Closes what is open about a step that is no longer parked: somebody retried or resolved it by hand.
///
/// # Errors
/// [`Error::Statement`].
pub async fn close_of_steps(
    session: &mut Session,
    steps: &[StepId],
    resolution: Resolution,
    actor: &str,
    note: Option<&str>,
) -> Result<u64, Error> {
    let query = sqlx::query(
        "-- close_dead_letters_of_steps
         update tasker.dead_letters set resolution = $2, resolved_by = $3, note = $4, resolved_at = clock_timestamp()
          where step_id = any ($1) and resolved_at is null",
    )
    .bind(steps)
    .bind(resolution)
    .bind(actor)
    .bind(note);
    session.execute("close_dead_letters_of_steps", query).await
}

/// Sends a parked message again, as it was.
///
/// # Errors
/// [`Error::Statement`].
pub async fn send_again(session: &mut Session, letter: &DeadLetterSummary) -> Result<(), Error> {
    let query = sqlx::query(
        "-- send_again
         select pgmq.send(d.queue, d.message, d.headers, 0) from tasker.dead_letters d where d.id = $1",
    );
    let began = SystemTime::now();
    session.execute("send_again", query.bind(letter.dead_letter_id)).await?;
    session.passed(letter.queue.clone().into(), Traffic { sent: 1, ..Traffic::default() }, began);
    Ok(())
}

/// How many dead letters nobody has dealt with.
///
/// # Errors
/// [`Error::Statement`].
pub async fn open(session: &mut Session) -> Result<i64, Error> {
    let query =
        sqlx::query_as("-- count_dead_letters\nselect count(*) from tasker.dead_letters where resolved_at is null");
    let row: Option<(i64,)> = session.fetch_optional("count_dead_letters", query).await?;
    Ok(row.map_or(0, |(n,)| n))
}
