//! Token buckets. Pure: time is an argument, counted from any fixed moment.

use std::{collections::HashMap, hash::Hash, time::Duration};

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::web) struct Rate {
    /// Tokens for each second; above zero.
    pub(in crate::web) per_second: f64,
    /// The most tokens; at least 1.
    pub(in crate::web) burst: u32,
}

/// What a request was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decision {
    /// Whether there was a token for it.
    pub(super) allowed: bool,
    /// The tokens that are left.
    pub(super) remaining: u32,
    /// Until the bucket is full.
    pub(super) reset: Duration,
    /// Until there is a token; zero when there is one.
    pub(super) retry_after: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

/// A bucket for each key, for a bounded number of them.
///
/// There are two generations: a key that is used moves to the young one, and when that is full the old one is
/// forgotten. So what was used least is forgotten first, without looking through all. A forgotten key begins anew with
/// a full bucket.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    rate: Rate,
    generation: usize,
    young: HashMap<K, Bucket>,
    old: HashMap<K, Bucket>,
}

impl<K: Hash + Eq> Buckets<K> {
    pub(super) fn new(rate: Rate, most_keys: usize) -> Self {
        Self { rate, generation: (most_keys / 2).max(1), young: HashMap::new(), old: HashMap::new() }
    }

    /// Takes a token of this key's bucket, if there is one.
    pub(super) fn take(&mut self, key: K, now: Duration) -> Decision {
        let known = self.young.get(&key).copied().or_else(|| self.old.remove(&key));
        let burst = f64::from(self.rate.burst.max(1));
        let mut bucket = known.unwrap_or(Bucket { tokens: burst, at: now });
        let passed = now.saturating_sub(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * self.rate.per_second).min(burst);
        bucket.at = bucket.at.max(now);
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        if !self.young.contains_key(&key) && self.young.len() >= self.generation {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, bucket);
        let seconds = |tokens: f64| {
            Duration::try_from_secs_f64((tokens / self.rate.per_second).max(0.0)).unwrap_or(Duration::MAX)
        };
        Decision {
            allowed,
            // a whole number from 0 to the burst
            remaining: bucket.tokens as u32,
            reset: seconds(burst - bucket.tokens),
            retry_after: if allowed { Duration::ZERO } else { seconds(1.0 - bucket.tokens) },
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::{Buckets, Rate};
    use std::time::Duration;

    const RATE: Rate = Rate { per_second: 2.0, burst: 3 };

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_burst_passes_and_then_as_many_as_the_rate_allows() {
        let mut buckets = Buckets::new(RATE, 10);
        let left: Vec<_> = (0..3).map(|_| buckets.take("a", at(0))).map(|d| (d.allowed, d.remaining)).collect();
        assert_eq!(left, [(true, 2), (true, 1), (true, 0)]);
        let refused = buckets.take("a", at(0));
        assert!(!refused.allowed && refused.retry_after == at(500) && refused.reset == at(1500), "{refused:?}");
        assert!(!buckets.take("a", at(499)).allowed);
        assert!(buckets.take("a", at(500)).allowed);
        let allowed = (0..1_000).filter(|n| buckets.take("a", at(500 + n * 10)).allowed).count();
        assert!((19..=20).contains(&allowed), "{allowed} in 10 s at 2 a second");
    }

    #[test]
    fn each_key_has_a_bucket_of_its_own_and_a_clock_that_stands_still_gives_nothing() {
        let mut buckets = Buckets::new(RATE, 10);
        assert_eq!((0..10).filter(|_| buckets.take("a", at(0)).allowed).count(), 3);
        assert!(!buckets.take("a", at(0)).allowed && buckets.take("b", at(0)).allowed);
    }

    #[test]
    fn the_keys_are_bounded_and_what_is_used_is_kept() {
        let mut buckets = Buckets::new(Rate { per_second: 0.001, burst: 1 }, 100);
        assert!(buckets.take(0, at(0)).allowed);
        for key in 1..10_000 {
            buckets.take(key, at(0));
            assert!(buckets.len() <= 101, "{}", buckets.len());
            if key % 40 == 0 {
                assert!(!buckets.take(0, at(0)).allowed, "it is remembered");
            }
        }
    }
}
