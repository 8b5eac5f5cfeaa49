//! PGMQ queues: their names, and every statement on their tables alone.
//!
//! Messages are read in the order of their visibility time, which PGMQ indexes: an invisible message costs nothing
//! to pass, and a higher priority is an earlier time ([`HEAD_START_SECONDS`] for each point), so that nothing waits for ever.
//! PGMQ's own functions work on the same tables.

pub(crate) mod traffic;

use crate::{
    id::{CorrelationId, StepId, TaskId},
    metrics::Label,
    storage::{Error, Session, Stored},
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use std::{fmt, sync::Arc, time::Duration};
use traffic::{Door, Traffic};

/// Tasks that were submitted by SQL and wait for station *initialize*.
pub const TASK_REQUESTS: &str = "task_requests";

/// Outcomes that wait for station *process*.
pub const STEP_RESULTS: &str = "step_results";

/// How much earlier one point of priority lets a step be read, in seconds.
pub const HEAD_START_SECONDS: i32 = 60;

/// The lowest priority; it has no head start.
pub const LOWEST_PRIORITY: i32 = -100;

/// How much earlier than without a head start the highest priority is read, in seconds.
pub const LONGEST_HEAD_START_SECONDS: i32 = HEAD_START_SECONDS * 2 * -LOWEST_PRIORITY;

/// The longest part of a namespace's name that fits into the name of its queue, in bytes.
const LONGEST_PLAIN: usize = 36;

/// The queue of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueName(Arc<str>);

impl QueueName {
    /// The queue that carries the steps of `namespace`: named after it, or after its hash where PGMQ does not allow the name.
    pub fn of_namespace(namespace: &str) -> Self {
        let plain = namespace.len() <= LONGEST_PLAIN
            && namespace.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        Self(if plain {
            format!("worker_{namespace}").into()
        } else {
            let hash: String = Sha256::digest(namespace).iter().take(12).map(|b| format!("{b:02x}")).collect();
            format!("workerx_{hash}").into()
        })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The table, ready for SQL. Names are made of lower-case letters, digits and `_` alone.
    pub fn table(&self) -> String {
        format!("pgmq.q_{}", self.0)
    }

    /// The table of what is not delivered any more, ready for SQL.
    pub fn archive(&self) -> String {
        format!("pgmq.a_{}", self.0)
    }
}

impl From<&QueueName> for Label {
    fn from(queue: &QueueName) -> Self {
        Self::from(Arc::clone(&queue.0))
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message that was taken or read.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Message {
    /// Its id in the queue.
    pub msg_id: i64,
    /// How often it was read before.
    pub read_ct: i32,
    /// When it was sent.
    pub enqueued_at: DateTime<Utc>,
    /// What it says.
    pub message: Stored,
    /// Trace context.
    pub headers: Option<Stored>,
}

/// The task that a message of [`TASK_REQUESTS`] is about; none where it cannot be understood.
pub fn requested_task(message: &Value) -> Option<TaskId> {
    message.get("task_id")?.as_str()?.parse().ok()
}

/// The step, task and attempt that a message of [`STEP_RESULTS`] is about; none where it cannot be understood.
pub fn reported_step(message: &Value) -> Option<(StepId, TaskId, i32)> {
    let id = |key: &str| message.get(key)?.as_str();
    let attempt = message.get("attempt")?.as_i64()?;
    Some((id("step_id")?.parse().ok()?, id("task_id")?.parse().ok()?, i32::try_from(attempt).ok()?))
}

/// Creates a queue, and settings that keep a busy one small; an existing one stays.
///
/// # Errors
/// [`Error::Statement`].
pub async fn create(connection: &mut PgConnection, queue: &str) -> Result<(), Error> {
    let query = sqlx::query("-- create_queue\nselect tasker.create_queue($1)").bind(queue);
    query.execute(connection).await.map(drop).map_err(|source| Error::Statement { doing: "create_queue", source })
}

/// Takes up to `limit` visible messages: they are gone when the transaction commits, and back when it does not.
///
/// # Errors
/// [`Error::Statement`].
pub async fn take(session: &mut Session, queue: &'static str, limit: i64) -> Result<Vec<Message>, Error> {
    let sql = format!(
        "-- take_messages
         with visible as (
             select msg_id from pgmq.q_{queue} where vt <= statement_timestamp()
              order by vt limit $1 for update skip locked)
         delete from pgmq.q_{queue} q where q.msg_id = any (array (select msg_id from visible))
         returning q.msg_id, q.read_ct, q.enqueued_at, coalesce(q.message, 'null') as message, q.headers"
    );
    let door = Door::of(queue);
    let messages: Result<Vec<Message>, Error> = session.fetch("take_messages", sqlx::query_as(&sql).bind(limit)).await;
    door.close(session, messages, |messages| taken(messages.iter()))
}

/// Puts messages that this transaction has [taken](take) back as they were, hidden for a moment that grows with their age:
/// somebody else holds what they are about. Answers with the shortest moment.
///
/// # Errors
/// [`Error::Statement`].
pub async fn put_back(session: &mut Session, queue: &'static str, messages: &[&Message]) -> Result<Duration, Error> {
    let sql = format!(
        "-- put_back_messages
         with back as materialized (
             select m.*, least(greatest((clock_timestamp() - m.enqueued_at) / 4, interval '10 milliseconds'),
                               interval '500 milliseconds') as pause
               from unnest($1::bigint[], $2::integer[], $3::timestamptz[], $4::jsonb[], $5::jsonb[])
                    m (msg_id, read_ct, enqueued_at, message, headers)),
         put as (
             insert into pgmq.q_{queue} (msg_id, read_ct, enqueued_at, vt, message, headers) overriding system value
             select msg_id, read_ct, enqueued_at, clock_timestamp() + pause, message, headers from back)
         select extract(epoch from min(pause))::double precision from back"
    );
    let query = sqlx::query_as(&sql)
        .bind(messages.iter().map(|m| m.msg_id).collect::<Vec<_>>())
        .bind(messages.iter().map(|m| m.read_ct).collect::<Vec<_>>())
        .bind(messages.iter().map(|m| m.enqueued_at).collect::<Vec<_>>())
        .bind(messages.iter().map(|m| &m.message).collect::<Vec<_>>())
        .bind(messages.iter().map(|m| m.headers.as_ref()).collect::<Vec<_>>());
    let row: Option<(Option<f64>,)> = session.fetch_optional("put_back_messages", query).await?;
    session.returned(&Label::from(queue), taken(messages.iter().copied()));
    Ok(Duration::from_secs_f64(row.and_then(|(pause,)| pause).unwrap_or_default().max(0.0)))
}

/// What taking these messages counts for.
fn taken<'a>(messages: impl ExactSizeIterator<Item = &'a Message>) -> Traffic {
    let received = messages.len() as u64;
    let again = messages.filter(|message| message.read_ct > 0).count() as u64;
    Traffic { received, again, lapsed: again, deleted: received, ..Traffic::default() }
}

/// Reads one visible message and hides it for `seconds`, so that work which fails on it leaves a trace in its read count.
///
/// # Errors
/// [`Error::Statement`].
pub async fn read_one(session: &mut Session, queue: &'static str, seconds: i32) -> Result<Option<Message>, Error> {
    let query = sqlx::query_as(
        "-- read_message
         select msg_id, read_ct, enqueued_at, coalesce(message, 'null') as message, headers from pgmq.read($1, $2, 1)",
    );
    let door = Door::of(queue);
    let read: Result<Option<Message>, Error> =
        session.fetch_optional("read_message", query.bind(queue).bind(seconds)).await;
    door.close(session, read, |read| {
        let again = u64::from(read.as_ref().is_some_and(|message| message.read_ct > 1));
        Traffic { received: u64::from(read.is_some()), again, lapsed: again, ..Traffic::default() }
    })
}

/// Deletes messages.
///
/// # Errors
/// [`Error::Statement`].
pub async fn delete(session: &mut Session, queue: &'static str, ids: &[i64]) -> Result<u64, Error> {
    let sql = format!("-- delete_messages\ndelete from pgmq.q_{queue} where msg_id = any ($1)");
    let door = Door::of(queue);
    let deleted = session.execute("delete_messages", sqlx::query(&sql).bind(ids)).await;
    door.close(session, deleted, |deleted| Traffic { deleted: *deleted, ..Traffic::default() })
}

/// Moves a message to the archive of its queue, where PGMQ keeps what it does not deliver any more.
///
/// # Errors
/// [`Error::Statement`].
pub async fn archive(session: &mut Session, queue: &'static str, message: i64) -> Result<bool, Error> {
    let door = Door::of(queue);
    let query = sqlx::query_as("-- archive_message\nselect pgmq.archive($1, $2)").bind(queue).bind(message);
    let archived: Result<Option<(bool,)>, Error> = session.fetch_optional("archive_message", query).await;
    let archived = archived.map(|row| row.is_some_and(|(archived,)| archived));
    door.close(session, archived, |archived| Traffic { archived: u64::from(*archived), ..Traffic::default() })
}

/// Archives a message that this transaction has [taken](take).
///
/// # Errors
/// [`Error::Statement`].
pub async fn archive_taken(session: &mut Session, queue: &'static str, message: &Message) -> Result<u64, Error> {
    let sql = format!(
        "-- archive_taken_message
         insert into pgmq.a_{queue} (msg_id, read_ct, enqueued_at, vt, message, headers)
         values ($1, $2, $3, clock_timestamp(), $4, $5)"
    );
    let query = sqlx::query(&sql)
        .bind(message.msg_id)
        .bind(message.read_ct)
        .bind(message.enqueued_at)
        .bind(&message.message)
        .bind(&message.headers);
    let door = Door::of(queue);
    let archived = session.execute("archive_taken_message", query).await;
    door.close(session, archived, |archived| Traffic { archived: *archived, ..Traffic::default() })
}

/// Sends messages, each with its headers.
///
/// # Errors
/// [`Error::Statement`].
pub async fn send(
    session: &mut Session,
    queue: &'static str,
    messages: &[Value],
    headers: &[Value],
) -> Result<u64, Error> {
    let sql = format!(
        "-- send_messages
         insert into pgmq.q_{queue} (vt, message, headers)
         select clock_timestamp(), m.message, m.headers from unnest($1::jsonb[], $2::jsonb[]) m (message, headers)"
    );
    let door = Door::of(queue);
    let sent = session.execute("send_messages", sqlx::query(&sql).bind(messages).bind(headers)).await;
    door.close(session, sent, |sent| Traffic { sent: *sent, ..Traffic::default() })
}

/// The doorbell of an enqueued step.
#[derive(Debug, Clone)]
pub struct StepMessage {
    /// The step.
    pub step_id: StepId,
    /// Its task.
    pub task_id: TaskId,
    /// Its task's priority.
    pub priority: i16,
    /// Joins the step with its trace, logs and metrics.
    pub correlation_id: CorrelationId,
    /// W3C trace context of the span that enqueued it.
    pub traceparent: String,
}

/// Sends the doorbells of enqueued steps to the queue of their namespace.
///
/// # Errors
/// [`Error::Statement`].
pub async fn send_steps(session: &mut Session, queue: &QueueName, steps: &[StepMessage]) -> Result<u64, Error> {
    let sql = format!(
        "-- send_steps
         insert into {} (vt, message, headers)
         select clock_timestamp() - (m.priority - {LOWEST_PRIORITY}) * interval '{HEAD_START_SECONDS} seconds',
                jsonb_build_object('task_id', m.task_id, 'step_id', m.step_id),
                jsonb_build_object('correlation_id', m.correlation_id, 'traceparent', m.traceparent)
           from unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::uuid[], $5::text[])
                m (step_id, task_id, priority, correlation_id, traceparent)",
        queue.table()
    );
    let query = sqlx::query(&sql)
        .bind(steps.iter().map(|s| s.step_id).collect::<Vec<_>>())
        .bind(steps.iter().map(|s| s.task_id).collect::<Vec<_>>())
        .bind(steps.iter().map(|s| s.priority).collect::<Vec<_>>())
        .bind(steps.iter().map(|s| s.correlation_id).collect::<Vec<_>>())
        .bind(steps.iter().map(|s| s.traceparent.as_str()).collect::<Vec<_>>());
    let door = Door::of(queue);
    let sent = session.execute("send_steps", query).await;
    door.close(session, sent, |sent| Traffic { sent: *sent, ..Traffic::default() })
}

#[cfg(test)]
mod tests {
    use super::QueueName;

    #[test]
    fn a_plain_namespace_names_its_queue() {
        assert_eq!(QueueName::of_namespace("rust_e2e_linear").as_str(), "worker_rust_e2e_linear");
    }

    #[test]
    fn any_other_namespace_has_a_queue_of_legal_name_and_length() {
        for namespace in ["Orders", "a-b", "a.b", "'; drop table x; --", &"n".repeat(255)] {
            let queue = QueueName::of_namespace(namespace);
            assert!(queue.as_str().len() <= 43 && queue.as_str().starts_with("workerx_"), "{queue}");
            assert!(queue.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        }
        assert_ne!(QueueName::of_namespace("A"), QueueName::of_namespace("a"));
        assert_ne!(QueueName::of_namespace("A-b"), QueueName::of_namespace("A_b"));
    }
}
