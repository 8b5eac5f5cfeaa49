//! The line, from submit to finalize, in one process.

use anyhow::Result;
use serde_json::{Value, json};
use std::time::Duration;
use tasker_shared::{
    id::WorkerId,
    queue::{self, QueueName},
    step::{DeadLetterReason, ResultType},
    storage::{
        dead_letters, leases, repair,
        reports::{self, Report},
    },
    task::TaskState,
};
use tasker_tests::{System, system::worker_settings};
use tasker_worker::{HandlerError, StepContext, Worker, handler::handler_fn};

const LINEAR: &str = "
name: linear
namespace_name: test
version: 1.0.0
steps:
  - {name: a, handler: {callable: echo}}
  - {name: b, dependencies: [a], handler: {callable: echo}}
  - {name: c, dependencies: [b], handler: {callable: echo}}
  - {name: d, dependencies: [c], handler: {callable: echo}}
";

async fn echo(context: StepContext) -> Result<Value, HandlerError> {
    Ok(json!({ "step": context.step_name, "parents": context.parents.keys().collect::<Vec<_>>() }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linear_task_runs_its_steps_in_order_and_completes() -> Result<()> {
    let mut system = System::start().await?;
    system.add_worker(Worker::builder().settings(worker_settings()).register("echo", handler_fn(echo)))?;
    system.apply(LINEAR).await?;
    let submitted = system.submit("test", "linear", json!({"x": 1})).await?;
    let task = system.ended(submitted.task_id).await?;
    assert_eq!(task.summary.state, TaskState::Complete);
    assert_eq!(task.steps[3].result, Some(json!({"step": "d", "parents": ["c"]})));
    let mut expected = vec!["task: nothing -> pending".to_owned(), "task: pending -> in_progress".to_owned()];
    for step in ["a", "b", "c", "d"] {
        for (from, to) in [
            ("pending", "enqueued"),
            ("enqueued", "in_progress"),
            ("in_progress", "reported"),
            ("reported", "complete"),
        ] {
            expected.push(format!("{step}: {from} -> {to}"));
        }
    }
    expected.push("task: in_progress -> complete".to_owned());
    let mut story = system.story(submitted.task_id).await?;
    assert_eq!(story.pop(), expected.pop());
    story.sort();
    expected.sort();
    assert_eq!(story, expected);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_ran_out_does_not_wait_behind_a_backlog() -> Result<()> {
    let system = System::start().await?;
    system.apply(LINEAR).await?;
    let queue = QueueName::of_namespace("test");
    let worker = WorkerId::generate();
    let first = system.submit("test", "linear", json!({})).await?;
    let mut session = system.database.session("test").await?;
    let lost = leases::claim(&mut session, &queue, 10, worker, Duration::ZERO).await?;
    assert_eq!(lost.steps.len(), 1);
    for _ in 0..20 {
        system.submit("test", "linear", json!({})).await?;
    }
    leases::hasten_expired(&mut session, &queue).await?;
    let next = leases::claim(&mut session, &queue, 1, worker, Duration::from_secs(30)).await?;
    assert_eq!(next.steps.iter().map(|step| (step.task_id, step.attempt)).collect::<Vec<_>>(), [(first.task_id, 2)]);
    system.shutdown.cancel();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_was_parked_is_not_sent_again() -> Result<()> {
    let system = System::start().await?;
    // nothing processes what is reported below
    system.shutdown.cancel();
    system.apply(LINEAR).await?;
    let (queue, worker) = (QueueName::of_namespace("test"), WorkerId::generate());
    let task = system.submit("test", "linear", json!({})).await?.task_id;
    let mut session = system.database.begin("test").await?;
    let step = leases::claim(&mut session, &queue, 1, worker, Duration::from_secs(30)).await?.steps.remove(0);
    let report = Report {
        msg_id: step.msg_id,
        step_id: step.step_id,
        attempt: step.attempt,
        outcome: ResultType::Success,
        result: Some(json!(1)),
        error: None,
    };
    reports::store(&mut session, &queue, &[report], worker).await?;
    let message = queue::take(&mut session, queue::STEP_RESULTS, 10).await?.remove(0);
    assert_eq!(repair::standing_still(&mut session, Duration::ZERO, 10).await?, [task]);
    let parked = dead_letters::Parked {
        queue: queue::STEP_RESULTS,
        namespace: None,
        message: &message,
        reason: DeadLetterReason::Poison,
        detail: "it failed",
        task: Some(task),
        step: Some(step.step_id),
    };
    dead_letters::park(&mut session, &parked).await?;
    assert_eq!(repair::standing_still(&mut session, Duration::ZERO, 10).await?, []);
    assert_eq!(repair::mend(&mut session, task, "test", Duration::ZERO).await?.all, 0);
    Ok(())
}
