//! Traces that are not kept from the start may be kept later: their spans wait here, within a bound, until a failure or
//! a slow end asks for them.
//!
//! Each process decides by what it sees, and tells the others ([`Tracing::decided`](super::Tracing::decided)), so that
//! they send what waits with them. What no longer fits is forgotten, whole traces at a time and the oldest first.

use super::{outbox::Outbox, sampler::Sampler, spans::Chunk};
use opentelemetry::trace::TraceId;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// The most bytes of spans that wait in one process.
const WAITING: usize = 16 * 1024 * 1024;
/// The most traces.
const TRACES: usize = 65_536;
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
    outbox: Arc<Outbox<Chunk>>,
    held: Mutex<Held>,
    decided: Notify,
}

#[derive(Debug, Default)]
struct Held {
    traces: HashMap<TraceId, Vec<Chunk>>,
    /// Also names traces that are no longer held.
    oldest: VecDeque<TraceId>,
    bytes: usize,
    kept: HashSet<TraceId>,
    kept_oldest: VecDeque<TraceId>,
    untold: Vec<TraceId>,
}

impl Tail {
    pub(super) fn new(rates: Rates, outbox: Arc<Outbox<Chunk>>) -> Self {
        Self { rates, outbox, held: Mutex::default(), decided: Notify::new() }
    }

    /// Takes a span of a trace that was not kept from the start.
    pub(super) fn put(&self, trace: TraceId, span: Chunk, failed: bool) {
        let mut held = self.locked();
        if held.kept.contains(&trace) {
            drop(held);
            return self.send([span]);
        }
        held.hold(trace, span);
        if failed && self.rates.failed.keeps(trace, None) {
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
        let released: Vec<Chunk> = traces.into_iter().filter_map(|trace| held.keep(trace)).flatten().collect();
        drop(held);
        self.send(released);
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
        self.send(released);
        self.decided.notify_one();
    }

    fn send(&self, spans: impl IntoIterator<Item = Chunk>) {
        for span in spans {
            let weight = span.len();
            self.outbox.put(span, weight);
        }
    }

    fn locked(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn hold(&mut self, trace: TraceId, span: Chunk) {
        if !self.traces.contains_key(&trace) {
            self.oldest.push_back(trace);
        }
        self.bytes += span.len();
        self.traces.entry(trace).or_default().push(span);
        while self.bytes > WAITING || self.oldest.len() > TRACES {
            let Some(oldest) = self.oldest.pop_front() else { return };
            self.bytes -= self.traces.remove(&oldest).iter().flatten().map(Vec::len).sum::<usize>();
        }
    }

    /// The spans to send; `None` if it was decided before.
    fn keep(&mut self, trace: TraceId) -> Option<Vec<Chunk>> {
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
        self.bytes -= spans.iter().map(Vec::len).sum::<usize>();
        Some(spans)
    }
}

#[cfg(test)]
mod tests {
    use super::{Rates, TRACES, Tail};
    use crate::{
        id::{CorrelationId, StepId},
        telemetry::{
            Span, Station, Trace, Tracing,
            context::span_id,
            outbox::Outbox,
            sampler::Sampler,
            spans::{Chunk, request},
        },
    };
    use opentelemetry::trace::SpanKind;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message as _;
    use std::{
        sync::Arc,
        time::{Duration, UNIX_EPOCH},
    };

    struct Process {
        tracing: Tracing,
        outbox: Arc<Outbox<Chunk>>,
    }

    fn process(failed: f64, slow: f64) -> Process {
        let outbox = Outbox::new(usize::MAX, usize::MAX);
        let sampler = |ratio| Sampler::new(ratio, true);
        let rates = Rates { failed: sampler(failed), slow: sampler(slow), slow_after: Duration::from_secs(60) };
        let tail = Tail::new(rates, Arc::clone(&outbox));
        Process { tracing: Tracing::new(sampler(0.0), Arc::clone(&outbox), Some(Arc::new(tail))), outbox }
    }

    impl Process {
        fn records(&self, correlation: CorrelationId, station: Station, error: Option<&str>) {
            let span = Span {
                name: station.as_str(),
                span_id: span_id(StepId::generate().0, 1, station),
                parent: None,
                start: UNIX_EPOCH,
                end: UNIX_EPOCH,
                kind: SpanKind::Internal,
            };
            self.tracing.record(correlation, span, |about| {
                if let Some(error) = error {
                    about.error(error);
                }
            });
        }

        fn sends(&self) -> Vec<String> {
            let chunks = self.outbox.take(usize::MAX);
            let sent = ExportTraceServiceRequest::decode(request(&[], &chunks).as_slice()).unwrap();
            let spans = sent.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans);
            spans.map(|span| span.name).collect()
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
        for _ in 0..TRACES {
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
        assert_eq!(process.sends(), ["execute"]);
    }
}
