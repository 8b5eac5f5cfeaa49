//! A task that somebody holds does not hold up the others.

use anyhow::Result;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tasker_shared::{step::StepState, task::TaskState};
use tasker_tests::{
    Gate, System,
    system::{eventually, worker_settings},
    templates::single,
};
use tasker_worker::Worker;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_somebody_holds_does_not_hold_up_the_results_of_others() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    let held = system.begin_new(&single("one", "gate", "")).await?;
    let call = gate.next().await;
    let mut operator = PgConnection::connect(&system.test_database.url).await?;
    sqlx::query("begin").execute(&mut operator).await?;
    sqlx::query("select from tasker.tasks where id = $1 for update").bind(held.0).execute(&mut operator).await?;
    call.succeed(json!(1));
    system.step_is(held, "only", StepState::Reported).await?;
    for _ in 0..3 {
        let other = system.begin("one").await?;
        gate.next().await.succeed(json!(2));
        assert_eq!(system.ended(other).await?.summary.state, TaskState::Complete);
    }
    system.step_is(held, "only", StepState::Reported).await?;
    let waits = "select count(*) from pgmq.q_step_results where read_ct = 0 and vt > clock_timestamp()";
    eventually("its message waits as it was", async || Ok(system.count(waits).await? == 1)).await?;
    sqlx::query("commit").execute(&mut operator).await?;
    assert_eq!(system.ended(held).await?.summary.state, TaskState::Complete);
    operator.close().await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_result_of_a_step_that_was_stopped_while_somebody_held_its_task_is_dropped() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    let task = system.begin_new(&single("one", "gate", "")).await?;
    let call = gate.next().await;
    let mut operator = PgConnection::connect(&system.test_database.url).await?;
    sqlx::query("begin").execute(&mut operator).await?;
    sqlx::query("select from tasker.tasks where id = $1 for update").bind(task.0).execute(&mut operator).await?;
    call.succeed(json!(1));
    let waits = "select count(*) from pgmq.q_step_results where vt > clock_timestamp()";
    eventually("its message is put back", async || Ok(system.count(waits).await? == 1)).await?;
    for sql in [
        "update tasker.steps set state = 'cancelled', finished_at = now() where task_id = $1",
        "update tasker.tasks set state = 'cancelled', finished_at = now(), active_steps = 0 where id = $1",
    ] {
        sqlx::query(sql).bind(task.0).execute(&mut operator).await?;
    }
    sqlx::query("commit").execute(&mut operator).await?;
    eventually("its message is gone", async || Ok(system.messages().await? == 0)).await?;
    assert_eq!(system.states(task).await?, "only=cancelled");
    operator.close().await?;
    system.finish().await
}
