//! A submission meets the removal of the very task that it repeats, at the worst moment.

use anyhow::{Context as _, Result};
use sqlx::{Connection as _, PgConnection};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tasker_orchestration::{Error, Orchestration, submit, templates};
use tasker_shared::{
    api::{ApplyTemplate, SubmitTask},
    id::{TaskId, TemplateId},
    metrics::Metrics,
    runtime::Bell,
    storage::{Gate, Passed, retention},
    task::TaskState,
    telemetry::Tracing,
};
use tasker_tests::{
    System,
    system::{connect, eventually, orchestration_settings, worker_settings},
    templates::{NAMESPACE, single},
};
use tasker_worker::{Worker, handler};
use tokio::sync::Barrier;

async fn start() -> Result<System> {
    let mut system = System::start().await?;
    system.add_worker(Worker::builder().settings(worker_settings()).register("echo", handler::Echo))?;
    system.apply(&single("free", "echo", "")).await?;
    Ok(system)
}

/// A task with the key `k` that has ended.
async fn ended(system: &System) -> Result<TaskId> {
    let task = submit::submit(&system.orchestration, vec![keyed()]).await?.remove(0)?.task_id;
    system.ended(task).await?;
    Ok(task)
}

fn keyed() -> SubmitTask {
    SubmitTask {
        namespace: NAMESPACE.to_owned(),
        name: "free".to_owned(),
        idempotency_key: Some("k".to_owned()),
        ..SubmitTask::default()
    }
}

/// As the retention sweep does.
async fn remove(system: &System, task: TaskId) -> Result<()> {
    let mut session = system.database.begin("test").await?;
    retention::delete(&mut session, &[task]).await?;
    session.commit().await?;
    Ok(())
}

/// The number of the lock at which a submission by SQL waits between its statements.
const LOCK: i64 = 7;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_by_sql_whose_repeat_is_removed_at_that_moment_answers_with_a_new_task() -> Result<()> {
    let system = start().await?;
    let first = ended(&system).await?;
    // a trigger runs after the insert also where it inserted nothing: there the submission waits
    system
        .execute(&format!(
            "create function tasker.wait() returns trigger language plpgsql as
                 $$ begin perform pg_advisory_xact_lock({LOCK}); return null; end $$;
             create trigger wait after insert on tasker.tasks for each statement execute function tasker.wait()"
        ))
        .await?;
    let mut holder = PgConnection::connect(&system.test_database.url).await?;
    sqlx::query("select pg_advisory_lock($1)").bind(LOCK).execute(&mut holder).await?;
    let mut user = PgConnection::connect(&system.test_database.url).await?;
    let submission = tokio::spawn(async move {
        let call = "select tasker.submit('test', 'free', idempotency_key => 'k')";
        let task: Option<uuid::Uuid> = sqlx::query_scalar(call).fetch_one(&mut user).await?;
        anyhow::Ok(task)
    });
    let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted
                    and database = (select oid from pg_database where datname = current_database())";
    eventually("the submission has met the task", async || Ok(system.count(waits).await? == 1)).await?;
    remove(&system, first).await?;
    sqlx::query("select pg_advisory_unlock($1)").bind(LOCK).execute(&mut holder).await?;
    let second = TaskId(submission.await??.context("the submission answers with a task")?);
    assert_ne!(second, first);
    assert_eq!(system.ended(second).await?.summary.state, TaskState::Complete);
    holder.close().await?;
    system.finish().await
}

/// Stops the first statement of this name until the test has come twice.
#[derive(Debug)]
struct Stop {
    before: &'static str,
    done: AtomicBool,
    barrier: Barrier,
}

impl Gate for Stop {
    fn pass<'a>(&'a self, _: &'static str, doing: &'static str) -> Passed<'a> {
        Box::pin(async move {
            if doing == self.before && !self.done.swap(true, Ordering::Relaxed) {
                self.barrier.wait().await;
                self.barrier.wait().await;
            }
            Ok(())
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_repeat_is_removed_at_that_moment_is_accepted_whole() -> Result<()> {
    let system = start().await?;
    let first = ended(&system).await?;
    let stop = Arc::new(Stop { before: "find_existing_tasks", done: AtomicBool::new(false), barrier: Barrier::new(2) });
    let database = connect(&system.test_database.url, Metrics::disabled()).await?;
    let gated = database.gated(Arc::<Stop>::clone(&stop));
    let other = Orchestration::new(gated, Bell::local(), Tracing::disabled(), orchestration_settings());
    let batch = vec![SubmitTask { idempotency_key: None, ..keyed() }, keyed(), keyed()];
    let submission = tokio::spawn(async move { submit::submit(&other, batch).await });
    stop.barrier.wait().await;
    remove(&system, first).await?;
    stop.barrier.wait().await;
    let answers = submission.await??.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(answers.iter().map(|a| a.created).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(answers[1].task_id, answers[2].task_id);
    assert_ne!(answers[1].task_id, first);
    for answer in answers {
        system.ended(answer.task_id).await?;
    }
    assert_eq!(system.count("select count(*) from tasker.tasks").await?, 2, "what was given up has left nothing");
    database.pool().close().await;
    system.finish().await
}

const CHANGED: &str = "
name: free
namespace_name: test
version: 1.0.0
description: another definition
steps:
  - {name: only, handler: {callable: echo}}
";

/// How many connections of this database wait for another one.
const WAITING: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock' and cardinality(pg_blocking_pids(pid)) > 0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_that_a_submission_comes_to_use_at_that_moment_is_not_replaced() -> Result<()> {
    let system = start().await?;
    let mut user = PgConnection::connect(&system.test_database.url).await?;
    sqlx::query("begin").execute(&mut user).await?;
    let task: uuid::Uuid = sqlx::query_scalar("select tasker.submit('test', 'free')").fetch_one(&mut user).await?;
    let orchestration = system.orchestration.clone();
    let request = ApplyTemplate { source: CHANGED.to_owned(), file: None };
    let applied = tokio::spawn(async move { templates::apply(&orchestration, &request).await });
    eventually("the registration waits for the task", async || Ok(system.count(WAITING).await? == 1)).await?;
    sqlx::query("commit").execute(&mut user).await?;
    assert!(matches!(applied.await?, Err(Error::TemplateConflict { .. })));
    assert_eq!(system.ended(TaskId(task)).await?.summary.state, TaskState::Complete);
    user.close().await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_whose_template_is_replaced_at_that_moment_uses_the_new_one() -> Result<()> {
    let system = start().await?;
    let mut other = PgConnection::connect(&system.test_database.url).await?;
    sqlx::query("begin").execute(&mut other).await?;
    // as a registration does
    sqlx::query("delete from tasker.templates").execute(&mut other).await?;
    let replaced = TemplateId::generate();
    sqlx::query(
        "insert into tasker.templates (id, namespace, name, version, definition, source, checksum, identity_strategy)
         values ($1, 'test', 'free', '1.0.0', $2, 'changed', 'changed', 'always_unique')",
    )
    .bind(replaced)
    .bind(sqlx::types::Json(tasker_shared::template::parse(CHANGED, None).expect("a template")))
    .execute(&mut other)
    .await?;
    let orchestration = system.orchestration.clone();
    let submission = tokio::spawn(async move { submit::submit(&orchestration, vec![keyed()]).await });
    eventually("the submission waits for the registration", async || Ok(system.count(WAITING).await? == 1)).await?;
    sqlx::query("commit").execute(&mut other).await?;
    let submitted = submission.await??.remove(0)?;
    assert_eq!(system.detail(submitted.task_id).await?.template_id, replaced);
    assert_eq!(system.ended(submitted.task_id).await?.summary.state, TaskState::Complete);
    other.close().await?;
    system.finish().await
}
