//! Tasks that were submitted by SQL: the queue `task_requests` leads them to station *initialize*.

use crate::{
    Error, Orchestration,
    committed::Committed,
    initialize,
    taken::{Work, park_unreadable, understood},
};
use tasker_shared::{
    queue::{self, Message, TASK_REQUESTS},
    storage::Session,
};

pub(crate) struct Requests;

impl Work for Requests {
    const QUEUE: &'static str = TASK_REQUESTS;
    const NAME: &'static str = "initialize";

    fn batch(orchestration: &Orchestration) -> i64 {
        orchestration.settings().requests_batch
    }

    async fn work(
        orchestration: &Orchestration,
        session: &mut Session,
        messages: &[Message],
    ) -> Result<Committed, Error> {
        let mut committed = Committed::new();
        let mut ids = Vec::new();
        for message in messages {
            match understood(message, queue::requested_task, "the message has no task_id") {
                Ok(id) => ids.push(id),
                Err(detail) => park_unreadable(session, Self::QUEUE, message, &detail, &mut committed).await?,
            }
        }
        let accepted = initialize::initialize_pending(orchestration, session, &ids, false, &mut committed).await?;
        let infos = accepted.iter().map(initialize::info);
        committed.submitted = infos.clone().collect();
        committed.requested = infos.collect();
        Ok(committed)
    }
}
