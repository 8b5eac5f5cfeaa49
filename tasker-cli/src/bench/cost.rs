//! What telemetry costs: the same load with telemetry off and with everything on, in turns, each in a process and a
//! PostgreSQL of its own.
//!
//! The collector is one that takes everything and looks at nothing: what a real one does with it is done on another
//! machine.

use super::load::broken;
use crate::{args::BenchArgs, error::Result, exit::Exit, shell::Shell};
use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Response, header::CONTENT_TYPE},
};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tasker_shared::{
    id::CorrelationId,
    metrics::{ErrorType, Label, labels},
    name::Name,
    telemetry::{Settings, Telemetry},
};
use tokio::{net::TcpListener, process::Command};

/// How many measurements are recorded to see what one costs.
const MEASUREMENTS: u32 = 1_000_000;

/// The most that one measurement may cost, in nanoseconds.
const MOST_NS: f64 = 1_000.0;

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    /// What recording one duration with four labels costs, in nanoseconds.
    recording_ns: f64,
    /// The same for a count of a single task: a correlation id that is made for it, and two more labels.
    recording_of_task_ns: f64,
    /// One run without telemetry and one with it, each.
    pairs: Vec<Pair>,
    /// The part of the throughput that is lost, in percent: the median over the pairs.
    lost_percent: f64,
}

/// Two runs after each other.
#[derive(Debug, Serialize)]
struct Pair {
    /// Steps each second with telemetry off.
    off_steps_per_second: f64,
    /// Steps each second with metrics, and the traces of all tasks, exported.
    on_steps_per_second: f64,
    /// What the collector received, in bytes.
    exported_bytes: u64,
}

impl Pair {
    fn lost_percent(&self) -> f64 {
        100.0 * (1.0 - self.on_steps_per_second / self.off_steps_per_second)
    }
}

/// The part of a run's own report that is needed here.
#[derive(Debug, Deserialize)]
struct Run {
    steps_per_second: f64,
}

/// Measures so many pairs; every other one begins with telemetry on, so that a drift of the machine evens out.
///
/// # Errors
/// A run does not end well, or could not export everything.
pub(super) async fn run(args: &BenchArgs, pairs: u16, shell: &mut Shell) -> Result {
    let (recording_ns, recording_of_task_ns) = recording().await?;
    let received = Arc::new(AtomicU64::new(0));
    let endpoint = collector(Arc::clone(&received)).await?;
    let mut measured = Vec::new();
    for pair in 0..pairs {
        shell.remark(&format!("pair {} of {pairs}", pair + 1))?;
        let before = received.load(Ordering::Relaxed);
        let (off, on) = if pair % 2 == 0 {
            let off = load(args, None).await?;
            (off, load(args, Some(&endpoint)).await?)
        } else {
            let on = load(args, Some(&endpoint)).await?;
            (load(args, None).await?, on)
        };
        let exported_bytes = received.load(Ordering::Relaxed) - before;
        measured.push(Pair { off_steps_per_second: off, on_steps_per_second: on, exported_bytes });
    }
    let lost_percent = (median(measured.iter().map(Pair::lost_percent).collect()) * 100.0).round() / 100.0;
    let report = Report { recording_ns, recording_of_task_ns, pairs: measured, lost_percent };
    shell.print(&report, |_| text(&report))?;
    if recording_ns.max(recording_of_task_ns) >= MOST_NS {
        return Err(broken(format!("recording one measurement must cost less than {MOST_NS} ns")));
    }
    Ok(Exit::Ok)
}

/// What recording one measurement costs, in nanoseconds: without and with a correlation id, each time another one.
async fn recording() -> Result<(f64, f64)> {
    let telemetry = Telemetry::start(&Settings::default(), "bench", "0", &|_| None).map_err(broken)?;
    let metrics = telemetry.metrics();
    let name = |text| Name::new(text).map_err(broken);
    let route = Label::from("/v1/tasks");
    let request = || labels::HttpRequest { method: "POST", status: 201, route: route.clone(), scheme: "http" };
    let plain = each(|| metrics.http_server_request_duration.record(0.25, request()));
    let (namespace, error_type) = (name("bench")?, ErrorType::HandlerError);
    let of_task = each(|| {
        let correlation_id = CorrelationId::generate();
        metrics.steps_failures.add(1, labels::StepFailure { correlation_id, error_type, namespace: namespace.clone() });
    });
    telemetry.shutdown(Duration::ZERO).await;
    Ok((plain, of_task))
}

/// The middle value, or the mean of the middle two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], values[middle]) } else { values[middle] }
}

fn each(record: impl Fn()) -> f64 {
    let start = Instant::now();
    (0..MEASUREMENTS).for_each(|_| record());
    (start.elapsed().as_nanos() as f64 / f64::from(MEASUREMENTS)).round()
}

/// The load of `tasker bench` in a process of its own; answers with steps per second.
async fn load(args: &BenchArgs, endpoint: Option<&str>) -> Result<f64> {
    let mut command = Command::new(std::env::current_exe().map_err(broken)?);
    command
        .args(["bench", "--no-floor", "--samples", "1", "--json", "--duration"])
        .arg(format!("{}ms", args.duration.as_millis()))
        .arg("--steps")
        .arg(args.steps.to_string())
        .arg("--open")
        .arg(args.open.to_string())
        .stdin(Stdio::null());
    match endpoint {
        None => command.env("TELEMETRY_ENABLED", "false"),
        Some(endpoint) => command
            .env("TELEMETRY_ENABLED", "true")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .env("OTEL_TRACES_SAMPLER", "always_on"),
    };
    let output = command.output().await.map_err(broken)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(broken(format!("a run ended with {}: {said}", output.status)));
    }
    if said.contains("telemetry is not exported") && endpoint.is_some() {
        return Err(broken(format!("not everything was exported, so the run counts for nothing: {said}")));
    }
    let run: Run = serde_json::from_slice(&output.stdout).map_err(broken)?;
    Ok(run.steps_per_second)
}

/// Takes OTLP over gRPC and HTTP; answers with its endpoint.
async fn collector(received: Arc<AtomicU64>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(broken)?;
    let endpoint = format!("http://{}", listener.local_addr().map_err(broken)?);
    let router = Router::new().fallback(move |request| take(request, Arc::clone(&received)));
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(endpoint)
}

async fn take(request: Request<Body>, received: Arc<AtomicU64>) -> Response<Body> {
    let mut body = request.into_body().into_data_stream();
    while let Some(Ok(part)) = body.next().await {
        received.fetch_add(part.len() as u64, Ordering::Relaxed);
    }
    // one empty message, and the status that gRPC expects
    let mut response = Response::new(Body::from(vec![0; 5]));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response.headers_mut().insert("grpc-status", HeaderValue::from_static("0"));
    response
}

fn text(report: &Report) -> String {
    let line = |pair: &Pair| {
        format!(
            "off {:>6.0} steps/s   on {:>6.0} steps/s   lost {:>5.1} %   exported {:.0} MB\n",
            pair.off_steps_per_second,
            pair.on_steps_per_second,
            pair.lost_percent(),
            pair.exported_bytes as f64 / 1e6,
        )
    };
    let lines: String = report.pairs.iter().map(line).collect();
    format!(
        "recording        {:.0} ns with four labels, {:.0} ns with a new correlation id and two labels\n\
         {lines}median lost {:.1} %\n",
        report.recording_ns, report.recording_of_task_ns, report.lost_percent
    )
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!((median(vec![9.0, 1.0, 2.0, 4.0]), median(vec![9.0, 1.0, 2.0])), (3.0, 2.0));
    }
}
