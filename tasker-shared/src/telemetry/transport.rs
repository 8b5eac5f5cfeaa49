//! How requests reach a collector: OTLP over gRPC or HTTP.

use super::{
    Error,
    environment::Target,
    settings::{Compression, Protocol},
};
use crate::metrics::Signal;
use flate2::{Compression as Level, write::GzEncoder};
use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsServiceRequest, logs_service_client::LogsServiceClient},
    metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
    trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
};
use prost::Message as _;
use std::{error::Error as _, io::Write, path::Path};
use tonic::{
    Code, Request,
    codec::CompressionEncoding,
    metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

/// A request of one of the three signals.
#[derive(Debug, Clone)]
pub(super) enum Message {
    /// Numbers.
    Metrics(ExportMetricsServiceRequest),
    /// Spans.
    Traces(ExportTraceServiceRequest),
    /// Log records.
    Logs(ExportLogsServiceRequest),
}

/// Why a request did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Another time it may.
    #[error("{0}")]
    Unavailable(String),
    /// It never will.
    #[error("refused: {0}")]
    Refused(String),
}

/// The way to one collector, for one signal.
#[derive(Debug)]
pub(super) struct Transport {
    target: Target,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Grpc { channel: Channel, metadata: MetadataMap },
    Http { client: reqwest::Client },
}

impl Transport {
    /// Prepares the way; nothing is connected yet.
    ///
    /// # Errors
    /// The endpoint, a header or the certificate is not usable.
    pub(super) fn new(target: Target) -> Result<Self, Error> {
        let way = match target.protocol {
            Protocol::Grpc => grpc(&target)?,
            Protocol::HttpProtobuf => http(&target)?,
        };
        Ok(Self { target, way })
    }

    /// Of which signal.
    pub(super) fn signal(&self) -> Signal {
        self.target.signal
    }

    /// To where.
    pub(super) fn endpoint(&self) -> &str {
        &self.target.endpoint
    }

    /// Sends one request. Returns what the collector says it did not take, if it says so.
    pub(super) async fn send(&self, message: Message) -> Result<Option<String>, Failure> {
        let sent = match &self.way {
            Way::Grpc { channel, metadata } => {
                let gzip = (self.target.compression == Compression::Gzip).then_some(CompressionEncoding::Gzip);
                tokio::time::timeout(self.target.timeout, call(channel.clone(), metadata.clone(), gzip, message)).await
            }
            Way::Http { client } => tokio::time::timeout(self.target.timeout, self.post(client, message)).await,
        };
        sent.unwrap_or_else(|_| Err(Failure::Unavailable(format!("no answer within {:?}", self.target.timeout))))
    }

    async fn post(&self, client: &reqwest::Client, message: Message) -> Result<Option<String>, Failure> {
        let unavailable = |error: reqwest::Error| Failure::Unavailable(causes(&error));
        let mut request = client.post(&self.target.endpoint).header("content-type", "application/x-protobuf");
        for (name, value) in &self.target.headers {
            request = request.header(name, value);
        }
        let body = message.encoded();
        let request = match self.target.compression {
            Compression::None => request.body(body),
            Compression::Gzip => request.header("content-encoding", "gzip").body(gzipped(&body)),
        };
        let answer = request.send().await.map_err(unavailable)?;
        let status = answer.status();
        if status.is_success() {
            let body = answer.bytes().await.map_err(unavailable)?;
            return Ok(message.rejected(&body));
        }
        let said: String = answer.text().await.unwrap_or_default().chars().take(200).collect();
        let text = format!("the collector answers {status} {said}").trim_end().to_owned();
        // What another time or another configuration may mend is kept.
        Err(if matches!(status.as_u16(), 400 | 413 | 415 | 422) {
            Failure::Refused(text)
        } else {
            Failure::Unavailable(text)
        })
    }
}

fn unusable(target: &Target, reason: impl ToString) -> Error {
    Error::Endpoint { signal: target.signal, endpoint: target.endpoint.clone(), reason: reason.to_string() }
}

fn certificate(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Certificate { path: path.to_owned(), source })
}

fn grpc(target: &Target) -> Result<Way, Error> {
    let mut endpoint = Endpoint::from_shared(target.endpoint.clone())
        .map_err(|error| unusable(target, causes(&error)))?
        .connect_timeout(target.timeout);
    if target.endpoint.starts_with("https://") {
        let mut tls = ClientTlsConfig::new().with_enabled_roots();
        if let Some(path) = &target.certificate {
            tls = tls.ca_certificate(Certificate::from_pem(certificate(path)?));
        }
        endpoint = endpoint.tls_config(tls).map_err(|error| unusable(target, causes(&error)))?;
    }
    let mut metadata = MetadataMap::new();
    for (name, value) in &target.headers {
        let key: AsciiMetadataKey = name.to_ascii_lowercase().parse().map_err(|error| unusable(target, error))?;
        let value: AsciiMetadataValue = value.parse().map_err(|error| unusable(target, error))?;
        metadata.insert(key, value);
    }
    Ok(Way::Grpc { channel: endpoint.connect_lazy(), metadata })
}

fn http(target: &Target) -> Result<Way, Error> {
    let mut client = reqwest::Client::builder().connect_timeout(target.timeout);
    if let Some(path) = &target.certificate {
        let pem = reqwest::Certificate::from_pem(&certificate(path)?);
        client = client.tls_certs_merge([pem.map_err(|error| unusable(target, error))?]);
    }
    reqwest::Url::parse(&target.endpoint).map_err(|error| unusable(target, error))?;
    let client = client.build().map_err(|error| unusable(target, causes(&error)))?;
    Ok(Way::Http { client })
}

async fn call(
    channel: Channel,
    metadata: MetadataMap,
    gzip: Option<CompressionEncoding>,
    message: Message,
) -> Result<Option<String>, Failure> {
    macro_rules! export {
        ($client:ident, $request:expr, $rejected:ident) => {{
            let mut client = $client::new(channel);
            if let Some(gzip) = gzip {
                client = client.send_compressed(gzip);
            }
            let request = Request::from_parts(metadata, Default::default(), $request);
            let answer = client.export(request).await.map_err(|status| failure(&status))?.into_inner();
            Ok(answer.partial_success.and_then(|part| rejection(part.$rejected, part.error_message)))
        }};
    }
    match message {
        Message::Metrics(request) => export!(MetricsServiceClient, request, rejected_data_points),
        Message::Traces(request) => export!(TraceServiceClient, request, rejected_spans),
        Message::Logs(request) => export!(LogsServiceClient, request, rejected_log_records),
    }
}

fn failure(status: &tonic::Status) -> Failure {
    let text = status.source().map_or_else(|| status.message().to_owned(), causes);
    let text = format!("{:?}: {text}", status.code());
    match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition | Code::Internal | Code::OutOfRange => Failure::Refused(text),
        _ => Failure::Unavailable(text),
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts.dedup();
    texts.join(": ")
}

fn rejection(count: i64, message: String) -> Option<String> {
    (count > 0).then(|| format!("{count} items not taken: {message}"))
}

fn gzipped(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Level::fast());
    let _a_vec_takes_all = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

impl Message {
    fn encoded(&self) -> Vec<u8> {
        match self {
            Self::Metrics(request) => request.encode_to_vec(),
            Self::Traces(request) => request.encode_to_vec(),
            Self::Logs(request) => request.encode_to_vec(),
        }
    }

    fn rejected(&self, answer: &[u8]) -> Option<String> {
        use opentelemetry_proto::tonic::collector::{
            logs::v1::ExportLogsServiceResponse, metrics::v1::ExportMetricsServiceResponse,
            trace::v1::ExportTraceServiceResponse,
        };
        let (count, message) = match self {
            Self::Metrics(_) => {
                let part = ExportMetricsServiceResponse::decode(answer).ok()?.partial_success?;
                (part.rejected_data_points, part.error_message)
            }
            Self::Traces(_) => {
                let part = ExportTraceServiceResponse::decode(answer).ok()?.partial_success?;
                (part.rejected_spans, part.error_message)
            }
            Self::Logs(_) => {
                let part = ExportLogsServiceResponse::decode(answer).ok()?.partial_success?;
                (part.rejected_log_records, part.error_message)
            }
        };
        rejection(count, message)
    }
}
