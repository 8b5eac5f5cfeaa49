//! Traces that are not kept from the start may be kept later: their spans wait here, within a bound, until a failure or
//! a slow end asks for them.
//!
//! Each process decides by what it sees, and tells the others ([`Tracing::decided`](super::Tracing::decided)), so that
//! they send what waits with them. What no longer fits is forgotten, whole traces at a time and the oldest first.

use super::{outbox::Outbox, sampler::Sampler};
use opentelemetry::trace::{SpanContext, Status, TraceFlags, TraceId};
use opentelemetry_sdk::trace::SpanData;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// The most spans that wait in one process; about a kilobyte each.
const WAITING: usize = 16_384;
/// How many late decisions are remembered.
const REMEMBERED: usize = 8_192;

/// Which traces are kept late.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    /// Those with a failure.
    pub(super) failed: Sampler,
    /// Those of slow tasks.
    pub(super) slow: Sampler,
    /// A task that takes longer is slow.
    pub(super) slow_after: Duration,
}

/// See above.
#[derive(Debug)]
pub(super) struct Tail {
    rates: Rates,
    outbox: Arc<Outbox<SpanData>>,
    held: Mutex<Held>,
    decided: Notify,
}

#[derive(Debug, Default)]
struct Held {
    traces: HashMap<TraceId, Vec<SpanData>>,
    /// Also names traces that are no longer held.
    oldest: VecDeque<TraceId>,
    spans: usize,
    kept: HashSet<TraceId>,
    kept_oldest: VecDeque<TraceId>,
    untold: Vec<TraceId>,
}

impl Tail {
    pub(super) fn new(rates: Rates, outbox: Arc<Outbox<SpanData>>) -> Self {
        Self { rates, outbox, held: Mutex::default(), decided: Notify::new() }
    }

    /// Takes a span of a trace that was not kept from the start.
    pub(super) fn put(&self, mut span: SpanData) {
        let trace = span.span_context.trace_id();
        span.span_context = sampled(&span.span_context);
        let failed = matches!(span.status, Status::Error { .. }) && self.rates.failed.keeps(trace, None);
        let mut held = self.locked();
        if held.kept.contains(&trace) {
            drop(held);
            return self.outbox.put(span);
        }
        held.hold(trace, span);
        if failed {
            self.decide(held, trace);
        }
    }

    /// A task has ended.
    pub(super) fn ended(&self, trace: TraceId, took: Duration) {
        if took > self.rates.slow_after && self.rates.slow.keeps(trace, None) {
            self.decide(self.locked(), trace);
        }
    }

    /// Whether it was decided late that the trace is kept.
    pub(super) fn keeps(&self, trace: TraceId) -> bool {
        self.locked().kept.contains(&trace)
    }

    /// Another process has decided.
    pub(super) fn decided_elsewhere(&self, traces: impl IntoIterator<Item = TraceId>) {
        let mut held = self.locked();
        let released: Vec<SpanData> = traces.into_iter().filter_map(|trace| held.keep(trace)).flatten().collect();
        drop(held);
        released.into_iter().for_each(|span| self.outbox.put(span));
    }

    /// Waits until this process has decided on traces, and answers with them.
    pub(super) async fn decided(&self) -> Vec<TraceId> {
        loop {
            let untold = std::mem::take(&mut self.locked().untold);
            if !untold.is_empty() {
                return untold;
            }
            self.decided.notified().await;
        }
    }

    fn decide(&self, mut held: MutexGuard<'_, Held>, trace: TraceId) {
        let Some(released) = held.keep(trace) else { return };
        held.untold.push(trace);
        drop(held);
        released.into_iter().for_each(|span| self.outbox.put(span));
        self.decided.notify_one();
    }

    fn locked(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn hold(&mut self, trace: TraceId, span: SpanData) {
        if !self.traces.contains_key(&trace) {
            self.oldest.push_back(trace);
        }
        self.traces.entry(trace).or_default().push(span);
        self.spans += 1;
        while self.spans > WAITING || self.oldest.len() > 2 * WAITING {
            let Some(oldest) = self.oldest.pop_front() else { return };
            self.spans -= self.traces.remove(&oldest).map_or(0, |spans| spans.len());
        }
    }

    /// The spans to send; `None` if it was decided before.
    fn keep(&mut self, trace: TraceId) -> Option<Vec<SpanData>> {
        if !self.kept.insert(trace) {
            return None;
        }
        self.kept_oldest.push_back(trace);
        if self.kept_oldest.len() > REMEMBERED
            && let Some(oldest) = self.kept_oldest.pop_front()
        {
            self.kept.remove(&oldest);
        }
        let spans = self.traces.remove(&trace).unwrap_or_default();
        self.spans -= spans.len();
        Some(spans)
    }
}

fn sampled(context: &SpanContext) -> SpanContext {
    let flags = context.trace_flags() | TraceFlags::SAMPLED;
    let state = context.trace_state().clone();
    SpanContext::new(context.trace_id(), context.span_id(), flags, context.is_remote(), state)
}

#[cfg(test)]
mod tests {
    use super::{Rates, Tail, WAITING};
    use crate::{
        id::{CorrelationId, StepId},
        telemetry::{
            Span, Station, Trace, Tracing,
            context::{span_id, trace_id},
            outbox::Outbox,
            sampler::Sampler,
        },
    };
    use opentelemetry::trace::SpanKind;
    use opentelemetry_sdk::trace::SpanData;
    use std::{
        sync::Arc,
        time::{Duration, UNIX_EPOCH},
    };

    struct Process {
        tracing: Tracing,
        outbox: Arc<Outbox<SpanData>>,
    }

    fn process(failed: f64, slow: f64) -> Process {
        let outbox = Outbox::new(2 * WAITING, 2 * WAITING);
        let sampler = |ratio| Sampler::new(ratio, true);
        let rates = Rates { failed: sampler(failed), slow: sampler(slow), slow_after: Duration::from_secs(60) };
        let tail = Tail::new(rates, Arc::clone(&outbox));
        Process { tracing: Tracing::new(sampler(0.0), Arc::clone(&outbox)).with_tail(Arc::new(tail)), outbox }
    }

    impl Process {
        fn records(&self, correlation: CorrelationId, station: Station, error: Option<&str>) {
            self.tracing.record(correlation, || Span {
                name: station.as_str(),
                span_id: span_id(StepId::generate().0, 1, station),
                parent: None,
                links: Vec::new(),
                start: UNIX_EPOCH,
                end: UNIX_EPOCH,
                kind: SpanKind::Internal,
                error: error.map(str::to_owned),
                attributes: Vec::new(),
            });
        }

        fn sends(&self) -> Vec<String> {
            self.outbox.take(usize::MAX).into_iter().map(|span| span.name.into_owned()).collect()
        }
    }

    #[test]
    fn a_failure_sends_what_came_before_it_and_what_comes_after() {
        let (process, failing, well) = (process(1.0, 0.0), CorrelationId::generate(), CorrelationId::generate());
        process.records(failing, Station::Claim, None);
        process.records(well, Station::Claim, None);
        assert!(process.sends().is_empty() && !process.tracing.keeps(failing));
        process.records(failing, Station::Execute, Some("no such account"));
        assert_eq!(process.sends(), ["claim", "execute"]);
        process.records(failing, Station::Report, None);
        assert_eq!(process.sends(), ["report"]);
        assert!(process.tracing.keeps(failing) && !process.tracing.keeps(well));
    }

    #[test]
    fn a_slow_end_sends_the_trace_and_a_quick_one_does_not() {
        let (process, slow, quick) = (process(0.0, 1.0), CorrelationId::generate(), CorrelationId::generate());
        for (correlation, seconds) in [(slow, 61), (quick, 60)] {
            process.records(correlation, Station::Execute, Some("failures do not count here"));
            process.tracing.ended(correlation, Duration::from_secs(seconds));
        }
        assert_eq!(process.sends(), ["execute"]);
        assert!(process.tracing.keeps(slow) && !process.tracing.keeps(quick));
    }

    #[tokio::test]
    async fn the_process_that_decides_tells_the_others() {
        let (deciding, other, correlation) = (process(1.0, 0.0), process(1.0, 0.0), CorrelationId::generate());
        other.records(correlation, Station::Submit, None);
        deciding.records(correlation, Station::Execute, Some("failed"));
        deciding.records(correlation, Station::Execute, Some("failed again"));
        let decided = deciding.tracing.decided().await;
        assert_eq!(decided, [correlation]);
        other.tracing.decided_elsewhere(decided);
        assert_eq!(other.sends(), ["submit"]);
        let told_once = tokio::time::timeout(Duration::from_millis(1), deciding.tracing.decided()).await;
        assert!(told_once.is_err());
    }

    #[test]
    fn the_share_of_failures_is_decided_alike_everywhere() {
        let processes = [process(0.5, 0.0), process(0.5, 0.0)];
        let mut kept = 0;
        for _ in 0..1_000 {
            let correlation = CorrelationId::generate();
            processes.iter().for_each(|process| process.records(correlation, Station::Execute, Some("failed")));
            let [one, other] = processes.each_ref().map(|process| process.tracing.keeps(correlation));
            assert_eq!(one, other);
            kept += usize::from(one);
        }
        assert!((400..600).contains(&kept), "{kept}");
    }

    #[test]
    fn the_oldest_traces_make_room() {
        let (process, oldest) = (process(1.0, 0.0), CorrelationId::generate());
        process.records(oldest, Station::Submit, None);
        for _ in 0..WAITING {
            process.records(CorrelationId::generate(), Station::Submit, None);
        }
        process.records(oldest, Station::Finalize, Some("failed"));
        assert_eq!(process.sends(), ["finalize"], "its first span is forgotten");
    }

    #[test]
    fn a_caller_that_keeps_nothing_does_not_hide_failures() {
        let (process, correlation_id) = (process(1.0, 0.0), CorrelationId::generate());
        let trace = Trace { correlation_id, caller_sampled: Some(false) };
        assert!(!process.tracing.keeps(trace));
        process.records(correlation_id, Station::Execute, Some("failed"));
        assert!(process.tracing.keeps(trace));
        assert_eq!(process.outbox.take(1)[0].span_context.trace_id(), trace_id(correlation_id));
    }
}
