//! A worker with a handler of its own: `cargo run --example own_worker`, with `DATABASE_URL` set.
//!
//! It reads the configuration, serves health and metrics pages, and drains on SIGTERM, as
//! `tasker-worker` does.

use serde::{Deserialize, Serialize};
use std::process::ExitCode;
use tasker_shared::runtime::process;
use tasker_worker::{
    HandlerError, StepContext,
    handler::handler_fn,
    service::{Service, built_in},
};

#[derive(Deserialize)]
struct Order {
    amount_cents: u64,
}

#[derive(Serialize)]
struct Receipt {
    charged_cents: u64,
}

async fn charge(context: StepContext, order: Order) -> Result<Receipt, HandlerError> {
    if order.amount_cents == 0 {
        return Err(HandlerError::fail("an order of nothing is never charged"));
    }
    tracing::info!(key = context.idempotency_key(), "charging");
    Ok(Receipt { charged_cents: order.amount_cents })
}

fn main() -> ExitCode {
    process::run("own-worker", |process| async {
        let mut registry = built_in(&process.config)?;
        registry.register("shop.charge", handler_fn(charge))?;
        Service::bind(process, registry).await?.run().await
    })
}
