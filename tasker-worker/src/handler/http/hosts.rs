//! A circuit breaker for each host that fails: calls to it are left out for a while, then one is tried.
//!
//! Hosts that do well are not remembered, so that a worker whose hosts all answer pays one atomic read for each call.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tasker_shared::{
    api,
    breaker::{Breakers, HTTP_HANDLER, Pass, Policy, State, machine::Machine},
    metrics::labels,
};

/// The failing hosts of a worker; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Hosts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    policy: Policy,
    most: usize,
    remembered: AtomicUsize,
    hosts: Mutex<HashMap<String, Host>>,
    shown: OnceLock<Breakers>,
    epoch: Instant,
}

#[derive(Debug)]
struct Host {
    machine: Machine,
    failed_at: Duration,
}

/// A call that is under way. Dropped at the step's deadline, it failed; dropped before, it tells nothing.
#[derive(Debug)]
pub(super) struct Call<'a> {
    hosts: &'a Hosts,
    host: String,
    pass: Pass,
    deadline: tokio::time::Instant,
    told: bool,
}

impl Hosts {
    pub(super) fn new(policy: Policy, most: usize) -> Self {
        Self(Arc::new(Inner {
            policy,
            most: most.max(1),
            remembered: AtomicUsize::new(0),
            hosts: Mutex::default(),
            shown: OnceLock::new(),
            epoch: Instant::now(),
        }))
    }

    /// Shows the breakers with those of the process.
    pub(super) fn show_in(&self, breakers: &Breakers) {
        if self.0.shown.set(breakers.clone()).is_ok() {
            let hosts = self.clone();
            breakers.also_show(move || hosts.shown());
            self.tell_worst(&self.locked());
        }
    }

    /// Asks to call a host.
    ///
    /// # Errors
    /// Its breaker is open; the time to wait.
    pub(super) fn admit(&self, host: String, deadline: tokio::time::Instant) -> Result<Call<'_>, Duration> {
        let mut pass = Pass::Free;
        if self.0.remembered.load(Ordering::Acquire) > 0 {
            let now = self.now();
            let admitted = self.change(&host, |machine| machine.admit(now));
            pass = admitted.unwrap_or(Ok(Pass::Free))?;
        }
        Ok(Call { hosts: self, host, pass, deadline, told: false })
    }

    fn failed(&self, host: &str, pass: Pass) {
        let now = self.now();
        let mut hosts = self.locked();
        if !hosts.contains_key(host) {
            if hosts.len() >= self.0.most {
                let closed = |host: &Host| host.machine.state() == State::Closed;
                // one that is open is forgotten last
                let oldest = hosts.iter().min_by_key(|(_, host)| (!closed(host), host.failed_at));
                let oldest = oldest.map(|(name, _)| name.clone());
                oldest.map(|name| hosts.remove(&name));
            }
            hosts.insert(host.to_owned(), Host { machine: Machine::new(self.0.policy), failed_at: now });
        }
        drop(hosts);
        self.change(host, |machine| machine.failed(pass, now));
    }

    /// Lets the machine of a host that is remembered decide.
    fn change<T>(&self, host: &str, decide: impl FnOnce(&mut Machine) -> T) -> Option<T> {
        let now = self.now();
        let mut hosts = self.locked();
        let entry = hosts.get_mut(host)?;
        let before = entry.machine.state();
        let decision = decide(&mut entry.machine);
        let after = entry.machine.state();
        if after != State::Closed || !entry.machine.is_clean() {
            entry.failed_at = now;
        } else {
            hosts.remove(host);
        }
        self.0.remembered.store(hosts.len(), Ordering::Release);
        if before != after {
            self.tell_worst(&hosts);
            drop(hosts);
            match (before, after) {
                (State::Closed, _) => tracing::warn!(
                    breaker = HTTP_HANDLER,
                    host,
                    "the circuit breaker of {host} opens: it failed time after time"
                ),
                (_, State::Closed) => tracing::info!(
                    breaker = HTTP_HANDLER,
                    host,
                    "the circuit breaker of {host} closes: it answers again"
                ),
                _ => {
                    tracing::debug!(breaker = HTTP_HANDLER, host, from = %before, to = %after, "the circuit breaker of {host} was tried")
                }
            }
        }
        Some(decision)
    }

    /// One gauge for all hosts: the worst state, so that the number of series does not depend on what templates call.
    fn tell_worst(&self, hosts: &HashMap<String, Host>) {
        if let Some(breakers) = self.0.shown.get() {
            let worst = hosts.values().map(|host| host.machine.state()).max_by_key(|state| state.number());
            let component = labels::Component { component: HTTP_HANDLER };
            let number = worst.unwrap_or(State::Closed).number();
            breakers.metrics().tasker_circuit_breaker_state.set(number, component);
        }
    }

    fn shown(&self) -> Vec<api::Breaker> {
        let shown = |(host, entry): (&String, &Host)| api::Breaker {
            component: HTTP_HANDLER.to_owned(),
            host: Some(host.clone()),
            state: entry.machine.state(),
        };
        self.locked().iter().map(shown).collect()
    }

    fn now(&self) -> Duration {
        self.0.epoch.elapsed()
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call<'_> {
    /// The host answered, whatever it said.
    pub(super) fn succeeded(mut self) {
        self.told = true;
        if self.hosts.0.remembered.load(Ordering::Acquire) > 0 {
            self.hosts.change(&self.host, |machine| machine.succeeded(self.pass));
        }
    }

    /// The host gave no answer, or said that it cannot.
    pub(super) fn failed(mut self) {
        self.told = true;
        self.hosts.failed(&self.host, self.pass);
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        if tokio::time::Instant::now() >= self.deadline {
            self.hosts.failed(&self.host, self.pass);
        } else if self.pass == Pass::Probe {
            let now = self.hosts.now();
            self.hosts.change(&self.host, |machine| machine.abandoned(Pass::Probe, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Hosts;
    use std::time::Duration;
    use tasker_shared::breaker::{Policy, State};

    const POLICY: Policy = Policy {
        failures: 2,
        window: Duration::from_secs(60),
        open: Duration::from_millis(20),
        longest_open: Duration::from_millis(20),
    };

    fn later() -> tokio::time::Instant {
        tokio::time::Instant::now() + Duration::from_secs(60)
    }

    fn fail(hosts: &Hosts, host: &str, times: usize) {
        for _ in 0..times {
            hosts.admit(host.to_owned(), later()).expect("it is closed").failed();
        }
    }

    fn states(hosts: &Hosts) -> Vec<(String, State)> {
        let mut shown: Vec<_> = hosts.shown().into_iter().map(|b| (b.host.unwrap_or_default(), b.state)).collect();
        shown.sort();
        shown
    }

    #[tokio::test]
    async fn a_host_that_fails_is_left_alone_and_others_are_not() {
        let hosts = Hosts::new(POLICY, 10);
        fail(&hosts, "a", 2);
        assert!(hosts.admit("a".to_owned(), later()).is_err_and(|wait| wait <= POLICY.open));
        hosts.admit("b".to_owned(), later()).expect("it is another").succeeded();
        assert_eq!(states(&hosts), [("a".to_owned(), State::Open)]);
        tokio::time::sleep(POLICY.open).await;
        let tried = hosts.admit("a".to_owned(), later()).expect("the time is over");
        assert!(hosts.admit("a".to_owned(), later()).is_err(), "one try at a time");
        tried.succeeded();
        assert_eq!(states(&hosts), [], "a host that does well is not remembered");
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_tells_nothing_and_one_that_reached_its_deadline_failed() {
        let hosts = Hosts::new(POLICY, 10);
        (0..5).for_each(|_| drop(hosts.admit("a".to_owned(), later())));
        assert_eq!(states(&hosts), []);
        (0..2).for_each(|_| drop(hosts.admit("a".to_owned(), tokio::time::Instant::now())));
        assert_eq!(states(&hosts), [("a".to_owned(), State::Open)]);
    }

    #[tokio::test]
    async fn no_more_hosts_are_remembered_than_the_bound_and_open_ones_longest() {
        let hosts = Hosts::new(POLICY, 3);
        fail(&hosts, "open", 2);
        (0..100).for_each(|n| fail(&hosts, &format!("h{n}"), 1));
        let states = states(&hosts);
        assert_eq!(states.len(), 3);
        assert!(states.contains(&("open".to_owned(), State::Open)), "{states:?}");
    }
}
