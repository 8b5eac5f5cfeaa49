//! When a failed step runs again. Pure: attempt and randomness are arguments.

use crate::text_enum;
use serde::{Deserialize, Serialize};
use std::time::Duration;

text_enum! {
    /// How the delay grows with the number of failures `n` (1, 2, 3, …) and the base `b`.
    ///
    /// | back-off | n = 1 | 2 | 3 | 4 | 5 |
    /// |---|---|---|---|---|---|
    /// | none | 0 | 0 | 0 | 0 | 0 |
    /// | constant | b | b | b | b | b |
    /// | linear | b | 2 b | 3 b | 4 b | 5 b |
    /// | exponential | b | 2 b | 4 b | 8 b | 16 b |
    /// | fibonacci | b | b | 2 b | 3 b | 5 b |
    Backoff {
        /// At once.
        None = "none",
        /// Always the base.
        Constant = "constant",
        /// The base times n.
        Linear = "linear",
        /// The base times 2^(n-1).
        Exponential = "exponential",
        /// The base times the n-th Fibonacci number.
        Fibonacci = "fibonacci",
    }
}

/// A step's rule for failures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Whether a failure is tried again at all.
    pub retryable: bool,
    /// The largest number of failures before the step fails for good; at least 1.
    pub max_attempts: u32,
    /// How the delay grows.
    pub backoff: Backoff,
    /// The unit of growth, in milliseconds.
    pub backoff_base_ms: u64,
    /// The longest delay, in milliseconds.
    pub max_backoff_ms: u64,
    /// Takes a random part of the delay, between a half and the whole, so that many failures at once do not return at once.
    pub jitter: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retryable: true,
            max_attempts: 3,
            backoff: Backoff::Exponential,
            backoff_base_ms: 1_000,
            max_backoff_ms: 60_000,
            jitter: true,
        }
    }
}

impl RetryPolicy {
    /// The delay after failure number `failures` (1 is the first). `random` is uniform in `0.0..1.0` and is used with jitter only.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let n = u64::from(failures.max(1));
        let factor = match self.backoff {
            Backoff::None => 0,
            Backoff::Constant => 1,
            Backoff::Linear => n,
            Backoff::Exponential => 1u64.checked_shl(failures.max(1) - 1).unwrap_or(u64::MAX),
            Backoff::Fibonacci => fibonacci(n),
        };
        let whole = self.backoff_base_ms.saturating_mul(factor).min(self.max_backoff_ms);
        let whole = Duration::from_millis(whole);
        if self.jitter { whole.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0) } else { whole }
    }
}

fn fibonacci(n: u64) -> u64 {
    let (mut a, mut b) = (0u64, 1u64);
    // the 94th number is the first that does not fit
    for _ in 0..n.min(94) {
        (a, b) = (b, a.saturating_add(b));
    }
    a
}

#[cfg(test)]
mod tests {
    use super::{Backoff, RetryPolicy};

    fn delays(backoff: Backoff) -> Vec<u128> {
        let policy = RetryPolicy {
            backoff,
            backoff_base_ms: 100,
            max_backoff_ms: 1_000,
            jitter: false,
            ..RetryPolicy::default()
        };
        (1..=6).map(|n| policy.delay(n, 0.3).as_millis()).collect()
    }

    #[test]
    fn delays_grow_as_the_table_says_and_stop_at_the_longest() {
        assert_eq!(delays(Backoff::None), [0, 0, 0, 0, 0, 0]);
        assert_eq!(delays(Backoff::Constant), [100, 100, 100, 100, 100, 100]);
        assert_eq!(delays(Backoff::Linear), [100, 200, 300, 400, 500, 600]);
        assert_eq!(delays(Backoff::Exponential), [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(delays(Backoff::Fibonacci), [100, 100, 200, 300, 500, 800]);
    }

    #[test]
    fn a_huge_number_of_failures_does_not_overflow() {
        let policy = RetryPolicy { jitter: false, ..RetryPolicy::default() };
        for backoff in Backoff::ALL {
            let policy = RetryPolicy { backoff: *backoff, ..policy.clone() };
            assert!(policy.delay(u32::MAX, 0.0).as_millis() <= 60_000);
        }
    }

    #[test]
    fn jitter_keeps_between_half_and_whole() {
        let policy = RetryPolicy { backoff: Backoff::Constant, backoff_base_ms: 1_000, ..RetryPolicy::default() };
        assert_eq!(policy.delay(1, 0.0).as_millis(), 500);
        assert_eq!(policy.delay(1, 1.0).as_millis(), 1_000);
    }
}
