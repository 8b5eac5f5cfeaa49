//! What a program's environment has.

use super::CommandSettings;
use crate::handler::{HandlerError, StepContext, document::Placeholders};
use std::{collections::BTreeMap, env, process::Command};

/// Replaces the environment of `command`: the worker's variables that `allowed_environment` names, the ids of the step, and
/// the step's own `env`, which wins, as far as `allowed_step_environment` goes.
///
/// # Errors
/// A permanent failure that names the variable.
pub(super) fn set(
    command: &mut Command,
    context: &StepContext,
    settings: &CommandSettings,
    own: &BTreeMap<String, String>,
    placeholders: &Placeholders,
) -> Result<(), HandlerError> {
    command.env_clear();
    command.envs(settings.allowed_environment.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    command.env("TASKER_TASK_ID", context.task_id.to_string());
    command.env("TASKER_STEP_ID", context.step_id.to_string());
    command.env("TASKER_CORRELATION_ID", context.correlation_id.to_string());
    command.env("TASKER_ATTEMPT", context.attempt.to_string());
    command.env("TASKER_IDEMPOTENCY_KEY", context.idempotency_key());
    command.envs(context.traceparent.as_ref().map(|traceparent| ("TRACEPARENT", traceparent)));
    for (name, text) in own {
        check(name, &settings.allowed_step_environment)?;
        command.env(name, placeholders.text(&format!("env.{name}"), text)?);
    }
    Ok(())
}

/// A step chooses among programs that are allowed, so it must not choose what else they run; and many a variable makes a
/// program load or run something else.
fn check(name: &str, allowed: &[String]) -> Result<(), HandlerError> {
    let covers = |entry: &String| match entry.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == entry,
    };
    let reason = if name.is_empty() || name.contains(['=', '\0']) {
        "is no name of a variable"
    } else if !allowed.iter().any(covers) {
        "is not allowed on this worker; to allow it, add it to `worker.command.allowed_step_environment`, unless it makes \
         programs run something else"
    } else {
        return Ok(());
    };
    Err(HandlerError::fail(format!("`env` has `{name}`, which {reason}")))
}
