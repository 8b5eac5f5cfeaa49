//! The handlers that every worker has, and the smallest of them: `noop`, `echo` and `sleep`.

use super::{
    Duplicate, HandlerError, Registry, StepContext, StepHandler,
    command::{CommandHandler, CommandSettings},
    http::{HttpHandler, HttpSettings},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

impl Registry {
    /// A registry with the built-in handlers: `noop`, `echo`, `sleep`, `http` and `command`.
    ///
    /// # Errors
    /// Never in practice: the names differ.
    pub fn with_builtin(http: HttpSettings, command: CommandSettings) -> Result<Self, Duplicate> {
        let mut registry = Self::new();
        registry.register("noop", Noop)?;
        registry.register("echo", Echo)?;
        registry.register("sleep", Sleep)?;
        registry.register("http", HttpHandler::new(http))?;
        registry.register("command", CommandHandler::new(command))?;
        Ok(registry)
    }
}

/// Does nothing and returns `{}`. `initialization` may hold anything.
pub struct Noop;

#[async_trait::async_trait]
impl StepHandler for Noop {
    async fn call(&self, _context: StepContext) -> Result<Value, HandlerError> {
        Ok(json!({}))
    }
}

/// Returns `{"input": …, "parents": …}`: shows what a step at this place of a template is given.
pub struct Echo;

#[async_trait::async_trait]
impl StepHandler for Echo {
    async fn call(&self, context: StepContext) -> Result<Value, HandlerError> {
        Ok(json!({"input": *context.input, "parents": *context.parents}))
    }
}

/// Waits for `seconds`, then returns `{"slept_seconds": …}`. Ends early when the run is stopped.
pub struct Sleep;

#[derive(Deserialize)]
struct SleepFor {
    seconds: f64,
}

#[async_trait::async_trait]
impl StepHandler for Sleep {
    async fn call(&self, context: StepContext) -> Result<Value, HandlerError> {
        let SleepFor { seconds } = context.initialization_as()?;
        let pause = Duration::try_from_secs_f64(seconds)
            .map_err(|error| HandlerError::fail(format!("`seconds` is {seconds}: {error}")))?;
        if !pause.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = context.cancelled() => return Err(HandlerError::retry("the sleep was ended early")),
            }
        }
        Ok(json!({"slept_seconds": seconds}))
    }
}

#[cfg(test)]
mod tests {
    use super::{Echo, Noop, Registry, Sleep};
    use crate::handler::{Limits, StepContext, StepHandler, command::CommandSettings, http::HttpSettings, run};
    use serde_json::json;
    use std::time::Duration;
    use tasker_shared::step::{FailureKind, Outcome};

    #[test]
    fn every_worker_has_the_built_in_handlers() {
        let registry =
            Registry::with_builtin(HttpSettings::default(), CommandSettings::default()).expect("names differ");
        assert_eq!(registry.names().collect::<Vec<_>>(), ["command", "echo", "http", "noop", "sleep"]);
    }

    #[tokio::test]
    async fn noop_and_echo_answer_at_once() {
        let context = StepContext::for_test(json!({"a": 1})).with_parent("p", json!(2));
        assert_eq!(Noop.call(context.clone()).await.expect("it does nothing"), json!({}));
        assert_eq!(Echo.call(context).await.expect("it echoes"), json!({"input": {"a": 1}, "parents": {"p": 2}}));
    }

    #[tokio::test]
    async fn sleep_ends_after_its_time() {
        let context = StepContext::for_test(json!({})).with_initialization(json!({"seconds": 0.01}));
        assert_eq!(Sleep.call(context).await.expect("it sleeps"), json!({"slept_seconds": 0.01}));
    }

    #[tokio::test]
    async fn sleep_stops_when_told() {
        let context = StepContext::for_test(json!({})).with_initialization(json!({"seconds": 3600}));
        let context = context.with_timeout(Duration::from_millis(10));
        let Outcome::Failure(failure) = run(&Sleep, &context, &Limits::default(), None).await else {
            panic!("it slept for an hour")
        };
        assert_eq!(failure.kind, FailureKind::Timeout);
        assert!(failure.message.ends_with("it ended with: the sleep was ended early"), "{failure:?}");
    }

    #[tokio::test]
    async fn sleep_refuses_a_time_that_is_none() {
        for (initialization, reason) in [
            (json!({}), "missing field `seconds`"),
            (json!({"seconds": "1"}), "at `seconds`"),
            (json!({"seconds": -1}), "`seconds` is -1"),
            (json!({"seconds": 1e300}), "`seconds` is 1"),
        ] {
            let context = StepContext::for_test(json!({})).with_initialization(initialization);
            let error = Sleep.call(context).await.expect_err("it is no time");
            assert!(!error.is_retryable() && error.message().contains(reason), "{error}");
        }
    }
}
