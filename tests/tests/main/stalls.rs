//! Steps that stand still are enqueued again, and say so; limits of a template's `lifecycle` are kept.

use anyhow::{Context as _, Result};
use serde_json::json;
use std::time::Duration;
use tasker_orchestration::operate;
use tasker_shared::{
    api::Action,
    id::WorkerId,
    metrics::Metrics,
    queue::QueueName,
    step::{FailureKind, StepState},
    storage::leases,
    task::TaskState,
};
use tasker_tests::{
    Gate, System,
    system::{eventually, orchestration_settings, worker_settings},
    templates::{NAMESPACE, dag, single},
};
use tasker_worker::{HandlerError, Settings, StepContext, Worker, handler::blocking_fn, handler::handler_fn};

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
