//! The worker of a chaos run: the worker service, with a handler that writes down what it does and then does as it is told.

use super::effects::{DIRECTORY, Journal};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{path::PathBuf, process::ExitCode, time::Duration};
use tasker_shared::runtime::process;
use tasker_worker::{
    HandlerError, StepContext, StepHandler,
    service::{Service, built_in},
};

/// The name of the suite's handler.
pub const HANDLER: &str = "chaos.work";

/// Runs the service until it is told to stop.
pub fn run() -> ExitCode {
    process::run("tasker-worker", |process| async {
        let directory: PathBuf = std::env::var_os(DIRECTORY).ok_or("CHAOS_EFFECTS is not set")?.into();
        let journal = Journal::open(&directory, &format!("worker-{}", std::process::id()))?;
        let mut registry = built_in(&process.config)?;
        registry.register(HANDLER, Told { journal })?;
        Service::bind(process, registry).await?.run().await?;
        Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    })
}

struct Told {
    journal: Journal,
}

#[derive(Deserialize)]
struct Orders {
    fate: String,
    works_ms: u64,
}

#[async_trait::async_trait]
impl StepHandler for Told {
    async fn call(&self, context: StepContext) -> Result<Value, HandlerError> {
        let Orders { fate, works_ms } = context.initialization_as()?;
        let step = context.step_id.to_string();
        self.journal.write(&step, context.attempt.into(), "begin")?;
        let works = if fate == "hangs" { Duration::from_secs(60) } else { Duration::from_millis(works_ms) };
        if !works.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(works) => {}
                () = context.cancelled() => return Err(HandlerError::retry("the work was stopped")),
            }
        }
        self.journal.write(&step, context.attempt.into(), "end")?;
        let times = fate.strip_prefix("fails:").and_then(|times| times.parse().ok()).unwrap_or(0);
        match fate.as_str() {
            "refuses" => return Err(HandlerError::fail("told to refuse")),
            "panics" if context.failures == 0 => panic!("told to panic"),
            _ if context.failures < times => return Err(HandlerError::retry("told to fail")),
            _ => {}
        }
        let parents = json!(*context.parents);
        Ok(result(context.attempt.into(), &parents))
    }
}

/// What a step returns: its attempt, and the attempts of the parents whose results it was given.
pub(super) fn result(attempt: u64, parents: &Value) -> Value {
    let given: serde_json::Map<String, Value> = parents
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, result)| (name.clone(), result["attempt"].clone()))
        .collect();
    json!({ "attempt": attempt, "parents": given })
}
