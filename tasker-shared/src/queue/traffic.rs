//! What passes the queues' doors: durations and errors as they happen, messages once they are durable.

use crate::{
    metrics::{Label, Metrics, labels},
    storage::{Error, Moved, Session},
};
use std::time::{Instant, SystemTime};

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
    /// What happened to how many messages, as far as something happened.
    pub(crate) fn moved(self) -> impl Iterator<Item = (Moved, u64)> {
        let moved = [
            (Moved::Sent, self.sent),
            (Moved::Received, self.received),
            (Moved::Settled, self.deleted + self.archived),
        ];
        moved.into_iter().filter(|(_, messages)| *messages > 0)
    }

    /// This without messages that were put back as if they had not been taken.
    pub(crate) fn without(self, returned: Self) -> Self {
        Self {
            sent: self.sent,
            received: self.received.saturating_sub(returned.received),
            again: self.again.saturating_sub(returned.again),
            lapsed: self.lapsed.saturating_sub(returned.lapsed),
            deleted: self.deleted.saturating_sub(returned.deleted),
            archived: self.archived,
        }
    }

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
    began: SystemTime,
    started: Instant,
}

impl Door {
    /// Opens: the statement runs next.
    pub(crate) fn of(queue: impl Into<Label>) -> Self {
        Self { queue: queue.into(), began: SystemTime::now(), started: Instant::now() }
    }

    /// When the statement began.
    pub(crate) fn began(&self) -> SystemTime {
        self.began
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
                session.passed(self.queue, traffic, self.began);
                Ok(value)
            }
            Err(error) => {
                metrics.queue_errors.add(1, queue());
                Err(error)
            }
        }
    }
}
