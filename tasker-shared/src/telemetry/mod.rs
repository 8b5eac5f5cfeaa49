//! Traces, logs and the export of metrics.

pub mod context;
mod outbox;
pub mod sampler;
pub mod trace;

pub use context::{Station, TraceParent, span_id, trace_id};
pub use trace::{Span, Trace, Tracing};
