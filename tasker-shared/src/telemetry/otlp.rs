//! Spans and log records on their way out.
//!
//! Spans are bytes already and are sent as they are; log records go through the exporter of OpenTelemetry. Neither tries
//! again by itself: the outbox in front of it does, so that an outage is told once.

use super::{
    Error,
    environment::Target,
    settings::{Compression, Protocol},
    spans::{Chunk, request},
    transport::{Failure, Transport, http, metadata, tls, unusable},
};
use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::{
    Compression as Packed, LogExporter, RetryPolicy, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_proto::tonic::resource::v1::Resource as WrittenResource;
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    logs::{LogBatch, LogExporter as _, SdkLogRecord},
};
use prost::Message as _;
use std::{collections::HashMap, future::Future};

/// A record of the log, with who wrote it.
pub(super) type Record = (SdkLogRecord, InstrumentationScope);

/// Takes what an outbox held.
pub(super) trait Sink<T>: Send + Sync {
    /// Sends one batch. Returns what the collector says it did not take, if it says so.
    fn send(&self, items: &[T]) -> impl Future<Output = Result<Option<String>, Failure>> + Send;
}

/// The way out for spans.
#[derive(Debug)]
pub(super) struct SpanSink {
    transport: Transport,
    resource: Vec<u8>,
}

impl SpanSink {
    /// Prepares the way; nothing is connected yet.
    ///
    /// # Errors
    /// The endpoint, a header or the certificate is not usable.
    pub(super) fn new(target: Target, resource: &Resource) -> Result<Self, Error> {
        Ok(Self { transport: Transport::new(target)?, resource: WrittenResource::from(resource).encode_to_vec() })
    }
}

impl Sink<Chunk> for SpanSink {
    async fn send(&self, chunks: &[Chunk]) -> Result<Option<String>, Failure> {
        self.transport.send(request(&self.resource, chunks)).await
    }
}

impl Sink<Record> for LogExporter {
    async fn send(&self, records: &[Record]) -> Result<Option<String>, Failure> {
        let records: Vec<_> = records.iter().map(|(record, scope)| (record, scope)).collect();
        judged(self.export(LogBatch::new(&records)).await).map(|()| None)
    }
}

/// The way out for log records. Must be called inside a tokio runtime; nothing is connected yet.
///
/// # Errors
/// The endpoint, a header or the certificate is not usable.
pub(super) fn records(target: &Target, resource: &Resource) -> Result<LogExporter, Error> {
    let built = match target.protocol {
        Protocol::Grpc => {
            let mut builder = LogExporter::builder()
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
            let mut builder = LogExporter::builder()
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
