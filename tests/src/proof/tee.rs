//! Between the services and the receiver: every export is added up, and goes on.

use super::{Onwards, remote_write, sums::Sums};
use anyhow::Result;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message as _;

#[derive(Debug, Clone)]
struct Tee {
    sums: Sums,
    onwards: Onwards,
    http: reqwest::Client,
}

/// Listens for OTLP over HTTP; answers with the endpoint. Metrics go on to `onwards`, traces and logs end here.
pub(super) async fn listen(sums: Sums, onwards: Onwards) -> Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let tee = Tee { sums, onwards, http: reqwest::Client::new() };
    let limit = axum::extract::DefaultBodyLimit::disable();
    tokio::spawn(axum::serve(listener, Router::new().fallback(post).layer(limit).with_state(tee)).into_future());
    Ok(endpoint)
}

/// What the receiver does not take is not counted: the service sends it again.
async fn post(State(tee): State<Tee>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    if uri.path() != "/v1/metrics" {
        return StatusCode::OK;
    }
    let Ok(request) = ExportMetricsServiceRequest::decode(body.clone()) else { return StatusCode::BAD_REQUEST };
    match tee.onwards(&request, &headers, body).send().await {
        Ok(answer) if answer.status().is_success() => {
            tee.sums.add(request);
            StatusCode::OK
        }
        Ok(answer) => {
            println!("the receiver answers {}: {}", answer.status(), answer.text().await.unwrap_or_default());
            StatusCode::SERVICE_UNAVAILABLE
        }
        Err(error) => {
            println!("the receiver does not answer: {error}");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

impl Tee {
    fn onwards(
        &self,
        request: &ExportMetricsServiceRequest,
        headers: &HeaderMap,
        body: Bytes,
    ) -> reqwest::RequestBuilder {
        match &self.onwards {
            Onwards::Otlp(url) => {
                let onwards = self.http.post(format!("{}/v1/metrics", url.trim_end_matches('/'))).body(body);
                match headers.get(header::CONTENT_TYPE) {
                    Some(kind) => onwards.header(header::CONTENT_TYPE, kind),
                    None => onwards,
                }
            }
            Onwards::RemoteWrite(url) => self
                .http
                .post(url)
                .header(header::CONTENT_TYPE, "application/x-protobuf")
                .header(header::CONTENT_ENCODING, "snappy")
                .header("x-prometheus-remote-write-version", "0.1.0")
                .body(remote_write::body(request)),
        }
    }
}
