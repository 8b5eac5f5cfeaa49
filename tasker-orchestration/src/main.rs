//! The orchestration service.

use std::process::ExitCode;
use tasker_orchestration::service::Service;
use tasker_shared::runtime::process::{self, ORCHESTRATION};

const ABOUT: &str = "Accepts tasks, decides which steps may run, and answers the HTTP API.";

fn main() -> ExitCode {
    let run = || process::run(ORCHESTRATION, |process| async { Service::bind(process).await?.run().await });
    process::arguments(ORCHESTRATION, ABOUT).unwrap_or_else(run)
}
