//! The state machine of a circuit breaker. Pure: time is an argument, counted from any fixed moment.
//!
//! ```text
//! closed --(so many failures in a row)--> open --(its time is over: one try)--> half-open
//!    ^                                      ^                                     |    |
//!    |                                      +-------------(the try fails)---------+    |
//!    +------------------------------------(the try succeeds)---------------------------+
//! ```

use crate::text_enum;
use std::{collections::VecDeque, time::Duration};

text_enum! {
    /// What a breaker does at the moment.
    State {
        /// Everything passes.
        Closed = "closed",
        /// One try is under way; nothing else passes.
        HalfOpen = "half_open",
        /// Nothing passes until its time is over.
        Open = "open",
    }
}

impl State {
    /// The number that stands for it in metrics.
    pub const fn number(self) -> i64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// So many failures in a row open it; at least 1.
    pub failures: u32,
    /// The first of them counts no longer than this.
    pub window: Duration,
    /// How long nothing passes before the first try.
    pub open: Duration,
    /// The time doubles with every try that fails, up to this.
    pub longest_open: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            failures: 5,
            window: Duration::from_secs(10),
            open: Duration::from_secs(1),
            longest_open: Duration::from_secs(1),
        }
    }
}

/// How something passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The breaker was closed.
    Free,
    /// It is the one try of a breaker that is half-open.
    Probe,
}

/// A breaker.
#[derive(Debug, Clone)]
pub struct Machine {
    policy: Policy,
    phase: Phase,
}

#[derive(Debug, Clone)]
enum Phase {
    /// When the latest failures in a row happened.
    Closed(VecDeque<Duration>),
    /// Until when, and how many tries have failed.
    Open {
        until: Duration,
        tries: u32,
    },
    HalfOpen {
        tries: u32,
    },
}

impl Machine {
    /// A closed breaker.
    pub fn new(policy: Policy) -> Self {
        Self { policy, phase: Phase::Closed(VecDeque::new()) }
    }

    /// What it does.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed(_) => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Whether it is closed and nothing has failed since the last success.
    pub fn is_clean(&self) -> bool {
        matches!(&self.phase, Phase::Closed(failures) if failures.is_empty())
    }

    /// Asks to pass. When the time of an open breaker is over, who asks first is its try.
    ///
    /// # Errors
    /// It may not; the time after which asking again makes sense.
    pub fn admit(&mut self, now: Duration) -> Result<Pass, Duration> {
        match self.phase {
            Phase::Closed(_) => Ok(Pass::Free),
            Phase::Open { until, tries } if now >= until => {
                self.phase = Phase::HalfOpen { tries };
                Ok(Pass::Probe)
            }
            Phase::Open { until, .. } => Err(until - now),
            Phase::HalfOpen { .. } => Err(self.policy.open),
        }
    }

    /// What passed did well. A try that does well closes the breaker.
    pub fn succeeded(&mut self, pass: Pass) {
        match (&mut self.phase, pass) {
            (Phase::Closed(failures), _) => failures.clear(),
            (Phase::HalfOpen { .. }, Pass::Probe) => self.phase = Phase::Closed(VecDeque::new()),
            // it passed before the breaker opened
            (Phase::Open { .. } | Phase::HalfOpen { .. }, _) => {}
        }
    }

    /// What passed failed. Enough of that opens the breaker.
    pub fn failed(&mut self, pass: Pass, now: Duration) {
        match (&mut self.phase, pass) {
            (Phase::Closed(failures), _) => {
                failures.push_back(now);
                let window = self.policy.window;
                failures.retain(|then| now.saturating_sub(*then) <= window);
                if failures.len() >= self.policy.failures.max(1) as usize {
                    self.phase = Phase::Open { until: now + self.open_for(0), tries: 0 };
                }
            }
            (Phase::HalfOpen { tries }, Pass::Probe) => {
                let tries = tries.saturating_add(1);
                self.phase = Phase::Open { until: now + self.open_for(tries), tries };
            }
            (Phase::Open { .. } | Phase::HalfOpen { .. }, _) => {}
        }
    }

    /// What passed ended without telling anything. A try that does so leaves its place to the next.
    pub fn abandoned(&mut self, pass: Pass, now: Duration) {
        if let (Phase::HalfOpen { tries }, Pass::Probe) = (&self.phase, pass) {
            self.phase = Phase::Open { until: now, tries: *tries };
        }
    }

    fn open_for(&self, tries: u32) -> Duration {
        let doubled = self.policy.open.saturating_mul(1 << tries.min(20));
        doubled.min(self.policy.longest_open.max(self.policy.open))
    }
}

#[cfg(test)]
mod tests {
    use super::{Machine, Pass, Policy, State};
    use proptest::prelude::*;
    use std::time::Duration;

    const POLICY: Policy = Policy {
        failures: 3,
        window: Duration::from_secs(10),
        open: Duration::from_secs(1),
        longest_open: Duration::from_secs(4),
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Open since second 2.
    fn open() -> Machine {
        let mut machine = Machine::new(POLICY);
        (0..3).for_each(|second| machine.failed(Pass::Free, at(second)));
        assert_eq!(machine.state(), State::Open);
        machine
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let mut machine = Machine::new(POLICY);
        for second in 0..20 {
            machine.failed(Pass::Free, at(second));
            machine.failed(Pass::Free, at(second));
            machine.succeeded(Pass::Free);
        }
        assert!(machine.is_clean());
        assert_eq!(open().admit(at(2)), Err(at(1)));
    }

    #[test]
    fn failures_that_lie_further_apart_than_the_window_do_not_open_it() {
        let mut machine = Machine::new(POLICY);
        (0..50).for_each(|n| machine.failed(Pass::Free, at(n * 6)));
        assert_eq!((machine.state(), machine.is_clean()), (State::Closed, false));
    }

    #[test]
    fn when_its_time_is_over_one_try_passes_and_closes_it_by_doing_well() {
        let mut machine = open();
        assert_eq!(machine.admit(at(3)), Ok(Pass::Probe));
        assert_eq!((machine.state(), machine.admit(at(3))), (State::HalfOpen, Err(at(1))));
        machine.succeeded(Pass::Probe);
        assert_eq!((machine.is_clean(), machine.admit(at(3))), (true, Ok(Pass::Free)));
    }

    #[test]
    fn every_try_that_fails_doubles_the_time_up_to_the_longest() {
        let mut machine = open();
        let mut now = at(3);
        for wait in [2, 4, 4, 4] {
            assert_eq!(machine.admit(now), Ok(Pass::Probe));
            machine.failed(Pass::Probe, now);
            assert_eq!(machine.admit(now), Err(at(wait)));
            now += at(wait);
        }
        assert_eq!(machine.admit(now), Ok(Pass::Probe));
        machine.succeeded(Pass::Probe);
        (0..3).for_each(|_| machine.failed(Pass::Free, now));
        assert_eq!(machine.admit(now), Err(at(1)), "the next outage begins anew");
    }

    #[test]
    fn a_try_that_ends_without_a_word_leaves_its_place_to_the_next() {
        let mut machine = open();
        assert_eq!(machine.admit(at(3)), Ok(Pass::Probe));
        machine.abandoned(Pass::Probe, at(4));
        assert_eq!(machine.admit(at(4)), Ok(Pass::Probe));
    }

    #[test]
    fn what_passed_before_it_opened_decides_nothing_afterwards() {
        let mut machine = open();
        machine.succeeded(Pass::Free);
        machine.failed(Pass::Free, at(2));
        assert_eq!(machine.admit(at(2)), Err(at(1)));
        assert_eq!(machine.admit(at(3)), Ok(Pass::Probe));
        machine.succeeded(Pass::Free);
        machine.failed(Pass::Free, at(3));
        machine.abandoned(Pass::Free, at(3));
        assert_eq!(machine.state(), State::HalfOpen);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Admit,
        Succeed,
        Fail,
        Abandon,
        Wait(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => Just(Event::Admit),
            1 => Just(Event::Succeed),
            3 => Just(Event::Fail),
            1 => Just(Event::Abandon),
            2 => (0u64..6_000).prop_map(Event::Wait),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: at most one try is out, nothing is refused for longer than the longest
        /// time, and a try that does well closes the breaker.
        #[test]
        fn it_never_sticks_and_never_lets_two_tries_out(events in prop::collection::vec(event(), 1..200)) {
            let mut machine = Machine::new(POLICY);
            let (mut now, mut out) = (Duration::ZERO, Vec::new());
            for event in events {
                match event {
                    Event::Admit => match machine.admit(now) {
                        Ok(pass) => out.push(pass),
                        Err(wait) => {
                            prop_assert!(wait <= POLICY.longest_open);
                            prop_assert!(machine.state() != State::Closed);
                        }
                    },
                    Event::Wait(milliseconds) => now += Duration::from_millis(milliseconds),
                    Event::Succeed | Event::Fail | Event::Abandon => {
                        let Some(pass) = out.pop() else { continue };
                        match event {
                            Event::Succeed => machine.succeeded(pass),
                            Event::Fail => machine.failed(pass, now),
                            _ => machine.abandoned(pass, now),
                        }
                        prop_assert!(!(matches!(event, Event::Succeed) && pass == Pass::Probe) || machine.is_clean());
                    }
                }
                let probes = out.iter().filter(|pass| **pass == Pass::Probe).count();
                prop_assert_eq!(probes, usize::from(machine.state() == State::HalfOpen));
            }
            // when the last try is given up and time passes, something passes again
            out.into_iter().for_each(|pass| machine.abandoned(pass, now));
            prop_assert!(machine.admit(now + POLICY.longest_open).is_ok());
        }
    }
}
