//! What passes the queues' doors: durations and errors as they happen, messages once they are durable.

use crate::{
    metrics::{Label, Metrics, labels},
    storage::{Error, Session},
};
use std::time::Instant;

/// Messages of one queue that one statement moved.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Sent.
    pub(crate) sent: u64,
    /// Read.
    pub(crate) received: u64,
    /// Of those read, the ones that an earlier reader did not finish with.
    pub(crate) again: u64,
    /// Of those read again, the ones whose visibility timeout passed.
    pub(crate) lapsed: u64,
    /// Deleted because they were dealt with.
    pub(crate) deleted: u64,
    /// Moved to the archive because they could not be dealt with.
    pub(crate) archived: u64,
}

impl Traffic {
    /// Counts what is durable now.
    pub(crate) fn count(self, metrics: &Metrics, queue: &Label) {
        let counters = [
            (&metrics.queue_messages_sent, self.sent),
            (&metrics.queue_messages_received, self.received),
            (&metrics.queue_retry_attempts, self.again),
            (&metrics.queue_visibility_timeouts, self.lapsed),
            (&metrics.queue_messages_deleted, self.deleted),
            (&metrics.queue_messages_archived, self.archived),
        ];
        for (counter, messages) in counters.into_iter().filter(|(_, messages)| *messages > 0) {
            counter.add(messages, labels::Queue { queue: queue.clone() });
        }
    }
}

/// One statement at the door of one queue.
#[derive(Debug)]
pub(crate) struct Door {
    queue: Label,
    started: Instant,
}

impl Door {
    /// Opens: the statement runs next.
    pub(crate) fn of(queue: impl Into<Label>) -> Self {
        Self { queue: queue.into(), started: Instant::now() }
    }

    /// Closes behind the statement. What it moved is counted when the session's transaction commits.
    pub(crate) fn close<T>(
        self,
        session: &mut Session,
        answer: Result<T, Error>,
        moved: impl FnOnce(&T) -> Traffic,
    ) -> Result<T, Error> {
        let metrics = session.metrics();
        let queue = || labels::Queue { queue: self.queue.clone() };
        match answer {
            Ok(value) => {
                let traffic = moved(&value);
                if traffic.sent > 0 {
                    metrics.queue_message_send_duration.record_since(self.started, queue());
                }
                if traffic.received > 0 {
                    metrics.queue_message_receive_duration.record_since(self.started, queue());
                }
                session.passed(self.queue, traffic);
                Ok(value)
            }
            Err(error) => {
                metrics.queue_errors.add(1, queue());
                Err(error)
            }
        }
    }
}
