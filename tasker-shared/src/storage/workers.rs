//! Table `workers`: which processes there are, and when they were heard of last.

use super::{Error, Session};
use crate::{api::WorkerSummary, id::WorkerId};
use chrono::{DateTime, Utc};

/// A worker is live while its last heartbeat is not older than this, in seconds.
pub const LIVE_SECONDS: i32 = 45;

/// What a worker says of itself.
#[derive(Debug, Clone)]
pub struct Registration {
    /// This process.
    pub id: WorkerId,
    /// For people.
    pub name: String,
    /// The namespaces it serves; `*` is every one.
    pub namespaces: Vec<String>,
    /// The handlers it has.
    pub handlers: Vec<String>,
    /// The version of the program.
    pub version: String,
}

/// Tells that a worker is there: at its start and at each heartbeat.
///
/// # Errors
/// [`Error::Statement`].
pub async fn heartbeat(session: &mut Session, worker: &Registration) -> Result<(), Error> {
    let query = sqlx::query(
        "-- heartbeat
         insert into tasker.workers as w (id, name, namespaces, handlers, version) values ($1, $2, $3, $4, $5)
         on conflict (id) do update set heartbeat_at = clock_timestamp(), stopped_at = null",
    )
    .bind(worker.id)
    .bind(&worker.name)
    .bind(&worker.namespaces)
    .bind(&worker.handlers)
    .bind(&worker.version);
    session.execute("heartbeat", query).await.map(drop)
}

/// Tells that a worker is gone.
///
/// # Errors
/// [`Error::Statement`].
pub async fn stopped(session: &mut Session, worker: WorkerId) -> Result<(), Error> {
    let query =
        sqlx::query("-- worker_stopped\nupdate tasker.workers set stopped_at = clock_timestamp() where id = $1");
    session.execute("worker_stopped", query.bind(worker)).await.map(drop)
}

#[derive(sqlx::FromRow)]
struct Row {
    id: WorkerId,
    name: String,
    namespaces: Vec<String>,
    handlers: Vec<String>,
    version: String,
    live: bool,
    running: i64,
    started_at: DateTime<Utc>,
    heartbeat_at: DateTime<Utc>,
}

/// Every worker that is known, by name.
///
/// # Errors
/// [`Error::Statement`].
pub async fn list(session: &mut Session) -> Result<Vec<WorkerSummary>, Error> {
    let query = sqlx::query_as(
        "-- list_workers
         -- one walk over the open tasks, however many workers there are
         with running as materialized (
             select s.worker_id, count(*) as steps from tasker.tasks t join tasker.steps s on s.task_id = t.id
              where t.finished_at is null and s.state = 'in_progress' group by s.worker_id)
         select w.id, w.name, w.namespaces, w.handlers, w.version, w.started_at, w.heartbeat_at,
                w.stopped_at is null and w.heartbeat_at > clock_timestamp() - make_interval(secs => $1) as live,
                coalesce(r.steps, 0) as running
           from tasker.workers w left join running r on r.worker_id = w.id order by w.name, w.started_at",
    );
    let rows: Vec<Row> = session.fetch("list_workers", query.bind(f64::from(LIVE_SECONDS))).await?;
    Ok(rows
        .into_iter()
        .map(|row| WorkerSummary {
            worker_id: row.id,
            name: row.name,
            namespaces: row.namespaces,
            handlers: row.handlers,
            version: row.version,
            live: row.live,
            running: row.running,
            started_at: row.started_at,
            heartbeat_at: row.heartbeat_at,
        })
        .collect())
}
