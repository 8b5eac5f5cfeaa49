//! Every state that is not final is woken again, also when a hand has deleted its message or timer.

use anyhow::{Context as _, Result};
use serde_json::json;
use std::{collections::HashMap, time::Duration};
use tasker_orchestration::operate;
use tasker_shared::{api::Action, id::TaskId, metrics::Metrics, step::StepState, task::TaskState};
use tasker_tests::{
    Gate, System,
    system::{eventually, orchestration_settings, worker_settings},
    templates::dag,
};
use tasker_worker::{HandlerError, Worker};

/// Repairs all the time whatever stands still. The orchestration of [`System::start`] does not, in the time of a test.
fn repairing() -> tasker_orchestration::Settings {
    tasker_orchestration::Settings {
        repair_interval: Duration::from_millis(20),
        stalled_after: Duration::ZERO,
        ..orchestration_settings()
    }
}

async fn add_repair(system: &mut System) -> Result<()> {
    system.add_orchestration(repairing()).await.map(drop)
}

fn add_worker(system: &mut System, gate: &Gate) -> Result<()> {
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone())).map(drop)
}

const CHAIN: &[(&str, &[&str])] = &[("a", &[]), ("b", &["a"])];

/// Brings step `a` of a task, which is enqueued, into `state`. None for a final state: it needs no wake-up.
fn brings_to(state: StepState) -> Option<&'static str> {
    match state {
        // ready, and nobody enqueued it
        StepState::Pending => Some("state = 'pending'"),
        StepState::Enqueued => Some("state = 'enqueued'"),
        // claimed by a worker that is gone, together with the message
        StepState::InProgress => Some("state = 'in_progress', attempt = 1, started_at = now()"),
        StepState::Reported => Some(
            "state = 'reported', attempt = 1, started_at = now(), reported_at = now(), outcome = 'success', result = '1'",
        ),
        StepState::WaitingForRetry => {
            Some("state = 'waiting_for_retry', attempt = 1, failures = 1, retry_at = now(), started_at = now()")
        }
        StepState::Complete
        | StepState::Error
        | StepState::Cancelled
        | StepState::Skipped
        | StepState::ResolvedManually => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_in_any_state_that_is_not_final_is_woken_without_its_message_or_timer() -> Result<()> {
    for state in StepState::ALL {
        let Some(change) = brings_to(*state) else {
            assert!(state.is_final(), "{state}");
            continue;
        };
        let (mut system, gate) = (System::start().await?, Gate::new());
        let task = system.begin_new(&dag("chain", "gate", CHAIN)).await?;
        let queue = System::queue();
        system.execute(&format!("delete from {queue}; update tasker.steps set {change} where name = 'a'")).await?;
        add_worker(&mut system, &gate)?;
        assert_eq!(system.messages().await? + system.count("select count(*) from tasker.timers").await?, 0);
        assert_eq!(system.detail(task).await?.steps[0].state, *state);
        add_repair(&mut system).await?;
        let mut call = gate.next().await;
        if call.step() == "a" {
            call.succeed(json!(1));
            call = gate.next().await;
        }
        call.succeed(json!(1));
        let ended = system.ended(task).await.with_context(|| format!("stranded in {state}"))?;
        assert_eq!(ended.summary.state, TaskState::Complete, "stranded in {state}");
        system.finish().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_in_any_state_that_is_not_final_is_woken_without_its_message_or_timer() -> Result<()> {
    for state in TaskState::ALL {
        if state.is_final() {
            continue;
        }
        let (mut system, gate) = (System::start().await?, Gate::new());
        add_worker(&mut system, &gate)?;
        system.apply(&dag("chain", "gate", CHAIN)).await?;
        let task = match state {
            TaskState::Pending => {
                // the request is deleted in the transaction that made it, as nobody could from outside
                let mut user = system.database.pool().begin().await?;
                let id = sqlx::query_scalar("select tasker.submit('test', 'chain')").fetch_one(&mut *user).await?;
                sqlx::query("delete from pgmq.q_task_requests").execute(&mut *user).await?;
                user.commit().await?;
                TaskId(id)
            }
            TaskState::InProgress => {
                // every step is done, and nobody noticed
                let task = system.begin("chain").await?;
                let calls = gate.next().await;
                system
                    .execute(&format!(
                        "delete from {}; update tasker.steps set state = 'complete', finished_at = now();
                         update tasker.tasks set active_steps = 0, remaining_steps = 0",
                        System::queue()
                    ))
                    .await?;
                drop(calls);
                add_repair(&mut system).await?;
                assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
                system.finish().await?;
                continue;
            }
            TaskState::Paused => {
                // it waits for a person alone; what it had is enqueued anew when that person lets it go on
                let task = system.begin("chain").await?;
                let a = gate.next().await;
                operate::pause(&system.orchestration, task, &Action::default()).await?;
                a.succeed(json!(0));
                system.step_is(task, "a", StepState::Complete).await?;
                add_repair(&mut system).await?;
                assert_eq!(system.messages().await?, 0);
                operate::resume(&system.orchestration, task, &Action::default()).await?;
                gate.next().await.succeed(json!(1));
                assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
                system.finish().await?;
                continue;
            }
            final_ => unreachable!("{final_}"),
        };
        assert_eq!(system.messages().await?, 0);
        add_repair(&mut system).await?;
        for _ in 0..2 {
            gate.next().await.succeed(json!(1));
        }
        assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete, "stranded in {state}");
        system.finish().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_task_without_its_timer_still_starts_at_its_time_and_not_before() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    add_worker(&mut system, &gate)?;
    system.apply(&dag("chain", "gate", CHAIN)).await?;
    let sql = "select tasker.submit('test', 'chain', run_at => now() + interval '1 hour')";
    let task = TaskId(sqlx::query_scalar(sql).fetch_one(system.database.pool()).await?);
    let timers = async || Ok(system.count("select count(*) from tasker.timers where kind = 'start'").await? == 1);
    eventually("its timer is set", timers).await?;
    system.execute("delete from tasker.timers").await?;
    let mut system = system;
    add_repair(&mut system).await?;
    let due = async || {
        Ok(system.count("select count(*) from tasker.timers where due_at > now() + interval '50 minutes'").await? == 1)
    };
    eventually("its timer is set again", due).await?;
    assert_eq!(system.detail(task).await?.summary.state, TaskState::Pending);
    system.execute("update tasker.tasks set run_at = now(); update tasker.timers set due_at = now()").await?;
    for _ in 0..2 {
        gate.next().await.succeed(json!(1));
    }
    system.ended(task).await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_lost_its_deadline_gets_it_again_unless_it_was_reopened_after_its_end() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    add_worker(&mut system, &gate)?;
    let limited = dag("chain", "gate", CHAIN).replace("steps:", "lifecycle: {max_duration_seconds: 3600}\nsteps:");
    let (task, paused) = (system.begin_new(&limited).await?, system.begin("chain").await?);
    let (reopened, first) = (system.begin("chain").await?, gate.take(3).await);
    operate::pause(&system.orchestration, paused, &Action::default()).await?;
    let mut calls: HashMap<_, _> = first.into_iter().map(|call| (call.context.task_id, call)).collect();
    calls.remove(&reopened).expect("it runs").fail(HandlerError::fail("not like this"));
    system.ended(reopened).await?;
    operate::retry(&system.orchestration, reopened, &Action::default()).await?;
    let again = gate.next().await;
    let set = "select task_id from tasker.timers where kind = 'deadline' order by 1";
    let before: Vec<uuid::Uuid> = sqlx::query_scalar(set).fetch_all(system.database.pool()).await?;
    assert_eq!(before, [task.0, paused.0], "a task that was reopened has none");
    system.execute("delete from tasker.timers").await?;
    add_repair(&mut system).await?;
    let due = "select count(*) from tasker.timers m join tasker.tasks t on t.id = m.task_id
                where m.kind = 'deadline' and m.due_at = t.created_at + interval '1 hour'";
    eventually("both have their deadlines again", async || Ok(system.count(due).await? == 2)).await?;
    assert_eq!(sqlx::query_scalar::<_, uuid::Uuid>(set).fetch_all(system.database.pool()).await?, before);
    system.execute("update tasker.timers set due_at = now()").await?;
    for late in [task, paused] {
        assert!(system.ended(late).await?.error.expect("a reason").to_string().contains("lifecycle.max_duration"));
    }
    again.succeed(json!(1));
    gate.next().await.succeed(json!(1));
    assert_eq!(system.ended(reopened).await?.summary.state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_that_runs_all_the_time_changes_nothing_that_is_in_order() -> Result<()> {
    let (mut system, gate) = (System::start_with(repairing(), Metrics::disabled()).await?, Gate::new());
    add_worker(&mut system, &gate)?;
    let task = system.begin_new(&dag("chain", "gate", CHAIN)).await?;
    let paused = system.begin("chain").await?;
    let mut calls = gate.take(2).await;
    let of_paused = calls.iter().position(|call| call.context.task_id == paused).expect("it runs");
    operate::pause(&system.orchestration, paused, &Action::default()).await?;
    calls.swap_remove(of_paused).fail(HandlerError::retry("busy").after(Duration::from_secs(3600)));
    calls.pop().expect("the other one").succeed(json!(1));
    system.step_is(paused, "a", StepState::WaitingForRetry).await?;
    let held = "select count(*) from tasker.timers where due_at = 'infinity'";
    assert_eq!(system.count(held).await?, 1);
    gate.next().await.succeed(json!(2));
    let ended = system.ended(task).await?;
    assert!(ended.steps.iter().all(|step| step.attempt == 1));
    assert!(!system.story(task).await?.iter().any(|line| line.contains("in_progress -> enqueued")));
    assert_eq!(system.count(held).await?, 1);
    operate::cancel(&system.orchestration, paused, &Action::default()).await?;
    system.finish().await
}
