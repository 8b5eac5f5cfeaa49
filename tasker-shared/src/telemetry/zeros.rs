//! Where counting begins: counters whose labels are known beforehand exist at zero from the start, so that their first
//! event is an increase for those who scrape.

use crate::{
    metrics::{Label, Metrics, Pruned, labels},
    queue::{STEP_RESULTS, TASK_REQUESTS},
    step::{DeadLetterReason, Edge},
    task::state::TaskState,
};
use std::collections::BTreeSet;

/// Adds zero to every counter with a closed set of labels.
pub(super) fn begin(metrics: &Metrics) {
    metrics.worker_heartbeat_failures.add(0, ());
    metrics.telemetry_overflow.add(0, ());
    for channel in crate::runtime::NOTIFICATIONS {
        metrics.notifications_sent.add(0, labels::Notification { channel });
        metrics.notifications_failed.add(0, labels::Notification { channel });
    }
    for reason in DeadLetterReason::ALL.iter().copied() {
        metrics.dlq_messages.add(0, labels::DeadLetter { reason });
        metrics.dlq_redrives.add(0, labels::DeadLetter { reason });
    }
    for kind in Pruned::ALL {
        metrics.retention_pruned.add(0, labels::PrunedKind { kind: *kind });
    }
    for queue in [TASK_REQUESTS, STEP_RESULTS] {
        for counter in [
            &metrics.queue_messages_sent,
            &metrics.queue_messages_received,
            &metrics.queue_messages_deleted,
            &metrics.queue_messages_archived,
            &metrics.queue_visibility_timeouts,
            &metrics.queue_retry_attempts,
            &metrics.queue_errors,
        ] {
            counter.add(0, labels::Queue { queue: Label::from(queue) });
        }
    }
    // two events may lead over the same edge
    metrics.tasks_transitions.add(0, labels::TaskTransition { from: None, to: TaskState::Pending });
    for (from, to) in TaskState::edges().map(|(from, _, to)| (from, to)).collect::<BTreeSet<_>>() {
        metrics.tasks_transitions.add(0, labels::TaskTransition { from: Some(from), to });
    }
    for (from, to) in Edge::all().map(|edge| (edge.from, edge.to)).collect::<BTreeSet<_>>() {
        metrics.steps_transitions.add(0, labels::StepTransition { from: Some(from), to });
    }
}
