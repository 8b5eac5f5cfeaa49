//! How stations *process* and *initialize* take messages: a whole batch in one transaction, and one by one when a
//! message makes its batch fail, until that one is parked.

use crate::{Error, Orchestration, committed::Committed};
use serde_json::Value;
use std::future::Future;
use tasker_shared::{
    queue::{self, Message},
    runtime::Turn,
    step::DeadLetterReason,
    storage::{
        self, Session,
        dead_letters::{self, Parked},
    },
};

/// How long a message that failed alone stays hidden, in seconds.
const HIDDEN_SECONDS: i32 = 5;

/// What is done with the messages of one queue.
pub(crate) trait Work {
    /// The queue.
    const QUEUE: &'static str;
    /// The transaction's name.
    const NAME: &'static str;

    /// The most messages of one transaction.
    fn batch(orchestration: &Orchestration) -> i64;

    /// Does what the messages ask for; they are gone when the transaction commits.
    fn work(
        orchestration: &Orchestration,
        session: &mut Session,
        messages: &[Message],
    ) -> impl Future<Output = Result<Committed, Error>> + Send;
}

/// Takes and works off one batch.
pub(crate) async fn turn<W: Work>(orchestration: &Orchestration) -> Result<Turn, storage::Error> {
    match together::<W>(orchestration).await {
        Ok(turn) => Ok(turn),
        Err(Error::Storage(error)) if error.is_transient() => Err(error),
        Err(error) => {
            tracing::warn!(queue = W::QUEUE, %error, "a batch failed; its messages are worked off one by one");
            one_by_one::<W>(orchestration).await
        }
    }
}

async fn together<W: Work>(orchestration: &Orchestration) -> Result<Turn, Error> {
    let limit = W::batch(orchestration);
    let mut session = orchestration.database().begin(W::NAME).await?;
    let messages = queue::take(&mut session, W::QUEUE, limit).await?;
    if messages.is_empty() {
        session.rollback().await?;
        return Ok(Turn::Empty);
    }
    let mut committed = W::work(orchestration, &mut session, &messages).await?;
    committed.transaction = Some(session.commit().await?);
    let held = committed.held.map_or(Turn::Partial, Turn::Held);
    committed.tell(orchestration);
    let full = i64::try_from(messages.len()).is_ok_and(|n| n >= limit);
    Ok(if full { Turn::Full } else { held })
}

async fn one_by_one<W: Work>(orchestration: &Orchestration) -> Result<Turn, storage::Error> {
    for _ in 0..W::batch(orchestration) {
        let mut reading = orchestration.database().session("read_alone").await?;
        let Some(message) = queue::read_one(&mut reading, W::QUEUE, HIDDEN_SECONDS).await? else {
            return Ok(Turn::Partial);
        };
        drop(reading);
        match alone::<W>(orchestration, &message).await {
            Ok(()) => {}
            Err(Error::Storage(error)) if error.is_transient() => return Err(error),
            Err(error) if message.read_ct >= orchestration.settings().max_deliveries => {
                park::<W>(orchestration, &message, &error).await?;
            }
            Err(error) => tracing::warn!(
                queue = W::QUEUE, message.id = message.msg_id, reads = message.read_ct, %error,
                "a message failed alone; it is tried again until it is parked"
            ),
        }
    }
    Ok(Turn::Full)
}

async fn alone<W: Work>(orchestration: &Orchestration, message: &Message) -> Result<(), Error> {
    let mut session = orchestration.database().begin(W::NAME).await?;
    queue::delete(&mut session, W::QUEUE, &[message.msg_id]).await?;
    let mut committed = W::work(orchestration, &mut session, std::slice::from_ref(message)).await?;
    committed.transaction = Some(session.commit().await?);
    committed.tell(orchestration);
    Ok(())
}

async fn park<W: Work>(orchestration: &Orchestration, message: &Message, why: &Error) -> Result<(), storage::Error> {
    tracing::error!(queue = W::QUEUE, message.id = message.msg_id, error = %why, "a message failed too often and is parked");
    let mut session = orchestration.database().begin("park").await?;
    queue::archive(&mut session, W::QUEUE, message.msg_id).await?;
    let id = |key: &str| message.message.read().ok()?.get(key)?.as_str().map(str::to_owned);
    let task = id("task_id").and_then(|id| id.parse().ok());
    let step = id("step_id").and_then(|id| id.parse().ok());
    let (queue, detail) = (W::QUEUE, why.to_string());
    let reason = DeadLetterReason::Poison;
    let parked = Parked { queue, namespace: None, message, reason, detail: &detail, task, step };
    dead_letters::park(&mut session, &parked).await?;
    session.commit().await?;
    let mut committed = Committed::new();
    committed.parked.push(reason);
    committed.tell(orchestration);
    Ok(())
}

/// What a message asks for, or why nobody can tell.
pub(crate) fn understood<T>(message: &Message, says: fn(&Value) -> Option<T>, lacks: &str) -> Result<T, String> {
    let value = message.message.read().map_err(|why| format!("the message cannot be read: {why}"))?;
    says(value).ok_or_else(|| lacks.to_owned())
}

/// Parks a message of a batch that cannot be understood.
pub(crate) async fn park_unreadable(
    session: &mut Session,
    queue: &'static str,
    message: &Message,
    detail: &str,
    committed: &mut Committed,
) -> Result<(), storage::Error> {
    let reason = DeadLetterReason::Unreadable;
    let parked = Parked { queue, namespace: None, message, reason, detail, task: None, step: None };
    dead_letters::park(session, &parked).await?;
    queue::archive_taken(session, queue, message).await?;
    committed.parked.push(reason);
    Ok(())
}
