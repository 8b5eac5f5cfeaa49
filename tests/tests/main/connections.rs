//! Connections that die without a word, as behind a firewall or after a failover: nobody waits for them for ever.

use anyhow::Result;
use std::time::{Duration, Instant};
use tasker_postgres::testkit::Shared;
use tasker_shared::{
    api::{ApplyTemplate, SubmitTask},
    metrics::Metrics,
    runtime::{Bell, Topic, Wake},
    storage::{Database, Options},
    task::TaskState,
};
use tasker_tests::{
    TestDatabase,
    chaos::proxy::Proxy,
    process::{ORCHESTRATION, Process, WORKER},
    system::eventually,
    templates::{NAMESPACE, dag},
};
use tokio_util::sync::CancellationToken;

/// A door to the database of the test whose connections can be made to die.
async fn door(test: &TestDatabase) -> Result<(Proxy, String)> {
    let shared = tokio::task::spawn_blocking(Shared::get).await??;
    let direct = shared.tcp_url(&test.name);
    let port: u16 = direct.rsplit_once(':').and_then(|(_, tail)| tail.split('/').next()?.parse().ok()).expect("a port");
    let proxy = Proxy::start(port).await?;
    let url = direct.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
    Ok((proxy, url))
}

async fn fragile(test: &TestDatabase) -> Result<(Proxy, Database)> {
    let (proxy, url) = door(test).await?;
    let options = Options {
        url,
        max_connections: 4,
        connect_timeout: Duration::from_secs(10),
        acquire_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(1),
        application_name: "fragile".to_owned(),
        own_names_only: true,
    };
    Ok((proxy, Database::connect(&options, Metrics::disabled()).await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_start_while_postgresql_is_away_wait_for_it_and_work() -> Result<()> {
    let test = TestDatabase::create().await?;
    let (proxy, url) = door(&test).await?;
    proxy.refuse(true);
    let mut orchestration = Process::service(ORCHESTRATION, &url, &[])?;
    let mut worker = Process::service(WORKER, &url, &[])?;
    for service in [&orchestration, &worker] {
        service.wrote("PostgreSQL cannot be used yet; it is tried for 30s").await?;
    }
    proxy.refuse(false);
    let client = orchestration.client().await?;
    worker.url().await?;
    client.apply(&ApplyTemplate { source: dag("one", "noop", &[("a", &[])]), file: None }).await?;
    let submit = SubmitTask { namespace: NAMESPACE.to_owned(), name: "one".to_owned(), ..SubmitTask::default() };
    let task = client.submit(&submit).await?.task_id;
    assert_eq!(client.wait(task, Duration::from_secs(20)).await?.summary.state, TaskState::Complete);
    worker.drain().await?;
    orchestration.drain().await?;
    test.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_on_a_dead_connection_fails_and_the_next_ones_use_new_connections() -> Result<()> {
    let test = TestDatabase::create().await?;
    let (proxy, database) = fragile(&test).await?;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let mut session = database.session("warm").await?;
        session.execute("warm", sqlx::query("select 1")).await?;
        sessions.push(session);
    }
    drop(sessions);
    eventually("the connections are back", async || Ok(database.pool().num_idle() == 4)).await?;
    proxy.deafen();
    let waiting = tokio::time::timeout(Duration::from_secs(15), database.ping()).await;
    let error = waiting.expect("it is not waited for for ever").expect_err("there is no answer");
    assert!(error.is_transient(), "{error}");
    let started = Instant::now();
    for _ in 0..4 {
        database.ping().await?;
    }
    assert!(started.elapsed() < Duration::from_secs(3), "the other dead connections are not tried one by one");
    database.pool().close().await;
    test.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_service_is_gone_does_not_hold_its_locks_for_ever() -> Result<()> {
    let test = TestDatabase::create().await?;
    let (proxy, database) = fragile(&test).await?;
    let mut lost = database.begin("lost").await?;
    lost.execute("lock", sqlx::query("select pg_advisory_xact_lock(1)")).await?;
    proxy.deafen();
    let free = "select pg_try_advisory_xact_lock(1)";
    eventually("the lock is free", async || {
        let (free,): (bool,) = sqlx::query_as(free).fetch_one(database.pool()).await?;
        Ok(free)
    })
    .await?;
    drop(lost);
    test.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bell_whose_connection_is_dead_hears_again_by_itself() -> Result<()> {
    let test = TestDatabase::create().await?;
    let (proxy, database) = fragile(&test).await?;
    let silence = CancellationToken::new();
    let hearing = Bell::start(database.pool(), database.metrics().clone(), silence.clone());
    let direct = tasker_tests::system::connect(&test.url, Metrics::disabled()).await?;
    let ringing = Bell::start(direct.pool(), direct.metrics().clone(), silence.clone());
    let mut steps = hearing.subscribe(Topic::Timers);
    let hears = async |steps: &mut tasker_shared::runtime::Subscription| {
        ringing.ring(Topic::Timers);
        steps.wait(Duration::from_millis(200)).await == Wake::Event
    };
    let limit = Instant::now() + Duration::from_secs(20);
    while !hears(&mut steps).await {
        assert!(Instant::now() < limit, "it does not begin to hear");
    }
    proxy.deafen();
    let limit = Instant::now() + Duration::from_secs(40);
    // what was on its way may still be heard
    while hears(&mut steps).await && Instant::now() < limit {}
    while !hears(&mut steps).await {
        assert!(Instant::now() < limit, "it stays deaf");
    }
    silence.cancel();
    test.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_leave_half_of_the_connections_to_the_loops_however_many_there_are() -> Result<()> {
    let test = TestDatabase::create().await?;
    let shared = tokio::task::spawn_blocking(Shared::get).await??;
    let options = Options {
        url: shared.tcp_url(&test.name),
        max_connections: 4,
        connect_timeout: Duration::from_secs(10),
        acquire_timeout: Duration::from_millis(500),
        statement_timeout: Duration::from_secs(10),
        application_name: "shared".to_owned(),
        own_names_only: true,
    };
    let loops = Database::connect(&options, Metrics::disabled()).await?;
    // two doors for requests, as the API and its gate have, and one bound for both
    let (api, gate) = (loops.for_requests(), loops.for_requests());
    let held = (api.session("request").await?, gate.session("request").await?);
    let requests = (0..20).map(|_| api.session("request"));
    let refused = futures::future::join_all(requests).await;
    let all_refused =
        refused.iter().all(|answer| answer.as_ref().is_err_and(tasker_shared::storage::Error::is_transient));
    assert!(all_refused, "a request got a third connection");
    let mut mine = (loops.session("loop").await?, loops.session("loop").await?);
    mine.0.execute("look", sqlx::query("select 1")).await?;
    drop(held.0);
    drop(api.session("request").await?);
    drop((held.1, mine));
    loops.pool().close().await;
    test.drop().await
}
