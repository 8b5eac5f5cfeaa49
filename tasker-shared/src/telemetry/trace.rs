//! Who keeps which trace, and what runs inside one.
//!
//! A task may live for days and cross processes and restarts, so nothing is kept open: a span is written once, with its
//! times, its computed id and its parent's. A trace that is not kept costs one hash.

use super::{
    context::{TraceParent, trace_id},
    outbox::Outbox,
    sampler::Sampler,
    spans::{About, Chunk, Span, Spans},
};
use crate::id::CorrelationId;
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
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
}

impl Tracing {
    pub(super) fn new(sampler: Sampler, outbox: Arc<Outbox<Chunk>>) -> Self {
        Self(Some(Inner { sampler, outbox }))
    }

    /// Writes nothing.
    pub const fn disabled() -> Self {
        Self(None)
    }

    /// Whether spans of the trace are kept; every process decides alike.
    pub fn keeps(&self, trace: impl Into<Trace>) -> bool {
        let trace = trace.into();
        self.0.as_ref().is_some_and(|inner| inner.sampler.keeps(trace_id(trace.correlation_id), trace.caller_sampled))
    }

    /// Room for the spans of one batch of work.
    pub fn spans(&self) -> Spans<'_> {
        Spans::new(self.0.as_ref().map(|inner| (inner.sampler, &inner.outbox)))
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
