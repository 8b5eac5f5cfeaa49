//! What is due: delayed tasks start, failed steps run again, tasks that last too long end.

use crate::{
    Error, Orchestration,
    committed::{Committed, TaskInfo},
    enqueue, initialize, limits,
};
use serde_json::json;
use std::time::Duration;
use tasker_shared::{
    id::{StepId, TaskId},
    step::StepState,
    storage::{
        self, Session, operations,
        reports::Ready,
        tasks::{self, Ending},
        timers::{self, Due, Retried},
    },
    task::TaskState,
};

/// The most timers of one transaction.
const BATCH: i64 = 200;

/// The time between two looks at timers whose tasks somebody else holds.
const HELD: Duration = Duration::from_millis(10);

/// Acts on the timers that are due; answers with the time until the next one.
pub(crate) async fn turn(orchestration: &Orchestration) -> Result<Duration, storage::Error> {
    match fire(orchestration).await {
        Ok(next) => Ok(next),
        Err(Error::Storage(error)) => Err(error),
        Err(error) => Err(storage::Error::Inconsistent {
            table: "timers",
            column: "subject",
            row: "a batch".to_owned(),
            reason: error.to_string(),
        }),
    }
}

async fn fire(orchestration: &Orchestration) -> Result<Duration, Error> {
    let mut session = orchestration.database().begin("timers").await?;
    let due = timers::take_due(&mut session, BATCH).await?;
    if !due.is_empty() {
        let mut committed = Committed::new();
        start(orchestration, &mut session, &due, &mut committed).await?;
        retry(orchestration, &mut session, &due, &mut committed).await?;
        end_late(&mut session, &due, &mut committed).await?;
        committed.transaction = Some(session.commit().await?);
        committed.tell(orchestration);
        // there may be more, and tasks that somebody else held
        return Ok(Duration::from_millis(if due.len() < 10 { 10 } else { 0 }));
    }
    session.rollback().await?;
    let mut session = orchestration.database().session("next_timer").await?;
    let longest = orchestration.settings().timer_poll_interval;
    let next = timers::next_due(&mut session).await?.unwrap_or(longest);
    // what is due and was not taken is held by somebody
    let shortest = if next.is_zero() { HELD } else { Duration::from_millis(1) };
    Ok(next.clamp(shortest, longest))
}

async fn start(
    orchestration: &Orchestration,
    session: &mut Session,
    due: &[Due],
    committed: &mut Committed,
) -> Result<(), Error> {
    let ids: Vec<TaskId> = of_kind(due, "start").into_iter().map(|due| due.task_id).collect();
    if !ids.is_empty() {
        initialize::initialize_pending(orchestration, session, &ids, true, committed).await?;
    }
    Ok(())
}

async fn retry(
    orchestration: &Orchestration,
    session: &mut Session,
    due: &[Due],
    committed: &mut Committed,
) -> Result<(), Error> {
    let steps: Vec<StepId> = of_kind(due, "retry").into_iter().map(|due| StepId(due.subject)).collect();
    if steps.is_empty() {
        return Ok(());
    }
    let retried = timers::enqueue_retries(session, &steps).await?;
    let ready = retried.into_iter().map(|step| {
        let (ready, task) = parts(step);
        (ready, task, StepState::WaitingForRetry)
    });
    enqueue::send(orchestration, session, ready.collect(), committed).await
}

/// The states of a step of a task that has not ended.
const OPEN: [StepState; 5] =
    [StepState::Pending, StepState::Enqueued, StepState::InProgress, StepState::Reported, StepState::WaitingForRetry];

async fn end_late(session: &mut Session, due: &[Due], committed: &mut Committed) -> Result<(), Error> {
    let late: Vec<&Due> = of_kind(due, "deadline").into_iter().filter(|due| !due.task_state.is_final()).collect();
    if late.len() > 1 {
        let tasks: Vec<TaskId> = late.iter().map(|late| late.task_id).collect();
        operations::hold_steps(session, &tasks, &OPEN).await?;
    }
    for late in late {
        end(session, late, committed).await?;
    }
    Ok(())
}

async fn end(session: &mut Session, late: &Due, committed: &mut Committed) -> Result<(), Error> {
    const REASON: &str = "the task lasted longer than its lifecycle.max_duration allows";
    let (to, who) = (StepState::Cancelled, "orchestration");
    let stopped = operations::move_steps(session, late.task_id, None, &OPEN, to, None, who, Some(REASON)).await?;
    committed.moved_steps.extend(stopped.iter().map(|step| (step.from_state, to)));
    let steps: Vec<StepId> = stopped.iter().map(|step| step.step_id).collect();
    limits::clear(session, &late.namespace, &steps).await?;
    operations::recount(session, late.task_id).await?;
    let error = json!({ "message": REASON, "failed_steps": [] });
    let ending = Ending { id: late.task_id, from: late.task_state, to: TaskState::Error, error: Some(error) };
    let ended = tasks::finalize(session, &[ending], who).await?;
    committed.ended.extend(ended.into_iter().map(|ended| (ended, late.task_state)));
    committed.rings.insert(tasker_shared::runtime::Topic::Stopped);
    Ok(())
}

fn of_kind<'a>(due: &'a [Due], kind: &str) -> Vec<&'a Due> {
    due.iter().filter(|due| due.kind == kind).collect()
}

fn parts(step: Retried) -> (Ready, TaskInfo) {
    let ready = Ready {
        step_id: step.step_id,
        task_id: step.task_id,
        name: step.name,
        attempt: step.attempt,
        cause: None,
        cause_attempt: None,
    };
    let task = TaskInfo {
        id: step.task_id,
        namespace: step.namespace,
        name: step.task_name,
        priority: step.priority,
        correlation_id: step.correlation_id,
        traceparent: step.traceparent,
    };
    (ready, task)
}
