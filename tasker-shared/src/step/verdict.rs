//! What follows from an outcome: the decision of station *process*.

use super::{Failure, RetryPolicy, StepEvent};
use std::time::Duration;

/// The longest delay that a handler can ask for: 30 days. What it asks beyond that is taken for a mistake.
const LONGEST_ASKED: Duration = Duration::from_secs(30 * 24 * 3600);

/// What becomes of a reported step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done; dependents may go on.
    Complete,
    /// It runs again after this delay.
    Retry(Duration),
    /// The worker lacked its handler: it goes back after this delay, which is no failure of the step.
    Miss(Duration),
    /// It failed for good.
    Fail {
        /// A further attempt might have helped, but none is left.
        exhausted: bool,
    },
}

impl Verdict {
    /// The event that carries the verdict out.
    pub const fn event(self) -> StepEvent {
        match self {
            Self::Complete => StepEvent::Complete,
            Self::Retry(_) | Self::Miss(_) => StepEvent::Retry,
            Self::Fail { .. } => StepEvent::Fail,
        }
    }
}

/// Decides on a report. `failures` counts this one too; `random` is uniform in `0.0..1.0`.
///
/// A delay asked for by the handler wins over a shorter back-off; it counts for 30 days at most. What was not tried runs
/// again whatever the policy says: it used up no attempt.
pub fn verdict(failure: Option<&Failure>, failures: u32, policy: &RetryPolicy, random: f64) -> Verdict {
    let Some(failure) = failure else { return Verdict::Complete };
    let backoff = policy.delay(failures, random);
    let delay = failure.retry_after().map_or(backoff, |asked| asked.min(LONGEST_ASKED).max(backoff));
    if failure.not_tried {
        return Verdict::Retry(delay);
    }
    if !failure.retryable || !policy.retryable {
        return Verdict::Fail { exhausted: false };
    }
    if failures >= policy.max_attempts {
        return Verdict::Fail { exhausted: true };
    }
    Verdict::Retry(delay)
}

/// Decides on a step whose workers have lacked its handler for `since`: it goes back, ever more slowly, until `patience`
/// is over.
pub fn missing(since: Duration, patience: Duration) -> Verdict {
    const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
    if since >= patience { Verdict::Fail { exhausted: false } } else { Verdict::Miss(since.clamp(PAUSE.0, PAUSE.1)) }
}

#[cfg(test)]
mod tests {
    use super::{Verdict, missing, verdict};
    use crate::step::{Failure, FailureKind, RetryPolicy};
    use std::time::Duration;

    const POLICY: RetryPolicy = RetryPolicy {
        retryable: true,
        max_attempts: 3,
        backoff: crate::step::Backoff::Constant,
        backoff_base_ms: 100,
        max_backoff_ms: 1_000,
        jitter: false,
    };

    fn failure(kind: FailureKind) -> Failure {
        Failure::new(kind, "it broke")
    }

    #[test]
    fn success_completes() {
        assert_eq!(verdict(None, 0, &POLICY, 0.0), Verdict::Complete);
    }

    #[test]
    fn a_retryable_failure_is_retried_until_the_last_attempt() {
        let failure = failure(FailureKind::HandlerError);
        assert_eq!(verdict(Some(&failure), 1, &POLICY, 0.0), Verdict::Retry(Duration::from_millis(100)));
        assert_eq!(verdict(Some(&failure), 2, &POLICY, 0.0), Verdict::Retry(Duration::from_millis(100)));
        assert_eq!(verdict(Some(&failure), 3, &POLICY, 0.0), Verdict::Fail { exhausted: true });
    }

    #[test]
    fn a_permanent_failure_is_final_at_once() {
        assert_eq!(
            verdict(Some(&failure(FailureKind::Permanent)), 1, &POLICY, 0.0),
            Verdict::Fail { exhausted: false }
        );
    }

    #[test]
    fn a_step_that_is_not_retryable_fails_at_once() {
        let policy = RetryPolicy { retryable: false, ..POLICY };
        assert_eq!(
            verdict(Some(&failure(FailureKind::HandlerError)), 1, &policy, 0.0),
            Verdict::Fail { exhausted: false }
        );
    }

    #[test]
    fn a_step_without_its_handler_goes_back_ever_more_slowly_until_patience_is_over() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        assert_eq!(missing(Duration::ZERO, minutes(10)), Verdict::Miss(Duration::from_secs(1)));
        assert_eq!(missing(Duration::from_secs(7), minutes(10)), Verdict::Miss(Duration::from_secs(7)));
        assert_eq!(missing(minutes(9), minutes(10)), Verdict::Miss(Duration::from_secs(30)));
        assert_eq!(missing(minutes(10), minutes(10)), Verdict::Fail { exhausted: false });
    }

    #[test]
    fn what_was_not_tried_runs_again_whatever_the_policy_says() {
        let mut failure = failure(FailureKind::HandlerError);
        (failure.not_tried, failure.retry_after_ms) = (true, Some(5_000));
        let never = RetryPolicy { retryable: false, max_attempts: 1, ..POLICY };
        assert_eq!(verdict(Some(&failure), 1, &never, 0.0), Verdict::Retry(Duration::from_secs(5)));
    }

    #[test]
    fn the_longer_of_back_off_and_asked_delay_wins() {
        let mut failure = failure(FailureKind::HandlerError);
        failure.retry_after_ms = Some(5_000);
        assert_eq!(verdict(Some(&failure), 1, &POLICY, 0.0), Verdict::Retry(Duration::from_secs(5)));
        failure.retry_after_ms = Some(u64::MAX);
        assert_eq!(
            verdict(Some(&failure), 1, &POLICY, 0.0),
            Verdict::Retry(Duration::from_secs(30 * 24 * 3600)),
            "PostgreSQL could not store it"
        );
        failure.retry_after_ms = Some(1);
        assert_eq!(verdict(Some(&failure), 1, &POLICY, 0.0), Verdict::Retry(Duration::from_millis(100)));
    }
}
