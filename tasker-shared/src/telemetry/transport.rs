//! How metrics and spans reach a collector: OTLP over gRPC or HTTP.
//!
//! The series store makes requests of its own, which the exporter of OpenTelemetry cannot express, and spans are bytes
//! already. Log records go through that exporter, and share with this only how an address, headers and a certificate are
//! read.

use super::{
    Error,
    environment::Target,
    settings::{Compression, Protocol},
};
use crate::{metrics::Signal, url::without_secrets};
use flate2::{Compression as Level, write::GzEncoder};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::{Message as _, bytes::BufMut as _};
use std::{error::Error as _, io::Write, path::Path};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{BufferSettings, Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

/// The answer to every kind of request: what was not taken, and why. Its fields have the same places for all signals.
type Answer = ExportMetricsServiceResponse;

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
    Grpc { channel: Channel, metadata: MetadataMap, method: PathAndQuery },
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
            Protocol::HttpProtobuf => Way::Http { client: http(&target)? },
        };
        Ok(Self { target, way })
    }

    /// Sends one encoded request. Returns what the collector says it did not take, if it says so.
    pub(super) async fn send(&self, request: Vec<u8>) -> Result<Option<String>, Failure> {
        let sent = match &self.way {
            Way::Grpc { channel, metadata, method } => {
                let mut client = Grpc::new(channel.clone());
                if self.target.compression == Compression::Gzip {
                    client = client.send_compressed(CompressionEncoding::Gzip);
                }
                let request = Request::from_parts(metadata.clone(), Default::default(), request);
                tokio::time::timeout(self.target.timeout, call(client, method.clone(), request)).await
            }
            Way::Http { client } => tokio::time::timeout(self.target.timeout, self.post(client, request)).await,
        };
        sent.unwrap_or_else(|_| Err(Failure::Unavailable(format!("no answer within {:?}", self.target.timeout))))
    }

    async fn post(&self, client: &reqwest::Client, body: Vec<u8>) -> Result<Option<String>, Failure> {
        let unavailable = |error: reqwest::Error| Failure::Unavailable(causes(&error.without_url()));
        let mut post = client.post(&self.target.endpoint).header("content-type", "application/x-protobuf");
        for (name, value) in &self.target.headers {
            post = post.header(name, value);
        }
        let post = match self.target.compression {
            Compression::None => post.body(body),
            Compression::Gzip => post.header("content-encoding", "gzip").body(gzipped(&body)),
        };
        let answer = post.send().await.map_err(unavailable)?;
        let status = answer.status();
        if status.is_success() {
            let body = answer.bytes().await.map_err(unavailable)?;
            return Ok(Answer::decode(body).ok().and_then(rejected));
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

/// Why the way cannot be made.
pub(super) fn unusable(target: &Target, reason: impl ToString) -> Error {
    Error::Endpoint { signal: target.signal, endpoint: without_secrets(&target.endpoint), reason: reason.to_string() }
}

fn certificate(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Certificate { path: path.to_owned(), source })
}

/// The headers, for gRPC.
pub(super) fn metadata(target: &Target) -> Result<MetadataMap, Error> {
    let mut metadata = MetadataMap::new();
    for (name, value) in &target.headers {
        let key: AsciiMetadataKey = name.to_ascii_lowercase().parse().map_err(|error| unusable(target, error))?;
        let value: AsciiMetadataValue = value.parse().map_err(|error| unusable(target, error))?;
        metadata.insert(key, value);
    }
    Ok(metadata)
}

/// Whom to trust, for gRPC.
pub(super) fn tls(target: &Target) -> Result<ClientTlsConfig, Error> {
    let tls = ClientTlsConfig::new().with_enabled_roots();
    Ok(match &target.certificate {
        Some(path) => tls.ca_certificate(Certificate::from_pem(certificate(path)?)),
        None => tls,
    })
}

fn grpc(target: &Target) -> Result<Way, Error> {
    let mut endpoint = Endpoint::from_shared(target.endpoint.clone())
        .map_err(|error| unusable(target, causes(&error)))?
        .connect_timeout(target.timeout);
    if target.endpoint.starts_with("https://") {
        endpoint = endpoint.tls_config(tls(target)?).map_err(|error| unusable(target, causes(&error)))?;
    }
    let method = PathAndQuery::from_static(match target.signal {
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    });
    Ok(Way::Grpc { channel: endpoint.connect_lazy(), metadata: metadata(target)?, method })
}

/// A client for HTTP that trusts whom it shall and gives up in time.
pub(super) fn http(target: &Target) -> Result<reqwest::Client, Error> {
    let mut client = reqwest::Client::builder().connect_timeout(target.timeout).timeout(target.timeout);
    if let Some(path) = &target.certificate {
        let pem = reqwest::Certificate::from_pem(&certificate(path)?);
        client = client.tls_certs_merge([pem.map_err(|error| unusable(target, error))?]);
    }
    reqwest::Url::parse(&target.endpoint).map_err(|error| unusable(target, error))?;
    client.build().map_err(|error| unusable(target, causes(&error)))
}

async fn call(
    mut client: Grpc<Channel>,
    method: PathAndQuery,
    request: Request<Vec<u8>>,
) -> Result<Option<String>, Failure> {
    client.ready().await.map_err(|error| Failure::Unavailable(causes(&error)))?;
    let answer = client.unary(request, method, Encoded).await;
    answer.map(|answer| rejected(answer.into_inner())).map_err(|status| failure(&status))
}

/// Requests are bytes already; only the answer is decoded.
#[derive(Debug, Clone, Copy)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Vec<u8>;
    type Decode = Answer;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(&*item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(64 * 1024, 64 * 1024)
    }
}

impl Decoder for Encoded {
    type Item = Answer;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Answer>, Status> {
        Answer::decode(from).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

fn failure(status: &Status) -> Failure {
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

/// What the collector says it did not take.
fn rejected(answer: Answer) -> Option<String> {
    let part = answer.partial_success.filter(|part| part.rejected_data_points > 0)?;
    Some(format!("{} items not taken: {}", part.rejected_data_points, part.error_message))
}

fn gzipped(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Level::fast());
    let _a_vec_takes_all = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}
