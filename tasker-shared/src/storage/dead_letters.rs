//! Table `dead_letters`: what was parked because it could not be dealt with.

use super::{Error, Session};
use crate::{
    id::{DeadLetterId, StepId, TaskId},
    queue::Message,
};

/// Parks a message with the reason, once; the caller deletes it from its queue in the same transaction.
///
/// # Errors
/// [`Error::Statement`].
pub async fn park(
    session: &mut Session,
    queue: &str,
    message: &Message,
    reason: &'static str,
    detail: &str,
    task: Option<TaskId>,
    step: Option<StepId>,
) -> Result<(), Error> {
    let query = sqlx::query(
        "-- park_message
         insert into tasker.dead_letters (id, reason, queue, message, headers, detail, task_id, step_id, read_count)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(DeadLetterId::generate())
    .bind(reason)
    .bind(queue)
    .bind(&message.message)
    .bind(&message.headers)
    .bind(detail)
    .bind(task)
    .bind(step)
    .bind(message.read_ct);
    session.execute("park_message", query).await.map(drop)
}

/// How many parked messages nobody has dealt with.
///
/// # Errors
/// [`Error::Statement`].
pub async fn open(session: &mut Session) -> Result<i64, Error> {
    let query =
        sqlx::query_as("-- count_dead_letters\nselect count(*) from tasker.dead_letters where resolved_at is null");
    let row: Option<(i64,)> = session.fetch_optional("count_dead_letters", query).await?;
    Ok(row.map_or(0, |(n,)| n))
}
