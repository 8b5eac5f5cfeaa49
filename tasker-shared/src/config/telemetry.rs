//! The `[telemetry]` section of the configuration.

use super::{network::Network, sections::unless_empty};
use crate::{text_enum, url::without_secrets};
use serde::{Deserialize, Deserializer};
use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

/// What is measured, traced and logged, and where it goes. The standard `OTEL_*` variables win over it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Whether anything is measured at all; without it `/metrics` is empty. `TELEMETRY_ENABLED` wins.
    pub enabled: bool,
    /// How this service is named; the name of the program where it is not given.
    #[serde(deserialize_with = "unless_empty")]
    pub service_name: Option<String>,
    /// The share of traces that is kept, from 0 to 1. Metrics do not depend on it.
    pub sample_rate: f64,
    /// The share of the traces with a failure that is kept, where it is more than `sample_rate`.
    pub failed_sample_rate: f64,
    /// The share of the traces of slow tasks that is kept, where it is more than `sample_rate`.
    pub slow_sample_rate: f64,
    /// A task that takes longer is slow, in milliseconds.
    pub slow_after_ms: u64,
    /// Where Grafana is, for links to the dashboard of a task.
    #[serde(deserialize_with = "unless_empty")]
    pub grafana_url: Option<String>,
    /// The export to a collector.
    pub opentelemetry: OpenTelemetry,
    /// Metrics.
    pub metrics: Metrics,
    /// Logs.
    pub logs: Logs,
}

/// The export by OTLP.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenTelemetry {
    /// Whether anything is exported. An endpoint given by `OTEL_EXPORTER_OTLP_ENDPOINT` turns it on as well.
    pub enabled: bool,
    /// The collector; `http://localhost:4317` for gRPC and `http://localhost:4318` for HTTP where it is not given.
    #[serde(deserialize_with = "unless_empty")]
    pub endpoint: Option<String>,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Sent with every request.
    pub headers: BTreeMap<String, String>,
    /// How long a request may take, in milliseconds.
    pub timeout_ms: u64,
    /// Whether requests are compressed.
    pub compression: Compression,
    /// A PEM file with the certificate of the authority that signed the collector's.
    #[serde(deserialize_with = "path_unless_empty")]
    pub certificate: Option<PathBuf>,
    /// The time between two exports of metrics, in milliseconds.
    pub export_interval_ms: u64,
    /// The longest time a span or a log record waits, in milliseconds.
    pub batch_delay_ms: u64,
}

impl fmt::Debug for OpenTelemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenTelemetry")
            .field("enabled", &self.enabled)
            .field("endpoint", &self.endpoint.as_deref().map(without_secrets))
            .field("headers", &self.headers.keys())
            .finish_non_exhaustive()
    }
}

text_enum! {
    /// How a collector is spoken to.
    Protocol {
        /// OTLP over gRPC.
        Grpc = "grpc",
        /// OTLP over HTTP, in the binary encoding.
        HttpProtobuf = "http/protobuf",
    }
}

text_enum! {
    /// Whether requests are compressed.
    Compression {
        /// They are not.
        None = "none",
        /// By gzip.
        Gzip = "gzip",
    }
}

/// What is kept of metrics.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Whether exported series carry the correlation id.
    pub correlation: Correlation,
    /// How many correlation ids have series; the rest is counted under `overflow`.
    pub max_correlation_ids: usize,
    /// After how many seconds without a measurement the series of an id end.
    pub idle_seconds: u64,
    /// The time between two looks at what has to be asked for, such as depths of queues, in milliseconds.
    pub probe_interval_ms: u64,
    /// Who may read `/metrics`; everyone when nobody is named.
    pub allowed_clients: Vec<Network>,
}

impl Metrics {
    /// The time between two looks at what has to be asked for.
    pub fn probe_interval(&self) -> Duration {
        Duration::from_millis(self.probe_interval_ms.max(1))
    }
}

text_enum! {
    /// Whether exported series carry the correlation id.
    Correlation {
        /// As a label.
        Label = "label",
        /// Not at all.
        Off = "off",
    }
}

/// How logs look and where they go.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// How a line looks.
    pub format: Format,
    /// What is logged, in the language of `RUST_LOG`, which wins.
    pub level: String,
    /// Whether log records are exported by OTLP too.
    pub otlp: bool,
}

text_enum! {
    /// How a line of the log looks.
    Format {
        /// For people.
        Text = "text",
        /// One JSON object.
        Json = "json",
    }
}

// The defaults repeat the default file, for programs that set telemetry up without it; a test compares the two.

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            service_name: None,
            sample_rate: 1.0,
            failed_sample_rate: 0.0,
            slow_sample_rate: 0.0,
            slow_after_ms: 60_000,
            grafana_url: None,
            opentelemetry: OpenTelemetry::default(),
            metrics: Metrics::default(),
            logs: Logs::default(),
        }
    }
}

impl Default for OpenTelemetry {
    fn default() -> Self {
        Self {
            enabled: false,
            endpoint: None,
            protocol: Protocol::Grpc,
            headers: BTreeMap::new(),
            timeout_ms: 10_000,
            compression: Compression::None,
            certificate: None,
            export_interval_ms: 60_000,
            batch_delay_ms: 2_000,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            correlation: Correlation::Label,
            max_correlation_ids: 1_000,
            idle_seconds: 900,
            probe_interval_ms: 15_000,
            allowed_clients: Vec::new(),
        }
    }
}

impl Default for Logs {
    fn default() -> Self {
        Self { format: Format::Text, level: "info".to_owned(), otlp: false }
    }
}

fn path_unless_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    Ok(unless_empty(deserializer)?.map(PathBuf::from))
}
