//! What waits to be exported: spans and log records, bounded, never blocking who writes them.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::sync::Notify;

/// A bounded buffer. What does not fit is dropped and counted.
#[derive(Debug)]
pub(super) struct Outbox<T> {
    waiting: Mutex<Vec<T>>,
    bound: usize,
    wake_at: usize,
    closed: AtomicBool,
    dropped: AtomicU64,
    filled: Notify,
}

impl<T> Outbox<T> {
    /// A buffer for `bound` items that wakes its reader when `wake_at` are there.
    pub(super) fn new(bound: usize, wake_at: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            bound,
            wake_at,
            closed: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            filled: Notify::new(),
        })
    }

    /// Adds one item, or drops it if the buffer is full or closed.
    pub(super) fn put(&self, item: T) {
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= self.bound {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push(item);
        if waiting.len() == self.wake_at {
            self.filled.notify_one();
        }
    }

    /// Takes up to `limit` items, the oldest first.
    pub(super) fn take(&self, limit: usize) -> Vec<T> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() <= limit {
            return std::mem::take(&mut *waiting);
        }
        let rest = waiting.split_off(limit);
        std::mem::replace(&mut *waiting, rest)
    }

    /// Completes when enough items wait.
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
        let outbox = Outbox::new(2, 1);
        (0..5).for_each(|n| outbox.put(n));
        assert_eq!((outbox.take_dropped(), outbox.take(1), outbox.take(9)), (3, vec![0], vec![1]));
        assert_eq!(outbox.take_dropped(), 0);
    }
}
