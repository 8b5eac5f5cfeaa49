//! The worker service with the built-in handlers and those of the examples.

use std::process::ExitCode;
use tasker_shared::runtime::process;
use tasker_worker::service::{Service, built_in};

fn main() -> ExitCode {
    process::run("tasker-worker", |process| async {
        let registry = built_in(&process.config)?;
        Service::bind(process, registry).await?.run().await
    })
}
