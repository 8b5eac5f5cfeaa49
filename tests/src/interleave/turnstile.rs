//! Holds an actor before each of its statements until the explorer lets it pass.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tasker_shared::storage::{Gate, Passed};
use tokio::sync::{Notify, Semaphore};

/// Statements at which nothing can happen between actors: they lock, read and write nothing that others do.
const FREE: [&str; 4] = ["begin", "rollback", "load_templates", "list_namespaces"];

/// Where an actor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On its way: it runs, or waits for a lock.
    Away,
    /// Before this statement.
    Before(&'static str),
    /// At its end.
    Ended,
}

/// The turnstile of one actor.
#[derive(Debug)]
pub(super) struct Turnstile {
    place: Mutex<Place>,
    tickets: Semaphore,
    moved: Arc<Notify>,
}

impl Turnstile {
    /// `moved` is told whenever the actor comes to a place.
    pub(super) fn new(moved: Arc<Notify>) -> Self {
        Self { place: Mutex::new(Place::Ended), tickets: Semaphore::new(0), moved }
    }

    pub(super) fn place(&self) -> Place {
        *self.locked()
    }

    /// The actor goes on to its next place.
    pub(super) fn let_pass(&self) {
        *self.locked() = Place::Away;
        self.tickets.add_permits(1);
    }

    /// A new actor is on its way.
    pub(super) fn begin(&self) {
        *self.locked() = Place::Away;
    }

    /// The actor has ended.
    pub(super) fn end(&self) {
        self.come_to(Place::Ended);
    }

    fn come_to(&self, place: Place) {
        *self.locked() = place;
        self.moved.notify_waiters();
    }

    fn locked(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for Turnstile {
    fn pass<'a>(&'a self, _: &'static str, doing: &'static str) -> Passed<'a> {
        Box::pin(async move {
            if !FREE.contains(&doing) {
                self.come_to(Place::Before(doing));
                let ticket = self.tickets.acquire().await.map_err(|_| sqlx::Error::WorkerCrashed)?;
                ticket.forget();
            }
            Ok(())
        })
    }
}
