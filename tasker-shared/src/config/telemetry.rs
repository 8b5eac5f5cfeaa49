//! The section `[telemetry]` as the program sees it.

use super::sections::milliseconds;
use serde::Deserialize;
use std::time::Duration;

/// Metrics, traces and logs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Whether metrics and traces are recorded at all.
    pub enabled: bool,
    /// How the services call themselves.
    pub service_name: String,
    /// The share of tasks whose traces are kept, from 0.0 to 1.0.
    pub sample_rate: f64,
    /// Sending by OTLP.
    pub opentelemetry: OpenTelemetry,
    /// How metrics carry ids.
    pub metrics: Metrics,
    /// The log.
    pub logs: Logs,
}

/// Sending by OTLP.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenTelemetry {
    /// Whether metrics and traces are sent.
    pub enabled: bool,
    /// The collector's URL.
    pub endpoint: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// How often metrics are sent.
    #[serde(rename = "export_interval_ms", deserialize_with = "milliseconds")]
    pub export_interval: Duration,
}

/// The transport of OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    /// gRPC, by custom on port 4317.
    #[serde(rename = "grpc")]
    Grpc,
    /// Protobuf over HTTP, by custom on port 4318.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// How metrics carry ids.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Whether series carry the correlation id of their task.
    pub correlation: Correlation,
    /// How many of the most recent correlation ids have series of their own.
    pub max_correlation_ids: usize,
    /// When the series of a correlation id end that nothing is heard of.
    #[serde(rename = "idle_ms", deserialize_with = "milliseconds")]
    pub idle: Duration,
}

/// Whether series carry the correlation id of their task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correlation {
    /// As a label, within bounds.
    Label,
    /// Not at all.
    Off,
}

/// The log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// For whom it is written.
    pub format: LogFormat,
    /// What is logged: a level, or a filter such as `info,sqlx=warn`.
    pub level: String,
    /// Whether it is sent by OTLP too.
    pub otlp: bool,
}

/// For whom the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}
