//! What a handler writes in its report's transaction takes effect once, whatever happens to the attempt.

use anyhow::{Context as _, Result};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tasker_shared::{step::FailureKind, task::TaskState};
use tasker_tests::{
    Gate, System,
    system::{eventually, worker_settings},
    templates::single,
};
use tasker_worker::{HandlerError, Settings, StepContext, Worker, handler::handler_fn};
use tokio::sync::Semaphore;

const EFFECTS: &str = "select count(*) from effects";

/// Writes one row, and then waits inside the transaction until the test lets it go on.
#[derive(Clone)]
struct Writer(Arc<Inner>);

struct Inner {
    gate: Gate,
    /// How often the write has been reached.
    reached: AtomicU32,
    go_on: Semaphore,
}

impl Writer {
    fn new() -> Self {
        Self(Arc::new(Inner { gate: Gate::new(), reached: AtomicU32::new(0), go_on: Semaphore::new(0) }))
    }

    async fn reached(&self, times: u32) -> Result<()> {
        eventually("the write is reached", async || Ok(self.0.reached.load(Ordering::SeqCst) >= times)).await
    }

    async fn call(self, context: StepContext) -> Result<serde_json::Value, HandlerError> {
        let (inner, attempt) = (Arc::clone(&self.0), i32::try_from(context.attempt)?);
        context.in_report(move |transaction| {
            Box::pin(async move {
                sqlx::query("insert into effects values ($1)").bind(attempt).execute(&mut *transaction).await?;
                inner.reached.fetch_add(1, Ordering::SeqCst);
                inner.go_on.acquire().await?.forget();
                Ok(())
            })
        });
        tasker_worker::StepHandler::call(&self.0.gate, context).await
    }

    fn worker(&self) -> tasker_worker::Builder {
        let (writer, lease) = (self.clone(), Duration::from_secs(20));
        let settings = Settings { lease, heartbeat_interval: Duration::from_millis(200), ..worker_settings() };
        let handler = handler_fn(move |context: StepContext| writer.clone().call(context));
        Worker::builder().settings(settings).register("write", handler)
    }
}

async fn start() -> Result<System> {
    let system = System::start().await?;
    system.execute("create table effects (attempt integer)").await?;
    Ok(system)
}

fn template() -> String {
    single("writes", "write", "retry: {max_attempts: 2, backoff: none}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_writes_of_a_handler_commit_together_with_its_report() -> Result<()> {
    let (mut system, writer) = (start().await?, Writer::new());
    system.add_worker(writer.worker())?;
    let task = system.begin_new(&template()).await?;
    writer.0.gate.next().await.succeed(json!("done"));
    writer.reached(1).await?;
    assert_eq!(system.count(EFFECTS).await?, 0, "not before the report");
    assert_eq!(system.states(task).await?, "only=in_progress");
    writer.0.go_on.add_permits(1);
    let ended = system.ended(task).await?;
    assert_eq!((ended.summary.state, ended.steps[0].result.clone()), (TaskState::Complete, Some(json!("done"))));
    assert_eq!(system.count(EFFECTS).await?, 1);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_lost_its_lease_writes_nothing() -> Result<()> {
    let (mut system, first, second) = (start().await?, Writer::new(), Writer::new());
    // no heartbeat tells the first one that it lost its lease
    let slow = Settings { heartbeat_interval: Duration::from_secs(60), ..worker_settings() };
    let (writer, lost) = (first.clone(), first.worker().settings(slow));
    system.add_worker(lost)?;
    let task = system.begin_new(&template()).await?;
    let late = writer.0.gate.next().await;
    system.execute(&format!("update {} set vt = now()", System::queue())).await?;
    system.add_worker(second.worker())?;
    let taken = async || Ok(first.0.gate.waiting() + second.0.gate.waiting() == 1);
    eventually("the step runs again", taken).await?;
    let again = if second.0.gate.waiting() == 1 { &second } else { &first };
    let call = again.0.gate.next().await;
    assert_eq!(call.context.attempt, 2);
    first.0.go_on.add_permits(2);
    second.0.go_on.add_permits(2);
    late.succeed(json!("late"));
    call.succeed(json!("in time"));
    let ended = system.ended(task).await?;
    assert_eq!(ended.steps[0].result, Some(json!("in time")));
    assert_eq!(system.count("select sum(attempt)::bigint from effects").await?, 2, "the second attempt's alone");
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_before_the_commit_leaves_no_write_and_the_next_attempt_writes_once() -> Result<()> {
    let (mut system, writer) = (start().await?, Writer::new());
    system.add_worker(writer.worker())?;
    let task = system.begin_new(&template()).await?;
    writer.0.gate.next().await.succeed(json!(1));
    writer.reached(1).await?;
    let killed = "select pg_terminate_backend(pid) from pg_stat_activity
        where state = 'idle in transaction' and query like 'insert into effects%'";
    system.execute(killed).await?;
    writer.0.go_on.add_permits(2);
    writer.0.gate.next().await.succeed(json!(2));
    let ended = system.ended(task).await?;
    assert_eq!((ended.summary.state, ended.steps[0].result.clone()), (TaskState::Complete, Some(json!(2))));
    assert_eq!(system.count("select sum(attempt)::bigint from effects").await?, 2);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_comes_for_a_lapsed_lease_during_the_writes_does_not_run_the_step_again() -> Result<()> {
    let (mut system, first, second) = (start().await?, Writer::new(), Writer::new());
    system.add_worker(first.worker())?;
    let task = system.begin_new(&template()).await?;
    let call = first.0.gate.next().await;
    // the lease ends while the report's transaction is open: nobody waits for it, and nobody takes the step
    call.succeed(json!("first"));
    first.reached(1).await?;
    system.add_worker(second.worker())?;
    let other = system.begin("writes").await?;
    let (another, call) = loop {
        if second.0.gate.waiting() > 0 {
            break (&second, second.0.gate.next().await);
        }
        if first.0.gate.waiting() > 0 {
            break (&first, first.0.gate.next().await);
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(call.context.task_id, other, "claims go on beside it");
    another.0.go_on.add_permits(1);
    call.succeed(json!("other"));
    first.0.go_on.add_permits(1);
    let (ended, other) = (system.ended(task).await?, system.ended(other).await?);
    assert_eq!((ended.steps[0].attempt, other.steps[0].attempt), (1, 1));
    assert_eq!(system.count(EFFECTS).await?, 2);
    assert_eq!(first.0.gate.waiting() + second.0.gate.waiting(), 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_whose_lease_lapses_during_its_writes_is_rolled_back_and_its_late_report_is_refused() -> Result<()> {
    let (mut system, first, second) = (start().await?, Writer::new(), Writer::new());
    let alone = Settings {
        max_concurrent_steps: 1,
        lease: Duration::from_secs(60),
        heartbeat_interval: Duration::from_secs(20),
        ..worker_settings()
    };
    system.add_worker(first.worker().settings(alone.clone()))?;
    let task = system.begin_new(&template()).await?;
    first.0.gate.next().await.succeed(json!("late"));
    first.reached(1).await?;
    // the server gives the transaction up, as it does for a worker that stands still, and then the lease is over
    let killed = "select pg_terminate_backend(pid) from pg_stat_activity
        where state = 'idle in transaction' and query like 'insert into effects%'";
    system.execute(killed).await?;
    let lapse = format!("update {} set vt = now() - interval '1 second'", System::queue());
    eventually("the lease lapses", async || Ok(system.execute(&lapse).await? == 1)).await?;
    system.add_worker(second.worker().settings(alone))?;
    let again = second.0.gate.next().await;
    assert_eq!(again.context.attempt, 2);
    first.0.go_on.add_permits(1);
    let late = system.begin("writes").await?;
    let free = first.0.gate.next().await;
    assert_eq!(free.context.task_id, late, "the late report is over: its worker takes the next step");
    assert_eq!(system.states(task).await?, "only=in_progress");
    assert_eq!(system.count(EFFECTS).await?, 0);
    first.0.go_on.add_permits(1);
    second.0.go_on.add_permits(1);
    free.succeed(json!("next"));
    again.succeed(json!("in time"));
    let ended = system.ended(task).await?;
    assert_eq!((ended.steps[0].result.clone(), ended.steps[0].failures), (Some(json!("in time")), 0));
    system.ended(late).await?;
    let written = "select count(*) from effects where attempt = 2";
    assert_eq!((system.count(written).await?, system.count(EFFECTS).await?), (1, 2));
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_fail_are_rolled_back_and_fail_the_attempt() -> Result<()> {
    let mut system = start().await?;
    let twice = handler_fn(|context: StepContext| async move {
        let attempt = i32::try_from(context.attempt)?;
        for _ in 0..2 {
            context.in_report(move |transaction| {
                Box::pin(async move {
                    sqlx::query("insert into effects values ($1)").bind(attempt).execute(transaction).await?;
                    Ok(())
                })
            });
        }
        context.in_report(move |_| {
            Box::pin(async move {
                if attempt == 1 { Err(HandlerError::retry("the ledger is closed")) } else { panic!("a bad day") }
            })
        });
        Ok::<_, HandlerError>(1)
    });
    system.add_worker(Worker::builder().settings(worker_settings()).register("write", twice))?;
    let task = system.begin_new(&template()).await?;
    let ended = system.ended(task).await?;
    let failure = ended.steps[0].error.clone().context("a failure")?;
    assert_eq!((failure.kind, ended.steps[0].failures), (FailureKind::Panic, 2));
    let first = "select count(*) from tasker.step_transitions where to_state = 'waiting_for_retry'";
    assert_eq!(system.count(first).await?, 1);
    assert_eq!(system.count(EFFECTS).await?, 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_take_too_long_give_the_step_back() -> Result<()> {
    let mut system = start().await?;
    let slow = handler_fn(|context: StepContext| async move {
        context.in_report(|transaction| {
            Box::pin(async move {
                sqlx::query("select pg_sleep(60)").execute(transaction).await?;
                Ok(())
            })
        });
        Ok::<_, HandlerError>(1)
    });
    let settings = Settings { lease: Duration::from_millis(600), ..worker_settings() };
    system.add_worker(Worker::builder().settings(settings).register("write", slow))?;
    let task = system.begin_new(&single("writes", "write", "retry: {retryable: false}")).await?;
    let ended = system.ended(task).await?;
    let failure = ended.steps[0].error.clone().context("a failure")?;
    // the server's own limit and ours are the same; either may be first
    assert!(matches!(failure.kind, FailureKind::Timeout | FailureKind::HandlerError), "{failure:?}");
    system.finish().await
}
