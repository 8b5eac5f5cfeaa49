//! Station *claim*: free slots become leases.

use crate::{
    core::{Core, Served},
    execute, report, shed,
};
use opentelemetry::trace::{SpanId, SpanKind};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Instant, SystemTime},
};
use tasker_shared::{
    id::TemplateId,
    metrics::labels,
    runtime::{Topic, Turn, Wake, judge},
    step::{DeadLetterReason, StepState},
    storage::{
        self, Session, concurrency,
        leases::{self, Claim, Claimed, Held},
    },
    telemetry::{About, Span, Spans, Station, Trace, TraceParent, span_id, transaction_id},
    template::Compiled,
};
use tokio_util::sync::CancellationToken;

/// What claimed steps run by.
type Templates = HashMap<(TemplateId, String), Arc<Compiled>>;

/// Claims as many steps of a namespace as there are free slots, and starts their handlers.
pub(crate) async fn turn(
    core: &Core,
    served: &Served,
    wake: Wake,
    shutdown: &CancellationToken,
) -> Result<Turn, storage::Error> {
    let admitted = shutdown.run_until_cancelled(shed::admitted(core)).await;
    if admitted.is_none() {
        return Ok(Turn::Empty);
    }
    // a worker that stops waits for no slot; the semaphore itself is never closed
    let slot = shutdown.run_until_cancelled(Arc::clone(&core.slots).acquire_owned()).await;
    let Some(Ok(first)) = slot else { return Ok(Turn::Empty) };
    let most = core.settings.claim_batch.max(1);
    let more = core.slots.available_permits().min(most - 1);
    let mut slots = first;
    if let Ok(others) = Arc::clone(&core.slots).try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
        slots.merge(others);
    }
    let limit = slots.num_permits();
    let Some(permit) = shutdown.run_until_cancelled(core.pgmq.ready()).await else { return Ok(Turn::Empty) };
    let (began, started) = (SystemTime::now(), Instant::now());
    let claimed = claim(core, served, limit).await;
    judge([permit], &claimed);
    let (claim, mut session) = claimed?;
    count_others(core, served, &claim);
    if let Err(error) = settle(core, served, &mut session, &claim).await {
        // the orchestration's sweep of permits does the same within seconds
        tracing::warn!(%error, namespace = %served.namespace, "failed to look after permits");
    }
    let full = claim.read >= limit || !claim.contended.is_empty();
    if claim.steps.is_empty() {
        return Ok(if full { Turn::Full } else { Turn::Empty });
    }
    // from here on the steps are ours: what cannot be started gives its lease back by letting it run out
    let took = started.elapsed() / u32::try_from(claim.steps.len()).unwrap_or(1);
    let wanted = claim.steps.iter().map(|step| (step.template_id, step.environment.clone())).collect();
    let templates: Templates = core.templates.get(&mut session, wanted).await?;
    let transaction = session.done();
    let mut refused = Vec::new();
    let mut spans = core.tracing.spans();
    let shared = claim.steps.iter().find(|step| core.tracing.keeps(trace_of(step)));
    let shared = shared.map(|step| (trace_of(step), step_span(step, Station::Claim)));
    if let Some((trace, station)) = shared {
        spans.transaction(trace, station, &transaction);
    }
    for step in claim.steps {
        count(core, served, &step, wake, took);
        trace(&mut spans, served, &step, began, shared);
        let Some(slot) = slots.split(1) else { break };
        let template = templates.get(&(step.template_id, step.environment.clone())).map(Arc::clone);
        if !core.completion.admits(execute::kind(core, template.as_deref(), &step.step_name)) {
            refused.push(Held { msg_id: step.msg_id, step_id: step.step_id, attempt: step.attempt, progress: None });
            continue;
        }
        execute::start(core.clone(), served.clone(), step, template, slot);
    }
    drop((slots, spans));
    if !refused.is_empty() {
        give_back(core, served, &refused).await;
        let _ = shutdown.run_until_cancelled(core.completion.recovered()).await;
    }
    Ok(if full { Turn::Full } else { Turn::Partial })
}

/// Gives steps back whose handlers must not start here now; another worker may take them at once.
async fn give_back(core: &Core, served: &Served, refused: &[Held]) {
    const REASON: &str = "the worker cannot take back outcomes of such handlers fast enough";
    core.completion.rejected(refused.len());
    let released = async {
        let mut session = core.database.session("release").await?;
        leases::release(&mut session, &served.queue, refused, core.registration.id, REASON).await
    };
    match released.await {
        Ok(released) => {
            let (from, to) = (Some(StepState::InProgress), StepState::Enqueued);
            core.metrics().steps_transitions.add(released.len() as u64, labels::StepTransition { from, to });
            core.bell.ring(Topic::Steps(served.namespace.clone()));
        }
        Err(error) => {
            tracing::warn!(%error, queue = %served.queue, "failed to give leases back; they run out by themselves")
        }
    }
}

async fn claim(core: &Core, served: &Served, limit: usize) -> Result<(Claim, Session), storage::Error> {
    let mut session = core.database.session("claim").await?;
    let bound = i64::try_from(limit).unwrap_or(i64::MAX);
    let (worker, lease) = (core.registration.id, core.settings.lease);
    if !served.is_limited() {
        let claim = leases::claim(&mut session, &served.queue, bound, worker, lease).await?;
        if !claim.is_limited {
            return Ok((claim, session));
        }
        served.set_limited();
    }
    let claim = leases::claim_within_limits(&mut session, &served.queue, bound, worker, lease).await?;
    Ok((claim, session))
}

/// Gives back permits that were taken for nothing, and looks whether one became free while steps were set aside.
async fn settle(core: &Core, served: &Served, session: &mut Session, claim: &Claim) -> Result<(), storage::Error> {
    let mut scopes = claim.scopes.clone();
    if !claim.contended.is_empty() {
        scopes.extend(concurrency::free_unused(session, Some(&claim.contended)).await?);
    }
    // a step of a paused task was woken for a permit that it does not take
    if claim.withdrawn > 0 && served.is_limited() {
        scopes.extend(concurrency::waited_for(session, &served.namespace).await?);
    }
    report::wake(core, &served.queue, &served.namespace, session, &scopes).await
}

/// What a claim did besides claiming.
fn count_others(core: &Core, served: &Served, claim: &Claim) {
    let metrics = core.metrics();
    if claim.parked > 0 {
        metrics.dlq_messages.add(claim.parked, labels::DeadLetter { reason: DeadLetterReason::Unreadable });
    }
    if claim.blocked > 0 {
        metrics.concurrency_rejections.add(claim.blocked, labels::Namespace { namespace: served.namespace.clone() });
    }
    if claim.withdrawn > 0 {
        let (from, to) = (Some(StepState::Enqueued), StepState::Pending);
        metrics.steps_transitions.add(claim.withdrawn, labels::StepTransition { from, to });
    }
}

fn count(core: &Core, served: &Served, step: &Claimed, wake: Wake, took: std::time::Duration) {
    let metrics = core.metrics();
    let labels = || labels::Claim { claim_method: wake, namespace: served.namespace.clone() };
    metrics.steps_claimed.add(1, labels());
    metrics.step_claim_duration.record_duration(took, labels());
    let waited = (step.started_at - step.enqueued_at).to_std().unwrap_or_default();
    let labels = labels::NamespacePriority { namespace: served.namespace.clone(), priority: step.priority.into() };
    metrics.step_queue_wait_duration.record_duration(waited, labels);
    let from = Some(if step.is_reclaimed() { StepState::InProgress } else { StepState::Enqueued });
    metrics.steps_transitions.add(1, labels::StepTransition { from, to: StepState::InProgress });
}

/// The task's trace: the caller decides whether it is kept, if there is one.
pub(crate) fn trace_of(step: &Claimed) -> Trace {
    let caller: Option<TraceParent> = step.traceparent.as_deref().and_then(|text| text.parse().ok());
    Trace { correlation_id: step.correlation_id, caller_sampled: caller.map(|c| c.sampled) }
}

/// What every span of a step tells.
pub(crate) fn tell(about: &mut About<'_>, served: &Served, step: &Claimed) {
    about
        .id("task.id", step.task_id.0)
        .text("task.name", &step.task_name)
        .text("tasker.namespace", &served.namespace)
        .id("step.id", step.step_id.0)
        .text("step.name", &step.step_name)
        .number("tasker.attempt", i64::from(step.attempt));
}

/// The id of the span that a station writes for the attempt.
pub(crate) fn step_span(step: &Claimed, station: Station) -> SpanId {
    span_id(step.step_id.0, step.attempt.cast_unsigned(), station)
}

/// Links to the transaction that a span shares with a span of another trace.
pub(crate) fn join(about: &mut About<'_>, step: &Claimed, shared: Option<(Trace, SpanId)>) {
    if let Some((trace, station)) = shared.filter(|(trace, _)| trace.correlation_id != step.correlation_id) {
        about.link(trace.correlation_id, transaction_id(station));
    }
}

fn trace(spans: &mut Spans<'_>, served: &Served, step: &Claimed, began: SystemTime, shared: Option<(Trace, SpanId)>) {
    let id = |station, attempt: i32| span_id(step.step_id.0, attempt.cast_unsigned(), station);
    // the doorbell of an attempt was rung by the span that knew the attempt before
    let cause = if step.is_reclaimed() {
        span_id(step.task_id.0, 0, Station::Initialize)
    } else {
        id(Station::Enqueue, step.attempt - 1)
    };
    let trace = trace_of(step);
    let wait = Span {
        name: "queue_wait",
        span_id: id(Station::Claim, step.attempt | WAIT),
        parent: Some(cause),
        start: step.enqueued_at.into(),
        end: step.started_at.into(),
        kind: SpanKind::Internal,
    };
    spans.record(trace, wait, |about| tell(about, served, step));
    let claim = Span {
        name: Station::Claim.as_str(),
        span_id: id(Station::Claim, step.attempt),
        parent: Some(cause),
        start: began,
        end: SystemTime::now(),
        kind: SpanKind::Consumer,
    };
    spans.record(trace, claim, |about| {
        tell(about, served, step);
        about.text("messaging.system", "pgmq").text("messaging.destination.name", served.queue.as_str());
        for (parent, attempt) in step.parent_ids.iter().zip(&step.parent_attempts) {
            about.link(step.correlation_id, span_id(parent.0, attempt.cast_unsigned(), Station::Process));
        }
        join(about, step, shared);
    });
}

/// Sets the span of waiting apart from the claim's own.
const WAIT: i32 = 1 << 30;
