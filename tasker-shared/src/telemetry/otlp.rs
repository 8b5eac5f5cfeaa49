//! Spans and log records on their way out: the exporters of OpenTelemetry, built from what the plan says.
//!
//! They do not try again by themselves: the outbox in front of them does, so that an outage is told once.

use super::{
    Error,
    environment::Target,
    settings::{Compression, Protocol},
    transport::{Failure, http, metadata, tls, unusable},
};
use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::{
    Compression as Packed, LogExporter, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    logs::{LogBatch, LogExporter as _, SdkLogRecord},
    trace::{SpanData, SpanExporter as _},
};
use std::{collections::HashMap, future::Future};

/// A record of the log, with who wrote it.
pub(super) type Record = (SdkLogRecord, InstrumentationScope);

/// Takes what an outbox held.
pub(super) trait Sink<T>: Send + Sync {
    /// Sends one batch.
    fn send(&self, items: &[T]) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl Sink<SpanData> for SpanExporter {
    async fn send(&self, spans: &[SpanData]) -> Result<(), Failure> {
        judged(self.export(spans.to_vec()).await)
    }
}

impl Sink<Record> for LogExporter {
    async fn send(&self, records: &[Record]) -> Result<(), Failure> {
        let records: Vec<_> = records.iter().map(|(record, scope)| (record, scope)).collect();
        judged(self.export(LogBatch::new(&records)).await)
    }
}

macro_rules! built {
    ($exporter:ident, $target:ident, $resource:ident) => {{
        let (target, resource): (&Target, &Resource) = ($target, $resource);
        let built = match target.protocol {
            Protocol::Grpc => {
                let mut builder = $exporter::builder()
                    .with_tonic()
                    .with_endpoint(&target.endpoint)
                    .with_timeout(target.timeout)
                    .with_metadata(metadata(target)?)
                    .with_retry_policy(RetryPolicy::disabled());
                if target.compression == Compression::Gzip {
                    builder = builder.with_compression(Packed::Gzip);
                }
                if target.endpoint.starts_with("https://") {
                    builder = builder.with_tls_config(tls(target)?);
                }
                builder.build()
            }
            Protocol::HttpProtobuf => {
                let headers: HashMap<String, String> = target.headers.iter().cloned().collect();
                let mut builder = $exporter::builder()
                    .with_http()
                    .with_http_client(http(target)?)
                    .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                    .with_endpoint(&target.endpoint)
                    .with_timeout(target.timeout)
                    .with_headers(headers)
                    .with_retry_policy(RetryPolicy::disabled());
                if target.compression == Compression::Gzip {
                    builder = builder.with_compression(Packed::Gzip);
                }
                builder.build()
            }
        };
        let mut exporter = built.map_err(|error| unusable(target, error))?;
        exporter.set_resource(resource);
        Ok(exporter)
    }};
}

/// The way out for spans. Must be called inside a tokio runtime; nothing is connected yet.
///
/// # Errors
/// The endpoint, a header or the certificate is not usable.
pub(super) fn spans(target: &Target, resource: &Resource) -> Result<SpanExporter, Error> {
    built!(SpanExporter, target, resource)
}

/// The way out for log records. Must be called inside a tokio runtime; nothing is connected yet.
///
/// # Errors
/// The endpoint, a header or the certificate is not usable.
pub(super) fn records(target: &Target, resource: &Resource) -> Result<LogExporter, Error> {
    built!(LogExporter, target, resource)
}

/// What a collector says that will not change when the same is sent again: gRPC codes and HTTP statuses, as the
/// exporters tell them.
const FINAL: &[&str] = &[
    "gRPC code: InvalidArgument",
    "gRPC code: FailedPrecondition",
    "gRPC code: Internal",
    "gRPC code: OutOfRange",
    "status code: 400",
    "status code: 413",
    "status code: 415",
    "status code: 422",
];

fn judged(result: OTelSdkResult) -> Result<(), Failure> {
    let text = match result {
        Ok(()) => return Ok(()),
        Err(OTelSdkError::InternalFailure(text)) => text,
        Err(error) => error.to_string(),
    };
    let is_final = FINAL.iter().any(|said| text.contains(said));
    Err(if is_final { Failure::Refused(text) } else { Failure::Unavailable(text) })
}

#[cfg(test)]
mod tests {
    use super::{Failure, judged};
    use opentelemetry_sdk::error::OTelSdkError;

    #[test]
    fn what_will_never_be_taken_is_not_sent_again() {
        let said = |text: &str| judged(Err(OTelSdkError::InternalFailure(text.to_owned()))).unwrap_err();
        assert!(matches!(said("export failed with gRPC code: InvalidArgument"), Failure::Refused(_)));
        assert!(matches!(said("HTTP export failed with status code: 413"), Failure::Refused(_)));
        assert!(matches!(said("HTTP export failed with status code: 503"), Failure::Unavailable(_)));
        assert!(matches!(said("export failed with gRPC code: Unavailable: refused"), Failure::Unavailable(_)));
    }
}
