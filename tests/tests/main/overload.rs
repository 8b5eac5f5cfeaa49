//! Overload: who comes too much is refused early, what was accepted completes, and a worker takes no more than it can
//! get rid of.

use crate::{breakers::metric, stage::Stage};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::time::{Duration, Instant};
use tasker_shared::{
    api::{Health, SubmitTask},
    breaker::State,
    metrics::Metrics,
    task::TaskState,
};
use tasker_tests::system::{connect, eventually};
use tokio::net::TcpListener;

const SUBMITTERS: usize = 64;
const EACH: usize = 5;

/// Much sooner than `retry-after` says: these submitters are in a hurry.
const COMES_BACK: Duration = Duration::from_millis(20);

/// One answer to a submitter.
struct Answer {
    status: u16,
    took: Duration,
}

/// Submits one task after the other, each until it is accepted.
async fn submitter(api: String, number: usize) -> Result<Vec<Answer>> {
    let http = reqwest::Client::new();
    let mut answers = Vec::new();
    for request in 0..EACH {
        let task = SubmitTask {
            namespace: "stage".to_owned(),
            name: "chain".to_owned(),
            idempotency_key: Some(format!("{number}-{request}")),
            input: json!({}),
            ..SubmitTask::default()
        };
        loop {
            let asked = Instant::now();
            let answer = http.post(format!("{api}/v1/tasks")).json(&task).send().await?;
            let (status, took) = (answer.status().as_u16(), asked.elapsed());
            answers.push(Answer { status, took });
            if status != 503 {
                break;
            }
            ensure!(answer.headers().contains_key("retry-after"), "it does not say when to come back");
            tokio::time::sleep(COMES_BACK).await;
        }
    }
    Ok(answers)
}

/// The middle, the 99th of a hundred, and the slowest, in milliseconds.
fn latencies(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
    format!("p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms", at(0.5), at(0.99), at(1.0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_submitters_are_refused_early_and_every_accepted_task_completes() -> Result<()> {
    let stage = Stage::start_with(&[("TASKER__ORCHESTRATION__MAX_CONCURRENT_REQUESTS", "8")]).await?;
    let mut worker = stage.worker(&[])?;
    let api = stage.orchestration.url().await?;
    let started = Instant::now();
    let submitters = (0..SUBMITTERS).map(|number| tokio::spawn(submitter(api.clone(), number)));
    let mut answers = Vec::new();
    for answered in futures::future::join_all(submitters).await {
        answers.extend(answered??);
    }
    let took = started.elapsed();
    let times = |status: u16| answers.iter().filter(|a| a.status == status).map(|a| a.took).collect::<Vec<_>>();
    let (accepted, refused) = (times(201), times(503));
    assert_eq!(accepted.len() + refused.len(), answers.len(), "every answer is one of the two");
    assert_eq!(accepted.len(), SUBMITTERS * EACH, "who comes back is accepted in the end, and once");
    assert!(!refused.is_empty(), "nobody was refused");
    let (held, shed) = (i64::try_from(accepted.len())?, refused.len());
    let counted = metric(&api, "tasker_api_requests_shed_total", "endpoint=\"/v1/tasks\"").await?;
    assert!((counted - shed as f64).abs() < 0.5, "{counted} are counted, {shed} were refused");
    stage.chains_are_done(held).await?;
    println!(
        "overload: {SUBMITTERS} submitters, {} requests in {took:.2?} at 8 places: {held} accepted ({}), {shed} refused ({}); \
         all {held} tasks complete after {:.2?}",
        answers.len(),
        latencies(accepted),
        latencies(refused),
        started.elapsed()
    );
    worker.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_submits_too_often_is_told_to_wait_and_may_still_look() -> Result<()> {
    let limits = [
        ("TASKER__ORCHESTRATION__RATE_LIMITS__SUBMIT_PER_SECOND", "0.01"),
        ("TASKER__ORCHESTRATION__RATE_LIMITS__SUBMIT_BURST", "5"),
    ];
    let stage = Stage::start_with(&limits).await?;
    let api = stage.orchestration.url().await?;
    let http = reqwest::Client::new();
    let mut told = Vec::new();
    for _ in 0..8 {
        let answer =
            http.post(format!("{api}/v1/tasks")).json(&json!({"namespace": "stage", "name": "none"})).send().await?;
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        assert_eq!(header("ratelimit-limit"), Some(5));
        let again = header("retry-after").is_some_and(|seconds| seconds > 1);
        told.push((answer.status().as_u16(), header("ratelimit-remaining").context("what is left")?, again));
    }
    let passed = |left| (404, left, false);
    let refused = (429, 0, true);
    assert_eq!(told, [passed(4), passed(3), passed(2), passed(1), passed(0), refused, refused, refused]);
    assert_eq!(http.get(format!("{api}/v1/tasks")).send().await?.status(), 200);
    for (outcome, expected) in [("allowed", 5.0), ("rejected", 3.0)] {
        let label = format!("outcome=\"{outcome}\"");
        let counted = metric(&api, "tasker_rate_limit_requests_total", &label).await?;
        assert!((counted - expected).abs() < 0.5, "{counted} {outcome}");
    }
    stage.finish().await
}

const QUICK_COMMAND: &str = "
name: quick
namespace_name: stage
version: 1.0.0
steps:
  - {name: only, handler: {callable: command, initialization: {argv: ['true'], output: text}}}
";

/// Keeps reports from being stored while it lives.
async fn block_reports(url: &str) -> Result<sqlx::Transaction<'static, sqlx::Postgres>> {
    let mut blocking = connect(url, Metrics::disabled()).await?.pool().begin().await?;
    sqlx::query("lock table pgmq.q_step_results in access exclusive mode").execute(&mut *blocking).await?;
    Ok(blocking)
}

async fn submit(stage: &Stage, name: &str, times: usize) -> Result<()> {
    for _ in 0..times {
        stage.submit(name, json!({})).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_outcomes_of_programs_cannot_be_handed_over_no_more_are_started_and_none_is_lost() -> Result<()> {
    let stage = Stage::start().await?;
    stage.apply(QUICK_COMMAND).await?;
    let mut worker = stage.worker(&[
        ("TASKER__WORKER__MAX_CONCURRENT_STEPS", "2"),
        ("TASKER__WORKER__REPORT_BATCH_SIZE", "1"),
        ("TASKER__WORKER__CLAIM_BELOW_PERCENT", "100"),
        ("TASKER__WORKER__LEASE_MS", "60000"),
        ("TASKER__BREAKERS__FFI_COMPLETION__FAILURES", "2"),
        ("TASKER__BREAKERS__FFI_COMPLETION__SLOW_SEND_MS", "50"),
        ("TASKER__BREAKERS__FFI_COMPLETION__OPEN_MS", "1500"),
        ("TASKER__BREAKERS__FFI_COMPLETION__WINDOW_MS", "60000"),
    ])?;
    let pages = worker.url().await?;
    let blocking = block_reports(&stage.database.url).await?;
    submit(&stage, "quick", 20).await?;
    let state = || metric(&pages, "tasker_circuit_breaker_state", "component=\"ffi_completion\"");
    eventually("the breaker opens", async || Ok(state().await? > 0.0)).await?;
    assert!(metric(&pages, "ffi_completion_slow_sends_total", "").await? >= 2.0);
    blocking.rollback().await?;
    let rejections = || metric(&pages, "ffi_completion_circuit_open_rejections_total", "");
    eventually("a program is not started", async || Ok(rejections().await? > 0.0)).await?;
    eventually("all tasks end", async || Ok(stage.open_tasks().await? == 0)).await?;
    assert!(state().await? < 0.5, "the breaker is closed again");
    for (what, expected, sql) in [
        ("complete", 20, "select count(*) from tasker.tasks where state = 'complete'"),
        ("reports", 20, "select count(*) from tasker.step_transitions where to_state = 'reported'"),
        ("failures", 0, "select sum(failures)::bigint from tasker.steps"),
        ("dead letters", 0, "select count(*) from tasker.dead_letters"),
    ] {
        assert_eq!(stage.count(sql).await?, expected, "{what}");
    }
    let given_back =
        "select count(*) from tasker.step_transitions where from_state = 'in_progress' and to_state = 'enqueued'";
    let (told, counted) = (stage.count(given_back).await? as f64, rejections().await?);
    assert!((told - counted).abs() < 0.5, "{told} were given back, {counted} are counted");
    worker.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_outcomes_pile_up_claims_nothing_more_until_they_are_stored() -> Result<()> {
    let stage = Stage::start().await?;
    let mut worker = stage.worker(&[
        ("TASKER__WORKER__MAX_CONCURRENT_STEPS", "50"),
        ("TASKER__WORKER__CLAIM_BATCH_SIZE", "1"),
        ("TASKER__WORKER__REPORT_BATCH_SIZE", "1"),
        ("TASKER__WORKER__CLAIM_BELOW_PERCENT", "5"),
        ("TASKER__WORKER__LEASE_MS", "60000"),
    ])?;
    let pages = worker.url().await?;
    let blocking = block_reports(&stage.database.url).await?;
    submit(&stage, "chain", 40).await?;
    let held_back = || metric(&pages, "tasker_worker_claims_held_back_total", "reason=\"outcomes\"");
    eventually("the worker holds back", async || Ok(held_back().await? > 0.0)).await?;
    let claimed = stage.count("select count(*) from tasker.steps where state = 'in_progress'").await?;
    assert!(claimed < 40, "{claimed} steps are claimed");
    blocking.rollback().await?;
    stage.chains_are_done(40).await?;
    worker.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_too_much_in_memory_claims_nothing_and_leaves_the_steps_to_others() -> Result<()> {
    let stage = Stage::start().await?;
    let mut full = stage.worker(&[("TASKER__WORKER__MAX_MEMORY_BYTES", "1")])?;
    let pages = full.url().await?;
    let held_back = || metric(&pages, "tasker_worker_claims_held_back_total", "reason=\"memory\"");
    eventually("the worker holds back", async || Ok(held_back().await? > 0.0)).await?;
    submit(&stage, "chain", 3).await?;
    assert_eq!(stage.count("select count(*) from tasker.steps where attempt > 0").await?, 0);
    let mut other = stage.worker(&[])?;
    stage.chains_are_done(3).await?;
    full.drain().await?;
    other.drain().await?;
    stage.finish().await
}

fn calls(name: &str, retry: &str, address: std::net::SocketAddr) -> String {
    format!(
        "name: {name}\nnamespace_name: stage\nversion: 1.0.0\nsteps:\n  - name: only\n    retry: {retry}\n    \
         handler: {{callable: http, initialization: {{url: 'http://{address}/'}}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_host_is_away_waits_for_it_without_using_up_its_only_attempt() -> Result<()> {
    let stage = Stage::start().await?;
    let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let mut worker = stage.worker(&[
        ("TASKER__WORKER__HTTP__ENABLED", "true"),
        ("TASKER__WORKER__HTTP__ALLOWED_HOSTS", "127.0.0.1"),
        ("TASKER__BREAKERS__HTTP_HANDLER__FAILURES", "3"),
        ("TASKER__BREAKERS__HTTP_HANDLER__OPEN_MS", "3000"),
    ])?;
    let pages = worker.url().await?;
    stage.apply(&calls("stubborn", "{max_attempts: 3, backoff: none}", address)).await?;
    stage.apply(&calls("once", "{max_attempts: 1, retryable: false}", address)).await?;
    let lost = stage.submit("stubborn", json!({})).await?;
    assert_eq!(stage.ended(lost).await?.summary.state, TaskState::Error, "it was tried three times");
    let component = "component=\"http_handler\"";
    assert!((metric(&pages, "tasker_circuit_breaker_state", component).await? - 2.0).abs() < 0.1);
    let health: Health = reqwest::get(format!("{pages}/health/detailed")).await?.json().await?;
    let shown = health.breakers.iter().find(|b| b.component == "http_handler").context("it is shown")?;
    assert_eq!((shown.host.clone(), shown.state), (Some(address.to_string()), State::Open));
    assert_eq!(health.status, "healthy", "a host is none of the service's own parts");

    let waiting = stage.submit("once", json!({})).await?;
    let not_tried =
        "select count(*) from tasker.steps where state = 'waiting_for_retry' and failures = 0 and attempt = 1";
    eventually("the step waits", async || Ok(stage.count(not_tried).await? == 1)).await?;
    let listener = TcpListener::bind(address).await?;
    let server =
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(|| async { "back" })).await });
    let done = stage.ended(waiting).await?;
    assert_eq!((done.summary.state, done.steps[0].attempt), (TaskState::Complete, 2));
    assert_eq!(stage.count("select sum(failures)::bigint from tasker.steps where state = 'complete'").await?, 0);
    assert!(metric(&pages, "tasker_circuit_breaker_state", component).await? < 0.1);
    server.abort();
    worker.drain().await?;
    stage.finish().await
}
