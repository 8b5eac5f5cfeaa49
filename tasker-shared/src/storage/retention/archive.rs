//! Tables `archived_tasks` and `archived_rows`: tasks that were removed, as JSON.

use crate::{
    id::{CorrelationId, TaskId},
    storage::{Error, Session, Stored},
    task::TaskState,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

/// A task that was archived.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct Archived {
    /// The task.
    pub id: TaskId,
    /// Its namespace.
    pub namespace: String,
    /// Its template.
    pub name: String,
    /// Its template's version.
    pub version: String,
    /// Its final state.
    pub state: TaskState,
    /// Joins it with traces, logs and metrics.
    pub correlation_id: CorrelationId,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// When it was archived.
    pub archived_at: DateTime<Utc>,
}

/// A row of an archived task.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct ArchivedRow {
    /// The table it is from.
    pub source: String,
    /// The row.
    #[sqlx(try_from = "Stored")]
    pub document: Value,
}

/// Copies tasks that are locked in this transaction, with all that belongs to them, into the archive.
///
/// # Errors
/// [`Error::Statement`].
pub async fn archive(session: &mut Session, tasks: &[TaskId]) -> Result<u64, Error> {
    let query = sqlx::query(
        "-- archive_tasks
         insert into tasker.archived_tasks (id, namespace, name, version, state, correlation_id, finished_at, document)
         select t.id, t.namespace, t.name, t.version, t.state, t.correlation_id, t.finished_at, to_jsonb(t)
           from tasker.tasks t where t.id = any ($1)",
    );
    let archived = session.execute("archive_tasks", query.bind(tasks)).await?;
    let query = sqlx::query(
        "-- archive_rows
         insert into tasker.archived_rows (task_id, source, position, document)
         select s.task_id, 'steps', s.position, to_jsonb(s) from tasker.steps s where s.task_id = any ($1)
         union all
         select e.task_id, 'step_edges', row_number() over (partition by e.task_id order by e.parent_id, e.child_id), to_jsonb(e)
           from tasker.step_edges e where e.task_id = any ($1)
         union all
         select t.task_id, 'task_transitions', t.id, to_jsonb(t) from tasker.task_transitions t where t.task_id = any ($1)
         union all
         select t.task_id, 'step_transitions', t.id, to_jsonb(t) from tasker.step_transitions t where t.task_id = any ($1)
         union all
         select d.task_id, 'dead_letters', row_number() over (partition by d.task_id order by d.id), to_jsonb(d)
           from tasker.dead_letters d where d.task_id = any ($1)",
    );
    session.execute("archive_rows", query.bind(tasks)).await?;
    Ok(archived)
}

/// The tasks that were archived last.
///
/// # Errors
/// [`Error::Statement`].
pub async fn list(session: &mut Session, namespace: Option<&str>, limit: i64) -> Result<Vec<Archived>, Error> {
    let query = sqlx::query_as(
        "-- list_archived
         select id, namespace, name, version, state, correlation_id, finished_at, archived_at from tasker.archived_tasks
          where $1::text is null or namespace = $1 order by archived_at desc, id desc limit $2",
    );
    session.fetch("list_archived", query.bind(namespace).bind(limit)).await
}

/// The rows of an archived task, its own first; none when it is not in the archive.
///
/// # Errors
/// [`Error::Statement`].
pub async fn show(session: &mut Session, task: TaskId) -> Result<Vec<ArchivedRow>, Error> {
    let query = sqlx::query_as(
        "-- show_archived
         select source, document from (
             select 'tasks' as source, 0 as rank, 0 as position, document from tasker.archived_tasks where id = $1
             union all
             select source, array_position(array['steps', 'step_edges', 'task_transitions', 'step_transitions'], source),
                    position, document from tasker.archived_rows where task_id = $1) r
          order by rank nulls last, position",
    );
    session.fetch("show_archived", query.bind(task)).await
}
