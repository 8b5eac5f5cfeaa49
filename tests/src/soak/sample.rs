//! What is looked at again and again.

use anyhow::{Context, Result};
use serde::Serialize;
use sqlx::PgPool;
use std::{
    fs,
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// One look.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since the load began.
    pub at: f64,
    /// Tasks that ended since the last look, each second.
    pub tasks_per_second: f64,
    /// From acceptance to end, in milliseconds: half of these tasks were quicker.
    pub p50_ms: f64,
    /// 95 of 100 were quicker.
    pub p95_ms: f64,
    /// 99 of 100 were quicker.
    pub p99_ms: f64,
    /// All tables of Tasker and its queues, in bytes.
    pub tables: f64,
    /// The queues' part of that with their indexes, in bytes.
    pub queues: f64,
    /// The tables' indexes, in bytes.
    pub indexes: f64,
    /// Rows that vacuum has yet to remove.
    pub dead_rows: f64,
    /// Tasks that are there, open or not.
    pub tasks: f64,
    /// Resident memory of the orchestration, in bytes.
    pub orchestration: f64,
    /// Resident memory of the worker, in bytes.
    pub worker: f64,
}

/// Looks at a database and two processes.
pub(super) struct Sampler {
    pool: PgPool,
    every: Duration,
    processes: [i32; 2],
}

impl Sampler {
    pub(super) fn new(pool: PgPool, every: Duration, processes: [i32; 2]) -> Self {
        Self { pool, every, processes }
    }

    /// Looks again and again until `end`.
    pub(super) async fn run(self, end: CancellationToken) -> Result<Vec<Sample>> {
        let (started, mut before) = (Instant::now(), 0.0);
        let mut samples = Vec::new();
        let mut tick = interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.tick().await;
        while end.run_until_cancelled(tick.tick()).await.is_some() {
            let at = started.elapsed().as_secs_f64();
            samples.push(Sample { at, ..self.look(at - before).await? });
            before = at;
        }
        Ok(samples)
    }

    async fn look(&self, seconds: f64) -> Result<Sample> {
        let (ended, p50_ms, p95_ms, p99_ms): (i64, f64, f64, f64) = sqlx::query_as(
            "select count(*), coalesce(percentile_cont(0.5) within group (order by ms), 0),
                    coalesce(percentile_cont(0.95) within group (order by ms), 0),
                    coalesce(percentile_cont(0.99) within group (order by ms), 0)
               from (select (extract(epoch from finished_at - created_at) * 1000)::double precision as ms from tasker.tasks
                      where finished_at > statement_timestamp() - make_interval(secs => $1)) t",
        )
        .bind(seconds)
        .fetch_one(&self.pool)
        .await?;
        let (tables, queues, indexes, dead_rows): (f64, f64, f64, f64) = sqlx::query_as(
            "select sum(pg_table_size(relid))::double precision,
                    sum(pg_total_relation_size(relid)) filter (where schemaname = 'pgmq')::double precision,
                    sum(pg_indexes_size(relid))::double precision,
                    sum(n_dead_tup)::double precision
               from pg_stat_user_tables where schemaname in ('tasker', 'pgmq')",
        )
        .fetch_one(&self.pool)
        .await?;
        let tasks: i64 = sqlx::query_scalar("select count(*) from tasker.tasks").fetch_one(&self.pool).await?;
        let [orchestration, worker] = self.processes.map(resident);
        Ok(Sample {
            at: 0.0,
            tasks_per_second: ended as f64 / seconds,
            p50_ms,
            p95_ms,
            p99_ms,
            tables,
            queues,
            indexes,
            dead_rows,
            tasks: tasks as f64,
            orchestration: orchestration?,
            worker: worker?,
        })
    }
}

/// The resident memory of a process, in bytes.
fn resident(process: i32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process has memory")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0)
}
