//! Who waits for tasks to end: woken by announcements, and by a look at the database when these may have been lost.

use crate::Orchestration;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tasker_shared::{
    id::TaskId,
    runtime::Finished,
    storage::{self, Error},
};
use tokio::sync::{broadcast::error::RecvError, oneshot};
use tokio_util::sync::CancellationToken;

/// How often waited-for tasks are looked up, whatever is announced.
const LOOK: Duration = Duration::from_millis(500);

/// The tasks that somebody waits for.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<HashMap<TaskId, Vec<oneshot::Sender<()>>>>);

impl Waiting {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Completes when `task` ends. Call it before looking at the task, so that an end in between is not missed.
    pub fn on(&self, task: TaskId) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.locked().entry(task).or_default().push(sender);
        receiver
    }

    fn tell(&self, tasks: &[TaskId]) {
        let mut waiting = self.locked();
        for sender in tasks.iter().filter_map(|task| waiting.remove(task)).flatten() {
            // whoever waited may have given up
            let _ = sender.send(());
        }
    }

    /// The tasks that are still waited for; those whose waiters gave up are forgotten.
    fn open(&self) -> Vec<TaskId> {
        let mut waiting = self.locked();
        waiting.retain(|_, senders| {
            senders.retain(|sender| !sender.is_closed());
            !senders.is_empty()
        });
        waiting.keys().copied().collect()
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<TaskId, Vec<oneshot::Sender<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells waiters, until `shutdown`.
pub(crate) async fn tell(orchestration: Orchestration, shutdown: CancellationToken) {
    let mut finished = orchestration.bell().finished();
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let heard = tokio::select! {
            () = shutdown.cancelled() => return,
            heard = finished.recv() => heard,
            _ = tick.tick() => Ok(Finished::Some),
        };
        match heard {
            Ok(Finished::Tasks(tasks)) => orchestration.waiting().tell(&tasks),
            Ok(Finished::Some) | Err(RecvError::Lagged(_)) => {
                if let Err(error) = look(&orchestration).await {
                    tracing::debug!(%error, "failed to look for ended tasks; trying again");
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn look(orchestration: &Orchestration) -> Result<(), Error> {
    let open = orchestration.waiting().open();
    if open.is_empty() {
        return Ok(());
    }
    let mut session = orchestration.database().session("look_for_ended").await?;
    let ended = storage::tasks::ended(&mut session, &open).await?;
    orchestration.waiting().tell(&ended);
    Ok(())
}
