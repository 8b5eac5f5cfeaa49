//! The catalogue tells the truth: what a full run exports is exactly what is declared.

use super::{
    receiver::Receiver,
    rig::{FLUSH, settings},
    samples::{Sample, samples},
};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tasker_orchestration::{operate, query, service as orchestration};
use tasker_shared::{
    api::{Action, DeadLetterFilter, SubmitTask, Submitted},
    config::{Config, Sources},
    id::TaskId,
    metrics::{CATALOG, Kind, cardinality, cardinality::Deployment},
    runtime::Process,
    telemetry::{Telemetry, settings::Protocol},
};
use tasker_tests::{
    TestDatabase,
    system::eventually,
    templates::{NAMESPACE, single},
};
use tasker_worker::{HandlerError, StepContext, handler::handler_fn, service as worker};
use tokio_util::sync::CancellationToken;

/// Counters of what does not go wrong in a test on purpose: they are exported, and tell zero.
const NOTHING_HAPPENED: &[&str] = &[
    "mpsc_channel_full_events_total",
    "tasker.notifications.failed.total",
    "ffi_completion_slow_sends_total",
    "ffi_completion_circuit_open_rejections_total",
    "tasker.worker.claims_held_back.total",
];

async fn fails(_: StepContext) -> Result<Value, HandlerError> {
    Err(HandlerError::retry("never works"))
}

/// The tables whose absence makes a heartbeat or the read of a queue fail, for as long as the test wants.
const BREAK: &str = "alter table tasker.workers rename to broken; alter table pgmq.q_task_requests rename to q_broken";
const MEND: &str = "alter table tasker.broken rename to workers; alter table pgmq.q_broken rename to q_task_requests";

/// Messages that nobody understands; one was read before.
const UNREADABLE: &str = "
    insert into pgmq.q_task_requests (vt, read_ct, message) values (clock_timestamp(), 1, '{\"x\": 1}');
    insert into pgmq.q_step_results (vt, message) values (clock_timestamp(), '{\"x\": 1}');
    insert into pgmq.q_worker_test (vt, message) values (clock_timestamp(), '{\"x\": 1}')";

/// A worker that retention forgets.
const LONG_GONE: &str = "
    insert into tasker.workers (id, name, namespaces, handlers, version, heartbeat_at)
    values (tasker.uuid_v7(), 'gone', '{}', '{}', '', clock_timestamp() - interval '1 year')";

fn templates() -> [String; 6] {
    [
        single("succeeds", "noop", ""),
        single("fails", "fails", "retry: {max_attempts: 2, backoff: none}"),
        single("hangs", "hang", "timeout_seconds: 0.1, retry: {retryable: false}"),
        single("limited", "hang", "timeout_seconds: 0.1, retry: {retryable: false}, concurrency: {limit: 1}"),
        // nobody serves it
        single("idles", "noop", "").replace("namespace_name: test", "namespace_name: idle"),
        // long enough for its memory to be sampled
        "name: runs\nnamespace_name: test\nversion: 1.0.0\nsteps:\n  - name: only\n    handler:\n      callable: command\n      \
         initialization: {argv: [\"sleep\", \"1\"], output: text}\n"
            .to_owned(),
    ]
}

/// Both services as `tasker dev` starts them.
struct Services {
    http: reqwest::Client,
    api: String,
    database: tasker_shared::storage::Database,
    orchestration: tasker_orchestration::Orchestration,
    telemetry: Telemetry,
    shutdown: CancellationToken,
    silence: CancellationToken,
    running: Vec<tokio::task::JoinHandle<()>>,
}

impl Services {
    async fn start(url: &str, receiver: &Receiver) -> Result<Self> {
        let mut sources = Sources::built_in("test");
        for (variable, value) in [
            ("DATABASE_URL", url),
            ("TASKER__ORCHESTRATION__HTTP_ADDRESS", "127.0.0.1:0"),
            ("TASKER__WORKER__HTTP_ADDRESS", "127.0.0.1:0"),
            ("TASKER__WORKER__HEARTBEAT_INTERVAL_MS", "100"),
            ("TASKER__WORKER__COMMAND__ENABLED", "true"),
            ("TASKER__WORKER__COMMAND__ALLOWED_PROGRAMS", "*"),
            ("TASKER__WORKER__NAMESPACES", NAMESPACE),
            ("TASKER__ORCHESTRATION__REPAIR_INTERVAL_MS", "200"),
            ("TASKER__ORCHESTRATION__STALLED_AFTER_MS", "5000"),
            ("TASKER__TELEMETRY__METRICS__PROBE_INTERVAL_MS", "200"),
            ("TASKER__ORCHESTRATION__MAX_WAITING_REQUESTS", "1"),
            ("TASKER__ORCHESTRATION__RATE_LIMITS__READ_PER_SECOND", "1000"),
            ("TASKER__RETENTION__SWEEP_INTERVAL_MS", "200"),
        ] {
            sources = sources.with(variable, value);
        }
        let config = Config::load(&sources)?;
        let mut exported = settings(receiver.listen(Protocol::Grpc).await?, Protocol::Grpc);
        exported.metrics.max_correlation_ids = 1;
        let telemetry = Telemetry::start(&exported, "tasker", "0", &|_| None)?;
        let (shutdown, silence) = (CancellationToken::new(), CancellationToken::new());
        let process =
            Process::connect(Arc::new(config), &telemetry, "tasker", shutdown.clone(), silence.clone()).await?;
        let mut registry = worker::built_in(&process.config)?;
        registry.register("fails", handler_fn(fails))?;
        registry.register("hang", handler_fn(|_: StepContext| std::future::pending::<Result<(), HandlerError>>()))?;
        let orchestration = orchestration::Service::bind(process.clone()).await?;
        let worker = worker::Service::bind(process.clone(), registry).await?;
        Ok(Self {
            http: reqwest::Client::new(),
            api: format!("http://{}", orchestration.address()?),
            database: process.database,
            orchestration: orchestration.orchestration().clone(),
            telemetry,
            shutdown,
            silence,
            running: vec![
                tokio::spawn(async move { orchestration.run().await.expect("the orchestration runs") }),
                tokio::spawn(async move { worker.run().await.expect("the worker runs") }),
            ],
        })
    }

    async fn execute(&self, sql: &str) -> Result<()> {
        sqlx::raw_sql(sql).execute(self.database.pool()).await?;
        Ok(())
    }

    async fn submit(&self, name: &str) -> Result<TaskId> {
        let namespace = if name == "idles" { "idle" } else { NAMESPACE };
        let task = SubmitTask { namespace: namespace.to_owned(), name: name.to_owned(), ..SubmitTask::default() };
        let answer = self.http.post(format!("{}/v1/tasks", self.api)).json(&json!(task)).send().await?;
        Ok(answer.error_for_status()?.json::<Submitted>().await?.task_id)
    }

    async fn run(&self, name: &str) -> Result<()> {
        let task = self.submit(name).await?;
        let detail = query::wait(&self.orchestration, task, Duration::from_secs(30)).await?;
        anyhow::ensure!(detail.summary.state.is_final(), "{name}: {:?}", detail.summary.state);
        Ok(())
    }

    /// One of two requests that wait at once finds no place, and one that comes while the breaker is open is refused.
    async fn refuse(&self) -> Result<()> {
        let wait = format!("{}/v1/tasks/{}/wait", self.api, self.submit("runs").await?);
        let answers = futures::future::join_all([self.http.get(&wait).send(), self.http.get(&wait).send()]).await;
        let refused = answers.into_iter().filter(|answer| answer.as_ref().is_ok_and(|a| a.status() == 503)).count();
        anyhow::ensure!(refused == 1, "{refused} were refused for want of a place");
        let breaker = self.database.breakers().of(tasker_shared::breaker::API);
        while let Ok(permit) = breaker.admit() {
            permit.failed(&"a test says so");
        }
        let refused = self.http.get(format!("{}/v1/tasks", self.api)).send().await?;
        anyhow::ensure!(refused.status() == 503, "the breaker is open and {} is answered", refused.status());
        eventually("the breaker is closed", async || Ok(breaker.state() == tasker_shared::breaker::State::Closed)).await
    }

    async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        for service in self.running {
            service.await?;
        }
        self.silence.cancel();
        self.telemetry.shutdown(FLUSH).await;
        self.database.pool().close().await;
        Ok(())
    }
}

/// The names that told something, and those that were exported at all.
fn told(samples: &[Sample]) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let is_gauge = |name: &str| {
        CATALOG.iter().any(|spec| spec.name == name && !matches!(spec.kind, Kind::Counter | Kind::Histogram))
    };
    let something = |sample: &&Sample| is_gauge(&sample.name) || sample.value.is_some_and(|value| value > 0.0);
    (
        samples.iter().filter(something).map(|sample| sample.name.as_str()).collect(),
        samples.iter().map(|sample| sample.name.as_str()).collect(),
    )
}

/// What [`templates`] and this test deploy, for a process with one id.
const DEPLOYED: Deployment =
    Deployment { namespaces: 2, templates: 6, steps: 6, steps_of_largest: 1, limits: 1, correlation_ids: 1 };

/// No metric has more label sets than the contract says: each task, and what is counted without a task.
fn holds_the_contract(samples: &[Sample]) {
    let shared = Deployment { correlation_ids: 0, ..DEPLOYED };
    for spec in CATALOG {
        let mut sets: BTreeMap<Option<&str>, BTreeSet<_>> = BTreeMap::new();
        for sample in samples.iter().filter(|sample| sample.name == spec.name) {
            let id = sample.labels.get("correlation_id").map(String::as_str).filter(|id| *id != "overflow");
            sets.entry(id).or_default().insert(&sample.labels);
        }
        let most_shared = cardinality::most_sets(spec, &shared);
        let most_of_one = cardinality::most_sets(spec, &DEPLOYED) - most_shared;
        for (id, sets) in sets {
            let most = if id.is_some() { most_of_one } else { most_shared };
            assert!(sets.len() <= most, "{}: {} label sets, at most {most}: {sets:#?}", spec.name, sets.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_run_tells_every_declared_metric_and_no_other_within_the_bounds_on_series() -> Result<()> {
    let (test_database, receiver) = (TestDatabase::create().await?, Receiver::default());
    let services = Services::start(&test_database.url, &receiver).await?;
    for template in templates() {
        let request = tasker_shared::api::ApplyTemplate { source: template, file: None };
        tasker_orchestration::templates::apply(&services.orchestration, &request).await.context("apply")?;
    }
    receiver.refuse(2);
    for name in ["succeeds", "fails", "hangs", "runs"] {
        services.run(name).await?;
    }
    for _ in 0..20 {
        services.submit("succeeds").await?;
    }
    for _ in 0..3 {
        services.submit("limited").await?;
    }
    services.submit("idles").await?;
    services.execute("delete from pgmq.q_worker_idle").await?;
    for path in ["/health", "/metrics", "/v1/tasks"] {
        services.http.get(format!("{}{path}", services.api)).send().await?.error_for_status()?;
    }
    services.refuse().await?;
    services.execute(UNREADABLE).await?;
    let parked = async || {
        let filter = DeadLetterFilter { open: Some(true), ..DeadLetterFilter::default() };
        anyhow::Ok(
            query::dead_letters(&services.orchestration, &filter, &tasker_shared::access::Namespaces::All)
                .await?
                .dead_letters,
        )
    };
    eventually("something is parked", async || Ok(!parked().await?.is_empty())).await?;
    operate::redrive(&services.orchestration, parked().await?[0].dead_letter_id, &Action::default()).await?;
    services.execute(LONG_GONE).await?;
    services.execute(BREAK).await?;
    let failed = |name: &'static str| {
        let receiver = receiver.clone();
        async move || Ok(super::samples::total(&samples(&receiver.metrics()), name, &[]) > 0.0)
    };
    eventually("a heartbeat has failed", failed("tasker.worker.heartbeat.failures.total")).await?;
    eventually("a queue has failed", failed("tasker.queue.errors.total")).await?;
    services.execute(MEND).await?;
    services.execute("vacuum tasker.tasks").await?;
    services.execute("analyze tasker.tasks").await?;
    let missing = async || {
        let samples = samples(&receiver.metrics());
        let (told, _) = told(&samples);
        let expected = CATALOG.iter().map(|spec| spec.name).filter(|name| !NOTHING_HAPPENED.contains(name));
        Ok::<_, anyhow::Error>(expected.filter(|name| !told.contains(name)).collect::<Vec<_>>())
    };
    let complete = eventually("everything is told", async || Ok(missing().await?.is_empty())).await;
    anyhow::ensure!(complete.is_ok(), "declared and never told: {:?}", missing().await?);
    services.stop().await?;
    let samples = samples(&receiver.metrics());
    let declared: BTreeSet<&str> = CATALOG.iter().map(|spec| spec.name).collect();
    assert_eq!(told(&samples).1, declared);
    holds_the_contract(&samples);
    test_database.drop().await
}
