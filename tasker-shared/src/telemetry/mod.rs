//! Traces, logs and the export of metrics.
//!
//! [`init`] makes everything from the `[telemetry]` section and the standard `OTEL_*` variables. Metrics go through the
//! OpenTelemetry SDK into the series store (`store`), from which they are exported and scraped; spans and log records
//! wait in bounded outboxes. No exporter is ever in the way of those who record.

pub mod context;
mod environment;
mod error;
mod export;
pub mod exposition;
mod logs;
mod otlp;
mod outage;
mod outbox;
mod recorder;
pub mod sampler;
mod scope;
mod spans;
mod store;
mod tail;
#[cfg(test)]
mod tests;
pub mod trace;
mod transaction;
mod transport;
mod zeros;

pub use context::{Station, TraceParent, span_id, trace_id};
pub use error::Error;
pub use exposition::Format;
pub use scope::Scope;
pub use settings::Settings;

/// The section `[telemetry]`.
pub use crate::config::telemetry as settings;
pub use spans::{About, Attribute, Span, Spans};
pub use trace::{Trace, Tracing};
pub use transaction::transaction_id;

use crate::metrics::Metrics;
use environment::{Environment, Plan, Target};
use export::Exporter;
use opentelemetry_sdk::{logs::SdkLoggerProvider, metrics::SdkMeterProvider, trace::SdkTracerProvider};
use outage::{Outages, Watch};
use outbox::Outbox;
use recorder::Recorder;
use settings::Correlation;
use std::{sync::Arc, time::Duration};
use store::Bounds;
use tail::Tail;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use transport::Transport;

/// How many log records wait for the exporter, how many wake it, and how many go into one request.
const RECORDS: Waiting = Waiting { bound: 32_768, wake_at: 1_000, request: 1_000 };
/// The same for spans, in bytes. Receivers limit a message to 4 MiB.
const SPANS: Waiting = Waiting { bound: 32 << 20, wake_at: 512 << 10, request: 1 << 20 };

/// Sizes of an outbox.
struct Waiting {
    bound: usize,
    wake_at: usize,
    request: usize,
}

/// What measures, traces and exports in this process.
#[derive(Debug)]
pub struct Telemetry {
    metrics: Metrics,
    tracing: Tracing,
    recorder: Option<Arc<Recorder>>,
    tracer: Option<SdkTracerProvider>,
    logger: Option<SdkLoggerProvider>,
    exports: JoinSet<()>,
    stop: CancellationToken,
    disabled: Option<&'static str>,
}

/// Starts telemetry with the variables of this process, and sends the logs of the whole process where the settings say.
/// Must be called inside a tokio runtime; `service` is the name where none is configured.
///
/// # Errors
/// A setting or a variable is not understood, or logs already go elsewhere.
pub fn init(settings: &Settings, service: &str, version: &str) -> Result<Telemetry, Error> {
    let telemetry = Telemetry::start(settings, service, version, &|name| std::env::var(name).ok())?;
    logs::install(&settings.logs, telemetry.tracer.as_ref(), telemetry.logger.as_ref())?;
    match telemetry.disabled {
        None => tracing::info!(service, version, opentelemetry_enabled = true, "telemetry is exported"),
        Some(reason) => {
            tracing::info!(service, version, opentelemetry_enabled = false, reason, "telemetry is not exported");
        }
    }
    Ok(telemetry)
}

impl Telemetry {
    /// Starts telemetry and leaves the logs of the process alone. Must be called inside a tokio runtime; `variable`
    /// reads the environment.
    ///
    /// # Errors
    /// A setting or a variable is not understood.
    pub fn start(
        settings: &Settings,
        service: &str,
        version: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let plan = environment::plan(settings, service, version, &Environment(variable))?;
        if plan.disabled.is_some() {
            return Ok(Self { disabled: plan.disabled, ..Self::off() });
        }
        // Another part of the process may have chosen already; both ends of TLS work with any provider.
        let _already_chosen = rustls::crypto::ring::default_provider().install_default();
        Self::running(settings, plan)
    }

    /// Measures nothing.
    pub fn off() -> Self {
        Self {
            metrics: Metrics::disabled(),
            tracing: Tracing::disabled(),
            recorder: None,
            tracer: None,
            logger: None,
            exports: JoinSet::new(),
            stop: CancellationToken::new(),
            disabled: Some("telemetry is off"),
        }
    }

    fn running(settings: &Settings, plan: Plan) -> Result<Self, Error> {
        let exemplars = plan.traces.is_some().then_some(plan.sampler);
        let recorder = Recorder::start(plan.resource.clone(), bounds(settings, plan.metrics.is_some()), exemplars)
            .map_err(Error::Thread)?;
        let mut telemetry = Self {
            metrics: recorder.metrics().clone(),
            recorder: Some(Arc::clone(&recorder)),
            disabled: plan.not_exported,
            ..Self::off()
        };
        let delay = Duration::from_millis(settings.opentelemetry.batch_delay_ms.max(1));
        let metrics = telemetry.metrics.clone();
        let outages = Outages::default();
        let watch = |target: &Target, quiet| Watch::new(target, metrics.clone(), outages.clone(), quiet);
        if let Some(target) = plan.metrics {
            let exporter = Exporter { watch: watch(&target, plan.interval / 2), transport: Transport::new(target)? };
            telemetry.exports.spawn(export::metrics(recorder, exporter, plan.interval, telemetry.stop.clone()));
        }
        if let Some(target) = plan.traces {
            let outbox = Outbox::new(SPANS.bound, SPANS.wake_at);
            let tail = plan.tail.map(|rates| Arc::new(Tail::new(rates, Arc::clone(&outbox))));
            telemetry.tracing = Tracing::new(plan.sampler, Arc::clone(&outbox), tail.clone());
            let sampler = plan.sampler.waiting(tail.is_some());
            let provider = SdkTracerProvider::builder().with_resource(plan.resource.clone()).with_sampler(sampler);
            telemetry.tracer = Some(provider.with_span_processor(logs::Spans(Arc::clone(&outbox), tail)).build());
            let (watch, sink) = (watch(&target, delay), otlp::SpanSink::new(target, &plan.resource)?);
            let stop = telemetry.stop.clone();
            telemetry.exports.spawn(export::items(outbox, sink, watch, SPANS.request, delay, stop));
        }
        if let Some(target) = plan.logs {
            let outbox = Outbox::new(RECORDS.bound, RECORDS.wake_at);
            let (sink, watch) = (otlp::records(&target, &plan.resource)?, watch(&target, delay));
            let provider = SdkLoggerProvider::builder().with_resource(plan.resource);
            telemetry.logger = Some(provider.with_log_processor(logs::Records(Arc::clone(&outbox))).build());
            let stop = telemetry.stop.clone();
            telemetry.exports.spawn(export::items(outbox, sink, watch, RECORDS.request, delay, stop));
        }
        Ok(telemetry)
    }

    /// The catalogue of this process.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Writes the spans of the stations.
    pub fn tracing(&self) -> &Tracing {
        &self.tracing
    }

    /// Makes meters for the instruments of handler authors; `None` where nothing is measured.
    pub fn meter_provider(&self) -> Option<&SdkMeterProvider> {
        self.recorder.as_ref().map(|recorder| recorder.provider())
    }

    /// A handle for those who answer scrapes.
    pub fn scrape(&self) -> Scrape {
        Scrape(self.recorder.clone())
    }

    /// The page for a scrape in Prometheus text, without correlation ids.
    pub fn prometheus_text(&self) -> String {
        self.scrape().text(Format::Prometheus)
    }

    /// The page for a scrape in OpenMetrics text, without correlation ids.
    pub fn openmetrics_text(&self) -> String {
        self.scrape().text(Format::OpenMetrics)
    }

    /// Exports what is left and ends, within `limit`.
    pub async fn shutdown(mut self, limit: Duration) {
        self.stop.cancel();
        let exported = async { while self.exports.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, exported).await.is_err() {
            tracing::warn!(
                limit_s = limit.as_secs_f64(),
                "telemetry could not be exported in time; the last of it is lost"
            );
        }
        if let Some(recorder) = &self.recorder {
            recorder.stop();
        }
    }
}

/// Answers scrapes; cheap to clone.
#[derive(Debug, Clone)]
pub struct Scrape(Option<Arc<Recorder>>);

impl Scrape {
    /// The page, exact at this moment.
    pub fn text(&self, format: Format) -> String {
        match &self.0 {
            Some(recorder) => recorder.text(format),
            None if format == Format::OpenMetrics => "# EOF\n".to_owned(),
            None => String::new(),
        }
    }
}

/// Scraped pages have no correlation ids: without an export none are held.
fn bounds(settings: &Settings, exported: bool) -> Bounds {
    Bounds {
        correlation: exported && settings.metrics.correlation == Correlation::Label,
        ids: settings.metrics.max_correlation_ids,
        idle: Duration::from_secs(settings.metrics.idle_seconds),
    }
}
