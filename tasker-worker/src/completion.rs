//! The way from *execute* to *report*: two bounded channels. Outcomes of Rust handlers go through `outcomes`; those of
//! handlers that are not Rust (programs, web services) come back through `ffi_completion`, which has a circuit breaker.
//!
//! Outcomes are never dropped: a send waits for room. When sends are slow time after time, the breaker opens, and the
//! worker starts no handler of that kind until there is room again.

use crate::{handler::HandlerType, report::Executed};
use std::time::Duration;
use tasker_shared::{
    breaker::{self, Breaker, Policy},
    metrics::{
        Metrics,
        channel::{self, Receiver, Sender},
    },
};

/// When the channel of handlers that are not Rust counts as slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slowness {
    /// A send that takes longer is slow.
    pub slow_send: Duration,
    /// How many of these in a row keep the worker from starting more, and for how long.
    pub policy: Policy,
}

impl Default for Slowness {
    fn default() -> Self {
        let longest_open = Duration::from_secs(10);
        Self { slow_send: Duration::from_millis(100), policy: Policy { longest_open, ..Policy::default() } }
    }
}

/// The ends that outcomes go into.
#[derive(Debug)]
pub(crate) struct Completion {
    rust: Sender<Executed>,
    foreign: Sender<Executed>,
    breaker: Breaker,
    slow_send: Duration,
    metrics: Metrics,
}

/// The ends that station *report* reads.
#[derive(Debug)]
pub(crate) struct Outcomes {
    rust: Receiver<Executed>,
    foreign: Receiver<Executed>,
}

/// The channels, for `slots` handlers at once.
pub(crate) fn channels(slots: usize, slowness: Slowness, breakers: &breaker::Breakers) -> (Completion, Outcomes) {
    let metrics = breakers.metrics();
    let (rust, rust_outcomes) = channel::bounded("outcomes", "worker", slots * 2, metrics);
    let (foreign, foreign_outcomes) = channel::bounded("ffi_completion", "worker", slots, metrics);
    metrics.ffi_completion_slow_sends.add(0, ());
    metrics.ffi_completion_circuit_open_rejections.add(0, ());
    let breaker = breakers.with(breaker::FFI_COMPLETION, slowness.policy);
    let completion = Completion { rust, foreign, breaker, slow_send: slowness.slow_send, metrics: metrics.clone() };
    (completion, Outcomes { rust: rust_outcomes, foreign: foreign_outcomes })
}

impl Completion {
    /// Hands an outcome over; waits for room. It is lost only when station *report* is gone: then the lease runs out, and
    /// the step runs again.
    pub(crate) async fn send(&self, executed: Executed, kind: HandlerType) {
        if kind == HandlerType::Rust {
            let _ = self.rust.send(executed).await;
            return;
        }
        let permit = self.breaker.admit_if_closed().ok();
        let mut sending = std::pin::pin!(self.foreign.send(executed));
        if let Ok(_sent) = tokio::time::timeout(self.slow_send, &mut sending).await {
            if let Some(permit) = permit {
                permit.succeeded();
            }
            return;
        }
        self.metrics.ffi_completion_slow_sends.add(1, ());
        if let Some(permit) = permit {
            permit.failed(&format!("a send takes longer than {:?}", self.slow_send));
        }
        let _ = sending.await;
    }

    /// Whether a handler of this kind may start.
    pub(crate) fn admits(&self, kind: HandlerType) -> bool {
        kind == HandlerType::Rust || self.breaker.admit_if_closed().is_ok()
    }

    /// As many handlers were not started.
    pub(crate) fn rejected(&self, handlers: usize) {
        self.metrics.ffi_completion_circuit_open_rejections.add(handlers as u64, ());
    }

    /// Waits until handlers of every kind may start again: until a try finds room in time.
    pub(crate) async fn recovered(&self) {
        while self.breaker.state() != breaker::State::Closed {
            let permit = self.breaker.ready().await;
            match tokio::time::timeout(self.slow_send, self.foreign.has_room()).await {
                Ok(()) => permit.succeeded(),
                Err(_) => permit.failed(&"there is no room"),
            }
        }
    }

    /// How full the fuller channel is, in percent.
    pub(crate) fn usage(&self) -> f64 {
        self.rust.usage().max(self.foreign.usage())
    }
}

impl Outcomes {
    /// Waits for at least one outcome and takes up to `limit`. Zero: every sender is gone.
    pub(crate) async fn receive(&mut self, batch: &mut Vec<Executed>, limit: usize) -> usize {
        let (mut rust, mut foreign) = (Vec::new(), Vec::new());
        // both ends close together, with the last sender
        let taken = tokio::select! {
            taken = self.rust.recv_many(&mut rust, limit) => taken,
            taken = self.foreign.recv_many(&mut foreign, limit) => taken,
        };
        batch.append(&mut rust);
        batch.append(&mut foreign);
        if taken > 0 {
            taken
        } else {
            self.rust.recv_many(batch, limit).await + self.foreign.recv_many(batch, limit).await
        }
    }
}
