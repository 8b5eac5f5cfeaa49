//! A worker that starts while the database breaks down.

use anyhow::Result;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tasker_shared::{
    metrics::Metrics,
    storage::{Database, Gate, Passed},
};
use tasker_tests::{
    System,
    system::{connect, worker_settings},
    templates::dag,
};
use tasker_worker::{HandlerError, StepContext, Worker, handler::handler_fn};
use tokio_util::sync::CancellationToken;

/// So many heartbeats fail as when the connection is cut.
#[derive(Debug)]
struct Broken(AtomicUsize);

impl Gate for Broken {
    fn pass<'a>(&'a self, _: &'static str, doing: &'static str) -> Passed<'a> {
        let take = |left: usize| left.checked_sub(1);
        let breaks = doing == "heartbeat" && self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        let cut = || sqlx::Error::Io(std::io::Error::other("the test cut the connection"));
        Box::pin(std::future::ready(if breaks { Err(cut()) } else { Ok(()) }))
    }
}

async fn echo(context: StepContext) -> Result<Value, HandlerError> {
    Ok(json!({ "step": context.step_name }))
}

async fn worker(system: &System, gate: &Arc<Broken>) -> Result<(Worker, Database)> {
    let database = connect(&system.test_database.url, Metrics::disabled()).await?.gated(Arc::<Broken>::clone(gate));
    let (bell, tracing) = (system.orchestration.bell().clone(), system.orchestration.tracing().clone());
    let builder = Worker::builder().settings(worker_settings()).register("echo", handler_fn(echo));
    Ok((builder.build(database.clone(), bell, tracing)?, database))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_starts_while_the_database_breaks_down_registers_when_it_is_back_and_works() -> Result<()> {
    let system = System::start().await?;
    let gate = Arc::new(Broken(AtomicUsize::new(2)));
    let (worker, database) = worker(&system, &gate).await?;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(worker.run(shutdown.clone()));
    let task = system.begin_new(&dag("one", "echo", &[("a", &[])])).await?;
    system.ended(task).await?;
    assert_eq!(gate.0.load(Ordering::Relaxed), 0, "it tried more than once");
    shutdown.cancel();
    running.await??;
    database.pool().close().await;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_cannot_register_ends_when_it_is_told_to() -> Result<()> {
    let system = System::start().await?;
    let gate = Arc::new(Broken(AtomicUsize::new(usize::MAX)));
    let (worker, database) = worker(&system, &gate).await?;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(worker.run(shutdown.clone()));
    tasker_tests::system::eventually("it has tried", async || Ok(gate.0.load(Ordering::Relaxed) < usize::MAX)).await?;
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), running).await???;
    database.pool().close().await;
    system.finish().await
}
