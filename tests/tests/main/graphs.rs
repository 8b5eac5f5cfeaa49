//! Shapes of graphs: what runs when, and what goes on beside a failure.

use anyhow::Result;
use serde_json::json;
use tasker_shared::{step::StepState, task::TaskState};
use tasker_tests::{Gate, System, system::worker_settings, templates};
use tasker_worker::{HandlerError, Worker, handler};

fn worker(gate: &Gate) -> tasker_worker::Builder {
    Worker::builder().settings(worker_settings()).register("gate", gate.clone()).register("echo", handler::Echo)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_join_of_a_diamond_waits_for_both_sides_and_gets_both_results() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let task = system.begin_new(&templates::diamond("gate")).await?;
    gate.next().await.succeed(json!("start"));
    let mut sides = gate.take(2).await;
    let (c, b) = (sides.pop().expect("c"), sides.pop().expect("b"));
    assert_eq!((b.step(), c.step()), ("b", "c"));
    c.succeed(json!({"side": "right"}));
    system.step_is(task, "c", StepState::Complete).await?;
    assert_eq!(system.states(task).await?, "a=complete b=in_progress c=complete d=pending");
    b.succeed(json!(null));
    let d = gate.next().await;
    assert_eq!(json!(*d.context.parents), json!({"b": null, "c": {"side": "right"}}));
    d.succeed(json!([]));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_steps_run_at_once_and_their_join_runs_once_after_all() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let names: Vec<String> = (0..50).map(|n| format!("s{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut steps: Vec<(&str, &[&str])> = vec![("first", &[])];
    steps.extend(names.iter().map(|name| (*name, &["first"] as &[&str])));
    steps.push(("last", &names));
    let task = system.begin_new(&templates::dag("fan", "gate", &steps)).await?;
    gate.next().await.succeed(json!(0));
    for (n, call) in gate.take(50).await.into_iter().enumerate() {
        assert_eq!(call.step(), names[n]);
        call.succeed(json!(n));
    }
    let last = gate.next().await;
    assert_eq!(last.step(), "last");
    let sum: usize = names.iter().map(|name| last.context.parent::<usize>(name).expect("a number")).sum();
    assert_eq!(sum, (0..50).sum::<usize>());
    last.succeed(json!(sum));
    let ended = system.ended(task).await?;
    assert_eq!(ended.summary.state, TaskState::Complete);
    assert!(ended.steps.iter().all(|step| step.attempt == 1 && step.failures == 0));
    assert_eq!(gate.waiting(), 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn independent_branches_go_on_when_another_fails_for_good() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let steps: &[(&str, &[&str])] =
        &[("bad", &[]), ("good", &[]), ("after_bad", &["bad"]), ("after_good", &["good"]), ("both", &["bad", "good"])];
    let task = system.begin_new(&templates::dag("branches", "gate", steps)).await?;
    let mut calls = gate.take(2).await;
    let (good, bad) = (calls.pop().expect("good"), calls.pop().expect("bad"));
    bad.fail(HandlerError::fail("the bank says no"));
    system.step_is(task, "bad", StepState::Error).await?;
    assert_eq!(system.detail(task).await?.summary.state, TaskState::InProgress);
    good.succeed(json!(1));
    let after = gate.next().await;
    assert_eq!(after.step(), "after_good");
    after.succeed(json!(2));
    let ended = system.ended(task).await?;
    assert_eq!(ended.summary.state, TaskState::Error);
    let states = "bad=error good=complete after_bad=pending after_good=complete both=pending";
    assert_eq!(system.states(task).await?, states);
    let error = ended.error.expect("a reason");
    assert_eq!(error["message"], "step `bad`: the bank says no");
    assert_eq!(error["failed_steps"], json!([{"step": "bad", "message": "the bank says no"}]));
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_with_two_failed_branches_names_both() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let task = system.begin_new(&templates::dag("two", "gate", &[("x", &[]), ("y", &[]), ("z", &["x", "y"])])).await?;
    for call in gate.take(2).await {
        let message = format!("{} broke", call.step());
        call.fail(HandlerError::fail(message));
    }
    let error = system.ended(task).await?.error.expect("a reason");
    assert_eq!(error["message"], "step `x`: x broke (and 1 more failed)");
    assert_eq!(error["failed_steps"].as_array().map(Vec::len), Some(2));
    system.finish().await
}
