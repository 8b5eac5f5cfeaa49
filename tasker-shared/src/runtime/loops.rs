//! The two shapes of loops.

use super::{Subscription, Wake};
use crate::{
    breaker::{Breaker, Permit, State},
    metrics::{
        LoopOutcome, Metrics,
        labels::{Loop, LoopRun},
    },
    storage::Error,
};
use rand::RngExt as _;
use std::{future::Future, ops::RangeInclusive, time::Duration};
use tokio_util::sync::CancellationToken;

/// The first and the longest pause after a turn that failed. The longest is what every loop may be late by when the database is
/// back after a long outage.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The circuit breakers that a loop's turns pass. While one is open the loop pauses, and then makes the try that is due.
#[derive(Debug, Clone, Default)]
pub struct Gate(Vec<Breaker>);

impl Gate {
    /// A gate that is always open.
    pub fn none() -> Self {
        Self::default()
    }

    /// Through all of these.
    pub fn through(breakers: impl IntoIterator<Item = Breaker>) -> Self {
        Self(breakers.into_iter().collect())
    }

    /// Waits until every breaker lets pass.
    async fn passed(&self) -> Vec<Permit<'_>> {
        loop {
            let mut permits = Vec::with_capacity(self.0.len());
            let closed = self.0.iter().find(|breaker| breaker.admit().map(|permit| permits.push(permit)).is_err());
            let Some(closed) = closed else { return permits };
            // a try of another breaker must not be held up by this one
            drop(permits);
            drop(closed.ready().await);
        }
    }

    fn is_closed(&self) -> bool {
        self.0.iter().all(|breaker| breaker.state() == State::Closed)
    }
}

/// Tells the breakers how a turn went. A failure that is no outage shows that the database answers.
pub fn judge<'a, T>(permits: impl IntoIterator<Item = Permit<'a>>, outcome: &Result<T, Error>) {
    for permit in permits {
        match outcome {
            Err(error) if error.is_outage() => permit.failed(error),
            _ => permit.succeeded(),
        }
    }
}

/// What a turn of a consumer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// As much as it could take: there may be more.
    Full,
    /// Less than it could take.
    Partial,
    /// Something that somebody else holds: it is to be looked for again after this time.
    Held(Duration),
    /// Nothing.
    Empty,
}

/// Runs `turn` whenever `bell` rings or a poll interval is over, and again at once while there is more, until `shutdown`.
/// The interval doubles from the start of `poll` to its end while nothing is found. A turn that fails is tried again after a
/// growing pause, or when the `gate` lets it pass; it must have changed nothing.
pub async fn consume<F, Fut>(
    name: &'static str,
    metrics: Metrics,
    gate: Gate,
    mut bell: Subscription,
    poll: RangeInclusive<Duration>,
    shutdown: CancellationToken,
    mut turn: F,
) where
    F: FnMut(Wake) -> Fut,
    Fut: Future<Output = Result<Turn, Error>>,
{
    let mut failures = 0;
    let mut wake = Wake::Poll;
    let mut interval = *poll.start();
    while let Some(permits) = shutdown.run_until_cancelled(gate.passed()).await {
        let running = metrics.runtime_loops_in_flight.hold(Loop { name });
        let outcome = turn(wake).await;
        drop(running);
        judge(permits, &outcome);
        metrics.runtime_loop_runs.add(1, LoopRun { name, outcome: counted(&outcome) });
        let mut soon = Duration::MAX;
        let pause = match outcome {
            Ok(found) => {
                failures = 0;
                if let Turn::Held(held) = found {
                    soon = held;
                }
                interval = if found == Turn::Empty { (interval * 2).min(*poll.end()) } else { *poll.start() };
                if found == Turn::Full {
                    continue;
                }
                None
            }
            Err(error) => {
                failures += 1;
                let pause = failed(name, &error, failures);
                // an outage swallows hints as well
                interval = *poll.start();
                // behind an open breaker the gate is the pause
                Some(if gate.is_closed() { pause } else { Duration::ZERO })
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = async { match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => wake = bell.wait(interval.min(soon)).await,
            } } => {}
        }
    }
}

/// Runs `turn` at once, and again after the time it answers with or when `bell` rings, until `shutdown`.
pub async fn sweep<F, Fut>(
    name: &'static str,
    metrics: Metrics,
    gate: Gate,
    mut bell: Option<Subscription>,
    shutdown: CancellationToken,
    mut turn: F,
) where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Duration, Error>>,
{
    let mut failures = 0;
    while let Some(permits) = shutdown.run_until_cancelled(gate.passed()).await {
        let running = metrics.runtime_loops_in_flight.hold(Loop { name });
        let outcome = turn().await;
        drop(running);
        judge(permits, &outcome);
        let counted = if outcome.is_ok() { LoopOutcome::Worked } else { LoopOutcome::Error };
        metrics.runtime_loop_runs.add(1, LoopRun { name, outcome: counted });
        let (pause, listen) = match outcome {
            Ok(pause) => {
                failures = 0;
                (pause, true)
            }
            Err(error) => {
                failures += 1;
                let pause = failed(name, &error, failures);
                (if gate.is_closed() { pause } else { Duration::ZERO }, false)
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = async { match bell.as_mut().filter(|_| listen) {
                Some(bell) => drop(bell.wait(pause).await),
                None => tokio::time::sleep(pause).await,
            } } => {}
        }
    }
}

fn counted(outcome: &Result<Turn, Error>) -> LoopOutcome {
    match outcome {
        Ok(Turn::Empty) => LoopOutcome::Idle,
        Ok(_) => LoopOutcome::Worked,
        Err(_) => LoopOutcome::Error,
    }
}

/// Logs a failure, the first of a row loudly, and answers with the pause: doubled each time, with a random part.
fn failed(name: &'static str, error: &Error, failures: u32) -> Duration {
    let pause = PAUSE.0.saturating_mul(1 << failures.min(10)).min(PAUSE.1);
    if failures == 1 {
        tracing::error!(loop.name = name, %error, "a turn of {name} failed; it is tried again");
    } else {
        tracing::debug!(loop.name = name, %error, failures, "a turn of {name} failed again");
    }
    pause.mul_f64(rand::rng().random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::{Error, PAUSE, failed};
    use std::time::Duration;

    #[test]
    fn however_long_the_database_is_away_a_loop_tries_again_every_second() {
        let away = || Error::Statement { doing: "claim_steps", source: sqlx::Error::PoolTimedOut };
        let pauses: Vec<Duration> = (1..60).map(|failures| failed("claim", &away(), failures)).collect();
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(1)), "{pauses:?}");
        assert!(pauses.iter().skip(10).all(|pause| *pause >= PAUSE.1 / 2), "{pauses:?}");
    }
}
