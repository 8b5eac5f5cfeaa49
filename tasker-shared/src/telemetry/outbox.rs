//! What waits to be exported: spans and log records, bounded, never blocking who writes them.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;

/// A bounded buffer of things that have a weight. What does not fit is dropped and counted.
#[derive(Debug)]
pub(super) struct Outbox<T> {
    waiting: Mutex<Waiting<T>>,
    bound: usize,
    wake_at: usize,
    closed: AtomicBool,
    dropped: AtomicU64,
    filled: Notify,
}

#[derive(Debug)]
struct Waiting<T> {
    items: VecDeque<(T, usize)>,
    weight: usize,
}

impl<T> Outbox<T> {
    /// A buffer for a weight of `bound` that wakes its reader when `wake_at` is reached.
    pub(super) fn new(bound: usize, wake_at: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::new(Waiting { items: VecDeque::new(), weight: 0 }),
            bound,
            wake_at,
            closed: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            filled: Notify::new(),
        })
    }

    /// Adds one item, or drops it if the buffer is full or closed.
    pub(super) fn put(&self, item: T, weight: usize) {
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = waiting.weight;
        if before + weight > self.bound {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.items.push_back((item, weight));
        waiting.weight += weight;
        if before < self.wake_at && waiting.weight >= self.wake_at {
            self.filled.notify_one();
        }
    }

    /// Takes items of up to `limit` in weight, the oldest first; a single one may weigh more.
    pub(super) fn take(&self, limit: usize) -> Vec<T> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, mut sum) = (Vec::new(), 0);
        while let Some((_, weight)) = waiting.items.front() {
            if sum > 0 && sum + weight > limit {
                break;
            }
            sum += weight;
            taken.extend(waiting.items.pop_front().map(|(item, _)| item));
        }
        waiting.weight -= sum;
        taken
    }

    /// Completes when enough waits.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// How many items were dropped since the last call.
    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Drops what comes from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Outbox;

    #[test]
    fn a_full_outbox_drops_and_counts() {
        let outbox = Outbox::new(20, 10);
        (0..5).for_each(|n| outbox.put(n, 10));
        assert_eq!((outbox.take_dropped(), outbox.take(10), outbox.take(90)), (3, vec![0], vec![1]));
        assert_eq!(outbox.take_dropped(), 0);
    }

    #[test]
    fn one_item_that_weighs_more_than_the_limit_is_taken_alone() {
        let outbox = Outbox::new(100, 10);
        [1, 50, 1].iter().for_each(|weight| outbox.put(*weight, *weight));
        assert_eq!([outbox.take(10), outbox.take(10), outbox.take(10)], [vec![1], vec![50], vec![1]]);
    }
}
