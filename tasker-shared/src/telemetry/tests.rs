//! Telemetry as a whole, against collectors inside the test.

use super::{Settings, Span, Station, Telemetry, span_id};
use crate::{
    id::{CorrelationId, StepId, TaskId},
    metrics::{
        Metrics,
        labels::{InState, NamespacePriority, Task},
    },
    name::Name,
    task::state::TaskState,
};
use opentelemetry::trace::{SpanKind, TracerProvider};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest,
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::ExportTraceServiceRequest,
    },
    metrics::v1::{metric::Data, number_data_point::Value},
};
use prost::Message;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::{net::TcpListener, sync::mpsc};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};
use tracing_subscriber::layer::SubscriberExt;

const LONG: Duration = Duration::from_secs(10);

#[expect(clippy::disallowed_methods, reason = "the test's own mailbox")]
fn mailbox<T>() -> (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>) {
    mpsc::unbounded_channel()
}

/// What a subscriber writes; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// The lines that contain a text.
    pub(super) fn with(&self, what: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        text.lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
    }
}

struct Collector(mpsc::UnboundedSender<ExportMetricsServiceRequest>);

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let expected = request.metadata().get("api-key").is_some_and(|key| key == "secret");
        if !expected {
            return Err(Status::unauthenticated("no key"));
        }
        self.0.send(request.into_inner()).unwrap();
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn grpc_collector(listener: TcpListener) -> mpsc::UnboundedReceiver<ExportMetricsServiceRequest> {
    let (sender, receiver) = mailbox();
    let service =
        MetricsServiceServer::new(Collector(sender)).accept_compressed(tonic::codec::CompressionEncoding::Gzip);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    receiver
}

fn settings(address: SocketAddr, interval_ms: u64) -> Settings {
    let mut settings = Settings::default();
    settings.opentelemetry.enabled = true;
    settings.opentelemetry.endpoint = Some(format!("http://{address}"));
    settings.opentelemetry.export_interval_ms = interval_ms;
    settings.opentelemetry.batch_delay_ms = 20;
    settings.opentelemetry.headers = [("api-key".to_owned(), "secret".to_owned())].into();
    settings
}

fn start(settings: &Settings) -> Telemetry {
    Telemetry::start(settings, "test", "0", &|name| (name == "OTEL_TRACES_EXPORTER").then(|| "none".to_owned()))
        .unwrap()
}

fn task(correlation_id: CorrelationId) -> Task {
    let name = |text| Name::new(text).unwrap();
    Task { correlation_id, namespace: name("orders"), task_type: name("ship") }
}

fn claim(step: StepId) -> Span {
    Span {
        name: Station::Claim.as_str(),
        span_id: span_id(step.0, 1, Station::Claim),
        parent: None,
        start: SystemTime::now(),
        end: SystemTime::now(),
        kind: SpanKind::Consumer,
    }
}

/// Every number in a request: metric, labels, value; `None` where the series ends.
fn numbers(request: &ExportMetricsServiceRequest) -> Vec<(String, BTreeMap<String, String>, Option<i64>)> {
    let metrics = request.resource_metrics.iter().flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics);
    let mut numbers = Vec::new();
    for metric in metrics {
        let points = match &metric.data {
            Some(Data::Sum(sum)) => &sum.data_points,
            Some(Data::Gauge(gauge)) => &gauge.data_points,
            _ => continue,
        };
        for point in points {
            let labels = point.attributes.iter().map(|label| (label.key.clone(), format!("{:?}", label.value)));
            let value = match point.value {
                Some(Value::AsInt(value)) if point.flags == 0 => Some(value),
                _ => None,
            };
            numbers.push((metric.name.clone(), labels.collect(), value));
        }
    }
    numbers
}

fn of(metric: &str, request: &ExportMetricsServiceRequest) -> Vec<Option<i64>> {
    numbers(request).into_iter().filter(|(name, ..)| name == metric).map(|(.., value)| value).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_arrive_over_grpc_with_a_zero_before_the_first_value() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(listener.local_addr().unwrap(), 3_600_000);
    settings.opentelemetry.compression = super::settings::Compression::Gzip;
    let mut arrived = grpc_collector(listener);
    let telemetry = start(&settings);
    let correlation = CorrelationId::generate();
    telemetry.metrics().tasks_completions.add(3, task(correlation));
    telemetry.shutdown(LONG).await;
    let request = arrived.recv().await.unwrap();
    assert_eq!(of("tasker.tasks.completions.total", &request), [Some(0), Some(3)]);
    let (_, labels, _) = numbers(&request).into_iter().find(|(name, ..)| name.contains("completions")).unwrap();
    assert!(labels["correlation_id"].contains(&correlation.to_string()));
    let resource = request.resource_metrics[0].resource.clone().unwrap();
    assert!(resource.attributes.iter().any(|attribute| attribute.key == "service.name"));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_spans_arrive_over_http() {
    let (sender, mut bodies) = mailbox();
    let handler = move |uri: axum::http::Uri, body: axum::body::Bytes| async move {
        sender.send((uri.path().to_owned(), body)).unwrap();
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(listener.local_addr().unwrap(), 3_600_000);
    settings.opentelemetry.protocol = super::settings::Protocol::HttpProtobuf;
    tokio::spawn(axum::serve(listener, axum::Router::new().fallback(handler)).into_future());
    let telemetry = Telemetry::start(&settings, "test", "0", &|_| None).unwrap();
    let (correlation, step) = (CorrelationId::generate(), StepId::generate());
    telemetry.metrics().tasks_requests.add(1, task(correlation));
    telemetry.tracing().record(correlation, claim(step), |_| {});
    telemetry.shutdown(LONG).await;
    let mut arrived = BTreeMap::new();
    while let Ok((path, body)) = bodies.try_recv() {
        arrived.insert(path, body);
    }
    let metrics = ExportMetricsServiceRequest::decode(arrived["/v1/metrics"].clone()).unwrap();
    assert_eq!(of("tasker.tasks.requests.total", &metrics), [Some(0), Some(1)]);
    let traces = ExportTraceServiceRequest::decode(arrived["/v1/traces"].clone()).unwrap();
    assert_eq!(traces.resource_spans[0].scope_spans[0].spans[0].trace_id, correlation.0.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_traces_joins_the_trace_of_its_task() {
    let (sender, mut bodies) = mailbox();
    let handler = move |body: axum::body::Bytes| async move { sender.send(body).unwrap() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(listener.local_addr().unwrap(), 3_600_000);
    settings.opentelemetry.protocol = super::settings::Protocol::HttpProtobuf;
    let collector = axum::Router::new()
        .route("/v1/traces", axum::routing::post(handler))
        .fallback(|| async { axum::http::StatusCode::OK });
    tokio::spawn(axum::serve(listener, collector).into_future());
    let telemetry = Telemetry::start(&settings, "test", "0", &|_| None).unwrap();
    let (correlation, step) = (CorrelationId::generate(), StepId::generate());
    let execute = span_id(step.0, 1, Station::Execute);
    let layer = tracing_opentelemetry::layer().with_tracer(telemetry.tracer.as_ref().unwrap().tracer("tasker"));
    let subscriber = tracing::Dispatch::new(tracing_subscriber::registry().with(layer));
    let name = Name::new("pay").unwrap();
    let scope = telemetry.tracing().scope(correlation, execute, TaskId::generate(), step, name);
    let charge = || tracing::info_span!("charge").in_scope(|| tracing::info!("charging"));
    tracing::dispatcher::with_default(&subscriber, || scope.call(charge));
    let spawned = scope.around(async move { tracing::dispatcher::with_default(&subscriber, charge) });
    tokio::spawn(spawned).await.unwrap();
    telemetry.shutdown(LONG).await;
    let mut spans = Vec::new();
    while let Ok(body) = bodies.try_recv() {
        let traces = ExportTraceServiceRequest::decode(body).unwrap();
        spans.extend(traces.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans));
    }
    assert_eq!(spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), ["charge", "charge"]);
    assert!(spans.iter().all(|span| span.trace_id == correlation.0.as_bytes()));
    assert!(spans.iter().all(|span| span.parent_span_id == execute.to_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_collector_is_counted_and_everything_arrives_when_it_returns() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let telemetry = start(&settings(address, 20));
    let correlation = CorrelationId::generate();
    let failures =
        || !telemetry.prometheus_text().contains("tasker_telemetry_export_failures_total{signal=\"metrics\"} 0\n");
    telemetry.metrics().tasks_completions.add(1, task(correlation));
    tokio::time::timeout(LONG, async {
        while !failures() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    telemetry.metrics().tasks_completions.add(1, task(correlation));
    let mut arrived = grpc_collector(TcpListener::bind(address).await.unwrap());
    let mut seen = Vec::new();
    tokio::time::timeout(LONG, async {
        while seen.last() != Some(&Some(2)) {
            seen.extend(of("tasker.tasks.completions.total", &arrived.recv().await.unwrap()));
        }
    })
    .await
    .unwrap();
    assert_eq!(seen.first(), Some(&Some(0)));
    telemetry.shutdown(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_wait_for_a_collector_that_is_away_and_arrive_when_it_returns() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut settings = settings(address, 3_600_000);
    settings.opentelemetry.protocol = super::settings::Protocol::HttpProtobuf;
    let telemetry = Telemetry::start(&settings, "test", "0", &|_| None).unwrap();
    let (correlation, step) = (CorrelationId::generate(), StepId::generate());
    telemetry.tracing().record(correlation, claim(step), |_| {});
    let failures = "tasker_telemetry_export_failures_total{signal=\"traces\"} 0\n";
    tokio::time::timeout(LONG, async {
        while telemetry.prometheus_text().contains(failures) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let (sender, mut bodies) = mailbox();
    let handler = move |body: axum::body::Bytes| async move { sender.send(body).unwrap() };
    let collector = axum::Router::new().route("/v1/traces", axum::routing::post(handler));
    tokio::spawn(axum::serve(TcpListener::bind(address).await.unwrap(), collector).into_future());
    let arrived = tokio::time::timeout(LONG, bodies.recv()).await.unwrap().unwrap();
    let traces = ExportTraceServiceRequest::decode(arrived).unwrap();
    assert_eq!(traces.resource_spans[0].scope_spans[0].spans[0].trace_id, correlation.0.as_bytes());
    telemetry.shutdown(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_records_arrive_with_the_name_of_the_service() {
    let (sender, mut bodies) = mailbox();
    let handler = move |body: axum::body::Bytes| async move { sender.send(body).unwrap() };
    let collector = axum::Router::new()
        .route("/v1/logs", axum::routing::post(handler))
        .fallback(|| async { axum::http::StatusCode::OK });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(listener.local_addr().unwrap(), 3_600_000);
    settings.opentelemetry.protocol = super::settings::Protocol::HttpProtobuf;
    settings.logs.otlp = true;
    tokio::spawn(axum::serve(listener, collector).into_future());
    let telemetry = Telemetry::start(&settings, "test", "0", &|_| None).unwrap();
    let bridge =
        opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge::new(telemetry.logger.as_ref().unwrap());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(bridge), || {
        tracing::warn!(step.name = "pay", "no such account");
    });
    telemetry.shutdown(LONG).await;
    let logs = ExportLogsServiceRequest::decode(bodies.recv().await.unwrap()).unwrap();
    let of_service = &logs.resource_logs[0];
    let record = &of_service.scope_logs[0].log_records[0];
    assert_eq!(record.severity_text, "WARN");
    assert!(record.attributes.iter().any(|attribute| attribute.key == "step.name"));
    assert!(of_service.resource.as_ref().unwrap().attributes.iter().any(|of| of.key == "service.name"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gauge_persists_between_exports_and_ends_when_it_is_replaced() {
    let telemetry = Telemetry::start(&Settings::default(), "test", "0", &|_| None).unwrap();
    let metrics = telemetry.metrics();
    let recorder = telemetry.recorder.as_ref().unwrap();
    metrics
        .tasks_active
        .replace([(InState { state: TaskState::Pending }, 4), (InState { state: TaskState::Paused }, 1)]);
    let sent = || {
        let batch = recorder.batch();
        recorder.arrived(&batch);
        let mut values = of("tasker.tasks.active", &batch.requests[0]);
        values.sort_unstable();
        values
    };
    assert_eq!(sent(), [Some(1), Some(4)]);
    assert_eq!(sent(), [Some(1), Some(4)]);
    metrics.tasks_active.replace([(InState { state: TaskState::Pending }, 5)]);
    assert_eq!(sent(), [None, Some(5)]);
    assert_eq!(sent(), [Some(5)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scraped_pages_are_exact_and_without_correlation_ids() {
    let telemetry = Telemetry::start(&Settings::default(), "test", "0", &|_| None).unwrap();
    let metrics = telemetry.metrics();
    for _ in 0..5_000 {
        metrics.tasks_completions.add(1, task(CorrelationId::generate()));
    }
    let labels = NamespacePriority { namespace: Name::new("orders").unwrap(), priority: 7.into() };
    metrics.step_queue_wait_duration.record_duration(Duration::from_micros(300), labels);
    let held = metrics
        .http_server_active_requests
        .hold(crate::metrics::labels::ActiveRequests { method: "GET", scheme: "http" });
    let page = telemetry.prometheus_text();
    assert!(page.contains("tasker_tasks_completions_total{namespace=\"orders\",task_type=\"ship\"} 5000\n"), "{page}");
    let bucket =
        "tasker_step_queue_wait_duration_milliseconds_bucket{namespace=\"orders\",priority=\"high\",le=\"0.5\"} 1\n";
    assert!(page.contains(bucket), "{page}");
    assert!(page.contains("http_server_active_requests{http_request_method=\"GET\",url_scheme=\"http\"} 1\n"));
    assert!(page.lines().all(|line| line.starts_with('#') || !line.contains("correlation_id=")));
    let target = page.lines().find(|line| line.starts_with("target_info{")).unwrap();
    assert!(target.contains("host_name=") && target.contains(&format!("process_pid=\"{}\"", std::process::id())));
    drop(held);
    let page = telemetry.openmetrics_text();
    assert!(page.contains("http_server_active_requests{http_request_method=\"GET\",url_scheme=\"http\"} 0\n"));
    assert!(page.contains("# TYPE tasker_tasks_completions counter\n"));
    assert!(page.contains("tasker_tasks_completions_created{namespace=\"orders\",task_type=\"ship\"} "));
    assert!(page.ends_with("# EOF\n"));
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (_, rest) = line.split_once("} ").or(line.split_once(' ')).unwrap();
        let value = rest.split(' ').next().unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_leads_to_a_trace_that_is_kept() {
    let settings = settings("127.0.0.1:9".parse().unwrap(), 3_600_000);
    let telemetry = Telemetry::start(&settings, "test", "0", &|_| None).unwrap();
    let correlation = CorrelationId::generate();
    telemetry.metrics().tasks_completions.add(1, task(correlation));
    let page = telemetry.openmetrics_text();
    let exemplar = format!("# {{trace_id=\"{}\"}} 1 ", correlation.0.simple());
    assert!(page.contains(&exemplar), "{page}");
}

#[tokio::test]
async fn disabled_telemetry_records_nothing() {
    let settings = Settings { enabled: false, ..Settings::default() };
    let telemetry = Telemetry::start(&settings, "test", "0", &|_| None).unwrap();
    telemetry.metrics().tasks_completions.add(1, task(CorrelationId::generate()));
    assert_eq!((telemetry.prometheus_text(), telemetry.openmetrics_text()), (String::new(), "# EOF\n".to_owned()));
    Metrics::disabled().tasks_active.replace([(InState { state: TaskState::Pending }, 4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_tells_how_full_it_is() {
    let telemetry = Telemetry::start(&Settings::default(), "test", "0", &|_| None).unwrap();
    let (sender, mut receiver) = crate::metrics::channel::bounded("results", "worker", 4, telemetry.metrics());
    let usage = |percent: &str| {
        let line = format!("mpsc_channel_usage_percent{{channel=\"results\",component=\"worker\"}} {percent}\n");
        assert!(telemetry.prometheus_text().contains(&line), "{}", telemetry.prometheus_text());
    };
    usage("0");
    for n in 0..4 {
        sender.send(n).await.unwrap();
    }
    usage("100");
    assert!(sender.try_send(4).is_err());
    assert_eq!(receiver.recv().await, Some(0));
    usage("75");
    assert!(
        telemetry
            .prometheus_text()
            .contains("mpsc_channel_full_events_total{channel=\"results\",component=\"worker\"} 1\n")
    );
    drop((sender, receiver));
    assert!(!telemetry.prometheus_text().contains("mpsc_channel_usage_percent{"));
}
