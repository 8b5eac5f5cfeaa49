//! The life of a step: states, events and the one function that joins them.

use crate::text_enum;

text_enum! {
    /// Where a step stands.
    StepState {
        /// Waiting for its parents, or for its task to be resumed.
        Pending = "pending",
        /// On the queue of its namespace.
        Enqueued = "enqueued",
        /// Claimed: a worker holds its lease.
        InProgress = "in_progress",
        /// The outcome is stored and not yet evaluated.
        Reported = "reported",
        /// Failed; a timer runs it again.
        WaitingForRetry = "waiting_for_retry",
        /// Done.
        Complete = "complete",
        /// Failed for good.
        Error = "error",
        /// Stopped by an operator.
        Cancelled = "cancelled",
        /// Not needed.
        Skipped = "skipped",
        /// An operator gave the result.
        ResolvedManually = "resolved_manually",
    }
}

text_enum! {
    /// What can happen to a step.
    StepEvent {
        /// Nothing is left to wait for.
        Enqueue = "enqueue",
        /// A worker takes the lease.
        Claim = "claim",
        /// The lease ran out and a worker takes it anew.
        Reclaim = "reclaim",
        /// The lease is given back: by a worker that stops, or for one that stands still.
        Release = "release",
        /// The task is paused before the step was claimed.
        Withdraw = "withdraw",
        /// The worker stores the outcome.
        Report = "report",
        /// The outcome is a success.
        Complete = "complete",
        /// The outcome is a failure that is tried again.
        Retry = "retry",
        /// The back-off is over.
        Due = "due",
        /// The outcome is a failure that is final.
        Fail = "fail",
        /// It is taken off the line: by an operator, because it stalls, or because it waited too long.
        Park = "park",
        /// An operator stops it.
        Cancel = "cancel",
        /// It is not needed.
        Skip = "skip",
        /// An operator gives the result.
        Resolve = "resolve",
        /// An operator runs a failed step again.
        Reopen = "reopen",
    }
}

/// The event does not apply in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a step that is {from} cannot {event}")]
pub struct Illegal {
    /// Where the step stands.
    pub from: StepState,
    /// What was asked for.
    pub event: StepEvent,
}

impl StepState {
    /// The state that `event` leads to.
    ///
    /// # Errors
    /// [`Illegal`] when the event does not apply in this state.
    pub const fn on(self, event: StepEvent) -> Result<Self, Illegal> {
        use StepEvent as E;
        use StepState as S;
        Ok(match (self, event) {
            (S::Pending, E::Enqueue)
            | (S::WaitingForRetry, E::Due)
            | (S::InProgress, E::Release)
            | (S::Error, E::Reopen) => S::Enqueued,
            (S::Enqueued, E::Claim) | (S::InProgress, E::Reclaim) => S::InProgress,
            (S::Enqueued, E::Withdraw) => S::Pending,
            (S::InProgress, E::Report) => S::Reported,
            (S::Reported, E::Complete) => S::Complete,
            (S::Reported, E::Retry) => S::WaitingForRetry,
            (S::Reported, E::Fail) | (S::Enqueued | S::InProgress | S::WaitingForRetry, E::Park) => S::Error,
            (S::Pending, E::Skip) => S::Skipped,
            (S::Pending | S::Enqueued | S::InProgress | S::Reported | S::WaitingForRetry, E::Cancel) => S::Cancelled,
            (S::Pending | S::Enqueued | S::InProgress | S::WaitingForRetry | S::Error, E::Resolve) => {
                S::ResolvedManually
            }
            (from, event) => return Err(Illegal { from, event }),
        })
    }

    /// Whether nothing follows by itself.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Error | Self::Cancelled | Self::Skipped | Self::ResolvedManually)
    }

    /// Whether dependents may go on.
    pub const fn satisfies_dependents(self) -> bool {
        matches!(self, Self::Complete | Self::Skipped | Self::ResolvedManually)
    }
}

/// One legal move, checked when the program is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Where the step must be.
    pub from: StepState,
    /// What happens.
    pub event: StepEvent,
    /// Where it will be.
    pub to: StepState,
}

impl Edge {
    /// The edge that `event` takes out of `from`. A `const` with an edge that does not exist fails to compile.
    pub const fn of(from: StepState, event: StepEvent) -> Self {
        match from.on(event) {
            Ok(to) => Self { from, event, to },
            Err(_) => panic!("there is no such edge"),
        }
    }

    /// Every legal edge.
    pub fn all() -> impl Iterator<Item = Self> {
        StepState::ALL.iter().flat_map(|from| {
            StepEvent::ALL
                .iter()
                .filter_map(|event| from.on(*event).ok().map(|to| Self { from: *from, event: *event, to }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Edge, StepState};

    #[test]
    fn no_edge_leaves_a_final_state_but_by_an_operator() {
        for edge in Edge::all().filter(|e| e.from.is_final()) {
            assert_eq!(edge.from, StepState::Error, "{edge:?}");
        }
    }

    #[test]
    fn every_state_but_pending_is_reached_by_an_edge() {
        for state in StepState::ALL.iter().filter(|s| **s != StepState::Pending) {
            assert!(Edge::all().any(|e| e.to == *state), "{state} is never reached");
        }
    }

    #[test]
    fn every_state_that_is_not_final_can_be_left() {
        for state in StepState::ALL.iter().filter(|s| !s.is_final()) {
            assert!(Edge::all().any(|e| e.from == *state && e.to != *state), "{state} is a trap");
        }
    }
}
