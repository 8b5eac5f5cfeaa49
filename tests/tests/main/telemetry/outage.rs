//! A collector dies in the middle of the work and comes back: the work goes on, and the numbers are right again.

use super::{
    receiver::Receiver,
    samples::{samples, total},
};
use crate::stage::Stage;
use anyhow::{Context as _, Result};
use std::time::Instant;
use tasker_shared::telemetry::settings::Protocol;
use tasker_tests::{process::Process, system::eventually};
use tokio::runtime::Runtime;

const TASKS: usize = 100;
const STEPS: usize = 4;

/// A collector with threads of its own, so that it can be killed with all its connections.
struct Collector {
    receiver: Receiver,
    protocol: Protocol,
    endpoint: String,
    threads: Option<Runtime>,
}

impl Collector {
    async fn start(protocol: Protocol) -> Result<Self> {
        let (receiver, endpoint) = (Receiver::default(), "http://127.0.0.1:0".to_owned());
        let mut collector = Self { receiver, protocol, endpoint, threads: None };
        collector.live().await?;
        Ok(collector)
    }

    async fn live(&mut self) -> Result<()> {
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (receiver, protocol) = (self.receiver.clone(), self.protocol);
        let address = self.endpoint.trim_start_matches("http://").to_owned();
        self.endpoint = threads.spawn(async move { receiver.listen_at(&address, protocol).await }).await??;
        self.threads = Some(threads);
        Ok(())
    }

    fn die(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.die();
    }
}

/// What a service says of outages, and of their ends.
fn said(service: &Process) -> (Vec<String>, Vec<String>) {
    let lines = |what: &str| service.text().lines().filter(|line| line.contains(what)).map(str::to_owned).collect();
    (lines("telemetry is not exported; this is said once per outage"), lines("the telemetry export works again"))
}

/// How many signals a service counts failures of.
async fn failing_signals(service: &Process) -> Result<usize> {
    let page = reqwest::get(format!("{}/metrics", service.url().await?)).await?.text().await?;
    let failures = page.lines().filter(|line| line.starts_with("tasker_telemetry_export_failures_total{"));
    Ok(failures.filter(|line| !line.ends_with(" 0")).count())
}

async fn a_dead_collector_costs_nothing_and_its_return_mends_the_numbers(protocol: Protocol) -> Result<()> {
    let mut collector = Collector::start(protocol).await?;
    let endpoint = collector.endpoint.clone();
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.as_str()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ("TASKER__TELEMETRY__LOGS__OTLP", "true"),
        // on a slow machine too a step runs once
        ("TASKER__WORKER__LEASE_MS", "60000"),
        ("TASKER__WORKER__HEARTBEAT_INTERVAL_MS", "10000"),
        ("TASKER__TELEMETRY__OPENTELEMETRY__BATCH_DELAY_MS", "50"),
        ("TASKER__TELEMETRY__METRICS__MAX_CORRELATION_IDS", "50"),
    ];
    let stage = Stage::start_with(&settings).await?;
    let mut worker = stage.worker(&settings)?;
    let began = Instant::now();
    stage.submit_chains(TASKS).await?;
    stage.chains_are_done(TASKS as i64).await?;
    let with_collector = began.elapsed();

    stage.submit_chains(TASKS).await?;
    stage.steps_done_reach(((TASKS + TASKS / 10) * STEPS) as i64).await?;
    collector.die();
    stage.chains_are_done(2 * TASKS as i64).await?;
    let began = Instant::now();
    stage.submit_chains(TASKS).await?;
    stage.chains_are_done(3 * TASKS as i64).await?;
    let without = began.elapsed();
    assert!(without < 3 * with_collector + std::time::Duration::from_secs(2), "{without:?} against {with_collector:?}");
    for service in [&stage.orchestration, &worker] {
        let counted = || async { Ok(failing_signals(service).await? == 3) };
        eventually("failures of metrics, of traces and of logs are counted", counted).await?;
        let (begun, over) = said(service);
        assert!(begun.len() == 1 && begun[0].contains(&endpoint), "one line for the outage: {begun:#?}");
        assert_eq!(over, Vec::<String>::new());
    }

    collector.live().await?;
    stage.submit_chains(TASKS).await?;
    stage.chains_are_done(4 * TASKS as i64).await?;
    for service in [&stage.orchestration, &worker] {
        eventually("the return is told", async || Ok(said(service).1.len() == 1)).await?;
    }
    worker.drain().await?;
    let (begun, over) = said(&worker);
    stage.finish().await?;
    assert_eq!(begun.len(), 1, "{begun:#?}");
    assert!(over.len() == 1 && over[0].contains(r#"signals="metrics, traces, logs""#), "{over:#?}");

    let told = samples(&collector.receiver.metrics());
    let (tasks, steps) = ((4 * TASKS) as f64, (4 * TASKS * STEPS) as f64);
    for (name, expected) in [
        ("tasker.tasks.requests.total", tasks),
        ("tasker.tasks.completions.total", tasks),
        ("tasker.steps.enqueued.total", steps),
        ("tasker.steps.executions.total", steps),
        ("tasker.steps.successes.total", steps),
        ("tasker.steps.results_submitted.total", steps),
        ("tasker.step_results.processed.total", steps),
        ("tasker.step.execution.duration", steps),
    ] {
        assert_eq!(total(&told, name, &[]), expected, "{name}: nothing is lost and nothing counted twice");
    }
    let spans = collector.receiver.spans();
    let executed: std::collections::BTreeSet<_> =
        spans.iter().filter(|span| span.name == "execute").map(|span| &span.span_id).collect();
    assert_eq!(executed.len() as f64, steps, "spans wait for the collector");
    let last = spans.last().context("spans arrived")?;
    assert!(!last.trace_id.is_empty());
    let records = collector.receiver.logs();
    let outages = records.iter().filter(|record| format!("{:?}", record.body).contains("telemetry is not exported"));
    assert_eq!(outages.count(), 2, "log records wait for the collector: those of both services");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_collector_over_grpc_loses_no_task_and_no_number() -> Result<()> {
    a_dead_collector_costs_nothing_and_its_return_mends_the_numbers(Protocol::Grpc).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_collector_over_http_loses_no_task_and_no_number() -> Result<()> {
    a_dead_collector_costs_nothing_and_its_return_mends_the_numbers(Protocol::HttpProtobuf).await
}
