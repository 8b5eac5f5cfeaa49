//! Queues: messages that nobody sent on purpose, and PGMQ's own functions on the same tables.

use anyhow::Result;
use serde_json::{Value, json};
use tasker_shared::{
    id::{StepId, TaskId},
    queue,
    step::StepState,
    task::TaskState,
};
use tasker_tests::{
    Gate, System,
    system::{eventually, worker_settings},
    templates::{dag, single},
};
use tasker_worker::Worker;

async fn start() -> Result<(System, Gate)> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    Ok((system, gate))
}

async fn send(system: &System, queue: &str, message: &Value) -> Result<()> {
    sqlx::query("select pgmq.send($1, $2::jsonb)").bind(queue).bind(message).execute(system.database.pool()).await?;
    Ok(())
}

async fn parked(system: &System, queue: &str, reason: &str) -> Result<i64> {
    system
        .count(&format!("select count(*) from tasker.dead_letters where queue = '{queue}' and reason = '{reason}'"))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_messages_are_parked_and_the_line_goes_on() -> Result<()> {
    let (system, gate) = start().await?;
    let task = system.begin_new(&dag("chain", "gate", &[("a", &[]), ("b", &["a"])])).await?;
    let a = gate.next().await;
    let junk = [
        json!({}),
        json!(null),
        json!(7),
        json!("text"),
        json!([1, 2]),
        json!({"step_id": "no uuid", "task_id": 5, "attempt": "x"}),
        json!({"step_id": null, "task_id": null}),
    ];
    let queues = ["worker_test", "step_results", "task_requests"];
    for queue in queues {
        for message in &junk {
            send(&system, queue, message).await?;
        }
        system.execute(&format!("select pgmq.send('{queue}', null::jsonb)")).await?;
    }
    for queue in queues {
        let what = format!("the junk of {queue} is parked");
        eventually(&what, async || Ok(parked(&system, queue, "unreadable").await? == 8)).await?;
    }
    a.succeed(json!(1));
    gate.next().await.succeed(json!(2));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    let by_sql: uuid::Uuid =
        sqlx::query_scalar("select tasker.submit('test', 'chain')").fetch_one(system.database.pool()).await?;
    for _ in 0..2 {
        gate.next().await.succeed(json!(1));
    }
    assert_eq!(system.ended(TaskId(by_sql)).await?.summary.state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_for_steps_and_tasks_that_do_not_exist_are_removed() -> Result<()> {
    let (system, gate) = start().await?;
    system.apply(&single("one", "gate", "")).await?;
    for queue in ["worker_test", "step_results", "task_requests"] {
        let message = json!({"step_id": StepId::generate(), "task_id": TaskId::generate(), "attempt": 1});
        send(&system, queue, &message).await?;
    }
    eventually("the queues are empty", async || Ok(system.messages().await? == 0)).await?;
    let task = system.begin("one").await?;
    gate.next().await.succeed(json!(1));
    system.ended(task).await?;
    assert_eq!(system.count("select count(*) from tasker.dead_letters").await?, 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_a_steps_message_do_not_run_it_twice() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    let task = system.begin_new(&single("one", "gate", "")).await?;
    let copy = format!("insert into {q} (vt, message) select vt, message from {q} limit 1", q = System::queue());
    for _ in 0..3 {
        system.execute(&copy).await?;
    }
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    let call = gate.next().await;
    let one = format!("select count(*) from {}", System::queue());
    eventually("the copies are gone", async || Ok(system.count(&one).await? == 1)).await?;
    // a copy that comes while the step runs
    let step = call.context.step_id;
    send(&system, "worker_test", &json!({"step_id": step, "task_id": task})).await?;
    eventually("the copy is gone", async || Ok(system.count(&one).await? == 1)).await?;
    assert_eq!((gate.waiting(), system.detail(task).await?.steps[0].attempt), (0, 1));
    call.succeed(json!(1));
    let ended = system.ended(task).await?;
    assert_eq!((ended.summary.state, ended.steps[0].attempt), (TaskState::Complete, 1));
    // and one that comes after it
    send(&system, "worker_test", &json!({"step_id": step, "task_id": task})).await?;
    send(&system, "step_results", &json!({"step_id": step, "task_id": task, "attempt": 1})).await?;
    send(&system, "task_requests", &json!({"task_id": task})).await?;
    eventually("the queues are empty", async || Ok(system.messages().await? == 0)).await?;
    assert_eq!(system.detail(task).await?, ended);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_and_forgeries_of_a_result_are_processed_once() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    let task = system.begin_new(&dag("chain", "gate", &[("a", &[]), ("b", &["a"]), ("c", &["a", "b"])])).await?;
    let other = system.begin("chain").await?;
    let a = gate.next().await;
    let b = gate.next().await;
    let (a, other_a) = if a.context.task_id == task { (a, b) } else { (b, a) };
    for (task_id, attempt) in [(task, 2), (task, 0), (task, 1), (other, 1)] {
        send(&system, "step_results", &json!({"step_id": a.context.step_id, "task_id": task_id, "attempt": attempt}))
            .await?;
    }
    eventually("they are gone", async || Ok(system.count("select count(*) from pgmq.q_step_results").await? == 0))
        .await?;
    assert_eq!(system.states(task).await?, "a=in_progress b=pending c=pending");
    a.succeed(json!(1));
    other_a.succeed(json!(1));
    for _ in 0..4 {
        gate.next().await.succeed(json!(1));
    }
    for task in [task, other] {
        let ended = system.ended(task).await?;
        assert_eq!(ended.summary.state, TaskState::Complete);
        assert!(ended.steps.iter().all(|step| step.attempt == 1 && step.waiting_on == 0));
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgmq_and_tasker_understand_each_other() -> Result<()> {
    let system = System::start().await?;
    let task = system.begin_new(&single("one", "gate", "")).await?;
    let step = system.detail(task).await?.steps[0].step_id;
    let (length, visible): (i64, i64) =
        sqlx::query_as("select queue_length, queue_visible_length from pgmq.metrics('worker_test')")
            .fetch_one(system.database.pool())
            .await?;
    assert_eq!((length, visible), (1, 1));
    let (msg_id, read_ct, message, headers): (i64, i32, Value, Option<Value>) =
        sqlx::query_as("select msg_id, read_ct, message, headers from pgmq.read('worker_test', 0, 10)")
            .fetch_one(system.database.pool())
            .await?;
    assert_eq!((read_ct, &message), (1, &json!({"task_id": task, "step_id": step})));
    assert!(headers.and_then(|h| h["traceparent"].as_str().map(str::len)) == Some(55));
    // what PGMQ sends we take, and the other way round
    sqlx::query("select pgmq.create('plain')").execute(system.database.pool()).await?;
    send(&system, "plain", &json!({"from": "pgmq"})).await?;
    let mut session = system.database.begin("test").await?;
    let taken = queue::take(&mut session, "plain", 10).await?;
    assert_eq!(taken.iter().map(|m| m.message.read().unwrap()).collect::<Vec<_>>(), [&json!({"from": "pgmq"})]);
    queue::send(&mut session, "plain", &[json!(1), json!(2)], &[json!(null), json!({"h": 1})]).await?;
    session.commit().await?;
    let ids: Vec<i64> = sqlx::query_scalar("select msg_id from pgmq.read('plain', 30, 10) order by 1")
        .fetch_all(system.database.pool())
        .await?;
    assert_eq!(ids.len(), 2);
    let deleted: bool = sqlx::query_scalar("select pgmq.delete('plain', $1::bigint)")
        .bind(ids[0])
        .fetch_one(system.database.pool())
        .await?;
    let archived: bool = sqlx::query_scalar("select pgmq.archive('plain', $1::bigint)")
        .bind(ids[1])
        .fetch_one(system.database.pool())
        .await?;
    assert!(deleted && archived);
    assert_eq!(system.count("select count(*) from pgmq.a_plain").await?, 1);
    // a message that PGMQ has read is still the step's
    let (mut system, gate) = (system, Gate::new());
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    let call = gate.next().await;
    let mut session = system.database.session("test").await?;
    assert_eq!(queue::delete(&mut session, "worker_test", &[msg_id + 1_000]).await?, 0);
    drop(session);
    call.succeed(json!(1));
    system.ended(task).await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_is_created_once() -> Result<()> {
    let system = System::start().await?;
    let mut connection = system.database.pool().acquire().await?;
    for _ in 0..2 {
        queue::create(&mut connection, "again").await?;
    }
    drop(connection);
    send(&system, "again", &json!(1)).await?;
    let mut connection = system.database.pool().acquire().await?;
    queue::create(&mut connection, "again").await?;
    drop(connection);
    assert_eq!(system.count("select count(*) from pgmq.q_again").await?, 1);
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_cannot_be_processed_is_parked_and_the_others_go_on() -> Result<()> {
    let (system, gate) = start().await?;
    let broken = system.begin_new(&single("broken", "gate", "")).await?;
    let sound = system.begin_new(&single("sound", "gate", "")).await?;
    let mut calls = gate.take(2).await;
    // a failure that nobody can read stands for whatever makes a transaction fail time after time
    let spoil = format!(
        "create function tasker.spoil() returns trigger language plpgsql as $$ begin
            if new.task_id = '{broken}' and new.state = 'complete' then raise exception 'spoilt'; end if; return new; end $$;
         create trigger spoil before update on tasker.steps for each row execute function tasker.spoil()"
    );
    system.execute(&spoil).await?;
    calls.drain(..).for_each(|call| call.succeed(json!(1)));
    assert_eq!(system.ended(sound).await?.summary.state, TaskState::Complete);
    system.execute("update pgmq.q_step_results set read_ct = 100, vt = now()").await?;
    eventually("it is parked", async || Ok(parked(&system, "step_results", "poison").await? == 1)).await?;
    system.step_is(broken, "only", StepState::Reported).await?;
    system.close().await
}
