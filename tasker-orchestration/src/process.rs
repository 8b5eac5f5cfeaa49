//! Station *process*: outcomes become verdicts, and verdicts move the graph on.

use crate::{
    Error, Orchestration,
    committed::{Committed, Processed, TaskInfo},
    enqueue, finalize,
    initialize::known,
    taken::Work,
};
use rand::RngExt as _;
use std::collections::HashMap;
use tasker_shared::{
    id::{StepId, TaskId},
    queue::{self, Message, STEP_RESULTS},
    runtime::Topic,
    step::{FailureKind, RetryPolicy, StepState, Verdict, verdict},
    storage::{
        Session, dead_letters,
        reports::{self, Reported},
    },
};

pub(crate) struct Process;

impl Work for Process {
    const QUEUE: &'static str = STEP_RESULTS;
    const NAME: &'static str = "process";

    fn batch(orchestration: &Orchestration) -> i64 {
        orchestration.settings().results_batch
    }

    async fn work(
        orchestration: &Orchestration,
        session: &mut Session,
        messages: &[Message],
    ) -> Result<Committed, Error> {
        let mut committed = Committed::new();
        let mut steps = Vec::new();
        for message in messages {
            match step_of(message) {
                Some(step) => steps.push(step),
                None => {
                    let detail = "the message lacks step_id, task_id or attempt";
                    dead_letters::park(session, Self::QUEUE, message, "unreadable", detail, None, None).await?;
                    queue::archive_taken(session, Self::QUEUE, message).await?;
                    committed.parked.push("unreadable");
                }
            }
        }
        let reported = reports::lock(session, &steps).await?;
        if reported.is_empty() {
            return Ok(committed);
        }
        process(orchestration, session, reported, &mut committed).await?;
        Ok(committed)
    }
}

async fn process(
    orchestration: &Orchestration,
    session: &mut Session,
    reported: Vec<Reported>,
    committed: &mut Committed,
) -> Result<(), Error> {
    let ids = reported.iter().map(|step| step.template_id).collect();
    let templates = orchestration.compiled(session, ids).await?;
    let mut verdicts = Vec::with_capacity(reported.len());
    for step in &reported {
        let template = known(&templates, step.template_id)?;
        let policy = template.step(&step.step_name).map(|step| step.retry.clone()).unwrap_or_default();
        verdicts.push((step.step_id, judge(step, &policy)));
    }
    let poison: Vec<&Reported> = reported.iter().filter(|s| failure_of(s) == Some(FailureKind::Poison)).collect();
    for step in poison {
        park_poison(session, step).await?;
        committed.parked.push("poison");
    }
    let advanced = reports::advance(session, &verdicts).await?;
    if verdicts.iter().any(|(_, verdict)| matches!(verdict, Verdict::Retry(_))) {
        committed.rings.insert(Topic::Timers);
    }
    let tasks: HashMap<TaskId, TaskInfo> = reported.iter().map(|step| (step.task_id, info(step))).collect();
    let states = reported.iter().map(|step| (step.task_id, step.task_state)).collect();
    let ready = advanced.ready.into_iter().filter_map(|ready| {
        let task = tasks.get(&ready.task_id)?.clone();
        Some((ready, task, StepState::Pending))
    });
    enqueue::send(orchestration, session, ready.collect(), committed).await?;
    finalize::finalize(session, &advanced.tasks, &states, "orchestration", committed).await?;
    committed.processed = reported
        .into_iter()
        .zip(verdicts)
        .map(|(step, (_, verdict))| Processed {
            task: info(&step),
            step_id: step.step_id,
            failure: failure_of(&step),
            step_name: step.step_name,
            attempt: step.attempt,
            result: step.outcome,
            verdict,
        })
        .collect();
    Ok(())
}

fn judge(step: &Reported, policy: &RetryPolicy) -> Verdict {
    let failures = u32::try_from(step.failures).unwrap_or(0) + 1;
    verdict(step.error.as_ref().map(|e| &e.0), failures, policy, rand::rng().random())
}

async fn park_poison(session: &mut Session, step: &Reported) -> Result<(), Error> {
    let message = Message {
        msg_id: 0,
        read_ct: step.attempt,
        enqueued_at: step.reported_at,
        message: serde_json::json!({ "task_id": step.task_id, "step_id": step.step_id }),
        headers: None,
    };
    let detail = step.error.as_ref().map_or("", |e| e.message.as_str());
    let queue = tasker_shared::queue::QueueName::of_namespace(&step.namespace);
    let (task, step) = (Some(step.task_id), Some(step.step_id));
    dead_letters::park(session, queue.as_str(), &message, "poison", detail, task, step).await?;
    Ok(())
}

fn failure_of(step: &Reported) -> Option<FailureKind> {
    step.error.as_ref().map(|e| e.kind)
}

fn info(step: &Reported) -> TaskInfo {
    TaskInfo {
        id: step.task_id,
        namespace: step.namespace.clone(),
        name: step.task_name.clone(),
        priority: step.priority,
        correlation_id: step.correlation_id,
        traceparent: step.traceparent.clone(),
    }
}

fn step_of(message: &Message) -> Option<(StepId, TaskId, i32)> {
    let id = |key: &str| message.message.get(key)?.as_str();
    let attempt = message.message.get("attempt")?.as_i64()?;
    Some((id("step_id")?.parse().ok()?, id("task_id")?.parse().ok()?, i32::try_from(attempt).ok()?))
}
