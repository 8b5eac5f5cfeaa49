//! Circuit breakers: what keeps failing is left alone for a while, then tried once, and used again when that works.
//!
//! [`machine`] decides; a [`Breaker`] adds the clock, a gauge and a line of log. While all is well it costs one atomic
//! read: nothing is locked. [`Breakers`] holds those of a process, so that each component has one, whoever asks.

pub mod machine;

pub use machine::{Pass, Policy, State};

use crate::{
    api,
    metrics::{Metrics, labels},
};
use machine::Machine;
use std::{
    fmt::Display,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// The breaker between the HTTP API and the database.
pub const API: &str = "api_database";
/// The breaker of the loops that read queues.
pub const PGMQ: &str = "pgmq";
/// The breaker of what finds out which steps are ready.
pub const READINESS: &str = "task_readiness";
/// The breaker of the channel through which handlers that are not Rust hand back their outcome.
pub const FFI_COMPLETION: &str = "ffi_completion";
/// The breakers of the hosts that the handler `http` calls.
pub const HTTP_HANDLER: &str = "http_handler";

/// It may not pass now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the circuit breaker is open; it is tried again in {wait:?}")]
pub struct Refused {
    /// When to ask again.
    pub wait: Duration,
}

/// A breaker; cheap to clone.
#[derive(Debug, Clone)]
pub struct Breaker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    component: &'static str,
    metrics: Metrics,
    /// Set while it is closed and nothing failed: then nobody needs the lock.
    clean: AtomicBool,
    machine: Mutex<Machine>,
    changed: Notify,
    epoch: Instant,
}

/// What passed a breaker, and has yet to tell how it went. Dropped without a word it decides nothing.
#[derive(Debug)]
#[must_use = "a try that is dropped leaves its place to the next"]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    pass: Pass,
    told: bool,
}

impl Breaker {
    /// A closed breaker for `component`.
    pub fn new(component: &'static str, policy: Policy, metrics: &Metrics) -> Self {
        let breaker = Self(Arc::new(Inner {
            component,
            metrics: metrics.clone(),
            clean: AtomicBool::new(true),
            machine: Mutex::new(Machine::new(policy)),
            changed: Notify::new(),
            epoch: Instant::now(),
        }));
        breaker.show(State::Closed);
        breaker
    }

    /// What it does.
    pub fn state(&self) -> State {
        if self.0.clean.load(Ordering::Acquire) { State::Closed } else { self.locked().state() }
    }

    /// Asks to pass, as the one try where one is due.
    ///
    /// # Errors
    /// [`Refused`] with the time to wait.
    pub fn admit(&self) -> Result<Permit<'_>, Refused> {
        if self.0.clean.load(Ordering::Acquire) {
            return Ok(Permit { breaker: self, pass: Pass::Free, told: false });
        }
        let now = self.now();
        let admitted = self.change(|machine| machine.admit(now), &"");
        admitted.map(|pass| Permit { breaker: self, pass, told: false }).map_err(|wait| Refused { wait })
    }

    /// Asks to pass, but never as a try: for callers that somebody else makes tries for.
    ///
    /// # Errors
    /// [`Refused`] unless it is closed.
    pub fn admit_if_closed(&self) -> Result<Permit<'_>, Refused> {
        if self.state() == State::Closed {
            return Ok(Permit { breaker: self, pass: Pass::Free, told: false });
        }
        // asked of a copy, so that the try is not taken
        let wait = self.locked().clone().admit(self.now()).err().unwrap_or_default();
        Err(Refused { wait })
    }

    /// Waits until it passes.
    pub async fn ready(&self) -> Permit<'_> {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.admit() {
                Ok(permit) => return permit,
                Err(Refused { wait }) => drop(tokio::time::timeout(wait, changed).await),
            }
        }
    }

    /// Waits until it is not closed.
    pub async fn opened(&self) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.state() != State::Closed {
                return;
            }
            changed.await;
        }
    }

    /// The breaker as `/health/detailed` shows it.
    pub fn shown(&self) -> api::Breaker {
        api::Breaker { component: self.0.component.to_owned(), host: None, state: self.state() }
    }

    /// Lets the machine decide; tells of a change of state.
    fn change<T>(&self, decide: impl FnOnce(&mut Machine) -> T, why: &dyn Display) -> T {
        let mut machine = self.locked();
        let before = machine.state();
        let decision = decide(&mut machine);
        let after = machine.state();
        self.0.clean.store(machine.is_clean(), Ordering::Release);
        if before != after {
            // under the lock, so that the gauge ends where the machine does
            self.show(after);
            drop(machine);
            self.tell(before, after, why);
            self.0.changed.notify_waiters();
        }
        decision
    }

    fn show(&self, state: State) {
        let metrics = &self.0.metrics;
        match self.0.component {
            API => metrics.api_circuit_breaker_state.set(state.number(), ()),
            component => metrics.tasker_circuit_breaker_state.set(state.number(), labels::Component { component }),
        }
    }

    /// Once when an outage begins and once when it is over; the tries in between are no news.
    fn tell(&self, before: State, after: State, why: &dyn Display) {
        let component = self.0.component;
        match (before, after) {
            (State::Closed, _) => {
                tracing::warn!(breaker = component, %why, "the circuit breaker {component} opens: it failed time after time")
            }
            (_, State::Closed) => {
                tracing::info!(breaker = component, "the circuit breaker {component} closes: all is well again")
            }
            _ => {
                tracing::debug!(breaker = component, from = %before, to = %after, %why, "the circuit breaker {component} was tried")
            }
        }
    }

    fn now(&self) -> Duration {
        self.0.epoch.elapsed()
    }

    fn locked(&self) -> MutexGuard<'_, Machine> {
        self.0.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// It went well.
    pub fn succeeded(mut self) {
        self.told = true;
        if self.pass == Pass::Probe || !self.breaker.0.clean.load(Ordering::Acquire) {
            self.breaker.change(|machine| machine.succeeded(self.pass), &"");
        }
    }

    /// It failed, for a reason that lies with what the breaker watches.
    pub fn failed(mut self, why: &dyn Display) {
        self.told = true;
        let now = self.breaker.now();
        self.breaker.change(|machine| machine.failed(self.pass, now), why);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.told && self.pass == Pass::Probe {
            let now = self.breaker.now();
            self.breaker.change(|machine| machine.abandoned(Pass::Probe, now), &"it ended without a word");
        }
    }
}

/// Tells what else is to be shown, such as a breaker for each host.
type Source = Box<dyn Fn() -> Vec<api::Breaker> + Send + Sync>;

/// The breakers of a process; cheap to clone.
#[derive(Clone)]
pub struct Breakers(Arc<Registry>);

struct Registry {
    policy: Policy,
    metrics: Metrics,
    known: Mutex<Vec<Breaker>>,
    sources: Mutex<Vec<Source>>,
}

impl Breakers {
    /// None yet; those of the database will follow `policy`.
    pub fn new(policy: Policy, metrics: &Metrics) -> Self {
        let (known, sources) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Registry { policy, metrics: metrics.clone(), known, sources }))
    }

    /// The breaker of a part of the database.
    pub fn of(&self, component: &'static str) -> Breaker {
        self.with(component, self.0.policy)
    }

    /// The breaker of `component`, which follows `policy` if it is new.
    pub fn with(&self, component: &'static str, policy: Policy) -> Breaker {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(breaker) = known.iter().find(|breaker| breaker.0.component == component) {
            return breaker.clone();
        }
        let breaker = Breaker::new(component, policy, &self.0.metrics);
        known.push(breaker.clone());
        breaker
    }

    /// Shows more than this registry knows of itself.
    pub fn also_show(&self, source: impl Fn() -> Vec<api::Breaker> + Send + Sync + 'static) {
        self.0.sources.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    /// Where measurements go.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Every breaker with its state.
    pub fn shown(&self) -> Vec<api::Breaker> {
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sources = self.0.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shown: Vec<_> =
            known.iter().map(Breaker::shown).chain(sources.iter().flat_map(|source| source())).collect();
        shown.sort_by(|a, b| (&a.component, &a.host).cmp(&(&b.component, &b.host)));
        shown
    }
}

impl std::fmt::Debug for Breakers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.shown()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Breaker, Breakers, PGMQ, Policy, State};
    use crate::metrics::Metrics;
    use std::time::Duration;

    const POLICY: Policy = Policy {
        failures: 2,
        window: Duration::from_secs(60),
        open: Duration::from_millis(20),
        longest_open: Duration::from_millis(20),
    };

    fn open() -> Breaker {
        let breaker = Breaker::new(PGMQ, POLICY, &Metrics::disabled());
        (0..2).for_each(|_| breaker.admit().unwrap().failed(&"no connection"));
        assert_eq!(breaker.state(), State::Open);
        breaker
    }

    #[tokio::test]
    async fn who_waits_passes_as_the_one_try_and_all_others_when_that_does_well() {
        let breaker = open();
        assert!(breaker.admit().unwrap_err().wait <= POLICY.open);
        let tried = breaker.ready().await;
        assert_eq!(breaker.state(), State::HalfOpen);
        let waiting = breaker.clone();
        let other = tokio::spawn(async move { waiting.ready().await.succeeded() });
        tried.succeeded();
        other.await.unwrap();
        assert_eq!(breaker.state(), State::Closed);
    }

    #[tokio::test]
    async fn a_caller_that_must_not_be_the_try_is_refused_until_somebody_else_closed_it() {
        let breaker = open();
        tokio::time::sleep(POLICY.open).await;
        assert!(breaker.admit_if_closed().is_err());
        breaker.admit().unwrap().succeeded();
        assert!(breaker.admit_if_closed().is_ok());
    }

    #[tokio::test]
    async fn a_try_that_is_dropped_leaves_its_place_to_the_next() {
        let breaker = open();
        drop(breaker.ready().await);
        assert_eq!(breaker.state(), State::Open);
        breaker.ready().await.succeeded();
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn a_component_has_one_breaker_whoever_asks() {
        let breakers = Breakers::new(POLICY, &Metrics::disabled());
        (0..2).for_each(|_| breakers.of(PGMQ).admit().unwrap().failed(&"no connection"));
        assert_eq!(breakers.of(PGMQ).state(), State::Open);
        assert_eq!(
            breakers.shown().iter().map(|b| (b.component.as_str(), b.state)).collect::<Vec<_>>(),
            [("pgmq", State::Open)]
        );
    }
}
