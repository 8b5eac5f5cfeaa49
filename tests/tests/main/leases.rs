//! Leases: workers that vanish, report too late, take long, drain, or are taken down by a step.

use anyhow::{Context as _, Result};
use serde_json::json;
use std::time::{Duration, Instant};
use tasker_shared::{
    id::{StepId, WorkerId},
    queue::QueueName,
    step::{FailureKind, ResultType, StepState},
    storage::reports::{self, Report},
    task::TaskState,
};
use tasker_tests::{
    Gate, System,
    system::{eventually, worker_settings},
    templates::{NAMESPACE, dag, single},
};
use tasker_worker::{Settings, Worker};

const LEASE: Duration = Duration::from_millis(1500);

fn quick() -> Settings {
    Settings { lease: LEASE, heartbeat_interval: Duration::from_millis(300), ..worker_settings() }
}

fn worker(gate: &Gate) -> tasker_worker::Builder {
    Worker::builder().settings(quick()).register("gate", gate.clone())
}

/// Ends the leases of all claimed steps.
async fn lapse(system: &System) -> Result<()> {
    let sql = format!("update {} set vt = now() where read_ct > 0", System::queue());
    system.execute(&sql).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_step_of_a_worker_that_vanished_runs_again_elsewhere_within_its_lease() -> Result<()> {
    let (mut system, first, second) = (System::start().await?, Gate::new(), Gate::new());
    let vanishing = system.add_worker(worker(&first))?;
    let task = system.begin_new(&dag("chain", "gate", &[("a", &[]), ("b", &["a"])])).await?;
    let lost = first.next().await;
    vanishing.vanish();
    vanishing.ended().await?;
    let since = Instant::now();
    system.add_worker(worker(&second))?;
    let again = second.next().await;
    assert!(since.elapsed() < LEASE + Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!((again.context.attempt, again.context.failures), (2, 0));
    assert_eq!(again.context.idempotency_key(), lost.context.idempotency_key());
    again.succeed(json!("second"));
    second.next().await.succeed(json!(1));
    let ended = system.ended(task).await?;
    assert_eq!((ended.summary.state, ended.steps[0].attempt), (TaskState::Complete, 2));
    assert_eq!(ended.steps[0].result, Some(json!("second")));
    let taken = "select count(*) from tasker.step_transitions
        where from_state = 'in_progress' and to_state = 'in_progress' and attempt = 2 and reason = 'the lease ran out'";
    assert_eq!(system.count(taken).await?, 1);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_report_is_refused_after_the_lease_was_lost() -> Result<()> {
    let (mut system, first, second) = (System::start().await?, Gate::new(), Gate::new());
    let vanishing = system.add_worker(worker(&first))?;
    let task = system.begin_new(&single("one", "gate", "")).await?;
    let lost = first.next().await;
    vanishing.vanish();
    vanishing.ended().await?;
    let msg_id = system.count(&format!("select msg_id from {}", System::queue())).await?;
    system.add_worker(worker(&second))?;
    let again = second.next().await;
    let late = Report {
        msg_id,
        step_id: lost.context.step_id,
        attempt: 1,
        outcome: ResultType::Success,
        result: Some(json!("late")),
        error: None,
    };
    let queue = QueueName::of_namespace(NAMESPACE);
    let store = async |report: &Report| -> Result<Vec<StepId>> {
        let mut session = system.database.session("test").await?;
        Ok(reports::store(&mut session, &queue, std::slice::from_ref(report), WorkerId::generate()).await?)
    };
    assert_eq!(store(&late).await?, []);
    assert_eq!(system.count(&format!("select count(*) from {}", System::queue())).await?, 1, "the new lease stays");
    again.succeed(json!("in time"));
    let ended = system.ended(task).await?;
    assert_eq!(ended.steps[0].result, Some(json!("in time")));
    assert_eq!(store(&late).await?, []);
    assert_eq!(store(&Report { attempt: 2, ..late }).await?, []);
    assert_eq!(system.detail(task).await?, ended);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_lost_a_lease_stops_its_handler() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let task = system.begin_new(&single("one", "gate", "")).await?;
    let first = gate.next().await;
    // a heartbeat may come in between and save the lease
    let lapse = format!("update {} set vt = now() where read_ct = 1", System::queue());
    let lost = "select count(*) from tasker.steps where attempt = 2";
    let lose = async || {
        system.execute(&lapse).await?;
        Ok(system.count(lost).await? == 1)
    };
    eventually("the lease is lost", lose).await?;
    let second = gate.next().await;
    assert_eq!(second.context.attempt, 2);
    first.context.cancelled().await;
    second.succeed(json!(2));
    let ended = system.ended(task).await?;
    assert_eq!((ended.summary.state, ended.steps[0].result.clone()), (TaskState::Complete, Some(json!(2))));
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_keep_the_lease_of_a_handler_that_takes_longer_than_it() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    system.add_worker(worker(&gate))?;
    let task = system.begin_new(&single("long", "gate", "")).await?;
    let call = gate.next().await;
    let past =
        format!("select count(*) from {}, tasker.steps where vt > started_at + interval '3 seconds'", System::queue());
    eventually("the lease was extended past its first end", async || Ok(system.count(&past).await? == 1)).await?;
    assert_eq!(gate.waiting(), 0);
    call.succeed(json!(1));
    assert_eq!(system.ended(task).await?.steps[0].attempt, 1);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_drains_lets_its_handlers_end_and_claims_no_more() -> Result<()> {
    let (mut system, first, second) = (System::start().await?, Gate::new(), Gate::new());
    let draining = system.add_worker(worker(&first))?;
    let task = system.begin_new(&dag("chain", "gate", &[("a", &[]), ("b", &["a"])])).await?;
    let a = first.next().await;
    draining.stop();
    system.add_worker(worker(&second))?;
    a.succeed(json!(1));
    let b = second.next().await;
    assert_eq!(b.step(), "b");
    draining.ended().await?;
    b.succeed(json!(2));
    let ended = system.ended(task).await?;
    assert!(ended.steps.iter().all(|step| step.attempt == 1));
    assert_eq!(system.count("select count(*) from tasker.workers where stopped_at is not null").await?, 1);
    assert_eq!(first.waiting(), 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_drains_gives_back_what_does_not_end_in_time() -> Result<()> {
    let (mut system, first, second) = (System::start().await?, Gate::new(), Gate::new());
    let settings = Settings {
        shutdown_grace: Duration::from_millis(50),
        lease: Duration::from_secs(3600),
        heartbeat_interval: Duration::from_secs(60),
        ..worker_settings()
    };
    let draining = system.add_worker(Worker::builder().settings(settings).register("gate", first.clone()))?;
    let task = system.begin_new(&single("one", "gate", "")).await?;
    let a = first.next().await;
    draining.stop();
    a.context.cancelled().await;
    draining.ended().await?;
    let released = "select count(*) from tasker.step_transitions
        where from_state = 'in_progress' and to_state = 'enqueued' and reason = 'the worker stops'";
    assert_eq!(system.count(released).await?, 1);
    let read = format!("select count(*) from {} where read_ct = 1 and vt < now()", System::queue());
    assert_eq!(system.count(&read).await?, 1, "it is visible, and known to have been a lease");
    system.add_worker(worker(&second))?;
    let again = second.next().await;
    assert_eq!((again.context.attempt, again.context.failures), (2, 0));
    again.succeed(json!(1));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_takes_its_workers_down_is_parked_as_poison() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    // leases end when the test ends them, and no heartbeat saves them
    let (lease, heartbeat_interval) = (Duration::from_secs(7200), Duration::from_secs(3600));
    let settings = Settings { max_deliveries: 3, lease, heartbeat_interval, ..worker_settings() };
    system.add_worker(Worker::builder().settings(settings).register("gate", gate.clone()))?;
    let task = system.begin_new(&dag("poison", "gate", &[("bad", &[]), ("good", &[]), ("after", &["bad"])])).await?;
    let mut calls = gate.take(2).await;
    calls.pop().context("good")?.succeed(json!(1));
    system.step_is(task, "good", StepState::Complete).await?;
    for attempt in 2..=3 {
        lapse(&system).await?;
        let call = gate.next().await;
        assert_eq!(call.context.attempt, attempt);
        // it is never answered
        calls.push(call);
    }
    lapse(&system).await?;
    let ended = system.ended(task).await?;
    assert_eq!(ended.summary.state, TaskState::Error);
    let failure = ended.steps[0].error.as_ref().context("a failure")?;
    assert_eq!(failure.kind, FailureKind::Poison);
    assert_eq!(system.states(task).await?, "bad=error good=complete after=pending");
    let parked = format!(
        "select count(*) from tasker.dead_letters where reason = 'poison' and queue = 'worker_test'
            and task_id = '{task}' and step_id = '{}' and resolved_at is null",
        ended.steps[0].step_id
    );
    assert_eq!(system.count(&parked).await?, 1);
    assert_eq!(gate.waiting(), 0);
    drop(calls);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_timeout_shortens_the_lease() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    let settings = Settings {
        lease: Duration::from_secs(3600),
        heartbeat_interval: Duration::from_secs(600),
        ..worker_settings()
    };
    system.add_worker(Worker::builder().settings(settings).register("gate", gate.clone()))?;
    let task = system.begin_new(&single("one", "gate", "timeout_seconds: 7")).await?;
    let call = gate.next().await;
    let lease = format!(
        "select count(*) from {} where vt between now() + interval '9 seconds' and now() + interval '12 seconds'",
        System::queue()
    );
    assert_eq!(system.count(&lease).await?, 1);
    call.succeed(json!(1));
    system.ended(task).await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_parents_returned_more_than_can_be_handed_on_fails_and_others_run() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.apply(&dag("family", "gate", &[("a", &[]), ("b", &[]), ("c", &[]), ("join", &["a", "b", "c"])])).await?;
    system.apply(&single("other", "gate", "")).await?;
    let task = system.begin("family").await?;
    // stored as if handlers had returned it, which are allowed less by default
    let early = Worker::builder().settings(worker_settings()).register("gate", gate.clone());
    let early = system.add_worker(early)?;
    for call in gate.take(3).await {
        call.succeed(json!(1));
    }
    let join = gate.next().await;
    assert_eq!(join.step(), "join");
    early.vanish();
    early.ended().await?;
    system
        .execute(
            "update tasker.steps set result = jsonb_build_array(repeat('x', 100000000)) where name in ('a', 'b', 'c')",
        )
        .await?;
    let other = system.begin("other").await?;
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    gate.next().await.succeed(json!(1));
    assert_eq!(system.ended(other).await?.summary.state, TaskState::Complete);
    let ended = system.ended(task).await?;
    let error = ended.steps.iter().find(|step| step.name == "join").and_then(|step| step.error.clone());
    let error = error.context("it failed")?;
    assert_eq!(error.kind, FailureKind::Permanent);
    assert!(error.message.starts_with("the results of its 3 parents have 3000000"), "{}", error.message);
    system.finish().await
}
