//! The worker service with the built-in handlers and those of the examples.

use std::process::ExitCode;
use tasker_shared::runtime::process;
use tasker_worker::service::{Service, built_in};

const NAME: &str = "tasker-worker";
const ABOUT: &str = "Claims steps, runs the built-in handlers, and reports their outcomes.";

fn main() -> ExitCode {
    let run = || {
        process::run(NAME, |process| async {
            let registry = built_in(&process.config)?;
            Service::bind(process, registry).await?.run().await
        })
    };
    process::arguments(NAME, ABOUT).unwrap_or_else(run)
}
