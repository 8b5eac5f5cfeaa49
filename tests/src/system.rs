//! Orchestration and worker in this process, on a database of their own.

use crate::{TestDatabase, templates::NAMESPACE};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::{Duration, Instant};
use tasker_orchestration::{Orchestration, query, submit, templates};
use tasker_shared::{
    api::{ApplyTemplate, SubmitTask, Submitted, TaskDetail},
    config::Retention,
    id::TaskId,
    metrics::Metrics,
    queue::QueueName,
    runtime::Bell,
    step::StepState,
    storage::{Database, Options, Session, schema},
    task::TaskState,
    telemetry::Tracing,
};
use tasker_worker::{Worker, handler::Limits};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// The longest that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a wait sleeps between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// A worker of a running system.
#[derive(Debug)]
pub struct RunningWorker {
    stop: CancellationToken,
    abort: AbortHandle,
}

impl RunningWorker {
    /// Lets it drain.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends it without a word, as `kill -9` does: no report, no heartbeat, no drain. Handlers that run are not heard again.
    pub fn vanish(&self) {
        self.abort.abort();
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn ended(&self) -> Result<()> {
        eventually("the worker has ended", async || Ok(self.abort.is_finished())).await
    }
}

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
        grafana_url: None,
        results_batch: 200,
        requests_batch: 200,
        process_loops: 1,
        poll_interval: Duration::from_millis(50),
        timer_poll_interval: Duration::from_millis(200),
        repair_interval: Duration::from_secs(60),
        stalled_after: Duration::from_secs(60),
        max_stalls: 5,
        handler_missing_after: Duration::from_secs(600),
        max_deliveries: 3,
        max_input_bytes: 1024 * 1024,
        max_batch_submit: 1000,
        retention: Retention::never(),
    }
}

/// Settings that make tests quick.
pub fn worker_settings() -> tasker_worker::Settings {
    tasker_worker::Settings {
        poll_interval: Duration::from_millis(50),
        lease: Duration::from_secs(2),
        heartbeat_interval: Duration::from_millis(500),
        shutdown_grace: Duration::from_secs(5),
        limits: Limits { grace: Duration::from_millis(100), ..Limits::default() },
        ..tasker_worker::Settings::default()
    }
}

/// Connects to a test's database.
///
/// # Errors
/// PostgreSQL refuses.
pub async fn connect(url: &str, metrics: Metrics) -> Result<Database> {
    Ok(Database::connect(&options(url), metrics).await?)
}

/// How tests reach their database.
pub fn options(url: &str) -> Options {
    Options {
        url: url.to_owned(),
        max_connections: 10,
        connect_timeout: Duration::from_secs(30),
        acquire_timeout: Duration::from_secs(30),
        statement_timeout: Duration::from_secs(30),
        application_name: "tasker-tests".to_owned(),
        own_names_only: false,
    }
}

/// Brings a database's schema up to date.
///
/// # Errors
/// PostgreSQL refuses.
pub async fn migrate(url: &str) -> Result<()> {
    let database = connect(url, Metrics::disabled()).await?;
    schema::migrate(database.pool()).await?;
    database.pool().close().await;
    Ok(())
}

/// How many pages of a table and its indexes this connection has read and not told the server's statistics yet. Within a
/// transaction it only grows; what came before it may count too.
///
/// # Errors
/// PostgreSQL refuses.
pub async fn pages_read(session: &mut Session, table: &str) -> Result<i64> {
    let sql = "select sum(pg_stat_get_xact_blocks_fetched(of.oid))::bigint
                 from (select $1::regclass::oid as oid
                        union all select indexrelid from pg_index where indrelid = $1::regclass) of";
    Ok(sqlx::query_scalar(sql).bind(table).fetch_one(session.connection()).await?)
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
        Self::start_traced(settings, metrics, Tracing::disabled()).await
    }

    /// An orchestration without workers, with these settings, metrics and traces.
    ///
    /// # Errors
    /// The database cannot be had.
    pub async fn start_traced(
        settings: tasker_orchestration::Settings,
        metrics: Metrics,
        tracing: Tracing,
    ) -> Result<Self> {
        let test_database = TestDatabase::create().await?;
        let database = connect(&test_database.url, metrics).await?;
        let shutdown = CancellationToken::new();
        let bell = Bell::start(database.pool(), database.metrics().clone(), shutdown.clone());
        let orchestration = Orchestration::new(database.clone(), bell, tracing, settings);
        let mut running = JoinSet::new();
        running.spawn(tasker_orchestration::service::run(orchestration.clone(), shutdown.clone()));
        Ok(Self { test_database, database, orchestration, shutdown, running })
    }

    /// Adds an orchestration with connections and a bell of its own, as another process has them.
    ///
    /// # Errors
    /// The database cannot be had.
    pub async fn add_orchestration(&mut self, settings: tasker_orchestration::Settings) -> Result<Orchestration> {
        let database = connect(&self.test_database.url, Metrics::disabled()).await?;
        let bell = Bell::start(database.pool(), database.metrics().clone(), self.shutdown.clone());
        let orchestration = Orchestration::new(database, bell, Tracing::disabled(), settings);
        self.running.spawn(tasker_orchestration::service::run(orchestration.clone(), self.shutdown.clone()));
        Ok(orchestration)
    }

    /// Adds a worker.
    ///
    /// # Errors
    /// Two of its handlers have one name.
    pub fn add_worker(&mut self, builder: tasker_worker::Builder) -> Result<RunningWorker> {
        let (database, bell) = (self.database.clone(), self.orchestration.bell().clone());
        let worker: Worker = builder.build(database, bell, self.orchestration.tracing().clone())?;
        let stop = self.shutdown.child_token();
        let stopping = stop.clone();
        let abort = self.running.spawn(async move {
            worker.run(stopping).await.expect("the worker runs");
        });
        Ok(RunningWorker { stop, abort })
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

    /// Submits one task of a template of [`crate::templates`], with an empty input.
    ///
    /// # Errors
    /// It is refused.
    pub async fn begin(&self, name: &str) -> Result<TaskId> {
        Ok(self.submit(NAMESPACE, name, serde_json::json!({})).await?.task_id)
    }

    /// Registers a template of [`crate::templates`] and submits one task of it, with an empty input.
    ///
    /// # Errors
    /// One of them is refused.
    pub async fn begin_new(&self, source: &str) -> Result<TaskId> {
        self.apply(source).await?;
        let name = source.lines().find_map(|line| line.strip_prefix("name: ")).context("the template has a name")?;
        self.begin(name).await
    }

    /// A task as it stands.
    ///
    /// # Errors
    /// It does not exist.
    pub async fn detail(&self, task: TaskId) -> Result<TaskDetail> {
        Ok(query::detail(&self.orchestration, task).await?)
    }

    /// Waits until a task is in `state`.
    ///
    /// # Errors
    /// It does not come there in time.
    pub async fn task_is(&self, task: TaskId, state: TaskState) -> Result<()> {
        let what = format!("task {task} is {state}");
        eventually(&what, async || Ok(self.detail(task).await?.summary.state == state)).await
    }

    /// Waits until a step is in `state`.
    ///
    /// # Errors
    /// It does not come there in time.
    pub async fn step_is(&self, task: TaskId, step: &str, state: StepState) -> Result<()> {
        let what = format!("step {step} is {state}");
        eventually(&what, async || {
            Ok(self.detail(task).await?.steps.iter().any(|s| s.name == step && s.state == state))
        })
        .await
    }

    /// The states of a task's steps, as `name=state`, in the order of the template.
    ///
    /// # Errors
    /// The task does not exist.
    pub async fn states(&self, task: TaskId) -> Result<String> {
        let steps = self.detail(task).await?.steps;
        Ok(steps.iter().map(|step| format!("{}={}", step.name, step.state)).collect::<Vec<_>>().join(" "))
    }

    /// Runs a statement of the test's own.
    ///
    /// # Errors
    /// PostgreSQL refuses.
    pub async fn execute(&self, sql: &str) -> Result<u64> {
        Ok(sqlx::raw_sql(sql).execute(self.database.pool()).await?.rows_affected())
    }

    /// Asks for one number.
    ///
    /// # Errors
    /// PostgreSQL refuses.
    pub async fn count(&self, sql: &str) -> Result<i64> {
        Ok(sqlx::query_scalar(sql).fetch_one(self.database.pool()).await?)
    }

    /// How many messages all queues hold.
    ///
    /// # Errors
    /// PostgreSQL refuses.
    pub async fn messages(&self) -> Result<i64> {
        let queues: Vec<String> =
            sqlx::query_scalar("select queue_name from pgmq.list_queues()").fetch_all(self.database.pool()).await?;
        let mut messages = 0;
        for queue in queues {
            messages += self.count(&format!("select count(*) from pgmq.q_{queue}")).await?;
        }
        Ok(messages)
    }

    /// The table of the queue of [`NAMESPACE`].
    pub fn queue() -> String {
        QueueName::of_namespace(NAMESPACE).table()
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

    /// Checks that no queue holds a message (those of stopped steps may need a moment) and no task is open, stops
    /// everything, and drops the database.
    ///
    /// # Errors
    /// Something is left.
    pub async fn finish(self) -> Result<()> {
        eventually("no queue holds a message", async || Ok(self.messages().await? == 0)).await?;
        let open = self.count("select count(*) from tasker.tasks where finished_at is null").await?;
        anyhow::ensure!(open == 0, "{open} tasks are open");
        self.close().await
    }

    /// Stops everything and drops the database, whatever is left.
    ///
    /// # Errors
    /// A part of the system panicked.
    pub async fn close(mut self) -> Result<()> {
        self.shutdown.cancel();
        while let Some(ended) = self.running.join_next().await {
            match ended {
                Err(vanished) if vanished.is_cancelled() => {}
                ended => ended?,
            }
        }
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
