//! Tells when many series of single tasks may have come into being, so that they are collected before the SDK, which
//! holds a limited number of them, has no more room.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Counts the measurements that carry a correlation id; cheap to clone.
#[derive(Clone)]
pub struct Pressure(Arc<Inner>);

struct Inner {
    measured: AtomicUsize,
    limit: usize,
    relieve: Box<dyn Fn() + Send + Sync>,
}

impl Pressure {
    /// Calls `relieve`, which must not block, after every `limit` measurements.
    pub fn new(limit: usize, relieve: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { measured: AtomicUsize::new(0), limit: limit.max(1), relieve: Box::new(relieve) }))
    }

    pub(super) fn measured(&self) {
        if (self.0.measured.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(self.0.limit) {
            (self.0.relieve)();
        }
    }
}

impl fmt::Debug for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pressure").field("limit", &self.0.limit).finish_non_exhaustive()
    }
}
