//! Probes: gauges that must be asked for, sampled on a timer and never on the hot path.
//!
//! A probe of the whole system is sampled by one instance at a time, the one that leads; the others forget what they
//! knew, so that no two instances report the same thing and no stale value stays.

use futures::future::BoxFuture;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Why a probe could not be sampled.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Of what a probe tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// This process.
    Process,
    /// The whole system: only the leader samples it.
    System,
}

/// Something that can be sampled.
pub trait Probe: Send + Sync {
    /// The name in logs.
    fn name(&self) -> &'static str;

    /// Of what it tells.
    fn scope(&self) -> Scope;

    /// Looks and records.
    fn sample(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// Takes away what it recorded, because it no longer knows.
    fn forget(&self);
}

/// Tells whether this process samples the whole system.
pub trait Leadership: Send + Sync {
    /// Asked before each round.
    fn leads(&self) -> BoxFuture<'_, bool>;
}

/// A system of one process.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Leadership for Alone {
    fn leads(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { true })
    }
}

/// Samples `probes` every `period` until `stop`. A probe that needs longer than the period counts as failed.
pub async fn run(probes: Vec<Box<dyn Probe>>, leadership: impl Leadership, period: Duration, stop: CancellationToken) {
    let mut rounds: Vec<Round> = probes.into_iter().map(|probe| Round { probe, state: State::Forgotten }).collect();
    let mut timer = interval(period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(timer.tick()).await.is_some() {
        let sampled = async {
            let leads = leadership.leads().await;
            for round in &mut rounds {
                round.run(leads, period).await;
            }
        };
        if stop.run_until_cancelled(sampled).await.is_none() {
            break;
        }
    }
    rounds.iter().for_each(|round| round.probe.forget());
}

#[derive(PartialEq, Eq)]
enum State {
    Forgotten,
    Known,
    Failing,
}

struct Round {
    probe: Box<dyn Probe>,
    state: State,
}

impl Round {
    async fn run(&mut self, leads: bool, period: Duration) {
        if self.probe.scope() == Scope::System && !leads {
            self.forget(State::Forgotten);
            return;
        }
        let sampled = match timeout(period, self.probe.sample()).await {
            Ok(sampled) => sampled,
            Err(elapsed) => Err(elapsed.into()),
        };
        match sampled {
            Ok(()) => self.state = State::Known,
            Err(error) => self.failed(&error),
        }
    }

    /// Says so once, not at every round.
    fn failed(&mut self, error: &Error) {
        if self.state != State::Failing {
            tracing::warn!(probe = self.probe.name(), %error, "a probe fails; its gauges are gone until it works again");
        }
        self.forget(State::Failing);
    }

    fn forget(&mut self, next: State) {
        if self.state == State::Known {
            self.probe.forget();
        }
        self.state = next;
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Leadership, Probe, Scope, run};
    use futures::future::BoxFuture;
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };
    use tokio_util::sync::CancellationToken;

    /// Tells what happened, and stops the scheduler after its last word.
    struct Story {
        told: Arc<Mutex<Vec<&'static str>>>,
        rounds: Mutex<Vec<Result<(), &'static str>>>,
    }

    impl Probe for Story {
        fn name(&self) -> &'static str {
            "story"
        }
        fn scope(&self) -> Scope {
            Scope::System
        }
        fn sample(&self) -> BoxFuture<'_, Result<(), Error>> {
            let round = self.rounds.lock().unwrap().pop().expect("a round was planned");
            self.told.lock().unwrap().push(if round.is_ok() { "sampled" } else { "failed" });
            Box::pin(async move { round.map_err(Error::from) })
        }
        fn forget(&self) {
            self.told.lock().unwrap().push("forgotten");
        }
    }

    struct Turns {
        leads: Mutex<Vec<bool>>,
        stop: CancellationToken,
    }

    impl Leadership for Turns {
        fn leads(&self) -> BoxFuture<'_, bool> {
            let next = self.leads.lock().unwrap().pop();
            if next.is_none() {
                self.stop.cancel();
            }
            Box::pin(async move {
                match next {
                    Some(leads) => leads,
                    None => std::future::pending().await,
                }
            })
        }
    }

    #[tokio::test]
    async fn a_probe_forgets_when_it_fails_and_when_another_instance_leads() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let rounds = Mutex::new(vec![Ok(()), Err("no database"), Err("no database"), Ok(())]);
        let probe = Story { told: Arc::clone(&told), rounds };
        let stop = CancellationToken::new();
        let turns = Turns { leads: Mutex::new(vec![false, true, true, true, true, false]), stop: stop.clone() };
        run(vec![Box::new(probe)], turns, Duration::from_millis(1), stop).await;
        let expected = ["sampled", "failed", "forgotten", "failed", "sampled", "forgotten", "forgotten"];
        assert_eq!(*told.lock().unwrap(), expected);
    }
}
