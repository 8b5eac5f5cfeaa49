//! Tasks that retention archives while a run lasts: they are put back before anybody judges, so that the judge sees all.

use super::checker::{Promise, Violations};
use anyhow::{Context as _, Result};
use sqlx::PgConnection;
use std::time::Duration;

/// The tables whose rows are archived with their task, each after what it points to.
const OF_TASKS: [&str; 5] = ["steps", "step_edges", "task_transitions", "step_transitions", "dead_letters"];

/// Settings of services that archive tasks `kept` after their end, a few at a time.
pub fn settings(kept: Duration) -> Vec<(String, String)> {
    let kept = format!("{}s", kept.as_secs());
    let settings = [
        ("COMPLETE_AFTER", "1s"),
        ("FAILED_AFTER", "1s"),
        // every task of a run has a key
        ("IDENTITY_AFTER", &kept),
        ("ARCHIVE", "true"),
        ("SWEEP_INTERVAL_MS", "500"),
        ("BATCH_SIZE", "60"),
    ];
    settings.map(|(key, value)| (format!("TASKER__RETENTION__{key}"), value.to_owned())).into()
}

/// Puts the archived tasks back into the tables of the line, once nobody works there any more; answers how many.
///
/// # Errors
/// The database refuses: a task is in the archive and in its table, or its rows do not fit together.
pub async fn bring_back(connection: &mut PgConnection, kept: Duration, found: &mut Violations) -> Result<u64> {
    let early: i64 = sqlx::query_scalar(
        "select count(*) from tasker.archived_tasks
          where state not in ('complete', 'error', 'cancelled', 'resolved_manually')
             or archived_at < finished_at + make_interval(secs => $1)",
    )
    .bind(kept.as_secs_f64())
    .fetch_one(&mut *connection)
    .await?;
    found.unless(early == 0, Promise::NothingLost, || format!("{early} tasks were archived before their time"));
    let sql = "insert into tasker.tasks select r.* from tasker.archived_tasks, jsonb_populate_record(null::tasker.tasks, document) r";
    let archived = sqlx::query(sql).execute(&mut *connection).await.context("tasks")?.rows_affected();
    for table in OF_TASKS {
        let sql = format!(
            "insert into tasker.{table} select r.* from tasker.archived_rows, jsonb_populate_record(null::tasker.{table}, document) r
              where source = '{table}'"
        );
        sqlx::query(&sql).execute(&mut *connection).await.context(table)?;
    }
    Ok(archived)
}
