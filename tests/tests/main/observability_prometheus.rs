//! A real Prometheus scrapes the real services while tasks run, complete, are retried and fail: every query of the
//! dashboards and every recording rule returns data.
//!
//! Needs `prometheus` of the distribution; without it the test says that it is skipped. Queries for single tasks are not
//! asked, because scraped series carry no correlation ids.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tasker_client::Client;
use tasker_shared::api::{ApplyTemplate, SubmitTask};
use tasker_tests::{
    TestDatabase,
    process::{ORCHESTRATION, Process, WORKER},
    prometheus::Server,
};

/// How long the queries may take until all of them return data: rates need some scrapes.
const PATIENCE: Duration = Duration::from_secs(120);

/// What does not happen in a run without accidents: metrics, and parts of queries.
const NOT_IN_THIS_RUN: &[&str] = &[
    "tasker_telemetry_overflow_total",
    "tasker_telemetry_export_failures_total",
    "tasker_queue_errors_total",
    "tasker_queue_visibility_timeouts_total",
    "tasker_queue_retry_attempts_total",
    "tasker_queue_messages_archived_total",
    "tasker_dlq_messages_total",
    "tasker_dlq_redrives_total",
    "tasker_steps_stalls_total",
    "tasker_concurrency_rejections_total",
    "tasker_worker_heartbeat_failures_total",
    "mpsc_channel_full_events_total",
    "api_requests_rejected_total",
    "tasker_api_requests_shed_total",
    "tasker_retention_duration_milliseconds",
    "tasker_db_last_vacuum_age_seconds",
    "tasker_db_last_analyze_age_seconds",
    "outcome=~\"error\"",
    "outcome=~\"retried\"",
    "outcome=~\"rolled_back|retried\"",
    "correlation_id",
];

const TEMPLATES: [&str; 2] = [
    "
name: good
namespace_name: views
version: 1.0.0
steps:
  - {name: a, handler: {callable: noop}, concurrency: {limit: 100}}
  - {name: b, dependencies: [a], handler: {callable: command, initialization: {argv: [echo, '{}']}}}
",
    "
name: bad
namespace_name: views
version: 1.0.0
steps:
  - name: a
    retry: {max_attempts: 2, backoff: none}
    handler: {callable: command, initialization: {argv: ['false']}}
",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_dashboards_and_recording_rules_returns_data() -> Result<()> {
    let database = TestDatabase::create().await?;
    let often = [
        ("TASKER__TELEMETRY__METRICS__PROBE_INTERVAL_MS", "1000"),
        ("TASKER__ORCHESTRATION__RATE_LIMITS__SUBMIT_PER_SECOND", "1000"),
    ];
    let mut orchestration = Process::service(ORCHESTRATION, &database.url, &often)?;
    let mut worker = Process::service(WORKER, &database.url, &often)?;
    let client = orchestration.client().await?;
    for source in TEMPLATES {
        client.apply(&ApplyTemplate { source: source.to_owned(), file: None }).await?;
    }
    let targets = [("tasker-orchestration", orchestration.url().await?), ("tasker-worker", worker.url().await?)];
    let Some(prometheus) = Server::start(config(&targets)).await? else { return Ok(()) };
    let asker = prometheus.asker()?;
    let mut waiting = queries();
    let started = Instant::now();
    while !waiting.is_empty() {
        run_some(&client, &targets).await?;
        let mut empty = Vec::new();
        for (place, query) in waiting {
            let numbers = asker.numbers(&query, None).await.context(place.clone())?;
            if numbers.iter().all(|number| number.is_nan()) {
                empty.push((place, query));
            }
        }
        waiting = empty;
        if started.elapsed() > PATIENCE {
            bail!("no data for {waiting:#?}");
        }
    }
    drop(prometheus);
    worker.drain().await?;
    orchestration.drain().await?;
    database.drop().await
}

/// Work, and requests to the pages.
async fn run_some(client: &Client, targets: &[(&str, String)]) -> Result<()> {
    let task =
        |name: &str| SubmitTask { namespace: "views".to_owned(), name: name.to_owned(), ..SubmitTask::default() };
    client.submit_many(vec![task("good"), task("good"), task("bad")]).await?;
    for (_, url) in targets {
        reqwest::get(format!("{url}/health/ready")).await?;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(())
}

/// Every query that must return data, with the place where it stands.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for dashboard in tasker_observability::dashboards() {
        let json = dashboard.json();
        for panel in json["panels"].as_array().into_iter().flatten() {
            for expr in panel["targets"].as_array().into_iter().flatten().filter_map(|target| target["expr"].as_str()) {
                if panel["datasource"]["uid"] == "prometheus" {
                    queries.push((format!("{} / {}", json["title"], panel["title"]), chosen(expr)));
                }
            }
        }
    }
    let rules = super::observability::rules("observability/prometheus/recording-rules.yaml");
    queries.extend(rules.into_iter().map(|rule| ("recording rule".to_owned(), rule.name)));
    queries.retain(|(_, query)| !NOT_IN_THIS_RUN.iter().any(|part| query.contains(part)));
    queries
}

/// A query as Grafana asks it, for the last moments.
fn chosen(query: &str) -> String {
    let query = query.replace("$__rate_interval", "30s").replace("$__range", "1m");
    query.replace("$namespace", ".*").replace("$task_type", ".*")
}

/// The configuration that scrapes the targets and evaluates the recording rules.
fn config(targets: &[(&str, String)]) -> Value {
    let jobs = targets.iter().map(
        |(job, url)| json!({ "job_name": job, "static_configs": [{ "targets": [url.trim_start_matches("http://")] }] }),
    );
    json!({
        "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
        "rule_files": [root().join("observability/prometheus/recording-rules.yaml")],
        "scrape_configs": jobs.collect::<Vec<_>>(),
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}
