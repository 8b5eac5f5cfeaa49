//! The orchestration service.

use std::process::ExitCode;
use tasker_orchestration::service::Service;
use tasker_shared::runtime::process;

fn main() -> ExitCode {
    process::run("tasker-orchestration", |process| async { Service::bind(process).await?.run().await })
}
