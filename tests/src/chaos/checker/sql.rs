//! The invariants as SQL: each statement counts what must not be. They can be run by hand on any database.

use super::{Promise, Violations};
use anyhow::Result;
use sqlx::PgConnection;

/// What each counts, the promise it belongs to, and the statement.
pub const INVARIANTS: &[(&str, Promise, &str)] = &[
    (
        "steps that completed more than once",
        Promise::CountedOnce,
        "select count(*) from (select from tasker.step_transitions where to_state = 'complete'
           group by step_id having count(*) > 1) x",
    ),
    (
        "attempts with more than one report",
        Promise::CountedOnce,
        "select count(*) from (select from tasker.step_transitions where to_state = 'reported'
           group by step_id, attempt having count(*) > 1) x",
    ),
    (
        "attempts that were claimed more than once",
        Promise::CountedOnce,
        "select count(*) from (select from tasker.step_transitions where to_state = 'in_progress'
           group by step_id, attempt having count(*) > 1) x",
    ),
    (
        "steps whose history does not hang together",
        Promise::LegalHistory,
        "select count(*) from (
           select from_state, lag(to_state, 1, 'pending') over (partition by step_id order by id) as before
             from tasker.step_transitions) x where from_state <> before",
    ),
    (
        "tasks whose history does not hang together",
        Promise::LegalHistory,
        "select count(*) from (
           select from_state, lag(to_state) over (partition by task_id order by id) as before
             from tasker.task_transitions) x where from_state is distinct from before",
    ),
    (
        "tasks with one idempotency key",
        Promise::OneTask,
        "select count(*) from (select from tasker.tasks where idempotency_key is not null
           group by namespace, name, idempotency_key having count(*) > 1) x",
    ),
    (
        "tasks whose counters disagree with their steps",
        Promise::Agreement,
        "select count(*) from tasker.tasks t join lateral (
           select count(*) filter (where state not in ('complete', 'skipped', 'resolved_manually')) as remaining,
                  count(*) filter (where state in ('enqueued', 'in_progress', 'reported', 'waiting_for_retry')
                                      or state = 'pending' and waiting_on = 0) as active
             from tasker.steps s where s.task_id = t.id) n on true
          where (t.remaining_steps, t.active_steps) <> (n.remaining, n.active)",
    ),
    (
        "tasks that began before their time",
        Promise::Limits,
        "select count(*) from tasker.tasks t where exists (
           select from tasker.step_transitions s where s.task_id = t.id and s.to_state = 'enqueued' and s.at < t.run_at)",
    ),
    (
        "rows of callers without their task",
        Promise::NothingLost,
        "select count(*) from chaos.orders o left join tasker.tasks t on t.id = o.task_id where t.id is null",
    ),
];

/// Runs all of them.
///
/// # Errors
/// The database refuses.
pub async fn check(connection: &mut PgConnection, found: &mut Violations) -> Result<()> {
    for (what, promise, sql) in INVARIANTS {
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut *connection).await?;
        found.unless(count == 0, *promise, || format!("{count} {what}"));
    }
    Ok(())
}
