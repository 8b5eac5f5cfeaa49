//! Who keeps which trace, and what runs inside one.
//!
//! A task may live for days and cross processes and restarts, so nothing is kept open: a span is written once, with its
//! times, its computed id and its parent's. A trace that is not kept costs one hash.

use super::{
    context::{TraceParent, correlation_id, trace_id},
    outbox::Outbox,
    sampler::Sampler,
    spans::{About, Chunk, Span, Spans},
    tail::Tail,
};
use crate::id::CorrelationId;
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

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

/// Writes spans; cheap to clone.
#[derive(Debug, Clone)]
pub struct Tracing(Option<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    sampler: Sampler,
    outbox: Arc<Outbox<Chunk>>,
    tail: Option<Arc<Tail>>,
}

impl Tracing {
    pub(super) fn new(sampler: Sampler, outbox: Arc<Outbox<Chunk>>, tail: Option<Arc<Tail>>) -> Self {
        Self(Some(Inner { sampler, outbox, tail }))
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

    /// Room for the spans of one batch of work.
    pub fn spans(&self) -> Spans<'_> {
        Spans::new(self.0.as_ref().map(|inner| (inner.sampler, &inner.outbox, inner.tail.as_ref())))
    }

    /// Writes a single span if its trace is kept; `about` is not called otherwise.
    pub fn record(&self, trace: impl Into<Trace>, span: Span, about: impl FnOnce(&mut About<'_>)) {
        self.spans().record(trace, span, about);
    }
}

/// Nanoseconds since 1970.
pub(super) fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
