//! Station *execute*: runs one handler under deadline, cancellation and panic guard, and turns what comes out into an
//! [`Outcome`] that can be stored. Nothing that a handler returns, throws or fails to do gets past here.

use super::{HandlerError, StepContext, StepHandler, bounds};
use futures::FutureExt;
use serde_json::{Value, json};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};
use tasker_shared::step::{Failure, FailureKind, Outcome};
use tokio::time::{Instant, sleep_until, timeout};

/// What a run may take and leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest result, in bytes of JSON.
    pub max_result_bytes: usize,
    /// The longest message and the largest details of a failure, in bytes each.
    pub max_error_bytes: usize,
    /// The time between telling a handler to stop and dropping it.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_result_bytes: 1024 * 1024, max_error_bytes: 8 * 1024, grace: Duration::from_secs(3) }
    }
}

/// Says what is wrong with a result; nothing when it is as the step's `result_schema` wants it.
pub type ResultCheck = dyn Fn(&Value) -> Vec<String> + Send + Sync;

type Ended = Result<Result<Value, HandlerError>, Box<dyn Any + Send>>;

const NO_REASON: &str = "no reason was given";

/// Why a handler was stopped.
enum Stopped {
    AtDeadline,
    Cancelled,
}

/// Runs `handler` once.
///
/// At the deadline, or when the context is cancelled, the handler sees [`StepContext::cancelled`] and has
/// [`Limits::grace`] to clean up; then its future is dropped. A result that comes within the grace counts when the run
/// was cancelled, and does not when its deadline passed. A handler that blocks its thread cannot be stopped.
pub async fn run(
    handler: &dyn StepHandler,
    context: &StepContext,
    limits: &Limits,
    check: Option<&ResultCheck>,
) -> Outcome {
    if context.is_cancelled() {
        let reason = context.cancel_reason().unwrap_or(NO_REASON);
        let message = format!("the run was cancelled before it began: {reason}");
        return failed(Failure::new(FailureKind::Cancelled, message), limits);
    }
    let started = Instant::now();
    let call = async { handler.call(context.clone()).await };
    let mut call = Box::pin(AssertUnwindSafe(context.scope().around(call)).catch_unwind());
    let stopped = tokio::select! {
        biased;
        ended = &mut call => return outcome(ended, limits, check),
        () = context.cancelled() => Stopped::Cancelled,
        () = sleep_until(context.deadline()) => Stopped::AtDeadline,
    };
    let ran = started.elapsed();
    if let Stopped::AtDeadline = stopped {
        context.cancel("the deadline passed");
    }
    let ended = timeout(limits.grace, &mut call).await.ok();
    // What a handler does when it is dropped is its own code too, and may panic.
    let dropped = catch_unwind(AssertUnwindSafe(move || drop(call)));
    match (stopped, ended) {
        (Stopped::Cancelled, Some(Ok(Ok(result)))) => outcome(Ok(Ok(result)), limits, check),
        (stopped, ended) => failed(stop_failure(&stopped, context, ran, ended.or(dropped.err().map(Err))), limits),
    }
}

fn outcome(ended: Ended, limits: &Limits, check: Option<&ResultCheck>) -> Outcome {
    match ended {
        Ok(Ok(result)) => match accept(&result, limits, check) {
            Ok(()) => Outcome::Success(result),
            Err(failure) => failed(failure, limits),
        },
        Ok(Err(error)) => failed(error.into(), limits),
        Err(panic) => {
            let message = format!("the handler panicked: {}", panic_message(panic.as_ref()));
            failed(Failure::new(FailureKind::Panic, message), limits)
        }
    }
}

fn accept(result: &Value, limits: &Limits, check: Option<&ResultCheck>) -> Result<(), Failure> {
    bounds::storable(result).map_err(|reason| Failure::new(FailureKind::ResultInvalid, reason))?;
    let bytes = bounds::json_bytes(result);
    if bytes > limits.max_result_bytes {
        let message = format!(
            "the result has {bytes} bytes, at most {} are allowed; keep large data elsewhere and return where it is",
            limits.max_result_bytes
        );
        let mut failure = Failure::new(FailureKind::ResultTooLarge, message);
        failure.details = Some(json!({"bytes": bytes, "max_bytes": limits.max_result_bytes}));
        return Err(failure);
    }
    let violations = check.map(|check| check(result)).unwrap_or_default();
    if violations.is_empty() { Ok(()) } else { Err(breaks_schema(&violations)) }
}

fn breaks_schema(violations: &[String]) -> Failure {
    const SHOWN: usize = 10;
    let mut message =
        format!("the result breaks `result_schema`: {}", violations[..violations.len().min(SHOWN)].join("; "));
    if violations.len() > SHOWN {
        message.push_str(&format!("; and {} more", violations.len() - SHOWN));
    }
    let mut failure = Failure::new(FailureKind::ResultInvalid, message);
    failure.details = Some(json!({"violations": violations.iter().take(SHOWN).collect::<Vec<_>>()}));
    failure
}

/// The failure of a handler that was stopped, with what it said on its way out.
fn stop_failure(stopped: &Stopped, context: &StepContext, ran: Duration, ended: Option<Ended>) -> Failure {
    let (kind, mut message) = match stopped {
        Stopped::AtDeadline => {
            (FailureKind::Timeout, format!("the handler was still running at its deadline, after {}", seconds(ran)))
        }
        Stopped::Cancelled => {
            let reason = context.cancel_reason().unwrap_or(NO_REASON);
            (FailureKind::Cancelled, format!("the run was cancelled after {}: {reason}", seconds(ran)))
        }
    };
    let mut details = None;
    match ended {
        Some(Ok(Ok(_))) => message.push_str("; its result came too late"),
        Some(Ok(Err(error))) => {
            message.push_str(&format!("; it ended with: {error}"));
            details = error.details().cloned();
        }
        Some(Err(panic)) => message.push_str(&format!("; it panicked: {}", panic_message(panic.as_ref()))),
        None => message.push_str("; it did not stop when told to and was dropped"),
    }
    let mut failure = Failure::new(kind, message);
    failure.details = details;
    failure
}

fn failed(mut failure: Failure, limits: &Limits) -> Outcome {
    failure.message = bounds::shortened(&failure.message, limits.max_error_bytes);
    failure.details = failure.details.map(|details| bounds::shortened_details(details, limits.max_error_bytes));
    Outcome::Failure(failure)
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::{Limits, ResultCheck, run};
    use crate::handler::{HandlerError, StepContext, StepHandler, handler_fn};
    use serde_json::{Value, json};
    use std::{future::pending, time::Duration};
    use tasker_shared::step::{Failure, FailureKind, Outcome};

    const LIMITS: Limits = Limits { max_result_bytes: 1_000, max_error_bytes: 200, grace: Duration::from_millis(50) };

    async fn failure(handler: impl StepHandler, context: &StepContext) -> Failure {
        match run(&handler, context, &LIMITS, None).await {
            Outcome::Failure(failure) => failure,
            Outcome::Success(result) => panic!("it succeeded with {result}"),
        }
    }

    fn context() -> StepContext {
        StepContext::for_test(json!({})).with_timeout(Duration::from_millis(20))
    }

    fn returning(result: Value) -> impl StepHandler {
        handler_fn(move |_: StepContext| {
            let result = result.clone();
            async move { Ok::<_, HandlerError>(result) }
        })
    }

    #[tokio::test]
    async fn a_result_is_a_success() {
        let outcome = run(&returning(json!([1])), &context(), &LIMITS, None).await;
        assert_eq!(outcome, Outcome::Success(json!([1])));
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_with_its_message() {
        let handler = handler_fn(|_: StepContext| async { Err::<(), _>(HandlerError::fail(boom())) });
        let failure = failure(handler, &context()).await;
        assert_eq!((failure.kind, failure.retryable), (FailureKind::Panic, true));
        assert_eq!(failure.message, "the handler panicked: boom 7");
    }

    fn boom() -> String {
        panic!("boom {}", 7)
    }

    #[tokio::test]
    async fn a_handler_that_hangs_is_dropped_after_deadline_and_grace() {
        let dropped = tokio_util::sync::CancellationToken::new();
        let when_dropped = dropped.clone();
        let handler = handler_fn(move |_: StepContext| {
            let guard = when_dropped.clone().drop_guard();
            async move {
                let _guard = guard;
                pending::<Result<(), HandlerError>>().await
            }
        });
        let context = context();
        let failure = failure(handler, &context).await;
        assert_eq!(failure.kind, FailureKind::Timeout);
        assert!(failure.message.starts_with("the handler was still running at its deadline, after 0.0"), "{failure:?}");
        assert!(failure.message.ends_with("it did not stop when told to and was dropped"), "{failure:?}");
        assert!(context.is_cancelled());
        assert!(dropped.is_cancelled(), "nothing of the handler is left");
    }

    #[tokio::test]
    async fn a_handler_that_stops_when_told_can_say_why_and_keeps_its_details() {
        let handler = handler_fn(|context: StepContext| async move {
            context.cancelled().await;
            Err::<(), _>(HandlerError::retry("stopped at page 4").with_details(json!({"page": 4})))
        });
        let failure = failure(handler, &context()).await;
        assert_eq!(failure.kind, FailureKind::Timeout);
        assert!(failure.message.ends_with("; it ended with: stopped at page 4"), "{failure:?}");
        assert_eq!(failure.details, Some(json!({"page": 4})));
    }

    #[tokio::test]
    async fn a_result_after_the_deadline_does_not_count_and_one_after_cancellation_does() {
        let late = || {
            handler_fn(|context: StepContext| async move {
                context.cancelled().await;
                Ok::<_, HandlerError>("done")
            })
        };
        assert!(failure(late(), &context()).await.message.ends_with("; its result came too late"));
        let cancelled = context().with_timeout(Duration::from_secs(60));
        let late = late();
        let (outcome, ()) =
            tokio::join!(run(&late, &cancelled, &LIMITS, None), async { cancelled.cancel("the worker stops") });
        assert_eq!(outcome, Outcome::Success(json!("done")));
    }

    #[tokio::test]
    async fn a_cancelled_run_names_the_reason() {
        let context = context().with_timeout(Duration::from_secs(60));
        let handler = handler_fn(|_: StepContext| pending::<Result<(), HandlerError>>());
        let (failure, ()) = tokio::join!(failure(handler, &context), async {
            context.cancel("an operator cancelled the task");
        });
        assert_eq!(failure.kind, FailureKind::Cancelled);
        assert!(failure.message.contains(": an operator cancelled the task; it did not stop"), "{failure:?}");
    }

    #[tokio::test]
    async fn a_run_that_was_cancelled_before_it_began_never_begins() {
        let context = context();
        context.cancel("the lease is lost");
        let handler = handler_fn(|_: StepContext| async { Err::<(), _>(HandlerError::fail(boom())) });
        let failure = failure(handler, &context).await;
        assert_eq!(failure.message, "the run was cancelled before it began: the lease is lost");
    }

    #[tokio::test]
    async fn a_panic_while_being_dropped_is_caught() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped badly");
            }
        }
        let handler = handler_fn(|_: StepContext| async {
            let _bomb = Bomb;
            pending::<Result<(), HandlerError>>().await
        });
        let failure = failure(handler, &context().with_timeout(Duration::ZERO)).await;
        assert_eq!(failure.kind, FailureKind::Timeout);
        assert!(failure.message.ends_with("it panicked: dropped badly"), "{failure:?}");
    }

    #[tokio::test]
    async fn a_large_result_is_refused_with_both_sizes() {
        let failure = failure(returning(json!("x".repeat(5_000))), &context()).await;
        assert_eq!((failure.kind, failure.retryable), (FailureKind::ResultTooLarge, false));
        assert!(failure.message.starts_with("the result has 5002 bytes, at most 1000 are allowed"), "{failure:?}");
        assert_eq!(failure.details, Some(json!({"bytes": 5002, "max_bytes": 1000})));
    }

    #[tokio::test]
    async fn a_result_that_cannot_be_stored_is_refused_with_the_place() {
        let nul = failure(returning(json!({"rows": [{"name": "a\0b"}]})), &context()).await;
        assert_eq!(nul.kind, FailureKind::ResultInvalid);
        assert!(nul.message.contains("at $.rows[0].name"), "{nul:?}");
        let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
        assert!(failure(returning(deep), &context()).await.message.contains("levels"));
    }

    #[tokio::test]
    async fn a_result_that_breaks_its_schema_is_refused_with_the_violations() {
        let check: &ResultCheck = &|value| if value.is_u64() { vec![] } else { vec!["$: not a number".to_owned()] };
        let refused = run(&returning(json!("x")), &context(), &LIMITS, Some(check)).await;
        let Outcome::Failure(failure) = refused else { panic!("it was accepted") };
        assert_eq!(failure.kind, FailureKind::ResultInvalid);
        assert_eq!(failure.message, "the result breaks `result_schema`: $: not a number");
        assert_eq!(run(&returning(json!(3)), &context(), &LIMITS, Some(check)).await, Outcome::Success(json!(3)));
    }

    #[tokio::test]
    async fn endless_errors_are_shortened() {
        let handler = handler_fn(|_: StepContext| async {
            let details = json!({"log": "y".repeat(9_000), "nul\0": "a\0"});
            Err::<(), _>(HandlerError::fail(format!("ü\0{}", "x".repeat(9_000))).with_details(details))
        });
        let failure = failure(handler, &context()).await;
        assert!(failure.message.len() < 300 && failure.message.ends_with("… (9003 bytes, shortened)"), "{failure:?}");
        let stored = serde_json::to_string(&failure).expect("it is JSON");
        assert!(stored.len() < 900 && !stored.contains("\\u0000"), "{stored}");
    }
}
