//! An orchestration process with a database, two templates, and a handler that waits for the test.

use anyhow::{Result, ensure};
use axum::{Router, body::Bytes, extract::State, routing::post};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    metrics::v1::{metric::Data, number_data_point::Value as Number},
};
use prost::Message as _;
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::{Arc, Mutex},
};
use tasker_client::Client;
use tasker_shared::{
    api::{ApplyTemplate, SubmitAnswer, SubmitTask, TaskDetail},
    id::TaskId,
    metrics::Metrics,
    storage::Database,
};
use tasker_tests::{
    TestDatabase,
    process::{ORCHESTRATION, PATIENCE, Process, WORKER},
    system::{connect, eventually},
};
use tempfile::TempDir;

/// Four steps that do nothing, one after the other.
const CHAIN: &str = "
name: chain
namespace_name: stage
version: 1.0.0
steps:
  - {name: a, handler: {callable: noop}}
  - {name: b, dependencies: [a], handler: {callable: noop}}
  - {name: c, dependencies: [b], handler: {callable: noop}}
  - {name: d, dependencies: [c], handler: {callable: noop}}
";

/// One step whose program tells its process id and waits until the test lets its attempt go on.
const GUARDED: &str = r#"
name: guarded
namespace_name: stage
version: 1.0.0
steps:
  - name: work
    timeout_seconds: 120
    retry: {max_attempts: 3, backoff: none}
    handler:
      callable: command
      initialization:
        argv:
          - sh
          - -c
          - |
            echo $$ > "$1/new-$TASKER_ATTEMPT"
            mv "$1/new-$TASKER_ATTEMPT" "$1/runs-$TASKER_ATTEMPT"
            while [ -d "$1" ] && [ ! -e "$1/open-$TASKER_ATTEMPT" ]; do sleep 0.02; done
            echo "{\"attempt\": $TASKER_ATTEMPT}"
          - sh
          - "{{ input.dir }}"
"#;

/// See above.
pub(crate) struct Stage {
    pub(crate) database: TestDatabase,
    pub(crate) orchestration: Process,
    pub(crate) client: Client,
    pool: Database,
    dir: TempDir,
}

impl Stage {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// With settings of the orchestration.
    pub(crate) async fn start_with(settings: &[(&str, &str)]) -> Result<Self> {
        Self::build(TestDatabase::create().await?, settings).await
    }

    /// On a database that has the schema.
    pub(crate) async fn on(database: TestDatabase) -> Result<Self> {
        Self::build(database, &[]).await
    }

    /// On a database that has the schema, with settings of the orchestration.
    pub(crate) async fn on_with(database: TestDatabase, settings: &[(&str, &str)]) -> Result<Self> {
        Self::build(database, settings).await
    }

    async fn build(database: TestDatabase, settings: &[(&str, &str)]) -> Result<Self> {
        let orchestration = Process::service(ORCHESTRATION, &database.url, settings)?;
        let client = orchestration.client().await?;
        let pool = connect(&database.url, Metrics::disabled()).await?;
        let stage = Self { database, orchestration, client, pool, dir: tempfile::tempdir()? };
        for source in [CHAIN, GUARDED] {
            stage.apply(source).await?;
        }
        Ok(stage)
    }

    pub(crate) async fn apply(&self, source: &str) -> Result<()> {
        self.client.apply(&ApplyTemplate { source: source.to_owned(), file: None }).await?;
        Ok(())
    }

    pub(crate) fn worker(&self, settings: &[(&str, &str)]) -> Result<Process> {
        Process::service(WORKER, &self.database.url, settings)
    }

    pub(crate) async fn replace_orchestration(&mut self) -> Result<()> {
        self.orchestration = Process::service(ORCHESTRATION, &self.database.url, &[])?;
        self.client = self.orchestration.client().await?;
        Ok(())
    }

    pub(crate) async fn submit(&self, name: &str, input: Value) -> Result<TaskId> {
        Ok(self.client.submit(&task(name, input)).await?.task_id)
    }

    pub(crate) async fn begin_guarded(&self) -> Result<TaskId> {
        self.submit("guarded", json!({ "dir": self.dir.path() })).await
    }

    /// Waits until the program of an attempt runs; answers with its process id.
    pub(crate) async fn handler_runs(&self, attempt: u32) -> Result<i32> {
        let file = self.dir.path().join(format!("runs-{attempt}"));
        eventually("the handler runs", async || Ok(file.exists())).await?;
        Ok(std::fs::read_to_string(file)?.trim().parse()?)
    }

    /// Lets the program of an attempt end.
    pub(crate) fn open(&self, attempt: u32) -> Result<()> {
        Ok(std::fs::write(self.dir.path().join(format!("open-{attempt}")), "")?)
    }

    pub(crate) async fn submit_chains(&self, count: usize) -> Result<()> {
        let answers = self.client.submit_many(vec![task("chain", json!({})); count]).await?;
        let accepted = answers.iter().filter(|answer| matches!(answer, SubmitAnswer::Accepted(_))).count();
        ensure!(accepted == count, "{accepted} of {count} tasks were accepted");
        Ok(())
    }

    pub(crate) async fn count(&self, sql: &str) -> Result<i64> {
        Ok(sqlx::query_scalar(sql).fetch_one(self.pool.pool()).await?)
    }

    pub(crate) async fn open_tasks(&self) -> Result<i64> {
        self.count("select count(*) from tasker.tasks where finished_at is null").await
    }

    pub(crate) async fn steps_done_reach(&self, least: i64) -> Result<()> {
        let done = "select count(*) from tasker.steps where state = 'complete'";
        eventually("steps complete", async || Ok(self.count(done).await? >= least)).await
    }

    /// Waits until all chains have ended, and checks that each step's outcome counted once.
    pub(crate) async fn chains_are_done(&self, tasks: i64) -> Result<()> {
        eventually("all tasks end", async || Ok(self.open_tasks().await? == 0)).await?;
        for (what, expected, sql) in [
            ("tasks are complete", tasks, "select count(*) from tasker.tasks where state = 'complete'"),
            ("steps are complete", 4 * tasks, "select count(*) from tasker.steps where state = 'complete'"),
            (
                "completions are told",
                4 * tasks,
                "select count(*) from tasker.step_transitions where to_state = 'complete'",
            ),
            ("ends are told", tasks, "select count(*) from tasker.task_transitions where to_state = 'complete'"),
            ("messages are parked", 0, "select count(*) from tasker.dead_letters"),
        ] {
            let found = self.count(sql).await?;
            ensure!(found == expected, "{found} {what}, not {expected}");
        }
        Ok(())
    }

    pub(crate) async fn ended(&self, task: TaskId) -> Result<TaskDetail> {
        let detail = self.client.wait(task, PATIENCE).await?;
        if !detail.summary.state.is_final() {
            let explanation = self.client.explain(task).await?;
            anyhow::bail!("task {task} does not end: {explanation:#?}\n{}", self.orchestration.text());
        }
        Ok(detail)
    }

    /// Checks that nothing is left, drains the orchestration and removes the database.
    pub(crate) async fn finish(mut self) -> Result<()> {
        ensure!(self.open_tasks().await? == 0, "a task is open");
        let queues: Vec<String> =
            sqlx::query_scalar("select queue_name from pgmq.list_queues()").fetch_all(self.pool.pool()).await?;
        for queue in queues {
            let sql = format!("select count(*) from pgmq.q_{queue}");
            eventually(&format!("queue {queue} is empty"), async || Ok(self.count(&sql).await? == 0)).await?;
        }
        if self.orchestration.runs() {
            self.orchestration.drain().await?;
        }
        self.drop().await
    }

    /// Removes the database, whatever is left in it.
    pub(crate) async fn drop(self) -> Result<()> {
        self.pool.pool().close().await;
        self.database.drop().await
    }
}

fn task(name: &str, input: Value) -> SubmitTask {
    SubmitTask { namespace: "stage".to_owned(), name: name.to_owned(), input, ..SubmitTask::default() }
}

/// Whether a process exists and is not a corpse.
pub(crate) fn exists(pid: i32) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    status.is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'))
}

/// An OTLP collector over HTTP that keeps what it is sent.
pub(crate) struct Collector {
    pub(crate) url: String,
    received: Arc<Received>,
}

#[derive(Default)]
struct Received {
    metrics: Mutex<Vec<ExportMetricsServiceRequest>>,
    traces: Mutex<Vec<ExportTraceServiceRequest>>,
}

impl Collector {
    pub(crate) async fn start() -> Result<Self> {
        let received = Arc::new(Received::default());
        let router = Router::new()
            .route("/v1/metrics", post(metrics))
            .route("/v1/traces", post(traces))
            .with_state(Arc::clone(&received));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { url, received })
    }

    /// The sum of a counter over its series, as it was sent last.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let requests = self.received.metrics.lock().expect("nobody panicked");
        let metrics = requests.iter().rev().flat_map(|r| &r.resource_metrics).flat_map(|r| &r.scope_metrics);
        let found = metrics.flat_map(|s| &s.metrics).find(|metric| metric.name == name);
        let Some(Data::Sum(sum)) = found.and_then(|metric| metric.data.as_ref()) else { return 0.0 };
        let value = |number: &Number| match number {
            Number::AsDouble(value) => *value,
            Number::AsInt(value) => *value as f64,
        };
        sum.data_points.iter().filter_map(|point| point.value.as_ref()).map(value).sum()
    }

    pub(crate) fn spans(&self) -> usize {
        let requests = self.received.traces.lock().expect("nobody panicked");
        let scopes = requests.iter().flat_map(|r| &r.resource_spans).flat_map(|r| &r.scope_spans);
        scopes.map(|scope| scope.spans.len()).sum()
    }
}

async fn metrics(State(received): State<Arc<Received>>, body: Bytes) {
    let request = ExportMetricsServiceRequest::decode(body).expect("an export of metrics");
    received.metrics.lock().expect("nobody panicked").push(request);
}

async fn traces(State(received): State<Arc<Received>>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).expect("an export of spans");
    received.traces.lock().expect("nobody panicked").push(request);
}
