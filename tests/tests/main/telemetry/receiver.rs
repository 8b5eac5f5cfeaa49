//! A collector inside the test: OTLP over gRPC and over HTTP, kept as it was decoded.

use anyhow::Result;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, Uri},
};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    logs::v1::LogRecord,
    trace::v1::Span,
};
use prost::Message;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};
use tasker_shared::telemetry::settings::Protocol;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

/// What arrived; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Receiver(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    metrics: Mutex<Vec<ExportMetricsServiceRequest>>,
    spans: Mutex<Vec<Span>>,
    logs: Mutex<Vec<LogRecord>>,
    refusals: AtomicU32,
}

impl Receiver {
    /// Listens, and answers with the endpoint.
    pub(super) async fn listen(&self, protocol: Protocol) -> Result<String> {
        self.listen_at("127.0.0.1:0", protocol).await
    }

    /// Listens at an address, for as long as the runtime of the caller lives.
    pub(super) async fn listen_at(&self, address: &str, protocol: Protocol) -> Result<String> {
        let listener = TcpListener::bind(address).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        match protocol {
            Protocol::Grpc => {
                let server = tonic::transport::Server::builder()
                    .add_service(MetricsServiceServer::new(self.clone()))
                    .add_service(TraceServiceServer::new(self.clone()))
                    .add_service(LogsServiceServer::new(self.clone()));
                tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
            }
            Protocol::HttpProtobuf => {
                let router = Router::new().fallback(post).with_state(self.clone());
                tokio::spawn(axum::serve(listener, router).into_future());
            }
        }
        Ok(endpoint)
    }

    /// Refuses the next `exports`, as a collector does that is overloaded.
    pub(super) fn refuse(&self, exports: u32) {
        self.0.refusals.store(exports, Ordering::Relaxed);
    }

    /// Every export of metrics, in the order of arrival.
    pub(super) fn metrics(&self) -> Vec<ExportMetricsServiceRequest> {
        self.0.metrics.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every span.
    pub(super) fn spans(&self) -> Vec<Span> {
        self.0.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every record of the logs.
    pub(super) fn logs(&self) -> Vec<LogRecord> {
        self.0.logs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn takes(&self) -> bool {
        let fewer = |left: u32| left.checked_sub(1);
        self.0.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_err()
    }

    fn keep_metrics(&self, request: ExportMetricsServiceRequest) {
        self.0.metrics.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    }

    fn keep_spans(&self, request: ExportTraceServiceRequest) {
        let scopes = request.resource_spans.into_iter().flat_map(|of_resource| of_resource.scope_spans);
        let spans = scopes.flat_map(|of_scope| of_scope.spans);
        self.0.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
    }

    fn keep_logs(&self, request: ExportLogsServiceRequest) {
        let scopes = request.resource_logs.into_iter().flat_map(|of_resource| of_resource.scope_logs);
        let records = scopes.flat_map(|of_scope| of_scope.log_records);
        self.0.logs.lock().unwrap_or_else(PoisonError::into_inner).extend(records);
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        if !self.takes() {
            return Err(Status::unavailable("busy"));
        }
        self.keep_metrics(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if !self.takes() {
            return Err(Status::unavailable("busy"));
        }
        self.keep_spans(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        if !self.takes() {
            return Err(Status::unavailable("busy"));
        }
        self.keep_logs(request.into_inner());
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

async fn post(State(receiver): State<Receiver>, uri: Uri, body: Bytes) -> StatusCode {
    if !receiver.takes() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    match uri.path() {
        "/v1/metrics" => match ExportMetricsServiceRequest::decode(body) {
            Ok(request) => receiver.keep_metrics(request),
            Err(_) => return StatusCode::BAD_REQUEST,
        },
        "/v1/traces" => match ExportTraceServiceRequest::decode(body) {
            Ok(request) => receiver.keep_spans(request),
            Err(_) => return StatusCode::BAD_REQUEST,
        },
        "/v1/logs" => match ExportLogsServiceRequest::decode(body) {
            Ok(request) => receiver.keep_logs(request),
            Err(_) => return StatusCode::BAD_REQUEST,
        },
        _ => return StatusCode::NOT_FOUND,
    }
    StatusCode::OK
}
