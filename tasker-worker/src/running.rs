//! The steps whose lease this worker holds: from the claim until the report is stored.

use crate::{core::Served, handler::StepContext};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tasker_shared::{id::StepId, name::Name, queue::QueueName, storage::leases::Held};
use tokio::{sync::Notify, time::Instant};

/// A step that is held.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) msg_id: i64,
    pub(crate) attempt: i32,
    pub(crate) served: Served,
    pub(crate) context: StepContext,
    /// The progress that was stored last.
    told: Option<Instant>,
    /// Its report's transaction holds the step and its message: there is no lease to extend.
    writing: bool,
}

impl Entry {
    pub(crate) fn new(msg_id: i64, attempt: i32, served: Served, context: StepContext) -> Self {
        Self { msg_id, attempt, served, context, told: None, writing: false }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Running {
    steps: Mutex<HashMap<StepId, Entry>>,
    emptied: Notify,
}

impl Running {
    /// The lease is ours. An earlier attempt of this worker that lost it is told to stop.
    pub(crate) fn insert(&self, step: StepId, entry: Entry) {
        let lost = self.locked().insert(step, entry);
        if let Some(lost) = lost {
            lost.context.cancel("its lease was lost");
        }
    }

    /// The lease of this attempt is gone: reported, given back or lost. That of a later attempt stays.
    pub(crate) fn remove(&self, step: StepId, attempt: i32) -> Option<Entry> {
        let mut steps = self.locked();
        let entry = if steps.get(&step)?.attempt == attempt { steps.remove(&step) } else { None };
        if steps.is_empty() {
            self.emptied.notify_waiters();
        }
        entry
    }

    pub(crate) fn len(&self) -> usize {
        self.locked().len()
    }

    /// A transaction that holds this attempt's step and message begins, or ends.
    pub(crate) fn set_writing(&self, step: StepId, attempt: i32, writing: bool) {
        if let Some(entry) = self.locked().get_mut(&step).filter(|entry| entry.attempt == attempt) {
            entry.writing = writing;
        }
    }

    /// The leases by queue, each with its progress if that is new.
    pub(crate) fn held(&self) -> HashMap<QueueName, Vec<Held>> {
        let mut held: HashMap<QueueName, Vec<Held>> = HashMap::new();
        for (step_id, entry) in self.locked().iter_mut().filter(|(_, entry)| !entry.writing) {
            let progress = entry.context.latest_progress().filter(|progress| Some(progress.at) != entry.told);
            entry.told = progress.as_ref().map(|progress| progress.at).or(entry.told);
            held.entry(entry.served.queue.clone()).or_default().push(Held {
                msg_id: entry.msg_id,
                step_id: *step_id,
                attempt: entry.attempt,
                progress: progress.map(|p| serde_json::json!({ "fraction": p.fraction, "message": p.message })),
            });
        }
        held
    }

    /// Tells the handler of a step to stop, if that attempt is still held.
    pub(crate) fn cancel(&self, step: StepId, attempt: i32, reason: &'static str) {
        if let Some(entry) = self.locked().get(&step).filter(|entry| entry.attempt == attempt) {
            entry.context.cancel(reason);
        }
    }

    /// Stops the handlers of leases that were given back and forgets them; answers with their namespace.
    pub(crate) fn cancel_held(&self, held: &[Held], reason: &'static str) -> Option<Name> {
        let entries: Vec<Entry> = held.iter().filter_map(|held| self.remove(held.step_id, held.attempt)).collect();
        entries.iter().for_each(|entry| entry.context.cancel(reason));
        entries.first().map(|entry| entry.served.namespace.clone())
    }

    /// Whether this attempt is still ours as far as we know.
    pub(crate) fn holds(&self, step: StepId, attempt: i32) -> bool {
        self.locked().get(&step).is_some_and(|entry| entry.attempt == attempt)
    }

    /// Completes when nothing is held.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.locked().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<StepId, Entry>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
