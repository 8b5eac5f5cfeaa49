//! Station *report*: outcomes become durable, and leases end.

use crate::{
    claim::{join, step_span, tell, trace_of},
    completion::Outcomes,
    core::{Core, Served},
};
use opentelemetry::trace::{SpanId, SpanKind};
use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant, SystemTime},
};
use tasker_shared::{
    id::StepId,
    metrics::{ErrorType, labels},
    name::Name,
    queue::QueueName,
    runtime::{Topic, judge},
    step::{Failure, FailureKind, Outcome, StepState},
    storage::{
        Error, Session, Transaction,
        concurrency::{self, Scope},
        leases::Claimed,
        reports::{self, Report},
    },
    telemetry::{Span, Spans, Station, Trace, span_id},
};

/// The first and the longest pause after a failure of the database.
pub(crate) const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A step whose handler has ended.
#[derive(Debug)]
pub(crate) struct Executed {
    pub(crate) step: Claimed,
    pub(crate) served: Served,
    pub(crate) outcome: Outcome,
}

/// Stores outcomes as they come, many at once, until the last sender is gone.
pub(crate) async fn run(core: Core, mut outcomes: Outcomes) {
    let mut batch = Vec::new();
    loop {
        let taken = outcomes.receive(&mut batch, core.settings.report_batch.max(1)).await;
        if taken == 0 {
            return;
        }
        let mut queues: BTreeMap<QueueName, Vec<Executed>> = BTreeMap::new();
        for executed in batch.drain(..) {
            // a lease that was given back has no report
            if core.running.holds(executed.step.step_id, executed.step.attempt) {
                queues.entry(executed.served.queue.clone()).or_default().push(executed);
            }
        }
        for (queue, executed) in queues {
            store(&core, &queue, executed).await;
        }
    }
}

/// Stores outcomes of one queue. While the database is away they are kept: nothing but a lost lease makes them worthless.
async fn store(core: &Core, queue: &QueueName, executed: Vec<Executed>) {
    let mut reports: Vec<Report> = executed.iter().map(report).collect();
    let mut pause = PAUSE.0;
    loop {
        let (began, started) = (SystemTime::now(), Instant::now());
        match store_once(core, queue, &reports).await {
            Ok(stored) => {
                let permits = permits_of(&executed);
                told(core, executed, &stored, began, started.elapsed());
                return free(core, permits).await;
            }
            Err(error) if error.is_transient() => {
                if pause == PAUSE.0 {
                    tracing::error!(%error, reports = reports.len(), "failed to report; trying again until the leases are lost");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
                reports.retain(|report| core.running.holds(report.step_id, report.attempt));
            }
            Err(error) => {
                tracing::warn!(%error, "a batch of reports was refused; they are stored one by one");
                for one in executed {
                    alone(core, queue, one).await;
                }
                return;
            }
        }
    }
}

/// Which reports were accepted, and the transaction that did so.
#[derive(Default)]
pub(crate) struct Stored {
    pub(crate) accepted: HashSet<StepId>,
    pub(crate) transaction: Option<Transaction>,
}

async fn store_once(core: &Core, queue: &QueueName, reports: &[Report]) -> Result<Stored, Error> {
    if reports.is_empty() {
        return Ok(Stored::default());
    }
    // a report does not wait for the breaker, whose try it may be
    let permit = core.pgmq.admit().ok();
    let stored = async {
        let mut session = core.database.session("report").await?;
        let accepted = reports::store(&mut session, queue, reports, core.registration.id).await?;
        Ok(Stored { accepted: accepted.into_iter().collect(), transaction: Some(session.done()) })
    };
    let stored = stored.await;
    judge(permit, &stored);
    stored
}

/// A result that PostgreSQL refuses becomes the failure that says so.
async fn alone(core: &Core, queue: &QueueName, executed: Executed) {
    let (began, started) = (SystemTime::now(), Instant::now());
    let mut report = report(&executed);
    let mut answer = store_once(core, queue, std::slice::from_ref(&report)).await;
    if let Err(error) = &answer
        && !error.is_transient()
    {
        let failure = Failure::new(FailureKind::ResultInvalid, format!("the outcome cannot be stored: {error}"));
        report.outcome = failure.result_type();
        report.error = Some(failure);
        report.result = None;
        answer = store_once(core, queue, std::slice::from_ref(&report)).await;
    }
    match answer {
        Ok(stored) => {
            let permits = permits_of(std::slice::from_ref(&executed));
            told(core, vec![executed], &stored, began, started.elapsed());
            free(core, permits).await;
        }
        Err(error) => {
            tracing::error!(step.id = %executed.step.step_id, %error, "failed to report; the step runs again when its lease ends");
            core.running.remove(executed.step.step_id, executed.step.attempt);
        }
    }
}

pub(crate) fn report(executed: &Executed) -> Report {
    let (result, error) = match &executed.outcome {
        Outcome::Success(result) => (Some(result.clone()), None),
        Outcome::Failure(failure) => (None, Some(failure.clone())),
    };
    Report {
        msg_id: executed.step.msg_id,
        step_id: executed.step.step_id,
        attempt: executed.step.attempt,
        outcome: executed.outcome.result_type(),
        result,
        error,
    }
}

/// The attempts that count against limits, by namespace.
pub(crate) fn permits_of(executed: &[Executed]) -> BTreeMap<Name, (QueueName, Vec<(StepId, i32)>)> {
    let mut permits: BTreeMap<Name, (QueueName, Vec<(StepId, i32)>)> = BTreeMap::new();
    for one in executed.iter().filter(|one| one.step.has_permit) {
        let of_queue =
            permits.entry(one.served.namespace.clone()).or_insert_with(|| (one.served.queue.clone(), Vec::new()));
        of_queue.1.push((one.step.step_id, one.step.attempt));
    }
    permits
}

/// Gives back the permits of attempts that were reported, and wakes who waits for them. What fails here is found by the
/// orchestration's sweep of permits.
pub(crate) async fn free(core: &Core, permits: BTreeMap<Name, (QueueName, Vec<(StepId, i32)>)>) {
    for (namespace, (queue, attempts)) in permits {
        let freed = async {
            let mut session = core.database.session("free_permits").await?;
            let scopes = concurrency::free(&mut session, &attempts).await?;
            wake(core, &queue, &namespace, &mut session, &scopes).await
        };
        if let Err(error) = freed.await {
            tracing::warn!(%error, %namespace, "failed to give permits back; they are found within seconds");
        }
    }
}

/// Brings back the steps that are next for these limits.
pub(crate) async fn wake(
    core: &Core,
    queue: &QueueName,
    namespace: &Name,
    session: &mut Session,
    scopes: &[Scope],
) -> Result<(), Error> {
    if !scopes.is_empty() && concurrency::wake(session, queue, scopes).await? > 0 {
        core.bell.ring(Topic::Steps(namespace.clone()));
    }
    Ok(())
}

/// Rings, then counts what is durable now.
pub(crate) fn told(core: &Core, executed: Vec<Executed>, stored: &Stored, began: SystemTime, took: Duration) {
    let accepted = &stored.accepted;
    if !accepted.is_empty() {
        core.bell.ring(Topic::Results);
    }
    let share = took / u32::try_from(executed.len().max(1)).unwrap_or(1);
    let mut spans = core.tracing.spans();
    let shared = executed.iter().map(|one| &one.step).find(|step| core.tracing.keeps(trace_of(step)));
    let shared = shared.map(|step| (trace_of(step), step_span(step, Station::Report)));
    let shared = stored.transaction.as_ref().and(shared);
    if let (Some((trace, station)), Some(transaction)) = (shared, &stored.transaction) {
        spans.transaction(trace, station, transaction);
    }
    for one in executed {
        let accepted = accepted.contains(&one.step.step_id);
        core.running.remove(one.step.step_id, one.step.attempt);
        count(core, &one, accepted, share);
        trace(&mut spans, &one, accepted, began, shared);
    }
}

fn count(core: &Core, one: &Executed, accepted: bool, took: Duration) {
    let metrics = core.metrics();
    let correlation_id = one.step.correlation_id;
    let namespace = || one.served.namespace.clone();
    let failed = |error_type| {
        metrics.steps_failures.add(1, labels::StepFailure { correlation_id, error_type, namespace: namespace() });
    };
    if !accepted {
        tracing::info!(
            task.id = %one.step.task_id, step.id = %one.step.step_id, step.name = %one.step.step_name,
            attempt = one.step.attempt, "a report was refused: the step was stopped, or its lease was lost"
        );
        return failed(ErrorType::ClaimFailed);
    }
    match &one.outcome {
        Outcome::Success(_) => {
            metrics.steps_successes.add(1, labels::Execution { correlation_id, namespace: namespace() });
        }
        Outcome::Failure(failure) => failed(failure.kind.into()),
    }
    let labels = || labels::StepResult { correlation_id, result_type: one.outcome.result_type() };
    metrics.steps_results_submitted.add(1, labels());
    metrics.step_result_submission_duration.record_duration(took, labels());
    let (from, to) = (Some(StepState::InProgress), StepState::Reported);
    metrics.steps_transitions.add(1, labels::StepTransition { from, to });
}

fn trace(spans: &mut Spans<'_>, one: &Executed, accepted: bool, began: SystemTime, shared: Option<(Trace, SpanId)>) {
    let id = |station| span_id(one.step.step_id.0, one.step.attempt.cast_unsigned(), station);
    let span = Span {
        name: Station::Report.as_str(),
        span_id: id(Station::Report),
        parent: Some(id(Station::Execute)),
        start: began,
        end: SystemTime::now(),
        kind: SpanKind::Producer,
    };
    spans.record(trace_of(&one.step), span, |about| {
        tell(about, &one.served, &one.step);
        join(about, &one.step, shared);
        if !accepted {
            about.error("the report was refused: the lease was lost or the step stopped");
        }
    });
}
