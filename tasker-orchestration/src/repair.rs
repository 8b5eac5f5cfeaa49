//! The repair sweep: looks for what the line may have missed, mends it, and says so.

use crate::{
    Error, Orchestration,
    committed::{Committed, TaskInfo},
    enqueue, finalize,
    operate::Work,
};
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};
use tasker_shared::{
    id::TaskId,
    name::Name,
    queue::QueueName,
    runtime::Topic,
    step::{DeadLetterReason, Failure, FailureKind, StallKind, StepState},
    storage::{
        self, leases, operations, repair,
        stalls::{self, Overdue},
        steps, templates,
    },
    task::TaskState,
};

/// The most tasks of one turn.
const BATCH: i64 = 500;

/// Mends the tasks that stand still; answers with the time until the next turn.
pub(crate) async fn turn(orchestration: &Orchestration) -> Result<Duration, storage::Error> {
    stalled(orchestration).await?;
    for task in suspects(orchestration).await? {
        match mend(orchestration, task).await {
            Ok(0) => {}
            Ok(mended) => {
                tracing::warn!(task.id = %task, mended, "a task stood still without a wake-up and was mended");
            }
            Err(Error::Storage(error)) if error.is_transient() => return Err(error),
            Err(error) => tracing::error!(task.id = %task, %error, "failed to mend a task that stands still"),
        }
    }
    Ok(orchestration.settings().repair_interval)
}

/// Enqueues again what stands still, and takes off the line what did so too often or waits too long.
async fn stalled(orchestration: &Orchestration) -> Result<(), storage::Error> {
    let settings = orchestration.settings();
    let namespaces = templates::namespaces(&mut orchestration.database().session("stalls").await?).await?;
    for namespace in &namespaces {
        requeue(orchestration, namespace).await?;
    }
    let mut session = orchestration.database().begin("overdue").await?;
    repair::prepare(&mut session).await?;
    let mut overdue = Vec::new();
    for namespace in &namespaces {
        overdue.extend(stalls::overdue(&mut session, namespace, settings.max_stalls, BATCH).await?);
    }
    session.rollback().await?;
    for step in overdue {
        match take_off(orchestration, &step).await {
            Ok(()) => {}
            Err(Error::Storage(error)) if error.is_transient() => return Err(error),
            Err(error) => {
                tracing::info!(task.id = %step.task_id, step.name = step.name, %error, "a step was not taken off the line")
            }
        }
    }
    Ok(())
}

/// Enqueues what stands still in one namespace. The messages are locked until the end, so that each namespace has a
/// transaction of its own.
async fn requeue(orchestration: &Orchestration, namespace: &Name) -> Result<(), storage::Error> {
    let older = orchestration.settings().stalled_after;
    let mut committed = Committed::new();
    let mut session = orchestration.database().begin("stalls").await?;
    repair::prepare(&mut session).await?;
    for step in stalls::requeue(&mut session, namespace, older, BATCH).await? {
        tracing::warn!(
            task.id = %step.task_id, step.id = %step.step_id, step.name = step.name, attempt = step.attempt,
            stalls = step.stalls, reason = step.reason, "a step stood still and is enqueued again"
        );
        let kind = if step.is_overrun { StallKind::Overrun } else { StallKind::LeaseLapsed };
        committed.stalled.push((kind, namespace.clone()));
        committed.moved_steps.push((StepState::InProgress, StepState::Enqueued));
        committed.rings.extend([Topic::Stopped, Topic::Steps(namespace.clone())]);
    }
    session.commit().await?;
    committed.tell(orchestration);
    Ok(())
}

async fn take_off(orchestration: &Orchestration, step: &Overdue) -> Result<(), Error> {
    let mut work = Work::of_orchestration(orchestration, step.task_id).await?;
    if work.is_ended() || step.max_queued_ms.is_some() && work.is_paused() {
        return Ok(());
    }
    // a worker may have claimed it meanwhile
    let (from, reason, kind, why): (&[_], _, _, _) = match step.max_queued_ms {
        Some(most) => {
            let why = format!(
                "it waited on its queue longer than lifecycle.max_queued allows, which is {} s",
                Duration::from_millis(u64::try_from(most).unwrap_or(0)).as_secs_f64()
            );
            (&[StepState::Enqueued], None, FailureKind::Overdue, why)
        }
        None => {
            let why = format!("it stood still {} times", step.stalls);
            (&[StepState::Enqueued, StepState::InProgress], Some(DeadLetterReason::Stalled), FailureKind::Stalled, why)
        }
    };
    let standing = work.step(&step.name).await?;
    work.take_off(&standing, from, reason, &Failure::new(kind, why.clone())).await?;
    match reason {
        Some(_) => {
            tracing::error!(task.id = %step.task_id, step.id = %step.step_id, step.name = step.name, why, "a step was parked");
        }
        None => {
            tracing::warn!(task.id = %step.task_id, step.id = %step.step_id, step.name = step.name, why, "a step was taken off the line");
        }
    }
    Ok(())
}

/// The time between two looks for leases that ran out.
const EXPIRED_EVERY: Duration = Duration::from_secs(5);

/// Brings steps whose lease ran out before all others; answers with the time until the next turn.
pub(crate) async fn expired_leases(orchestration: &Orchestration) -> Result<Duration, storage::Error> {
    let mut session = orchestration.database().session("expired_leases").await?;
    for namespace in templates::namespaces(&mut session).await? {
        if leases::hasten_expired(&mut session, &QueueName::of_namespace(&namespace)).await? > 0 {
            orchestration.bell().ring(Topic::Steps(namespace));
        }
    }
    Ok(EXPIRED_EVERY)
}

async fn suspects(orchestration: &Orchestration) -> Result<BTreeSet<TaskId>, storage::Error> {
    let older = orchestration.settings().stalled_after;
    let mut session = orchestration.database().begin("repair_look").await?;
    repair::prepare(&mut session).await?;
    let mut found: BTreeSet<TaskId> = repair::standing_still(&mut session, older, BATCH).await?.into_iter().collect();
    for namespace in templates::namespaces(&mut session).await? {
        found.extend(repair::without_message(&mut session, &namespace, older, BATCH).await?);
    }
    session.rollback().await?;
    Ok(found)
}

async fn mend(orchestration: &Orchestration, id: TaskId) -> Result<u64, Error> {
    let mut session = orchestration.database().begin("repair").await?;
    let Some(task) = operations::lock(&mut session, id).await? else { return Ok(0) };
    if task.state.is_final() {
        return Ok(0);
    }
    let older = orchestration.settings().stalled_after;
    let mut committed = Committed::new();
    let repaired = repair::mend(&mut session, id, &task.namespace, older).await?;
    let lost = usize::try_from(repaired.steps).unwrap_or(0);
    committed.stalled.extend(std::iter::repeat_n((StallKind::MessageLost, task.namespace.clone()), lost));
    let mut mended = repaired.all;
    if task.state != TaskState::Pending {
        let info = TaskInfo::from(&task);
        let ready = steps::enqueue_ready(&mut session, &[id], "orchestration").await?;
        mended += ready.len() as u64;
        let ready = ready.into_iter().map(|step| (step, info.clone(), StepState::Pending)).collect();
        enqueue::send(orchestration, &mut session, ready, &mut committed).await?;
        let counts: Vec<_> = operations::recount(&mut session, id).await?.into_iter().collect();
        let states = HashMap::from([(id, task.state)]);
        finalize::finalize(&mut session, &counts, &states, "orchestration", &mut committed).await?;
        mended += committed.ended.len() as u64;
    }
    committed.transaction = Some(session.commit().await?);
    committed.rings.extend([Topic::Results, Topic::Requests, Topic::Timers, Topic::Steps(task.namespace)]);
    committed.tell(orchestration);
    Ok(mended)
}
