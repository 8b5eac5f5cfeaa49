//! Messages that nobody sent on purpose, thousands of them at random, among those of tasks that run.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::collections::HashSet;
use tasker_shared::id::{StepId, TaskId};
use tasker_tests::{
    Gate, System,
    invariants::violations,
    model::random::Random,
    system::{eventually, worker_settings},
    templates::{NAMESPACE, dag},
};
use tasker_worker::Worker;

/// How many messages each queue gets.
const EACH: usize = 1_000;

/// The ids that messages may name, besides those of nothing.
struct Known {
    tasks: Vec<TaskId>,
    steps: Vec<StepId>,
}

/// A value of any kind; deeper ones are rarer.
fn anything(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth > 0 { 14 } else { 11 }) {
        0 => Value::Null,
        1 => json!(random.one_in(2)),
        2 => json!(i64::from_ne_bytes(random.bits().to_ne_bytes())),
        3 => json!(random.bits()),
        4 => json!(f64::from_bits(random.bits() & 0x7fef_ffff_ffff_ffff)),
        5 => json!([-1, 0, 1, 2, 3, i64::from(i32::MAX), i64::from(i32::MAX) + 1][random.below(7)]),
        6 => json!(TaskId::generate()),
        7 => json!(format!("urn:uuid:{}", StepId::generate())),
        8 => json!(["", " ", "1", "null", "\u{10ffff}", "'; drop table tasker.tasks; --", "{}", "é"][random.below(8)]),
        9 => json!("x".repeat(random.below(5_000))),
        10 => json!(format!("{{{}}}", StepId::generate().to_string().to_uppercase())),
        11 => Value::Array((0..random.below(4)).map(|_| anything(random, depth - 1)).collect()),
        _ => message(random, depth - 1, &Known { tasks: Vec::new(), steps: Vec::new() }),
    }
}

/// An object with some of the keys that messages have.
fn message(random: &mut Random, depth: usize, known: &Known) -> Value {
    let mut fields = serde_json::Map::new();
    for key in ["step_id", "task_id", "attempt", "correlation_id", "more"] {
        let value = match key {
            "step_id" if !known.steps.is_empty() && random.one_in(2) => json!(random.of(&known.steps)),
            "task_id" if !known.tasks.is_empty() && random.one_in(2) => json!(random.of(&known.tasks)),
            "attempt" if random.one_in(2) => json!(1 + random.below(3)),
            _ => anything(random, depth),
        };
        if !random.one_in(4) {
            fields.insert(key.to_owned(), value);
        }
    }
    Value::Object(fields)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_random_messages_harm_nothing_and_none_of_them_stays() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    system.apply(&dag("chain", "gate", &[("a", &[]), ("b", &["a"]), ("c", &["b"])])).await?;
    let mut tasks = Vec::new();
    for _ in 0..5 {
        tasks.push(system.begin("chain").await?);
    }
    let calls = gate.take(5).await;
    let mut steps = Vec::new();
    for task in &tasks {
        steps.extend(system.detail(*task).await?.steps.into_iter().map(|step| step.step_id));
    }
    let known = Known { tasks: tasks.clone(), steps };
    let mut random = Random::new(5);
    for queue in [format!("worker_{NAMESPACE}"), "step_results".to_owned(), "task_requests".to_owned()] {
        let sent: Vec<Value> = (0..EACH)
            .map(|n| if n % 5 == 0 { anything(&mut random, 3) } else { message(&mut random, 3, &known) })
            .collect();
        let headers: Vec<Value> = sent
            .iter()
            .map(|_| match random.below(3) {
                0 => json!({ "traceparent": anything(&mut random, 1), "correlation_id": anything(&mut random, 1) }),
                1 => anything(&mut random, 2),
                _ => Value::Null,
            })
            .collect();
        let sql = format!(
            "insert into pgmq.q_{queue} (vt, message, headers)
             select clock_timestamp(), m, nullif(h, 'null') from unnest($1::jsonb[], $2::jsonb[]) s (m, h)"
        );
        sqlx::query(&sql).bind(sent).bind(headers).execute(system.database.pool()).await.context(queue)?;
    }
    // those that say which step they are about may be taken for it, which then runs as it would have, and once
    let still = "select (select count(*) from pgmq.q_step_results) + (select count(*) from pgmq.q_task_requests)
        + (select count(*) from pgmq.q_worker_test where vt <= clock_timestamp())";
    eventually("the messages are dealt with", async || Ok(system.count(still).await? == 0)).await?;
    assert_eq!(violations(system.database.pool()).await?, Vec::<String>::new());
    for call in calls {
        call.succeed(json!(1));
    }
    for _ in 0..10 {
        gate.next().await.succeed(json!(1));
    }
    for task in tasks {
        system.ended(task).await?;
        assert_eq!(system.states(task).await?, "a=complete b=complete c=complete");
    }
    assert_eq!(violations(system.database.pool()).await?, Vec::<String>::new());
    assert_eq!(gate.waiting(), 0, "no step ran twice");
    let parked: Vec<(String, String, i64)> =
        sqlx::query_as("select queue, reason, count(*) from tasker.dead_letters group by 1, 2 order by 1, 2")
            .fetch_all(system.database.pool())
            .await?;
    println!("{} random messages; parked: {parked:?}", 3 * EACH);
    let queues: HashSet<&str> = parked.iter().map(|(queue, ..)| queue.as_str()).collect();
    assert_eq!(queues.len(), 3, "each queue had some that nobody understands: {parked:?}");
    assert!(parked.iter().all(|(_, reason, _)| reason == "unreadable"), "{parked:?}");
    system.finish().await
}
