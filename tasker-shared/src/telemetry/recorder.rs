//! Takes what was recorded out of the journal and the SDK and puts it into the series store.
//!
//! Both are emptied every second, the journal also when much was noted in it. This is done on a thread of its own, away
//! from the work.

use super::{
    exposition,
    sampler::Sampler,
    store::{Batch, Bounds, Store},
    trace::nanos,
    zeros,
};
use crate::metrics::{CATALOG, Journal, Metrics, journal::Entry, spec::METER};
use opentelemetry::{InstrumentationScope, metrics::MeterProvider as _};
use opentelemetry_proto::tonic::resource::v1::Resource as WrittenResource;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::{
        InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Temporality, data::ResourceMetrics,
        reader::MetricReader,
    },
};
use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant, SystemTime},
};

/// How often what was recorded is collected at least.
const PERIOD: Duration = Duration::from_secs(1);
/// After how many measurements of single tasks the journal is emptied at once.
const NOTED: usize = 10_000;
/// The scope of the catalogue.
const SCOPE: &str = METER;

/// Everything that is measured in this process.
#[derive(Debug)]
pub(super) struct Recorder {
    reader: Reader,
    provider: SdkMeterProvider,
    metrics: Metrics,
    journal: Arc<Journal>,
    resource: WrittenResource,
    held: Mutex<Held>,
    wake: SyncSender<()>,
}

#[derive(Debug)]
struct Held {
    collected: ResourceMetrics,
    noted: Vec<Entry>,
    store: Store,
}

impl Recorder {
    /// Begins to measure.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(super) fn start(resource: Resource, bounds: Bounds, sampler: Option<Sampler>) -> std::io::Result<Arc<Self>> {
        let reader = Reader(Arc::new(ManualReader::builder().with_temporality(Temporality::Delta).build()));
        let provider = SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(reader.clone()).build();
        let (wake, woken) = sync_channel(1);
        let relieve = wake.clone();
        let journal = Journal::new(CATALOG.len(), NOTED, move || {
            let _already_woken = relieve.try_send(());
        });
        let metrics = Metrics::new(&provider.meter(SCOPE), &journal);
        zeros::begin(&metrics);
        let store = Store::new(bounds, sampler, nanos(SystemTime::now()));
        let recorder = Arc::new(Self {
            reader,
            provider,
            metrics,
            journal,
            resource: (&resource).into(),
            held: Mutex::new(Held { collected: ResourceMetrics::default(), noted: Vec::new(), store }),
            wake,
        });
        let weak = Arc::downgrade(&recorder);
        std::thread::Builder::new().name("telemetry".to_owned()).spawn(move || collect_often(&weak, &woken))?;
        Ok(recorder)
    }

    /// The catalogue.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// For meters of their own.
    pub(super) fn provider(&self) -> &SdkMeterProvider {
        &self.provider
    }

    /// What the exporter sends next.
    pub(super) fn batch(&self) -> Batch {
        self.with(|store, now| store.batch(&self.resource, now))
    }

    /// The batch has arrived.
    pub(super) fn arrived(&self, batch: &Batch) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).store.arrived(batch);
    }

    /// The batch was refused.
    pub(super) fn refused(&self, batch: &Batch) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).store.refused(batch);
    }

    /// The page for a scrape, exact at this moment.
    pub(super) fn text(&self, format: exposition::Format) -> String {
        self.with(|store, _| exposition::page(store.families(), &self.resource, format))
    }

    /// Collects first, so that everything recorded until now is in the store.
    fn with<R>(&self, look: impl FnOnce(&mut Store, u64) -> R) -> R {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = nanos(SystemTime::now());
        self.absorb_journal(&mut held, now);
        let Held { collected, store, .. } = &mut *held;
        match self.reader.collect(collected) {
            Ok(()) => store.absorb(collected, now),
            Err(error) => tracing::debug!(%error, "metrics could not be collected"),
        }
        let overflowed = store.take_overflowed();
        if overflowed > 0 {
            self.metrics.telemetry_overflow.add(overflowed, ());
        }
        self.metrics.telemetry_series.set(i64::try_from(store.series()).unwrap_or(i64::MAX), ());
        look(store, now)
    }

    fn relieve(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.absorb_journal(&mut held, nanos(SystemTime::now()));
    }

    fn absorb_journal(&self, held: &mut Held, now: u64) {
        self.journal.take(&mut held.noted);
        held.store.journal(&self.journal, &InstrumentationScope::builder(SCOPE).build(), &held.noted, now);
        held.noted.clear();
    }

    /// Measures nothing more.
    pub(super) fn stop(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::debug!(%error, "the meter provider was stopped before");
        }
        let _already_woken = self.wake.try_send(());
    }
}

fn collect_often(recorder: &Weak<Recorder>, woken: &Receiver<()>) {
    let mut collected = Instant::now();
    loop {
        let woken = woken.recv_timeout(PERIOD.saturating_sub(collected.elapsed()));
        let Some(recorder) = recorder.upgrade() else { return };
        match woken {
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(()) if collected.elapsed() < PERIOD => recorder.relieve(),
            Ok(()) | Err(RecvTimeoutError::Timeout) => {
                recorder.with(|_, _| ());
                collected = Instant::now();
            }
        }
    }
}

/// Deltas of what only grows; what goes up and down as it is.
#[derive(Debug, Clone)]
struct Reader(Arc<ManualReader>);

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, collected: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(collected)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        match kind {
            InstrumentKind::Counter
            | InstrumentKind::Histogram
            | InstrumentKind::ObservableCounter
            | InstrumentKind::ObservableGauge => Temporality::Delta,
            InstrumentKind::Gauge | InstrumentKind::UpDownCounter | InstrumentKind::ObservableUpDownCounter => {
                Temporality::Cumulative
            }
        }
    }
}
