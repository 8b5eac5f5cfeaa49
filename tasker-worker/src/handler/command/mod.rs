//! The built-in handler `command`: runs a program that does the step's work. No shell is involved.
//!
//! `initialization` of the step:
//!
//! | key | meaning |
//! |---|---|
//! | `argv` | the program and its arguments; the program must be allowed by the worker's settings |
//! | `cwd` | the working directory, an absolute path; the worker's own unless given |
//! | `env` | further environment variables, name to text; the worker's settings must allow them |
//! | `output` | `json` (standard output is the result; the default) or `text` (the result is `{"stdout": …}`) |
//! | `permanent_exit_codes` | exit codes that fail the step for good |
//! | `retryable_exit_codes` | where given, only these codes and 75 are tried again; otherwise every code but 0 is |
//!
//! Texts have placeholders such as `{{ input.file }}`. The program reads the step as one JSON document from its
//! standard input. Its environment has the worker's variables that the settings let pass, `TRACEPARENT`,
//! `TASKER_TASK_ID`, `TASKER_STEP_ID`, `TASKER_CORRELATION_ID`, `TASKER_ATTEMPT` and `TASKER_IDEMPOTENCY_KEY`.
//!
//! The program leads a process group of its own. The group is told to end (SIGTERM) at the deadline or when the run is
//! cancelled, and killed shortly after; what the program leaves running when it ends is killed too. A process that
//! leaves the group on purpose is out of reach, and so is the whole group when the worker itself is killed.

mod environment;
mod process;
mod program;
mod reap;
#[cfg(test)]
mod tests;

use super::{
    HandlerError, HandlerType, StepContext, StepHandler,
    document::{Document, Placeholders},
};
use process::{End, Limits, Ran};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, process::ExitStatus, time::Duration};

/// The exit code by which a program says that it may work another time (`EX_TEMPFAIL` of `sysexits.h`).
const TRY_AGAIN: i32 = 75;

/// What the `command` handler may do on this worker.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommandSettings {
    /// Whether it does anything at all.
    pub enabled: bool,
    /// The programs that may run: absolute paths, names that are looked up in the worker's `PATH`, or `*` for all.
    pub allowed_programs: Vec<String>,
    /// The worker's environment variables that programs see.
    pub allowed_environment: Vec<String>,
    /// The variables that a step's own `env` may set; `X_*` is every one that begins with `X_`, and `*` is all.
    pub allowed_step_environment: Vec<String>,
    /// The largest standard output, in bytes; a program that writes more is killed.
    pub max_output_bytes: usize,
    /// The time between SIGTERM and SIGKILL, in milliseconds; keep it below the worker's own grace.
    pub kill_grace_ms: u64,
}

impl Default for CommandSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            allowed_programs: Vec::new(),
            allowed_environment: ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"].map(str::to_owned).to_vec(),
            allowed_step_environment: Vec::new(),
            max_output_bytes: 1024 * 1024,
            kill_grace_ms: 2_000,
        }
    }
}

/// The built-in handler `command`.
pub struct CommandHandler {
    settings: CommandSettings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Initialization {
    argv: Vec<String>,
    cwd: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    output: Output,
    #[serde(default)]
    permanent_exit_codes: Vec<i32>,
    retryable_exit_codes: Option<Vec<i32>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Output {
    #[default]
    Json,
    Text,
}

impl CommandHandler {
    /// A handler that runs what `settings` allow.
    pub fn new(settings: CommandSettings) -> Self {
        Self { settings }
    }

    fn command(
        &self,
        context: &StepContext,
        initialization: &Initialization,
    ) -> Result<std::process::Command, HandlerError> {
        let placeholders = Placeholders::of(context);
        let fill = |(n, text): (usize, &String)| placeholders.text(&format!("argv[{n}]"), text);
        let argv = initialization.argv.iter().enumerate().map(fill).collect::<Result<Vec<_>, _>>()?;
        let Some((program, arguments)) = argv.split_first() else {
            return Err(HandlerError::fail("`argv` is empty; its first text is the program to run"));
        };
        let program = program::resolve(program, &self.settings.allowed_programs)?;
        let mut command = std::process::Command::new(program);
        command.args(arguments);
        if let Some(cwd) = &initialization.cwd {
            command.current_dir(directory(placeholders.text("cwd", cwd)?)?);
        }
        environment::set(&mut command, context, &self.settings, &initialization.env, &placeholders)?;
        Ok(command)
    }
}

#[async_trait::async_trait]
impl StepHandler for CommandHandler {
    async fn call(&self, context: StepContext) -> Result<Value, HandlerError> {
        if !self.settings.enabled {
            return Err(HandlerError::fail(
                "the `command` handler is off on this worker: set `worker.command.enabled` and name the programs it may \
                 run in `worker.command.allowed_programs`",
            ));
        }
        let initialization: Initialization = context.initialization_as()?;
        let command = self.command(&context, &initialization)?;
        let stdin = serde_json::to_vec(&Document::of(&context)).map_err(HandlerError::fail)?;
        let limits = Limits {
            max_output_bytes: self.settings.max_output_bytes,
            kill_grace: Duration::from_millis(self.settings.kill_grace_ms),
        };
        let ran = process::run(command, stdin, limits, context.cancellation()).await.map_err(|e| not_started(&e))?;
        context.record_usage(ran.usage);
        initialization.judge(ran, &limits)
    }

    fn kind(&self) -> HandlerType {
        HandlerType::Command
    }
}

impl Initialization {
    /// What the end of the program means for the step.
    fn judge(&self, ran: Ran, limits: &Limits) -> Result<Value, HandlerError> {
        let details = details(&ran);
        let error = match ran.end {
            End::Stopped => HandlerError::retry(format!("the program was stopped ({})", how(ran.status))),
            End::TooMuchOutput => HandlerError::too_large(format!(
                "the program wrote more than {} bytes to its standard output (`worker.command.max_output_bytes`) and was \
                 killed",
                limits.max_output_bytes
            )),
            End::ByItself if ran.status.success() => return self.result(ran, details),
            End::ByItself if self.is_retryable(ran.status) => HandlerError::retry(ended(&ran)),
            End::ByItself => HandlerError::fail(ended(&ran)),
        };
        Err(error.with_details(details))
    }

    fn result(&self, ran: Ran, details: Value) -> Result<Value, HandlerError> {
        let unusable = |reason: String, beginning: &[u8]| {
            let beginning = String::from_utf8_lossy(&beginning[..beginning.len().min(1024)]);
            let mut details = details;
            details["stdout"] = json!(beginning);
            HandlerError::fail(reason).with_details(details)
        };
        match self.output {
            Output::Text => match String::from_utf8(ran.stdout) {
                Ok(stdout) => Ok(json!({"stdout": stdout})),
                Err(error) => Err(unusable("the standard output is not UTF-8".to_owned(), error.as_bytes())),
            },
            Output::Json if ran.stdout.trim_ascii().is_empty() => Ok(Value::Null),
            Output::Json => serde_json::from_slice(&ran.stdout).map_err(|error| {
                let reason = format!("the standard output is not JSON: {error}; `output: text` takes it as it is");
                unusable(reason, &ran.stdout)
            }),
        }
    }

    /// A program that was killed from elsewhere, such as for want of memory, is tried again.
    fn is_retryable(&self, status: ExitStatus) -> bool {
        let Some(code) = status.code() else { return true };
        if self.permanent_exit_codes.contains(&code) {
            return false;
        }
        code == TRY_AGAIN || self.retryable_exit_codes.as_ref().is_none_or(|codes| codes.contains(&code))
    }
}

fn directory(cwd: String) -> Result<String, HandlerError> {
    if cwd.starts_with('/') {
        return Ok(cwd);
    }
    Err(HandlerError::fail(format!("`cwd` is `{cwd}`; it must be an absolute path")))
}

fn not_started(error: &std::io::Error) -> HandlerError {
    let message = format!("the program could not be started: {error}");
    match error.kind() {
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::ArgumentListTooLong => HandlerError::fail(message),
        _ => HandlerError::retry(message),
    }
}

fn ended(ran: &Ran) -> String {
    let said = String::from_utf8_lossy(&ran.stderr);
    match said.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(line) => format!("the program ended with {}: {line}", how(ran.status)),
        None => format!("the program ended with {}", how(ran.status)),
    }
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => {
            let name = nix::sys::signal::Signal::try_from(signal).map_or("unknown", nix::sys::signal::Signal::as_str);
            format!("signal {signal} ({name})")
        }
        (None, None) => status.to_string(),
    }
}

fn details(ran: &Ran) -> Value {
    json!({
        "exit_code": ran.status.code(),
        "stderr": String::from_utf8_lossy(&ran.stderr),
        "memory_bytes": ran.usage.memory_bytes,
        "cpu_seconds": ran.usage.cpu_time.as_secs_f64(),
    })
}
