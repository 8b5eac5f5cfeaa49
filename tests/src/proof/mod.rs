//! Proves the metrics with a real Prometheus: tasks run on the real services, and what Prometheus answers is compared with
//! the database, with every sample that was sent, and with what PromQL makes of these samples.

mod extrapolation;
mod remote_write;
mod sums;
mod tee;

use crate::{
    TestDatabase,
    process::{ORCHESTRATION, Process, WORKER},
    prometheus::Asker,
    system::connect,
    templates::{NAMESPACE, dag},
};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use sums::Sums;
use tasker_client::Client;
use tasker_shared::{
    api::{ApplyTemplate, SubmitAnswer, SubmitTask},
    metrics::Metrics,
    storage::Database,
};

/// How many of the newest tasks are asked for.
const NEWEST: usize = 20;
/// How much the answer of `increase()` may differ from what its own rules make of the samples.
const TOLERANCE: f64 = 0.001;
/// How long the tasks and the samples may take.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// What is run and asked.
#[derive(Debug, Clone)]
pub struct Proof {
    /// A Prometheus.
    pub prometheus: String,
    /// How the samples get there.
    pub onwards: Onwards,
    /// How many tasks run.
    pub tasks: usize,
    /// How many tasks are submitted in a second; as many as can be without it.
    pub rate: Option<f64>,
    /// How many steps each task has, one after the other.
    pub steps: usize,
    /// The time between two exports.
    pub interval: Duration,
    /// `telemetry.metrics.max_correlation_ids`.
    pub ids: usize,
    /// The most resident memory of each service, in MiB.
    pub memory_mib: u64,
}

/// Where the samples go on.
#[derive(Debug, Clone)]
pub enum Onwards {
    /// To this endpoint for OTLP over HTTP: a collector, or Prometheus itself.
    Otlp(String),
    /// To this address for remote writes, of a Prometheus that has no receiver for OTLP. Counters alone.
    RemoteWrite(String),
}

/// What was compared, and what did not hold.
#[derive(Debug, Default)]
pub struct Findings {
    /// What did not hold.
    pub failed: Vec<String>,
}

impl Findings {
    fn check(&mut self, holds: bool, what: &str) {
        println!("{} {what}", if holds { "ok    " } else { "FAILED" });
        if !holds {
            self.failed.push(what.to_owned());
        }
    }
}

impl Proof {
    /// Runs and compares.
    ///
    /// # Errors
    /// The services or Prometheus do not work at all.
    pub async fn prove(&self) -> Result<Findings> {
        // our client chooses the provider of TLS, without which no other client can be made
        Client::new(&self.prometheus)?;
        let (sums, prometheus) = (Sums::default(), Asker::new(&self.prometheus)?);
        let tee = tee::listen(sums.clone(), self.onwards.clone()).await?;
        let database = TestDatabase::create().await?;
        let db = connect(&database.url, Metrics::disabled()).await?;
        let (interval, ids) = (self.interval.as_millis().to_string(), self.ids.to_string());
        let settings = [
            ("RUST_LOG", "warn,tasker=info"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", tee.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_METRIC_EXPORT_INTERVAL", &interval),
            ("TASKER__DATABASE__MAX_CONNECTIONS", "20"),
            ("TASKER__WORKER__LEASE_MS", "60000"),
            ("TASKER__WORKER__HEARTBEAT_INTERVAL_MS", "10000"),
            ("TASKER__TELEMETRY__METRICS__PROBE_INTERVAL_MS", "15000"),
            ("TASKER__TELEMETRY__METRICS__MAX_CORRELATION_IDS", &ids),
            ("TASKER__ORCHESTRATION__HTTP_ADDRESS", "127.0.0.1:0"),
            ("TASKER__WORKER__HTTP_ADDRESS", "127.0.0.1:0"),
        ];
        let mut orchestration = Process::service(ORCHESTRATION, &database.url, &settings)?;
        let mut worker = Process::service(WORKER, &database.url, &settings)?;
        let client = orchestration.client().await?;
        worker.url().await?;
        let mut findings = Findings::default();

        // a name of its own, so that Prometheus may hold other runs
        let template = format!("chain-{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis());
        let began = Instant::now();
        let newest = run(self, &template, &client, &db).await?;
        let seconds = began.elapsed().as_secs_f64();
        println!("{} tasks of {} steps ended in {seconds:.0} s", self.tasks, self.steps);
        for (name, service) in [("orchestration", &orchestration), ("worker", &worker)] {
            let (now, peak) = memory(service.pid()?)?;
            let what = format!("{name}: {now} MiB resident, {peak} MiB at most, of {}", self.memory_mib);
            findings.check(peak <= self.memory_mib, &what);
        }

        flow(self, &prometheus, &newest, &mut findings).await?;
        // one more export of both services, so that no series waits to be told
        tokio::time::sleep(self.interval + Duration::from_secs(1)).await;
        increase(self, &template, &prometheus, &sums, seconds, &mut findings).await?;

        worker.drain().await?;
        orchestration.drain().await?;
        exact(self, &sums, &db, &mut findings).await?;
        db.pool().close().await;
        database.drop().await?;
        Ok(findings)
    }
}

/// Runs the tasks; answers with the correlation ids of the newest.
async fn run(proof: &Proof, template: &str, client: &Client, db: &Database) -> Result<Vec<String>> {
    let steps: Vec<String> = (0..proof.steps).map(|n| format!("s{n}")).collect();
    let before: Vec<Vec<&str>> =
        (0..proof.steps).map(|n| steps[n.saturating_sub(1)..n].iter().map(String::as_str).collect()).collect();
    let pairs: Vec<(&str, &[&str])> = steps.iter().map(String::as_str).zip(before.iter().map(Vec::as_slice)).collect();
    client.apply(&ApplyTemplate { source: dag(template, "noop", &pairs), file: None }).await?;
    let task = SubmitTask { namespace: NAMESPACE.to_owned(), name: template.to_owned(), ..SubmitTask::default() };
    let (began, mut newest, mut submitted) = (Instant::now(), Vec::new(), 0);
    while submitted < proof.tasks {
        let size = (proof.tasks - submitted).min(if proof.rate.is_some() { 10 } else { 200 });
        for answer in client.submit_many(vec![task.clone(); size]).await? {
            match answer {
                SubmitAnswer::Accepted(task) => newest.push(task.correlation_id.to_string()),
                SubmitAnswer::Refused(problem) => anyhow::bail!("a task was refused: {problem:?}"),
            }
        }
        submitted += size;
        if let Some(rate) = proof.rate {
            tokio::time::sleep_until((began + Duration::from_secs_f64(submitted as f64 / rate)).into()).await;
        }
    }
    let open = "select count(*) from tasker.tasks where finished_at is null";
    while count(db, open).await? > 0 {
        ensure!(began.elapsed() < PATIENCE, "the tasks do not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(newest.split_off(newest.len().saturating_sub(NEWEST)))
}

async fn count(db: &Database, sql: &str) -> Result<i64> {
    Ok(sqlx::query_scalar(sql).fetch_one(db.pool()).await?)
}

/// The queries of one task's way through the system, and how often each counts.
fn queries(steps: usize) -> [(&'static str, f64); 7] {
    let steps = steps as f64;
    [
        ("tasker_tasks_requests_total", 1.0),
        ("tasker_steps_enqueued_total", steps),
        ("tasker_steps_executions_total", steps),
        ("tasker_steps_successes_total", steps),
        ("tasker_steps_results_submitted_total", steps),
        ("tasker_step_results_processed_total", steps),
        ("tasker_tasks_completions_total", 1.0),
    ]
}

/// Every one of the newest tasks is found by its correlation id, at every station.
async fn flow(proof: &Proof, prometheus: &Asker, newest: &[String], findings: &mut Findings) -> Result<()> {
    let last = newest.last().context("at least one task")?;
    let arrived = Instant::now();
    let all = |query: &str, id: &str| format!("sum({query}{{correlation_id=\"{id}\"}})");
    for query in ["tasker_tasks_completions_total", "tasker_steps_results_submitted_total"] {
        while prometheus.number(&all(query, last)).await?.is_none() {
            let waited = arrived.elapsed();
            ensure!(waited < proof.interval * 3 + Duration::from_secs(10), "{query} of {last} never arrives");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    for (query, expected) in queries(proof.steps) {
        let mut found = Vec::new();
        for id in newest {
            let mut value = prometheus.number(&all(query, id)).await?;
            // an export is many requests: what came with the last of them is there a moment later
            while value != Some(expected) && arrived.elapsed() < proof.interval * 3 + Duration::from_secs(10) {
                tokio::time::sleep(Duration::from_millis(500)).await;
                value = prometheus.number(&all(query, id)).await?;
            }
            found.push(value.unwrap_or(f64::NAN));
        }
        let right = found.iter().filter(|value| **value == expected).count();
        let what =
            format!("{query}{{correlation_id=…}} is {expected} for {right} of the {} newest tasks", newest.len());
        findings.check(right == newest.len(), &what);
    }
    Ok(())
}

/// `increase()` is what its rules make of the samples that were sent, and near the truth.
async fn increase(
    proof: &Proof,
    template: &str,
    prometheus: &Asker,
    sums: &Sums,
    seconds: f64,
    findings: &mut Findings,
) -> Result<()> {
    let window = Duration::from_secs(600.max(seconds as u64 + 4 * proof.interval.as_secs()));
    let at = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let query =
        format!("sum(increase(tasker_tasks_completions_total{{task_type=\"{template}\"}}[{}s]))", window.as_secs());
    let said = prometheus.number_at(&query, at).await?.context("no answer")?;
    let (series, of_samples) = sums.completions(|samples| extrapolation::increase(samples, at, window));
    let truth = proof.tasks as f64;
    let what = format!(
        "{query} says {said:.1} for {truth} tasks ({:+.2} %); the rules of PromQL make {of_samples:.1} of the samples of {series} series",
        100.0 * (said / truth - 1.0)
    );
    findings.check((said / of_samples - 1.0).abs() < TOLERANCE, &what);
    if proof.tasks > 2 * proof.ids {
        let what = format!("{series} series were sent of completions, more than the {} that are held", proof.ids);
        findings.check(series > proof.ids, &what);
    }
    Ok(())
}

/// The samples ever sent add up to what the database says.
async fn exact(proof: &Proof, sums: &Sums, db: &Database, findings: &mut Findings) -> Result<()> {
    let of_steps = |state: &str| format!("select count(*) from tasker.step_transitions where to_state = '{state}'");
    let of_tasks = |state: &str| format!("select count(*) from tasker.task_transitions where to_state = '{state}'");
    let counts = [
        ("tasker.tasks.requests.total", "select count(*) from tasker.tasks".to_owned()),
        ("tasker.tasks.completions.total", of_tasks("complete")),
        ("tasker.steps.enqueued.total", of_steps("enqueued")),
        ("tasker.steps.executions.total", of_steps("in_progress")),
        ("tasker.steps.successes.total", of_steps("complete")),
        ("tasker.steps.results_submitted.total", of_steps("reported")),
        ("tasker.step_results.processed.total", of_steps("complete")),
        ("tasker.step.execution.duration", of_steps("in_progress")),
        ("tasker.task.finalization.duration", of_tasks("complete")),
    ];
    for (name, sql) in counts {
        let (sent, stored) = (sums.total(name), count(db, &sql).await?);
        findings.check(sent == stored as f64, &format!("{name}: the samples sum to {sent}, the database has {stored}"));
    }
    let complete = count(db, &of_tasks("complete")).await?;
    findings
        .check(usize::try_from(complete)? == proof.tasks, &format!("{complete} of {} tasks are complete", proof.tasks));
    Ok(())
}

/// Resident memory now and at most, in MiB.
fn memory(pid: i32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        Ok(kib.div_ceil(1024))
    };
    Ok((field("VmRSS")?, field("VmHWM")?))
}
