//! Station *execute*: the user's handler runs, under deadline, cancellation and panic guard.

use crate::{
    claim::{tell, trace_of},
    core::{Core, Served},
    handler::{self, HandlerType, StepContext, StepRun},
    report::Executed,
    running::Entry,
    writing,
};
use opentelemetry::trace::SpanKind;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tasker_shared::{
    metrics::{Success, labels},
    name::Name,
    step::{Failure, FailureKind, Outcome},
    storage::leases::{Claimed, LARGEST_FAMILY},
    telemetry::{Span, Station, TraceParent, span_id},
    template::{Compiled, Handler},
};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// Runs a claimed step's handler in a task of its own, and hands the outcome to station *report*.
pub(crate) fn start(
    core: Core,
    served: Served,
    mut step: Claimed,
    template: Option<Arc<Compiled>>,
    slot: OwnedSemaphorePermit,
) {
    let kind = kind(&core, template.as_deref(), &step.step_name);
    let run = prepare(&core, &served, &mut step, template);
    core.running.insert(step.step_id, Entry::new(step.msg_id, step.attempt, served.clone(), run.context.clone()));
    tokio::spawn(async move {
        let (began, started) = (SystemTime::now(), Instant::now());
        let labels = labels::Execution { correlation_id: step.correlation_id, namespace: served.namespace.clone() };
        core.metrics().steps_executions.add(1, labels);
        let outcome = run.outcome(&core, &served, &step).await;
        finished(&core, &served, &step, &run.context, &outcome, began, started.elapsed());
        let executed = Executed { step, served, outcome };
        let writes = run.context.take_writes();
        let Some(executed) = writing::report(&core, executed, writes).await else { return };
        core.completion.send(executed, kind).await;
        drop(slot);
    });
}

/// What runs a step; one whose handler this worker does not have is failed by the worker itself.
pub(crate) fn kind(core: &Core, template: Option<&Compiled>, step: &Name) -> HandlerType {
    let callable = template.and_then(|template| template.step(step)).map(|step| step.handler.callable.as_str());
    callable.and_then(|callable| core.registry.get(callable)).map_or(HandlerType::Rust, |handler| handler.kind())
}

/// A run that is about to begin.
struct Prepared {
    context: StepContext,
    template: Option<(Arc<Compiled>, usize)>,
}

fn prepare(core: &Core, served: &Served, step: &mut Claimed, template: Option<Arc<Compiled>>) -> Prepared {
    let template = template.and_then(|template| {
        let index = template.index(&step.step_name)?;
        Some((template, index))
    });
    let handler = template.as_ref().and_then(|(template, index)| template.steps().get(*index)).map_or_else(
        || Handler { callable: String::new(), method: None, initialization: serde_json::Map::new() },
        |step| step.handler.clone(),
    );
    let execute = span_id(step.step_id.0, step.attempt.cast_unsigned(), Station::Execute);
    let trace = trace_of(step);
    let traceparent =
        TraceParent { correlation_id: step.correlation_id, span_id: execute, sampled: core.tracing.keeps(trace) };
    let run = StepRun {
        task_id: step.task_id,
        step_id: step.step_id,
        correlation_id: step.correlation_id,
        namespace: served.namespace.clone(),
        task_name: step.task_name.clone(),
        step_name: step.step_name.clone(),
        attempt: step.attempt.cast_unsigned(),
        failures: step.failures.cast_unsigned(),
        max_attempts: step.max_attempts.cast_unsigned(),
        priority: step.priority,
        input: Arc::new(std::mem::take(&mut step.input)),
        parents: Arc::new(parents(step.parents.take())),
        handler: Arc::new(handler),
        traceparent: Some(traceparent.to_string()),
    };
    let scope = core.tracing.scope(trace, execute, step.task_id, step.step_id, step.step_name.clone());
    let timeout = Duration::from_millis(u64::try_from(step.timeout_ms).unwrap_or(0));
    let deadline = tokio::time::Instant::now() + timeout;
    let context = StepContext::new(run, deadline, CancellationToken::new(), scope);
    Prepared { context, template }
}

impl Prepared {
    async fn outcome(&self, core: &Core, served: &Served, step: &Claimed) -> Outcome {
        if step.read_ct >= core.settings.max_deliveries {
            let message =
                format!("the step was claimed {} times and never reported: it takes its workers down", step.read_ct);
            return Outcome::Failure(Failure::new(FailureKind::Poison, message));
        }
        if let Some(bytes) = step.oversized {
            let parents = step.parent_ids.len();
            let message = format!(
                "the results of its {parents} parents have {bytes} bytes together, and at most {LARGEST_FAMILY} can be handed on; let \
                 parents return less, such as where they stored it"
            );
            return Outcome::Failure(Failure::new(FailureKind::Permanent, message));
        }
        let Some((template, index)) = &self.template else {
            let message = format!("the template of the task has no step `{}`", step.step_name);
            return Outcome::Failure(Failure::new(FailureKind::Permanent, message));
        };
        let callable = &self.context.handler.callable;
        let Some(handler) = core.registry.get(callable) else {
            return Outcome::Failure(core.registry.not_found(callable));
        };
        let _running = core
            .metrics()
            .steps_active_executions
            .hold(labels::ActiveExecutions { handler_type: handler.kind(), namespace: served.namespace.clone() });
        let (template, index) = (Arc::clone(template), *index);
        let check = move |result: &Value| match template.validate_result(index, result) {
            Ok(()) => Vec::new(),
            Err(violation) => violation.violations.iter().map(ToString::to_string).collect(),
        };
        handler::run(&**handler, &self.context, &core.settings.limits, Some(&check)).await
    }
}

fn parents(results: Option<Value>) -> BTreeMap<Name, Value> {
    match results {
        Some(Value::Object(results)) => {
            results.into_iter().filter_map(|(name, result)| Some((Name::new(&name).ok()?, result))).collect()
        }
        _ => BTreeMap::new(),
    }
}

fn finished(
    core: &Core,
    served: &Served,
    step: &Claimed,
    context: &StepContext,
    outcome: &Outcome,
    began: SystemTime,
    took: Duration,
) {
    let metrics = core.metrics();
    let namespace = || served.namespace.clone();
    let result = Success::from(outcome.result_type());
    let labels = labels::ExecutionResult { correlation_id: step.correlation_id, namespace: namespace(), result };
    metrics.step_execution_duration.record_duration(took, labels);
    if let Some(usage) = context.usage() {
        if let Some(bytes) = usage.memory_bytes {
            metrics.command_memory.record(bytes as f64, labels::Namespace { namespace: namespace() });
        }
        metrics.command_cpu_time.record(usage.cpu_time.as_secs_f64(), labels::Namespace { namespace: namespace() });
    }
    let id = |station| span_id(step.step_id.0, step.attempt.cast_unsigned(), station);
    let span = Span {
        name: Station::Execute.as_str(),
        span_id: id(Station::Execute),
        parent: Some(id(Station::Claim)),
        start: began,
        end: SystemTime::now(),
        kind: SpanKind::Internal,
    };
    core.tracing.record(trace_of(step), span, |about| {
        tell(about, served, step);
        if let Outcome::Failure(failure) = outcome {
            about.error(&format!("{}: {}", failure.kind, failure.message));
        }
    });
    if let Outcome::Failure(failure) = outcome {
        context.scope().call(|| log(served, step, failure));
    }
}

/// The one log line of a failed attempt; who stops a step knows it, and is in the history.
fn log(served: &Served, step: &Claimed, failure: &Failure) {
    if failure.kind != FailureKind::Cancelled {
        tracing::warn!(
            namespace = %served.namespace, task.name = %step.task_name, attempt = step.attempt,
            max_attempts = step.max_attempts, error_type = %failure.kind, error = %failure.message, "a step failed"
        );
    }
}
