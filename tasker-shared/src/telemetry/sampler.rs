//! Which traces are kept.
//!
//! The decision is a hash of the trace id, so that every process decides alike. The ratio sampler of the SDK compares
//! bytes that are constant in a UUIDv7 and keeps none or all of them.

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

/// Keeps a share of the traces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    threshold: u64,
    follows_caller: bool,
    waits: bool,
}

impl Sampler {
    /// Keeps `ratio` of the traces, from 0 to 1. With `follows_caller` a caller that has decided wins.
    pub fn new(ratio: f64, follows_caller: bool) -> Self {
        let threshold = if ratio >= 1.0 { u64::MAX } else { (ratio.max(0.0) * u64::MAX as f64) as u64 };
        Self { threshold, follows_caller, waits: false }
    }

    /// The same for live spans, which are recorded in any case when it may be decided late that they are kept.
    pub(super) fn waiting(self, waits: bool) -> Self {
        Self { waits, ..self }
    }

    /// Whether the trace is kept. `caller` is what the caller decided, where there was one.
    pub fn keeps(self, trace: TraceId, caller: Option<bool>) -> bool {
        match caller {
            Some(decided) if self.follows_caller => decided,
            _ => self.threshold > 0 && hash(trace.to_bytes()) <= self.threshold,
        }
    }
}

impl ShouldSample for Sampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        _: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let parent = parent.filter(|context| context.has_active_span()).map(|c| c.span().span_context().clone());
        let keeps = match &parent {
            Some(parent) => parent.is_sampled(),
            None => self.keeps(trace, None),
        };
        SamplingResult {
            decision: match keeps {
                true => SamplingDecision::RecordAndSample,
                false if self.waits => SamplingDecision::RecordOnly,
                false => SamplingDecision::Drop,
            },
            attributes: Vec::new(),
            trace_state: parent.map_or_else(TraceState::default, |parent| parent.trace_state().clone()),
        }
    }
}

/// Mixes all 16 bytes (the finalizer of splitmix64).
pub(super) fn hash(bytes: [u8; 16]) -> u64 {
    let whole = u128::from_be_bytes(bytes);
    let (high, low) = ((whole >> 64) as u64, whole as u64);
    mix(mix(high) ^ low)
}

/// The finalizer of splitmix64.
pub(super) fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::Sampler;
    use crate::id::CorrelationId;
    use opentelemetry::trace::TraceId;

    fn kept(ratio: f64) -> f64 {
        let sampler = Sampler::new(ratio, true);
        let trace = |_: &i32| TraceId::from_bytes(*CorrelationId::generate().0.as_bytes());
        let kept = (0..20_000).filter(|n| sampler.keeps(trace(n), None)).count();
        kept as f64 / 20_000.0
    }

    #[test]
    fn a_share_of_time_ordered_ids_is_kept() {
        for ratio in [0.0, 0.01, 0.1, 0.5, 0.75, 1.0] {
            assert!((kept(ratio) - ratio).abs() < 0.02, "{ratio}: {}", kept(ratio));
        }
    }

    #[test]
    fn a_caller_that_has_decided_wins_if_the_sampler_follows_it() {
        let trace = TraceId::from_bytes([7; 16]);
        assert!(Sampler::new(0.0, true).keeps(trace, Some(true)));
        assert!(!Sampler::new(1.0, true).keeps(trace, Some(false)));
        assert!(Sampler::new(1.0, false).keeps(trace, Some(false)));
    }
}
