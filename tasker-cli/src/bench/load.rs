//! The load: single tasks for latency, and as many as are allowed at once for throughput.

use crate::{
    error::{Error, Result},
    exit::Exit,
    local::Local,
};
use serde::Serialize;
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};
use tasker_orchestration::{Orchestration, submit};
use tasker_shared::{
    api::SubmitTask,
    id::TaskId,
    runtime::Finished,
    storage::{self, tasks},
};
use tokio::sync::broadcast::{self, error::RecvError};

/// The namespace of the benchmark's template.
pub(super) const NAMESPACE: &str = "bench";

/// The benchmark's template.
pub(super) const NAME: &str = "linear";

/// The most tasks of one submission.
const BATCH: usize = 100;

/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// PostgreSQL's sessions tell their statistics at most once in this time.
const STATISTICS: Duration = Duration::from_millis(1500);

/// How long single tasks took, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Latency {
    /// Half of them were quicker.
    pub p50: f64,
    /// Nine of ten were quicker.
    pub p90: f64,
    /// 99 of 100 were quicker.
    pub p99: f64,
    /// The slowest one.
    pub max: f64,
    /// How many were measured.
    pub samples: usize,
}

/// What the system did at saturation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub steps_per_second: f64,
    pub transactions_per_step: f64,
    pub seconds: f64,
}

/// Measures tasks one after the other, each from its submission to the announcement of its end.
pub(super) async fn latency(orchestration: &Orchestration, samples: usize) -> Result<Latency> {
    let warm_up = samples.clamp(1, 50);
    let mut took = Vec::with_capacity(samples);
    let mut finished = orchestration.bell().finished();
    for sample in 0..warm_up + samples {
        let started = Instant::now();
        let task = submit_many(orchestration, 1).await?;
        let mut open: HashSet<TaskId> = task.into_iter().collect();
        while !open.is_empty() {
            heard(orchestration, &mut finished, &mut open).await?;
        }
        if sample >= warm_up {
            took.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    }
    took.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let index = (part * (took.len().max(1) - 1) as f64).round() as usize;
        took.get(index).map_or(0.0, |ms| (ms * 1000.0).round() / 1000.0)
    };
    Ok(Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0), samples })
}

/// Keeps `most` tasks open for `duration`, after a fifth of that as warm-up.
pub(super) async fn saturate(local: &Local, most: usize, duration: Duration, steps: u16) -> Result<Load> {
    let orchestration = &local.orchestration;
    let mut finished = orchestration.bell().finished();
    let mut open = HashSet::new();
    tokio::time::sleep(STATISTICS).await;
    let transactions = transactions(local).await?;
    let began = Instant::now();
    let warm = duration / 5;
    let (mut ended, mut counted) = (0usize, 0usize);
    let mut window = None;
    while began.elapsed() < warm + duration {
        while open.len() + BATCH <= most.max(BATCH) {
            open.extend(submit_many(orchestration, BATCH).await?);
            drain(&mut finished, &mut open, &mut ended);
        }
        ended += heard(orchestration, &mut finished, &mut open).await?;
        if window.is_none() && began.elapsed() >= warm {
            window = Some((Instant::now(), ended));
        }
    }
    let seconds = window.map_or(duration, |(since, before)| {
        counted = ended - before;
        since.elapsed()
    });
    while !open.is_empty() {
        ended += heard(orchestration, &mut finished, &mut open).await?;
    }
    tokio::time::sleep(STATISTICS).await;
    let spent = self::transactions(local).await? - transactions;
    Ok(Load {
        steps_per_second: counted as f64 * f64::from(steps) / seconds.as_secs_f64(),
        transactions_per_step: spent as f64 / (ended as f64 * f64::from(steps)),
        seconds: (seconds.as_secs_f64() * 10.0).round() / 10.0,
    })
}

fn drain(finished: &mut broadcast::Receiver<Finished>, open: &mut HashSet<TaskId>, ended: &mut usize) {
    while let Ok(Finished::Tasks(tasks)) = finished.try_recv() {
        *ended += tasks.iter().filter(|task| open.remove(task)).count();
    }
}

/// Waits for the next announcement; answers with how many open tasks have ended.
async fn heard(
    orchestration: &Orchestration,
    finished: &mut broadcast::Receiver<Finished>,
    open: &mut HashSet<TaskId>,
) -> Result<usize> {
    match tokio::time::timeout(PATIENCE, finished.recv()).await {
        Ok(Ok(Finished::Tasks(tasks))) => Ok(tasks.iter().filter(|task| open.remove(task)).count()),
        Ok(Ok(Finished::Some) | Err(RecvError::Lagged(_))) => {
            let asked: Vec<TaskId> = open.iter().copied().collect();
            let mut session = orchestration.database().session("bench").await.map_err(broken)?;
            let ended = tasks::ended(&mut session, &asked).await.map_err(broken)?;
            Ok(ended.iter().filter(|task| open.remove(task)).count())
        }
        Ok(Err(RecvError::Closed)) => Err(broken("the system has stopped")),
        Err(_) => Err(broken(format!("{} tasks did not end within {PATIENCE:?}", open.len()))),
    }
}

async fn submit_many(orchestration: &Orchestration, count: usize) -> Result<Vec<TaskId>> {
    let task = SubmitTask {
        namespace: NAMESPACE.to_owned(),
        name: NAME.to_owned(),
        input: serde_json::json!({}),
        ..SubmitTask::default()
    };
    let answers = submit::submit(orchestration, vec![task; count]).await.map_err(broken)?;
    answers.into_iter().map(|answer| answer.map(|task| task.task_id).map_err(broken)).collect()
}

async fn transactions(local: &Local) -> Result<i64> {
    sqlx::query_scalar("select xact_commit from pg_stat_database where datname = current_database()")
        .fetch_one(local.database.pool())
        .await
        .map_err(|source| broken(storage::Error::Statement { doing: "read_statistics", source }))
}

pub(super) fn broken(error: impl std::fmt::Display) -> Error {
    Error::new(Exit::Broken, "bench", error.to_string())
}
