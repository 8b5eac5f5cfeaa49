//! Trace context: how a trace is named across processes, databases and restarts.
//!
//! The trace id is the correlation id. Span ids of the stations are computed from what is stored anyway, so that no
//! process has to tell another one under which id it will write its span.

use super::sampler::mix;
use crate::{id::CorrelationId, text_enum};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use std::{fmt, str::FromStr};
use uuid::Uuid;

text_enum! {
    /// The stations of the line, in their order; also the names of their spans.
    Station {
        /// A task is accepted.
        Submit = "submit",
        /// Its steps are made.
        Initialize = "initialize",
        /// Steps that wait for nothing are put on a queue.
        Enqueue = "enqueue",
        /// A worker takes the lease of a step.
        Claim = "claim",
        /// The user's handler runs.
        Execute = "execute",
        /// The outcome is stored.
        Report = "report",
        /// The outcome is evaluated.
        Process = "process",
        /// It is decided what becomes of the task.
        Finalize = "finalize",
    }
}

/// The id of the span that `station` writes for the `attempt` of a step or task; never zero.
pub fn span_id(of: Uuid, attempt: u32, station: Station) -> SpanId {
    let low = of.as_u128() as u64;
    let mixed = mix(low ^ mix(u64::from(attempt) << 8 | station as u64));
    SpanId::from_bytes(mixed.max(1).to_be_bytes())
}

/// The trace of a correlation id.
pub fn trace_id(correlation: CorrelationId) -> TraceId {
    TraceId::from_bytes(*correlation.0.as_bytes())
}

/// The correlation id of a trace.
pub(super) fn correlation_id(trace: TraceId) -> CorrelationId {
    CorrelationId(Uuid::from_bytes(trace.to_bytes()))
}

/// The id of the `number`th span below `parent`; never zero.
pub(super) fn child_id(parent: SpanId, number: u64) -> SpanId {
    let mixed = mix(u64::from_be_bytes(parent.to_bytes()) ^ mix(u64::MAX - number));
    SpanId::from_bytes(mixed.max(1).to_be_bytes())
}

/// A W3C `traceparent`: the trace, the caller's span, and whether the caller keeps the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub correlation_id: CorrelationId,
    /// The caller's span.
    pub span_id: SpanId,
    /// Whether the caller keeps the trace.
    pub sampled: bool,
}

/// A text that is not a `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a W3C traceparent such as `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`")]
pub struct Invalid(String);

impl TraceParent {
    /// The context for the OpenTelemetry API.
    pub(super) fn span_context(&self) -> SpanContext {
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        SpanContext::new(trace_id(self.correlation_id), self.span_id, flags, true, TraceState::default())
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.correlation_id.0.simple(), self.span_id, u8::from(self.sampled))
    }
}

impl FromStr for TraceParent {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        parse(text).ok_or_else(|| Invalid(text.chars().take(80).collect()))
    }
}

/// Versions after `00` may append fields; `ff` is forbidden.
fn parse(text: &str) -> Option<TraceParent> {
    let mut fields = text.trim().split('-');
    let version = hex(fields.next()?, 2)?;
    let trace = hex(fields.next()?, 32)?;
    let span = hex(fields.next()?, 16)?;
    let flags = hex(fields.next()?, 2)?;
    let complete = version != 0xff && (version != 0 || fields.next().is_none());
    (complete && trace != 0 && span != 0).then(|| TraceParent {
        correlation_id: CorrelationId(Uuid::from_u128(trace)),
        span_id: SpanId::from_bytes((span as u64).to_be_bytes()),
        sampled: flags & 1 == 1,
    })
}

fn hex(text: &str, length: usize) -> Option<u128> {
    let digits = text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if digits { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::{Station, TraceParent, span_id};
    use crate::id::StepId;
    use opentelemetry::trace::SpanId;
    use std::collections::HashSet;

    #[test]
    fn a_traceparent_survives_a_round_trip() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parsed: TraceParent = text.parse().unwrap();
        assert!(parsed.sampled);
        assert_eq!(parsed.to_string(), text);
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        for text in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert!(text.parse::<TraceParent>().is_err(), "{text}");
        }
        assert!("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more".parse::<TraceParent>().is_ok());
    }

    #[test]
    fn every_station_of_every_attempt_has_its_own_span_id() {
        let steps: Vec<StepId> = (0..100).map(|_| StepId::generate()).collect();
        let mut ids = HashSet::new();
        for step in &steps {
            for attempt in 0..20 {
                ids.extend(Station::ALL.iter().map(|station| span_id(step.0, attempt, *station)));
            }
        }
        assert_eq!(ids.len(), 100 * 20 * Station::ALL.len());
        assert!(!ids.contains(&SpanId::INVALID));
    }
}
