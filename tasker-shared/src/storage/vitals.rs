//! What the gauges of the whole system are made of: bounded looks at tasks, queues, and the health of PostgreSQL.

use super::{Error, Session, workers::LIVE_SECONDS};
use crate::{
    name::Name,
    queue::{STEP_RESULTS, TASK_REQUESTS},
    task::TaskState,
};

/// No queue is counted further than this: a backlog of this size needs a person, not a figure.
const MOST_COUNTED: i64 = 100_000;

/// How many of the messages that are read next tell a queue's age; with priorities the first need not be the oldest.
const LOOKED_AT: i64 = 1_000;

/// The system's work at one moment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Work {
    /// Tasks that have not ended, by state.
    pub tasks: Vec<(TaskState, i64)>,
    /// Workers with a fresh heartbeat, by namespace.
    pub workers: Vec<(Name, i64)>,
    /// Dead letters that nobody has dealt with.
    pub dead_letters: i64,
}

/// Counts tasks, workers and dead letters.
///
/// # Errors
/// [`Error::Statement`], [`Error::Inconsistent`] for a state or a name that is none.
pub async fn work(session: &mut Session) -> Result<Work, Error> {
    let query = sqlx::query_as(
        "-- count_work
         select 'task' as kind, state as name, count(*) from tasker.tasks where finished_at is null group by state
         union all
         select 'worker', n.name, count(w.id)
           from tasker.namespaces n
           left join tasker.workers w
             on w.stopped_at is null and w.heartbeat_at > clock_timestamp() - make_interval(secs => $1)
            and w.namespaces && array['*', n.name]
          group by n.name
         union all
         select 'dead_letter', '', count(*) from tasker.dead_letters where resolved_at is null",
    );
    let rows: Vec<(String, String, i64)> = session.fetch("count_work", query.bind(f64::from(LIVE_SECONDS))).await?;
    let mut work = Work::default();
    for (kind, name, count) in rows {
        match kind.as_str() {
            "task" => work.tasks.push((parsed(&name, "tasks", "state")?, count)),
            "worker" => work
                .workers
                .push((Name::new(&name).map_err(|reason| inconsistent("namespaces", "name", &name, &reason))?, count)),
            _ => work.dead_letters = count,
        }
    }
    Ok(work)
}

/// One queue at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Backlog {
    /// The queue's name.
    pub queue: String,
    /// The namespace whose steps it carries; `None` for those that all share.
    pub namespace: Option<Name>,
    /// Messages that can be read now.
    pub depth: i64,
    /// How long the oldest of them can be read already, in seconds; 0 where there is none.
    pub age_seconds: f64,
}

/// Looks at every queue: a bounded number of index entries each.
///
/// # Errors
/// [`Error::Statement`].
pub async fn backlogs(session: &mut Session) -> Result<Vec<Backlog>, Error> {
    let query = sqlx::query_as("-- list_queues\nselect name, queue from tasker.namespaces order by name");
    let of_namespaces: Vec<(Name, String)> = session.fetch("list_queues", query).await?;
    let shared = [TASK_REQUESTS, STEP_RESULTS].map(|queue| (None, queue.to_owned()));
    let queues: Vec<(Option<Name>, String)> =
        shared.into_iter().chain(of_namespaces.into_iter().map(|(name, queue)| (Some(name), queue))).collect();
    // statement_timestamp() can be looked up in the index, clock_timestamp() cannot
    let looks: Vec<String> = queues
        .iter()
        .enumerate()
        .map(|(place, (_, queue))| {
            format!(
                "select {place}, (select count(*) from (
                            select from pgmq.q_{queue} where vt <= statement_timestamp() limit {MOST_COUNTED}) v),
                        (select coalesce(max(extract(epoch from statement_timestamp() - greatest(enqueued_at, vt))), 0)
                           from (select enqueued_at, vt from pgmq.q_{queue} where vt <= statement_timestamp()
                                  order by vt limit {LOOKED_AT}) h)::double precision"
            )
        })
        .collect();
    let sql = format!("-- look_at_queues\n{}", looks.join("\nunion all\n"));
    let rows: Vec<(i32, i64, f64)> = session.fetch("look_at_queues", sqlx::query_as(&sql)).await?;
    let backlog = |(place, depth, age): (i32, i64, f64)| {
        let (namespace, queue) = queues.get(usize::try_from(place).ok()?)?.clone();
        Some(Backlog { queue, namespace, depth, age_seconds: age.max(0.0) })
    };
    Ok(rows.into_iter().filter_map(backlog).collect())
}

/// A table of the line or of a queue.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Table {
    /// Its name with the schema.
    pub name: String,
    /// Rows that vacuum has yet to remove.
    pub dead_tuples: i64,
    /// Its size without its indexes, in bytes.
    pub table_size: i64,
    /// The size of its indexes, in bytes.
    pub index_size: i64,
    /// Seconds since it was vacuumed; `None` if it never was.
    pub vacuum_age: Option<f64>,
    /// Seconds since it was analyzed; `None` if it never was.
    pub analyze_age: Option<f64>,
}

/// The tables of schema `tasker` and of the queues, as PostgreSQL's statistics know them.
///
/// # Errors
/// [`Error::Statement`].
pub async fn tables(session: &mut Session) -> Result<Vec<Table>, Error> {
    let query = sqlx::query_as(
        "-- look_at_tables
         select schemaname || '.' || relname as name, n_dead_tup as dead_tuples, pg_table_size(relid) as table_size,
                pg_indexes_size(relid) as index_size,
                extract(epoch from clock_timestamp() - greatest(last_vacuum, last_autovacuum))::double precision as vacuum_age,
                extract(epoch from clock_timestamp() - greatest(last_analyze, last_autoanalyze))::double precision as analyze_age
           from pg_stat_user_tables
          where schemaname = 'tasker' or schemaname = 'pgmq' and relname like 'q\\_%'",
    );
    session.fetch("look_at_tables", query).await
}

/// The server at one moment.
#[derive(Debug, Clone, Copy, PartialEq, sqlx::FromRow)]
pub struct Server {
    /// Age of the oldest snapshot of this database, in seconds: what it sees, vacuum cannot remove.
    pub snapshot_age: f64,
    /// How full the notification queue is, from 0 to 1.
    pub notification_usage: f64,
    /// How much was ever written ahead, in bytes; `None` on a standby.
    pub wal: Option<i64>,
}

/// Looks at what keeps PostgreSQL from cleaning up, and at how much it writes.
///
/// # Errors
/// [`Error::Statement`].
pub async fn server(session: &mut Session) -> Result<Option<Server>, Error> {
    let query = sqlx::query_as(
        "-- look_at_server
         select coalesce((select max(extract(epoch from clock_timestamp() - xact_start)) from pg_stat_activity
                           where datname = current_database() and backend_xmin is not null
                             and pid <> pg_backend_pid()), 0)::double precision as snapshot_age,
                pg_notification_queue_usage() as notification_usage,
                case when not pg_is_in_recovery() then (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint end as wal",
    );
    session.fetch_optional("look_at_server", query).await
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    text: &str,
    table: &'static str,
    column: &'static str,
) -> Result<T, Error> {
    text.parse().map_err(|reason| inconsistent(table, column, text, &reason))
}

fn inconsistent(table: &'static str, column: &'static str, row: &str, reason: &dyn std::fmt::Display) -> Error {
    Error::Inconsistent { table, column, row: row.to_owned(), reason: reason.to_string() }
}
