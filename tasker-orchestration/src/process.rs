//! Station *process*: outcomes become verdicts, and verdicts move the graph on.

use crate::{
    Error, Orchestration,
    committed::{Committed, Processed, TaskInfo},
    enqueue, finalize,
    initialize::known,
    taken::{Work, park_unreadable, understood},
};
use rand::RngExt as _;
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tasker_shared::{
    id::{StepId, TaskId},
    queue::{self, Message, QueueName, STEP_RESULTS},
    runtime::Topic,
    step::{DeadLetterReason, FailureKind, RetryPolicy, StepState, Verdict, missing, verdict},
    storage::{
        Session,
        dead_letters::{self, Parked},
        reports::{self, Judged, Reported},
        stalls,
    },
    template::Lifecycle,
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
            match understood(message, queue::reported_step, "the message lacks step_id, task_id or attempt") {
                Ok(step) => steps.push((message, step)),
                Err(detail) => park_unreadable(session, Self::QUEUE, message, &detail, &mut committed).await?,
            }
        }
        let asked: Vec<_> = steps.iter().map(|(_, step)| *step).collect();
        let reported = reports::lock(session, &asked).await?;
        committed.held = leave_held(session, &steps, &reported).await?;
        if reported.is_empty() {
            return Ok(committed);
        }
        process(orchestration, session, reported, &mut committed).await?;
        Ok(committed)
    }
}

/// Puts back the messages of steps whose task somebody else holds: what waits for that task must not hold up all others.
async fn leave_held(
    session: &mut Session,
    asked: &[(&Message, (StepId, TaskId, i32))],
    reported: &[Reported],
) -> Result<Option<Duration>, Error> {
    let locked: HashSet<(StepId, i32)> = reported.iter().map(|step| (step.step_id, step.attempt)).collect();
    let missing: Vec<_> = asked.iter().filter(|(_, (step, _, attempt))| !locked.contains(&(*step, *attempt))).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let steps: Vec<_> = missing.iter().map(|(_, step)| *step).collect();
    let held: HashSet<StepId> = reports::held(session, &steps).await?.into_iter().collect();
    let back: Vec<&Message> = missing.iter().filter(|(_, step)| held.contains(&step.0)).map(|(m, _)| *m).collect();
    if back.is_empty() {
        return Ok(None);
    }
    Ok(Some(queue::put_back(session, STEP_RESULTS, &back).await?))
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
    let patience = orchestration.settings().handler_missing_after;
    let mut retries = Retries::default();
    for step in &reported {
        let template = known(&templates, step.template_id)?;
        let policy = template.step(&step.step_name).map(|step| step.retry.clone()).unwrap_or_default();
        let verdict = judge(step, &policy, patience);
        let (verdict, reason) = retries.within(session, step, verdict, &template.template().lifecycle).await?;
        if let Some(reason) = parks(step, verdict) {
            park(session, step, reason).await?;
            committed.parked.push(reason);
        }
        verdicts.push(Judged { step_id: step.step_id, verdict, reason });
    }
    let advanced = reports::advance(session, &verdicts).await?;
    if verdicts.iter().any(|judged| matches!(judged.verdict, Verdict::Retry(_) | Verdict::Miss(_))) {
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
        .map(|(step, Judged { verdict, .. })| Processed {
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

fn judge(step: &Reported, policy: &RetryPolicy, patience: Duration) -> Verdict {
    if failure_of(step) == Some(FailureKind::HandlerNotFound) && policy.retryable {
        let since = step.reported_at - step.missing_since.unwrap_or(step.reported_at);
        return missing(since.to_std().unwrap_or_default(), patience);
    }
    let failures = u32::try_from(step.failures).unwrap_or(0) + 1;
    verdict(step.error.as_ref().map(|e| &e.0), failures, policy, rand::rng().random())
}

/// The limits on retries of a task's `lifecycle`. Retries that this batch grants count too.
#[derive(Default)]
struct Retries(HashMap<TaskId, i64>);

impl Retries {
    /// The verdict, and why it is another one than without limits.
    async fn within(
        &mut self,
        session: &mut Session,
        step: &Reported,
        verdict: Verdict,
        limits: &Lifecycle,
    ) -> Result<(Verdict, Option<String>), Error> {
        let fails = |why| Ok((Verdict::Fail { exhausted: true }, Some(why)));
        let Verdict::Retry(wait) = verdict else { return Ok((verdict, None)) };
        if let Some(longest) = limits.max_retry_wait.filter(|longest| wait > *longest) {
            let (wait, longest) = (wait.as_secs_f64(), longest.as_secs_f64());
            return fails(format!("it would wait {wait} s for its retry; lifecycle.max_retry_wait allows {longest} s"));
        }
        let was_tried = step.error.as_ref().is_some_and(|failure| !failure.not_tried);
        let Some(most) = limits.max_retries.filter(|_| was_tried) else { return Ok((verdict, None)) };
        if !self.0.contains_key(&step.task_id) {
            self.0.extend(stalls::retries_used(session, &[step.task_id]).await?);
        }
        let used = self.0.entry(step.task_id).or_default();
        if *used >= i64::from(most) {
            return fails(format!("its task has used up its retries; lifecycle.max_retries is {most}"));
        }
        *used += 1;
        Ok((verdict, None))
    }
}

/// Why a step with this verdict is a dead letter.
fn parks(step: &Reported, verdict: Verdict) -> Option<DeadLetterReason> {
    match (failure_of(step)?, verdict) {
        (FailureKind::Poison, _) => Some(DeadLetterReason::Poison),
        (FailureKind::HandlerNotFound, Verdict::Fail { .. }) => Some(DeadLetterReason::HandlerNotFound),
        _ => None,
    }
}

async fn park(session: &mut Session, step: &Reported, reason: DeadLetterReason) -> Result<(), Error> {
    let message = Message {
        msg_id: 0,
        read_ct: step.attempt,
        enqueued_at: step.reported_at,
        message: serde_json::json!({ "task_id": step.task_id, "step_id": step.step_id }).into(),
        headers: None,
    };
    let detail = step.error.as_ref().map_or("", |e| e.message.as_str());
    let queue = QueueName::of_namespace(&step.namespace);
    let (namespace, task, step) = (Some(&step.namespace), Some(step.task_id), Some(step.step_id));
    let parked = Parked { queue: queue.as_str(), namespace, message: &message, reason, detail, task, step };
    dead_letters::park(session, &parked).await?;
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
