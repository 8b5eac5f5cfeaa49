//! The worker of the tests of exactly-once writes: the worker service, with a handler that books an entry in its report.

use serde::Deserialize;
use serde_json::{Value, json};
use std::process::ExitCode;
use tasker_shared::runtime::process;
use tasker_worker::{
    HandlerError, StepContext,
    handler::handler_fn,
    service::{Service, built_in},
};

/// The handler's name.
pub const CALLABLE: &str = "booker.book";

/// The table of entries; it takes the same one twice, so that nothing but the worker keeps it from being there twice.
pub const TABLE: &str = "create table public.entries (step_id uuid not null, attempt integer not null)";

/// The advisory lock that every booking asks for before its commit: who holds it holds them all.
pub const LOCK: i64 = 7;

/// What stands in the statement in which a booking waits before its commit.
pub const HOLDS: &str = "-- the booking holds";

#[derive(Deserialize)]
struct Order {
    /// How long the transaction stays open after the entry was written, in milliseconds.
    hold_ms: u32,
}

/// Runs the service until it is told to stop.
pub fn run() -> ExitCode {
    process::run("tasker-worker", |process| async {
        let mut registry = built_in(&process.config)?;
        registry.register(CALLABLE, handler_fn(book))?;
        Service::bind(process, registry).await?.run().await?;
        Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    })
}

async fn book(context: StepContext, order: Order) -> Result<Value, HandlerError> {
    let (step, attempt) = (context.step_id.0, i32::try_from(context.attempt)?);
    let seconds = f64::from(order.hold_ms) / 1_000.0;
    context.in_report(move |transaction| {
        Box::pin(async move {
            let insert = sqlx::query("insert into public.entries values ($1, $2)").bind(step).bind(attempt);
            insert.execute(&mut *transaction).await?;
            let hold = format!("{HOLDS}\nselect pg_advisory_xact_lock_shared({LOCK}), pg_sleep($1)");
            sqlx::query(&hold).bind(seconds).execute(transaction).await?;
            Ok(())
        })
    });
    Ok(json!({ "attempt": attempt }))
}
