//! The history of a task: its own transitions and those of its steps, in one order.

use super::{Error, Session};
use crate::{api::Transition, id::TaskId};
use chrono::{DateTime, Utc};

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    step: Option<String>,
    from_state: Option<String>,
    to_state: String,
    attempt: Option<i32>,
    actor: String,
    reason: Option<String>,
    at: DateTime<Utc>,
}

/// Every transition of a task and its steps, the oldest first. Workers are named where they are still known.
///
/// # Errors
/// [`Error::Statement`].
pub async fn of_task(session: &mut Session, task: TaskId) -> Result<Vec<Transition>, Error> {
    let query = sqlx::query_as(
        "-- read_history
         select h.id, h.step, h.from_state, h.to_state, h.attempt,
                coalesce((select 'worker:' || w.name from tasker.workers w where h.actor = 'worker:' || w.id), h.actor) as actor,
                h.reason, h.at
           from (select id, null as step, from_state, to_state, null::integer as attempt, actor, reason, at
                   from tasker.task_transitions where task_id = $1
                 union all
                 select h.id, s.name, h.from_state, h.to_state, h.attempt, h.actor, h.reason, h.at
                   from tasker.step_transitions h join tasker.steps s on s.id = h.step_id where h.task_id = $1) h
          order by h.id",
    );
    let rows: Vec<Row> = session.fetch("read_history", query.bind(task)).await?;
    Ok(rows
        .into_iter()
        .map(|row| Transition {
            sequence: row.id,
            step: row.step,
            from: row.from_state,
            to: row.to_state,
            attempt: row.attempt,
            actor: row.actor,
            reason: row.reason,
            at: row.at,
        })
        .collect())
}
