//! How a handler says that it failed, and whether another attempt may help.

use serde_json::Value;
use std::{error::Error, fmt, time::Duration};
use tasker_shared::step::{Failure, FailureKind};

/// A handler's failure. It carries the decision: [`retry`](Self::retry) or [`fail`](Self::fail).
///
/// The `?` operator turns any error into one that is tried again.
///
/// ```
/// # use {std::time::Duration, tasker_worker::handler::HandlerError, serde_json::json};
/// HandlerError::retry("the bank is busy").after(Duration::from_secs(30));
/// HandlerError::fail("the card is stolen").with_details(json!({"code": 43}));
/// ```
pub struct HandlerError {
    kind: FailureKind,
    message: String,
    retryable: bool,
    after: Option<Duration>,
    details: Option<Value>,
    not_tried: bool,
    blames_host: bool,
}

impl HandlerError {
    /// This may work another time. Takes a text or any error; the error's causes are part of the message.
    pub fn retry(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(FailureKind::HandlerError, reason.into().as_ref())
    }

    /// This will never work: the step fails without another attempt.
    pub fn fail(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(FailureKind::Permanent, reason.into().as_ref())
    }

    fn new(kind: FailureKind, reason: &(dyn Error + 'static)) -> Self {
        Self {
            kind,
            message: with_causes(reason),
            retryable: kind.is_retryable(),
            after: None,
            details: None,
            not_tried: false,
            blames_host: false,
        }
    }

    /// Asks for at least this delay before the next attempt. A longer back-off of the step wins.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = Some(delay);
        self
    }

    /// Keeps `details` with the failure, for people and programs: a status code, the end of an error output.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// The output is larger than is allowed: final, and counted as such.
    pub(crate) fn too_large(message: String) -> Self {
        Self { message, kind: FailureKind::ResultTooLarge, retryable: false, ..Self::retry("") }
    }

    /// Nothing was tried yet, and nothing may be for the time of [`after`](Self::after): this does not count as an attempt.
    pub(crate) fn not_tried(message: String) -> Self {
        Self { not_tried: true, ..Self::retry(message) }
    }

    /// The host that was called is to blame, not the call.
    pub(crate) fn of_host(mut self) -> Self {
        self.blames_host = true;
        self
    }

    /// Whether the host that was called is to blame.
    pub(crate) fn blames_host(&self) -> bool {
        self.blames_host
    }

    /// What happened.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether another attempt may help.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// The delay that was asked for.
    pub fn asked_delay(&self) -> Option<Duration> {
        self.after
    }

    /// What is kept with the failure.
    pub fn details(&self) -> Option<&Value> {
        self.details.as_ref()
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

impl From<HandlerError> for Failure {
    fn from(error: HandlerError) -> Self {
        let retry_after_ms = error.after.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        Self {
            kind: error.kind,
            message: error.message,
            retryable: error.retryable,
            retry_after_ms,
            not_tried: error.not_tried,
            details: error.details,
        }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.message)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError")
            .field("kind", &self.kind.as_str())
            .field("message", &self.message)
            .field("after", &self.after)
            .field("details", &self.details)
            .finish()
    }
}

/// `error: its cause: the cause of that`, without repeating a cause that its error already spells out.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::HandlerError;
    use serde_json::json;
    use std::time::Duration;
    use tasker_shared::step::{Failure, FailureKind};

    #[derive(Debug, thiserror::Error)]
    #[error("the order could not be read")]
    struct Unreadable(#[source] std::num::ParseIntError);

    fn unreadable() -> Result<(), HandlerError> {
        "x".parse::<u32>().map_err(Unreadable)?;
        Ok(())
    }

    #[test]
    fn an_error_that_is_passed_on_is_retried_and_tells_its_causes() {
        let error = unreadable().expect_err("it is unreadable");
        assert!(error.is_retryable());
        assert_eq!(error.message(), "the order could not be read: invalid digit found in string");
    }

    #[test]
    fn a_failure_keeps_decision_delay_and_details() {
        let error =
            HandlerError::retry("busy").after(Duration::from_millis(1_500)).with_details(json!({"status": 503}));
        let failure = Failure::from(error);
        assert_eq!(failure.kind, FailureKind::HandlerError);
        assert!(failure.retryable);
        assert_eq!(failure.retry_after_ms, Some(1_500));
        assert_eq!(failure.details, Some(json!({"status": 503})));
    }

    #[test]
    fn a_permanent_failure_is_not_retried() {
        let failure = Failure::from(HandlerError::fail(anyhow::anyhow!("root").context("top")));
        assert_eq!(failure.kind, FailureKind::Permanent);
        assert!(!failure.retryable);
        assert_eq!(failure.message, "top: root");
    }
}
