//! Orchestration and worker in this process, on a database of their own.

use crate::TestDatabase;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::{Duration, Instant};
use tasker_orchestration::{Orchestration, query, submit, templates};
use tasker_shared::{
    api::{ApplyTemplate, SubmitTask, Submitted, TaskDetail},
    id::TaskId,
    metrics::Metrics,
    runtime::Bell,
    storage::{Database, Options},
    telemetry::Tracing,
};
use tasker_worker::Worker;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The longest that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a wait sleeps between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// A running system.
#[derive(Debug)]
pub struct System {
    /// Its database.
    pub test_database: TestDatabase,
    /// A pool of the test's own.
    pub database: Database,
    /// The orchestration, whose functions the HTTP API calls.
    pub orchestration: Orchestration,
    /// Ends everything.
    pub shutdown: CancellationToken,
    running: JoinSet<()>,
}

/// Settings that make tests quick.
pub fn orchestration_settings() -> tasker_orchestration::Settings {
    tasker_orchestration::Settings {
        environment: "test".to_owned(),
        results_batch: 200,
        requests_batch: 200,
        process_loops: 1,
        poll_interval: Duration::from_millis(50),
        timer_poll_interval: Duration::from_millis(200),
        repair_interval: Duration::from_secs(60),
        stalled_after: Duration::from_secs(60),
        max_deliveries: 3,
        max_input_bytes: 1024 * 1024,
        max_batch_submit: 1000,
    }
}

/// Settings that make tests quick.
pub fn worker_settings() -> tasker_worker::Settings {
    tasker_worker::Settings {
        poll_interval: Duration::from_millis(50),
        lease: Duration::from_secs(2),
        heartbeat_interval: Duration::from_millis(500),
        shutdown_grace: Duration::from_secs(5),
        ..tasker_worker::Settings::default()
    }
}

/// Connects to a test's database.
///
/// # Errors
/// PostgreSQL refuses.
pub async fn connect(url: &str, metrics: Metrics) -> Result<Database> {
    let options = Options {
        url: url.to_owned(),
        max_connections: 10,
        connect_timeout: Duration::from_secs(30),
        acquire_timeout: Duration::from_secs(30),
        statement_timeout: Duration::from_secs(30),
        application_name: "tasker-tests".to_owned(),
    };
    Ok(Database::connect(&options, metrics).await?)
}

impl System {
    /// An orchestration without workers.
    ///
    /// # Errors
    /// The database cannot be had.
    pub async fn start() -> Result<Self> {
        Self::start_with(orchestration_settings(), Metrics::disabled()).await
    }

    /// An orchestration without workers, with these settings and metrics.
    ///
    /// # Errors
    /// The database cannot be had.
    pub async fn start_with(settings: tasker_orchestration::Settings, metrics: Metrics) -> Result<Self> {
        let test_database = TestDatabase::create().await?;
        let database = connect(&test_database.url, metrics).await?;
        let shutdown = CancellationToken::new();
        let bell = Bell::start(database.pool(), shutdown.clone());
        let orchestration = Orchestration::new(database.clone(), bell, Tracing::disabled(), settings);
        let mut running = JoinSet::new();
        running.spawn(tasker_orchestration::service::run(orchestration.clone(), shutdown.clone()));
        Ok(Self { test_database, database, orchestration, shutdown, running })
    }

    /// Adds a worker.
    ///
    /// # Errors
    /// Two of its handlers have one name.
    pub fn add_worker(&mut self, builder: tasker_worker::Builder) -> Result<CancellationToken> {
        let (database, bell) = (self.database.clone(), self.orchestration.bell().clone());
        let worker: Worker = builder.build(database, bell, Tracing::disabled())?;
        let stop = self.shutdown.child_token();
        let stopping = stop.clone();
        self.running.spawn(async move {
            worker.run(stopping).await.expect("the worker runs");
        });
        Ok(stop)
    }

    /// Registers a template.
    ///
    /// # Errors
    /// It is refused.
    pub async fn apply(&self, source: &str) -> Result<()> {
        let request = ApplyTemplate { source: source.to_owned(), file: None };
        templates::apply(&self.orchestration, &request).await.context("apply the template")?;
        Ok(())
    }

    /// Submits one task.
    ///
    /// # Errors
    /// It is refused.
    pub async fn submit(&self, namespace: &str, name: &str, input: Value) -> Result<Submitted> {
        let task =
            SubmitTask { namespace: namespace.to_owned(), name: name.to_owned(), input, ..SubmitTask::default() };
        let mut answers = submit::submit(&self.orchestration, vec![task]).await?;
        Ok(answers.remove(0)?)
    }

    /// Waits until a task has ended.
    ///
    /// # Errors
    /// It does not in time; the message tells how it stands.
    pub async fn ended(&self, task: TaskId) -> Result<TaskDetail> {
        let detail = query::wait(&self.orchestration, task, PATIENCE).await?;
        if !detail.summary.state.is_final() {
            let explanation = query::explain(&self.orchestration, task).await?;
            bail!("task {task} has not ended: {explanation:#?}");
        }
        Ok(detail)
    }

    /// The history of a task as lines of text: `step: from -> to`.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn story(&self, task: TaskId) -> Result<Vec<String>> {
        let history = query::history(&self.orchestration, task).await?;
        let line = |t: tasker_shared::api::Transition| {
            format!("{}: {} -> {}", t.step.as_deref().unwrap_or("task"), t.from.as_deref().unwrap_or("nothing"), t.to)
        };
        Ok(history.transitions.into_iter().map(line).collect())
    }

    /// Stops everything, checks that no queue holds a message and no task is open, and drops the database.
    ///
    /// # Errors
    /// Something is left.
    pub async fn finish(mut self) -> Result<()> {
        let open: i64 = sqlx::query_scalar("select count(*) from tasker.tasks where finished_at is null")
            .fetch_one(self.database.pool())
            .await?;
        self.shutdown.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended?;
        }
        let queues: Vec<String> =
            sqlx::query_scalar("select queue_name from pgmq.list_queues()").fetch_all(self.database.pool()).await?;
        for queue in queues {
            let left: i64 = sqlx::query_scalar(&format!("select count(*) from pgmq.q_{queue}"))
                .fetch_one(self.database.pool())
                .await?;
            anyhow::ensure!(left == 0, "queue {queue} holds {left} messages");
        }
        anyhow::ensure!(open == 0, "{open} tasks are open");
        self.database.pool().close().await;
        self.test_database.drop().await
    }
}

/// Looks again and again until `is_so`.
///
/// # Errors
/// It is not in time, or the look fails.
pub async fn eventually(what: &str, is_so: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !is_so().await? {
        if started.elapsed() > PATIENCE {
            bail!("waited for {PATIENCE:?} in vain until {what}");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
