//! Counters tell exactly what happened: for one task by its correlation id, and for all of them whatever was evicted.

use super::{rig::Rig, samples::total};
use anyhow::Result;
use serde_json::{Value, json};
use std::sync::Arc;
use tasker_orchestration::{operate, submit};
use tasker_shared::{
    api::{Action, SubmitTask},
    telemetry::settings::Protocol,
};
use tasker_tests::{
    System,
    system::{eventually, worker_settings},
    templates::{NAMESPACE, dag},
};
use tasker_worker::{HandlerError, StepContext, Worker, handler::handler_fn};

const STEPS: f64 = 4.0;

async fn echo(context: StepContext) -> Result<Value, HandlerError> {
    Ok(json!({ "step": context.step_name }))
}

/// Fails at the first attempt of every third task.
async fn moody(context: StepContext) -> Result<Value, HandlerError> {
    let number = context.input["number"].as_u64().unwrap_or(0);
    if number.is_multiple_of(3) && context.attempt == 1 {
        return Err(HandlerError::retry("not today"));
    }
    Ok(json!(number))
}

async fn one_task_is_counted_through_every_station(protocol: Protocol) -> Result<()> {
    let mut rig = Rig::start(protocol, |_| {}).await?;
    rig.system.add_worker(Worker::builder().settings(worker_settings()).register("echo", handler_fn(echo)))?;
    rig.system.apply(&dag("linear", "echo", &[("a", &[]), ("b", &["a"]), ("c", &["b"]), ("d", &["c"])])).await?;
    let submitted = rig.system.submit(NAMESPACE, "linear", json!({})).await?;
    rig.system.ended(submitted.task_id).await?;
    let told = rig.finish().await?;
    let id = submitted.correlation_id.to_string();
    let flow = [
        ("tasker.tasks.requests.total", "tasker_tasks_requests_total", 1.0),
        ("tasker.steps.enqueued.total", "tasker_steps_enqueued_total", STEPS),
        ("tasker.steps.executions.total", "tasker_steps_executions_total", STEPS),
        ("tasker.steps.successes.total", "tasker_steps_successes_total", STEPS),
        ("tasker.steps.results_submitted.total", "tasker_steps_results_submitted_total", STEPS),
        ("tasker.step_results.processed.total", "tasker_step_results_processed_total", STEPS),
        ("tasker.tasks.completions.total", "tasker_tasks_completions_total", 1.0),
        ("tasker.step.execution.duration", "tasker_step_execution_duration_milliseconds_count", STEPS),
        ("tasker.task.initialization.duration", "tasker_task_initialization_duration_milliseconds_count", 1.0),
        ("tasker.task.finalization.duration", "tasker_task_finalization_duration_milliseconds_count", 1.0),
    ];
    for (name, scraped, expected) in flow {
        assert_eq!(total(&told.samples, name, &[("correlation_id", &id)]), expected, "{name}");
        assert_eq!(total(&told.samples, name, &[]), expected, "{name}, whatever the id");
        assert_eq!(scraped_total(&told.page, scraped), expected, "{scraped}");
    }
    assert_eq!(total(&told.samples, "tasker.steps.claimed.total", &[]), STEPS);
    assert_eq!(total(&told.samples, "tasker.step.queue_wait.duration", &[("priority", "normal")]), STEPS);
    assert_eq!(total(&told.samples, "tasker.steps.failures.total", &[]), 0.0);
    for (queue, messages) in [("step_results", STEPS), ("worker_test", STEPS)] {
        for name in ["sent", "received", "deleted"] {
            let name = format!("tasker.queue.messages_{name}.total");
            assert_eq!(total(&told.samples, &name, &[("queue", queue)]), messages, "{name} of {queue}");
        }
        for name in ["visibility_timeouts", "retry_attempts", "errors", "messages_archived"] {
            let name = format!("tasker.queue.{name}.total");
            assert_eq!(total(&told.samples, &name, &[("queue", queue)]), 0.0, "{name} of {queue}");
        }
    }
    let numbers = told.page.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(numbers.filter(|line| line.contains("correlation_id=")).count(), 0, "a scrape is without ids");
    Ok(())
}

fn scraped_total(page: &str, name: &str) -> f64 {
    let lines = page.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with(['{', ' ']));
    lines.map(|rest| rest.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or(f64::NAN)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_of_n_steps_counts_one_then_n_then_one_over_grpc() -> Result<()> {
    one_task_is_counted_through_every_station(Protocol::Grpc).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_of_n_steps_counts_one_then_n_then_one_over_http() -> Result<()> {
    one_task_is_counted_through_every_station(Protocol::HttpProtobuf).await
}

/// What the database has recorded of one edge.
async fn transitions(system: &System, table: &str) -> Result<Vec<(Option<String>, String, i64)>> {
    let sql = format!("select from_state, to_state, count(*) from tasker.{table} group by 1, 2");
    Ok(sqlx::query_as(&sql).fetch_all(system.database.pool()).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_over_all_samples_are_the_databases_counts_whatever_was_evicted() -> Result<()> {
    const TASKS: usize = 300;
    let mut rig = Rig::start(Protocol::Grpc, |settings| settings.metrics.max_correlation_ids = 50).await?;
    rig.system.add_worker(Worker::builder().settings(worker_settings()).register("moody", handler_fn(moody)))?;
    rig.system.apply(&dag("two", "moody", &[("a", &[]), ("b", &["a"])])).await?;
    let task = |number: usize| SubmitTask {
        namespace: NAMESPACE.to_owned(),
        name: "two".to_owned(),
        input: json!({ "number": number }),
        ..SubmitTask::default()
    };
    for batch in (0..TASKS).collect::<Vec<_>>().chunks(25) {
        let answers = submit::submit(&rig.system.orchestration, batch.iter().map(|n| task(*n)).collect()).await?;
        assert!(answers.iter().all(Result::is_ok));
    }
    let open = "select count(*) from tasker.tasks where finished_at is null";
    eventually("every task has ended", async || Ok(rig.system.count(open).await? == 0)).await?;
    let tasks = transitions(&rig.system, "task_transitions").await?;
    let steps = transitions(&rig.system, "step_transitions").await?;
    let told = Arc::new(rig.finish().await?);
    for (name, edges) in [("tasker.tasks.transitions.total", &tasks), ("tasker.steps.transitions.total", &steps)] {
        for (from, to, count) in edges {
            let from = from.as_deref().unwrap_or("none");
            assert_eq!(total(&told.samples, name, &[("from", from), ("to", to)]), *count as f64, "{name} {from}>{to}");
        }
        let all: i64 = edges.iter().map(|(_, _, count)| count).sum();
        assert_eq!(total(&told.samples, name, &[]), all as f64, "{name}");
    }
    let of = |edges: &[(Option<String>, String, i64)], state: &str| {
        edges.iter().filter(|(_, to, _)| to == state).map(|(_, _, count)| *count).sum::<i64>() as f64
    };
    let expected = [
        ("tasker.tasks.requests.total", TASKS as f64),
        ("tasker.tasks.completions.total", of(&tasks, "complete")),
        ("tasker.steps.enqueued.total", of(&steps, "enqueued")),
        ("tasker.steps.executions.total", of(&steps, "in_progress")),
        ("tasker.steps.results_submitted.total", of(&steps, "reported")),
        ("tasker.steps.successes.total", of(&steps, "complete")),
        ("tasker.steps.failures.total", of(&steps, "waiting_for_retry")),
        ("tasker.steps.retries.total", of(&steps, "waiting_for_retry")),
        ("tasker.step_results.processed.total", of(&steps, "reported")),
        ("tasker.step.execution.duration", of(&steps, "in_progress")),
        ("tasker.queue.messages_received.total", of(&steps, "in_progress") + of(&steps, "reported")),
    ];
    for (name, count) in expected {
        assert_eq!(total(&told.samples, name, &[]), count, "{name}");
    }
    assert_eq!(of(&tasks, "complete"), TASKS as f64);
    let ended = told.samples.iter().filter(|sample| sample.value.is_none()).count();
    let overflowed = total(&told.samples, "tasker.telemetry.overflow.total", &[]);
    assert!(ended > 0 || overflowed > 0.0, "300 tasks do not fit into 50 ids");
    Ok(())
}

/// A task by SQL is counted once, whether it is cancelled before orchestration has heard of it or afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_task_whose_message_comes_twice_is_counted_as_requested_once() -> Result<()> {
    let rig = Rig::start(Protocol::Grpc, |_| {}).await?;
    rig.system.apply(&dag("linear", "echo", &[("a", &[])])).await?;
    let submit = format!("tasker.submit('{NAMESPACE}', 'linear', '{{}}', run_at => now() + interval '1 hour')");
    rig.system.execute(&format!("do $$ begin perform {submit}; end $$")).await?;
    let taken = async || Ok(rig.system.count("select count(*) from pgmq.q_task_requests").await? == 0);
    eventually("the message is taken", taken).await?;
    let again = "insert into pgmq.q_task_requests (vt, message)
        select clock_timestamp(), jsonb_build_object('task_id', id) from tasker.tasks";
    rig.system.execute(again).await?;
    eventually("the second message is taken", taken).await?;
    let task = sqlx::query_scalar("select id from tasker.tasks");
    let task = task.fetch_one(rig.system.orchestration.database().pool()).await?;
    operate::cancel(&rig.system.orchestration, task, &Action::default()).await?;
    let told = rig.finish().await?;
    assert_eq!(total(&told.samples, "tasker.tasks.requests.total", &[]), 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_by_sql_that_is_cancelled_is_counted_as_requested_once() -> Result<()> {
    let rig = Rig::start(Protocol::Grpc, |_| {}).await?;
    rig.system.apply(&dag("linear", "echo", &[("a", &[])])).await?;
    let submit = format!("tasker.submit('{NAMESPACE}', 'linear', '{{}}', run_at => now() + interval '1 hour')");
    // its message lies where nobody looks yet
    rig.system
        .execute(&format!(
            "do $$ begin
               perform {submit};
               update pgmq.q_task_requests set vt = clock_timestamp() + interval '1 hour';
             end $$"
        ))
        .await?;
    let cancel = async |state: &str| -> Result<()> {
        let sql = "select id from tasker.tasks where state = 'pending'";
        let task = sqlx::query_scalar(sql).fetch_one(rig.system.orchestration.database().pool()).await?;
        operate::cancel(&rig.system.orchestration, task, &Action::default()).await?;
        rig.system.execute("update pgmq.q_task_requests set vt = clock_timestamp()").await?;
        eventually(state, async || Ok(rig.system.count("select count(*) from pgmq.q_task_requests").await? == 0)).await
    };
    cancel("the message of a cancelled task is taken").await?;
    rig.system.execute(&format!("do $$ begin perform {submit}; end $$")).await?;
    eventually("the start is known", async || Ok(rig.system.count("select count(*) from tasker.timers").await? == 1))
        .await?;
    cancel("nothing is left").await?;
    let told = rig.finish().await?;
    assert_eq!(total(&told.samples, "tasker.tasks.requests.total", &[]), 2.0);
    Ok(())
}
