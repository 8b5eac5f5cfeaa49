//! Spans of the stations, written when their work has ended.
//!
//! A task may live for days and cross processes and restarts, so nothing is kept open: a span is written once, with its
//! times, its computed id and its parent's. A trace that is not kept costs one hash.

use super::{
    context::{TraceParent, correlation_id, trace_id},
    outbox::Outbox,
    sampler::Sampler,
    tail::Tail,
};
use crate::id::{CorrelationId, StepId, TaskId};
use opentelemetry::{
    Context, InstrumentationScope, KeyValue,
    trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The trace that a span belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// Names the trace.
    pub correlation_id: CorrelationId,
    /// Whether the caller who submitted the task keeps the trace, where that is known.
    pub caller_sampled: Option<bool>,
}

impl From<CorrelationId> for Trace {
    fn from(correlation_id: CorrelationId) -> Self {
        Self { correlation_id, caller_sampled: None }
    }
}

impl From<TraceParent> for Trace {
    fn from(parent: TraceParent) -> Self {
        Self { correlation_id: parent.correlation_id, caller_sampled: Some(parent.sampled) }
    }
}

/// A finished piece of work.
#[derive(Debug, Clone)]
pub struct Span {
    /// The station, or the operation below it.
    pub name: &'static str,
    /// From [`span_id`](super::context::span_id).
    pub span_id: SpanId,
    /// The span that caused it; `None` for the first of the trace.
    pub parent: Option<SpanId>,
    /// Other spans that it waited for, such as all parents of a join.
    pub links: Vec<(CorrelationId, SpanId)>,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// Its role towards other spans.
    pub kind: SpanKind,
    /// What went wrong, if something did.
    pub error: Option<String>,
    /// What it worked on.
    pub attributes: Vec<KeyValue>,
}

/// Writes spans; cheap to clone.
#[derive(Debug, Clone)]
pub struct Tracing(Option<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    sampler: Sampler,
    outbox: Arc<Outbox<SpanData>>,
    tail: Option<Arc<Tail>>,
}

impl Tracing {
    pub(super) fn new(sampler: Sampler, outbox: Arc<Outbox<SpanData>>) -> Self {
        Self(Some(Inner { sampler, outbox, tail: None }))
    }

    /// Decides late on what is not kept from the start.
    pub(super) fn with_tail(mut self, tail: Arc<Tail>) -> Self {
        if let Some(inner) = &mut self.0 {
            inner.tail = Some(tail);
        }
        self
    }

    /// Writes nothing.
    pub const fn disabled() -> Self {
        Self(None)
    }

    /// Whether spans of the trace are kept; every process decides alike from the start, and may decide otherwise later.
    pub fn keeps(&self, trace: impl Into<Trace>) -> bool {
        let (Some(inner), trace) = (&self.0, trace.into()) else { return false };
        let id = trace_id(trace.correlation_id);
        inner.sampler.keeps(id, trace.caller_sampled) || inner.tail.as_ref().is_some_and(|tail| tail.keeps(id))
    }

    /// A task has ended after so long: the trace of a slow one may be kept.
    pub fn ended(&self, trace: impl Into<Trace>, took: Duration) {
        if let Some(tail) = self.tail() {
            tail.ended(trace_id(trace.into().correlation_id), took);
        }
    }

    /// Waits until this process has decided late to keep traces; for ever where it does not.
    pub async fn decided(&self) -> Vec<CorrelationId> {
        match self.tail() {
            Some(tail) => tail.decided().await.into_iter().map(correlation_id).collect(),
            None => std::future::pending().await,
        }
    }

    /// Another process has decided late to keep traces.
    pub fn decided_elsewhere(&self, traces: impl IntoIterator<Item = CorrelationId>) {
        if let Some(tail) = self.tail() {
            tail.decided_elsewhere(traces.into_iter().map(trace_id));
        }
    }

    /// Whether something may be decided late.
    pub fn decides_late(&self) -> bool {
        self.tail().is_some()
    }

    fn tail(&self) -> Option<&Arc<Tail>> {
        self.0.as_ref()?.tail.as_ref()
    }

    /// Writes a span if its trace is kept or may be later; `span` is not called otherwise.
    pub fn record(&self, trace: impl Into<Trace>, span: impl FnOnce() -> Span) {
        let (Some(inner), trace) = (&self.0, trace.into()) else { return };
        let correlation_id = trace.correlation_id;
        if inner.sampler.keeps(trace_id(correlation_id), trace.caller_sampled) {
            inner.outbox.put(written(correlation_id, span()));
        } else if let Some(tail) = &inner.tail {
            tail.put(written(correlation_id, span()));
        }
    }

    /// A live span around a handler: what its author traces and logs joins the trace as a child of the `execute` span
    /// `execute`, which is written by [`record`](Self::record) when the handler has ended.
    pub fn handler_span(
        &self,
        trace: impl Into<Trace>,
        execute: SpanId,
        task: TaskId,
        step: StepId,
        step_name: &str,
    ) -> tracing::Span {
        let trace = trace.into();
        let correlation_id = trace.correlation_id;
        let span = tracing::info_span!(
            "handler",
            trace_id = %correlation_id.0.simple(),
            span_id = %execute,
            %correlation_id,
            task.id = %task,
            step.id = %step,
            step.name = step_name,
        );
        if self.0.is_some() {
            let parent = TraceParent { correlation_id, span_id: execute, sampled: self.keeps(trace) };
            let _a_disabled_span_has_no_parent =
                span.set_parent(Context::new().with_remote_span_context(parent.span_context()));
        }
        span
    }
}

fn written(correlation_id: CorrelationId, span: Span) -> SpanData {
    let end = span.end.max(span.start);
    let (mut events, mut links) = (SpanEvents::default(), SpanLinks::default());
    let status = match span.error {
        Some(message) => {
            events.events.push(exception(message.clone(), end));
            Status::error(message)
        }
        None => Status::Unset,
    };
    links.links = span.links.into_iter().map(|(trace, id)| Link::with_context(context(trace, id))).collect();
    SpanData {
        span_context: context(correlation_id, span.span_id),
        parent_span_id: span.parent.unwrap_or(SpanId::INVALID),
        parent_span_is_remote: false,
        span_kind: span.kind,
        name: span.name.into(),
        start_time: span.start,
        end_time: end,
        attributes: span.attributes,
        dropped_attributes_count: 0,
        events,
        links,
        status,
        instrumentation_scope: InstrumentationScope::builder("tasker").build(),
    }
}

fn context(correlation_id: CorrelationId, span: SpanId) -> SpanContext {
    SpanContext::new(trace_id(correlation_id), span, TraceFlags::SAMPLED, false, TraceState::default())
}

fn exception(message: String, at: SystemTime) -> Event {
    Event::new("exception", at, vec![KeyValue::new("exception.message", message)], 0)
}

/// Nanoseconds since 1970.
pub(super) fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            context::{Station, span_id},
            outbox::Outbox,
            sampler::Sampler,
        },
        Span, Trace, Tracing,
    };
    use crate::id::{CorrelationId, StepId};
    use opentelemetry::{
        KeyValue,
        trace::{SpanKind, Status},
    };
    use std::time::{Duration, UNIX_EPOCH};

    fn execute(step: StepId) -> Span {
        Span {
            name: Station::Execute.as_str(),
            span_id: span_id(step.0, 1, Station::Execute),
            parent: Some(span_id(step.0, 1, Station::Claim)),
            links: Vec::new(),
            start: UNIX_EPOCH + Duration::from_secs(10),
            end: UNIX_EPOCH + Duration::from_secs(12),
            kind: SpanKind::Internal,
            error: Some("no such account".to_owned()),
            attributes: vec![KeyValue::new("step.name", "pay")],
        }
    }

    #[test]
    fn a_span_has_the_correlation_id_as_trace_and_its_error_as_status_and_event() {
        let outbox = Outbox::new(10, 10);
        let tracing = Tracing::new(Sampler::new(1.0, true), outbox.clone());
        let (correlation, step) = (CorrelationId::generate(), StepId::generate());
        tracing.record(correlation, || execute(step));
        let [span] = outbox.take(10).try_into().unwrap();
        assert_eq!(span.span_context.trace_id().to_bytes(), *correlation.0.as_bytes());
        assert_eq!(span.parent_span_id, span_id(step.0, 1, Station::Claim));
        assert_eq!(span.end_time.duration_since(span.start_time).unwrap(), Duration::from_secs(2));
        assert_eq!(span.status, Status::error("no such account"));
        assert_eq!(span.events[0].name, "exception");
    }

    #[test]
    fn a_trace_that_is_not_kept_builds_nothing() {
        let tracing = Tracing::new(Sampler::new(1.0, true), Outbox::new(10, 10));
        let dropped = Trace { correlation_id: CorrelationId::generate(), caller_sampled: Some(false) };
        tracing.record(dropped, || unreachable!("the trace is not kept"));
        Tracing::disabled().record(CorrelationId::generate(), || unreachable!("tracing is off"));
    }
}
