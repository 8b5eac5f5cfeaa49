//! Station *enqueue*: steps that nothing holds back get their doorbells, in the transaction that made them ready.

use crate::{
    Error, Orchestration,
    committed::{Committed, TaskInfo},
};
use std::collections::BTreeMap;
use tasker_shared::{
    queue::{self, QueueName, StepMessage},
    step::StepState,
    storage::{Session, reports::Ready},
    telemetry::{Station, TraceParent, span_id},
};

/// Sends the doorbells of steps that were enqueued from the given states.
pub(crate) async fn send(
    orchestration: &Orchestration,
    session: &mut Session,
    ready: Vec<(Ready, TaskInfo, StepState)>,
    committed: &mut Committed,
) -> Result<(), Error> {
    let mut queues: BTreeMap<QueueName, Vec<StepMessage>> = BTreeMap::new();
    for (step, task, _) in &ready {
        let context = TraceParent {
            correlation_id: task.correlation_id,
            span_id: span_id(step.step_id.0, step.attempt.cast_unsigned(), Station::Enqueue),
            sampled: orchestration.tracing().keeps(task.trace()),
        };
        queues.entry(QueueName::of_namespace(&task.namespace)).or_default().push(StepMessage {
            step_id: step.step_id,
            task_id: task.id,
            priority: task.priority,
            correlation_id: task.correlation_id,
            traceparent: context.to_string(),
        });
    }
    for (queue, messages) in &queues {
        queue::send_steps(session, queue, messages).await?;
    }
    committed.enqueued.extend(ready);
    Ok(())
}
