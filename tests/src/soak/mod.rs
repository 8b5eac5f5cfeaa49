//! The soak: a steady load for as many steps as are asked for, with retention on, on the real programs. Latency, sizes of tables,
//! dead rows and memory are sampled all the time, and at the end judged: the last quarter against the second.

mod sample;
mod verdict;

pub use sample::Sample;
pub use verdict::{Judged, judge};

use crate::process::{ORCHESTRATION, Process, WORKER};
use anyhow::{Context, Result, ensure};
use sample::Sampler;
use serde::Serialize;
use serde_json::json;
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};
use tasker_client::Client;
use tasker_postgres::{Cluster, Options};
use tasker_shared::{
    api::{ApplyTemplate, SubmitAnswer, SubmitTask},
    metrics::Metrics,
    storage::{Database, schema},
};
use tokio_util::sync::CancellationToken;

/// Steps of the task that succeeds.
const STEPS: u64 = 4;

/// One task in so many fails.
const FAILING: u64 = 100;

/// So many tasks are submitted at most before the first of them end.
const MOST_OPEN: i64 = 20_000;

/// The most tasks of one request.
const BATCH: u64 = 500;

/// The time between two submissions.
const TICK: Duration = Duration::from_millis(100);

/// How long the last tasks may take to end.
const PATIENCE: Duration = Duration::from_secs(120);

const TEMPLATES: [&str; 2] = [
    "
name: diamond
namespace_name: soak
version: 1.0.0
steps:
  - {name: a, handler: {callable: noop}}
  - {name: b, dependencies: [a], handler: {callable: noop}}
  - {name: c, dependencies: [a], handler: {callable: noop}}
  - {name: d, dependencies: [b, c], handler: {callable: echo}}
",
    "
name: fails
namespace_name: soak
version: 1.0.0
steps:
  - {name: a, handler: {callable: echo}, result_schema: {type: string}, retry: {retryable: false}}
",
];

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// How many steps
    #[arg(long, default_value_t = 1_000_000)]
    pub steps: u64,
    /// How many of them each second
    #[arg(long, default_value_t = 2_000)]
    pub rate: u64,
    /// How long complete tasks are kept; failed ones twice as long
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub keep: Duration,
    /// The time between two samples
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub every: Duration,
    /// An empty database to use instead of a private, durable PostgreSQL
    #[arg(long)]
    pub database_url: Option<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What was seen.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Tasks that were submitted; each ended.
    pub tasks: u64,
    /// Their steps.
    pub steps: u64,
    /// From the first submission to the last end.
    pub seconds: f64,
    /// Tasks that were still there at the end; retention removed the others.
    pub tasks_left: i64,
    /// The largest tables at the end, with their indexes, in bytes.
    pub largest: Vec<(String, i64)>,
    /// One after the other.
    pub samples: Vec<Sample>,
    /// The last quarter against the second.
    pub judged: Vec<Judged>,
}

/// Runs the soak and prints what it found; the exit code is 1 when something grows.
///
/// # Errors
/// It cannot be run, or tasks do not end.
pub async fn command(settings: &Settings) -> Result<ExitCode> {
    let directory = std::env::temp_dir().join(format!("tasker-soak-{}", std::process::id()));
    let (cluster, url) = match &settings.database_url {
        Some(url) => (None, url.clone()),
        None => {
            let options = Options::new(&directory);
            let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options)).await??;
            let url = cluster.url("postgres");
            (Some(cluster), url)
        }
    };
    let report = run(settings, &url).await;
    if let Some(cluster) = cluster {
        tokio::task::spawn_blocking(move || drop(cluster)).await?;
        std::fs::remove_dir_all(&directory)?;
    }
    let report = report?;
    if settings.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", verdict::table(&report));
    }
    let flat = !report.judged.is_empty() && report.judged.iter().all(|judged| judged.flat);
    Ok(if flat { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the soak on the database at `url`.
///
/// # Errors
/// As [`command`].
pub async fn run(settings: &Settings, url: &str) -> Result<Report> {
    let database = crate::system::connect(url, Metrics::disabled()).await?;
    schema::migrate(database.pool()).await?;
    let (keep, keep_failed) =
        (format!("{}ms", settings.keep.as_millis()), format!("{}ms", 2 * settings.keep.as_millis()));
    let variables = [
        ("TASKER__DATABASE__MAX_CONNECTIONS", "20"),
        ("TASKER__WORKER__LEASE_MS", "30000"),
        ("TASKER__WORKER__HEARTBEAT_INTERVAL_MS", "10000"),
        ("TASKER__RETENTION__COMPLETE_AFTER", keep.as_str()),
        ("TASKER__RETENTION__FAILED_AFTER", keep_failed.as_str()),
        ("TASKER__RETENTION__SWEEP_INTERVAL_MS", "1000"),
        ("RUST_LOG", "warn,tasker_orchestration::service=info,tasker_worker=info"),
    ];
    let mut orchestration = Process::service(ORCHESTRATION, url, &variables)?;
    let mut worker = Process::service(WORKER, url, &variables)?;
    let client = orchestration.client().await?;
    worker.url().await?;
    for source in TEMPLATES {
        client.apply(&ApplyTemplate { source: source.to_owned(), file: None }).await?;
    }
    let sampler = Sampler::new(database.pool().clone(), settings.every, [orchestration.pid()?, worker.pid()?]);
    let (started, loaded) = (Instant::now(), CancellationToken::new());
    let sampling = tokio::spawn(sampler.run(loaded.clone()));
    let tasks = load(&client, &database, settings).await?;
    loaded.cancel();
    let samples = sampling.await??;
    ended(&database).await?;
    let seconds = started.elapsed().as_secs_f64();
    let tasks_left = count(&database, "select count(*) from tasker.tasks").await?;
    let largest = sqlx::query_as(
        "select schemaname || '.' || relname, pg_total_relation_size(relid) from pg_stat_user_tables
          where schemaname in ('tasker', 'pgmq') order by 2 desc limit 8",
    );
    let largest = largest.fetch_all(database.pool()).await?;
    worker.drain().await?;
    orchestration.drain().await?;
    database.pool().close().await;
    let judged = judge(&samples);
    Ok(Report { tasks, steps: settings.steps, seconds, tasks_left, largest, samples, judged })
}

/// Submits tasks at the rate that is asked for; answers with how many.
async fn load(client: &Client, database: &Database, settings: &Settings) -> Result<u64> {
    let started = Instant::now();
    let (mut tasks, mut steps) = (0, 0);
    let mut tick = tokio::time::interval(TICK);
    while steps < settings.steps {
        tick.tick().await;
        if count(database, "select count(*) from tasker.tasks where finished_at is null").await? > MOST_OPEN {
            continue;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of steps")]
        let due = ((started.elapsed().as_secs_f64() * settings.rate as f64) as u64).min(settings.steps);
        while steps < due {
            let mut batch = Vec::new();
            while steps < due && (batch.len() as u64) < BATCH {
                tasks += 1;
                let (name, of_it) = if tasks % FAILING == 0 { ("fails", 1) } else { ("diamond", STEPS) };
                batch.push(task(name));
                steps += of_it;
            }
            let asked = batch.len();
            let answers = client.submit_many(batch).await?;
            let accepted = answers.iter().filter(|answer| matches!(answer, SubmitAnswer::Accepted(_))).count();
            ensure!(accepted == asked, "{accepted} of {asked} tasks were accepted");
        }
    }
    Ok(tasks)
}

fn task(name: &str) -> SubmitTask {
    SubmitTask { namespace: "soak".to_owned(), name: name.to_owned(), input: json!({}), ..SubmitTask::default() }
}

/// Waits until every task has ended.
async fn ended(database: &Database) -> Result<()> {
    let started = Instant::now();
    loop {
        let open = count(database, "select count(*) from tasker.tasks where finished_at is null").await?;
        if open == 0 {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "{open} tasks do not end");
        tokio::time::sleep(TICK).await;
    }
}

async fn count(database: &Database, sql: &str) -> Result<i64> {
    sqlx::query_scalar(sql).fetch_one(database.pool()).await.context("ask for the state of the tasks")
}
