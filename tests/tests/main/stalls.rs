//! Steps that stand still are enqueued again, and say so; limits of a template's `lifecycle` are kept.

use anyhow::{Context as _, Result};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tasker_orchestration::{
    Orchestration, operate, query,
    service::{self, Loop},
};
use tasker_shared::{
    api::Action,
    id::WorkerId,
    metrics::Metrics,
    queue::QueueName,
    runtime::Bell,
    step::{FailureKind, StepState},
    storage::{Passed, leases},
    task::TaskState,
    telemetry::Tracing,
};
use tasker_tests::{
    Gate, System,
    system::{connect, eventually, orchestration_settings, worker_settings},
    templates::{NAMESPACE, dag, single},
};
use tasker_worker::{HandlerError, Settings, StepContext, Worker, handler::blocking_fn, handler::handler_fn};
use tokio::sync::Barrier;

fn watchful() -> tasker_orchestration::Settings {
    tasker_orchestration::Settings {
        repair_interval: Duration::from_millis(50),
        stalled_after: Duration::from_millis(300),
        max_stalls: 2,
        ..orchestration_settings()
    }
}

const REQUEUED: &str = "select count(*) from tasker.step_transitions
    where from_state = 'in_progress' and to_state = 'enqueued' and actor = 'orchestration' and reason like 'stalled: ";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_lease_ran_out_without_a_worker_to_take_it_is_enqueued_again_and_runs() -> Result<()> {
    let (mut system, first, second) =
        (System::start_with(watchful(), Metrics::disabled()).await?, Gate::new(), Gate::new());
    let vanishing = system.add_worker(Worker::builder().settings(worker_settings()).register("gate", first.clone()))?;
    let task = system.begin_new(&single("one", "gate", "")).await?;
    let _lost = first.next().await;
    vanishing.vanish();
    vanishing.ended().await?;
    system.step_is(task, "only", StepState::Enqueued).await?;
    assert_eq!(system.count(&format!("{REQUEUED}its lease ran out and nobody took it'")).await?, 1);
    assert_eq!(system.count("select stalls::bigint from tasker.steps").await?, 1);
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", second.clone()))?;
    let again = second.next().await;
    assert_eq!((again.context.attempt, again.context.failures), (2, 0));
    again.succeed(json!(1));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_runs_on_past_its_timeout_stalls_and_is_parked_when_it_does_so_too_often() -> Result<()> {
    let mut system = System::start_with(watchful(), Metrics::disabled()).await?;
    // the runtime that polls the handler is held, so nobody can stop it; the lease is extended meanwhile
    let hangs = handler_fn(|context: StepContext| async move {
        tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(1_800)));
        Ok::<_, HandlerError>(context.attempt)
    });
    let settings =
        Settings { lease: Duration::from_secs(60), heartbeat_interval: Duration::from_millis(50), ..worker_settings() };
    system.add_worker(Worker::builder().settings(settings).register("hangs", hangs))?;
    let task = system.begin_new(&single("one", "hangs", "timeout_seconds: 0.2")).await?;
    let ended = system.ended(task).await?;
    let failure = ended.steps[0].error.clone().context("a failure")?;
    assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Stalled, "it stood still 3 times"));
    assert_eq!(system.count(&format!("{REQUEUED}it ran on past its timeout%'")).await?, 3);
    assert_eq!(ended.steps[0].failures, 0, "a late report counts for nothing");
    let parked = "select count(*) from tasker.dead_letters where reason = 'stalled' and resolved_at is null";
    assert_eq!(system.count(parked).await?, 1);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_loses_its_message_again_and_again_is_parked() -> Result<()> {
    let system = System::start_with(watchful(), Metrics::disabled()).await?;
    let task = system.begin_new(&single("one", "nobodys", "")).await?;
    for stalls in 1..=3 {
        let lost = format!("delete from {}", System::queue());
        eventually("its message is sent again", async || {
            system.execute(&lost).await?;
            Ok(system.count("select stalls::bigint from tasker.steps").await? >= stalls)
        })
        .await?;
    }
    let ended = system.ended(task).await?;
    assert_eq!(ended.steps[0].error.as_ref().map(|e| e.kind), Some(FailureKind::Stalled));
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_waits_on_its_queue_longer_than_allowed_fails_and_other_branches_go_on() -> Result<()> {
    let (mut system, gate) = (System::start_with(watchful(), Metrics::disabled()).await?, Gate::new());
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    let template = dag("parts", "gate", &[("a", &[]), ("b", &[])])
        .replace("steps:", "lifecycle: {max_queued_seconds: 0.4}\nsteps:");
    let template =
        template.replacen("handler: {callable: gate}", "handler: {callable: gate}, concurrency: {limit: 1, key: k}", 1);
    let template = template.replacen(
        "{name: b, dependencies: [], handler: {callable: gate}",
        "{name: b, dependencies: [], handler: {callable: gate}, concurrency: {limit: 1, key: k}",
        1,
    );
    let task = system.begin_new(&template).await?;
    let runs = gate.next().await;
    let other = if runs.step() == "a" { "b" } else { "a" };
    system.step_is(task, other, StepState::Error).await?;
    runs.succeed(json!(1));
    let ended = system.ended(task).await?;
    assert_eq!(ended.summary.state, TaskState::Error);
    let failed =
        ended.steps.iter().find(|step| step.name == other).and_then(|step| step.error.clone()).context("failed")?;
    assert_eq!(failed.kind, FailureKind::Overdue);
    assert_eq!(failed.message, "it waited on its queue longer than lifecycle.max_queued allows, which is 0.4 s");
    assert_eq!(system.count("select count(*) from tasker.dead_letters").await?, 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_is_claimed_while_it_is_taken_for_overdue_runs() -> Result<()> {
    let system = System::start_with(watchful(), Metrics::disabled()).await?;
    system.apply(&single("one", "noop", "").replace("steps:", "lifecycle: {max_queued_seconds: 0.4}\nsteps:")).await?;
    let task = system.begin("one").await?;
    system.step_is(task, "only", StepState::Enqueued).await?;
    let queue = QueueName::of_namespace(NAMESPACE);
    let mut claiming = system.database.begin("test").await?;
    let claim = leases::claim(&mut claiming, &queue, 1, WorkerId::generate(), Duration::from_secs(60)).await?;
    assert_eq!(claim.steps.len(), 1);
    let waiting = "select count(*) from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock' and query like '-- take_off_steps%'";
    eventually("the repair sweep waits for the claim", async || Ok(system.count(waiting).await? > 0)).await?;
    claiming.commit().await?;
    eventually("it has looked", async || Ok(system.count(waiting).await? == 0)).await?;
    // the task is held until the sweep is done with it
    operate::pause(&system.orchestration, task, &Action::default()).await?;
    system.step_is(task, "only", StepState::InProgress).await?;
    assert_eq!(system.count("select count(*) from tasker.step_transitions where to_state = 'error'").await?, 0);
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_of_a_whole_task_and_the_wait_for_one_are_limited() -> Result<()> {
    let mut system = System::start().await?;
    let fails = handler_fn(|_: StepContext| async { Err::<(), _>(HandlerError::retry("no")) });
    let later = blocking_fn(|_: StepContext, _: serde_json::Value| {
        Err::<(), _>(HandlerError::retry("no").after(Duration::from_secs(3600)))
    });
    system
        .add_worker(Worker::builder().settings(worker_settings()).register("fails", fails).register("later", later))?;
    let template =
        dag("many", "fails", &[("a", &[]), ("b", &[])]).replace("steps:", "lifecycle: {max_retries: 3}\nsteps:");
    let task = system.begin_new(&template).await?;
    let ended = system.ended(task).await?;
    assert_eq!(ended.steps.iter().map(|step| step.failures).sum::<i32>(), 5, "two first runs and three retries");
    let template = single("long", "later", "").replace("steps:", "lifecycle: {max_retry_wait_minutes: 30}\nsteps:");
    let task = system.begin_new(&template).await?;
    assert_eq!(system.ended(task).await?.steps[0].failures, 1);
    let waits = single("waits", "later", "").replace("steps:", "lifecycle: {max_retry_wait_minutes: 90}\nsteps:");
    let task = system.begin_new(&waits).await?;
    system.step_is(task, "only", StepState::WaitingForRetry).await?;
    operate::cancel(&system.orchestration, task, &Action::default()).await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_a_paused_task_may_wait_on_its_queue_and_waits_anew_after_the_resume() -> Result<()> {
    let system = System::start_with(watchful(), Metrics::disabled()).await?;
    let template = single("one", "nobodys", "").replace("steps:", "lifecycle: {max_queued_seconds: 600}\nsteps:");
    system.apply(&template).await?;
    let paused = system.begin("one").await?;
    operate::pause(&system.orchestration, paused, &Action::default()).await?;
    // the sweep looks at all of them at once, the oldest task first
    let swept = async || {
        let other = system.begin("one").await?;
        system
            .execute("update tasker.steps set enqueued_at = now() - interval '1 hour' where state = 'enqueued'")
            .await?;
        anyhow::Ok(other)
    };
    let other = swept().await?;
    system.ended(other).await?;
    assert_eq!(system.states(paused).await?, "only=enqueued");
    operate::resume(&system.orchestration, paused, &Action::default()).await?;
    let fresh =
        "select count(*) from tasker.steps where state = 'enqueued' and enqueued_at > now() - interval '5 minutes'";
    assert_eq!(system.count(fresh).await?, 1);
    operate::cancel(&system.orchestration, paused, &Action::default()).await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_that_is_final_is_no_retry_and_who_has_no_retry_left_says_so() -> Result<()> {
    let mut system = System::start().await?;
    let gate = Gate::new();
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    let template = dag("many", "gate", &[("a", &[]), ("b", &[])])
        .replace("steps:", "lifecycle: {max_retries: 1}\nsteps:")
        .replacen("max_attempts: 3", "max_attempts: 1", 1);
    let task = system.begin_new(&template).await?;
    let mut calls = gate.take(2).await;
    calls.remove(0).fail(HandlerError::retry("no"));
    system.step_is(task, "a", StepState::Error).await?;
    calls.remove(0).fail(HandlerError::retry("no"));
    let again = gate.next().await;
    assert_eq!((again.step(), again.context.attempt), ("b", 2));
    again.fail(HandlerError::retry("no"));
    let ended = system.ended(task).await?;
    assert_eq!(ended.steps.iter().map(|step| step.failures).collect::<Vec<_>>(), [1, 2]);
    let history = query::history(&system.orchestration, task).await?.transitions;
    let reasons: Vec<_> = history.iter().filter(|t| t.to == "error" && t.step.is_some()).map(|t| &t.reason).collect();
    let used_up = "its task has used up its retries; lifecycle.max_retries is 1".to_owned();
    assert_eq!(reasons, [&None, &Some(used_up)]);
    let because: Vec<String> =
        query::explain(&system.orchestration, task).await?.steps.into_iter().map(|step| step.because).collect();
    assert_eq!(
        because,
        [
            "It failed for good after 1 failure: handler_error: no",
            "It failed for good after 2 failures (its task has used up its retries; lifecycle.max_retries is 1): \
             handler_error: no"
        ]
    );
    let long = single("long", "gate", "retry: {max_attempts: 3}")
        .replace("steps:", "lifecycle: {max_retry_wait_minutes: 30}\nsteps:");
    let task = system.begin_new(&long).await?;
    gate.next().await.fail(HandlerError::retry("no").after(Duration::from_secs(3600)));
    system.ended(task).await?;
    let because = query::explain(&system.orchestration, task).await?.steps.remove(0).because;
    let why = "it would wait 3600 s for its retry; lifecycle.max_retry_wait allows 1800 s";
    assert_eq!(because, format!("It failed for good after 1 failure ({why}): handler_error: no"));
    system.finish().await
}

/// Stops the second statement of this name until the test has come twice.
#[derive(Debug)]
struct Second {
    of: &'static str,
    seen: AtomicUsize,
    barrier: Barrier,
}

impl tasker_shared::storage::Gate for Second {
    fn pass<'a>(&'a self, _: &'static str, doing: &'static str) -> Passed<'a> {
        Box::pin(async move {
            if doing == self.of && self.seen.fetch_add(1, Ordering::Relaxed) == 1 {
                self.barrier.wait().await;
                self.barrier.wait().await;
            }
            Ok(())
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_still_in_one_namespace_goes_on_while_the_next_one_is_looked_at() -> Result<()> {
    let mut system = System::start().await?;
    let gate = Gate::new();
    let worker = system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    let task = system.begin_new(&single("one", "gate", "")).await?;
    system.apply(&single("one", "gate", "").replace("namespace_name: test", "namespace_name: zzz")).await?;
    let _lost = gate.next().await;
    worker.vanish();
    worker.ended().await?;
    system.execute("update tasker.steps set started_at = now() - interval '1 hour'").await?;
    system.execute(&format!("update {} set vt = now() - interval '1 hour'", System::queue())).await?;
    let second = Second { of: "requeue_stalled_steps", seen: AtomicUsize::new(0), barrier: Barrier::new(2) };
    let second = Arc::new(second);
    let database = connect(&system.test_database.url, Metrics::disabled()).await?;
    let gated = database.gated(Arc::<Second>::clone(&second));
    let settings = tasker_orchestration::Settings { stalled_after: Duration::ZERO, ..watchful() };
    let other = Orchestration::new(gated, Bell::local(), Tracing::disabled(), settings);
    let sweep = tokio::spawn(async move { service::turn(&other, Loop::Repair).await });
    second.barrier.wait().await;
    assert_eq!(system.states(task).await?, "only=enqueued", "the first namespace is done");
    second.barrier.wait().await;
    sweep.await??;
    database.pool().close().await;
    system.close().await
}
