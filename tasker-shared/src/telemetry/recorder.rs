//! Takes what was recorded out of the SDK and puts it into the series store, often enough that nothing is lost there.
//!
//! The SDK holds a limited number of label sets for each instrument. It is emptied every second, and earlier when many
//! measurements of single tasks were made. This is done on a thread of its own, away from the work.

use super::{
    exposition,
    sampler::Sampler,
    store::{Batch, Bounds, Store},
    trace::nanos,
    zeros,
};
use crate::metrics::{CATALOG, Metrics, Pressure, spec::METER};
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_proto::tonic::resource::v1::Resource as WrittenResource;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::{
        Instrument, InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Stream, Temporality,
        data::ResourceMetrics, reader::MetricReader,
    },
};
use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, SystemTime},
};

/// How often the SDK is emptied at least.
const PERIOD: Duration = Duration::from_secs(1);
/// After how many measurements with a correlation id it is emptied at once.
const PRESSURE: usize = 10_000;
/// How many label sets of one instrument the SDK holds. It keeps those of the last two collections; beyond it the
/// labels are lost but not the count.
const CARDINALITY: usize = 28_000;

/// Everything that is measured in this process.
#[derive(Debug)]
pub(super) struct Recorder {
    reader: Reader,
    provider: SdkMeterProvider,
    metrics: Metrics,
    resource: WrittenResource,
    held: Mutex<Held>,
    wake: SyncSender<()>,
}

#[derive(Debug)]
struct Held {
    collected: ResourceMetrics,
    store: Store,
}

impl Recorder {
    /// Begins to measure.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(super) fn start(resource: Resource, bounds: Bounds, sampler: Option<Sampler>) -> std::io::Result<Arc<Self>> {
        let reader = Reader(Arc::new(ManualReader::builder().with_temporality(Temporality::Delta).build()));
        let provider = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            .with_reader(reader.clone())
            .with_view(room_for_correlation_ids)
            .build();
        let (wake, woken) = sync_channel(1);
        let relieve = wake.clone();
        let pressure = Pressure::new(PRESSURE, move || {
            let _already_woken = relieve.try_send(());
        });
        let metrics = Metrics::with_pressure(&provider.meter(METER), &pressure);
        zeros::begin(&metrics);
        let store = Store::new(bounds, sampler, nanos(SystemTime::now()));
        let recorder = Arc::new(Self {
            reader,
            provider,
            metrics,
            resource: (&resource).into(),
            held: Mutex::new(Held { collected: ResourceMetrics::default(), store }),
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
        let Held { collected, store } = &mut *held;
        let now = nanos(SystemTime::now());
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

    /// Measures nothing more.
    pub(super) fn stop(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::debug!(%error, "the meter provider was stopped before");
        }
        let _already_woken = self.wake.try_send(());
    }
}

fn collect_often(recorder: &Weak<Recorder>, woken: &Receiver<()>) {
    loop {
        match woken.recv_timeout(PERIOD) {
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
        }
        let Some(recorder) = recorder.upgrade() else { return };
        recorder.with(|_, _| ());
    }
}

/// Gives room to the metrics that have series of single tasks; the others keep the limit of the SDK.
fn room_for_correlation_ids(instrument: &Instrument) -> Option<Stream> {
    let spec = CATALOG.iter().find(|spec| spec.name == instrument.name())?;
    let stream = Stream::builder().with_cardinality_limit(CARDINALITY);
    spec.has_correlation_id().then(|| stream.build().ok()).flatten()
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
