//! What a program's environment has.

use crate::handler::{HandlerError, StepContext, document::Placeholders};
use std::{collections::BTreeMap, env, process::Command};

/// Replaces the environment of `command`: the worker's variables that `allowed` names, the ids of the step, and the
/// step's own `env`, which wins.
///
/// # Errors
/// A permanent failure that names the variable.
pub(super) fn set(
    command: &mut Command,
    context: &StepContext,
    allowed: &[String],
    own: &BTreeMap<String, String>,
    placeholders: &Placeholders,
) -> Result<(), HandlerError> {
    command.env_clear();
    command.envs(allowed.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    command.env("TASKER_TASK_ID", context.task_id.to_string());
    command.env("TASKER_STEP_ID", context.step_id.to_string());
    command.env("TASKER_CORRELATION_ID", context.correlation_id.to_string());
    command.env("TASKER_ATTEMPT", context.attempt.to_string());
    command.env("TASKER_IDEMPOTENCY_KEY", context.idempotency_key());
    command.envs(context.traceparent.as_ref().map(|traceparent| ("TRACEPARENT", traceparent)));
    for (name, text) in own {
        check(name)?;
        command.env(name, placeholders.text(&format!("env.{name}"), text)?);
    }
    Ok(())
}

/// Beginnings of variables by which the loader, or an interpreter, runs other code inside an allowed program.
const LOADERS: [&str; 5] = ["LD_", "DYLD_", "BASH_FUNC_", "PERL5", "RUBY"];

/// Such variables that are known by their whole name.
const INTERPRETERS: [&str; 15] = [
    "PATH",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "BASH_ENV",
    "ENV",
    "SHELLOPTS",
    "PS4",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "NODE_OPTIONS",
    "NODE_PATH",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
    "JDK_JAVA_OPTIONS",
];

/// A step chooses among programs that are allowed, so it must not choose what else they run.
fn check(name: &str) -> Result<(), HandlerError> {
    let reason = if name.is_empty() || name.contains(['=', '\0']) {
        "is no name of a variable"
    } else if LOADERS.iter().any(|beginning| name.starts_with(beginning)) || INTERPRETERS.contains(&name) {
        "is not allowed: it changes what the program loads; where it is needed, set it for the worker and name it in \
         `worker.command.allowed_environment`"
    } else {
        return Ok(());
    };
    Err(HandlerError::fail(format!("`env` has `{name}`, which {reason}")))
}
