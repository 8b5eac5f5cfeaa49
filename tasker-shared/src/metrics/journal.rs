//! Measurements that belong to single tasks, on their way to the series store.
//!
//! Every task has an id of its own, so an aggregation by labels would make new series all the time. Such a measurement is
//! only noted here, which takes no allocation; it is aggregated later, away from the work.

use super::spec::OVERFLOW_LABEL;
use crate::id::CorrelationId;
use opentelemetry::KeyValue;
use std::{
    cell::Cell,
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Threads note in different places, so that they do not wait for each other.
const SHARDS: usize = 8;
/// The most label sets of one metric, ids aside; what exceeds them is noted under one set.
const MAX_LABEL_SETS: usize = 10_000;

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// The metric's place in the catalogue.
    pub metric: u32,
    /// For [`Journal::labels`].
    pub label_set: u32,
    /// The task's.
    pub id: CorrelationId,
    /// What was added or observed.
    pub value: f64,
}

/// Takes measurements from all threads.
pub struct Journal {
    shards: [Mutex<Vec<Entry>>; SHARDS],
    label_sets: Box<[RwLock<LabelSets>]>,
    noted: AtomicUsize,
    limit: usize,
    relieve: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct LabelSets {
    places: HashMap<Arc<[KeyValue]>, u32>,
    sets: Vec<Arc<[KeyValue]>>,
}

impl Journal {
    /// For so many metrics. `relieve`, which must not block, is called after every `limit` measurements.
    pub fn new(metrics: usize, limit: usize, relieve: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            shards: Default::default(),
            label_sets: (0..metrics).map(|_| RwLock::default()).collect(),
            noted: AtomicUsize::new(0),
            limit: limit.max(1),
            relieve: Box::new(relieve),
        })
    }

    /// Notes one measurement; `labels` are those beside the id.
    pub(super) fn note(&self, metric: u32, labels: &[KeyValue], id: CorrelationId, value: f64) {
        let Some(sets) = self.label_sets.get(metric as usize) else { return };
        let known = sets.read().unwrap_or_else(PoisonError::into_inner).places.get(labels).copied();
        let label_set = known.unwrap_or_else(|| sets.write().unwrap_or_else(PoisonError::into_inner).place(labels));
        let shard = &self.shards[shard()];
        shard.lock().unwrap_or_else(PoisonError::into_inner).push(Entry { metric, label_set, id, value });
        if (self.noted.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(self.limit) {
            (self.relieve)();
        }
    }

    /// Moves everything that was noted to the end of `entries`.
    pub fn take(&self, entries: &mut Vec<Entry>) {
        for shard in &self.shards {
            entries.append(&mut shard.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The labels of a measurement beside its id.
    pub fn labels(&self, entry: &Entry) -> Arc<[KeyValue]> {
        let sets = self.label_sets.get(entry.metric as usize);
        let found = sets.and_then(|sets| {
            let sets = sets.read().unwrap_or_else(PoisonError::into_inner);
            sets.sets.get(entry.label_set as usize).map(Arc::clone)
        });
        found.unwrap_or_default()
    }
}

impl LabelSets {
    fn place(&mut self, labels: &[KeyValue]) -> u32 {
        let full = self.sets.len() >= MAX_LABEL_SETS;
        let labels: Arc<[KeyValue]> = if full { [KeyValue::new(OVERFLOW_LABEL, true)].into() } else { labels.into() };
        if let Some(place) = self.places.get(&labels) {
            return *place;
        }
        let place = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        self.sets.push(Arc::clone(&labels));
        self.places.insert(labels, place);
        place
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("noted", &self.noted).field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// This thread's shard.
fn shard() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS);
    }
    SHARD.get()
}

#[cfg(test)]
mod tests {
    use super::{Journal, MAX_LABEL_SETS};
    use crate::id::CorrelationId;
    use opentelemetry::KeyValue;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    #[test]
    fn what_many_threads_note_is_taken_once_and_the_reader_is_woken() {
        let woken = Arc::new(AtomicUsize::new(0));
        let wake = Arc::clone(&woken);
        let journal = Journal::new(2, 100, move || {
            wake.fetch_add(1, Ordering::Relaxed);
        });
        std::thread::scope(|scope| {
            for namespace in ["orders", "bills", "shop", "stock"] {
                let journal = &journal;
                scope.spawn(move || {
                    let labels = [KeyValue::new("namespace", namespace)];
                    (0..250).for_each(|_| journal.note(1, &labels, CorrelationId::generate(), 1.0));
                });
            }
        });
        let mut entries = Vec::new();
        journal.take(&mut entries);
        assert_eq!((entries.len(), woken.load(Ordering::Relaxed)), (1_000, 10));
        let orders = [KeyValue::new("namespace", "orders")];
        assert_eq!(entries.iter().filter(|entry| *journal.labels(entry) == orders).count(), 250);
        journal.take(&mut entries);
        assert_eq!(entries.len(), 1_000);
    }

    #[test]
    fn label_sets_beyond_the_bound_are_noted_as_one() {
        let journal = Journal::new(1, usize::MAX, || {});
        for n in 0..MAX_LABEL_SETS as i64 + 10 {
            journal.note(0, &[KeyValue::new("step_name", n)], CorrelationId::generate(), 1.0);
        }
        let mut entries = Vec::new();
        journal.take(&mut entries);
        let beyond = entries.iter().filter(|entry| entry.label_set as usize == MAX_LABEL_SETS).count();
        assert_eq!((entries.len(), beyond), (MAX_LABEL_SETS + 10, 10));
    }
}
