//! Failures that are tried again: when, how often, and not while the task is paused.

use anyhow::{Context as _, Result};
use serde_json::json;
use std::time::Duration;
use tasker_orchestration::{operate, query};
use tasker_shared::{api::Action, id::TaskId, step::StepState, task::TaskState};
use tasker_tests::{Gate, System, system::worker_settings, templates::single};
use tasker_worker::{HandlerError, Worker};

async fn start() -> Result<(System, Gate)> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    Ok((system, gate))
}

const NOW: &str = "update tasker.timers set due_at = now() where kind = 'retry'";

/// The delay in milliseconds between the report of the only step's failure and its retry.
async fn delay(system: &System, task: TaskId) -> Result<i64> {
    system.step_is(task, "only", StepState::WaitingForRetry).await?;
    let sql = "select round(extract(epoch from retry_at - reported_at) * 1000)::bigint from tasker.steps";
    let (delay, timers) = (
        system.count(&format!("{sql} where task_id = '{task}'")).await?,
        system.count("select count(*) from tasker.timers m join tasker.steps s on s.id = m.subject and m.due_at = s.retry_at").await?,
    );
    anyhow::ensure!(timers == 1, "{timers} timers are set");
    Ok(delay)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_back_off_waits_as_its_kind_says() -> Result<()> {
    let (system, gate) = start().await?;
    for (kind, expected) in [
        ("constant", [100, 100, 100, 100]),
        ("linear", [100, 200, 300, 400]),
        ("exponential", [100, 200, 400, 500]),
        ("fibonacci", [100, 100, 200, 300]),
    ] {
        let retry = format!(
            "retry: {{max_attempts: 5, backoff: {kind}, backoff_base_ms: 100000, max_backoff_ms: 500000, jitter: false}}"
        );
        let task = system.begin_new(&single(kind, "gate", &retry)).await?;
        for (n, expected) in expected.into_iter().enumerate() {
            let call = gate.next().await;
            assert_eq!(call.context.failures as usize, n);
            call.fail(HandlerError::retry("busy"));
            let delay = delay(&system, task).await?;
            let late = delay - expected * 1000;
            assert!((0..5_000).contains(&late), "{kind} {n}: {delay} ms");
            system.execute(NOW).await?;
        }
        let last = gate.next().await;
        assert!(last.context.is_last_attempt());
        last.succeed(json!(1));
        let ended = system.ended(task).await?;
        assert_eq!((ended.summary.state, ended.steps[0].attempt), (TaskState::Complete, 5));
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_back_off_a_step_runs_again_at_once_until_its_attempts_are_used_up() -> Result<()> {
    let (system, gate) = start().await?;
    let task = system.begin_new(&single("none", "gate", "retry: {limit: 3, backoff: none}")).await?;
    for attempt in 1..=3 {
        let call = gate.next().await;
        assert_eq!((call.context.attempt, call.context.max_attempts), (attempt, 3));
        call.fail(HandlerError::retry(format!("failure {attempt}")).with_details(json!({"n": attempt})));
    }
    let ended = system.ended(task).await?;
    assert_eq!(ended.summary.state, TaskState::Error);
    let step = &ended.steps[0];
    assert_eq!((step.state, step.failures, step.attempt), (StepState::Error, 3, 3));
    let error = step.error.as_ref().context("a failure")?;
    assert_eq!((error.message.as_str(), &error.details), ("failure 3", &Some(json!({"n": 3}))));
    assert_eq!(system.count("select count(*) from tasker.timers").await?, 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permanent_failure_and_a_step_that_is_not_retryable_fail_at_once() -> Result<()> {
    let (system, gate) = start().await?;
    let permanent = system.begin_new(&single("permanent", "gate", "retry: {max_attempts: 9}")).await?;
    gate.next().await.fail(HandlerError::fail("never"));
    let once = system.begin_new(&single("once", "gate", "retry: {retryable: false}")).await?;
    gate.next().await.fail(HandlerError::retry("maybe"));
    for task in [permanent, once] {
        let ended = system.ended(task).await?;
        assert_eq!((ended.summary.state, ended.steps[0].attempt), (TaskState::Error, 1));
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_asked_for_by_the_handler_wins_over_a_shorter_back_off() -> Result<()> {
    let (system, gate) = start().await?;
    let retry =
        "retry: {max_attempts: 3, backoff: constant, backoff_base_ms: 200000, max_backoff_ms: 400000, jitter: false}";
    let task = system.begin_new(&single("asked", "gate", retry)).await?;
    for (asked, expected) in [(3600, 3_600_000), (1, 200_000)] {
        gate.next().await.fail(HandlerError::retry("busy").after(Duration::from_secs(asked)));
        let delay = delay(&system, task).await?;
        assert!((0..5_000).contains(&(delay - expected)), "{delay}");
        system.execute(NOW).await?;
    }
    gate.next().await.succeed(json!(1));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_beyond_all_reason_is_stored_and_the_task_can_be_cancelled() -> Result<()> {
    let (system, gate) = start().await?;
    let task = system.begin_new(&single("far", "gate", "retry: {max_attempts: 3}")).await?;
    gate.next().await.fail(HandlerError::retry("busy").after(Duration::MAX));
    system.step_is(task, "only", StepState::WaitingForRetry).await?;
    operate::cancel(&system.orchestration, task, &Action::default()).await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_wake_by_themselves_when_they_are_due() -> Result<()> {
    let (system, gate) = start().await?;
    let retry = "retry: {max_attempts: 3, backoff: constant, backoff_base_ms: 50, jitter: false}";
    let task = system.begin_new(&single("soon", "gate", retry)).await?;
    gate.next().await.fail(HandlerError::retry("busy"));
    gate.next().await.succeed(json!(1));
    let ended = system.ended(task).await?;
    assert_eq!((ended.summary.state, ended.steps[0].failures), (TaskState::Complete, 1));
    // the delay begins when the report is evaluated, a moment before that is in the history
    let waited = "select count(*) from tasker.step_transitions d join tasker.step_transitions r on r.step_id = d.step_id
        where d.from_state = 'waiting_for_retry' and r.to_state = 'reported' and d.at >= r.at + interval '50 milliseconds'";
    assert_eq!(system.count(waited).await?, 1);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_retry_of_a_paused_task_waits_for_the_resume() -> Result<()> {
    let (system, gate) = start().await?;
    let retry =
        "retry: {max_attempts: 3, backoff: constant, backoff_base_ms: 3600000, max_backoff_ms: 3600000, jitter: false}";
    let pause = async |task| operate::pause(&system.orchestration, task, &Action::default()).await;
    // one task is paused while it waits, the other one while its handler runs
    system.apply(&single("hour", "gate", retry)).await?;
    let waits = system.begin("hour").await?;
    gate.next().await.fail(HandlerError::retry("busy"));
    system.step_is(waits, "only", StepState::WaitingForRetry).await?;
    pause(waits).await?;
    let runs = system.begin("hour").await?;
    let call = gate.next().await;
    pause(runs).await?;
    call.fail(HandlerError::retry("busy"));
    system.step_is(runs, "only", StepState::WaitingForRetry).await?;
    let held = "select count(*) from tasker.timers where due_at = 'infinity'";
    assert_eq!(system.count(held).await?, 2);
    system.execute("update tasker.steps set retry_at = now() - interval '1 second'").await?;
    for task in [waits, runs] {
        operate::resume(&system.orchestration, task, &Action::default()).await?;
        gate.next().await.succeed(json!(1));
        assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_step_explains_when_it_runs_again_and_can_be_cancelled() -> Result<()> {
    let (system, gate) = start().await?;
    let task = system.begin_new(&single("later", "gate", "retry: {max_attempts: 3, backoff_base_ms: 60000}")).await?;
    gate.next().await.fail(HandlerError::retry("the bank is busy"));
    system.step_is(task, "only", StepState::WaitingForRetry).await?;
    let explained = query::explain(&system.orchestration, task).await?;
    let because = &explained.steps[0].because;
    assert!(because.starts_with("Failure 1 of 3 (handler_error: the bank is busy); it runs again in"), "{because}");
    operate::cancel_step(&system.orchestration, task, "only", &Action::default()).await?;
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Error);
    assert_eq!(system.count("select count(*) from tasker.timers").await?, 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_step_of_a_paused_task_explains_that_it_waits_for_the_resume() -> Result<()> {
    let (system, gate) = start().await?;
    let task = system.begin_new(&single("later", "gate", "retry: {max_attempts: 3, backoff_base_ms: 60000}")).await?;
    gate.next().await.fail(HandlerError::retry("busy"));
    system.step_is(task, "only", StepState::WaitingForRetry).await?;
    operate::pause(&system.orchestration, task, &Action::default()).await?;
    let because = async || anyhow::Ok(query::explain(&system.orchestration, task).await?.steps.remove(0).because);
    let early = because().await?;
    assert!(early.contains("; it runs again when its task is resumed, at the earliest in "), "{early}");
    system.execute("update tasker.steps set retry_at = now() - interval '1 minute'").await?;
    assert_eq!(because().await?, "Failure 1 of 3 (handler_error: busy); it runs again when its task is resumed.");
    operate::cancel(&system.orchestration, task, &Action::default()).await?;
    system.finish().await
}
