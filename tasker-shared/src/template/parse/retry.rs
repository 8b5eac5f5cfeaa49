//! The `retry` mapping of a step or of an environment's override.

use super::LONGEST;
use crate::{
    step::{Backoff, RetryPolicy},
    template::{model::RetryOverride, problem::Problems, read::At},
};

/// The most attempts a step may have.
const MOST_ATTEMPTS: u64 = 1_000;

const KEYS: &[&str] = &["retryable", "max_attempts", "limit", "backoff", "backoff_base_ms", "max_backoff_ms", "jitter"];

/// The keys that are given.
pub(super) fn read(at: &At<'_>, problems: &mut Problems) -> Option<RetryOverride> {
    let fields = at.fields(KEYS, problems)?;
    let before = problems.count();
    let milliseconds = 0..=LONGEST.as_millis() as u64;
    let words: Vec<_> = Backoff::ALL.iter().map(|backoff| (backoff.as_str(), *backoff)).collect();
    let attempts = fields.either("max_attempts", "limit", problems);
    let read = RetryOverride {
        retryable: fields.get("retryable").and_then(|at| at.boolean(problems)),
        max_attempts: attempts
            .and_then(|at| at.integer(&(1..=MOST_ATTEMPTS), problems))
            .and_then(|n| n.try_into().ok()),
        backoff: fields.get("backoff").and_then(|at| at.one_of(&words, problems)),
        backoff_base_ms: fields.get("backoff_base_ms").and_then(|at| at.integer(&milliseconds, problems)),
        max_backoff_ms: fields.get("max_backoff_ms").and_then(|at| at.integer(&milliseconds, problems)),
        jitter: fields.get("jitter").and_then(|at| at.boolean(problems)),
    };
    (problems.count() == before).then_some(read)
}

/// Checks the numbers of `policy` against each other; the place is that of the mapping that led to it.
pub(super) fn check(at: &At<'_>, policy: &RetryPolicy, problems: &mut Problems) {
    let RetryPolicy { backoff_base_ms: base, max_backoff_ms: longest, .. } = policy;
    if base > longest {
        let reason = format!("backoff_base_ms ({base}) is larger than max_backoff_ms ({longest})");
        at.problem(problems, reason);
    }
}
