//! The life of a task: states, events and the one function that joins them.

use crate::text_enum;

text_enum! {
    /// Where a task stands.
    TaskState {
        /// Accepted; its steps do not exist yet: queued or delayed.
        Pending = "pending",
        /// Its steps run.
        InProgress = "in_progress",
        /// Steps that run may end; none is started.
        Paused = "paused",
        /// Every step is done.
        Complete = "complete",
        /// A step failed and nothing else can run.
        Error = "error",
        /// Stopped by an operator.
        Cancelled = "cancelled",
        /// An operator has dealt with the failure outside.
        ResolvedManually = "resolved_manually",
    }
}

text_enum! {
    /// What can happen to a task.
    TaskEvent {
        /// Its steps are made.
        Initialize = "initialize",
        /// The template refuses its input.
        Reject = "reject",
        /// The last step is done.
        Complete = "complete",
        /// Nothing can run any more, and not every step is done.
        Fail = "fail",
        /// An operator stops it.
        Cancel = "cancel",
        /// An operator holds it.
        Pause = "pause",
        /// An operator lets it go on.
        Resume = "resume",
        /// An operator runs a failed step again.
        Reopen = "reopen",
        /// An operator declares it settled.
        Resolve = "resolve",
    }
}

/// The event does not apply in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task that is {from} cannot {event}")]
pub struct Illegal {
    /// Where the task stands.
    pub from: TaskState,
    /// What was asked for.
    pub event: TaskEvent,
}

impl TaskState {
    /// The state that `event` leads to.
    ///
    /// # Errors
    /// [`Illegal`] when the event does not apply in this state.
    pub const fn on(self, event: TaskEvent) -> Result<Self, Illegal> {
        use TaskEvent as E;
        use TaskState as S;
        Ok(match (self, event) {
            (S::Pending, E::Initialize) | (S::Paused, E::Resume) | (S::Error, E::Reopen) => S::InProgress,
            (S::Pending, E::Reject) | (S::InProgress | S::Paused, E::Fail) => S::Error,
            (S::InProgress | S::Paused, E::Complete) => S::Complete,
            (S::Pending | S::InProgress | S::Paused, E::Cancel) => S::Cancelled,
            (S::InProgress, E::Pause) => S::Paused,
            (S::Error, E::Resolve) => S::ResolvedManually,
            (from, event) => return Err(Illegal { from, event }),
        })
    }

    /// Whether nothing follows by itself.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Error | Self::Cancelled | Self::ResolvedManually)
    }

    /// Every legal edge as (from, event, to).
    pub fn edges() -> impl Iterator<Item = (Self, TaskEvent, Self)> {
        Self::ALL.iter().flat_map(|from| {
            TaskEvent::ALL.iter().filter_map(|event| from.on(*event).ok().map(|to| (*from, *event, to)))
        })
    }
}

/// How a task ends, by its step counts: the decision of station *finalize*.
///
/// `remaining` counts the steps that dependents could still wait for; `active` those of them that wait for no parent.
/// While a step is active the task goes on, so that independent branches end whatever happens beside them.
pub const fn ending(remaining: i32, active: i32) -> Option<TaskEvent> {
    match (remaining, active) {
        (0, _) => Some(TaskEvent::Complete),
        (_, 0) => Some(TaskEvent::Fail),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{TaskEvent, TaskState, ending};

    #[test]
    fn only_an_operator_leaves_a_final_state() {
        for (from, event, _) in TaskState::edges().filter(|(from, ..)| from.is_final()) {
            assert!(matches!(event, TaskEvent::Reopen | TaskEvent::Resolve), "{from} {event}");
        }
    }

    #[test]
    fn a_task_ends_when_nothing_is_active() {
        assert_eq!(ending(0, 0), Some(TaskEvent::Complete));
        assert_eq!(ending(2, 1), None);
        assert_eq!(ending(2, 0), Some(TaskEvent::Fail));
    }
}
