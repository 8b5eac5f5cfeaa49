//! Circuit breakers around a database that freezes, dies and comes back: requests are refused at once, loops pause, one
//! try at a time, and nothing is lost.

use crate::stage::Stage;
use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    time::{Duration, Instant},
};
use tasker_postgres::{Cluster, Options};
use tasker_shared::{api::Health, breaker::State, metrics::Metrics};
use tasker_tests::system::migrate;
use tasker_tests::{
    TestDatabase,
    process::Process,
    system::{connect, eventually},
};
use tempfile::TempDir;

/// Times that make an outage short.
const QUICK: &[(&str, &str)] = &[
    ("TASKER__DATABASE__ACQUIRE_TIMEOUT_MS", "500"),
    ("TASKER__DATABASE__STATEMENT_TIMEOUT_MS", "1000"),
    ("TASKER__ORCHESTRATION__REQUEST_TIMEOUT_MS", "1000"),
    ("TASKER__BREAKERS__DATABASE__FAILURES", "3"),
    ("TASKER__BREAKERS__DATABASE__WINDOW_MS", "60000"),
    ("TASKER__BREAKERS__DATABASE__OPEN_MS", "200"),
    ("TASKER__BREAKERS__DATABASE__LONGEST_OPEN_MS", "400"),
];

/// A request that is refused by a breaker costs nothing; this is generous for a busy machine.
const AT_ONCE: Duration = Duration::from_millis(250);

/// A PostgreSQL of the test's own, which it may hurt.
struct Patient {
    cluster: Option<Cluster>,
    _dir: TempDir,
}

/// Every process of the server, stopped; they go on when this is dropped.
struct Frozen(Vec<Pid>);

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill(*pid, Signal::SIGCONT);
        }
    }
}

impl Patient {
    async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let root = dir.path().join("postgres");
        let start = move || Cluster::start(&Options { durable: false, ..Options::new(&root) });
        let cluster = tokio::task::spawn_blocking(start).await??;
        Ok(Self { cluster: Some(cluster), _dir: dir })
    }

    async fn database(&self) -> Result<TestDatabase> {
        let url = self.cluster.as_ref().context("it runs")?.tcp_url("postgres");
        migrate(&url).await?;
        Ok(TestDatabase { name: "of_the_patient".to_owned(), url })
    }

    fn freeze(&self) -> Result<Frozen> {
        let pid = self.cluster.as_ref().and_then(Cluster::pid).context("it runs")?;
        let parent = |process: &str| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            stat.rsplit(") ").next()?.split_whitespace().nth(1)?.parse::<u32>().ok()
        };
        // the postmaster first, so that no backend is born unseen
        let mut frozen = Frozen(vec![Pid::from_raw(i32::try_from(pid)?)]);
        kill(frozen.0[0], Signal::SIGSTOP)?;
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if parent(&name) == Some(pid) {
                let backend = Pid::from_raw(name.parse()?);
                frozen.0.push(backend);
                kill(backend, Signal::SIGSTOP)?;
            }
        }
        Ok(frozen)
    }

    async fn with(&mut self, act: impl FnOnce(&mut Cluster) + Send + 'static) -> Result<()> {
        let mut cluster = self.cluster.take().context("it runs")?;
        let acted = move || {
            act(&mut cluster);
            cluster
        };
        self.cluster = Some(tokio::task::spawn_blocking(acted).await?);
        Ok(())
    }
}

/// The sum of a metric's series with this text among their labels, as the process shows it.
pub(crate) async fn metric(url: &str, name: &str, label: &str) -> Result<f64> {
    let page = reqwest::get(format!("{url}/metrics")).await?.text().await?;
    let series = page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let ours = series.filter(|(series, _)| series.split('{').next() == Some(name) && series.contains(label));
    Ok(ours.map(|(_, value)| value.parse::<f64>()).sum::<Result<f64, _>>()?)
}

async fn states(url: &str) -> Result<Vec<(String, State)>> {
    let health: Health = reqwest::get(format!("{url}/health/detailed")).await?.json().await?;
    Ok(health.breakers.into_iter().map(|breaker| (breaker.component, breaker.state)).collect())
}

/// Asks until the API's breaker is open; answers with the time that took.
async fn opens(url: &str) -> Result<Duration> {
    let started = Instant::now();
    eventually("the breaker of the API opens", async || {
        let asked = (0..5).map(|_| reqwest::get(format!("{url}/v1/workers")));
        futures::future::join_all(asked).await;
        Ok(metric(url, "api_circuit_breaker_state", "").await? > 0.0)
    })
    .await?;
    Ok(started.elapsed())
}

/// Many requests are refused, all and at once; answers with the slowest.
async fn refuses_at_once(url: &str) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..50 {
        let asked = Instant::now();
        let answer = reqwest::get(format!("{url}/v1/workers")).await?;
        times.push(asked.elapsed());
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let again: u64 = answer.headers()["retry-after"].to_str()?.parse()?;
        assert!((1..=5).contains(&again), "{again}");
    }
    times.sort();
    ensure!(times[25] < AT_ONCE, "half of the refusals took more than {:?}", times[25]);
    Ok(times[49])
}

async fn all_closed(url: &str, components: &[&str]) -> Result<()> {
    eventually("every breaker is closed", async || {
        let states = states(url).await?;
        Ok(components.iter().all(|c| states.contains(&((*c).to_owned(), State::Closed))))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_requests_are_refused_at_once_and_afterwards_nothing_is_lost() -> Result<()> {
    let mut patient = Patient::start().await?;
    let database = patient.database().await?;
    let stage = Stage::on_with(database, QUICK).await?;
    let mut worker = stage.worker(QUICK)?;
    let (api, pages) = (stage.orchestration.url().await?, worker.url().await?);
    all_closed(&api, &["api_database", "pgmq", "task_readiness"]).await?;
    all_closed(&pages, &["pgmq"]).await?;
    stage.submit_chains(100).await?;
    stage.steps_done_reach(20).await?;

    let told = |process: &Process, what: &str| process.text().matches(&format!("the circuit breaker {what}")).count();
    // on a machine that is busy it may open between the outages as well
    let of_api =
        || (told(&stage.orchestration, "api_database opens"), told(&stage.orchestration, "api_database closes"));
    let before_outage = of_api();
    let frozen = patient.freeze()?;
    let opened = opens(&api).await?;
    let before = metric(&api, "api_requests_rejected_total", "/v1/workers").await?;
    let slowest = refuses_at_once(&api).await?;
    let rejected = metric(&api, "api_requests_rejected_total", "/v1/workers").await? - before;
    assert!((rejected - 50.0).abs() < 0.5, "{rejected}");
    for (url, component) in [(&api, "pgmq"), (&api, "task_readiness"), (&pages, "pgmq")] {
        let name = format!("component=\"{component}\"");
        eventually("the breakers of the loops open", async || {
            Ok(metric(url, "tasker_circuit_breaker_state", &name).await? > 0.0)
        })
        .await?;
    }
    let shown = states(&api).await?;
    assert!(shown.iter().filter(|(_, state)| *state != State::Closed).count() == 3, "{shown:?}");
    assert_eq!(of_api(), (before_outage.0 + 1, before_outage.1), "an outage is told once, whatever is tried meanwhile");
    let thawed = Instant::now();
    drop(frozen);
    all_closed(&api, &["api_database", "pgmq", "task_readiness"]).await?;
    println!(
        "frozen: open after {opened:?}, slowest refusal {slowest:?}, closed {:?} after the thaw",
        thawed.elapsed()
    );
    all_closed(&pages, &["pgmq"]).await?;

    let before_outage = of_api();
    patient.with(|cluster| cluster.kill9().expect("it is killed")).await?;
    let opened = opens(&api).await?;
    let slowest = refuses_at_once(&api).await?;
    assert_eq!(of_api(), (before_outage.0 + 1, before_outage.1), "an outage is told once, whatever is tried meanwhile");
    patient.with(|cluster| cluster.restart().expect("it starts again")).await?;
    let restarted = Instant::now();
    all_closed(&api, &["api_database", "pgmq", "task_readiness"]).await?;
    println!(
        "killed: open after {opened:?}, slowest refusal {slowest:?}, closed {:?} after the restart",
        restarted.elapsed()
    );

    // the test's own connection was cut too
    eventually("the test is connected", async || Ok(stage.open_tasks().await.is_ok())).await?;
    stage.chains_are_done(100).await?;
    all_closed(&api, &["api_database", "pgmq", "task_readiness"]).await?;
    all_closed(&pages, &["pgmq"]).await?;
    assert_eq!(of_api().0, of_api().1, "the end of each outage is told");
    assert!(told(&worker, "pgmq opens") >= 1 && told(&worker, "pgmq opens") == told(&worker, "pgmq closes"));
    worker.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_were_cut_together_fail_one_statement_and_not_one_each() -> Result<()> {
    let test_database = TestDatabase::create().await?;
    let database = connect(&test_database.url, Metrics::disabled()).await?;
    let sessions = futures::future::try_join_all((0..5).map(|_| database.session("warm"))).await?;
    drop(sessions);
    eventually("five connections are idle", async || Ok(database.pool().num_idle() == 5)).await?;
    let other = connect(&test_database.url, Metrics::disabled()).await?;
    sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
        .execute(other.pool())
        .await?;
    let mut failures = 0;
    for _ in 0..10 {
        failures += i32::from(database.ping().await.is_err_and(|error| error.is_outage()));
    }
    assert_eq!(failures, 1);
    database.pool().close().await;
    other.pool().close().await;
    test_database.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_tells_of_the_server_is_an_outage() -> Result<()> {
    let test_database = TestDatabase::create().await?;
    let database = connect(&test_database.url, Metrics::disabled()).await?;
    for (before, statement, transient, outage) in [
        ("select 1", "select nonsense", false, false),
        ("select 1", "insert into tasker.namespaces (name) values ('twice'), ('twice')", false, false),
        ("set statement_timeout = 1", "select pg_sleep(5)", true, false),
        ("set default_transaction_read_only = on", "create table t ()", true, true),
        ("select 1", "select pg_terminate_backend(pg_backend_pid())", true, true),
    ] {
        let mut session = database.session("test").await?;
        session.execute("prepare_test", sqlx::query(before)).await?;
        let error = session.execute("fail", sqlx::query(statement)).await.expect_err("it fails");
        assert_eq!((error.is_transient(), error.is_outage()), (transient, outage), "{statement}: {error}");
        session.execute("reset", sqlx::query("reset all")).await.ok();
    }
    database.pool().close().await;
    test_database.drop().await
}

/// What the caller did wrong, and what the server refuses, opens no breaker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_and_statements_that_are_refused_open_no_breaker() -> Result<()> {
    let stage = Stage::start_with(QUICK).await?;
    let api = stage.orchestration.url().await?;
    let http = reqwest::Client::new();
    for _ in 0..20 {
        for body in
            ["{", "{\"namespace\": \"no\", \"name\": \"such\"}", "{\"namespace\": \"\\u0000\", \"name\": \"x\"}"]
        {
            let request = http.post(format!("{api}/v1/tasks")).header("content-type", "application/json");
            assert!(request.body(body).send().await?.status().is_client_error());
        }
    }
    assert_eq!(states(&api).await?.iter().filter(|(_, state)| *state != State::Closed).count(), 0);
    stage.finish().await
}
