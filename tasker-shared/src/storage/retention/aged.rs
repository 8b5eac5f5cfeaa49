//! Tables whose rows are removed one by one when they are old.

use crate::{
    metrics::Pruned,
    storage::{Error, Session},
};
use std::time::Duration;

/// A table whose rows have an age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aged {
    /// What its rows are.
    pub kind: Pruned,
    statement: &'static str,
    table: String,
    key: &'static str,
    since: &'static str,
}

impl Aged {
    /// Dead letters, since they were resolved.
    pub fn dead_letters() -> Self {
        Self::new(Pruned::DeadLetter, "prune_dead_letters", "tasker.dead_letters", "id", "resolved_at")
    }

    /// Archived tasks with their rows, since they were archived.
    pub fn archived_tasks() -> Self {
        Self::new(Pruned::ArchivedTask, "prune_archived_tasks", "tasker.archived_tasks", "id", "archived_at")
    }

    /// Workers, since they were heard of last.
    pub fn workers() -> Self {
        Self::new(Pruned::Worker, "prune_workers", "tasker.workers", "id", "heartbeat_at")
    }

    /// The record of what operators did.
    fn audit() -> Self {
        Self::new(Pruned::Audit, "prune_audit", "tasker.audit_log", "id", "at")
    }

    fn new(kind: Pruned, statement: &'static str, table: &str, key: &'static str, since: &'static str) -> Self {
        Self { kind, statement, table: table.to_owned(), key, since }
    }
}

/// The archives of all queues, since their messages came there.
///
/// # Errors
/// [`Error::Statement`].
pub async fn archives(session: &mut Session) -> Result<Vec<Aged>, Error> {
    let query = sqlx::query_as(
        "-- list_archives
         select c.relname::text from pgmq.meta m join pg_class c on c.relname = 'a_' || m.queue_name
          where c.relnamespace = 'pgmq'::regnamespace and c.relkind = 'r' and c.relname ~ '^a_[a-z0-9_]+$' order by 1",
    );
    let tables: Vec<(String,)> = session.fetch("list_archives", query).await?;
    let aged = |(table,): (String,)| {
        Aged::new(Pruned::QueueArchive, "prune_archive", &format!("pgmq.{table}"), "msg_id", "archived_at")
    };
    Ok(tables.into_iter().map(aged).collect())
}

/// The record of what operators did, where this schema keeps one.
///
/// # Errors
/// [`Error::Statement`].
pub async fn audit(session: &mut Session) -> Result<Option<Aged>, Error> {
    let query = sqlx::query_as("-- look_for_audit\nselect to_regclass('tasker.audit_log') is not null");
    let row: Option<(bool,)> = session.fetch_optional("look_for_audit", query).await?;
    Ok(row.is_some_and(|(kept,)| kept).then(Aged::audit))
}

/// Removes up to `limit` rows that are older than `age`, the oldest first; answers with how many there were and how far beyond their
/// age the oldest was.
///
/// # Errors
/// [`Error::Statement`].
pub async fn prune(session: &mut Session, aged: &Aged, age: Duration, limit: i64) -> Result<(u64, Duration), Error> {
    let Aged { statement, table, key, since, .. } = aged;
    let sql = format!(
        "-- {statement}
         with old as materialized (
             select {key} from {table} where {since} < statement_timestamp() - make_interval(secs => $1)
              order by {since} limit $2 for update skip locked),
         gone as (delete from {table} where {key} = any (array (select {key} from old)) returning {since})
         select count(*), coalesce(extract(epoch from statement_timestamp() - min({since})) - $1, 0)::double precision from gone"
    );
    let query = sqlx::query_as(&sql).bind(age.as_secs_f64()).bind(limit);
    let row: Option<(i64, f64)> = session.fetch_optional(statement, query).await?;
    let (rows, overdue) = row.unwrap_or_default();
    Ok((rows.unsigned_abs(), Duration::from_secs_f64(overdue.max(0.0))))
}
