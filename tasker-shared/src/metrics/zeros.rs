//! Where counting begins: counters whose labels are known beforehand exist at zero from the start, so that their first
//! event is an increase for those who scrape.

use super::{Label, Metrics, labels};
use crate::{
    queue::{STEP_RESULTS, TASK_REQUESTS},
    step::Edge,
    task::state::TaskState,
};
use std::collections::BTreeSet;

impl Metrics {
    /// Adds zero to every counter with a closed set of labels.
    pub fn begin_at_zero(&self) {
        self.worker_heartbeat_failures.add(0, ());
        self.telemetry_overflow.add(0, ());
        for reason in ["unreadable", "poison"] {
            self.dlq_messages.add(0, labels::DeadLetter { reason });
        }
        for queue in [TASK_REQUESTS, STEP_RESULTS] {
            for counter in [
                &self.queue_messages_sent,
                &self.queue_messages_received,
                &self.queue_messages_deleted,
                &self.queue_messages_archived,
                &self.queue_visibility_timeouts,
                &self.queue_retry_attempts,
                &self.queue_errors,
            ] {
                counter.add(0, labels::Queue { queue: Label::from(queue) });
            }
        }
        // two events may lead over the same edge
        self.tasks_transitions.add(0, labels::TaskTransition { from: None, to: TaskState::Pending });
        for (from, to) in TaskState::edges().map(|(from, _, to)| (from, to)).collect::<BTreeSet<_>>() {
            self.tasks_transitions.add(0, labels::TaskTransition { from: Some(from), to });
        }
        for (from, to) in Edge::all().map(|edge| (edge.from, edge.to)).collect::<BTreeSet<_>>() {
            self.steps_transitions.add(0, labels::StepTransition { from: Some(from), to });
        }
    }
}
