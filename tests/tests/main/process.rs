//! The real services are killed, stopped, told to stop and cut off from their database; no work is lost or done twice.

use crate::stage::{Stage, exists};
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use std::time::Duration;
use tasker_shared::{step::StepState, task::TaskState};
use tasker_tests::{
    process::{ORCHESTRATION, Process, WORKER},
    system::eventually,
};

/// So long that no test sees it run out.
const LONG_LEASE: (&str, &str) = ("TASKER__WORKER__LEASE_MS", "60000");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_step_of_a_killed_worker_runs_again_on_another() -> Result<()> {
    let stage = Stage::start().await?;
    let mut first = stage.worker(&[])?;
    let task = stage.begin_guarded().await?;
    stage.handler_runs(1).await?;
    first.kill9().await?;
    stage.open(2)?;
    let mut second = stage.worker(&[])?;
    let done = stage.ended(task).await?;
    assert_eq!(done.summary.state, TaskState::Complete);
    assert_eq!(done.steps[0].attempt, 2);
    assert_eq!(done.steps[0].result, Some(serde_json::json!({"attempt": 2})));
    let history = stage.client.history(task).await?;
    let lost = history.transitions.iter().filter(|t| t.reason.as_deref() == Some("the lease ran out")).count();
    assert_eq!(lost, 1, "{history:#?}");
    second.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_frozen_longer_than_its_lease_cannot_report() -> Result<()> {
    let stage = Stage::start().await?;
    let mut frozen = stage.worker(&[])?;
    let task = stage.begin_guarded().await?;
    stage.handler_runs(1).await?;
    frozen.signal(Signal::SIGSTOP)?;
    stage.open(2)?;
    let mut other = stage.worker(&[])?;
    let done = stage.ended(task).await?;
    assert_eq!(done.steps[0].attempt, 2);
    // the handler of the first attempt ends while its worker is frozen
    stage.open(1)?;
    frozen.signal(Signal::SIGCONT)?;
    frozen.wrote("a report was refused").await?;
    let after = stage.client.task(task).await?;
    assert_eq!(after.steps[0], done.steps[0], "the late outcome changes nothing");
    let reported = "select count(*) from tasker.step_transitions where to_state = 'reported'";
    assert_eq!(stage.count(reported).await?, 1);
    frozen.drain().await?;
    other.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_is_lost_when_the_only_orchestration_is_killed() -> Result<()> {
    let mut stage = Stage::start().await?;
    let mut worker = stage.worker(&[])?;
    stage.submit_chains(200).await?;
    stage.steps_done_reach(100).await?;
    stage.orchestration.kill9().await?;
    ensure!(stage.open_tasks().await? > 0, "it was killed in the middle");
    stage.replace_orchestration().await?;
    stage.chains_are_done(200).await?;
    let more_than_once = "select count(*) from tasker.steps where attempt <> 1";
    assert_eq!(stage.count(more_than_once).await?, 0, "no worker was killed, so no step ran twice");
    worker.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_each_share_the_work_and_survive_the_death_of_one_of_each() -> Result<()> {
    let mut stage = Stage::start().await?;
    let mut second_orchestration = Process::service(ORCHESTRATION, &stage.database.url, &[])?;
    let (mut killed, mut survivor) = (stage.worker(&[])?, stage.worker(&[])?);
    killed.url().await?;
    survivor.url().await?;
    second_orchestration.url().await?;
    stage.submit_chains(200).await?;
    stage.steps_done_reach(40).await?;
    killed.kill9().await?;
    stage.steps_done_reach(120).await?;
    stage.orchestration.kill9().await?;
    ensure!(stage.open_tasks().await? > 0, "they were killed in the middle");
    stage.client = second_orchestration.client().await?;
    stage.chains_are_done(200).await?;
    survivor.drain().await?;
    second_orchestration.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_told_to_stop_finishes_its_handlers_and_claims_no_more() -> Result<()> {
    let stage = Stage::start().await?;
    let mut worker = stage.worker(&[])?;
    let pages = worker.url().await?;
    let running = stage.begin_guarded().await?;
    stage.handler_runs(1).await?;
    worker.signal(Signal::SIGTERM)?;
    worker.wrote("the worker drains").await?;
    for (page, status) in [("/health/live", 200), ("/health/ready", 503), ("/health", 503)] {
        assert_eq!(reqwest::get(format!("{pages}{page}")).await?.status(), status, "{page}");
    }
    let detailed: serde_json::Value = reqwest::get(format!("{pages}/health/detailed")).await?.json().await?;
    assert_eq!(detailed["status"], "draining");
    let late = stage.submit("chain", serde_json::json!({})).await?;
    stage.open(1)?;
    assert_eq!(stage.ended(running).await?.steps[0].attempt, 1);
    assert_eq!(worker.ended().await?.code(), Some(0), "{}", worker.text());
    let waiting = stage.client.task(late).await?;
    assert_eq!(waiting.steps[0].state, StepState::Enqueued, "a worker that stops claims nothing");
    let mut other = stage.worker(&[])?;
    assert_eq!(stage.ended(late).await?.summary.state, TaskState::Complete);
    other.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_longer_than_the_grace_is_stopped_and_its_step_runs_elsewhere_at_once() -> Result<()> {
    let stage = Stage::start().await?;
    let mut worker = stage.worker(&[LONG_LEASE, ("TASKER__WORKER__SHUTDOWN_GRACE_MS", "200")])?;
    let task = stage.begin_guarded().await?;
    let handler = stage.handler_runs(1).await?;
    let mut other = stage.worker(&[LONG_LEASE])?;
    other.url().await?;
    stage.open(2)?;
    worker.drain().await?;
    let done = stage.ended(task).await?;
    assert_eq!((done.summary.state, done.steps[0].attempt), (TaskState::Complete, 2));
    eventually("the program of the first attempt is gone", async || Ok(!exists(handler))).await?;
    other.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_stops_at_once() -> Result<()> {
    let mut stage = Stage::start().await?;
    let mut worker = stage.worker(&[LONG_LEASE, ("TASKER__WORKER__SHUTDOWN_GRACE_MS", "60000")])?;
    let task = stage.begin_guarded().await?;
    stage.handler_runs(1).await?;
    worker.signal(Signal::SIGTERM)?;
    worker.wrote("draining").await?;
    worker.signal(Signal::SIGINT)?;
    assert_eq!(worker.ended().await?.code(), Some(130), "{}", worker.text());
    stage.client.cancel(task, &tasker_shared::api::Action::default()).await?;
    stage.orchestration.signal(Signal::SIGINT)?;
    assert_eq!(stage.orchestration.ended().await?.code(), Some(0), "Ctrl-C drains too");
    stage.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_measured_is_sent_before_the_process_ends() -> Result<()> {
    let collector = crate::stage::Collector::start().await?;
    let stage = Stage::start().await?;
    let mut worker = stage.worker(&[
        ("TASKER__TELEMETRY__OPENTELEMETRY__ENABLED", "true"),
        ("TASKER__TELEMETRY__OPENTELEMETRY__PROTOCOL", "http/protobuf"),
        ("TASKER__TELEMETRY__OPENTELEMETRY__ENDPOINT", &collector.url),
        ("TASKER__TELEMETRY__OPENTELEMETRY__EXPORT_INTERVAL_MS", "3600000"),
        ("TASKER__TELEMETRY__OPENTELEMETRY__BATCH_DELAY_MS", "3600000"),
    ])?;
    let task = stage.submit("chain", serde_json::json!({})).await?;
    stage.ended(task).await?;
    worker.drain().await?;
    assert_eq!(collector.sum("tasker.steps.successes.total"), 4.0);
    assert!(collector.spans() >= 4, "{} spans", collector.spans());
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_come_back_by_themselves_when_the_database_does() -> Result<()> {
    let root = tempfile::tempdir()?;
    let options = tasker_postgres::Options { durable: false, ..tasker_postgres::Options::new(root.path().join("pg")) };
    let mut cluster = tokio::task::spawn_blocking(move || tasker_postgres::Cluster::start(&options)).await??;
    let url = cluster.url("postgres");
    tasker_tests::system::migrate(&url).await?;
    let mut stage = Stage::on(tasker_tests::TestDatabase { name: "postgres".to_owned(), url }).await?;
    let mut worker = stage.worker(&[])?;
    let pages = [stage.orchestration.url().await?, worker.url().await?];
    let first = stage.begin_guarded().await?;
    stage.handler_runs(1).await?;

    let mut cluster = tokio::task::spawn_blocking(move || cluster.kill9().map(|()| cluster)).await??;
    for page in &pages {
        for (path, status) in
            [("/health", 503), ("/health/ready", 503), ("/health/detailed", 503), ("/health/live", 200)]
        {
            assert_eq!(reqwest::get(format!("{page}{path}")).await?.status(), status, "{page}{path}");
        }
        assert_eq!(reqwest::get(format!("{page}/metrics")).await?.status(), 200, "metrics need no database");
    }
    let refused = stage.client.task(first).await.expect_err("the database is gone");
    assert_eq!(refused.status(), Some(503), "{refused}");
    // the handler ends while its outcome cannot be stored
    stage.open(1)?;
    stage.open(2)?;
    let cluster = tokio::task::spawn_blocking(move || cluster.restart().map(|()| cluster)).await??;
    for page in &pages {
        eventually("the service is well again", async || {
            Ok(reqwest::get(format!("{page}/health/ready")).await?.status() == 200)
        })
        .await?;
    }
    assert_eq!(stage.ended(first).await?.summary.state, TaskState::Complete);
    let after = stage.submit("chain", serde_json::json!({})).await?;
    assert_eq!(stage.ended(after).await?.summary.state, TaskState::Complete);
    worker.drain().await?;
    stage.orchestration.drain().await?;
    tokio::task::spawn_blocking(move || drop(cluster)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_services_answer_metrics_in_both_formats() -> Result<()> {
    let stage = Stage::start().await?;
    let mut worker = stage.worker(&[])?;
    let task = stage.submit("chain", serde_json::json!({})).await?;
    stage.ended(task).await?;
    let http = reqwest::Client::new();
    for (page, series) in [
        (stage.orchestration.url().await?, "tasker_tasks_completions_total"),
        (worker.url().await?, "tasker_steps_successes_total"),
    ] {
        let plain = http.get(format!("{page}/metrics")).send().await?;
        assert!(plain.headers()["content-type"].to_str()?.starts_with("text/plain; version=0.0.4"));
        let plain = plain.text().await?;
        assert!(plain.contains(series) && !plain.contains("# EOF"), "{plain}");
        let accept = "application/openmetrics-text; version=1.0.0";
        let open = http.get(format!("{page}/metrics")).header("accept", accept).send().await?;
        assert!(open.headers()["content-type"].to_str()?.starts_with(accept));
        assert!(open.text().await?.ends_with("# EOF\n"));
    }
    worker.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orchestration_told_to_stop_answers_who_waits() -> Result<()> {
    let mut stage = Stage::start().await?;
    let task = stage.submit("chain", serde_json::json!({})).await?;
    let client = stage.client.clone();
    let waiting = tokio::spawn(async move { client.wait(task, Duration::from_secs(60)).await });
    let pages = stage.orchestration.url().await?;
    eventually("the request is being answered", async || {
        let metrics = reqwest::get(format!("{pages}/metrics")).await?.text().await?;
        let active = metrics.lines().filter(|line| line.starts_with("http_server_active_requests{"));
        let open: f64 = active.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        Ok(open >= 2.0)
    })
    .await?;
    stage.orchestration.drain().await?;
    assert_eq!(waiting.await??.summary.state, TaskState::InProgress);
    stage.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_needs_no_orchestration_to_start() -> Result<()> {
    let mut stage = Stage::start().await?;
    stage.orchestration.drain().await?;
    let mut worker = Process::service(WORKER, &stage.database.url, &[])?;
    let pages = worker.url().await?;
    assert_eq!(reqwest::get(format!("{pages}/health/ready")).await?.status(), 200);
    worker.drain().await?;
    stage.drop().await
}
